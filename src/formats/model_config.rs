//! The configuration of whatever model a path holds.

use std::path::Path;

use super::gemma2_config::Gemma2Config;
use super::gemma3_config::Gemma3Config;
use super::gguf::{self, Gguf, Writer, is_gguf};
use super::huggingface::ConfigReader;
use super::llama_config::LlamaConfig;
use crate::error::Result;
pub use crate::nn::models::ModelConfig;

/// A family of models, by how its configuration is read.
type Open = fn(&Path) -> Result<ModelConfig>;

fn gemma2(folder: &Path) -> Result<ModelConfig> {
    Gemma2Config::open(folder).map(ModelConfig::from)
}

fn gemma3(folder: &Path) -> Result<ModelConfig> {
    Gemma3Config::open(folder).map(ModelConfig::from)
}

fn llama(folder: &Path) -> Result<ModelConfig> {
    LlamaConfig::open(folder).map(ModelConfig::from)
}

/// What `model_type` may be, and who reads the rest.
const KINDS: [(&str, Open); 7] = [
    ("gemma2", gemma2),
    ("gemma3", gemma3),
    ("gemma3_text", gemma3),
    ("llama", llama),
    ("mistral", llama),
    ("qwen2", llama),
    ("qwen3", llama),
];

impl ModelConfig {
    /// Reads the configuration of a checkpoint's folder in the Hugging Face layout, or of a GGUF file. Which model it is
    /// says `model_type` in `config.json`, or `general.architecture` in the metadata.
    ///
    /// # Errors
    /// If a file cannot be read, the model is of a kind that is not supported, or its configuration is not what it should
    /// be. The message names the file and the field.
    pub fn open(path: impl AsRef<Path>) -> Result<ModelConfig> {
        let path = path.as_ref();
        if is_gguf(path) {
            return ModelConfig::from_gguf(&Gguf::open(path)?);
        }
        let mut reader = ConfigReader::open_folder(path)?;
        let kind = reader.string("model_type")?;
        match KINDS.iter().find(|row| row.0 == kind) {
            Some((_, open)) => open(path),
            None => {
                let names: Vec<String> = KINDS.iter().map(|row| format!("{:?}", row.0)).collect();
                let what = format!("is {kind:?}; supported are {}", names.join(", "));
                Err(reader.error("model_type", what))
            }
        }
    }

    /// The configuration in a GGUF file's metadata.
    ///
    /// # Errors
    /// As [`ModelConfig::open`].
    pub fn from_gguf(file: &Gguf) -> Result<ModelConfig> {
        gguf::read_config(file)
    }

    /// Adds the configuration to a GGUF file that is to be written.
    ///
    /// # Errors
    /// If the metadata cannot say it.
    pub fn to_gguf(&self, writer: &mut Writer) -> Result<()> {
        match self {
            ModelConfig::Gemma2(config) => config.to_gguf(writer),
            ModelConfig::Gemma3(config) => config.to_gguf(writer),
            ModelConfig::Llama(config) => config.to_gguf(writer),
        }
    }
}
