//! Writing rows in place: what a scheduled `Scatter` does.
//!
//! The base is in the result's bytes already (or is copied there first); only the rows that the index names are
//! written. Where one index stands for a whole row of neighbours, as in a cache of keys, the row is copied at once.
//! Threads share what is written by many: each has some of the dimensions before the axis, whose rows no other one's updates
//! are for, so the order of updates of a row is the same.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use smallvec::SmallVec;

use super::pool;
use crate::dtype::DType;
use crate::op::{ScatterMode, larger};

/// Bytes of updates below which a second thread costs more than it brings.
const SERIAL: usize = 64 << 10;

/// Parts that threads share.
const PARTS: usize = 16;

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

/// Rows that are written, and what with.
pub struct Updates<'a> {
    /// Sizes of all that follows.
    pub shape: ScatterShape,
    /// The format of base and updates.
    pub dtype: DType,
    /// What an update does to what is there.
    pub mode: ScatterMode,
    /// `i32`, as many as updates.
    pub index: &'a [u8],
    /// Row-major.
    pub updates: &'a [u8],
}

impl Updates<'_> {
    /// Applies the updates to `base` in their order, on up to `n_threads` threads; returns the number of bytes written.
    ///
    /// # Errors
    /// If an index is out of range; nothing is written then.
    ///
    /// # Panics
    /// If the slices are not as long as the shape says.
    pub fn apply(&self, base: &mut [u8], n_threads: usize) -> Result<usize, String> {
        let ScatterShape {
            outer,
            axis,
            rows,
            inner,
        } = self.shape;
        let (size, four) = (self.dtype.size(), size_of::<i32>());
        assert_eq!(base.len(), outer * axis * inner * size, "base bytes");
        let (updates, index) = (self.updates.len(), self.index.len());
        assert_eq!(updates, outer * rows * inner * size, "update bytes");
        assert_eq!(index, outer * rows * inner * four, "index bytes");
        let n_threads = if updates < SERIAL { 1 } else { n_threads };
        // All indices are looked at before the first write: a state is updated as a whole or not at all.
        check(self.index, axis, n_threads)?;
        if updates == 0 {
            return Ok(0);
        }
        let outer_of_part = outer.div_ceil(PARTS);
        let parts = base.chunks_mut(outer_of_part * axis * inner * size);
        let parts: SmallVec<[Mutex<&mut [u8]>; PARTS]> = parts.map(Mutex::new).collect();
        pool::for_each_range(n_threads, parts.len(), &|range| {
            for part in range {
                // One thread has it, so nobody waits.
                let mut base = parts[part].lock().unwrap_or_else(PoisonError::into_inner);
                self.write(&mut base, part * outer_of_part * rows);
            }
        });
        Ok(updates)
    }

    /// Writes the rows of a part of the base, the first of which has this number.
    fn write(&self, base: &mut [u8], first_row: usize) {
        let ScatterShape {
            axis, rows, inner, ..
        } = self.shape;
        let (size, four) = (self.dtype.size(), size_of::<i32>());
        let n_rows = base.len() / (axis * inner * size) * rows;
        let each = self.index[first_row * inner * four..]
            .chunks_exact(inner * four)
            .zip(self.updates[first_row * inner * size..].chunks_exact(inner * size));
        for (number, (index, updates)) in each.take(n_rows).enumerate() {
            let start = |row: i32| (number / rows * axis + row as usize) * inner * size;
            let first = read::<i32>(&index[..four]);
            let same = |all: bool, at: i32| all & (at == first);
            if self.mode == ScatterMode::Set && numbers(index).fold(true, same) {
                base[start(first)..][..updates.len()].copy_from_slice(updates);
                continue;
            }
            for (i, (row, new)) in numbers(index).zip(updates.chunks_exact(size)).enumerate() {
                let place = start(row) + i * size;
                combine(self.dtype, self.mode, &mut base[place..place + size], new);
            }
        }
    }
}

/// The integers of an index. Shared memory may lie at any address.
fn numbers(index: &[u8]) -> impl Iterator<Item = i32> {
    index.chunks_exact(size_of::<i32>()).map(read::<i32>)
}

/// Indices that a thread looks at at a time.
const CHECKED: usize = 4096;

/// Whether all indices are in range for an axis of this size.
fn check(index: &[u8], axis: usize, n_threads: usize) -> Result<(), String> {
    let is_in = |at: i32| usize::try_from(at).is_ok_and(|row| row < axis);
    let are_in = |index: &[u8]| {
        let none = (i32::MAX, i32::MIN);
        let (lowest, highest) =
            numbers(index).fold(none, |(low, high), at| (low.min(at), high.max(at)));
        index.is_empty() || is_in(lowest) && is_in(highest)
    };
    let (bytes, all) = (CHECKED * size_of::<i32>(), AtomicBool::new(true));
    pool::for_each_range(n_threads, index.len().div_ceil(bytes), &|pieces| {
        let end = (pieces.end * bytes).min(index.len());
        if !are_in(&index[pieces.start * bytes..end]) {
            all.store(false, Ordering::Relaxed);
        }
    });
    if all.into_inner() {
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

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ScatterShape = ScatterShape {
        outer: 20,
        axis: 5,
        rows: 2,
        inner: 1024,
    };

    /// The base after updates of rows `index`, the same in every batch, and how many jobs for several threads that took.
    fn written(index: [i32; 2], n_threads: usize) -> (Vec<f32>, Result<usize, String>, u64) {
        let ScatterShape {
            outer, axis, inner, ..
        } = SHAPE;
        let each = |row: i32| std::iter::repeat_n(row, inner);
        let index: Vec<i32> = (0..outer)
            .flat_map(|_| index.into_iter().flat_map(each))
            .collect();
        let updates: Vec<f32> = (0..index.len()).map(|i| i as f32 + 1.0).collect();
        let mut base = vec![0f32; outer * axis * inner];
        let before = pool::jobs();
        let result = Updates {
            shape: SHAPE,
            dtype: DType::F32,
            mode: ScatterMode::Set,
            index: bytemuck::cast_slice(&index),
            updates: bytemuck::cast_slice(&updates),
        }
        .apply(bytemuck::cast_slice_mut(&mut base), n_threads);
        (base, result, pool::jobs() - before)
    }

    #[test]
    fn threads_share_many_rows() {
        let (one, done, jobs) = written([3, 1], 1);
        assert_eq!((done, jobs), (Ok(4 * SHAPE.outer * 2 * SHAPE.inner), 0));
        let row = |row: usize| one[row * SHAPE.inner];
        let second = |batch: usize| row(batch * SHAPE.axis + 1);
        let wanted = |batch: usize| ((2 * batch + 1) * SHAPE.inner) as f32 + 1.0;
        assert!((0..SHAPE.outer).all(|batch| second(batch) == wanted(batch)));
        for threads in [2, 3, 7] {
            let (many, done, jobs) = written([3, 1], threads);
            assert!(many == one && done.is_ok(), "{threads} threads");
            // One looks at the indices, one writes.
            assert_eq!(jobs, 2);
        }
        // Of updates of the same row the later one stays.
        assert!(written([2, 2], 2).0 == written([2, 2], 1).0);
    }

    #[test]
    fn nothing_is_written_where_one_of_many_indices_is_out_of_range() {
        for index in [[0, 5], [-1, 0]] {
            let (base, done, _) = written(index, 2);
            assert!(done.is_err() && base.iter().all(|&x| x == 0.0), "{index:?}");
        }
    }
}
