//! A product a few rows at a time, against a right operand that was packed for one batch.
//!
//! For chains of products ([`super::super::attention`]) whose intermediate results are not kept: the caller says which
//! rows, columns and steps of K to compute, and where the rows lie.
//!
//! Packed: blocks of `k_block` steps of K, each `columns` panels wide; a panel is `steps` times the tile's columns.

use std::ops::Range;

use super::micro::Tile;
use super::packing::Part;
use super::plan::{Blocks, Scratch, Side, Sizes};
use super::run::{Block, Job, Right, blocks as cut};
use super::{Gemm, Rhs};
use crate::dtype::DType;

/// What [`Gemm::rows`] computes.
#[derive(Clone, Debug)]
pub struct RowsCall<'a> {
    /// Which of the independent products.
    pub batch: usize,
    /// Rows of the result.
    pub m: Range<usize>,
    /// Columns of the result; starts at a panel and ends at one or at the last column.
    pub n: Range<usize>,
    /// Steps that are summed; starts at a block of K and ends at one or at the last step.
    pub k: Range<usize>,
    /// The buffer of the left operand, shifted so that its view finds the rows.
    pub lhs: *const u8,
    /// What [`Gemm::pack_part`] made for this batch.
    pub packed: *const f32,
    /// Where the result's element `origin` is.
    pub out: *mut f32,
    /// An offset into the result.
    pub origin: isize,
    /// Values of the code's parameters.
    pub params: &'a [i64],
    /// At least [`Gemm::rows_scratch`] floats, aligned to 64 bytes.
    pub scratch: *mut f32,
}

/// The right operand of one batch, packed.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// Which of the independent products.
    pub batch: usize,
    /// Steps of K in a block.
    pub k_block: usize,
}

impl Gemm {
    /// The register tile.
    pub fn tile(&self) -> Tile {
        self.shape.tile
    }

    /// The columns of a panel.
    pub fn panel(&self) -> usize {
        self.shape.tile.columns() as usize
    }

    /// The rows of a tile.
    pub fn tile_rows(&self) -> usize {
        self.shape.tile.rows as usize
    }

    /// The floats of a packed right operand of one batch: a multiple of 16.
    pub fn packed_batch_len(&self, sizes: Sizes) -> usize {
        (sizes.n.next_multiple_of(self.panel()) * sizes.k).next_multiple_of(16)
    }

    /// The floats that [`Gemm::rows`] works in: a multiple of 16.
    pub fn rows_scratch(&self, n_rows: usize, k_block: usize) -> usize {
        let tile = self.shape.tile;
        let rows = n_rows.next_multiple_of(tile.rows as usize);
        let size = tile.rows * tile.columns();
        (rows * k_block).next_multiple_of(16) + (size as usize).next_multiple_of(16)
    }

    /// Packs columns `n` of the block of K from `k` on. `n` starts at a panel.
    ///
    /// # Safety
    /// `rhs` holds every element that the view reads with these parameters; `packed` has
    /// [`Gemm::packed_batch_len`] floats and is aligned to 64 bytes; no other thread touches this part of it.
    pub unsafe fn pack_part(
        &self,
        packing: Packing,
        rhs: *const u8,
        params: &[i64],
        (n, k): (Range<usize>, usize),
        packed: *mut f32,
    ) {
        let sizes = self.sizes(params);
        let steps = packing.k_block.min(sizes.k - k);
        // The batch has memory of its own.
        let offset = self.packed_offset(sizes, 0, n.start, k, steps);
        let part = Part {
            batch: packing.batch,
            row: n.start,
            rows: n.len(),
            k,
            steps,
        };
        // SAFETY: the caller vouches for `rhs` and for the room in `packed`.
        unsafe {
            self.pack_rhs.run(rhs, params, part, packed.add(offset));
        }
    }

    /// Where the panel of column `n` in a batch's block of `steps` from `k` on begins, in numbers.
    pub(super) fn packed_offset(
        &self,
        sizes: Sizes,
        batch: usize,
        n: usize,
        k: usize,
        steps: usize,
    ) -> usize {
        (batch * sizes.k + k) * sizes.n.next_multiple_of(self.panel()) + n * steps
    }

    /// Computes rows of a product; sums start from zero.
    ///
    /// # Safety
    /// `packed` was made by [`Gemm::pack_part`] from every column and block of K asked for, with the same `k_block` and
    /// parameters; the left operand's view stays inside of its buffer for these rows and steps; `out` reaches every
    /// element of these rows and columns and overlaps no other memory of the call; `scratch` is as large as
    /// [`Gemm::rows_scratch`] says.
    pub unsafe fn rows(&self, call: &RowsCall<'_>, k_block: usize) {
        let sizes = self.sizes(call.params);
        // The few rows pass each panel of the right operand while it is in L1.
        let blocks = Blocks {
            stays: Side::Rhs,
            ..self.shape.blocks
        };
        let job = Job {
            gemm: self,
            sizes,
            blocks,
            scratch: Scratch {
                lhs: 0,
                rhs: 0,
                tile: 0,
            },
            memory: call.scratch,
            plain: self.plain(call.params),
            lhs: call.lhs,
            rhs: Rhs::Packed(call.packed.cast(), DType::F32),
            direct: None,
            out: call.out,
            origin: call.origin,
            params: call.params,
            done: None,
        };
        debug_assert!(call.n.start.is_multiple_of(self.panel()));
        let lhs = call.scratch;
        let panels = call.m.len().next_multiple_of(self.tile_rows()) * k_block;
        // SAFETY: the tile lies behind the panels of the left operand.
        let tile = unsafe { lhs.add(panels.next_multiple_of(16)) };
        for k in cut(call.k.clone(), k_block) {
            job.lhs_block(call.batch, call.m.clone(), k.clone(), lhs);
            let steps = k_block.min(sizes.k - k.start);
            let offset = self.packed_offset(sizes, 0, call.n.start, k.start, steps);
            job.block(&Block {
                batch: call.batch,
                m: call.m.clone(),
                n: call.n.clone(),
                fresh: k.start == call.k.start,
                k: k.clone(),
                lhs,
                // SAFETY: the panel of this column and block lies there.
                rhs: Right::panels(unsafe { call.packed.add(offset) }),
                tile,
                own: None,
                next: None,
            });
        }
    }
}
