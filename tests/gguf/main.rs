//! GGUF files and the block formats in them, against ggml's own functions and Python package.

use std::path::{Path, PathBuf};

mod blocks;
mod chat;
mod convert;
mod model;
mod reader;
mod tokenizer;
mod writer;

/// A checkpoint of `tests/data/gemma2`.
fn gemma2(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/gemma2")
        .join(name)
}

/// A file of `tests/data/gguf`.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/gguf")
        .join(name)
}
