//! What surrounds training: files of data, loaders, checkpoints, metrics and plots.

mod checkpoint;
mod csv;
#[cfg(feature = "download")]
mod fetch;
mod idx;
mod loader;
mod metrics;
mod mnist;
mod plot;
mod text;
