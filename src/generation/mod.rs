//! Running language models: [`Session`] loads a checkpoint, feeds tokens and gives logits, [`Sampler`] chooses
//! the next token from them. [`ChatTemplate`] turns a conversation into text to continue. [`synthetic`] models have known shapes and random weights.

mod blocks;
pub mod chat;
mod compile;
pub mod sampler;
pub mod session;
pub mod synthetic;
mod weights;

pub use chat::{ChatTemplate, Message};
pub use sampler::{Sampler, Sampling};
pub use session::{Info, Options, Progress, Rows, Session};
