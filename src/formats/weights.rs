//! Where a model takes its weights from, whatever file they are in.

use std::collections::BTreeMap;
use std::path::Path;

use super::gguf::BlockTensor;
use super::low_bit::{LowBitLayer, Packed};
use super::model_config::ModelConfig;
use super::model_files::ModelFiles;
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

    /// What the file declares of a tensor of signs or of three values; [`Weights::get`] gives its numbers.
    fn low_bit(&self, _name: &str) -> Option<LowBitLayer> {
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

/// A checkpoint of a model that also sees pictures: the part that reads texts, under the names of a model that only does
/// that.
struct TextPart {
    checkpoint: Checkpoint,
    /// From the parameter's name to the tensor's.
    names: BTreeMap<String, String>,
}

impl TextPart {
    /// What the text part's names start with in such a checkpoint, and in one of a model of texts.
    const PREFIXES: [(&str, &str); 4] = [
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
        ("lm_head.", "lm_head."),
    ];
    /// What the names of the others start with.
    const OTHERS: [&str; 4] = [
        "vision_tower.",
        "multi_modal_projector.",
        "model.vision_tower.",
        "model.multi_modal_projector.",
    ];

    fn new(checkpoint: Checkpoint) -> TextPart {
        let is_text = |name: &&str| !Self::OTHERS.iter().any(|other| name.starts_with(other));
        let renamed = |name: &str| {
            let mut known = Self::PREFIXES.iter();
            let new =
                known.find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)));
            // An unknown tensor keeps its name, for the message of whoever does not know it.
            (new.unwrap_or_else(|| name.to_owned()), name.to_owned())
        };
        let names = checkpoint.names().filter(is_text).map(renamed).collect();
        TextPart { checkpoint, names }
    }

    /// Whether a checkpoint is one of such a model.
    fn is_in(checkpoint: &Checkpoint) -> bool {
        let starts = |name: &str| Self::OTHERS.iter().any(|other| name.starts_with(other));
        checkpoint
            .names()
            .any(|name| starts(name) || name.contains("language_model."))
    }

    fn stored<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

impl Weights for TextPart {
    fn source(&self) -> &Path {
        self.checkpoint.source()
    }

    fn names(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    fn stored_type(&self, name: &str) -> Option<StoredType> {
        Weights::stored_type(&self.checkpoint, self.stored(name))
    }

    fn get(&self, name: &str) -> Result<TensorView> {
        let tensor = self.checkpoint.get(self.stored(name))?;
        Ok(TensorView {
            name: name.to_owned(),
            ..tensor
        })
    }
}

/// The weights in a checkpoint's folder.
pub(super) fn open_folder(folder: &Path) -> Result<Box<dyn Weights>> {
    let checkpoint = Checkpoint::open(folder)?;
    Ok(match Packed::new(checkpoint)? {
        Ok(packed) => Box::new(packed),
        Err(plain) if TextPart::is_in(&plain) => Box::new(TextPart::new(plain)),
        Err(plain) => Box::new(plain),
    })
}

/// The configuration and the weights of the model at `path`: a checkpoint's folder in the Hugging Face layout, or a GGUF
/// file. What a file stores in blocks becomes numbers of the format `decoded`; see [`ModelWeights`](super::gguf::ModelWeights).
///
/// # Errors
/// If a file cannot be read, or is not one of a model that is supported; the message then lists those that are.
pub fn open_model(path: &Path, decoded: DType) -> Result<(ModelConfig, Box<dyn Weights>)> {
    let files = ModelFiles::open(path)?;
    Ok((files.config()?, files.weights(decoded)?))
}
