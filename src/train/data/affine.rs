//! Images that are turned, resized and moved at random, so that a network sees another picture of each in every epoch
//! (Simard, Steinkraus and Platt 2003, *Best Practices for Convolutional Neural Networks*, section 2).
//!
//! A pixel of the new image takes the number at the place of the old one that falls there, between four pixels
//! linearly; beyond the border lies what is on the border. What it deliberately does not do: crop, mirror, bend.

use super::draw::{Purpose, words};
use super::{Array, Data, Dataset};
use crate::error::{Error, Result};
use crate::op::random::unit;

/// A data set whose first field holds images, `f32` of `[.., rows, columns]`, each turned, resized and moved by amounts
/// drawn from the seed, the epoch and the image's index. With no amount given, nothing changes.
///
/// ```
/// use brain_blitz::array::{Array, Data};
/// use brain_blitz::train::data::{Dataset, RandomAffine, TensorDataset};
/// let images = Array::new(vec![1, 4, 4], Data::F32((0..16).map(|x| x as f32).collect()));
/// let images = RandomAffine::new(TensorDataset::new(vec![images])?, 7).degrees(10.0).shift(1.0);
/// let epochs = [0, 1].map(|epoch| images.sample(0, epoch).map(|fields| fields[0].to_f32()));
/// let [first, second] = epochs;
/// assert_ne!(first?, second?);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RandomAffine<D> {
    data: D,
    seed: u64,
    degrees: f32,
    shift: f32,
    scale: f32,
}

impl<D: Dataset> RandomAffine<D> {
    /// The images of `data`, moved by amounts that are drawn from `seed`.
    pub fn new(data: D, seed: u64) -> RandomAffine<D> {
        RandomAffine {
            data,
            seed,
            degrees: 0.0,
            shift: 0.0,
            scale: 0.0,
        }
    }

    /// Turned by up to this angle either way, in degrees.
    pub fn degrees(self, degrees: f32) -> RandomAffine<D> {
        RandomAffine { degrees, ..self }
    }

    /// Moved by up to so many pixels either way, along rows and columns.
    pub fn shift(self, shift: f32) -> RandomAffine<D> {
        RandomAffine { shift, ..self }
    }

    /// Larger or smaller by up to this share: 0.1 is a size of 0.9 to 1.1.
    ///
    /// # Panics
    /// If it is not between 0 and 1.
    #[track_caller]
    pub fn scale(self, scale: f32) -> RandomAffine<D> {
        assert!((0.0..1.0).contains(&scale), "a share of the size: {scale}");
        RandomAffine { scale, ..self }
    }

    /// What happens to image `index` in this epoch.
    fn placement(&self, index: usize, epoch: u64) -> Placement {
        let words = words(Purpose::Placement, self.seed, epoch, index as u64);
        let [turn, scale, down, right] = words.map(|word| 2.0 * unit(word) - 1.0);
        Placement {
            radians: (turn * self.degrees).to_radians(),
            size: 1.0 + scale * self.scale,
            shift: [down * self.shift, right * self.shift],
        }
    }

    /// Moves the images in the first field of these samples, each of which has the dims behind the first `batch` ones.
    fn moved(
        &self,
        mut fields: Vec<Array>,
        batch: usize,
        indices: &[usize],
        epoch: u64,
    ) -> Result<Vec<Array>> {
        let not_images = |field: Option<&Array>| {
            let found = field.map_or("nothing".into(), |field| {
                format!("{:?}{:?}", field.dtype(), field.dims())
            });
            Error::msg(format!(
                "images to move are F32 with rows and columns, the first field is {found}"
            ))
        };
        let Some(first) = fields.first_mut() else {
            return Err(not_images(None));
        };
        let dims = first.dims().to_vec();
        let (&[.., rows, columns], Data::F32(pixels)) = (&dims[batch..], first.data()) else {
            return Err(not_images(Some(first)));
        };
        if [self.degrees, self.shift, self.scale] == [0.0; 3] {
            return Ok(fields);
        }
        let mut out = vec![0.0; pixels.len()];
        let image = pixels.len() / indices.len().max(1);
        for (n, &index) in indices.iter().enumerate() {
            let placement = self.placement(index, epoch);
            let planes = n * image..(n + 1) * image;
            let (from, to) = (&pixels[planes.clone()], &mut out[planes]);
            let plane = (rows * columns).max(1);
            for (from, to) in from.chunks(plane).zip(to.chunks_mut(plane)) {
                placement.apply(from, to, [rows, columns]);
            }
        }
        *first = Array::new(dims, Data::F32(out));
        Ok(fields)
    }
}

impl<D: Dataset> Dataset for RandomAffine<D> {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn sample(&self, index: usize, epoch: u64) -> Result<Vec<Array>> {
        self.moved(self.data.sample(index, epoch)?, 0, &[index], epoch)
    }

    fn batch(&self, indices: &[usize], epoch: u64) -> Result<Vec<Array>> {
        self.moved(self.data.batch(indices, epoch)?, 1, indices, epoch)
    }
}

/// How an image is turned about its middle, resized and then moved.
struct Placement {
    /// From rows towards columns: clockwise.
    radians: f32,
    size: f32,
    /// Down and to the right, in pixels.
    shift: [f32; 2],
}

impl Placement {
    /// Makes a plane of `rows` by `columns` pixels out of another.
    fn apply(&self, from: &[f32], to: &mut [f32], [rows, columns]: [usize; 2]) {
        let middle = [rows, columns].map(|n| (n as f32 - 1.0) / 2.0);
        let (sine, cosine) = self.radians.sin_cos();
        for (at, pixel) in to.iter_mut().enumerate() {
            let y = (at / columns) as f32 - middle[0] - self.shift[0];
            let x = (at % columns) as f32 - middle[1] - self.shift[1];
            let old_y = (cosine * y - sine * x) / self.size + middle[0];
            let old_x = (sine * y + cosine * x) / self.size + middle[1];
            *pixel = between(from, [rows, columns], old_y, old_x);
        }
    }
}

/// The number at a place between pixels.
fn between(plane: &[f32], [rows, columns]: [usize; 2], y: f32, x: f32) -> f32 {
    let split = |at: f32, n: usize| {
        let at = at.clamp(0.0, (n - 1) as f32);
        let low = at as usize;
        (low, (low + 1).min(n - 1), at - low as f32)
    };
    let ((top, bottom, down), (left, right, along)) = (split(y, rows), split(x, columns));
    let row = |y: usize| {
        let (left, right) = (plane[y * columns + left], plane[y * columns + right]);
        left + along * (right - left)
    };
    let (top, bottom) = (row(top), row(bottom));
    top + down * (bottom - top)
}

#[cfg(test)]
mod tests {
    use super::super::TensorDataset;
    use super::*;

    /// `[2, 3, 4, 4]`, all numbers different.
    fn images() -> TensorDataset {
        let pixels = (0..96).map(|x| (x * 37 % 101) as f32).collect();
        let labels = Array::new(vec![2], Data::I32(vec![5, 6]));
        TensorDataset::new(vec![
            Array::new(vec![2, 3, 4, 4], Data::F32(pixels)),
            labels,
        ])
        .unwrap()
    }

    fn placed(radians: f32, size: f32, shift: [f32; 2], from: &[f32]) -> Vec<f32> {
        let mut to = vec![f32::NAN; from.len()];
        let placement = Placement {
            radians,
            size,
            shift,
        };
        placement.apply(from, &mut to, [3, 3]);
        to
    }

    #[test]
    fn a_quarter_turn_goes_clockwise_about_the_middle() {
        let from = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let to = placed(std::f32::consts::FRAC_PI_2, 1.0, [0.0; 2], &from);
        for (to, expected) in to.iter().zip([7.0, 4.0, 1.0, 8.0, 5.0, 2.0, 9.0, 6.0, 3.0]) {
            assert!((to - expected).abs() < 1e-5, "{to} {expected}");
        }
    }

    #[test]
    fn images_move_down_and_right_and_borders_go_on() {
        let from = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        let to = placed(0.0, 1.0, [1.0, 0.5], &from);
        assert_eq!(to, [1.0, 1.5, 2.5, 1.0, 1.5, 2.5, 4.0, 4.5, 5.5]);
        // Twice as large: what lay half as far from the middle.
        let to = placed(0.0, 2.0, [0.0; 2], &from);
        assert_eq!(to, [3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0]);
    }

    #[test]
    fn amounts_are_drawn_for_each_image_and_epoch() {
        let still = RandomAffine::new(images(), 3);
        assert_eq!(
            still.batch(&[0, 1], 0).unwrap(),
            images().batch(&[0, 1], 0).unwrap()
        );
        let moved = still.degrees(20.0).shift(1.0).scale(0.2);
        let batch = moved.batch(&[1, 0], 4).unwrap();
        assert_eq!(batch[1].to_i32(), [6, 5]);
        assert_eq!(
            batch[0].to_f32()[..48],
            moved.sample(1, 4).unwrap()[0].to_f32()
        );
        assert_eq!(
            batch[0].to_f32()[48..],
            moved.sample(0, 4).unwrap()[0].to_f32()
        );
        assert_ne!(batch, moved.batch(&[1, 0], 5).unwrap());
        let other = RandomAffine::new(images(), 4)
            .degrees(20.0)
            .shift(1.0)
            .scale(0.2);
        assert_ne!(batch, other.batch(&[1, 0], 4).unwrap());
        let placements = (0..500).map(|index| moved.placement(index, 0));
        let (mut most, mut least) = ([f32::MIN; 4], [f32::MAX; 4]);
        for at in placements {
            let amounts = [at.radians.to_degrees(), at.size, at.shift[0], at.shift[1]];
            most = std::array::from_fn(|i| most[i].max(amounts[i]));
            least = std::array::from_fn(|i| least[i].min(amounts[i]));
        }
        for (i, (low, high)) in [(-20.0, 20.0), (0.8, 1.2), (-1.0, 1.0), (-1.0, 1.0)]
            .iter()
            .enumerate()
        {
            let share = (high - low) / 50.0;
            assert!(
                least[i] >= low - 1e-4 && least[i] < low + share,
                "{i}: {}",
                least[i]
            );
            assert!(
                most[i] <= high + 1e-4 && most[i] > high - share,
                "{i}: {}",
                most[i]
            );
        }
    }

    #[test]
    fn other_fields_are_refused() {
        let labels = Array::new(vec![2], Data::I32(vec![5, 6]));
        let rows = Array::new(vec![2, 9], Data::F32(vec![1.0; 18]));
        for (field, shown) in [
            (labels, ["I32[1]", "I32[]"]),
            (rows, ["F32[1, 9]", "F32[9]"]),
        ] {
            let data = RandomAffine::new(TensorDataset::new(vec![field]).unwrap(), 1);
            let errors = [data.batch(&[0], 0), data.sample(0, 0)];
            for (error, shown) in errors.into_iter().zip(shown) {
                let error = error.unwrap_err().to_string();
                assert!(error.contains(shown), "{error}");
            }
        }
    }
}
