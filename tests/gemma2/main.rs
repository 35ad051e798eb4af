//! Gemma 2 against logits and greedy continuations computed by transformers, through every pipeline.
//!
//! `tests/data/gemma2` has small random checkpoints whose settings differ from the defaults; each pipeline must give
//! their logits and choose their tokens. `models/gemma2-shakespeare` is the trained model.

mod support;

mod caches;
mod features;
mod feeding;
mod reference;
#[cfg(feature = "llvm-backend")]
mod structure;
mod trained;
