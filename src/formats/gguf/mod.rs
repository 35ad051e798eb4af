//! GGUF, the files of llama.cpp: typed metadata and tensors of block formats.
//!
//! ```text
//! "GGUF" version | counts | metadata: key, type, value .. | tensors: name, dims, type, offset .. | padding | data
//! ```
//!
//! Files are memory-mapped, and a tensor is a region of its map. Versions 2 and 3 are read, in little-endian order;
//! version 3 is written. See <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Invariants of an open [`Gguf`]: keys and names are unique; a tensor has the bytes that its type and shape ask for,
//! starts at a multiple of the file's alignment and overlaps no other. Shapes here have the dimension of
//! neighbouring elements last, as everywhere in this crate; the file names it first.
//!
//! [`Writer`] writes files, [`convert()`] makes them of checkpoints and of each other, [`ModelWeights`] gives the tensors of
//! a model the names and the numbers that the crate's model has.
//!
//! Deliberately absent: big-endian files, files in several parts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::bytes::Bytes;
use super::gemma2_config::Gemma2Config;
use super::gemma3_config::Gemma3Config;
use super::llama_config::LlamaConfig;
use super::low_bit::{self, LowBitLayer};
use super::model_config::ModelConfig;
use super::suggest::did_you_mean;
use super::{format_error, quote, tensor_field};
use crate::blocks::BlockType;
use crate::error::{Error, Result};

mod architecture;
mod convert;
mod gemma2;
mod gemma3;
mod keys;
mod llama;
mod moments;
mod parse;
mod recode;
mod scale;
pub(super) mod tokenizer;
mod tokenizer_write;
mod value;
mod weights;
mod words;
mod write;

use architecture::Architecture;
pub use convert::{Converted, Options, convert, convert_with};
pub use moments::Moments;
pub use scale::scale_rows;
pub use value::{Array, Value};
pub use weights::ModelWeights;
pub use write::{Sink, Writer};

/// What every file starts with.
const MAGIC: &[u8] = b"GGUF";
/// The key of the alignment of tensors.
const ALIGNMENT_KEY: &str = "general.alignment";
/// The alignment when a file names none.
const DEFAULT_ALIGNMENT: usize = 32;

/// An open GGUF file.
#[derive(Clone, Debug)]
pub struct Gguf {
    file: PathBuf,
    bytes: Bytes,
    version: u32,
    alignment: usize,
    metadata: BTreeMap<String, Value>,
    tensors: Vec<TensorInfo>,
    by_name: BTreeMap<String, usize>,
}

/// What a file says about a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// How its numbers are stored.
    pub ty: BlockType,
    /// Its shape; the last dimension is that of neighbouring elements.
    pub shape: Vec<usize>,
    /// The bytes of the file that it takes.
    start: usize,
    end: usize,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes that it takes.
    pub fn size(&self) -> usize {
        self.end - self.start
    }

    /// Where it lies in the file.
    pub fn offset(&self) -> usize {
        self.start
    }
}

/// A tensor of a block format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTensor {
    /// Its name in the file.
    pub name: String,
    /// How its numbers are stored.
    pub ty: BlockType,
    /// Its shape; the last dimension is that of neighbouring elements, and a whole number of blocks.
    pub shape: Vec<usize>,
    /// Its blocks.
    pub bytes: Bytes,
}

impl BlockTensor {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its numbers as `f32`.
    ///
    /// # Errors
    /// If there is no decoder for its type.
    pub fn dequantize(&self) -> Result<Vec<f32>> {
        let mut numbers = vec![0.0; self.elements()];
        let failed = |error| Error::msg(format!("{}: {error}", tensor_field(&self.name)));
        self.ty
            .dequantize(&self.bytes, &mut numbers)
            .map_err(failed)?;
        Ok(numbers)
    }
}

impl Gguf {
    /// Opens a file. It must not be changed in place while it or a tensor of it is alive; see [`super::bytes`].
    ///
    /// # Errors
    /// If the file cannot be opened, or any of the invariants in the module's header does not hold.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        let path = path.as_ref();
        Gguf::from_bytes(path, Bytes::map(path)?)
    }

    /// The file with these contents; messages call it `file`.
    ///
    /// # Errors
    /// If the bytes are not a valid GGUF file.
    pub fn from_bytes(file: &Path, bytes: Bytes) -> Result<Gguf> {
        let header = parse::parse(file, &bytes)?;
        let mut by_name = BTreeMap::new();
        for (at, tensor) in header.tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), at).is_some() {
                let field = tensor_field(&tensor.name);
                return Err(format_error(file, field, None, "occurs twice"));
            }
        }
        Ok(Gguf {
            file: file.to_path_buf(),
            bytes,
            version: header.version,
            alignment: header.alignment,
            metadata: header.metadata,
            by_name,
            tensors: header.tensors,
        })
    }

    /// The file that was opened.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// What every tensor's place is a multiple of.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// The metadata.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    /// The metadata's value of a key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// The layers of signs or three values that the metadata declares, by the names of tensors.
    ///
    /// # Errors
    /// If one is declared in words that are not known.
    pub fn low_bit_layers(&self) -> Result<BTreeMap<String, LowBitLayer>> {
        let entries = self.metadata().iter();
        let entries = entries.map(|(key, value)| match value {
            Value::String(text) => (key.as_str(), Some(text.as_str())),
            _ => (key.as_str(), None),
        });
        low_bit::declared(self.file(), entries)
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What the file says about the tensor called `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&at| &self.tensors[at])
    }

    /// The tensor called `name`, without copying it.
    ///
    /// # Errors
    /// If there is none; the message names the file and the nearest names that there are.
    pub fn get(&self, name: &str) -> Result<BlockTensor> {
        let Some(info) = self.info(name) else {
            let near = did_you_mean(name, self.by_name.keys().map(String::as_str));
            let what = format!("is not among the {} tensors{near}", self.tensors.len());
            return Err(format_error(&self.file, tensor_field(name), None, what));
        };
        Ok(BlockTensor {
            name: name.to_owned(),
            ty: info.ty,
            shape: info.shape.clone(),
            bytes: self.bytes.slice(info.start..info.end),
        })
    }

    /// The error that the metadata's value of `key` is wrong in the way that `what` says.
    fn error(&self, key: &str, what: impl Into<String>) -> Error {
        format_error(&self.file, metadata_field(key), None, what)
    }
}

/// The configuration of the model in a file.
///
/// # Errors
/// If the architecture is not supported, or a key is missing, unknown or out of range.
pub(super) fn read_config(file: &Gguf) -> Result<ModelConfig> {
    Ok(match Architecture::of(file)? {
        Architecture::Gemma2 => Gemma2Config::from_gguf(file)?.into(),
        Architecture::Gemma3 => Gemma3Config::from_gguf(file)?.into(),
        Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => {
            LlamaConfig::from_gguf(file)?.into()
        }
    })
}

/// Whether a file is one of GGUF, by its name or its first bytes.
pub fn is_gguf(path: &Path) -> bool {
    let named = path
        .extension()
        .is_some_and(|ext| ext.eq_ignore_ascii_case("gguf"));
    let mut magic = [0; MAGIC.len()];
    let mut read = || File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    path.is_file() && (named || (read().is_ok() && magic == MAGIC))
}

/// How messages call an entry of the metadata.
fn metadata_field(key: &str) -> String {
    format!("metadata {}", quote(key))
}
