//! Writing rows in place: what a scheduled `Scatter` does.
//!
//! The base is in the result's bytes already (or is copied there first); only the rows that the index names are
//! written.

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
    // Shared memory may lie at any address.
    let index = index.chunks_exact(size_of::<i32>()).map(read::<i32>);
    assert_eq!(index.len(), outer * rows * inner, "index elements");
    let row_of = |at: i32| usize::try_from(at).ok().filter(|&row| row < axis);
    // All indices are looked at before the first write: a state is updated as a whole or not at all.
    if let Some(bad) = index.clone().find(|&at| row_of(at).is_none()) {
        return Err(format!(
            "index {bad} is out of range for an axis of size {axis}"
        ));
    }
    for (i, row) in index.filter_map(row_of).enumerate() {
        let place = ((i / (rows * inner)) * axis + row) * inner + i % inner;
        let (old, new) = (
            &mut base[place * size..(place + 1) * size],
            &updates[i * size..(i + 1) * size],
        );
        combine(dtype, mode, old, new);
    }
    Ok(updates.len())
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
