//! Data sets of arrays in memory, and parts of a data set.

use super::{Dataset, rows};
use crate::array::Array;
use crate::error::{Error, Result};

/// Arrays whose first dimension counts the samples.
///
/// ```
/// use brain_blitz::array::{Array, Data};
/// use brain_blitz::train::data::{Dataset, TensorDataset};
/// let inputs = Array::new(vec![3, 2], Data::F32(vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
/// let labels = Array::new(vec![3], Data::I32(vec![7, 8, 9]));
/// let data = TensorDataset::new(vec![inputs, labels])?;
/// let batch = data.batch(&[2, 0], 0)?;
/// assert_eq!(batch[0].to_f32(), [4.0, 5.0, 0.0, 1.0]);
/// assert_eq!(batch[1].to_i32(), [9, 7]);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TensorDataset {
    fields: Vec<Array>,
    len: usize,
}

impl TensorDataset {
    /// A data set with these fields.
    ///
    /// # Errors
    /// If there is no field, one has no dimension, or they differ in their first.
    pub fn new(fields: Vec<Array>) -> Result<TensorDataset> {
        let lens: Vec<Option<usize>> = fields.iter().map(|f| f.dims().first().copied()).collect();
        match lens.first() {
            Some(&Some(len)) if lens.iter().all(|&other| other == Some(len)) => {
                Ok(TensorDataset { fields, len })
            }
            _ => {
                let dims: Vec<_> = fields.iter().map(Array::dims).collect();
                Err(Error::msg(format!(
                    "the fields of a data set need one first dimension, the number of samples; these have {dims:?}"
                )))
            }
        }
    }
}

impl Dataset for TensorDataset {
    fn len(&self) -> usize {
        self.len
    }

    fn sample(&self, index: usize, epoch: u64) -> Result<Vec<Array>> {
        let batch = self.batch(&[index], epoch)?.into_iter();
        let sample = |array: Array| {
            let dims = array.dims()[1..].to_vec();
            array.reshaped(dims)
        };
        Ok(batch.map(sample).collect())
    }

    fn batch(&self, indices: &[usize], _epoch: u64) -> Result<Vec<Array>> {
        if let Some(index) = indices.iter().find(|&&index| index >= self.len) {
            return Err(Error::msg(format!(
                "sample {index} of a data set of {}",
                self.len
            )));
        }
        Ok(self.fields.iter().map(|f| rows(f, indices)).collect())
    }
}

/// Some samples of a data set, such as those kept for validation.
#[derive(Clone, Debug)]
pub struct Subset<D> {
    data: D,
    indices: Vec<usize>,
}

impl<D: Dataset> Subset<D> {
    /// The samples `indices`, in this order.
    ///
    /// # Errors
    /// If one of them is not in the data set.
    pub fn new(data: D, indices: impl IntoIterator<Item = usize>) -> Result<Subset<D>> {
        let indices: Vec<usize> = indices.into_iter().collect();
        match indices.iter().find(|&&index| index >= data.len()) {
            None => Ok(Subset { data, indices }),
            Some(index) => Err(Error::msg(format!(
                "sample {index} of a data set of {}",
                data.len()
            ))),
        }
    }
}

impl<D: Dataset> Dataset for Subset<D> {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn sample(&self, index: usize, epoch: u64) -> Result<Vec<Array>> {
        self.data.sample(self.indices[index], epoch)
    }

    fn batch(&self, indices: &[usize], epoch: u64) -> Result<Vec<Array>> {
        let indices: Vec<usize> = indices.iter().map(|&index| self.indices[index]).collect();
        self.data.batch(&indices, epoch)
    }
}
