//! Products of which finished blocks are handed on while they are in a cache.
//!
//! Before: products of equal sizes, each `[m, k] x [k, n]`, and somebody who combines their results point by point.
//! After: one operand is packed whole, the other passes in blocks, of which those of kept panels ([`super::packed`]) need
//! no packing; where two blocks meet, all steps of K follow one
//! another, of all products, and then the block of rows and columns is handed on. So intermediate results never leave
//! the cache, and neither do the partial sums.
//!
//! A block lies in memory of the thread's own. One product whose result has room in the output is better computed there,
//! in the order of [`Gemm::run_telling`]: a block of all steps of K does not fit L2, one of some steps does.
//!
//! Invariant: the bits are those of [`Gemm::run`], or of [`Gemm::run_few`] for [`Gemm::run_few_telling`].
//!
//! Deliberately absent: operands of which not even a part of enough rows can be packed with all steps of K
//! ([`Gemm::tiling`] is `None`).

use std::ops::Range;

use smallvec::SmallVec;

use super::dot::DotCall;
use super::plan::{Blocks, Parts, Scratch, Side, Sizes};
use super::run::{Block, Done, Job, Right, blocks as cut};
use super::{ALIGN, Gemm, Rhs};
use crate::exec::pool;

/// The most floats of an operand that is packed whole: a part of L3.
const WHOLE: usize = 1 << 21;
/// The fewest rows for which the other operand is worth packing once more.
const MANY: usize = 512;
/// Columns, or rows, of the operand that passes in blocks.
const PASSING: [usize; 2] = [128, 256];
/// The most products.
pub const MOST: usize = 4;

/// How products are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    sizes: Sizes,
    blocks: Blocks,
    parts: Parts,
    /// Products, and left operands of them that differ.
    counts: [usize; 2],
    /// Whether right operands come as panels.
    packed: bool,
}

/// The lengths in floats of what a thread works in, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Pieces {
    /// One operand that is packed whole.
    whole: usize,
    /// A block of the other one.
    passing: usize,
    /// A block of one result.
    result: usize,
}

/// Products that run together.
#[derive(Debug)]
pub struct TiledCall<'a> {
    /// The buffers of the left operands. If there is one only, it is that of all.
    pub lhs: &'a [*const u8],
    /// The right ones, one for each product: packed if the tiling says so.
    pub rhs: &'a [Rhs],
    /// Values of the code's parameters.
    pub params: &'a [i64],
    /// At least [`Tiling::scratch_bytes`], aligned to a cache line.
    pub scratch: *mut u8,
    /// The most threads to use.
    pub threads: usize,
}

/// A block whose sums are complete.
#[derive(Clone, Debug)]
pub struct Finished<'a> {
    /// Rows, counted through all batches.
    pub rows: Range<usize>,
    /// Columns.
    pub columns: Range<usize>,
    /// Where the first row and column of each product are.
    pub results: &'a [*mut f32],
    /// How far the rows of a product are apart.
    pub distance: usize,
}

impl Tiling {
    fn pieces(&self) -> Pieces {
        let Blocks {
            mc, nc, kc, first, ..
        } = self.blocks;
        let k = self.sizes.k;
        let (whole, passing) = match first {
            Side::Lhs => (mc, nc),
            Side::Rhs => (nc, mc),
        };
        Pieces {
            whole: (whole * k).next_multiple_of(16),
            passing: (passing * kc).next_multiple_of(16),
            result: (mc * nc).next_multiple_of(16),
        }
    }

    /// How many operands are packed whole.
    fn n_whole(&self) -> usize {
        match self.blocks.first {
            Side::Lhs => self.counts[1],
            Side::Rhs => self.counts[0],
        }
    }

    /// Floats of one thread's memory.
    fn floats(&self) -> usize {
        let Pieces {
            whole,
            passing,
            result,
        } = self.pieces();
        self.n_whole() * whole + passing + self.counts[0] * result
    }

    /// How much scratch memory a call needs.
    pub fn scratch_bytes(&self) -> usize {
        4 * self.floats() * self.parts.count() + ALIGN
    }
}

impl Gemm {
    /// How products of these sizes run together, if that is a good way; `counts` are the products and the left operands
    /// of them that differ, `packed` says whether all right operands come as panels.
    pub fn tiling(
        &self,
        sizes: Sizes,
        counts: [usize; 2],
        packed: bool,
        threads: usize,
    ) -> Option<Tiling> {
        if self.broad_here(sizes).is_some() && !packed {
            return None;
        }
        let tile = self.shape.tile;
        let (height, width) = (tile.rows as usize, tile.columns() as usize);
        let all = Sizes {
            k: sizes.k * counts[0],
            ..sizes
        };
        let parts = self.parts(all, threads, packed);
        // Rows and columns of a part.
        let m = sizes.m.div_ceil(height).div_ceil(parts.m) * height;
        let n = sizes.n.div_ceil(width).div_ceil(parts.n) * width;
        let steps = [counts[1], counts[0]].map(|count| (count * sizes.k).max(1));
        let [passing, narrow] = PASSING;
        let passing = if tile.lanes == 16 { passing } else { narrow };
        let block =
            |most: usize, unit: usize, all: usize| (most / unit).max(1).min(all / unit) * unit;
        let lhs = (Side::Lhs, m, block(passing, width, n));
        let rhs = (Side::Rhs, block(PASSING[1], height, m), n);
        // Panels that are kept pass at no cost.
        let fits = [m * steps[0] <= WHOLE, !packed && n * steps[1] <= WHOLE];
        let (first, mc, nc) = match fits {
            [true, true] if n * steps[1] < m * steps[0] => rhs,
            [true, _] => lhs,
            [_, true] => rhs,
            _ => {
                let most = WHOLE / steps[0] / height * height;
                let pieces = (most >= MANY).then(|| m.div_ceil(most))?;
                let rows = m.div_ceil(pieces).next_multiple_of(height);
                (Side::Lhs, rows, lhs.2)
            }
        };
        let blocks = Blocks {
            mc: mc.max(height),
            nc: nc.max(width),
            kc: self.shape.blocks.steps(sizes.k),
            first,
            ..self.shape.blocks
        };
        Some(Tiling {
            sizes,
            blocks,
            parts,
            counts,
            packed,
        })
    }

    /// Computes products of equal sizes that share this code, and hands on their blocks.
    ///
    /// # Safety
    /// The operands hold every element that their views read with these parameters; the scratch memory overlaps none of
    /// them. What `finish` writes belongs to the block that it is told of.
    pub unsafe fn run_tiled(
        &self,
        tiling: &Tiling,
        call: &TiledCall<'_>,
        finish: &(dyn Fn(&Finished<'_>) + Sync),
    ) {
        let run = Run {
            gemm: self,
            tiling,
            call,
            finish,
        };
        let run = &run;
        let part = |index: usize| {
            let [batch, m, n] = tiling.parts.part(index, tiling.sizes, self.shape.tile);
            run.part(index, batch, m, n);
        };
        let n_parts = tiling.parts.count();
        pool::for_each_range(call.threads, n_parts, &|range| range.for_each(part));
    }

    /// Computes products of equal sizes that share this code, as [`Gemm::run_few`] does, and tells `done`, if there is
    /// one, of finished pieces. Each has its own output.
    ///
    /// # Panics
    /// Unless [`Gemm::is_few`].
    ///
    /// # Safety
    /// That of [`Gemm::run_few`], for each product; `scratch` has [`Gemm::few_scratch_bytes`] of each, rounded up to
    /// `ALIGN`. What `done` does to the outputs stays within the piece.
    pub unsafe fn run_few_telling(
        &self,
        products: &[([*const u8; 2], *mut f32)],
        params: &[i64],
        scratch: *mut u8,
        threads: usize,
        done: Option<&Done<'_>>,
    ) {
        let sizes = self.sizes(params);
        let dots = self.dots.as_ref().filter(|dots| dots.fits(sizes));
        let dots = dots.expect("is_few was asked");
        let bytes = self.few_scratch_bytes(sizes).next_multiple_of(ALIGN);
        let call = |(i, &(operands, out)): (usize, &([*const u8; 2], *mut f32))| DotCall {
            sizes,
            operands,
            out,
            walks: &self.shape.out,
            params,
            // SAFETY: the caller's operands, and each product's own piece of the scratch memory.
            written: unsafe {
                dots.write_few(sizes, operands, params, scratch.wrapping_add(i * bytes))
            },
        };
        let calls: SmallVec<[DotCall<'_>; MOST]> = products.iter().enumerate().map(call).collect();
        // SAFETY: the caller's promise.
        unsafe { dots.run(&calls, threads, done) };
    }
}

/// A call, as all threads see it.
struct Run<'a> {
    gemm: &'a Gemm,
    tiling: &'a Tiling,
    call: &'a TiledCall<'a>,
    finish: &'a (dyn Fn(&Finished<'_>) + Sync),
}

// SAFETY: the operands are only read; each part writes its own piece of the scratch memory.
unsafe impl Sync for Run<'_> {}

/// Where a part works.
struct Memory {
    whole: SmallVec<[*mut f32; MOST]>,
    passing: *mut f32,
    results: SmallVec<[*mut f32; MOST]>,
}

impl Run<'_> {
    fn memory(&self, index: usize) -> Memory {
        let Pieces {
            whole,
            passing,
            result,
        } = self.tiling.pieces();
        let start = self.call.scratch.cast::<f32>();
        let own = start.wrapping_add(index * self.tiling.floats());
        let behind = own.wrapping_add(self.tiling.n_whole() * whole);
        let results = behind.wrapping_add(passing);
        let each = |count: usize, first: *mut f32, len: usize| {
            (0..count).map(|i| first.wrapping_add(i * len)).collect()
        };
        Memory {
            whole: each(self.tiling.n_whole(), own, whole),
            passing: behind,
            results: each(self.tiling.counts[0], results, result),
        }
    }

    /// The products, of which number `i` is asked for blocks.
    fn jobs(&self) -> SmallVec<[Job<'_>; MOST]> {
        let job = |(i, &rhs): (usize, &Rhs)| Job {
            gemm: self.gemm,
            sizes: self.tiling.sizes,
            blocks: self.tiling.blocks,
            scratch: Scratch {
                lhs: 0,
                rhs: 0,
                tile: 0,
            },
            memory: std::ptr::null_mut(),
            plain: None,
            lhs: self.call.lhs[i.min(self.call.lhs.len() - 1)],
            rhs,
            direct: None,
            out: std::ptr::null_mut(),
            origin: 0,
            params: self.call.params,
            done: None,
        };
        self.call.rhs.iter().enumerate().map(job).collect()
    }

    /// Computes one part of the output.
    fn part(&self, index: usize, batches: Range<usize>, m: Range<usize>, n: Range<usize>) {
        let Blocks { mc, nc, first, .. } = self.tiling.blocks;
        let (memory, jobs) = (self.memory(index), self.jobs());
        let (outer, outer_size, inner, inner_size) = match first {
            Side::Lhs => (m, mc, n, nc),
            Side::Rhs => (n, nc, m, mc),
        };
        for batch in batches {
            for outer in cut(outer.clone(), outer_size) {
                self.pack(&memory, &jobs, batch, &outer);
                for now in cut(inner.clone(), inner_size) {
                    let after = now.end..(now.end + inner_size).min(inner.end);
                    let (m, n) = match first {
                        Side::Lhs => (outer.clone(), now),
                        Side::Rhs => (now, outer.clone()),
                    };
                    self.block(&memory, &jobs, batch, (m, n, after));
                }
            }
        }
    }

    /// The blocks of K. Without any step there is one, so that the result is written.
    fn steps(&self) -> impl Iterator<Item = Range<usize>> {
        let k = self.tiling.sizes.k;
        cut(0..k.max(1), self.tiling.blocks.kc).map(move |steps| steps.start..steps.end.min(k))
    }

    /// Packs all steps of some rows of the operands that are packed whole.
    fn pack(&self, memory: &Memory, jobs: &[Job<'_>], batch: usize, rows: &Range<usize>) {
        let first = self.tiling.blocks.first;
        let width = self.width(first, rows);
        for (job, &to) in jobs.iter().zip(&memory.whole) {
            for k in self.steps() {
                // SAFETY: blocks of `width` times their steps lie behind one another.
                let to = unsafe { to.add(k.start * width) };
                match first {
                    Side::Lhs => job.lhs_block(batch, rows.clone(), k, to),
                    Side::Rhs => {
                        job.rhs_block(batch, rows.clone(), k, to);
                    }
                }
            }
        }
    }

    /// The rows of an operand, in whole panels.
    fn width(&self, side: Side, rows: &Range<usize>) -> usize {
        let tile = self.gemm.shape.tile;
        let panel = match side {
            Side::Lhs => tile.rows,
            Side::Rhs => tile.columns(),
        };
        rows.len().next_multiple_of(panel as usize)
    }

    /// One block of all results, given its rows, its columns and the part of the operand that passes which comes after
    /// them.
    fn block(
        &self,
        memory: &Memory,
        jobs: &[Job<'_>],
        batch: usize,
        (m, n, after): (Range<usize>, Range<usize>, Range<usize>),
    ) {
        let Tiling { sizes, blocks, .. } = *self.tiling;
        let row = batch * sizes.m + m.start;
        let distance = blocks.nc;
        let outer = match blocks.first {
            Side::Lhs => self.width(Side::Lhs, &m),
            Side::Rhs => self.width(Side::Rhs, &n),
        };
        for k in self.steps() {
            for (i, job) in jobs.iter().enumerate() {
                let whole = &memory.whole;
                let there = whole[i.min(whole.len() - 1)].wrapping_add(k.start * outer);
                let there = there.cast_const();
                let passing = memory.passing;
                let (lhs, rhs) = match blocks.first {
                    Side::Lhs => (there, job.rhs_block(batch, n.clone(), k.clone(), passing)),
                    Side::Rhs => {
                        if i < self.tiling.counts[1] {
                            job.lhs_block(batch, m.clone(), k.clone(), passing);
                        }
                        (passing.cast_const(), Right::panels(there))
                    }
                };
                let next = match self.steps().find(|steps| steps.start == k.end) {
                    _ if blocks.first == Side::Rhs => None,
                    _ if i + 1 < jobs.len() => jobs[i + 1].next(batch, n.clone(), k.clone()),
                    Some(k) => jobs[0].next(batch, n.clone(), k),
                    None => jobs[0].next(batch, after.clone(), 0..k.len()),
                };
                job.block(&Block {
                    batch,
                    m: m.clone(),
                    n: n.clone(),
                    fresh: k.start == 0,
                    k: k.clone(),
                    lhs,
                    rhs,
                    tile: std::ptr::null_mut(),
                    own: Some((memory.results[i], distance)),
                    next,
                });
            }
        }
        (self.finish)(&Finished {
            rows: row..row + m.len(),
            columns: n,
            results: &memory.results,
            distance,
        });
    }
}
