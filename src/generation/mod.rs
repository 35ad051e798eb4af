//! Running language models: [`Session`] loads a checkpoint, feeds tokens and gives logits, [`Sampler`] chooses
//! the next token from them. [`synthetic`] models have known shapes and random weights.

mod blocks;
pub mod sampler;
pub mod session;
pub mod synthetic;
mod weights;

pub use sampler::{Sampler, Sampling};
pub use session::{Info, Options, Progress, Rows, Session};
