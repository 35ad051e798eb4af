//! Products of few rows with blocks whose rows, not steps, lie next to each other: weighted sums of rows, as the values of
//! attention are.
//!
//! `out[m, n] += w[m, k] * x[k, n]`: blocks are read where they are, once for some rows of the output, and nothing is packed.
//! Steps are cut into pieces whose blocks stay in L1 while other rows or blocks of the output are computed. Threads share
//! the columns, in whole blocks.
//!
//! Bits: each element is `fma(w, x, sum)` over k in order, from zero, as of [`super::Gemm::run`].

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::ir::Contraction;
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
use crate::shape::Expr;

/// The most rows: with more, blocks are better packed.
pub(super) const MOST: usize = 16;

/// Blocks of a row of the output that are computed at once.
const WIDE: usize = 8;

/// Steps in a piece.
const STEPS: usize = 64;

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
    fn of(target: &Target, cache: &ObjectCache) -> Result<Arc<Kernels>> {
        static MADE: OncePerProcess<Target, Kernels> = OncePerProcess::new();
        MADE.get_or_make(target.clone(), |_| {
            let symbols = shapes(target).map(|shape| (shape, symbol(shape, target)));
            let object = compile_module_cached(target, cache, |context, module| {
                shapes(target).for_each(|shape| emit_sums(context, module, shape, target));
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
        let is_blocks = Stored::of(&c.rhs) == Stored::Q8_0 && c.lhs.dtype == DType::F32;
        if !is_blocks || unit(&c.rhs, &c.batch, &c.n, &c.k) != Some(Unit::Rows) {
            return Ok(None);
        }
        let weights = Place::of(&c.lhs, &c.batch, &c.m, &c.k, params);
        let (Some(weights), Some(rhs)) = (weights, linear(&c.rhs.view)) else {
            return Ok(None);
        };
        let steps = &rhs.index.steps;
        let strides = super::ir::collapse(&c.k, &steps[steps.len() - c.k.len()..]);
        let stride = match strides[..] {
            [] => Expr::from(0),
            [(_, stride)] => stride,
            _ => return Ok(None),
        };
        Ok(weights.has_rows().then_some(CompiledSums {
            kernels: Kernels::of(target, cache)?,
            weights,
            start: Size::of(rhs.index.start, params),
            batch: Walk::of(&c.batch, &steps[..c.batch.len()], params),
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
                self.columns(call, batch, first..(first + each).min(blocks));
            }
        });
    }

    /// Some blocks of columns of a batch, in all rows.
    fn columns(&self, call: &SumsCall<'_>, batch: usize, blocks: Range<usize>) {
        let (place, params, Sizes { m, n, k, .. }) = (&self.place, call.params, call.sizes);
        let start = place.start.value(params) as isize + place.batch.offset(batch, params);
        let first = start + (blocks.start * LEN) as isize;
        let from = call.operands[1].wrapping_offset(Stored::Q8_0.bytes(first));
        let stride = Stored::Q8_0.bytes(place.stride.value(params) as isize);
        let row = |i| place.weights.row(call.operands[0], (batch, i), params);
        let weights: SmallVec<[*const u8; MOST]> = (0..m).map(row).collect();
        let mut sums = [0f32; MOST * WIDE * LEN];
        for step in (0..k).step_by(STEPS) {
            let weight = |row: &*const u8| row.cast::<f32>().wrapping_add(step);
            let weights: SmallVec<[*const f32; MOST]> = weights.iter().map(weight).collect();
            self.piece(&mut Piece {
                rows: from.wrapping_offset(step as isize * stride),
                stride,
                steps: STEPS.min(k - step),
                blocks: blocks.len(),
                weights: &weights,
                sums: &mut sums,
            });
        }
        let columns = blocks.start * LEN..(blocks.end * LEN).min(n);
        let base = call.walks[0].offset(batch, params);
        for (i, sums) in sums.chunks_exact(WIDE * LEN).take(m).enumerate() {
            let row = base + call.walks[1].offset(i, params);
            for (column, sum) in columns.clone().zip(sums) {
                let offset = row + call.walks[2].offset(column, params);
                // SAFETY: an element of the output, which is this unit's alone.
                unsafe { *call.out.offset(offset) = *sum };
            }
        }
    }

    /// Adds some steps to all sums.
    fn piece(&self, piece: &mut Piece<'_>) {
        let mut row = 0;
        while row < piece.weights.len() {
            let (mut block, mut rows) = (0, 1);
            while block < piece.blocks {
                let left = (piece.weights.len() - row, piece.blocks - block);
                let mut kernels = self.functions.iter();
                let fits = kernels.find(|(shape, _)| shape.0 <= left.0 && shape.1 <= left.1);
                let (shape, function) = fits.expect("there is a kernel for one row and block");
                let offset = Stored::Q8_0.bytes((block * LEN) as isize);
                let sums = &mut piece.sums[row * WIDE * LEN + block * LEN..];
                // SAFETY: so many steps of blocks, and weights of these rows; the sums of both are in `sums`.
                unsafe {
                    function(
                        piece.steps as i64,
                        piece.rows.wrapping_offset(offset),
                        piece.stride as i64,
                        piece.weights[row..].as_ptr(),
                        sums.as_mut_ptr(),
                        (WIDE * LEN) as i64,
                    )
                };
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
}
