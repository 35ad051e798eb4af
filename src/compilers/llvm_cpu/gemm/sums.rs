//! Products of few rows with blocks, or with `f32`, whose rows, not steps, lie next to each other: weighted sums of rows, as the
//! values of attention are.
//!
//! `out[m, n] += w[m, k] * x[k, n]`: blocks are read where they are, once for some rows of the output, and nothing is packed.
//! Steps are cut into pieces whose blocks stay in L1 while other rows or blocks of the output are computed. Threads share
//! the columns, in whole blocks.
//!
//! Bits: each element is `fma(w, x, sum)` over k in order, from zero, as of [`super::Gemm::run`].

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::ir::{Contraction, collapse};
use super::linear::linear;
use super::place::Place;
use super::plan::Sizes;
use super::stored::{LEN, Stored, Unit, unit};
use super::sums_code::{SumsFn, emit_sums, shapes, symbol};
use super::walk::{Size, Walk};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::error::Result;
use crate::exec::pool;
use crate::shape::{Dims, Expr, numel};

/// The most rows: with more, blocks are better packed.
pub(super) const MOST: usize = 16;

/// Blocks of a row of the output that are computed at once.
const WIDE: usize = 8;

/// Steps in a piece of blocks, and in one of numbers.
const STEPS: [usize; 2] = [64, 16];

/// How many rows of blocks ahead memory is asked for.
const AHEAD: isize = 16;

/// Multiply-adds below which a second thread costs more than it brings.
const WORK: usize = 1 << 18;

/// The kernels of a target.
#[derive(Debug)]
struct Kernels {
    symbols: Vec<((usize, usize), String)>,
    object: Vec<u8>,
}

impl Kernels {
    /// Compiled once per process.
    fn of(stored: Stored, target: &Target, cache: &ObjectCache) -> Result<Arc<Kernels>> {
        static MADE: OncePerProcess<(Target, Stored), Kernels> = OncePerProcess::new();
        MADE.get_or_make((target.clone(), stored), |_| {
            let symbols = shapes(target).map(|shape| (shape, symbol(stored, shape, target)));
            let object = compile_module_cached(target, cache, |context, module| {
                shapes(target).for_each(|shape| emit_sums(context, module, stored, shape, target));
                Ok(())
            })?;
            Ok(Kernels {
                symbols: symbols.collect(),
                object,
            })
        })
    }
}

/// The code, ready to be linked.
#[derive(Clone, Debug)]
pub(super) struct CompiledSums {
    kernels: Arc<Kernels>,
    stored: Stored,
    weights: Place,
    start: Size,
    batch: Walk,
    stride: Size,
}

impl CompiledSums {
    /// Nothing if the operands do not fit.
    pub(super) fn new(
        c: &Contraction,
        target: &Target,
        cache: &ObjectCache,
        params: &mut Params,
    ) -> Result<Option<CompiledSums>> {
        let (stored, floats) = (Stored::of(&c.rhs), DType::F32);
        let fits = match stored {
            Stored::Q8_0 => unit(&c.rhs, &c.batch, &c.n, &c.k) == Some(Unit::Rows),
            Stored::Number(dtype) => dtype == floats && are_blocks(&c.n),
        };
        if !fits || c.lhs.dtype != floats {
            return Ok(None);
        }
        let weights = Place::of(&c.lhs, &c.batch, &c.m, &c.k, params);
        let (Some(weights), Some(rhs)) = (weights, linear(&c.rhs.view)) else {
            return Ok(None);
        };
        let (batch, others) = rhs.index.steps.split_at(c.batch.len());
        let (columns, steps) = others.split_at(c.n.len());
        let are_neighbours =
            matches!(collapse(&c.n, columns)[..], [(_, stride)] if stride.is_one());
        let stride = match collapse(&c.k, steps)[..] {
            [] => Expr::from(0),
            [(_, stride)] => stride,
            _ => return Ok(None),
        };
        let fits = rhs.masks.is_empty() && are_neighbours && weights.has_rows();
        if !fits {
            return Ok(None);
        }
        Ok(Some(CompiledSums {
            kernels: Kernels::of(stored, target, cache)?,
            stored,
            weights,
            start: Size::of(rhs.index.start, params),
            batch: Walk::of(&c.batch, batch, params),
            stride: Size::of(stride, params),
        }))
    }

    pub(super) fn link(&self, jit: &Arc<Jit>) -> Result<Sums> {
        let kernels = &self.kernels;
        Ok(Sums {
            // SAFETY: the symbols are of functions that `emit_sums` wrote, with this signature.
            functions: unsafe { jit.functions(&kernels.object, &kernels.symbols)? },
            place: self.clone(),
        })
    }
}

/// Whether so many columns are whole blocks.
fn are_blocks(columns: &Dims) -> bool {
    let columns = numel(columns).as_usize();
    columns.is_some_and(|n| n > 0 && n.is_multiple_of(LEN))
}

/// Weighted sums that can be run.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    /// Those of most rows first, then those of most blocks.
    functions: Vec<((usize, usize), SumsFn)>,
    place: CompiledSums,
}

/// One call, as all threads see it.
pub(super) struct SumsCall<'a> {
    pub(super) sizes: Sizes,
    pub(super) operands: [*const u8; 2],
    pub(super) out: *mut f32,
    /// Output offsets along batch, m, n.
    pub(super) walks: &'a [Walk; 3],
    pub(super) params: &'a [i64],
}

// SAFETY: the operands are only read, and each unit of work writes its own elements of `out`.
unsafe impl Sync for SumsCall<'_> {}

impl Sums {
    /// Computes the product.
    ///
    /// # Safety
    /// As for [`super::Gemm::run`].
    pub(super) unsafe fn run(&self, call: &SumsCall<'_>, threads: usize) {
        let Sizes { batch, m, n, k } = call.sizes;
        let blocks = n.div_ceil(LEN);
        let threads = if batch * m * n * k < WORK { 1 } else { threads };
        // Wide units: each reads whole stretches of a row. Two for a thread, so that they come out even.
        let units_of_batch = (2 * threads).div_ceil(batch.max(1));
        let each = blocks.div_ceil(units_of_batch).clamp(1, WIDE);
        let groups = blocks.div_ceil(each);
        pool::for_each_range(threads, batch * groups, &|units| {
            for unit in units {
                let (batch, first) = (unit / groups, unit % groups * each);
                let columns = first..(first + each).min(blocks);
                let start = self.start(call.operands[1], batch, call.params);
                self.columns(call, batch, columns, start);
            }
        });
    }

    /// Computes one of the independent products, by the thread that calls, which reads `then` behind it.
    ///
    /// # Safety
    /// As for [`super::Gemm::run`].
    pub(super) unsafe fn run_batch(&self, call: &SumsCall<'_>, batch: usize, then: *const u8) {
        let blocks = call.sizes.n.div_ceil(LEN);
        for first in (0..blocks).step_by(WIDE) {
            self.columns(call, batch, first..(first + WIDE).min(blocks), then);
        }
    }

    /// Where a batch's first row begins.
    pub(super) fn start(&self, base: *const u8, batch: usize, params: &[i64]) -> *const u8 {
        let place = &self.place;
        let start = place.start.value(params) as isize + place.batch.offset(batch, params);
        base.wrapping_offset(place.stored.bytes(start))
    }

    /// Some blocks of columns of a batch, in all rows.
    fn columns(&self, call: &SumsCall<'_>, batch: usize, blocks: Range<usize>, then: *const u8) {
        let (place, params, Sizes { m, n, k, .. }) = (&self.place, call.params, call.sizes);
        let bytes = |numbers: usize| place.stored.bytes(numbers as isize);
        let start = self.start(call.operands[1], batch, params);
        let from = start.wrapping_offset(bytes(blocks.start * LEN));
        let stride = place.stored.bytes(place.stride.value(params) as isize);
        let row = |i| place.weights.row(call.operands[0], (batch, i), params);
        let weights: SmallVec<[*const u8; MOST]> = (0..m).map(row).collect();
        let mut sums = [0f32; MOST * WIDE * LEN];
        let steps = STEPS[usize::from(place.stored != Stored::Q8_0)];
        // Rows of which every byte is read are one stream.
        let is_stream = place.stored != Stored::Q8_0 && stride == bytes(blocks.len() * LEN);
        for step in (0..k).step_by(steps) {
            let weight = |row: &*const u8| row.cast::<f32>().wrapping_add(step);
            let weights: SmallVec<[*const f32; MOST]> = weights.iter().map(weight).collect();
            let next = match step + steps < k {
                true => from.wrapping_offset((step + steps) as isize * stride),
                false => then,
            };
            self.piece(&mut Piece {
                rows: from.wrapping_offset(step as isize * stride),
                stride,
                steps: steps.min(k - step),
                blocks: blocks.len(),
                weights: &weights,
                sums: &mut sums,
                next: is_stream.then_some(next),
            });
        }
        let columns = blocks.start * LEN..(blocks.end * LEN).min(n);
        let base = call.walks[0].offset(batch, params);
        for (i, sums) in sums.chunks_exact(WIDE * LEN).take(m).enumerate() {
            let row = base + call.walks[1].offset(i, params);
            if call.walks[2].stride(params) == Some(1) {
                let to = call.out.wrapping_offset(row + columns.start as isize);
                // SAFETY: neighbours in the output, which are this unit's alone.
                unsafe { std::ptr::copy_nonoverlapping(sums.as_ptr(), to, columns.len()) };
                continue;
            }
            for (column, sum) in columns.clone().zip(sums) {
                let offset = row + call.walks[2].offset(column, params);
                // SAFETY: an element of the output, which is this unit's alone.
                unsafe { *call.out.offset(offset) = *sum };
            }
        }
    }

    /// Adds some steps to all sums.
    fn piece(&self, piece: &mut Piece<'_>) {
        let (mut row, mut next) = (0, piece.next);
        while row < piece.weights.len() {
            let (mut block, mut rows) = (0, 1);
            while block < piece.blocks {
                let left = (piece.weights.len() - row, piece.blocks - block);
                let mut kernels = self.functions.iter();
                let fits = kernels.find(|(shape, _)| shape.0 <= left.0 && shape.1 <= left.1);
                let (shape, function) = fits.expect("there is a kernel for one row and block");
                let bytes = |blocks: usize| self.place.stored.bytes((blocks * LEN) as isize);
                let from = piece.rows.wrapping_offset(bytes(block));
                let (ahead, step) = match next {
                    Some(next) => (next, bytes(shape.1)),
                    None => (from.wrapping_offset(AHEAD * piece.stride), piece.stride),
                };
                let sums = &mut piece.sums[row * WIDE * LEN + block * LEN..];
                // SAFETY: so many steps of blocks, and weights of these rows; the sums of both are in `sums`.
                unsafe {
                    function(
                        piece.steps as i64,
                        from,
                        piece.stride as i64,
                        piece.weights[row..].as_ptr(),
                        sums.as_mut_ptr(),
                        (WIDE * LEN) as i64,
                        ahead,
                        step as i64,
                    )
                };
                next = next.map(|next| next.wrapping_offset(piece.steps as isize * step));
                (rows, block) = (shape.0, block + shape.1);
            }
            row += rows;
        }
    }
}

/// Some steps of a few blocks of columns, in all rows.
struct Piece<'a> {
    rows: *const u8,
    /// Bytes from one step to the next.
    stride: isize,
    steps: usize,
    blocks: usize,
    /// One address for each row of the output.
    weights: &'a [*const f32],
    /// `WIDE` blocks for each row.
    sums: &'a mut [f32],
    /// What to ask for meanwhile as one stream; otherwise rows behind these.
    next: Option<*const u8>,
}
