//! Digits, as the examples that learn them read them.

use std::path::Path;

use brain_blitz::array::Array;
use brain_blitz::prelude::*;
use brain_blitz::train::data::Batch;
use brain_blitz::train::data::mnist::{Kind, Mnist, Split};

/// How many there are.
pub const N_CLASSES: usize = 10;

/// The images as `[1, 28, 28]`, normalized.
pub fn open(split: Split, folder: Option<&Path>) -> Result<Mnist> {
    let (mean, deviation) = Kind::Digits.statistics();
    let images = Mnist::open(Kind::Digits, split, folder)?;
    Ok(images.normalize(mean, deviation).with_dims(&[1, 28, 28]))
}

/// Images and labels.
pub fn fields(batch: Batch) -> [Array; 2] {
    batch.arrays.try_into().expect("a sample has two fields")
}

/// Images of stripes that lie as their labels say: data without files.
pub fn stripes(batch: usize) -> (Vec<f32>, Vec<i32>) {
    let labels: Vec<i32> = (0..batch).map(|i| (i % N_CLASSES) as i32).collect();
    let mut images = Vec::with_capacity(batch * 28 * 28);
    for label in &labels {
        for at in 0..28 * 28 {
            let (row, column) = ((at / 28) as f32, (at % 28) as f32);
            let angle = *label as f32 * std::f32::consts::PI / N_CLASSES as f32;
            images.push((row * angle.sin() + column * angle.cos()).sin());
        }
    }
    (images, labels)
}
