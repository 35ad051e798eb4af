//! The loops of a matrix product: parts for threads, blocks for caches, tiles for registers.
//!
//! Order of the loops of a part: batch, blocks of the operand that is packed first, blocks of K, blocks of the other
//! operand; where two blocks meet, panels of the one that stays in L1, then panels of the other. A tile's sum is kept
//! in the output between blocks of K, so it is one chain of multiply-adds however K is cut.
//!
//! Tiles of outputs that are not plain rows of neighbours go through a temporary tile.

use std::ops::Range;

use super::packing::Part;
use super::plan::{Blocks, Scratch, Side, Sizes};
use super::{Gemm, Rhs};
use crate::dtype::DType;

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
    /// Where in the result's memory `out` points.
    pub(super) origin: isize,
    pub(super) params: &'a [i64],
    /// Told of every block of rows and columns of a batch whose sums are complete.
    pub(super) done: Option<&'a Done<'a>>,
}

/// What is packed of a block.
fn part_of(batch: usize, rows: Range<usize>, k: Range<usize>) -> Part {
    Part {
        batch,
        row: rows.start,
        rows: rows.len(),
        k: k.start,
        steps: k.len(),
    }
}

/// What is called with a batch, rows and columns.
pub type Done<'a> = dyn Fn(usize, Range<usize>, Range<usize>) + Sync + 'a;

// SAFETY: the operands are only read; each part writes its own piece of `memory` and its own
// elements of `out`, which the parts cut without overlap.
unsafe impl Sync for Job<'_> {}

/// The packed blocks that meet in one run of micro-kernels.
pub(super) struct Block {
    pub(super) batch: usize,
    pub(super) m: Range<usize>,
    pub(super) n: Range<usize>,
    pub(super) k: Range<usize>,
    /// Whether sums start here and not from what the output holds.
    pub(super) fresh: bool,
    pub(super) lhs: *const f32,
    pub(super) rhs: *const f32,
    pub(super) tile: *mut f32,
    /// Memory of the block's own for the result instead of the output: where its first row and column are, and how far
    /// its rows are apart.
    pub(super) own: Option<(*mut f32, usize)>,
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
        let Blocks {
            mc, kc, nc, first, ..
        } = self.blocks;
        // `run` checked that `memory` has a piece for every part, which are three behind one another.
        let lhs = self.memory.wrapping_add(index * self.scratch.floats());
        let rhs = lhs.wrapping_add(self.scratch.lhs);
        let tile = rhs.wrapping_add(self.scratch.rhs);
        let (outer, outer_size, inner, inner_size) = match first {
            Side::Lhs => (m, mc, n, nc),
            Side::Rhs => (n, nc, m, mc),
        };
        // Without any k the output is still written, with zeros.
        let steps = || blocks(0..self.sizes.k.max(1), kc);
        let each_outer = || blocks(outer.clone(), outer_size);
        let cut = |k: Range<usize>| k.start..k.end.min(self.sizes.k);
        for (batch, outer) in batches.flat_map(|b| each_outer().map(move |outer| (b, outer))) {
            for k in steps().map(cut) {
                let mut packed = rhs.cast_const();
                let pack = |side: Side, range: &Range<usize>, packed: &mut *const f32| match side {
                    Side::Lhs => self.lhs_block(batch, range.clone(), k.clone(), lhs),
                    Side::Rhs => *packed = self.rhs_block(batch, range.clone(), k.clone(), rhs),
                };
                pack(first, &outer, &mut packed);
                for inner in blocks(inner.clone(), inner_size) {
                    pack(first.other(), &inner, &mut packed);
                    let (m, n) = match first {
                        Side::Lhs => (outer.clone(), inner),
                        Side::Rhs => (inner, outer.clone()),
                    };
                    self.block(&Block {
                        batch,
                        m: m.clone(),
                        n: n.clone(),
                        fresh: k.start == 0,
                        k: k.clone(),
                        lhs,
                        rhs: packed,
                        tile,
                        own: None,
                    });
                    if let Some(done) = self.done.filter(|_| k.end == self.sizes.k) {
                        done(batch, m, n);
                    }
                }
            }
        }
    }

    /// Packs a block of the left operand.
    pub(super) fn lhs_block(&self, batch: usize, m: Range<usize>, k: Range<usize>, to: *mut f32) {
        let part = part_of(batch, m, k);
        // SAFETY: `run`'s caller vouches for the operand; `to` has room for a block.
        unsafe { self.gemm.pack_lhs.run(self.lhs, self.params, part, to) };
    }

    /// The packed block of the right operand, made in `to` unless it is there already.
    pub(super) fn rhs_block(
        &self,
        batch: usize,
        n: Range<usize>,
        k: Range<usize>,
        to: *mut f32,
    ) -> *const f32 {
        match self.rhs {
            Rhs::Raw(from) => {
                let part = part_of(batch, n, k);
                // SAFETY: as for the left operand.
                unsafe { self.gemm.pack_rhs.run(from, self.params, part, to) };
                to
            }
            Rhs::Packed(from, dtype) => {
                let columns = self.gemm.shape.tile.columns() as usize;
                let offset = self
                    .gemm
                    .packed_offset(self.sizes, batch, n.start, k.start, k.len());
                // SAFETY: the block was packed to there; `n` starts at a panel.
                let from = unsafe { from.add(offset * dtype.size()) };
                if dtype == DType::F32 {
                    return from.cast();
                }
                let count = n.len().next_multiple_of(columns) * k.len();
                // SAFETY: as many numbers were packed; `to` has room for a block.
                unsafe { (self.gemm.widen)(from, to, count as i64) };
                to
            }
        }
    }

    /// Runs micro-kernels over a block: a panel of one operand stays in L1 while those of the other pass.
    pub(super) fn block(&self, block: &Block) {
        let tile = self.gemm.shape.tile;
        let (height, width) = (tile.rows as usize, tile.columns() as usize);
        let counts = [
            block.m.len().div_ceil(height),
            block.n.len().div_ceil(width),
        ];
        let at = |row: usize, column: usize| {
            let rows =
                block.m.start + row * height..(block.m.start + (row + 1) * height).min(block.m.end);
            let columns = block.n.start + column * width
                ..(block.n.start + (column + 1) * width).min(block.n.end);
            (rows, columns)
        };
        let count = counts[0] * counts[1];
        let place = |index: usize| match self.blocks.stays {
            Side::Lhs => at(index / counts[1], index % counts[1]),
            Side::Rhs => at(index % counts[0], index / counts[0]),
        };
        let mut current = place(0);
        for index in 0..count {
            let next = place((index + 1).min(count - 1));
            self.tile(block, current, (next.0.start, next.1.start));
            current = next;
        }
    }

    /// The micro-kernel for this many rows and columns of a tile.
    fn micro(&self, rows: usize, columns: usize) -> super::MicroFn {
        let tile = self.gemm.shape.tile;
        let vectors = columns.div_ceil(tile.lanes as usize);
        self.gemm.micro[(rows - 1) * tile.vectors as usize + vectors - 1]
    }

    /// One tile of the output; `next` is where the one after it starts.
    fn tile(
        &self,
        block: &Block,
        (rows, columns): (Range<usize>, Range<usize>),
        next: (usize, usize),
    ) {
        let tile = self.gemm.shape.tile;
        let width = tile.columns() as usize;
        let steps = block.k.len();
        // SAFETY: panels are `steps` times their width, and `rows` and `columns` start at panels.
        let (lhs, rhs) = unsafe {
            (
                block.lhs.add((rows.start - block.m.start) * steps),
                block.rhs.add((columns.start - block.n.start) * steps),
            )
        };
        let (k, fresh) = (steps as i64, i64::from(block.fresh));
        let kernel = self.micro(rows.len(), columns.len());
        let (height, used) = (rows.len() as i64, columns.len() as i64);
        let [batch, m, n] = &self.gemm.shape.out;
        let batch = batch.offset(block.batch, self.params) - self.origin;
        // Where the first row and column would be, if rows are equally far apart.
        let origin = match (block.own, self.plain) {
            (Some((own, ldc)), _) => {
                let before = block.m.start * ldc + block.n.start;
                Some((own.wrapping_sub(before), ldc))
            }
            (None, Some(ldc)) => Some((self.out.wrapping_offset(batch), ldc as usize)),
            (None, None) => None,
        };
        if let Some((origin, ldc)) = origin {
            let at = |row: usize, column: usize| origin.wrapping_add(row * ldc + column);
            let (to, next) = (at(rows.start, columns.start), at(next.0, next.1));
            // SAFETY: the panels are whole, and the tile's rows and columns lie in the output or the block's memory.
            unsafe { kernel(k, lhs, rhs, to, ldc as i64, fresh, height, used, next) };
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
        let (to, ldc) = (block.tile, width as i64);
        // SAFETY: the panels are whole; the temporary tile is as large as any.
        unsafe { kernel(k, lhs, rhs, to, ldc, fresh, height, used, to) };
        // SAFETY: as above.
        each(&|out, tile| unsafe { *out = *tile });
    }
}

/// Cuts a range into blocks of `size`.
pub(super) fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range
        .step_by(size)
        .map(move |start| start..(start + size).min(end))
}
