//! Everything that reads or writes foreign bytes: model files, their configuration and tokenizers, files of data sets.
//!
//! Two rules hold in every file below this one.
//! - *No byte is trusted.* A file that does not hold what it should is an [`Error::Format`] that names the file, the
//!   field and, where there is one, the byte offset. It is never a panic, and never an allocation that the size of
//!   the file does not justify: sizes that a file claims are checked against the bytes it has before they are used.
//! - *A file is replaced, not edited.* Writers go through [`crate::atomic`], so a killed process leaves the old file or
//!   the new one.
//!
//! The data in these files is little-endian, and it is handed on without swapping, so the module only builds for
//! little-endian targets.
//!
//! This layer knows number formats ([`crate::dtype`]) and errors; it builds no graph. Of the
//! models in [`crate::nn`] it knows the configurations, and how layers of few bits are declared.

use std::path::Path;

use crate::error::Error;

pub mod bytes;
pub mod calibration;
mod chat_template;
mod config_fields;
pub mod csv;
pub mod digest;
pub mod gemma2_config;
mod gemma2_config_write;
pub mod gemma3_config;
pub mod gguf;
pub mod huggingface;
pub mod idx;
mod json;
pub mod llama_config;
pub mod low_bit;
pub mod model_config;
mod model_files;
pub mod npy;
pub mod safetensors;
mod suggest;
pub mod tensor;
pub mod tokenizer;
mod tokenizer_parts;
mod weights;

pub use bytes::Bytes;
pub use calibration::Calibration;
pub use gemma2_config::Gemma2Config;
pub use gemma3_config::Gemma3Config;
pub use gguf::Gguf;
pub use huggingface::ConfigReader;
pub use llama_config::LlamaConfig;
pub use low_bit::LowBitLayer;
pub use model_config::ModelConfig;
pub use model_files::ModelFiles;
pub use safetensors::Checkpoint;
pub use tensor::{StoredType, TensorView};
pub use tokenizer::Tokenizer;
pub use weights::{Weights, open_model};

#[cfg(target_endian = "big")]
compile_error!("the formats module hands on little-endian data without swapping");

/// The [`Error::Format`] for `field` of `file`.
pub(crate) fn format_error(
    file: &Path,
    field: impl Into<String>,
    offset: Option<u64>,
    what: impl Into<String>,
) -> Error {
    Error::Format {
        file: file.to_path_buf(),
        field: field.into(),
        offset,
        what: what.into(),
    }
}

/// The [`Error::Io`] for `path`.
pub(crate) fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        path: path.to_path_buf(),
        source,
    }
}

/// How messages call a tensor.
fn tensor_field(name: &str) -> String {
    format!("tensor {}", quote(name))
}

/// A foreign string as it may stand in a message: quoted, with control characters escaped, cut to a readable length.
fn quote(text: &str) -> String {
    let short = shorten(text);
    match short.len() < text.len() {
        false => format!("{text:?}"),
        true => format!("{short:?}... ({} bytes)", text.len()),
    }
}

/// The start of a text that is too long for a message.
fn shorten(text: &str) -> &str {
    const LONGEST: usize = 160;
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((cut, _)) => &text[..cut],
    }
}
