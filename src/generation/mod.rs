//! Running language models: [`Session`] loads a checkpoint, feeds tokens and gives logits, [`Sampler`] chooses
//! the next token from them.

pub mod sampler;
pub mod session;

pub use sampler::{Sampler, Sampling};
pub use session::{Info, Options, Progress, Rows, Session};
