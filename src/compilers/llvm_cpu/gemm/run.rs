//! The loops of a matrix product: parts for threads, blocks for caches, tiles for registers.
//!
//! Order of the loops of a part: batch, blocks of the operand that is packed first, blocks of K, blocks of the other
//! operand; where two blocks meet, panels of the one that stays in L1, then panels of the other. A tile's sum is kept
//! in the output between blocks of K, so it is one chain of multiply-adds however K is cut.
//!
//! Tiles of outputs that are not plain rows of neighbours go through a temporary tile.

use std::ops::Range;

use super::ahead::Next;
use super::direct::Direct;
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
    /// What reads the right operand where it is, instead of panels.
    pub(super) direct: Option<&'a Direct>,
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

/// A block of the right operand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Right {
    /// Its panels, or its first element.
    pub(super) at: *const f32,
    /// How far steps are apart where it is read; nothing in panels.
    pub(super) apart: Option<i64>,
}

impl Right {
    /// A block in panels.
    pub(super) fn panels(at: *const f32) -> Right {
        Right { at, apart: None }
    }
}

/// The packed blocks that meet in one run of micro-kernels.
pub(super) struct Block {
    pub(super) batch: usize,
    pub(super) m: Range<usize>,
    pub(super) n: Range<usize>,
    pub(super) k: Range<usize>,
    /// Whether sums start here and not from what the output holds.
    pub(super) fresh: bool,
    pub(super) lhs: *const f32,
    pub(super) rhs: Right,
    pub(super) tile: *mut f32,
    /// Memory of the block's own for the result instead of the output: where its first row and column are, and how far
    /// its rows are apart.
    pub(super) own: Option<(*mut f32, usize)>,
    /// What is asked for meanwhile.
    pub(super) next: Option<Next>,
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
                let mut packed = Right::panels(rhs);
                let pack = |side: Side, range: &Range<usize>, packed: &mut Right| match side {
                    Side::Lhs => self.lhs_block(batch, range.clone(), k.clone(), lhs),
                    Side::Rhs => *packed = self.rhs_block(batch, range.clone(), k.clone(), rhs),
                };
                pack(first, &outer, &mut packed);
                for now in blocks(inner.clone(), inner_size) {
                    pack(first.other(), &now, &mut packed);
                    let next = self.after(batch, (&inner, &now, inner_size), &k);
                    let (m, n) = match first {
                        Side::Lhs => (outer.clone(), now),
                        Side::Rhs => (now, outer.clone()),
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
                        next,
                    });
                    if let Some(done) = self.done.filter(|_| k.end == self.sizes.k) {
                        done(batch, m, n);
                    }
                }
            }
        }
    }

    /// What is packed after columns `now` of `all`, which come in blocks of `size`.
    fn after(
        &self,
        batch: usize,
        (all, now, size): (&Range<usize>, &Range<usize>, usize),
        k: &Range<usize>,
    ) -> Option<Next> {
        let Blocks { first, kc, .. } = self.blocks;
        let next = |range: &Range<usize>, end: usize, size: usize| {
            let next = range.end..(range.end + size).min(end);
            Some(next).filter(|next| !next.is_empty())
        };
        let (n, k) = match next(now, all.end, size) {
            Some(n) => (n, k.clone()),
            None => (
                all.start..(all.start + size).min(all.end),
                next(k, self.sizes.k, kc)?,
            ),
        };
        self.next(batch, n, k).filter(|_| first == Side::Lhs)
    }

    /// A block of the right operand to ask for, if that is useful.
    pub(super) fn next(&self, batch: usize, n: Range<usize>, k: Range<usize>) -> Option<Next> {
        let Rhs::Raw(from) = self.rhs else {
            return None;
        };
        let next = Next { from, batch, n, k };
        (self.direct.is_none() && self.gemm.ahead.is_some()).then_some(next)
    }

    /// Packs a block of the left operand.
    pub(super) fn lhs_block(&self, batch: usize, m: Range<usize>, k: Range<usize>, to: *mut f32) {
        let part = part_of(batch, m, k);
        // SAFETY: `run`'s caller vouches for the operand; `to` has room for a block.
        unsafe { self.gemm.pack_lhs.run(self.lhs, self.params, part, to) };
    }

    /// A block of the right operand, in panels, made in `to` unless they are there already, or as it is.
    pub(super) fn rhs_block(
        &self,
        batch: usize,
        n: Range<usize>,
        k: Range<usize>,
        to: *mut f32,
    ) -> Right {
        match self.rhs {
            Rhs::Raw(from) => {
                if let Some(direct) = self.direct {
                    let (at, apart) =
                        (direct.place).row(from, [batch, n.start, k.start], self.params);
                    let apart = Some(apart);
                    return Right { at, apart };
                }
                let part = part_of(batch, n, k);
                // SAFETY: as for the left operand.
                unsafe { self.gemm.pack_rhs.run(from, self.params, part, to) };
                Right::panels(to)
            }
            Rhs::Packed(from, dtype) => {
                let columns = self.gemm.shape.tile.columns() as usize;
                let offset = self
                    .gemm
                    .packed_offset(self.sizes, batch, n.start, k.start, k.len());
                // SAFETY: the block was packed to there; `n` starts at a panel.
                let from = unsafe { from.add(offset * dtype.size()) };
                if dtype == DType::F32 {
                    return Right::panels(from.cast());
                }
                let count = n.len().next_multiple_of(columns) * k.len();
                // SAFETY: as many numbers were packed; `to` has room for a block.
                unsafe { (self.gemm.widen)(from, to, count as i64) };
                Right::panels(to)
            }
        }
    }

    /// Runs micro-kernels over a block: a panel of one operand stays in L1 while those of the other pass.
    pub(super) fn block(&self, block: &Block) {
        let tile = self.gemm.shape.tile;
        let rows = (block.m.len(), tile.rows as usize);
        let columns = (block.n.len(), tile.columns() as usize);
        let (origin, ahead) = (self.origin(block), self.gemm.ahead.as_ref());
        let lhs_stays = self.blocks.stays == Side::Lhs;
        let (outer, inner) = if lhs_stays {
            (rows, columns)
        } else {
            (columns, rows)
        };
        let place = |outer: usize, inner: usize| {
            if lhs_stays {
                [outer, inner]
            } else {
                [inner, outer]
            }
        };
        let tiles = outer.0.div_ceil(outer.1) * inner.0.div_ceil(inner.1);
        let mut done = 0;
        for here in (0..outer.0).step_by(outer.1) {
            let after = Some(here + outer.1).filter(|&after| after < outer.0);
            let after = place(after.unwrap_or(here), 0);
            for own in (0..inner.0).step_by(inner.1) {
                let next = own + inner.1;
                let next = if next < inner.0 {
                    place(here, next)
                } else {
                    after
                };
                if let Some((next, (place, ask))) = block.next.as_ref().zip(ahead) {
                    next.ask((place, *ask), self.params, done, tiles);
                }
                done += 1;
                match origin {
                    Some(origin) => self.tile(block, origin, place(here, own), next),
                    None => self.scattered(block, place(here, own)),
                }
            }
        }
    }

    /// Where the first row and column of a block are, and how far its rows are apart, if they are equally far and columns
    /// are neighbours.
    fn origin(&self, block: &Block) -> Option<(*mut f32, usize)> {
        let place = |ldc: i64| {
            let batch = self.gemm.shape.out[0].offset(block.batch, self.params) - self.origin;
            let first = block.m.start * ldc as usize + block.n.start;
            let batch = self.out.wrapping_offset(batch);
            (batch.wrapping_add(first), ldc as usize)
        };
        block.own.or_else(|| self.plain.map(place))
    }

    /// A tile of a block, given its first row and column there, and those of the one after it.
    #[inline]
    fn tile(&self, block: &Block, origin: (*mut f32, usize), here: [usize; 2], next: [usize; 2]) {
        let at = |[row, column]: [usize; 2]| origin.0.wrapping_add(row * origin.1 + column);
        // SAFETY: the tile's rows and columns lie in the output or the block's memory.
        unsafe { self.micro(block, here, (at(here), origin.1), at(next)) };
    }

    /// How many rows and columns a tile has, given its first ones in the block.
    fn size(&self, block: &Block, [row, column]: [usize; 2]) -> [usize; 2] {
        let tile = self.gemm.shape.tile;
        let rows = (block.m.len() - row).min(tile.rows as usize);
        [rows, (block.n.len() - column).min(tile.columns() as usize)]
    }

    /// Runs the micro-kernel for a tile, given its first row and column in the block, where it starts, and the one after
    /// it.
    ///
    /// # Safety
    /// The tile's rows and columns lie at `to`, `ldc` apart.
    #[inline]
    unsafe fn micro(
        &self,
        block: &Block,
        here: [usize; 2],
        (to, ldc): (*mut f32, usize),
        next: *const f32,
    ) {
        let (tile, steps) = (self.gemm.shape.tile, block.k.len());
        let size = self.size(block, here);
        let [rows, columns] = size;
        let vectors = match columns == tile.columns() as usize {
            true => tile.vectors as usize,
            false => columns.div_ceil(tile.lanes as usize),
        };
        let index = (rows - 1) * tile.vectors as usize + vectors - 1;
        // Panels are `steps` times their width, and tiles start at panels.
        let lhs = block.lhs.wrapping_add(here[0] * steps);
        let (rhs, ldb) = match block.rhs.apart {
            Some(apart) => (block.rhs.at.wrapping_add(here[1]), apart),
            None => (
                block.rhs.at.wrapping_add(here[1] * steps),
                tile.columns().into(),
            ),
        };
        let slim = self.gemm.slim.as_ref();
        let slim = slim.filter(|(slim, _)| slim.takes(size, steps, block.fresh));
        let (k, ldc, fresh) = (steps as i64, ldc as i64, i64::from(block.fresh));
        let [rows, columns] = [rows as i64, columns as i64];
        // SAFETY: the panels are whole, or the operand has these columns in all steps; C is the caller's promise.
        unsafe {
            if let Some((_, kernel)) = slim {
                kernel(k, lhs, rhs, ldb, to, ldc, fresh, rows);
            } else if let Some(direct) = self.direct.filter(|_| block.rhs.apart.is_some()) {
                let kernel = direct.kernels[index].expect("there is one for each height");
                kernel(k, lhs, rhs, to, ldc, fresh, rows, columns, next, ldb);
            } else {
                let kernel = self.gemm.micro[index];
                kernel(k, lhs, rhs, to, ldc, fresh, rows, columns, next);
            }
        }
    }

    /// A tile of an output whose rows are not plain rows of neighbours, given its first row and column in the block.
    fn scattered(&self, block: &Block, here: [usize; 2]) {
        let width = self.gemm.shape.tile.columns() as usize;
        let [batch, m, n] = &self.gemm.shape.out;
        let batch = batch.offset(block.batch, self.params) - self.origin;
        let size = self.size(block, here);
        let first = [block.m.start + here[0], block.n.start + here[1]];
        let each = |visit: &dyn Fn(*mut f32, *mut f32)| {
            for i in 0..size[0] {
                let row = batch + m.offset(first[0] + i, self.params);
                for j in 0..size[1] {
                    let offset = row + n.offset(first[1] + j, self.params);
                    // SAFETY: an element of the output, and one of the temporary tile.
                    unsafe { visit(self.out.offset(offset), block.tile.add(i * width + j)) };
                }
            }
        };
        if !block.fresh {
            // SAFETY: both are valid, as above; earlier blocks of K have written them.
            each(&|out, tile| unsafe { *tile = *out });
        }
        // SAFETY: the temporary tile is as large as any.
        unsafe { self.micro(block, here, (block.tile, width), block.tile) };
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
