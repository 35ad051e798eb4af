//! The loops of a matrix product: parts for threads, blocks for caches, tiles for registers.
//!
//! Order of the loops of a part: batch, blocks of columns, blocks of K, blocks of rows; in a
//! block, panels of columns, then panels of rows. A tile's sum is kept in the output between
//! blocks of K, so it is one chain of multiply-adds however K is cut.
//!
//! Tiles at the edges, and all tiles of outputs that are not plain rows of neighbours, go through
//! a temporary tile.

use std::ops::Range;

use super::plan::{Blocks, Scratch, Sizes};
use super::{Gemm, Rhs};

/// One call, as all threads see it.
pub(super) struct Job<'a> {
    pub(super) gemm: &'a Gemm,
    pub(super) sizes: Sizes,
    pub(super) blocks: Blocks,
    pub(super) scratch: Scratch,
    pub(super) memory: *mut f32,
    pub(super) plain: Option<i64>,
    pub(super) lhs: *const u8,
    pub(super) rhs: Rhs,
    pub(super) out: *mut f32,
    pub(super) params: &'a [i64],
}

// SAFETY: the operands are only read; each part writes its own piece of `memory` and its own
// elements of `out`, which the parts cut without overlap.
unsafe impl Sync for Job<'_> {}

/// The packed blocks that meet in one run of micro-kernels.
struct Block {
    batch: usize,
    m: Range<usize>,
    n: Range<usize>,
    k: Range<usize>,
    lhs: *const f32,
    rhs: *const f32,
    tile: *mut f32,
}

impl Job<'_> {
    /// Computes one part of the output.
    pub(super) fn part(
        &self,
        index: usize,
        batches: Range<usize>,
        m: Range<usize>,
        n: Range<usize>,
    ) {
        let Blocks { mc, kc, nc } = self.blocks;
        // SAFETY: `run` checked that `memory` has a piece for every part.
        let lhs = unsafe { self.memory.add(index * self.scratch.floats()) };
        // SAFETY: the three pieces of a part lie behind one another.
        let (rhs, tile) = unsafe {
            (
                lhs.add(self.scratch.lhs),
                lhs.add(self.scratch.lhs + self.scratch.rhs),
            )
        };
        for batch in batches {
            for columns in blocks(n.clone(), nc) {
                // Without any k the output is still written, with zeros.
                for k in blocks(0..self.sizes.k.max(1), kc) {
                    let k = k.start..k.end.min(self.sizes.k);
                    let rhs = self.rhs_block(batch, columns.clone(), k.clone(), rhs);
                    for rows in blocks(m.clone(), mc) {
                        self.lhs_block(batch, rows.clone(), k.clone(), lhs);
                        let (n, k) = (columns.clone(), k.clone());
                        self.block(&Block {
                            batch,
                            m: rows,
                            n,
                            k,
                            lhs,
                            rhs,
                            tile,
                        });
                    }
                }
            }
        }
    }

    fn lhs_block(&self, batch: usize, m: Range<usize>, k: Range<usize>, to: *mut f32) {
        let (row, rows) = (m.start as i64, m.len() as i64);
        let (step, steps) = (k.start as i64, k.len() as i64);
        let params = self.params.as_ptr();
        // SAFETY: `run`'s caller vouches for the operand; `to` has room for a block.
        unsafe { (self.gemm.pack_lhs)(self.lhs, params, batch as i64, row, rows, step, steps, to) };
    }

    /// The packed block of the right operand, made in `to` unless there is one already.
    fn rhs_block(
        &self,
        batch: usize,
        n: Range<usize>,
        k: Range<usize>,
        to: *mut f32,
    ) -> *const f32 {
        match self.rhs {
            Rhs::Raw(from) => {
                let (row, rows) = (n.start as i64, n.len() as i64);
                let (step, steps) = (k.start as i64, k.len() as i64);
                let params = self.params.as_ptr();
                // SAFETY: as for the left operand.
                unsafe {
                    (self.gemm.pack_rhs)(from, params, batch as i64, row, rows, step, steps, to);
                }
                to
            }
            Rhs::Packed(from) => {
                let columns = self.gemm.shape.tile.columns() as usize;
                let width = self.sizes.n.next_multiple_of(columns);
                let offset = (batch * self.sizes.k + k.start) * width + n.start * k.len();
                // SAFETY: `pack_rhs` put this block there; `n` starts at a panel.
                unsafe { from.add(offset) }
            }
        }
    }

    /// Runs micro-kernels over a block: a panel of the right operand stays in L1 while those of
    /// the left one pass.
    fn block(&self, block: &Block) {
        let tile = self.gemm.shape.tile;
        let steps = block.k.len();
        for columns in blocks(block.n.clone(), tile.columns() as usize) {
            // SAFETY: panels are `steps` times their width, and `columns` starts at a panel.
            let rhs = unsafe { block.rhs.add((columns.start - block.n.start) * steps) };
            for rows in blocks(block.m.clone(), tile.rows as usize) {
                // SAFETY: as above.
                let lhs = unsafe { block.lhs.add((rows.start - block.m.start) * steps) };
                self.tile(block, lhs, rhs, rows, columns.clone());
            }
        }
    }

    /// One tile of the output.
    fn tile(
        &self,
        block: &Block,
        lhs: *const f32,
        rhs: *const f32,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let width = self.gemm.shape.tile.columns() as usize;
        let (k, fresh) = (block.k.len() as i64, i64::from(block.k.start == 0));
        let micro = self
            .gemm
            .micro
            .iter()
            .find(|(count, _)| *count >= rows.len());
        let &(count, kernel) = micro.expect("a tile has no more rows than the full micro-kernel");
        let [batch, m, n] = &self.gemm.shape.out;
        let batch = batch.offset(block.batch, self.params);
        if let Some(ldc) = self
            .plain
            .filter(|_| (count, width) == (rows.len(), columns.len()))
        {
            let offset = batch + rows.start as isize * ldc as isize + columns.start as isize;
            // SAFETY: the panels are whole, and the whole tile lies in the output.
            unsafe { kernel(k, lhs, rhs, self.out.offset(offset), ldc, fresh) };
            return;
        }
        let each = |visit: &dyn Fn(*mut f32, *mut f32)| {
            for (i, row) in rows.clone().enumerate() {
                let row = batch + m.offset(row, self.params);
                for (j, column) in columns.clone().enumerate() {
                    let offset = row + n.offset(column, self.params);
                    // SAFETY: an element of the output, and one of the temporary tile.
                    unsafe { visit(self.out.offset(offset), block.tile.add(i * width + j)) };
                }
            }
        };
        if fresh == 0 {
            // SAFETY: both are valid, as above; earlier blocks of K have written them.
            each(&|out, tile| unsafe { *tile = *out });
        }
        // SAFETY: the panels are whole; the temporary tile is as large as any.
        unsafe { kernel(k, lhs, rhs, block.tile, width as i64, fresh) };
        // SAFETY: as above.
        each(&|out, tile| unsafe { *out = *tile });
    }
}

/// Cuts a range into blocks of `size`.
fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(size)
        .map(move |start| start..(start + size).min(end))
}
