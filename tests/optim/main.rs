//! Optimizers, schedules, clipping and averages against PyTorch's numbers, and how a compiled step runs.

mod data;
#[cfg(feature = "llvm-backend")]
mod in_place;
mod optimizers;
mod resume;
mod schedules;
