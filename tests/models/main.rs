//! Models of the Llama family and Gemma 3 against logits and greedy continuations computed by transformers, through every
//! pipeline, from checkpoints' folders and from GGUF files.
//!
//! `tests/data/models` has small random checkpoints whose settings differ from the defaults. Long tests run real models
//! that `make models` fetches.

mod configs;
#[cfg(feature = "llvm-backend")]
mod continuations;
mod features;
mod gguf;
mod real;
mod reference;
mod support;
