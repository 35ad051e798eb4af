//! An input's data → blocks of a low-bit type, and what that loses.

use crate::array::Array;
use crate::blocks::BlockType;
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

/// Sums of squares of numbers and of what encoding changed.
#[derive(Clone, Copy, Default)]
struct Squares {
    numbers: f64,
    differences: f64,
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
    let blocks = CHUNK / ty.block_len();
    let (read, written) = (
        blocks * ty.block_len() * from.size(),
        blocks * ty.block_bytes(),
    );
    let mut out = AlignedBytes::try_zeroed(n / ty.block_len() * ty.block_bytes())?;
    let share = out
        .len()
        .div_ceil(written)
        .div_ceil(n_threads.max(1))
        .max(1);
    let parts: Vec<Result<Squares>> = std::thread::scope(|scope| {
        let shares = out.as_mut_slice().chunks_mut(share * written);
        let tasks = shares
            .zip(bytes.chunks(share * read))
            .map(|(to, from_bytes)| {
                scope.spawn(move || {
                    let mut squares = Squares::default();
                    for (to, numbers) in to.chunks_mut(written).zip(from_bytes.chunks(read)) {
                        encode_chunk(numbers, from, ty, to, &mut squares)?;
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
    let rmse = (all.differences / n.max(1) as f64).sqrt();
    let snr = match all.differences == 0.0 {
        true => f64::INFINITY,
        false => 10.0 * (all.numbers / all.differences).log10(),
    };
    Ok((out, rmse, snr))
}

fn encode_chunk(
    numbers: &[u8],
    from: DType,
    ty: BlockType,
    to: &mut [u8],
    squares: &mut Squares,
) -> Result<()> {
    let n = numbers.len() / from.size();
    let x = Array::from_bytes(vec![n], from, numbers).into_f32();
    ty.quantize(&x, to)?;
    let mut y = vec![0.0; n];
    ty.dequantize(to, &mut y)?;
    for (x, y) in x.iter().zip(&y) {
        let (x, difference) = (f64::from(*x), f64::from(*x) - f64::from(*y));
        squares.numbers += x * x;
        squares.differences += difference * difference;
    }
    Ok(())
}
