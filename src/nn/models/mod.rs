//! Whole models, written like their papers.
//!
//! A model is a [`LanguageModel`] with a configuration of its own; [`ModelConfig`] is that of any of them, and builds it.
//! Parameters have the names of Hugging Face checkpoints.

mod config;
mod decoder;
pub mod gemma2;
pub mod gemma3;
pub mod llama;

pub use config::ModelConfig;
pub use decoder::{LanguageModel, LayerType, NEW_TOKENS, PAST_TOKENS, Rows};
