//! Running language models: [`Session`] loads a checkpoint, feeds tokens and gives logits, [`Sampler`] chooses
//! the next token from them, [`stop`] ends a text. [`ChatTemplate`] turns a [`Conversation`] into text to continue,
//! [`ReusingSession`] does not feed again what turns have in common. [`synthetic`] models have known shapes and random
//! weights.

mod blocks;
pub mod calibrate;
pub mod chat;
pub(crate) mod compile;
pub mod conversation;
pub mod evaluate;
pub mod logprobs;
mod low_bit;
pub mod plan;
mod quant;
pub mod reuse;
pub mod sampler;
pub mod session;
pub mod stop;
pub mod synthetic;
mod weights;

pub use calibrate::calibrate;
pub use chat::{ChatTemplate, Message};
pub use conversation::Conversation;
pub use quant::{Quant, SignWeights};
pub use reuse::ReusingSession;
pub use sampler::{Sampler, Sampling};
pub use session::{CacheType, Info, Options, Progress, Rows, Session};
