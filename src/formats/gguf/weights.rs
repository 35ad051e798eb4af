//! The tensors of a model in a GGUF file, with the names and the numbers that the crate's model has.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::bytes::Bytes;
use super::super::low_bit::LowBitLayer;
use super::super::tensor::{StoredType, TensorView};
use super::super::weights::Weights;
use super::super::{format_error, suggest::did_you_mean, tensor_field};
use super::architecture::{Architecture, ROPE_FACTORS};
use super::recode::Recoding;
use super::{BlockTensor, Gguf};
use crate::blocks::BlockType;
use crate::dtype::DType;
use crate::error::{Error, Result};

/// The weights of a model in a GGUF file.
///
/// F32, F16 and BF16 tensors are regions of the file. Blocks become numbers of another format each time they are asked
/// for. Norms of Gemma models are stored plus one; they become `f32` without it, which is exact for scales of at least one half.
#[derive(Clone, Debug)]
pub struct ModelWeights {
    file: Arc<Gguf>,
    architecture: Architecture,
    /// From the parameter's name to the tensor's.
    names: BTreeMap<String, String>,
    decoded: BlockType,
    /// By the tensors' names.
    layers: BTreeMap<String, LowBitLayer>,
}

impl ModelWeights {
    /// The weights in `file`; what is stored in blocks becomes numbers of the format `decoded`: `F32`, `F16` or `BF16`.
    ///
    /// # Errors
    /// If the file is of an architecture that is not supported, declares a low-bit layer in words that are not known, or
    /// `decoded` is another format.
    pub fn new(file: impl Into<Arc<Gguf>>, decoded: DType) -> Result<ModelWeights> {
        let file = file.into();
        let architecture = Architecture::of(&file)?;
        let decoded = match decoded {
            DType::F32 => BlockType::F32,
            DType::F16 => BlockType::F16,
            DType::BF16 => BlockType::BF16,
            other => return Err(Error::msg(format!("weights do not become {other}"))),
        };
        // The factors are a part of the configuration.
        let tensors = file.tensors().iter();
        let names = tensors
            .filter(|info| info.name != ROPE_FACTORS)
            .map(|info| {
                // An unknown tensor keeps its name, for the message of whoever does not know it.
                let parameter = architecture.parameter_name(&info.name);
                (
                    parameter.unwrap_or_else(|| info.name.clone()),
                    info.name.clone(),
                )
            });
        let names = names.collect();
        let layers = file.low_bit_layers()?;
        Ok(ModelWeights {
            file,
            architecture,
            names,
            decoded,
            layers,
        })
    }

    /// The format that a tensor of type `ty` is given in.
    fn given(&self, name: &str, ty: BlockType) -> BlockType {
        match ty {
            _ if self.architecture.adds_one(name) => BlockType::F32,
            BlockType::F32 | BlockType::F16 | BlockType::BF16 => ty,
            _ => self.decoded,
        }
    }
}

impl Weights for ModelWeights {
    fn source(&self) -> &Path {
        self.file.file()
    }

    fn names(&self) -> Vec<&str> {
        self.names.keys().map(String::as_str).collect()
    }

    fn stored_type(&self, name: &str) -> Option<StoredType> {
        let name = self.names.get(name)?;
        let info = self.file.info(name)?;
        self.given(name, info.ty).to_dtype().map(StoredType::from)
    }

    fn blocks(&self, name: &str) -> Option<BlockTensor> {
        let stored = self.names.get(name)?;
        if self.layers.contains_key(stored) {
            return None;
        }
        let tensor = self.file.get(stored).ok()?;
        let is_low = tensor.ty.block_len() > 1 && tensor.ty.can_dequantize();
        (is_low && !self.architecture.adds_one(stored)).then_some(tensor)
    }

    fn low_bit(&self, name: &str) -> Option<LowBitLayer> {
        self.layers.get(self.names.get(name)?).copied()
    }

    fn get(&self, name: &str) -> Result<TensorView> {
        let Some(stored) = self.names.get(name) else {
            let near = did_you_mean(name, self.names.keys().map(String::as_str));
            let what = format!("is not among the {} tensors{near}", self.names.len());
            let wanted = self
                .architecture
                .tensor_name(name)
                .unwrap_or_else(|| name.to_owned());
            return Err(format_error(
                self.source(),
                tensor_field(&wanted),
                None,
                what,
            ));
        };
        let tensor = self.file.get(stored)?;
        let given = self.given(stored, tensor.ty);
        let dtype = given.to_dtype().expect("plain formats are those of graphs");
        let add = if self.architecture.adds_one(stored) {
            -1.0
        } else {
            0.0
        };
        let bytes = if given == tensor.ty && add == 0.0 {
            tensor.bytes
        } else {
            let mut result = Ok(());
            let bytes = Bytes::build(tensor.elements() * given.block_bytes(), |target| {
                let mut at = 0;
                let recoding = Recoding {
                    from: tensor.ty,
                    to: given,
                    add,
                    errors: None,
                    n_threads: 1,
                };
                result = recoding.run(0, &tensor.bytes, &mut |piece| {
                    target[at..at + piece.len()].copy_from_slice(piece);
                    at += piece.len();
                    Ok(())
                });
            });
            let failed =
                |e: Error| format_error(self.source(), tensor_field(stored), None, e.to_string());
            result.map_err(failed)?;
            bytes
        };
        Ok(TensorView {
            name: name.to_owned(),
            dtype: StoredType::from(dtype),
            shape: tensor.shape,
            bytes,
        })
    }
}
