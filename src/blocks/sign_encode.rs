//! Rows of numbers → signs and scales in a panel of [`SignMatrix`], and what that loses.
//!
//! One base without calibration is read once, for what is stored and for what is lost: the best scale is the mean magnitude,
//! and for any scale s
//!
//! ```text
//! Σ (x - s sign x)² = Σ x² - 2 s Σ |x| + n s²
//! ```
//! Where next to nothing is lost, that is a small difference of large sums, so there differences are squared one by one.

use half::f16;

use super::error_weights::ErrorWeights;
use super::sign_calibrated;
use super::sign_fit::{self, MOST_BASES};
use super::sign_matrix::{PANEL_ROWS, SignFit, SignMatrix};
use super::squared_error::SquaredError;
use crate::error::{Error, Result};

/// The part of a row's squares below which what is lost is not told from sums: their rounding is far less than this.
const LEAST_LOST: f64 = 1e-6;

/// Numbers that are read at a time.
const STRETCH: usize = 64;

/// Stores rows of a matrix.
pub(crate) struct RowEncoder<'a> {
    matrix: SignMatrix,
    fit: SignFit,
    weights: Option<&'a ErrorWeights>,
    /// Of a row: bit b of each is whether base b is positive.
    codes: Vec<u8>,
    /// What a row's codes stand for.
    numbers: Vec<f32>,
}

impl<'a> RowEncoder<'a> {
    /// For rows of `matrix`, of least error in products where there are `weights`.
    ///
    /// # Errors
    /// Three values in one base; weights of another number of columns.
    pub(crate) fn new(
        matrix: SignMatrix,
        fit: SignFit,
        weights: Option<&'a ErrorWeights>,
    ) -> Result<RowEncoder<'a>> {
        if fit.ternary && matrix.bases() < 2 {
            return Err(Error::msg("three values need two bases of signs"));
        }
        if let Some(weights) = weights.filter(|weights| weights.columns() != matrix.columns()) {
            let (given, columns) = (weights.columns(), matrix.columns());
            let what = format!("calibrated with {given} columns, but the matrix has {columns}");
            return Err(Error::msg(what));
        }
        Ok(RowEncoder {
            matrix,
            fit,
            weights,
            codes: Vec::new(),
            numbers: Vec::new(),
        })
    }

    /// Stores `x`, a row whose first number is element `first` for messages, as row `row` of a panel. Bytes of other rows stay
    /// as they are.
    ///
    /// # Errors
    /// A number that is not finite, or so large that a scale overflows.
    pub(crate) fn encode(
        &mut self,
        (first, x): (usize, &[f32]),
        panel: &mut [u8],
        row: usize,
    ) -> Result<SquaredError> {
        let one_base = self.matrix.bases() == 1 && self.weights.is_none();
        match one_base {
            true => self.encode_signs((first, x), panel, row),
            false => self.encode_codes((first, x), panel, row),
        }
    }

    fn encode_signs(
        &self,
        (first, x): (usize, &[f32]),
        panel: &mut [u8],
        row: usize,
    ) -> Result<SquaredError> {
        let (scales, bits) = panel.split_at_mut(4 * PANEL_ROWS);
        let sums = Sums::read(x, row, bits.as_chunks_mut::<PANEL_ROWS>().0);
        // No finite numbers have a sum beyond `f64`.
        if !sums.magnitudes.is_finite() {
            check(first, x)?;
        }
        let scale = self.scale(sums.magnitudes / x.len().max(1) as f64)?;
        scales[4 * row..][..4].copy_from_slice(&scale.to_le_bytes());
        Ok(sums.error(x, scale))
    }

    /// What is stored of a mean magnitude.
    fn scale(&self, mean: f64) -> Result<f32> {
        let scale = match self.fit.half_scales {
            true => f16::from_f32(mean as f32).to_f32(),
            false => mean as f32,
        };
        finite(scale)
    }

    fn encode_codes(
        &mut self,
        (first, x): (usize, &[f32]),
        panel: &mut [u8],
        row: usize,
    ) -> Result<SquaredError> {
        check(first, x)?;
        let bases = self.matrix.bases();
        self.codes.resize(x.len(), 0);
        let scales = match self.weights {
            None => sign_fit::fit(x, bases, self.fit, &mut self.codes),
            Some(weights) => sign_calibrated::fit(x, bases, self.fit, weights, &mut self.codes),
        };
        for scale in &scales {
            finite(*scale)?;
        }
        self.put(panel, row, &scales);
        let levels = levels(&scales);
        let numbers = self.codes.iter().map(|code| levels[usize::from(*code)]);
        self.numbers.clear();
        self.numbers.extend(numbers);
        Ok(SquaredError::of(x, &self.numbers))
    }

    fn put(&self, panel: &mut [u8], row: usize, scales: &[f32]) {
        let bases = panel.chunks_mut(self.matrix.base_bytes());
        for (base, (part, scale)) in bases.zip(scales).enumerate() {
            let (all_scales, bits) = part.split_at_mut(4 * PANEL_ROWS);
            all_scales[4 * row..][..4].copy_from_slice(&scale.to_le_bytes());
            let (eights, rest) = self.codes.as_chunks::<8>();
            for (eight, column) in eights.iter().zip(bits.chunks_mut(PANEL_ROWS)) {
                column[row] = gather(*eight, base);
            }
            if let Some(column) = bits.chunks_mut(PANEL_ROWS).nth(eights.len()) {
                let mut last = [0; 8];
                last[..rest.len()].copy_from_slice(rest);
                column[row] = gather(last, base);
            }
        }
    }
}

/// What a row's numbers add up to. Added in eight sums, so that it is vector code with the same bits on every machine, and the
/// mean is that of [`sign_fit`].
struct Sums {
    magnitudes: f64,
    squares: f64,
}

impl Sums {
    /// Of a row, whose signs are written to byte `row` of each column of eight.
    fn read(x: &[f32], row: usize, bits: &mut [[u8; PANEL_ROWS]]) -> Sums {
        let mut sums = [[0f64; 8]; 2];
        let (stretches, rest) = x.as_chunks::<STRETCH>();
        let (columns, last) = bits.split_at_mut(stretches.len() * (STRETCH / 8));
        let columns = columns.chunks_exact_mut(STRETCH / 8);
        for (stretch, columns) in stretches.iter().zip(columns) {
            read_stretch(stretch, &mut sums, row, columns);
        }
        if !rest.is_empty() {
            let mut stretch = [0.0; STRETCH];
            stretch[..rest.len()].copy_from_slice(rest);
            read_stretch(&stretch, &mut sums, row, last);
            let used = rest.len() % 8;
            if let (Some(column), true) = (last.last_mut(), used > 0) {
                column[row] &= (1 << used) - 1;
            }
        }
        let [magnitudes, squares] = sums.map(|sums| sums.iter().sum());
        Sums {
            magnitudes,
            squares,
        }
    }

    /// What is lost of the row with this scale.
    fn error(&self, x: &[f32], scale: f32) -> SquaredError {
        let s = f64::from(scale);
        let differences = self.squares - 2.0 * s * self.magnitudes + x.len() as f64 * s * s;
        if differences > LEAST_LOST * self.squares {
            return SquaredError {
                numbers: self.squares,
                differences,
            };
        }
        let numbers: Vec<f32> = x
            .iter()
            .map(|x| if *x >= 0.0 { scale } else { -scale })
            .collect();
        SquaredError::of(x, &numbers)
    }
}

/// Adds magnitudes and squares to sums, and writes signs to as many columns as there are. One loop for each, so that all are
/// vector code.
fn read_stretch(
    x: &[f32; STRETCH],
    [magnitudes, squares]: &mut [[f64; 8]; 2],
    row: usize,
    columns: &mut [[u8; PANEL_ROWS]],
) {
    let codes = x.map(|x| u8::from(x >= 0.0));
    for (codes, column) in codes.as_chunks::<8>().0.iter().zip(columns) {
        column[row] = gather(*codes, 0);
    }
    for eight in x.as_chunks::<8>().0 {
        for i in 0..8 {
            let size = f64::from(eight[i].abs());
            magnitudes[i] += size;
            squares[i] += size * size;
        }
    }
}

/// What codes stand for: the bases' terms, added in order, as [`SignMatrix::numbers`] adds them.
fn levels(scales: &[f32]) -> [f32; 1 << MOST_BASES] {
    std::array::from_fn(|code| {
        let term = |base: usize| match code >> base & 1 {
            1 => scales[base],
            _ => -scales[base],
        };
        (1..scales.len()).fold(term(0), |sum, base| sum + term(base))
    })
}

/// One bit of each of eight codes, the first code's in the lowest.
fn gather(codes: [u8; 8], bit: usize) -> u8 {
    /// Moves the lowest bit of byte i to bit 56 + i; no two bits meet anywhere, so nothing is carried.
    const TO_THE_TOP: u64 = 0x0102_0408_1020_4080;
    let bits = u64::from_le_bytes(codes) >> bit & 0x0101_0101_0101_0101;
    (bits.wrapping_mul(TO_THE_TOP) >> 56) as u8
}

/// # Errors
/// A number without a size; the first one is named.
fn check(first: usize, x: &[f32]) -> Result<()> {
    let wrong = |x: &f32| !x.is_finite();
    // To look at all of them is vector code; to stop at the first is not.
    if x.iter().fold(false, |any, x| any | wrong(x))
        && let Some(at) = x.iter().position(wrong)
    {
        let (element, x) = (first + at, x[at]);
        let what = format!("element {element} is {x}, which has no sign and size");
        return Err(Error::msg(what));
    }
    Ok(())
}

fn finite(scale: f32) -> Result<f32> {
    match scale.is_finite() {
        true => Ok(scale),
        false => Err(Error::msg("numbers are too large for a scale of signs")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row loses, and the numbers that are left of it.
    fn encoded(x: &[f32], bases: usize, fit: SignFit) -> (SquaredError, Vec<f32>) {
        let matrix = SignMatrix::new(1, x.len(), bases).unwrap();
        let (mut bytes, mut numbers) = (vec![0; matrix.bytes()], vec![0.0; x.len()]);
        let mut encoder = RowEncoder::new(matrix, fit, None).unwrap();
        let error = encoder.encode((0, x), &mut bytes, 0).unwrap();
        matrix.numbers(&bytes, &mut numbers);
        (error, numbers)
    }

    fn row(n: usize) -> Vec<f32> {
        let mut next = crate::blocks::test_numbers(n as u64);
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn what_is_lost_is_what_decoding_leaves() {
        for n in [1, 7, 8, 65, 2304] {
            let x = row(n);
            for (bases, ternary) in [(1, false), (2, false), (2, true), (4, false)] {
                for half_scales in [false, true] {
                    let fit = SignFit {
                        ternary,
                        half_scales,
                    };
                    let (error, numbers) = encoded(&x, bases, fit);
                    let square = |x: f64| x * x;
                    let squares: f64 = x.iter().map(|x| square(f64::from(*x))).sum();
                    let pairs = x.iter().zip(&numbers);
                    let lost: f64 = pairs
                        .map(|(x, y)| square(f64::from(*x) - f64::from(*y)))
                        .sum();
                    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b;
                    assert!(close(error.numbers, squares), "{error:?}, not {squares}");
                    assert!(close(error.differences, lost), "{error:?}, not {lost}");
                }
            }
        }
    }

    /// Sums of a million squares are off by more than nothing.
    #[test]
    fn rows_of_one_size_lose_nothing() {
        let x: Vec<f32> = row(3001).iter().map(|x| 0.123f32.copysign(*x)).collect();
        let (error, numbers) = encoded(&x, 1, SignFit::default());
        assert_eq!((error.differences, numbers), (0.0, x));
        let (zero, _) = encoded(&[0.0; 9], 1, SignFit::default());
        assert_eq!(zero, SquaredError::default());
    }

    #[test]
    fn reading_once_gives_the_signs_and_scales_of_the_general_fit() {
        for n in [1, 8, 9, 1000] {
            let mut x = row(n);
            (x[0], x[n / 2]) = (0.0, -0.0);
            for half_scales in [false, true] {
                let fit = SignFit {
                    ternary: false,
                    half_scales,
                };
                let mut codes = vec![0; n];
                let scales = sign_fit::fit(&x, 1, fit, &mut codes);
                let expected: Vec<f32> = codes
                    .iter()
                    .map(|c| levels(&scales)[usize::from(*c)])
                    .collect();
                assert_eq!(encoded(&x, 1, fit).1, expected);
            }
        }
    }

    #[test]
    fn numbers_without_a_size_are_named() {
        let matrix = SignMatrix::new(1, 20, 1).unwrap();
        let mut encoder = RowEncoder::new(matrix, SignFit::default(), None).unwrap();
        for (at, wrong) in [(3, f32::NAN), (19, f32::NEG_INFINITY)] {
            let mut x = row(20);
            x[at] = wrong;
            let error = encoder.encode((40, &x), &mut vec![0; matrix.bytes()], 0);
            let text = error.unwrap_err().to_string();
            assert!(
                text.contains(&format!("element {} is {wrong}", 40 + at)),
                "{text}"
            );
        }
        let huge = encoder.encode((0, &[f32::MAX; 20]), &mut vec![0; matrix.bytes()], 0);
        assert!(huge.is_ok(), "its scale is finite");
    }
}
