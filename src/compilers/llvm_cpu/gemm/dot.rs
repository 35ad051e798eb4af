//! Products with few rows: dot products straight from the operands, which are not packed.
//!
//! With few rows the time goes into reading the other operand once, so each of its elements is used for all rows while
//! it is in a register, and it is not copied. This needs operands whose steps of K lie next to each other, as in
//! `x[m, k] * w[n, k]`: then vectors of both are loaded as they are. Where only those of the few rows lie apart, as in
//! `x[m, k] * w[k, n]` with few columns, these rows are written out first, which is little for a long other operand.
//!
//! Bits: step k is added to partial sum `k % 16` by a fused multiply-add, in the order of k; in the end partial sum i is
//! added to `i + half`, 16 -> 8 -> 4 -> 2 -> 1. That is the order of the loop nests' reductions along a row, and it
//! depends neither on the target nor on how the output is cut. It is *not* the order of [`super::Gemm::run`].
//!
//! # ABI
//! [`DotFn`]: `fn(k, few, many, out, next)`: addresses of the first steps of some rows of either operand; results go to
//! `out[row of few][row of many]`, without gaps and rounded up to whole vectors. `next` is what will be read after this
//! in the large operand; it is only asked for, not read.
//!
//! Deliberately absent: views with padding or of several layers, and large operands of which only the other dim is
//! contiguous.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::dot_code::MOST;
pub use super::dot_code::{emit_dot, shape, shapes, symbol};
use super::few::FEW;
use super::ir::Contraction;
use super::place::{Place, Rows};
use super::plan::Sizes;
use super::run::Done;
use super::stored::Stored;
use super::walk::Walk;
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::exec::pool;
use crate::shape::{Expr, numel};

/// A compiled kernel; see the module's documentation.
pub type DotFn = unsafe extern "C" fn(
    k: i64,
    few: *const *const u8,
    many: *const *const u8,
    out: *mut f32,
    next: *const u8,
);

/// Multiply-adds below which a second thread costs more than it brings: reading is slower than computing.
const WORK: usize = 1 << 18;

/// Tiles of rows in blocks that memory is asked for ahead: they are short, and so is the time that they take.
const TILES_OF_BLOCKS: usize = 4;

/// Bytes that it is asked for ahead of numbers, in whole tiles.
const AHEAD: usize = 8 << 10;

/// Rows of the large operand in a piece that is handed on.
const WIDE: usize = 64;

/// The kernels of a target for a pair of formats.
#[derive(Debug)]
struct Kernels {
    shape: (usize, usize),
    symbols: Vec<((usize, usize), String)>,
    object: Vec<u8>,
}

impl Kernels {
    /// Compiled once per process.
    fn of(stored: [Stored; 2], target: &Target, cache: &ObjectCache) -> Result<Arc<Kernels>> {
        static MADE: OncePerProcess<(Target, [Stored; 2]), Kernels> = OncePerProcess::new();
        MADE.get_or_make((target.clone(), stored), |_| {
            let symbols =
                shapes(stored, target).map(|shape| (shape, symbol(stored, shape, target)));
            let object = compile_module_cached(target, cache, |context, module| {
                shapes(stored, target)
                    .for_each(|shape| emit_dot(context, module, stored, shape, target));
                Ok(())
            })?;
            Ok(Kernels {
                shape: shape(stored, target),
                symbols: symbols.collect(),
                object,
            })
        })
    }
}

/// The code of a product with few rows, ready to be linked.
#[derive(Clone, Debug)]
pub(super) struct CompiledDots {
    kernels: Arc<Kernels>,
    places: [Place; 2],
    same: bool,
}

impl CompiledDots {
    /// Nothing if the operands do not fit, or both always have many rows.
    pub(super) fn new(
        c: &Contraction,
        target: &Target,
        cache: &ObjectCache,
        params: &mut Params,
    ) -> Result<Option<CompiledDots>> {
        let size = |dims: &[Expr]| numel(dims).as_const();
        let is_many = |size: Option<i64>| size.is_some_and(|size| size > FEW as i64);
        if is_many(size(&c.m)) && is_many(size(&c.n)) {
            return Ok(None);
        }
        let lhs = Place::of(&c.lhs, &c.batch, &c.m, &c.k, params);
        let rhs = Place::of(&c.rhs, &c.batch, &c.n, &c.k, params);
        let (Some(lhs), Some(rhs)) = (lhs, rhs) else {
            return Ok(None);
        };
        let stored = [&c.lhs, &c.rhs].map(Stored::of);
        let needed = lhs.has_rows() && stored[1] != Stored::Q8_0;
        if !needed && !rhs.has_rows() {
            return Ok(None);
        }
        Ok(Some(CompiledDots {
            kernels: Kernels::of(stored, target, cache)?,
            places: [lhs, rhs],
            same: stored[0] == stored[1],
        }))
    }

    pub(super) fn link(&self, jit: &Arc<Jit>) -> Result<Dots> {
        let kernels = &self.kernels;
        Ok(Dots {
            // SAFETY: the symbols are of functions that `emit_dot` wrote, with this signature.
            functions: unsafe { jit.functions(&kernels.object, &kernels.symbols)? },
            shape: kernels.shape,
            places: self.places.clone(),
            same: self.same,
        })
    }
}

/// A product with few rows or columns that can be run.
#[derive(Clone, Debug)]
pub(super) struct Dots {
    functions: Vec<((usize, usize), DotFn)>,
    shape: (usize, usize),
    pub(super) places: [Place; 2],
    /// Whether the operands are stored alike, and so can be exchanged.
    pub(super) same: bool,
}

/// One call, as all threads see it.
pub(super) struct DotCall<'a> {
    pub(super) sizes: Sizes,
    pub(super) operands: [*const u8; 2],
    pub(super) out: *mut f32,
    /// Output offsets along batch, m, n.
    pub(super) walks: &'a [Walk; 3],
    pub(super) params: &'a [i64],
    /// The few rows as [`Dots::write_few`] wrote them out.
    pub(super) written: Option<Rows>,
}

// SAFETY: the operands are only read, and each unit of work writes its own elements of `out`.
unsafe impl Sync for DotCall<'_> {}

impl Dots {
    /// Computes some products of equal sizes. Each piece is computed of all of them, then `done` is told of its batch,
    /// rows and columns.
    ///
    /// # Safety
    /// As for [`super::Gemm::run`], for each product.
    pub(super) unsafe fn run(
        &self,
        calls: &[DotCall<'_>],
        threads: usize,
        done: Option<&Done<'_>>,
    ) {
        let sizes = calls[0].sizes;
        let (sides, counts) = self.sides(sizes);
        let tiles = counts[1].div_ceil(self.shape.1);
        let work = sizes.batch * sizes.m * sizes.n * sizes.k * calls.len();
        let threads = if work < WORK { 1 } else { threads };
        // Whoever is told of pieces wants wide ones.
        let wide = done.map_or(1, |_| WIDE / self.shape.1);
        let each = wide.min(tiles.div_ceil(4 * threads.max(1))).max(1);
        let groups = tiles.div_ceil(each);
        pool::for_each_range(threads, sizes.batch * groups, &|units| {
            for batch in units.start / groups..units.end.div_ceil(groups) {
                let own = |unit: usize| unit.clamp(batch * groups, (batch + 1) * groups);
                let tile = |unit: usize| ((own(unit) - batch * groups) * each).min(tiles);
                let tiles = tile(units.start)..tile(units.end);
                for call in calls {
                    self.tiles(call, batch, tiles.clone(), None);
                }
                let many = tiles.start * self.shape.1..(tiles.end * self.shape.1).min(counts[1]);
                match (done, sides[0]) {
                    (None, _) => {}
                    (Some(done), 0) => done(batch, 0..sizes.m, many),
                    (Some(done), _) => done(batch, many, 0..sizes.n),
                }
            }
        });
    }

    /// Computes one of the independent products, by the thread that calls, which reads `then` behind it.
    pub(super) fn run_batch(&self, call: &DotCall<'_>, batch: usize, then: *const u8) {
        let (_, counts) = self.sides(call.sizes);
        let tiles = 0..counts[1].div_ceil(self.shape.1);
        self.tiles(call, batch, tiles, Some(then));
    }

    /// How many tiles of so many bytes ahead memory is asked for.
    fn ahead(&self, stored: Stored, bytes: usize) -> usize {
        match stored {
            Stored::Number(_) => AHEAD.div_ceil(bytes.max(1)),
            Stored::Q8_0 => TILES_OF_BLOCKS,
        }
    }

    /// Some tiles of the large operand's rows, by all rows of the small one; behind the last one `then` is read.
    fn tiles(
        &self,
        call: &DotCall<'_>,
        batch: usize,
        tiles: Range<usize>,
        then: Option<*const u8>,
    ) {
        let (sides, counts) = self.sides(call.sizes);
        // Tiles of about equal height, the first of the highest: it reads the large operand from memory.
        let heights = counts[0].div_ceil(self.shape.0);
        let cut = |tile: usize| (counts[0] * tile).div_ceil(heights);
        let stored = self.places[sides[1]].stored;
        let bytes = self.shape.1 * stored.row_bytes(call.sizes.k);
        let ahead = self.ahead(stored, bytes);
        for tile in tiles.clone() {
            // The last tiles ask for what comes then.
            let beyond = (tile + ahead).checked_sub(tiles.end);
            let next = beyond.zip(then);
            let next = next.map(|(tiles, then)| then.wrapping_add(tiles * bytes));
            let first = tile * self.shape.1;
            let end = (first + self.shape.1).min(counts[1]);
            let whole = end - first == self.shape.1;
            let step = if whole { self.shape.1 } else { 1 };
            for many in (first..end).step_by(step) {
                for few in (0..heights).map(|tile| cut(tile)..cut(tile + 1)) {
                    self.tile(
                        call,
                        sides,
                        batch,
                        [(few.start, few.len()), (many, step)],
                        next,
                    );
                }
            }
        }
    }

    /// The products of some rows of both operands, given as first and number, while `next` or what lies behind them is asked
    /// for.
    fn tile(
        &self,
        call: &DotCall<'_>,
        sides: [usize; 2],
        batch: usize,
        [few, many]: [(usize, usize); 2],
        next: Option<*const u8>,
    ) {
        let rows = |side: usize, (first, count): (usize, usize)| -> SmallVec<[*const u8; MOST]> {
            let written = call.written.filter(|_| side == sides[0]);
            let row = |i| match written {
                Some(rows) => rows.row(batch, first + i),
                None => self.places[side].row(call.operands[side], (batch, first + i), call.params),
            };
            let distance = self.places[side].distance(call.params);
            match distance.filter(|_| written.is_none()) {
                Some(bytes) => {
                    let start = row(0);
                    let at = |i| start.wrapping_offset(i as isize * bytes);
                    (0..count).map(at).collect()
                }
                None => (0..count).map(row).collect(),
            }
        };
        let (a, b) = (rows(sides[0], few), rows(sides[1], many));
        let shape = (few.1, many.1);
        let kernel = self.functions.iter().find(|(size, _)| *size == shape);
        let kernel = kernel
            .expect("there is a kernel for every number of few rows")
            .1;
        // The first rows of the small operand read the large one; the others find it in the caches.
        let k = call.sizes.k;
        let stored = self.places[sides[1]].stored;
        let bytes = many.1 * stored.row_bytes(k);
        let next = match few.0 {
            0 => next.unwrap_or_else(|| b[0].wrapping_add(self.ahead(stored, bytes) * bytes)),
            _ => b[0],
        };
        let mut results = [0f32; 2 * MOST * MOST];
        // SAFETY: the rows have `k` steps each, and `results` has room for the largest kernel's.
        unsafe { kernel(k as i64, a.as_ptr(), b.as_ptr(), results.as_mut_ptr(), next) };
        let base = call.walks[0].offset(batch, call.params);
        let offset = |side: usize, row: usize| call.walks[1 + sides[side]].offset(row, call.params);
        let (mut columns, start) = ([0; MOST], offset(1, many.0));
        let distance = call.walks[1 + sides[1]].stride(call.params);
        for (j, column) in columns[..many.1].iter_mut().enumerate() {
            *column = match distance {
                Some(distance) => start + j as isize * distance as isize,
                None => offset(1, many.0 + j),
            };
        }
        for i in 0..few.1 {
            let row = base + offset(0, few.0 + i);
            for (j, column) in columns[..many.1].iter().enumerate() {
                // SAFETY: an element of the output, which is this tile's alone.
                unsafe { *call.out.offset(row + column) = results[i * many.1 + j] };
            }
        }
    }
}
