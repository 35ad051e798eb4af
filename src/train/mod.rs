//! Training: what turns gradients into new weights, and what surrounds a step.
//!
//! | module | what lives there |
//! |---|---|
//! | [`optim`] | optimizers, clipping, accumulation and averages of weights, as graph |
//! | [`schedule`] | how the learning rate changes from step to step |
//! | [`data`] | data sets and the loader that makes batches of them |
//! | [`checkpoint`] | everything that a run needs to go on, in a folder that is whole or not there |
//! | [`distill`] | a network of few bits that learns what another one answers |
//! | [`rescale`] | factors for rows of rounded weights, learnt from the model as it was |
//! | [`metrics`] | numbers a step in a file, progress on the terminal, a guard against losses gone wrong |
//! | [`plot`] | curves of those numbers as SVG |
//!
//! Optimizers and schedules only record graph; batches, checkpoints and metrics are named arrays and numbers, and know
//! no optimizer and no model.

pub mod checkpoint;
pub mod data;
pub mod distill;
pub mod metrics;
pub mod optim;
pub mod plot;
pub mod rescale;
pub mod schedule;
