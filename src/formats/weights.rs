//! Where a model takes its weights from, whatever file they are in.

use std::path::Path;

use super::gemma2_config::Gemma2Config;
use super::gguf::{BlockTensor, Gguf, ModelWeights, is_gguf};
use super::safetensors::Checkpoint;
use super::tensor::{StoredType, TensorView};
use crate::dtype::DType;
use crate::error::Result;

/// Tensors under the names that the crate's models give their parameters.
pub trait Weights {
    /// The file, for messages.
    fn source(&self) -> &Path;

    /// All names.
    fn names(&self) -> Vec<&str>;

    /// The type in which [`Weights::get`] gives a tensor, if there is such a tensor. Nothing is read or computed.
    fn stored_type(&self, name: &str) -> Option<StoredType>;

    /// A tensor.
    ///
    /// # Errors
    /// If there is none of this name, or its numbers cannot be had.
    fn get(&self, name: &str) -> Result<TensorView>;

    /// The blocks of a tensor that is stored in a low-bit type and means what they say.
    fn blocks(&self, _name: &str) -> Option<BlockTensor> {
        None
    }
}

impl Weights for Checkpoint {
    fn source(&self) -> &Path {
        Checkpoint::source(self)
    }

    fn names(&self) -> Vec<&str> {
        Checkpoint::names(self).collect()
    }

    fn stored_type(&self, name: &str) -> Option<StoredType> {
        self.get(name).ok().map(|tensor| tensor.dtype)
    }

    fn get(&self, name: &str) -> Result<TensorView> {
        Checkpoint::get(self, name)
    }
}

/// The configuration and the weights of the Gemma 2 at `path`: a checkpoint's folder in the Hugging Face layout, or a GGUF
/// file. What a file stores in blocks becomes numbers of the format `decoded`; see [`ModelWeights`].
///
/// # Errors
/// If a file cannot be read, or is not one of such a model.
pub fn open_gemma2(path: &Path, decoded: DType) -> Result<(Gemma2Config, Box<dyn Weights>)> {
    if is_gguf(path) {
        let file = Gguf::open(path)?;
        let config = Gemma2Config::from_gguf(&file)?;
        return Ok((config, Box::new(ModelWeights::new(file, decoded)?)));
    }
    let config = Gemma2Config::open(path)?;
    Ok((config, Box::new(Checkpoint::open(path)?)))
}
