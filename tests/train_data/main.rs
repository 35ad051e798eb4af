//! What surrounds training: files of data, loaders, checkpoints, metrics and plots.

mod csv;
mod idx;
