//! Products with many rows and few columns, whose rows are read where they are.
//!
//! Before: `x[m, k] * w[n, k]` with up to 16 columns, as of a layer with few channels: packing `x` costs more than such a
//! product, and dot products end in as many sums along vectors as the output has elements. After: every thread writes
//! the few columns side by side, once; then each number of a row of `x` is multiplied with a vector of them, for as many rows
//! as there are registers.
//!
//! Bits: those of packed operands, one chain of fused multiply-adds over k for each element.
//!
//! # ABI
//! [`BroadFn`]: `fn(k, a, b, c, ldc)`: `a` is rows a fixed distance apart, each with `k` steps next to each other; `b` is `k`
//! rows of the columns, rounded up to whole vectors; `c` is rows of the columns, `ldc` floats apart. All have 4-byte alignment.
//!
//! Deliberately absent: formats other than F32, rows whose distance is not known when a product is compiled or that would
//! share few sets of the first cache, and targets without masked stores: these pack both operands.

use std::ops::Range;
use std::sync::Arc;

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue};

use super::ir::{Contraction, collapse};
use super::linear::linear;
use super::micro::{Tile, UNROLL};
use super::packing::{CompiledPack, PackCode, Part};
use super::place::Place;
use super::plan::Sizes;
use super::run::Done;
use super::stored::Stored;
use super::{ALIGN, Call, Rhs};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::emit_masked::has_masks;
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::error::Result;
use crate::exec::pool;
use crate::shape::numel;

/// A compiled kernel; see the module's documentation.
pub type BroadFn =
    unsafe extern "C" fn(k: i64, a: *const f32, b: *const f32, c: *mut f32, ldc: i64);

/// Columns: with fewer, reading the rows is what takes time, and dot products read them as fast.
const COLUMNS: Range<usize> = 5..17;

/// Rows, at least.
const ROWS: usize = 64;

/// Steps: so many that kernels are worth calling, so few that all of the columns stay in L2.
const STEPS: Range<usize> = 32..4097;

/// Floats: rows whose distance is a multiple of these are in few sets of L1, from which they displace each other.
const CLASH: i64 = 256;

/// Multiply-adds below which a second thread costs more than it brings.
const WORK: usize = 1 << 18;

/// What the kernels of a product depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Broad {
    /// Columns of C.
    pub columns: u32,
    /// How far rows of A are apart, in floats.
    pub distance: i64,
    /// Floats in a vector.
    pub lanes: u32,
}

impl Broad {
    /// Vectors in a row of C.
    pub fn vectors(self) -> u32 {
        self.columns.div_ceil(self.lanes)
    }

    /// Floats in a row of B.
    fn width(self) -> usize {
        (self.vectors() * self.lanes) as usize
    }

    /// The numbers of rows that there are kernels for, the highest first; the rest of the registers are for a row of B and a number of A.
    pub fn heights(self) -> impl Iterator<Item = u32> {
        let most = if self.lanes == 16 { 24 } else { 12 } / self.vectors();
        [24, 16, 12, 8, 6, 4, 2, 1]
            .into_iter()
            .filter(move |&rows| rows <= most)
    }

    /// The symbol of the kernel for so many rows.
    pub fn symbol(self, rows: u32, target: &Target) -> String {
        let Broad {
            columns, distance, ..
        } = self;
        let isa = target.symbol_part();
        format!("gemm_broad_{rows}x{columns}_{distance}_{isa}")
    }

    /// The height of tiles that makes the share of the busiest thread cheapest: a step costs a load of B, and one of A for each row.
    fn height(self, rows: usize, threads: usize) -> u32 {
        let cost = |&height: &u32| {
            let tiles = rows.div_ceil(height as usize).div_ceil(threads.max(1));
            tiles * (height as usize * self.vectors() as usize + 1)
        };
        // Fewer chains of multiply-adds would wait for their own results.
        let filled = |&height: &u32| height * self.vectors() >= 8;
        let best = self.heights().filter(filled).min_by_key(cost);
        best.expect("the highest fills the registers")
    }
}

/// The kernels of a target.
#[derive(Debug)]
struct Kernels {
    symbols: Vec<(u32, String)>,
    object: Vec<u8>,
}

impl Kernels {
    /// Compiled once per process.
    fn of(broad: Broad, target: &Target, cache: &ObjectCache) -> Result<Arc<Kernels>> {
        static MADE: OncePerProcess<(Target, Broad), Kernels> = OncePerProcess::new();
        MADE.get_or_make((target.clone(), broad), |_| {
            let symbol = |rows| (rows, broad.symbol(rows, target));
            let symbols: Vec<_> = broad.heights().map(symbol).collect();
            let object = compile_module_cached(target, cache, |context, module| {
                for (rows, symbol) in &symbols {
                    emit_broad(context, module, symbol, broad, *rows);
                }
                Ok(())
            })?;
            Ok(Kernels { symbols, object })
        })
    }
}

/// The code, ready to be linked.
#[derive(Clone, Debug)]
pub(super) struct CompiledBroad {
    broad: Broad,
    place: Place,
    /// Nothing on targets without masks.
    code: Option<(CompiledPack, Arc<Kernels>)>,
}

impl CompiledBroad {
    /// Nothing if the operands do not fit, which does not depend on the target.
    pub(super) fn new(
        c: &Contraction,
        target: &Target,
        cache: &ObjectCache,
        params: &mut Params,
    ) -> Result<Option<CompiledBroad>> {
        let number = Stored::Number(DType::F32);
        let columns = numel(&c.n).as_usize().filter(|n| COLUMNS.contains(n));
        let floats = [&c.lhs, &c.rhs].map(Stored::of) == [number; 2];
        let fits = floats && is_plain(c);
        let (Some(columns), Some(distance), true) = (columns, distance(c), fits) else {
            return Ok(None);
        };
        let broad = Broad {
            columns: columns as u32,
            distance,
            lanes: target.lanes(),
        };
        let place = Place::of(&c.lhs, &c.batch, &c.m, &c.k, params);
        let Some(place) = place.filter(Place::has_rows) else {
            return Ok(None);
        };
        let tile = Tile {
            rows: 1,
            vectors: broad.vectors(),
            lanes: broad.lanes,
        };
        let code = if has_masks(broad.lanes, DType::F32) {
            let pack = CompiledPack::new((c, 1), (target, tile), cache, params)?;
            Some((pack, Kernels::of(broad, target, cache)?))
        } else {
            None
        };
        Ok(Some(CompiledBroad { broad, place, code }))
    }

    pub(super) fn link(&self, jit: &Jit) -> Result<Rows> {
        let code = self.code.as_ref().map(|(pack, kernels)| {
            // SAFETY: the symbols are of functions that `emit_broad` wrote, with this signature.
            let functions = unsafe { jit.functions(&kernels.object, &kernels.symbols)? };
            Ok((pack.link(jit)?, functions))
        });
        Ok(Rows {
            broad: self.broad,
            place: self.place.clone(),
            code: code.transpose()?,
        })
    }
}

/// How far rows of the left operand are apart, if that is known and its steps are neighbours.
fn distance(c: &Contraction) -> Option<i64> {
    let form = linear(&c.lhs.view).filter(|linear| linear.masks.is_empty())?;
    let (first, last) = (c.batch.len(), c.batch.len() + c.m.len());
    match collapse(&c.m, &form.index.steps[first..last])[..] {
        [(_, stride)] => stride.as_const(),
        _ => None,
    }
    .filter(|stride| stride % CLASH != 0)
}

/// Whether rows of the output are equally far apart, and columns neighbours.
fn is_plain(c: &Contraction) -> bool {
    let (first, last) = (c.batch.len(), c.batch.len() + c.m.len());
    let rows = collapse(&c.m, &c.out_strides[first..last]);
    let columns = collapse(&c.n, &c.out_strides[last..]);
    rows.len() == 1 && columns.len() == 1 && columns[0].1.is_one()
}

/// A product that reads its rows where they are.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    broad: Broad,
    place: Place,
    /// What packs the columns, and the kernels, the highest first.
    code: Option<(PackCode, Vec<(u32, BroadFn)>)>,
}

impl Rows {
    /// Whether this is the way for these sizes; then none is made of dot products, on any target.
    pub(super) fn suits(&self, sizes: Sizes) -> bool {
        sizes.m >= ROWS && STEPS.contains(&sizes.k)
    }

    /// Whether this target has the code.
    pub(super) fn is_compiled(&self) -> bool {
        self.code.is_some()
    }

    /// Floats of one thread's columns.
    fn floats(&self, sizes: Sizes) -> usize {
        (sizes.k * self.broad.width()).next_multiple_of(ALIGN / 4)
    }

    /// How much scratch memory a call needs.
    pub(super) fn scratch_bytes(&self, sizes: Sizes, threads: usize) -> usize {
        4 * self.floats(sizes) * threads.max(1) + ALIGN
    }

    /// Computes the product of rows `ldc` apart, and tells `done` of finished rows. Gives whether it did: panels are for others.
    ///
    /// # Panics
    /// If the scratch memory is too short.
    ///
    /// # Safety
    /// That of [`super::Gemm::run_telling`].
    pub(super) unsafe fn run(
        &self,
        sizes: Sizes,
        call: &mut Call<'_>,
        (batches, ldc): (&(dyn Fn(usize) -> isize + Sync), i64),
        done: Option<&Done<'_>>,
    ) -> bool {
        let (Some((pack, kernels)), Rhs::Raw(rhs)) = (&self.code, call.rhs) else {
            return false;
        };
        let each = sizes.m * sizes.n * sizes.k;
        let work = sizes.batch.saturating_mul(each);
        let threads = if work < WORK { 1 } else { call.threads.max(1) };
        let pad = call.scratch.as_ptr().align_offset(ALIGN);
        let needed = pad + 4 * self.floats(sizes) * threads;
        assert!(call.scratch.len() >= needed, "scratch memory is too small");
        let job = Job {
            rows: self,
            pack,
            kernels,
            sizes,
            // SAFETY: `pad` bytes are inside of the scratch memory.
            memory: unsafe { call.scratch.as_mut_ptr().add(pad) }.cast(),
            operands: [call.lhs, rhs],
            out: call.out,
            ldc,
            params: call.params,
        };
        let job = &job;
        // Threads share batches, or the rows of each where these are few and long.
        let (outer, inner) = match sizes.batch >= threads || each < WORK {
            true => (threads, 1),
            false => (1, threads),
        };
        let height = self.broad.height(sizes.m, inner) as usize;
        let one = |number: usize, batch: usize| {
            let part = |own: usize, tiles: Range<usize>| {
                let rows = tiles.start * height..(tiles.end * height).min(sizes.m);
                let columns = job.columns(number + own);
                job.rows(batch, rows.clone(), columns, batches(batch));
                if let Some(done) = done {
                    done(batch, rows, 0..sizes.n);
                }
            };
            let begin = |own: usize| job.pack(batch, job.columns(number + own));
            let tiles = sizes.m.div_ceil(height);
            pool::for_each_range_after(inner, tiles, &begin, &part);
        };
        pool::for_each_range_after(outer, sizes.batch, &|_| (), &|number, batches| {
            batches.for_each(|batch| one(number, batch));
        });
        true
    }
}

/// One call, as all threads see it.
struct Job<'a> {
    rows: &'a Rows,
    pack: &'a PackCode,
    kernels: &'a [(u32, BroadFn)],
    sizes: Sizes,
    memory: *mut f32,
    operands: [*const u8; 2],
    out: *mut f32,
    ldc: i64,
    params: &'a [i64],
}

// SAFETY: the operands are only read; each thread writes its own columns and its own rows of the output.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// Where a thread has its columns.
    fn columns(&self, number: usize) -> *mut f32 {
        self.memory
            .wrapping_add(number * self.rows.floats(self.sizes))
    }

    fn pack(&self, batch: usize, to: *mut f32) {
        let part = Part {
            batch,
            row: 0,
            rows: self.sizes.n,
            k: 0,
            steps: self.sizes.k,
        };
        // SAFETY: the caller of `run` vouches for the operand; `to` has room for the columns in all steps.
        unsafe { self.pack.run(self.operands[1], self.params, part, to) };
    }

    /// Some rows of a batch whose output begins at `first`.
    fn rows(&self, batch: usize, rows: Range<usize>, columns: *const f32, first: isize) {
        let mut row = rows.start;
        while row < rows.end {
            let fits = |(height, _): &&(u32, BroadFn)| *height as usize <= rows.end - row;
            let (height, kernel) = self.kernels.iter().find(fits).expect("one is for one row");
            let at = (batch, row);
            let from = self.rows.place.row(self.operands[0], at, self.params);
            let to = self
                .out
                .wrapping_offset(first + row as isize * self.ldc as isize);
            // SAFETY: so many rows are left; the columns are packed; the caller of `run` vouches for operand and output.
            unsafe { kernel(self.sizes.k as i64, from.cast(), columns, to, self.ldc) };
            row += *height as usize;
        }
    }
}

/// Writes the kernel `symbol` for so many rows into `module`.
pub fn emit_broad<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    broad: Broad,
    rows: u32,
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, symbol, &[int, ptr, ptr, ptr, int]);
    [1, 2, 3].into_iter().for_each(|pointer| e.noalias(pointer));
    let code = Code { e: &e, broad };
    let k = e.int_argument(0);
    let mask = e.int(-i64::from(UNROLL));
    let whole = e.builder.build_and(k, mask, "whole").expect(BUILT);
    let zero = e.vector(broad.lanes).const_zero();
    let sums = vec![zero; (rows * broad.vectors()) as usize];
    let range = (e.int(0), whole, i64::from(UNROLL));
    let sums = e.carry(range, sums, |at, sums| {
        let step = |sums: Vec<_>, step: u32| code.step(at, step, &sums);
        (0..UNROLL).fold(sums.to_vec(), step)
    });
    let sums = e.carry((whole, k, 1), sums, |at, sums| code.step(at, 0, sums));
    code.store(&sums);
    e.finish();
}

struct Code<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    broad: Broad,
}

impl<'c> Code<'_, '_, 'c> {
    /// Step `at + step` of all sums.
    fn step(
        &self,
        at: IntValue<'c>,
        step: u32,
        sums: &[BasicValueEnum<'c>],
    ) -> Vec<BasicValueEnum<'c>> {
        let (e, broad) = (self.e, self.broad);
        let (lanes, vectors) = (broad.lanes, broad.vectors());
        let row = e.mul(at, e.int(broad.width() as i64));
        let row = e.at(e.f32(), e.pointer_argument(2), row);
        let load = |vector: u32| {
            let offset = step * broad.width() as u32 + vector * lanes;
            let from = e.at(e.f32(), row, e.int(offset.into()));
            e.load(e.vector(lanes), from, 4)
        };
        let b: Vec<_> = (0..vectors).map(load).collect();
        let a = e.at(e.f32(), e.pointer_argument(1), at);
        let mut next = Vec::with_capacity(sums.len());
        for (row, sums) in sums.chunks(vectors as usize).enumerate() {
            let offset = row as i64 * broad.distance + i64::from(step);
            let number = e.load(e.f32(), e.at(e.f32(), a, e.int(offset)), 4);
            let number = e.splat(number, lanes);
            let pairs = sums.iter().zip(&b);
            next.extend(pairs.map(|(&sum, &b)| e.fma(number, b, sum)));
        }
        next
    }

    fn store(&self, sums: &[BasicValueEnum<'c>]) {
        let (e, broad) = (self.e, self.broad);
        let (lanes, vectors) = (broad.lanes, broad.vectors());
        let rest = broad.columns - (vectors - 1) * lanes;
        let mask = e.lanes_below(lanes, e.int(rest.into()));
        for (index, &sum) in sums.iter().enumerate() {
            let (row, vector) = (index as u32 / vectors, index as u32 % vectors);
            let to = e.mul(e.int_argument(4), e.int(row.into()));
            let to = e.at(e.f32(), e.pointer_argument(3), to);
            let to = e.at(e.f32(), to, e.int((vector * lanes).into()));
            match vector + 1 == vectors && rest < lanes {
                true => e.masked_store(sum, to, mask),
                false => e.store(sum, to, 4),
            }
        }
    }
}
