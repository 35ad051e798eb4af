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

use std::sync::Arc;

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};
use smallvec::SmallVec;

use super::few::FEW;
use super::ir::Contraction;
use super::place::{Place, Rows};
use super::plan::Sizes;
use super::run::Done;
use super::walk::Walk;
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::lower::STRIPES;
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
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

/// Rows of the large operand in a piece that is handed on.
const WIDE: usize = 64;

/// The most rows of one operand in a kernel.
const MOST: usize = 4;

/// Rows of the small and of the large operand that the largest kernel of a target takes.
pub fn shape(target: &Target) -> (usize, usize) {
    match target.lanes() {
        16 => (4, 4),
        8 => (2, 3),
        4 => (1, 2),
        _ => (1, 1),
    }
}

/// The sizes that kernels are made for.
pub fn shapes(target: &Target) -> impl Iterator<Item = (usize, usize)> {
    let (few, many) = shape(target);
    let many = if many > 1 { vec![many, 1] } else { vec![1] };
    (1..=few).flat_map(move |few| many.clone().into_iter().map(move |many| (few, many)))
}

/// The symbol of a kernel.
pub fn symbol(dtypes: [DType; 2], (few, many): (usize, usize), target: &Target) -> String {
    let isa = target.symbol_part();
    let [a, b] = dtypes.map(|dtype| dtype.name());
    format!("dot_{a}x{b}_f32_{few}x{many}_{isa}")
}

/// Writes a kernel into `module`.
pub fn emit_dot<'c>(
    context: &'c Context,
    module: &Module<'c>,
    dtypes: [DType; 2],
    shape: (usize, usize),
    target: &Target,
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let name = symbol(dtypes, shape, target);
    let e = Emit::function(context, module, &name, &[int, ptr, ptr, ptr, ptr]);
    (1..4).for_each(|pointer| e.noalias(pointer));
    let dot = Dot {
        e: &e,
        dtypes,
        shape,
        lanes: target.lanes(),
    };
    dot.emit();
    e.finish();
}

struct Dot<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    dtypes: [DType; 2],
    shape: (usize, usize),
    lanes: u32,
}

/// The rows of both operands.
type Pointers<'c> = [Vec<PointerValue<'c>>; 2];

impl<'c> Dot<'_, '_, 'c> {
    fn emit(&self) {
        let e = self.e;
        let k = e.int_argument(0);
        let row = |side: u32, row: usize| {
            let table = e.pointer_argument(side + 1);
            let from = e.at(e.ptr(), table, e.int(row as i64));
            e.load(e.ptr(), from, 8).into_pointer_value()
        };
        let rows: Pointers<'c> = [
            (0..self.shape.0).map(|r| row(0, r)).collect(),
            (0..self.shape.1).map(|r| row(1, r)).collect(),
        ];
        let tails = self.reserve(&rows);
        let parts = (STRIPES / self.lanes) as usize;
        let count = self.shape.0 * self.shape.1 * parts;
        let zeros = vec![e.vector(self.lanes).const_zero(); count];
        let whole = e.int(-i64::from(STRIPES));
        let whole = e.builder.build_and(k, whole, "").expect(BUILT);
        let range = (e.int(0), whole, i64::from(STRIPES));
        let sums = e.carry(range, zeros, |at, sums| {
            self.prefetch(at);
            self.step(&rows, at, None, sums)
        });
        // Runs once or not at all.
        let rest = e.sub(k, whole);
        let sums = e.carry((whole, k, i64::from(STRIPES)), sums, |at, sums| {
            self.copy_tails(&rows, &tails, at, rest);
            self.step(&tails, e.int(0), Some(rest), sums)
        });
        let sums = sums.chunks(parts).map(|sums| self.folded(sums.to_vec()));
        for (index, sums) in self.tree(sums.collect()).into_iter().enumerate() {
            let first = e.int(index as i64 * i64::from(self.lanes));
            e.store(sums, e.at(e.f32(), e.pointer_argument(3), first), 4);
        }
    }

    /// Asks for memory behind `next` as fast as the rows are used: one stream of neighbouring cache lines, which the
    /// machine reads faster than several rows at once.
    fn prefetch(&self, at: IntValue<'c>) {
        let (e, size) = (self.e, self.dtypes[1].size() * self.shape.1);
        let from = e.mul(at, e.int(size as i64));
        let from = e.at(e.context.i8_type(), e.pointer_argument(4), from);
        for line in (0..size as i64 * i64::from(STRIPES)).step_by(64) {
            e.prefetch(from, line, 2);
        }
    }

    /// How an operand's elements are stored.
    fn kind(&self, side: usize) -> BasicTypeEnum<'c> {
        match self.dtypes[side] {
            DType::F32 => self.e.f32().into(),
            _ => self.e.context.i16_type().into(),
        }
    }

    /// Sixteen steps from step `at` on; only the first `rest` count, if given.
    fn step(
        &self,
        rows: &Pointers<'c>,
        at: IntValue<'c>,
        rest: Option<IntValue<'c>>,
        sums: &[BasicValueEnum<'c>],
    ) -> Vec<BasicValueEnum<'c>> {
        let (e, parts) = (self.e, (STRIPES / self.lanes) as usize);
        let mut next = sums.to_vec();
        for part in 0..parts {
            let first = part as i64 * i64::from(self.lanes);
            let at = e.add(at, e.int(first));
            let read = |side: usize| -> Vec<BasicValueEnum<'c>> {
                let from = |row: &PointerValue<'c>| e.at(self.kind(side), *row, at);
                let value = |row| e.read_f32(self.dtypes[side], from(row), self.lanes);
                rows[side].iter().map(value).collect()
            };
            let (few, many) = (read(0), read(1));
            let valid = rest.map(|rest| e.lanes_below(self.lanes, e.sub(rest, e.int(first))));
            for (i, &a) in few.iter().enumerate() {
                for (j, &b) in many.iter().enumerate() {
                    let sum = &mut next[(i * many.len() + j) * parts + part];
                    let new = e.fma(a, b, *sum);
                    *sum = valid.map_or(new, |valid| e.select(valid, new, *sum));
                }
            }
        }
        next
    }

    /// Sixteen elements of the stack for each row.
    fn reserve(&self, rows: &Pointers<'c>) -> Pointers<'c> {
        let e = self.e;
        let reserve = |side: usize| {
            let one = |_| {
                let kind = e.context.i8_type().array_type(4 * STRIPES);
                let place = e.builder.build_alloca(kind, "tail").expect(BUILT);
                let zero = e.context.i8_type().vec_type(4 * STRIPES).const_zero();
                e.store(zero, place, 1);
                place
            };
            rows[side].iter().map(one).collect()
        };
        [reserve(0), reserve(1)]
    }

    /// Copies the last steps of all rows, so that whole vectors can be read.
    fn copy_tails(
        &self,
        rows: &Pointers<'c>,
        to: &Pointers<'c>,
        at: IntValue<'c>,
        rest: IntValue<'c>,
    ) {
        let e = self.e;
        e.each(e.int(0), rest, 1, |index| {
            for side in 0..2 {
                let kind = self.kind(side);
                for (&from, &to) in rows[side].iter().zip(&to[side]) {
                    let value = e.load(kind, e.at(kind, from, e.add(at, index)), 2);
                    e.store(value, e.at(kind, to, index), 2);
                }
            }
        });
    }

    /// 16 partial sums in one vector or several: as many as the vector has lanes.
    fn folded(&self, mut parts: Vec<BasicValueEnum<'c>>) -> BasicValueEnum<'c> {
        while parts.len() > 1 {
            let (low, high) = parts.split_at(parts.len() / 2);
            let pairs = low.iter().zip(high);
            parts = pairs.map(|(&a, &b)| self.e.fadd(a, b)).collect();
        }
        parts[0]
    }

    /// From vectors of partial sums, one for each element, to vectors of elements in the same order.
    ///
    /// A vector holds the partial sums of some elements one after the other. Of two vectors, the first halves of all
    /// elements' partial sums are added to the second halves, which gives one vector, with half as many for each.
    fn tree(&self, mut sums: Vec<BasicValueEnum<'c>>) -> Vec<BasicValueEnum<'c>> {
        let mut each = self.lanes;
        while each > 1 {
            each /= 2;
            let chosen = |first: u32| -> Vec<u32> {
                let lanes = 0..2 * self.lanes;
                lanes.filter(|lane| lane / each % 2 == first).collect()
            };
            let (low, high) = (chosen(0), chosen(1));
            let add = |pair: &[BasicValueEnum<'c>]| {
                let (a, b) = (pair[0], pair[pair.len() - 1]);
                let e = self.e;
                e.fadd(e.shuffle(a, b, &low), e.shuffle(a, b, &high))
            };
            sums = sums.chunks(2).map(add).collect();
        }
        sums
    }
}

/// The kernels of a target for a pair of dtypes.
#[derive(Debug)]
struct Kernels {
    shape: (usize, usize),
    symbols: Vec<((usize, usize), String)>,
    object: Vec<u8>,
}

impl Kernels {
    /// Compiled once per process.
    fn of(dtypes: [DType; 2], target: &Target, cache: &ObjectCache) -> Result<Arc<Kernels>> {
        static MADE: OncePerProcess<(Target, [DType; 2]), Kernels> = OncePerProcess::new();
        MADE.get_or_make((target.clone(), dtypes), |_| {
            let symbols = shapes(target).map(|shape| (shape, symbol(dtypes, shape, target)));
            let object = compile_module_cached(target, cache, |context, module| {
                shapes(target).for_each(|shape| emit_dot(context, module, dtypes, shape, target));
                Ok(())
            })?;
            Ok(Kernels {
                shape: shape(target),
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
        if !lhs.has_rows() && !rhs.has_rows() {
            return Ok(None);
        }
        let dtypes = [c.lhs.dtype, c.rhs.dtype];
        Ok(Some(CompiledDots {
            kernels: Kernels::of(dtypes, target, cache)?,
            places: [lhs, rhs],
            same: dtypes[0] == dtypes[1],
        }))
    }

    pub(super) fn link(&self, jit: &Arc<Jit>) -> Result<Dots> {
        let kernels = &self.kernels;
        jit.add_once(&kernels.symbols[0].1, &kernels.object)?;
        let mut functions = Vec::new();
        for (shape, symbol) in &kernels.symbols {
            // SAFETY: the symbol is of a function that `emit_dot` wrote, with this signature.
            let function = unsafe { std::mem::transmute::<*const (), DotFn>(jit.address(symbol)?) };
            functions.push((*shape, function));
        }
        Ok(Dots {
            functions,
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
    /// Whether the operands are of one dtype, and so can be exchanged.
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
        // Tiles of about equal height.
        let heights = counts[0].div_ceil(self.shape.0).max(1);
        let height = counts[0].div_ceil(heights).max(1);
        // Whoever is told of pieces wants wide ones.
        let wide = done.map_or(1, |_| WIDE / self.shape.1);
        let each = wide.min(tiles.div_ceil(4 * threads.max(1))).max(1);
        let groups = tiles.div_ceil(each);
        let run = |call: &DotCall<'_>, batch: usize, tile: usize| {
            let first = tile * self.shape.1;
            let end = (first + self.shape.1).min(counts[1]);
            let whole = end - first == self.shape.1;
            let step = if whole { self.shape.1 } else { 1 };
            for many in (first..end).step_by(step) {
                for few in (0..counts[0]).step_by(height) {
                    let height = height.min(counts[0] - few);
                    self.tile(call, sides, batch, (few, height), (many, step));
                }
            }
        };
        pool::for_each_range(threads, sizes.batch * groups, &|units| {
            for batch in units.start / groups..units.end.div_ceil(groups) {
                let own = |unit: usize| unit.clamp(batch * groups, (batch + 1) * groups);
                let tile = |unit: usize| ((own(unit) - batch * groups) * each).min(tiles);
                let tiles = tile(units.start)..tile(units.end);
                for call in calls {
                    tiles.clone().for_each(|tile| run(call, batch, tile));
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

    /// The products of some rows of both operands, given as first and number.
    fn tile(
        &self,
        call: &DotCall<'_>,
        sides: [usize; 2],
        batch: usize,
        few: (usize, usize),
        many: (usize, usize),
    ) {
        let rows = |side: usize, (first, count): (usize, usize)| -> SmallVec<[*const u8; MOST]> {
            let written = call.written.filter(|_| side == sides[0]);
            let row = |i| match written {
                Some(rows) => rows.row(batch, first + i),
                None => self.places[side].row(call.operands[side], (batch, first + i), call.params),
            };
            (0..count).map(row).collect()
        };
        let (a, b) = (rows(sides[0], few), rows(sides[1], many));
        let shape = (few.1, many.1);
        let kernel = self.functions.iter().find(|(size, _)| *size == shape);
        let kernel = kernel
            .expect("there is a kernel for every number of few rows")
            .1;
        // The first rows of the small operand read the large one; the others find it in the caches.
        let k = call.sizes.k;
        let ahead = if few.0 == 0 {
            many.1 * k * self.places[sides[1]].element
        } else {
            0
        };
        let next = b[0].wrapping_add(ahead);
        let mut results = [0f32; 2 * MOST * MOST];
        // SAFETY: the rows have `k` steps each, and `results` has room for the largest kernel's.
        unsafe { kernel(k as i64, a.as_ptr(), b.as_ptr(), results.as_mut_ptr(), next) };
        let base = call.walks[0].offset(batch, call.params);
        let offset = |side: usize, row: usize| call.walks[1 + sides[side]].offset(row, call.params);
        let mut columns = [0; MOST];
        for (j, column) in columns[..many.1].iter_mut().enumerate() {
            *column = offset(1, many.0 + j);
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
