//! MNIST (LeCun, Cortes and Burges: handwritten digits) and Fashion-MNIST (Xiao, Rasul and Vollgraf 2017: clothes):
//! 60,000 images to train on and 10,000 to test with, 28 by 28 bytes each, in ten classes.
//!
//! Where the files come from: the folder that the caller names, else `BB_DATA`, else the user's cache folder, into
//! which they are fetched on first use. Wherever they come from, they are the original ones by their SHA-256: that of
//! the packed file, or that of what it unpacks to, since some sources pack again; images of Fashion-MNIST only by that of
//! the packed file. [`Mnist::from_files`] reads any other
//! files of this form.
//!
//! Images stay bytes in memory; a batch has `(x / 255 - mean) / std`.

use std::path::{Path, PathBuf};

use super::Dataset;
use crate::array::{Array, Data};
use crate::error::{Error, Result};
use crate::formats::{Bytes, StoredType, TensorView, format_error, idx};

mod published;

pub use published::{Kind, Split};

/// Images of bytes with labels: samples are an image (`f32`) and its label (`i32`, no dimensions).
#[derive(Clone, Debug)]
pub struct Mnist {
    /// `images[n * size..][..size]` is image n.
    images: Bytes,
    labels: Bytes,
    /// Of one image.
    dims: Vec<usize>,
    /// The number that a pixel of each value becomes.
    values: Vec<f32>,
}

impl Mnist {
    /// The data set, its pixels scaled to 0 to 1. The files are looked for in `folder`, in `BB_DATA` when there is no
    /// `folder`, packed or plain, directly or in [`Kind::folder`] below it; with neither they come from the cache
    /// folder, or from the network on first use.
    ///
    /// # Errors
    /// If a file is not there and cannot be fetched, or is not the published one.
    pub fn open(kind: Kind, split: Split, folder: Option<&Path>) -> Result<Mnist> {
        let [images, labels] = published::open(kind, split, folder)?;
        let array = |(file, plain): published::Found| {
            idx::from_bytes(&file, &plain).map(|array| (file, array))
        };
        Mnist::from_arrays(array(images)?, array(labels)?)
    }

    /// Any images of bytes, `[n, rows, columns]`, with labels, `[n]`, in IDX files: other data sets of this form.
    ///
    /// # Errors
    /// If a file cannot be read, is not one of bytes with these dimensions, or the two do not belong together.
    pub fn from_files(images: impl AsRef<Path>, labels: impl AsRef<Path>) -> Result<Mnist> {
        let read = |file: &Path| idx::read(file).map(|array| (file.to_path_buf(), array));
        Mnist::from_arrays(read(images.as_ref())?, read(labels.as_ref())?)
    }

    fn from_arrays(images: (PathBuf, TensorView), labels: (PathBuf, TensorView)) -> Result<Mnist> {
        for ((file, array), rank) in [(&images, 3), (&labels, 1)] {
            if array.dtype != StoredType::U8 || array.shape.len() != rank {
                let (dtype, shape) = (array.dtype.name(), &array.shape);
                let what = format!("{dtype}{shape:?} is not U8 with {rank} dimensions");
                return Err(format_error(file, "dimensions", None, what));
            }
        }
        let (n_images, n_labels) = (images.1.shape[0], labels.1.shape[0]);
        if n_images != n_labels {
            let what = format!("{n_labels} labels for {n_images} images");
            return Err(format_error(&labels.0, "dimensions", None, what));
        }
        let dataset = Mnist {
            images: images.1.bytes,
            labels: labels.1.bytes,
            dims: images.1.shape[1..].to_vec(),
            values: pixel_values(0.0, 1.0),
        };
        Ok(dataset)
    }

    /// Pixels become `(x / 255 - mean) / std`; see [`Kind::statistics`].
    pub fn normalize(self, mean: f32, std: f32) -> Mnist {
        Mnist {
            values: pixel_values(mean, std),
            ..self
        }
    }

    /// Images have these dimensions: `[784]` for a perceptron, `[1, 28, 28]` for a convolution.
    ///
    /// # Panics
    /// If they have another number of pixels.
    #[track_caller]
    pub fn with_dims(self, dims: &[usize]) -> Mnist {
        let count = |dims: &[usize]| dims.iter().product::<usize>();
        assert_eq!(
            count(&self.dims),
            count(dims),
            "images of {:?} as {dims:?}",
            self.dims
        );
        Mnist {
            dims: dims.to_vec(),
            ..self
        }
    }

    /// The bytes of image `index`.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.dims.iter().product::<usize>();
        &self.images[index * size..][..size]
    }

    /// The labels of all images.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }
}

impl Dataset for Mnist {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn sample(&self, index: usize, epoch: u64) -> Result<Vec<Array>> {
        let mut fields = self.batch(&[index], epoch)?.into_iter();
        let mut field = |dims: &[usize]| {
            let batch = fields.next().expect("a batch has images and labels");
            batch.reshaped(dims.to_vec())
        };
        Ok(vec![field(&self.dims), field(&[])])
    }

    fn batch(&self, indices: &[usize], _epoch: u64) -> Result<Vec<Array>> {
        if let Some(index) = indices.iter().find(|&&index| index >= self.len()) {
            return Err(Error::msg(format!("image {index} of {}", self.len())));
        }
        let images = indices.iter().flat_map(|&index| self.image(index));
        let mut pixels = Vec::with_capacity(indices.len() * self.dims.iter().product::<usize>());
        pixels.extend(images.map(|&pixel| self.values[usize::from(pixel)]));
        let labels = indices.iter().map(|&index| i32::from(self.labels[index]));
        let dims = [&[indices.len()], self.dims.as_slice()].concat();
        Ok(vec![
            Array::new(dims, Data::F32(pixels)),
            Array::new(vec![indices.len()], Data::I32(labels.collect())),
        ])
    }
}

/// `(x / 255 - mean) / std` for every byte `x`.
pub fn pixel_values(mean: f32, std: f32) -> Vec<f32> {
    let value = |x: u8| (f32::from(x) / 255.0 - mean) / std;
    (0..=u8::MAX).map(value).collect()
}
