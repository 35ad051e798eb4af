//! An input's data → blocks of a low-bit type, or signs and scales, and what that loses.

use crate::array::Array;
use crate::blocks::{
    BlockErrors, BlockType, ColumnStats, ErrorWeights, PANEL_ROWS, RowEncoder, SignFit, SignMatrix,
    SquaredError,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::storage::AlignedBytes;

/// Numbers that are encoded at a time, by one thread; they and what is left of them fit in the nearest caches.
const CHUNK: usize = 1 << 13;

/// An input that was stored in blocks.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// The input's name, or its number.
    pub name: String,
    /// The type of its blocks.
    pub ty: BlockType,
    /// How many numbers it has.
    pub n: usize,
    /// What it took before.
    pub bytes_before: usize,
    /// What it takes now.
    pub bytes: usize,
    /// Root of the mean squared difference from the numbers before.
    pub rmse: f64,
    /// Ratio of the mean square of the numbers to that of the differences, in decibels; infinite if nothing was lost.
    pub snr_db: f64,
    /// The part of the mean square of products with calibration data that is lost, where there was such data.
    pub output_error: Option<f64>,
}

impl std::fmt::Display for StoredTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = self.ty.bits_per_weight();
        let (name, ty, bytes, rmse, snr) =
            (&self.name, self.ty, self.bytes, self.rmse, self.snr_db);
        write!(
            f,
            "{name}: {ty}, {bits} bits, {bytes} bytes, RMSE {rmse:.3e}, SNR {snr:.1} dB{}",
            words(self.output_error)
        )
    }
}

/// An input that was stored as signs and scales.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedTensor {
    /// The input's name, or its number.
    pub name: String,
    /// Its sizes and bases.
    pub matrix: SignMatrix,
    /// How signs and scales were found.
    pub fit: SignFit,
    /// What it took before.
    pub bytes_before: usize,
    /// What it takes now.
    pub bytes: usize,
    /// Root of the mean squared difference from the numbers before.
    pub rmse: f64,
    /// Ratio of the mean square of the numbers to that of the differences, in decibels; infinite if nothing was lost.
    pub snr_db: f64,
    /// The part of the mean square of products with calibration data that is lost, where there was such data.
    pub output_error: Option<f64>,
}

impl std::fmt::Display for SignedTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match (self.fit.ternary, self.matrix.bases()) {
            (true, _) => "three values".to_string(),
            (false, 1) => "signs".to_string(),
            (false, bases) => format!("{bases} bases of signs"),
        };
        let bits =
            8.0 * self.bytes as f64 / (self.matrix.rows() * self.matrix.columns()).max(1) as f64;
        let (name, bytes, rmse, snr) = (&self.name, self.bytes, self.rmse, self.snr_db);
        write!(
            f,
            "{name}: {kind}, {bits:.2} bits, {bytes} bytes, RMSE {rmse:.3e}, SNR {snr:.1} dB{}",
            words(self.output_error)
        )
    }
}

/// What a listing says of lost output.
fn words(output_error: Option<f64>) -> String {
    output_error.map_or(String::new(), |lost| {
        format!(", of products {lost:.2e} lost")
    })
}

/// Sums of squares of numbers and of what encoding changed.
#[derive(Clone, Copy, Default)]
pub(super) struct Squares {
    error: SquaredError,
    /// The same of products with calibration data.
    products: f64,
    lost: f64,
}

impl Squares {
    /// Whole rows of numbers, and what encoding made of them.
    fn add_products(&mut self, stats: &ColumnStats, before: &[f32], after: &[f32]) {
        let error = |w: &[f32], q: &[f32]| {
            let error = stats.output_error(w, q);
            error.unwrap_or_else(|| stats.weighted_error(w, q))
        };
        self.products += error(before, &vec![0.0; before.len()]);
        self.lost += error(before, after);
    }

    fn add_all(&mut self, other: Squares) {
        self.error += other.error;
        self.products += other.products;
        self.lost += other.lost;
    }

    /// Root of the mean squared difference of `n` numbers.
    pub(super) fn rmse(self, n: usize) -> f64 {
        (self.error.differences / n.max(1) as f64).sqrt()
    }

    /// Signal to noise.
    pub(super) fn snr_db(self) -> f64 {
        let SquaredError {
            numbers,
            differences,
        } = self.error;
        match differences == 0.0 {
            true => f64::INFINITY,
            false => 10.0 * (numbers / differences).log10(),
        }
    }

    /// The part of the products' mean square that is lost.
    pub(super) fn output_error(self) -> f64 {
        match self.products > 0.0 {
            true => self.lost / self.products,
            false => 0.0,
        }
    }
}

/// Encodes a matrix of numbers as signs, on up to `n_threads` threads.
///
/// # Errors
/// A number that is not finite; other columns than calibrated; no memory.
pub(super) fn signs(
    data: (&[u8], DType),
    (matrix, fit, stats): (SignMatrix, SignFit, Option<&ColumnStats>),
    n_threads: usize,
) -> Result<(AlignedBytes, Squares)> {
    let mut out = AlignedBytes::try_zeroed(matrix.bytes())?;
    let columns = matrix.columns();
    let piece = (PANEL_ROWS * columns, matrix.panel_bytes());
    let weights = stats.map(ErrorWeights::of);
    let (bytes, from) = data;
    let encode = |first: usize, bytes: &[u8], to: &mut [u8], Buffers { x, y }: &mut Buffers| {
        let mut encoder = RowEncoder::new(matrix, fit, weights.as_ref())?;
        let mut squares = Squares::default();
        // A row at a time: it stays in the nearest cache until nothing needs it.
        x.resize(columns, 0.0);
        for (row, bytes) in bytes.chunks(columns * from.size()).enumerate() {
            widen(bytes, from, x);
            squares.error += encoder.encode((first + row * columns, x), to, row)?;
        }
        if let Some(stats) = stats {
            let n = bytes.len() / from.size();
            x.resize(n, 0.0);
            y.resize(n, 0.0);
            widen(bytes, from, x);
            SignMatrix::new(n / columns, columns, matrix.bases())?.numbers(to, y);
            squares.add_products(stats, x, y);
        }
        Ok(squares)
    };
    let squares = in_pieces((bytes, from), out.as_mut_slice(), piece, n_threads, encode)?;
    Ok((out, squares))
}

/// Encodes numbers, whole blocks, on up to `n_threads` threads.
///
/// # Errors
/// A number that blocks cannot hold; other columns than calibrated; no memory.
pub(super) fn encode(
    data: (&[u8], DType),
    (ty, stats): (BlockType, Option<&ColumnStats>),
    n_threads: usize,
) -> Result<(AlignedBytes, Squares)> {
    let n = data.0.len() / data.1.size();
    let mut out = AlignedBytes::try_zeroed(n / ty.block_len() * ty.block_bytes())?;
    // Whole rows where errors of rows are measured.
    let row = stats.map_or(ty.block_len(), ColumnStats::columns).max(1);
    if !row.is_multiple_of(ty.block_len()) || !n.is_multiple_of(row) {
        let what = format!("calibrated with {row} columns, which are not those of the rows");
        return Err(Error::msg(what));
    }
    let numbers = (CHUNK / row).max(1) * row;
    let piece = (numbers, numbers / ty.block_len() * ty.block_bytes());
    let (bytes, from) = data;
    let errors = stats.map(|stats| BlockErrors::of(ty, stats));
    let encode = |first: usize, bytes: &[u8], to: &mut [u8], Buffers { x, y }: &mut Buffers| {
        let n = bytes.len() / from.size();
        x.resize(n, 0.0);
        y.resize(n, 0.0);
        widen(bytes, from, x);
        match &errors {
            None => ty.quantize_from(first, x, to)?,
            Some(errors) => errors.quantize(first, x, to)?,
        }
        ty.dequantize(to, y)?;
        let mut squares = Squares {
            error: SquaredError::of(x, y),
            ..Squares::default()
        };
        if let Some(stats) = stats {
            squares.add_products(stats, x, y);
        }
        Ok(squares)
    };
    let squares = in_pieces((bytes, from), out.as_mut_slice(), piece, n_threads, encode)?;
    Ok((out, squares))
}

/// Memory for numbers of a piece. One serves all pieces of a thread: new pages would cost more than encoding.
#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    y: Vec<f32>,
}

/// Encodes numbers piece by piece, each of so many numbers and bytes, on up to `n_threads` threads. `encode` is told the
/// number of the first of its numbers.
///
/// # Errors
/// Those of `encode`.
fn in_pieces(
    (bytes, from): (&[u8], DType),
    out: &mut [u8],
    (numbers, written): (usize, usize),
    n_threads: usize,
    encode: impl Fn(usize, &[u8], &mut [u8], &mut Buffers) -> Result<Squares> + Sync,
) -> Result<Squares> {
    let read = numbers * from.size();
    if read == 0 {
        return Ok(Squares::default());
    }
    let pieces = out.len().div_ceil(written);
    let share = pieces.div_ceil(n_threads.max(1)).max(1);
    let encode = &encode;
    // The sums of each piece, added in order: they do not depend on the number of threads.
    let parts: Vec<Result<Vec<Squares>>> = std::thread::scope(|scope| {
        let shares = out.chunks_mut(share * written);
        let tasks = shares.zip(bytes.chunks(share * read)).enumerate();
        let tasks = tasks.map(|(n, (to, bytes))| {
            scope.spawn(move || {
                let mut buffers = Buffers::default();
                let pieces = to.chunks_mut(written).zip(bytes.chunks(read));
                let pieces = pieces.enumerate().map(|(i, (to, bytes))| {
                    encode((n * share + i) * numbers, bytes, to, &mut buffers)
                });
                pieces.collect()
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let join = |task: std::thread::ScopedJoinHandle<'_, _>| {
            task.join().expect("encoding does not panic")
        };
        tasks.into_iter().map(join).collect()
    });
    let mut all = Squares::default();
    for part in parts {
        part?.into_iter().for_each(|squares| all.add_all(squares));
    }
    Ok(all)
}

/// The numbers of the format `from` in `bytes`, as `f32`.
fn widen(bytes: &[u8], from: DType, out: &mut [f32]) {
    let ty = match from {
        DType::F16 => BlockType::F16,
        DType::BF16 => BlockType::BF16,
        DType::F32 => BlockType::F32,
        _ => {
            let array = Array::from_bytes(vec![out.len()], from, bytes);
            return out.copy_from_slice(&array.to_f32());
        }
    };
    let decoded = ty.dequantize(bytes, out);
    decoded.expect("numbers of these formats are decoded");
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    /// Weights as a file has them.
    fn halves(n: usize) -> (Vec<u8>, Vec<f32>) {
        let mut next = crate::blocks::test_numbers(5);
        let halves: Vec<f16> = (0..n).map(|_| f16::from_f32(next())).collect();
        let bytes = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
        (bytes, halves.iter().map(|x| x.to_f32()).collect())
    }

    fn near(told: Squares, numbers: &[f32], decoded: &[f32]) {
        let SquaredError {
            numbers: all,
            differences,
        } = SquaredError::of(numbers, decoded);
        let rmse = (differences / numbers.len() as f64).sqrt();
        assert!((told.rmse(numbers.len()) - rmse).abs() < 1e-9 * rmse);
        let snr = 10.0 * (all / differences).log10();
        assert!((told.snr_db() - snr).abs() < 1e-8);
    }

    /// More rows than a panel has, and columns that are no whole bytes.
    #[test]
    fn what_storing_tells_is_what_decoding_finds_for_any_number_of_threads() -> Result<()> {
        let (rows, columns) = (150, 43);
        let (bytes, x) = halves(rows * columns);
        for (bases, ternary) in [(1, false), (2, true), (3, false)] {
            let matrix = SignMatrix::new(rows, columns, bases)?;
            let fit = SignFit {
                ternary,
                half_scales: false,
            };
            let on = |n_threads| signs((&bytes, DType::F16), (matrix, fit, None), n_threads);
            let (stored, squares) = on(1)?;
            let mut decoded = vec![0.0; x.len()];
            matrix.numbers(stored.as_slice(), &mut decoded);
            near(squares, &x, &decoded);
            let mut whole = vec![0; matrix.bytes()];
            matrix.encode(fit, &x, &mut whole)?;
            assert!(stored.as_slice() == whole, "{bases} bases");
            let (again, others) = on(3)?;
            assert!(again.as_slice() == stored.as_slice());
            assert_eq!(others.rmse(1).to_bits(), squares.rmse(1).to_bits());
        }
        Ok(())
    }

    #[test]
    fn what_blocks_tell_is_what_decoding_finds() -> Result<()> {
        let (bytes, x) = halves(3 * CHUNK + 64);
        let (stored, squares) = encode((&bytes, DType::F16), (BlockType::Q8_0, None), 2)?;
        let mut decoded = vec![0.0; x.len()];
        BlockType::Q8_0.dequantize(stored.as_slice(), &mut decoded)?;
        near(squares, &x, &decoded);
        Ok(())
    }
}
