//! The code of products with an epilogue, and the ways in which it runs.
//!
//! | product | way |
//! |---|---|
//! | would be a loop nest | one loop nest for everything, if its sums add up in the same order |
//! | dot products | each piece of them, then the map over that |
//! | packed, in the output | as without a map, which follows the last steps of K of each block |
//! | packed | blocks with all steps of K, the map over each; see [`crate::compilers::llvm_cpu::gemm::tiled`] |
//! | any other | all products, then the map over all of them |
//!
//! Results of products lie in scratch memory, or in the output if that has room for one and the map keeps its order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use smallvec::SmallVec;

use crate::compilers::llvm_cpu::attention::From;
use crate::compilers::llvm_cpu::code::{
    GemmCode, NestCode, Prepared, evaluate, has, prepare, reported, take,
};
use crate::compilers::llvm_cpu::gemm::tiled::{Finished, MOST, TiledCall, Tiling};
use crate::compilers::llvm_cpu::gemm::{ALIGN, Call, Rhs, Sizes};
use crate::compilers::llvm_cpu::lower::tile::TileFn;
use crate::compilers::llvm_cpu::sequence::Linker;
use crate::error::Result;
use crate::exec::pool;
use crate::op::{KernelCall, NativeCode, Packing, Work};
use crate::shape::{Expr, Symbols};

/// Points below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 15;

/// A compiled map over tiles.
pub struct TileCode {
    pub(in crate::compilers::llvm_cpu) function: TileFn,
    pub(in crate::compilers::llvm_cpu) params: Vec<Expr>,
    /// Keeps the code alive.
    pub(in crate::compilers::llvm_cpu) _linker: Arc<Linker>,
}

impl std::fmt::Debug for TileCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TileCode({:?})", self.params)
    }
}

/// Compiled products with an epilogue.
#[derive(Debug)]
pub struct EpilogueCode {
    pub(in crate::compilers::llvm_cpu) name: String,
    pub(in crate::compilers::llvm_cpu) key: u64,
    /// The code of every product; its packings are those of all, with operands of the whole kernel.
    pub(in crate::compilers::llvm_cpu) product: GemmCode,
    /// For each product, which operands of the kernel its own are.
    pub(in crate::compilers::llvm_cpu) operands: Vec<Vec<usize>>,
    pub(in crate::compilers::llvm_cpu) tile: TileCode,
    /// Where the map's operands come from; from parts: the products in order.
    pub(in crate::compilers::llvm_cpu) rest: Vec<From>,
    /// Whether the output has room for a product.
    pub(in crate::compilers::llvm_cpu) in_place: bool,
    /// Everything as one loop nest.
    pub(in crate::compilers::llvm_cpu) loops: Option<NestCode>,
}

/// How a call runs.
enum Way {
    Loops,
    Few,
    Tiled(Tiling),
    Streamed,
    Apart,
}

impl EpilogueCode {
    fn way(&self, sizes: Sizes, n_threads: usize) -> Way {
        if self.product.is_few(sizes) {
            return Way::Few;
        }
        if self.product.is_narrow(sizes) {
            return match self.loops {
                Some(_) => Way::Loops,
                None => Way::Apart,
            };
        }
        if self.in_place {
            return Way::Streamed;
        }
        let counts = [self.operands.len(), self.n_lhs()];
        let (gemm, packed) = (&self.product.gemm, self.product.packed.is_some());
        match gemm.tiling(sizes, counts, packed, n_threads) {
            Some(tiling) => Way::Tiled(tiling),
            None => Way::Apart,
        }
    }

    /// How many left operands differ: one or all.
    fn n_lhs(&self) -> usize {
        let lhs = |operands: &Vec<usize>| operands[self.product.lhs];
        let first = lhs(&self.operands[0]);
        match self.operands.iter().all(|operands| lhs(operands) == first) {
            true => 1,
            false => self.operands.len(),
        }
    }

    /// Bytes of one product in scratch memory.
    fn result_bytes(&self, sizes: Sizes) -> usize {
        match self.in_place {
            true => 0,
            false => (4 * sizes.batch * sizes.m * sizes.n).next_multiple_of(ALIGN),
        }
    }

    /// Bytes of the few rows of one product, if they are written out.
    fn few_bytes(&self, sizes: Sizes) -> usize {
        let bytes = self.product.gemm.few_scratch_bytes(sizes);
        bytes.next_multiple_of(ALIGN)
    }

    /// What [`NativeCode::prepare`] appended: the product, the loops, the map's parameters.
    fn prepared<'a>(
        &self,
        mut params: &'a [i64],
    ) -> (Prepared<'a>, Option<Prepared<'a>>, &'a [i64]) {
        let product = take(&mut params, self.product.n_params());
        let loops = self.loops.as_ref();
        let loops = loops.map(|loops| take(&mut params, loops.params.len()));
        (product, loops, params)
    }

    /// The sizes of a product, from its own parameters.
    fn sizes(&self, params: &[i64]) -> Sizes {
        self.product.gemm.sizes(params)
    }
}

impl NativeCode for EpilogueCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        let product = prepare(&self.product, symbols, n_threads, params)?;
        let sizes = self.sizes(&params[start..]);
        let loops = match &self.loops {
            Some(loops) => prepare(loops, symbols, n_threads, params)?,
            None => Work::default(),
        };
        evaluate(&self.tile.params, symbols, params)?;
        let results = self.operands.len() * self.result_bytes(sizes);
        let scratch_bytes = match self.way(sizes, n_threads) {
            Way::Loops => return Ok(loops),
            Way::Few => results + self.operands.len() * self.few_bytes(sizes),
            Way::Tiled(tiling) => tiling.scratch_bytes(),
            Way::Streamed => product.scratch_bytes,
            Way::Apart => results + product.scratch_bytes,
        };
        Ok(Work {
            units: 0,
            cost: product.cost.saturating_mul(self.operands.len()),
            n_threads,
            scratch_bytes,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        let loops = self.loops.as_ref();
        self.product.depends_on(symbol)
            || loops.is_some_and(|loops| loops.depends_on(symbol))
            || has(&self.tile.params, symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let (product, loops, params) = self.prepared(call.params);
        let run = Run {
            code: self,
            call,
            sizes: self.sizes(product.params),
            product,
            params,
            error: AtomicI64::new(0),
        };
        match self.way(run.sizes, call.work.n_threads) {
            Way::Loops => {
                let (code, part) = self.loops.as_ref().zip(loops).expect("the way says so");
                let call = KernelCall {
                    params: part.params,
                    ..*call
                };
                // SAFETY: the same contract, for the same buffers.
                return unsafe { code.run(&call) };
            }
            Way::Few => run.few(),
            Way::Tiled(tiling) => run.tiled(&tiling),
            Way::Streamed => run.streamed(),
            Way::Apart => run.apart()?,
        }
        reported(run.error.load(Ordering::Relaxed))
    }

    fn packings(&self) -> &[Packing] {
        self.product.packings()
    }

    // SAFETY: the trait's contract, which is that of the product.
    unsafe fn pack(&self, number: usize, from: *const u8, to: *mut u8, n_threads: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.product.pack(number, from, to, n_threads) };
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}

/// One execution, as all threads see it. Its methods rely on the contract of [`NativeCode::run`].
struct Run<'a> {
    code: &'a EpilogueCode,
    call: &'a KernelCall<'a>,
    sizes: Sizes,
    product: Prepared<'a>,
    /// Those of the map.
    params: &'a [i64],
    error: AtomicI64,
}

// SAFETY: operands are only read; every thread writes its own part of the output and of the scratch memory.
unsafe impl Sync for Run<'_> {}

impl Run<'_> {
    fn output(&self) -> *mut u8 {
        let packed = self.code.product.packings().len();
        self.call.buffers[self.call.buffers.len() - 1 - packed]
    }

    /// Where the panels of a product's right operand are, if those are kept.
    fn panels(&self, product: usize) -> Option<*const u8> {
        let first = self.call.buffers.len() - self.code.product.packings().len();
        let panels = self.call.buffers.get(first + product)?;
        Some(panels.cast_const())
    }

    /// The right operand of a product.
    fn right(&self, product: usize) -> Rhs {
        let [_, raw] = self.factors(product);
        self.code.product.factor(raw, self.panels(product))
    }

    /// The parameters of the packed form.
    fn gemm_params(&self) -> &[i64] {
        &self.product.params[..self.code.product.params.len()]
    }

    /// The buffers of a product's left and right operand.
    fn factors(&self, product: usize) -> [*const u8; 2] {
        let GemmCode { lhs, rhs, .. } = self.code.product;
        [lhs, rhs].map(|input| self.call.buffers[self.code.operands[product][input]].cast_const())
    }

    /// Where the whole results of products lie.
    fn results(&self) -> SmallVec<[*mut f32; MOST]> {
        let bytes = self.code.result_bytes(self.sizes);
        let place = |product: usize| match self.code.in_place {
            true => self.output(),
            false => self.call.scratch.wrapping_add(product * bytes),
        };
        let all = 0..self.code.operands.len();
        all.map(|product| place(product).cast()).collect()
    }

    /// Applies the map to a block.
    fn finish(&self, block: &Finished<'_>) {
        let Finished { rows, columns, .. } = block;
        let before = rows.start * block.distance + columns.start;
        let mut results = block.results.iter();
        let mut pointers: SmallVec<[*mut u8; 40]> = SmallVec::new();
        for from in &self.code.rest {
            pointers.push(match from {
                From::Operand(i) => self.call.buffers[*i],
                From::Part => {
                    let result = *results.next().expect("one for each product");
                    result.wrapping_sub(before).cast()
                }
            });
        }
        pointers.push(self.output());
        // SAFETY: the operands are as large as their views say, the block's results are there, and the output's elements
        // of this block are written by nobody else.
        unsafe {
            (self.code.tile.function)(
                pointers.as_ptr(),
                self.params.as_ptr(),
                rows.start as i64,
                rows.end as i64,
                self.error.as_ptr(),
                columns.start as i64,
                columns.end as i64,
                block.distance as i64,
            );
        }
    }

    /// Applies the map to a block of whole results, given as batch, rows and columns.
    fn finish_part(
        &self,
        results: &Results,
        batch: usize,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
    ) {
        let Sizes { m, n, .. } = self.sizes;
        let rows = batch * m + rows.start..batch * m + rows.end;
        let first = rows.start * n + columns.start;
        let shifted = results.0.iter().map(|result| result.wrapping_add(first));
        let shifted: SmallVec<[*mut f32; MOST]> = shifted.collect();
        self.finish(&Finished {
            rows,
            columns,
            results: &shifted,
            distance: n,
        });
    }

    fn few(&self) {
        let results = Results(self.results());
        let results = &results;
        let product = |(i, &out): (usize, &*mut f32)| (self.factors(i), out);
        let products = results.0.iter().enumerate().map(product);
        let products: SmallVec<[([*const u8; 2], *mut f32); MOST]> = products.collect();
        let done = |batch, rows, columns| self.finish_part(results, batch, rows, columns);
        let gemm = &self.code.product.gemm;
        let used = products.len() * self.code.result_bytes(self.sizes);
        let scratch = self.call.scratch.wrapping_add(used);
        let threads = self.call.work.n_threads;
        // SAFETY: the operands are as large as their types say; results are as large as the product and nobody else's,
        // and behind them there is room for the few rows.
        unsafe {
            gemm.run_few_telling(&products, self.gemm_params(), scratch, threads, Some(&done))
        };
    }

    fn tiled(&self, tiling: &Tiling) {
        let factors = (0..self.code.operands.len()).map(|product| self.factors(product));
        let factors: SmallVec<[[*const u8; 2]; MOST]> = factors.collect();
        let left = factors[..self.code.n_lhs()].iter().map(|pair| pair[0]);
        let left: SmallVec<[*const u8; MOST]> = left.collect();
        let right = (0..factors.len()).map(|product| self.right(product));
        let right: SmallVec<[Rhs; MOST]> = right.collect();
        let call = TiledCall {
            lhs: &left,
            rhs: &right,
            params: self.gemm_params(),
            scratch: self.call.scratch,
            threads: self.call.work.n_threads,
        };
        // SAFETY: the operands are as large as their types say; the scratch memory is as large as the tiling says. The map
        // writes the points of its block.
        unsafe {
            let gemm = &self.code.product.gemm;
            gemm.run_tiled(tiling, &call, &|block| self.finish(block));
        }
    }

    fn streamed(&self) {
        let results = Results(self.results());
        let results = &results;
        let [lhs, _] = self.factors(0);
        let bytes = self.call.work.scratch_bytes;
        let call = Call {
            lhs,
            rhs: self.right(0),
            out: results.0[0],
            params: self.gemm_params(),
            // SAFETY: scratch memory is as large as was asked for.
            scratch: unsafe { std::slice::from_raw_parts_mut(self.call.scratch, bytes) },
            threads: self.call.work.n_threads,
        };
        let done = |batch, rows, columns| self.finish_part(results, batch, rows, columns);
        // SAFETY: the operands are as large as their types say, and so is the output.
        unsafe { self.code.product.gemm.run_telling(call, Some(&done)) };
    }

    fn apart(&self) -> Result<()> {
        let results = Results(self.results());
        let results = &results;
        let used = self.code.operands.len() * self.code.result_bytes(self.sizes);
        let products = self.code.operands.iter().zip(&results.0).enumerate();
        for (product, (operands, result)) in products {
            let inputs = operands.iter().map(|&input| self.call.buffers[input]);
            let panels = self.panels(product).map(|panels| panels.cast_mut());
            let behind = [result.cast()].into_iter().chain(panels);
            let buffers: SmallVec<[*mut u8; 4]> = inputs.chain(behind).collect();
            let call = KernelCall {
                buffers: &buffers,
                scratch: self.call.scratch.wrapping_add(used),
                params: self.product.params,
                work: self.product.work,
            };
            // SAFETY: the operands are those of the product, and the result has room for it.
            unsafe { self.code.product.run(&call)? };
        }
        let Sizes { batch, m, n, .. } = self.sizes;
        let threads = match batch * m * n < SERIAL {
            true => 1,
            false => self.call.work.n_threads,
        };
        // With few rows the columns are shared out.
        let by_rows = batch * m >= n;
        let all = if by_rows { batch * m } else { n };
        pool::for_each_range(threads, all, &|part| {
            let (rows, columns) = match by_rows {
                true => (part, 0..n),
                false => (0..batch * m, part),
            };
            self.finish_part(results, 0, rows, columns);
        });
        Ok(())
    }
}

/// Where whole products lie, as all threads see it.
struct Results(SmallVec<[*mut f32; MOST]>);

// SAFETY: the addresses are only passed on; who writes what behind them is said at `Run`.
unsafe impl Sync for Results {}
