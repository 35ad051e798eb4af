//! An input's data → blocks of a low-bit type, or signs and scales, and what that loses.

use crate::array::Array;
use crate::blocks::{BlockType, PANEL_ROWS, SignFit, SignMatrix};
use crate::dtype::DType;
use crate::error::Result;
use crate::storage::AlignedBytes;

/// Numbers that are encoded at a time, by one thread.
const CHUNK: usize = 1 << 16;

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
}

impl std::fmt::Display for StoredTensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = self.ty.bits_per_weight();
        let (name, ty, bytes, rmse, snr) =
            (&self.name, self.ty, self.bytes, self.rmse, self.snr_db);
        write!(
            f,
            "{name}: {ty}, {bits} bits, {bytes} bytes, RMSE {rmse:.3e}, SNR {snr:.1} dB"
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
            "{name}: {kind}, {bits:.2} bits, {bytes} bytes, RMSE {rmse:.3e}, SNR {snr:.1} dB"
        )
    }
}

/// Sums of squares of numbers and of what encoding changed.
#[derive(Clone, Copy, Default)]
pub(super) struct Squares {
    numbers: f64,
    differences: f64,
}

impl Squares {
    fn add(&mut self, before: &[f32], after: &[f32]) {
        for (x, y) in before.iter().zip(after) {
            let (x, difference) = (f64::from(*x), f64::from(*x) - f64::from(*y));
            self.numbers += x * x;
            self.differences += difference * difference;
        }
    }

    /// Root of the mean squared difference of `n` numbers.
    pub(super) fn rmse(self, n: usize) -> f64 {
        (self.differences / n.max(1) as f64).sqrt()
    }

    /// Signal to noise.
    pub(super) fn snr_db(self) -> f64 {
        match self.differences == 0.0 {
            true => f64::INFINITY,
            false => 10.0 * (self.numbers / self.differences).log10(),
        }
    }
}

/// Encodes a matrix of numbers of format `from` as signs, on up to `n_threads` threads.
///
/// # Errors
/// A number that is not finite; no memory.
pub(super) fn signs(
    bytes: &[u8],
    from: DType,
    (matrix, fit): (SignMatrix, SignFit),
    n_threads: usize,
) -> Result<(AlignedBytes, Squares)> {
    let mut out = AlignedBytes::try_zeroed(matrix.bytes())?;
    let columns = matrix.columns();
    let piece = (PANEL_ROWS * columns, matrix.panel_bytes());
    let encode = |x: &[f32], to: &mut [u8]| {
        matrix.encode(fit, x, to)?;
        let one = SignMatrix::new(x.len() / columns, columns, matrix.bases())?;
        let mut y = vec![0.0; x.len()];
        one.numbers(to, &mut y);
        Ok(y)
    };
    let squares = in_pieces((bytes, from), out.as_mut_slice(), piece, n_threads, encode)?;
    Ok((out, squares))
}

/// Encodes the numbers of `bytes`, whole blocks of format `from`, on up to `n_threads` threads.
///
/// # Errors
/// A number that blocks cannot hold; no memory.
pub(super) fn encode(
    bytes: &[u8],
    from: DType,
    ty: BlockType,
    n_threads: usize,
) -> Result<(AlignedBytes, f64, f64)> {
    let n = bytes.len() / from.size();
    let mut out = AlignedBytes::try_zeroed(n / ty.block_len() * ty.block_bytes())?;
    let blocks = CHUNK / ty.block_len();
    let piece = (blocks * ty.block_len(), blocks * ty.block_bytes());
    let encode = |x: &[f32], to: &mut [u8]| {
        ty.quantize(x, to)?;
        let mut y = vec![0.0; x.len()];
        ty.dequantize(to, &mut y)?;
        Ok(y)
    };
    let all = in_pieces((bytes, from), out.as_mut_slice(), piece, n_threads, encode)?;
    Ok((out, all.rmse(n), all.snr_db()))
}

/// Encodes numbers of format `from` piece by piece, each of so many numbers and bytes, on up to `n_threads` threads. `encode`
/// gives the numbers that are left.
///
/// # Errors
/// Those of `encode`.
fn in_pieces(
    (bytes, from): (&[u8], DType),
    out: &mut [u8],
    (numbers, written): (usize, usize),
    n_threads: usize,
    encode: impl Fn(&[f32], &mut [u8]) -> Result<Vec<f32>> + Sync,
) -> Result<Squares> {
    let read = numbers * from.size();
    if read == 0 {
        return Ok(Squares::default());
    }
    let pieces = out.len().div_ceil(written);
    let share = pieces.div_ceil(n_threads.max(1)).max(1);
    let encode = &encode;
    let parts: Vec<Result<Squares>> = std::thread::scope(|scope| {
        let shares = out.chunks_mut(share * written);
        let tasks = shares.zip(bytes.chunks(share * read)).map(|(to, bytes)| {
            scope.spawn(move || {
                let mut squares = Squares::default();
                for (to, bytes) in to.chunks_mut(written).zip(bytes.chunks(read)) {
                    let n = bytes.len() / from.size();
                    let x = Array::from_bytes(vec![n], from, bytes).into_f32();
                    squares.add(&x, &encode(&x, to)?);
                }
                Ok(squares)
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
        let part = part?;
        all.numbers += part.numbers;
        all.differences += part.differences;
    }
    Ok(all)
}
