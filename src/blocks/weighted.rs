//! Blocks of least error where some numbers matter more than others.
//!
//! A block starts as the plain encoder makes it. Then other scales are tried: the numbers are rounded to codes by each,
//! for these codes the scale of least weighted squared error has a closed form, and with that scale, rounded as it is stored,
//! they are rounded again. A candidate is decoded and compared by what it then is worth, in `f64`, so the result's weighted
//! error is never above that of the plain encoder. The formats stay as they are: any reader of ggml's blocks reads them.
//!
//! | types | candidates |
//! |---|---|
//! | `Q8_0`, `Q4_0`, `Q5_0` | scales of both signs around the one that just holds the largest number, and smaller |
//! | `Q4_1`, `Q5_1` | scales around that of the range, with minima by linear regression |
//! | `Q1_0`, `Q2_0`, `TQ1_0`, `TQ2_0` | signs and three values, with the scale for them |
//! | `Q4_K`, `Q6_K` | see [`super::k_weighted`] |
//!
//! Deliberately absent: errors that make up for each other in other columns (that is for signs:
//! [`super::sign_calibrated`]), and lattice codebooks.

use half::f16;

use super::{BlockType, inverse, k_weighted, legacy, put_half};

/// The longest block, in numbers.
const MOST: usize = 256;
/// The longest block, in bytes.
const MOST_BYTES: usize = 210;
/// Scales that are tried, of each sign.
const STEPS: usize = 16;

/// A block that is to become better.
pub(super) struct Best<'a> {
    ty: BlockType,
    x: &'a [f32],
    weights: &'a [f32],
    block: &'a mut [u8],
    error: f64,
}

impl<'a> Best<'a> {
    /// The numbers, and what errors of them are multiplied by.
    pub(super) fn numbers(&self) -> (&'a [f32], &'a [f32]) {
        (self.x, self.weights)
    }

    /// Whether numbers `d * code + m` may be better: worth writing them down.
    fn is_promising(&self, d: f32, m: f32, codes: &[i32]) -> bool {
        let numbers = self.x.iter().zip(self.weights).zip(codes);
        let one = |((x, w), code): ((&f32, &f32), &i32)| {
            let off = d * *code as f32 + m - x;
            w * (off * off)
        };
        f64::from(numbers.map(one).sum::<f32>()) < self.error * 1.0001
    }

    /// Takes what `write` makes of the block if it is better.
    pub(super) fn offer(&mut self, write: impl FnOnce(&mut [u8])) {
        let mut trial = [0; MOST_BYTES];
        let trial = &mut trial[..self.block.len()];
        trial.copy_from_slice(self.block);
        write(trial);
        if self.ty.overflows(trial) {
            return;
        }
        let error = error(self.ty, self.x, self.weights, trial);
        if error < self.error {
            self.error = error;
            self.block.copy_from_slice(trial);
        }
    }
}

/// The weighted squared error of a block.
fn error(ty: BlockType, x: &[f32], weights: &[f32], block: &[u8]) -> f64 {
    let mut y = [0.0; MOST];
    let y = &mut y[..x.len()];
    ty.row().decode.expect("what has an encoder has a decoder")(block, y);
    let numbers = x.iter().zip(y).zip(weights);
    let one = |((x, y), w): ((&f32, &mut f32), &f32)| {
        let off = f64::from(*x) - f64::from(*y);
        f64::from(*w) * off * off
    };
    numbers.map(one).sum()
}

/// Makes the error of a block of finite numbers, which the plain encoder wrote, as small as it can.
pub(super) fn improve(ty: BlockType, x: &[f32], columns: &[f32], block: &mut [u8]) {
    let largest = columns.iter().fold(0.0f32, |m, &h| m.max(h));
    if largest == 0.0 || x.iter().all(|x| *x == 0.0) {
        return;
    }
    let mut weights = [0.0; MOST];
    let weights = &mut weights[..x.len()];
    for (weight, column) in weights.iter_mut().zip(columns) {
        *weight = column / largest;
    }
    let error = error(ty, x, weights, block);
    let mut best = Best {
        ty,
        x,
        weights,
        block,
        error,
    };
    match ty {
        BlockType::Q8_0 => symmetric(&mut best, (-127, 127), 1.04, |d, codes, block| {
            legacy::put_q8_0(d, &legacy::bytes_of(codes, 0), block)
        }),
        BlockType::Q4_0 => symmetric(&mut best, (-8, 7), 1.7, |d, codes, block| {
            legacy::put_q4_0(d, &legacy::bytes_of(codes, 8), block)
        }),
        BlockType::Q5_0 => symmetric(&mut best, (-16, 15), 1.3, |d, codes, block| {
            legacy::put_q5_0(d, &legacy::bytes_of(codes, 16), block)
        }),
        BlockType::Q4_1 => affine(&mut best, 15, |line, codes, block| {
            legacy::put_q4_1(line, &legacy::bytes_of(codes, 0), block)
        }),
        BlockType::Q5_1 => affine(&mut best, 31, |line, codes, block| {
            legacy::put_q5_1(line, &legacy::bytes_of(codes, 0), block)
        }),
        BlockType::Q1_0 => signs(&mut best),
        BlockType::Q2_0 | BlockType::TQ1_0 | BlockType::TQ2_0 => {
            symmetric(&mut best, (-1, 1), 6.0, |d, codes, block| {
                three_values(ty, d, codes, block);
            });
        }
        BlockType::Q4_K => k_weighted::q4_k(&mut best),
        BlockType::Q6_K => k_weighted::q6_k(&mut best),
        _ => {}
    }
}

/// The nearest `f16`.
fn stored(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// Codes of numbers divided by `1 / id`.
fn round(x: &[f32], id: f32, (low, top): (i32, i32), codes: &mut [i32]) {
    for (x, code) in x.iter().zip(codes) {
        *code = ((x * id).round() as i32).clamp(low, top);
    }
}

/// The scale of least weighted error for codes, if any of them is not 0.
fn scale_of(x: &[f32], weights: &[f32], codes: &[i32]) -> Option<f32> {
    let (mut sum_xl, mut sum_l2) = (0.0f64, 0.0f64);
    for ((x, w), code) in x.iter().zip(weights).zip(codes) {
        let (w, l) = (f64::from(*w), f64::from(*code));
        sum_xl += w * f64::from(*x) * l;
        sum_l2 += w * l * l;
    }
    (sum_l2 > 0.0).then(|| (sum_xl / sum_l2) as f32)
}

/// Scales from 0.9 of the codes' end over the largest number that matters to `reach` times that.
fn symmetric(
    best: &mut Best<'_>,
    range: (i32, i32),
    reach: f32,
    put: impl Fn(f32, &[i32], &mut [u8]),
) {
    let (x, weights) = best.numbers();
    let matters = x.iter().zip(weights).filter(|(_, w)| **w > 0.0);
    let max = matters.fold(
        0.0f32,
        |max, (x, _)| if x.abs() > max.abs() { *x } else { max },
    );
    if max == 0.0 {
        return;
    }
    let first = 1.0 - 0.1 * (reach - 1.0).min(1.0);
    let growth = (reach / first).powf(1.0 / STEPS as f32);
    let mut codes = [0; MOST];
    let codes = &mut codes[..x.len()];
    for end in [range.0, range.1] {
        let mut factor = first;
        for _ in 0..=STEPS {
            round(x, end as f32 * factor / max, range, codes);
            factor *= growth;
            for _ in 0..2 {
                let Some(d) = scale_of(x, weights, codes).map(stored) else {
                    break;
                };
                round(x, inverse(d), range, codes);
                if best.is_promising(d, 0.0, codes) {
                    best.offer(|block| put(d, codes, block));
                }
            }
        }
    }
}

/// Codes -1, 0 and 1 as blocks of a type that has these: the plain encoder's of the codes, with another scale.
fn three_values(ty: BlockType, d: f32, codes: &[i32], block: &mut [u8]) {
    let mut units = [0.0; MOST];
    let units = &mut units[..codes.len()];
    for (unit, code) in units.iter_mut().zip(codes) {
        *unit = *code as f32;
    }
    ty.row().encode.expect("it has an encoder")(units, block);
    put_half(block, ty.scale_offsets()[0], d);
}

/// Signs stay; their scale is the weighted mean of magnitudes.
fn signs(best: &mut Best<'_>) {
    let (x, weights) = best.numbers();
    let (mut sum, mut total) = (0.0f64, 0.0f64);
    for (x, w) in x.iter().zip(weights) {
        sum += f64::from(*w) * f64::from(x.abs());
        total += f64::from(*w);
    }
    best.offer(|block| put_half(block, 0, (sum / total) as f32));
}

/// Scale and minimum of least weighted error for codes that are not all the same.
fn line_of(x: &[f32], weights: &[f32], codes: &[i32]) -> Option<(f32, f32)> {
    let (mut w0, mut l1, mut l2, mut x1, mut xl) = (0.0f64, 0.0f64, 0.0f64, 0.0f64, 0.0f64);
    for ((x, w), code) in x.iter().zip(weights).zip(codes) {
        let (x, w, l) = (f64::from(*x), f64::from(*w), f64::from(*code));
        w0 += w;
        l1 += w * l;
        l2 += w * l * l;
        x1 += w * x;
        xl += w * x * l;
    }
    let determinant = w0 * l2 - l1 * l1;
    (determinant > 1e-12 * w0 * l2).then(|| {
        let (d, m) = (w0 * xl - l1 * x1, l2 * x1 - l1 * xl);
        ((d / determinant) as f32, (m / determinant) as f32)
    })
}

/// Ranges from a little more than that of the numbers that matter to two thirds of it.
fn affine(best: &mut Best<'_>, top: i32, put: impl Fn([f32; 2], &[i32], &mut [u8])) {
    let (x, weights) = best.numbers();
    let matters = || x.iter().zip(weights).filter(|(_, w)| **w > 0.0);
    let low = matters().fold(f32::MAX, |m, (x, _)| m.min(*x));
    let high = matters().fold(f32::MIN, |m, (x, _)| m.max(*x));
    if high <= low {
        return;
    }
    let mut codes = [0; MOST];
    let codes = &mut codes[..x.len()];
    let round = |id: f32, m: f32, codes: &mut [i32]| {
        for (x, code) in x.iter().zip(codes) {
            *code = (((x - m) * id).round() as i32).clamp(0, top);
        }
    };
    let (middle, half) = ((low + high) / 2.0, (high - low) / 2.0);
    for step in 0..=STEPS {
        let half = half * (1.05 - 0.4 * step as f32 / STEPS as f32);
        round(top as f32 / (2.0 * half), middle - half, codes);
        for _ in 0..2 {
            let Some((d, m)) = line_of(x, weights, codes) else {
                break;
            };
            let (d, m) = (stored(d), stored(m));
            round(inverse(d), m, codes);
            if best.is_promising(d, m, codes) {
                best.offer(|block| put([d, m], codes, block));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern, from -1 to 1.
    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut next = crate::blocks::test_numbers(seed);
        (0..n)
            .map(|_| next() * next() * next() + 0.1 * next())
            .collect()
    }

    /// The weighted errors of the plain and the weighted encoder.
    fn errors(ty: BlockType, x: &[f32], columns: &[f32]) -> (f64, f64) {
        let error = |block: &[u8]| {
            let mut y = vec![0.0; x.len()];
            ty.dequantize(block, &mut y).unwrap();
            let pairs = x.iter().zip(&y).zip(columns.iter().cycle());
            pairs
                .map(|((x, y), w)| f64::from(*w) * f64::from(x - y).powi(2))
                .sum::<f64>()
        };
        let mut block = vec![0; ty.bytes_of(x.len()).unwrap()];
        ty.quantize(x, &mut block).unwrap();
        let plain = error(&block);
        ty.quantize_weighted(x, columns, 0, &mut block).unwrap();
        (plain, error(&block))
    }

    fn types() -> impl Iterator<Item = BlockType> {
        BlockType::all().filter(|ty| ty.can_quantize() && ty.block_len() > 1)
    }

    #[test]
    fn the_weighted_error_is_never_above_the_plain_encoders() {
        for ty in types() {
            let n = ty.block_len();
            for seed in 0..24 {
                let x = numbers(n, seed);
                let mut columns = numbers(n, seed + 1000);
                columns.iter_mut().for_each(|h| *h = (6.0 * *h).exp());
                if seed % 3 == 0 {
                    columns[..n / 2].fill(0.0);
                }
                let (plain, weighted) = errors(ty, &x, &columns);
                assert!(weighted <= plain, "{ty}, seed {seed}: {weighted} > {plain}");
            }
        }
    }

    #[test]
    fn on_skewed_columns_it_is_below() {
        for ty in types() {
            let x = numbers(ty.block_len() * 8, 7);
            let columns: Vec<f32> = numbers(ty.block_len(), 8)
                .iter()
                .map(|h| (8.0 * h).exp())
                .collect();
            let (plain, weighted) = errors(ty, &x, &columns);
            assert!(weighted < 0.9 * plain, "{ty}: {weighted}, not {plain}");
        }
    }

    #[test]
    fn special_blocks_stay_what_the_plain_encoder_made_of_them() {
        for ty in types() {
            let n = ty.block_len();
            let (mut plain, mut weighted) = (
                vec![0; ty.bytes_of(n).unwrap()],
                vec![1; ty.bytes_of(n).unwrap()],
            );
            let zeros = vec![0.0; n];
            let x = numbers(n, 3);
            for (x, columns) in [(&zeros, vec![1.0; n]), (&x, vec![0.0; n])] {
                ty.quantize(x, &mut plain).unwrap();
                ty.quantize_weighted(x, &columns, 0, &mut weighted).unwrap();
                assert_eq!(plain, weighted, "{ty}");
            }
        }
    }

    #[test]
    fn columns_of_another_width_and_bad_numbers_are_errors() {
        let ty = BlockType::Q4_0;
        let mut block = [0; 18];
        assert!(
            ty.quantize_weighted(&[0.0; 32], &[1.0; 48], 0, &mut block)
                .is_err()
        );
        assert!(
            ty.quantize_weighted(&[0.0; 32], &[1.0; 64], 8, &mut block)
                .is_err()
        );
        let mut x = [0.0; 32];
        x[5] = f32::NAN;
        let why = ty
            .quantize_weighted(&x, &[1.0; 64], 96, &mut block)
            .unwrap_err();
        assert!(why.to_string().contains("element 101"), "{why}");
    }
}
