//! Data sets, and the loader that makes batches of them.
//!
//! ```text
//! Dataset (samples by index)  ->  DataLoader (order, batches, prefetch)  ->  Batch (one array a field)  ->  inputs of a graph
//! ```
//!
//! Invariants: what a data set gives for an index and an epoch, and the order in which a loader asks, are functions of
//! seeds and numbers alone. They do not depend on the machine, on prefetching or on where a run was resumed.
//!
//! | module | what lives there |
//! |---|---|
//! | [`loader`] | order, batches, prefetch, resuming |
//! | [`tensors`] | data sets of arrays in memory |
//! | [`affine`] | images turned, resized and moved at random |
//! | [`mnist`] | MNIST and Fashion-MNIST |
//! | [`fetch`] | files from the network, checked |
//! | [`text`] | windows of a stream of tokens |

use std::sync::Arc;

use crate::array::{Array, Data};
use crate::dtype::DType;
use crate::error::{Error, Result};

pub mod affine;
pub mod fetch;
pub mod loader;
pub mod mnist;
pub mod tensors;
pub mod text;

pub use affine::RandomAffine;
pub use loader::{Batch, DataLoader, Position};
pub use mnist::Mnist;
pub use tensors::{Subset, TensorDataset};
pub use text::TextDataset;

/// Samples that are asked for by index. A sample is one array a field: an image and its label, say.
///
/// ```
/// use brain_blitz::array::{Array, Data};
/// use brain_blitz::train::data::Dataset;
///
/// struct Squares;
///
/// impl Dataset for Squares {
///     fn len(&self) -> usize {
///         10
///     }
///
///     fn sample(&self, index: usize, _epoch: u64) -> brain_blitz::Result<Vec<Array>> {
///         let number = |x: usize| Array::new(vec![], Data::F32(vec![x as f32]));
///         Ok(vec![number(index), number(index * index)])
///     }
/// }
///
/// let batch = Squares.batch(&[2, 3], 0)?;
/// assert_eq!(batch[1].to_f32(), [4.0, 9.0]);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample `index`, below [`Dataset::len`]. What is drawn anew in each epoch is drawn from `epoch` and `index`;
    /// most data sets have nothing of that kind and ignore `epoch`.
    ///
    /// # Errors
    /// If the sample cannot be read.
    fn sample(&self, index: usize, epoch: u64) -> Result<Vec<Array>>;

    /// The samples `indices`, one array a field, `[indices.len(), ...]`.
    ///
    /// # Errors
    /// If a sample cannot be read, or two samples have arrays of different types.
    fn batch(&self, indices: &[usize], epoch: u64) -> Result<Vec<Array>> {
        let samples = indices.iter().map(|&index| self.sample(index, epoch));
        stack(samples.collect::<Result<_>>()?)
    }
}

/// A shared data set, for several loaders or [`Subset`]s of it.
impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn sample(&self, index: usize, epoch: u64) -> Result<Vec<Array>> {
        (**self).sample(index, epoch)
    }

    fn batch(&self, indices: &[usize], epoch: u64) -> Result<Vec<Array>> {
        (**self).batch(indices, epoch)
    }
}

/// Puts samples of one type together, field by field.
fn stack(samples: Vec<Vec<Array>>) -> Result<Vec<Array>> {
    let n = samples.len();
    let mut samples = samples.into_iter();
    let Some(first) = samples.next() else {
        return Ok(Vec::new());
    };
    let types: Vec<(Vec<usize>, DType)> = first.iter().map(type_of).collect();
    let mut fields: Vec<Data> = first.into_iter().map(Array::into_data).collect();
    for sample in samples {
        if !sample.iter().map(type_of).eq(types.iter().cloned()) {
            let found: Vec<_> = sample.iter().map(type_of).collect();
            return Err(Error::msg(format!(
                "the samples of a batch differ: {types:?} and {found:?}"
            )));
        }
        for (field, array) in fields.iter_mut().zip(sample) {
            append(field, array.into_data());
        }
    }
    let batched = fields.into_iter().zip(types);
    let array = |(data, (dims, _)): (Data, (Vec<usize>, DType))| {
        Array::new([&[n], dims.as_slice()].concat(), data)
    };
    Ok(batched.map(array).collect())
}

fn type_of(array: &Array) -> (Vec<usize>, DType) {
    (array.dims().to_vec(), array.dtype())
}

fn append(to: &mut Data, from: Data) {
    match (to, from) {
        (Data::F32(to), Data::F32(from)) => to.extend(from),
        (Data::F64(to), Data::F64(from)) => to.extend(from),
        (Data::F16(to), Data::F16(from)) => to.extend(from),
        (Data::BF16(to), Data::BF16(from)) => to.extend(from),
        (Data::I32(to), Data::I32(from)) => to.extend(from),
        (Data::Bool(to), Data::Bool(from)) => to.extend(from),
        _ => unreachable!("the types were compared"),
    }
}

/// Rows `indices` of an array's first dimension.
///
/// # Panics
/// If one of them is outside it.
fn rows(array: &Array, indices: &[usize]) -> Array {
    let row = array.dims()[1..].iter().product::<usize>();
    let data = crate::map_dtype!(array.data(), v => {
        let mut out = Vec::with_capacity(indices.len() * row);
        for &index in indices {
            out.extend_from_slice(&v[index * row..(index + 1) * row]);
        }
        out
    });
    Array::new([&[indices.len()], &array.dims()[1..]].concat(), data)
}

/// Random words for data: streams that no other use of the same seed draws from.
mod draw {
    use crate::op::random;

    /// What is drawn; each has a stream of its own.
    #[derive(Clone, Copy)]
    #[repr(u64)]
    pub(super) enum Purpose {
        Order = 0x6f72_6465_7200_0001,
        Window = 0x7769_6e64_6f77_0001,
        Placement = 0x706c_6163_6500_0001,
    }

    /// Four random words: block `index` of `epoch`.
    pub(super) fn words(purpose: Purpose, seed: u64, epoch: u64, index: u64) -> [u32; 4] {
        random::block(seed ^ purpose as u64, epoch, index)
    }

    /// A number below `bound` (at least 1): number `index` of `epoch`.
    ///
    /// The upper 64 bits of `word * bound`; for `bound` far below 2^64 each number is as likely as any other to within
    /// `bound / 2^64`.
    pub(super) fn below(purpose: Purpose, seed: u64, epoch: u64, index: u64, bound: u64) -> u64 {
        let words = words(purpose, seed, epoch, index);
        let word = u64::from(words[0]) << 32 | u64::from(words[1]);
        ((u128::from(word) * u128::from(bound)) >> 64) as u64
    }
}
