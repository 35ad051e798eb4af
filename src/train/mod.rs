//! What surrounds a training step: the data that goes in, and what is kept of how it went.
//!
//! | module | what lives there |
//! |---|---|
//! | [`data`] | data sets and the loader that makes batches of them |
//! | [`checkpoint`] | everything that a run needs to go on, in a folder that is whole or not there |
//! | [`metrics`] | numbers a step in a file, progress on the terminal, a guard against losses gone wrong |
//! | [`plot`] | curves of those numbers as SVG |
//!
//! Nothing here knows an optimizer or a model: batches, checkpoints and metrics are named arrays and numbers.

pub mod checkpoint;
pub mod data;
pub mod metrics;
pub mod plot;
