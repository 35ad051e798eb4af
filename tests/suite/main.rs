//! One suite, all pipelines: ops one by one, then random graphs.

mod ops;
mod pipelines;
mod random;
#[cfg(feature = "llvm-backend")]
mod threads;
