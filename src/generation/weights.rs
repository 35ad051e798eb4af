//! Where a session's parameters get their data from: a file, a generator of random numbers, or nowhere.

use std::sync::Arc;

use super::session::{Options, Progress};
use super::synthetic;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::pool;
use crate::formats::{Bytes, StoredType, TensorView, Weights as StoredWeights};
use crate::graph::GraphTensor;
use crate::nn::Module;
use crate::shape::Expr;

/// Where the parameters' data comes from.
pub(super) enum Weights<'a> {
    /// From a file.
    Stored(&'a dyn StoredWeights),
    /// Random numbers.
    Random { dtype: DType, seed: u64 },
    /// None at all.
    Absent { dtype: DType },
}

impl Weights<'_> {
    /// The format of a parameter.
    pub(super) fn dtype(&self, name: &str) -> DType {
        match *self {
            Weights::Stored(checkpoint) => stored_dtype(checkpoint, name),
            Weights::Random { dtype, .. } | Weights::Absent { dtype } => dtype,
        }
    }

    /// Gives every parameter its data; returns the bytes of all.
    ///
    /// # Errors
    /// If the data does not fit the model, or there is no memory.
    pub(super) fn load(
        &self,
        model: &(impl Module + ?Sized),
        options: &Options,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<u64> {
        match *self {
            Weights::Stored(checkpoint) => load_weights(model, checkpoint, progress),
            Weights::Random { seed, .. } => random_weights(model, seed, options, progress),
            Weights::Absent { .. } => sizes(model).map(|all| all.iter().sum()),
        }
    }
}

/// The bytes of each parameter.
fn sizes(model: &(impl Module + ?Sized)) -> Result<Vec<u64>> {
    let parameters = model.parameters();
    let bytes = parameters.iter().map(|(_, parameter)| {
        let ty = parameter.ty();
        let n = ty.numel().as_usize();
        n.and_then(|n| n.checked_mul(ty.dtype.size()))
            .map(|n| n as u64)
    });
    let all: Option<Vec<u64>> = bytes.collect();
    all.ok_or_else(|| Error::msg("the model is too large"))
}

fn random_weights(
    model: &(impl Module + ?Sized),
    seed: u64,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<u64> {
    let bytes = sizes(model)?;
    let total_bytes = bytes.iter().sum();
    let n_threads = options.threads.unwrap_or_else(pool::default_threads);
    let mut done_bytes = 0;
    for (i, (_, parameter)) in model.parameters().iter().enumerate() {
        let dtype = parameter.dtype();
        let n = bytes[i] as usize / dtype.size();
        let seed = seed.wrapping_add((i as u64) << 32);
        parameter.try_set_shared(synthetic::weights(n, dtype, seed, n_threads)?)?;
        done_bytes += bytes[i];
        progress(Progress::Loading {
            done_bytes,
            total_bytes,
        });
    }
    Ok(total_bytes)
}

/// The format that a parameter is computed from: the stored one when graphs have it, else `F32`.
fn stored_dtype(checkpoint: &dyn StoredWeights, name: &str) -> DType {
    let stored = checkpoint.stored_type(name);
    let dtype = stored.and_then(StoredType::to_dtype);
    dtype
        .filter(|dtype| matches!(dtype, DType::F32 | DType::F16 | DType::BF16))
        .unwrap_or(DType::F32)
}

/// A tensor of a file.
enum Stored {
    Blocks(Bytes),
    Numbers(TensorView),
}

impl Stored {
    /// Its bytes in the file.
    fn len(&self) -> u64 {
        match self {
            Stored::Blocks(bytes) => bytes.len() as u64,
            Stored::Numbers(tensor) => tensor.bytes.len() as u64,
        }
    }
}

/// Gives every parameter its data; returns the bytes of all.
fn load_weights(
    model: &(impl Module + ?Sized),
    checkpoint: &dyn StoredWeights,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<u64> {
    let parameters = model.parameters();
    let file = |what: String| Error::msg(format!("{}: {what}", checkpoint.source().display()));
    // The output layer is the embedding; some files have it twice.
    let unknown = |name: &&str| parameters.get(name).is_none() && *name != "lm_head.weight";
    if let Some(name) = checkpoint.names().into_iter().find(unknown) {
        return Err(file(format!("the model has no parameter {name:?}")));
    }
    let fits = |name: &str, parameter: GraphTensor, shape: &[usize]| {
        let dims: Vec<Expr> = shape.iter().map(|&n| Expr::from(n)).collect();
        let ty = parameter.ty();
        match dims[..] == ty.dims[..] {
            true => Ok(()),
            false => Err(file(format!(
                "tensor {name:?} has shape {shape:?}, but the configuration asks for {ty}"
            ))),
        }
    };
    // What is stored in blocks is the parameter's memory as it is; other formats are converted.
    let mut tensors = Vec::new();
    for (name, parameter) in parameters.iter() {
        let tensor = match checkpoint.blocks(name) {
            Some(blocks) => {
                fits(name, parameter, &blocks.shape)?;
                Stored::Blocks(blocks.bytes)
            }
            None => {
                let tensor = checkpoint.get(name)?;
                fits(name, parameter, &tensor.shape)?;
                Stored::Numbers(tensor)
            }
        };
        tensors.push((parameter, tensor));
    }
    let total_bytes = tensors.iter().map(|(_, tensor)| tensor.len()).sum();
    let mut done_bytes = 0;
    for (parameter, tensor) in tensors {
        done_bytes += tensor.len();
        let bytes = match tensor {
            Stored::Blocks(bytes) => bytes,
            Stored::Numbers(tensor) => tensor
                .convert_to(parameter.dtype())
                .map_err(|e| file(e.to_string()))?,
        };
        parameter.try_set_shared(Arc::new(bytes))?;
        progress(Progress::Loading {
            done_bytes,
            total_bytes,
        });
    }
    Ok(total_bytes)
}
