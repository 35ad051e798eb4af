//! Writing rows in place: what a scheduled `Scatter` does.
//!
//! The base is in the result's bytes already (or is copied there first); only the rows that the index names are
//! written. Where one index stands for a whole row of neighbours, as in a cache of keys, the row is copied at once.

use crate::dtype::DType;
use crate::op::{ScatterMode, larger};
use half::{bf16, f16};

/// Sizes of a scatter: base `[outer, axis, inner]`, index and updates `[outer, rows, inner]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScatterShape {
    /// Product of the dimensions before the axis.
    pub outer: usize,
    /// Size of the base's axis.
    pub axis: usize,
    /// Size of the index's axis.
    pub rows: usize,
    /// Product of the dimensions after the axis.
    pub inner: usize,
}

/// Applies `updates` to `base`, in row-major order; returns the number of bytes written.
///
/// # Errors
/// If an index is out of range; nothing is written then.
///
/// # Panics
/// If the slices are not as long as the shape says.
pub fn scatter(
    shape: ScatterShape,
    dtype: DType,
    mode: ScatterMode,
    base: &mut [u8],
    index: &[u8],
    updates: &[u8],
) -> Result<usize, String> {
    let ScatterShape {
        outer,
        axis,
        rows,
        inner,
    } = shape;
    let size = dtype.size();
    assert_eq!(base.len(), outer * axis * inner * size, "base bytes");
    assert_eq!(updates.len(), outer * rows * inner * size, "update bytes");
    let four = size_of::<i32>();
    assert_eq!(index.len(), outer * rows * inner * four, "index bytes");
    // All indices are looked at before the first write: a state is updated as a whole or not at all.
    check(index, axis)?;
    if updates.is_empty() {
        return Ok(0);
    }
    let each = index
        .chunks_exact(inner * four)
        .zip(updates.chunks_exact(inner * size));
    for (number, (index, updates)) in each.enumerate() {
        let start = |row: i32| (number / rows * axis + row as usize) * inner * size;
        let first = read::<i32>(&index[..four]);
        let same = |all: bool, at: i32| all & (at == first);
        if mode == ScatterMode::Set && numbers(index).fold(true, same) {
            base[start(first)..][..updates.len()].copy_from_slice(updates);
            continue;
        }
        for (i, (row, new)) in numbers(index).zip(updates.chunks_exact(size)).enumerate() {
            let place = start(row) + i * size;
            combine(dtype, mode, &mut base[place..place + size], new);
        }
    }
    Ok(updates.len())
}

/// The integers of an index. Shared memory may lie at any address.
fn numbers(index: &[u8]) -> impl Iterator<Item = i32> {
    index.chunks_exact(size_of::<i32>()).map(read::<i32>)
}

/// Whether all indices are in range for an axis of this size.
fn check(index: &[u8], axis: usize) -> Result<(), String> {
    let none = (i32::MAX, i32::MIN);
    let (lowest, highest) =
        numbers(index).fold(none, |(low, high), at| (low.min(at), high.max(at)));
    let is_in = |at: i32| usize::try_from(at).is_ok_and(|row| row < axis);
    if index.is_empty() || is_in(lowest) && is_in(highest) {
        return Ok(());
    }
    let bad = numbers(index).find(|&at| !is_in(at));
    let bad = bad.expect("the lowest or the highest is out of range");
    Err(format!(
        "index {bad} is out of range for an axis of size {axis}"
    ))
}

fn read<T: bytemuck::Pod>(bytes: &[u8]) -> T {
    bytemuck::pod_read_unaligned(bytes)
}

fn combine(dtype: DType, mode: ScatterMode, old: &mut [u8], new: &[u8]) {
    if mode == ScatterMode::Set {
        old.copy_from_slice(new);
        return;
    }
    let add = mode == ScatterMode::Add;
    match dtype {
        DType::F32 => {
            let (a, b): (f32, f32) = (read(old), read(new));
            old.copy_from_slice(&(if add { a + b } else { larger(a, b) }).to_le_bytes());
        }
        DType::F64 => {
            let (a, b): (f64, f64) = (read(old), read(new));
            old.copy_from_slice(&(if add { a + b } else { larger(a, b) }).to_le_bytes());
        }
        DType::F16 => {
            let (a, b): (f16, f16) = (read(old), read(new));
            old.copy_from_slice(&(if add { a + b } else { larger(a, b) }).to_le_bytes());
        }
        DType::BF16 => {
            let (a, b): (bf16, bf16) = (read(old), read(new));
            old.copy_from_slice(&(if add { a + b } else { larger(a, b) }).to_le_bytes());
        }
        DType::I32 => {
            let (a, b): (i32, i32) = (read(old), read(new));
            old.copy_from_slice(
                &(if add { a.wrapping_add(b) } else { larger(a, b) }).to_le_bytes(),
            );
        }
        DType::U8 => unreachable!("bytes are only set"),
        DType::Bool => old[0] |= new[0],
    }
}
