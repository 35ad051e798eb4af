//! The files of a model, opened once for everything that is read from them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chat_template;
use super::gguf::{Gguf, ModelWeights, is_gguf};
use super::tokenizer::Tokenizer;
use super::weights::{Weights, open_folder};
use crate::dtype::DType;
use crate::error::Result;
use crate::nn::models::ModelConfig;

/// A model in a checkpoint's folder in the Hugging Face layout, or in a GGUF file.
///
/// The header of a GGUF file, which holds the whole vocabulary, is parsed when it is opened and shared by clones.
///
/// ```no_run
/// use brain_blitz::formats::ModelFiles;
/// let files = ModelFiles::open("gemma-2-2b-it-Q8_0.gguf")?;
/// println!("{} layers", files.config()?.num_hidden_layers());
/// if let Some(tokenizer) = files.tokenizer()? {
///     println!("{} tokens", tokenizer.vocab_size());
/// }
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelFiles {
    path: PathBuf,
    /// Absent for a folder.
    gguf: Option<Arc<Gguf>>,
}

impl ModelFiles {
    /// The files at `path`. Of a folder nothing is read yet.
    ///
    /// # Errors
    /// If a GGUF file cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<ModelFiles> {
        let path = path.as_ref().to_path_buf();
        let gguf = is_gguf(&path).then(|| Gguf::open(&path).map(Arc::new));
        Ok(ModelFiles {
            gguf: gguf.transpose()?,
            path,
        })
    }

    /// The folder or the GGUF file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's configuration.
    ///
    /// # Errors
    /// As [`ModelConfig::open`].
    pub fn config(&self) -> Result<ModelConfig> {
        match &self.gguf {
            Some(file) => ModelConfig::from_gguf(file),
            None => ModelConfig::open(&self.path),
        }
    }

    /// The model's weights. What a GGUF file stores in blocks becomes numbers of the format `decoded` when somebody asks for
    /// numbers; see [`ModelWeights`].
    ///
    /// # Errors
    /// If a file cannot be read, or is not one of a model that is supported.
    pub fn weights(&self, decoded: DType) -> Result<Box<dyn Weights>> {
        match &self.gguf {
            Some(file) => Ok(Box::new(ModelWeights::new(file.clone(), decoded)?)),
            None => open_folder(&self.path),
        }
    }

    /// The model's tokenizer, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or is not a tokenizer.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        match &self.gguf {
            Some(file) => Tokenizer::from_gguf(file),
            None => Tokenizer::find_in_folder(&self.path),
        }
    }

    /// The text of the model's chat template, if there is one.
    ///
    /// # Errors
    /// If a file cannot be read, or does not hold what it should.
    pub fn chat_template(&self) -> Result<Option<String>> {
        match &self.gguf {
            Some(file) => chat_template::of_gguf(file),
            None => chat_template::of_folder(&self.path),
        }
    }
}
