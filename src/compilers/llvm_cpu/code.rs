//! Machine code as the executor calls it.
//!
//! What follows from the symbols is evaluated once per change of a symbol; a call splits the units of work over
//! threads and does nothing else. Nothing is allocated.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::gemm::packed::panel_dtype;
use super::gemm::{Call, Gemm, Rhs, Sizes};
use super::jit::KernelFn;
use super::sequence::{self, Linker};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::pool;
use crate::op::{KernelCall, NativeCode, NativeSequence, Packing, SequencePart, Work};
use crate::shape::{Expr, Symbols};

/// Work below which a second thread costs more than it brings, in units of `NestCode::cost`.
const SERIAL_COST: usize = 1 << 18;

/// Appends the values of expressions.
pub(super) fn evaluate(exprs: &[Expr], symbols: &Symbols, values: &mut Vec<i64>) -> Result<()> {
    for expr in exprs {
        values.push(value(expr, symbols)?);
    }
    Ok(())
}

fn value(expr: &Expr, symbols: &Symbols) -> Result<i64> {
    expr.eval(symbols).map_err(|e| Error::msg(e.to_string()))
}

/// Whether a symbol is in one of some expressions.
pub(super) fn has(exprs: &[Expr], symbol: char) -> bool {
    exprs.iter().any(|expr| expr.symbols().contains(&symbol))
}

/// The error that a nest's error slot stands for.
pub(super) fn reported(slot: i64) -> Result<()> {
    match slot {
        0 => Ok(()),
        bad => Err(Error::msg(format!(
            "index {} is out of range",
            bad - (1 << 32)
        ))),
    }
}

/// A part's parameters and work.
#[derive(Clone, Copy)]
pub(super) struct Prepared<'a> {
    pub(super) params: &'a [i64],
    pub(super) work: Work,
}

/// Numbers of [`Work`] behind a part's parameters.
const WORK: usize = 4;

/// Prepares a part: appends its parameters, and its work behind them.
pub(super) fn prepare(
    code: &dyn NativeCode,
    symbols: &Symbols,
    n_threads: usize,
    params: &mut Vec<i64>,
) -> Result<Work> {
    let work = code.prepare(symbols, n_threads, params)?;
    let Work {
        units,
        cost,
        n_threads,
        scratch_bytes,
    } = work;
    params.extend([units, cost, n_threads, scratch_bytes].map(|number| number as i64));
    Ok(work)
}

/// The next part's share of the parameters.
pub(super) fn take<'a>(params: &mut &'a [i64], n_params: usize) -> Prepared<'a> {
    let (own, rest) = params.split_at(n_params + WORK);
    *params = rest;
    let number = |i: usize| own[n_params + i] as usize;
    Prepared {
        params: &own[..n_params],
        work: Work {
            units: number(0),
            cost: number(1),
            n_threads: number(2),
            scratch_bytes: number(3),
        },
    }
}

/// A compiled loop nest.
pub struct NestCode {
    pub(super) name: String,
    pub(super) key: u64,
    pub(super) symbol: String,
    pub(super) function: KernelFn,
    pub(super) params: Vec<Expr>,
    pub(super) units: Expr,
    /// About how many additions one execution costs, for choosing the number of threads.
    pub(super) cost: Expr,
    /// Keeps the code alive.
    pub(super) linker: Arc<Linker>,
}

impl std::fmt::Debug for NestCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NestCode({})", self.name)
    }
}

impl NativeCode for NestCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        evaluate(&self.params, symbols, params)?;
        let units = value(&self.units, symbols)?.max(0) as usize;
        let cost = value(&self.cost, symbols)?.max(0) as usize;
        Ok(Work {
            units,
            cost,
            n_threads: if cost < SERIAL_COST { 1 } else { n_threads },
            scratch_bytes: 0,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&self.params, symbol) || has(&[self.units, self.cost], symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let error = AtomicI64::new(0);
        let table = Shared(call.buffers.as_ptr(), call.params.as_ptr());
        pool::for_each_range(call.work.n_threads, call.work.units, &|range| {
            let table = &table;
            // SAFETY: the caller guarantees the buffers' sizes under these symbols; the code reads and writes only
            // inside them, and different units write different elements. The error slot is only ever written with
            // atomic stores by the code.
            unsafe {
                (self.function)(
                    table.0,
                    table.1,
                    range.start as i64,
                    range.end as i64,
                    error.as_ptr(),
                )
            };
        });
        reported(error.load(Ordering::Relaxed))
    }

    fn code_key(&self) -> u64 {
        self.key
    }

    fn symbol(&self) -> Option<&str> {
        Some(&self.symbol)
    }

    fn link(&self, parts: &[SequencePart<'_>]) -> Result<Arc<dyn NativeSequence>> {
        Ok(Arc::new(sequence::link(&self.linker, parts)?))
    }
}

/// The pointer and parameter tables, shared by the threads of one call.
struct Shared(*const *mut u8, *const i64);

// SAFETY: the tables are only read while the call runs, and what they point to is split between threads by unit.
unsafe impl Sync for Shared {}

/// A compiled matrix product. With few rows nothing is packed: dot products straight from the operands where these
/// allow it, weighted sums of rows in blocks, else the loop nest.
#[derive(Debug)]
pub struct GemmCode {
    pub(super) gemm: Gemm,
    pub(super) params: Vec<Expr>,
    pub(super) key: u64,
    pub(super) name: String,
    pub(super) lhs: usize,
    pub(super) rhs: usize,
    /// Sums of products, one output element at a time.
    pub(super) narrow: Option<Arc<NestCode>>,
    /// Set if the right operand comes packed too, for what is neither few nor narrow.
    pub(super) packed: Option<PackedRhs>,
}

/// Right operands that are packed once.
#[derive(Debug)]
pub(super) struct PackedRhs {
    /// One for each product that runs this code.
    pub(super) packings: Vec<Packing>,
    /// The operands' format.
    pub(super) dtype: DType,
    /// Their sizes.
    pub(super) sizes: Sizes,
}

/// Rows (or columns) up to which reading the other operand once, without packing it, is faster.
pub(super) const NARROW: usize = 4;

/// How many steps there must be for each of few rows to make dot products of them.
const STEPS_PER_ROW: usize = 32;

/// Steps of a row that stays in half of L1 while others pass.
const SHORT: usize = 4096;

impl GemmCode {
    /// The number of parameters that it is called with.
    pub(super) fn n_params(&self) -> usize {
        let narrow = self.narrow.as_ref();
        self.params.len() + narrow.map_or(0, |narrow| narrow.params.len())
    }

    /// Whether dot products are the way for these sizes. A single short row stays in L1, and then the loop nest is as
    /// fast with one stream of weights; a longer one is better read once for several rows of weights. Steps have to be
    /// many to make up for what the end of a dot product costs, the more the more often packed operands would be used.
    pub(super) fn is_few(&self, sizes: Sizes) -> bool {
        let single = (sizes.m == 1 || sizes.n == 1) && sizes.k <= SHORT;
        let long = sizes.k >= STEPS_PER_ROW * sizes.m.min(sizes.n) || self.gemm.reads_blocks();
        self.gemm.is_few(sizes) && long && !(single && self.narrow.is_some())
    }

    /// Whether nothing is packed for these sizes.
    pub(super) fn is_unpacked(&self, sizes: Sizes) -> bool {
        self.is_few(sizes) || self.gemm.is_summed(sizes)
    }

    pub(super) fn is_narrow(&self, sizes: Sizes) -> bool {
        self.narrow.is_some() && is_narrow(sizes.m, sizes.n)
    }

    /// The right operand of a call, given its buffer and, if it is packed once, that of its panels.
    pub(super) fn factor(&self, raw: *const u8, panels: Option<*const u8>) -> Rhs {
        match (&self.packed, panels) {
            (Some(packed), Some(panels)) => Rhs::Packed(panels, panel_dtype(packed.dtype)),
            _ => Rhs::Raw(raw),
        }
    }
}

/// Whether a product of these many rows and columns runs as a loop nest.
pub(super) fn is_narrow(m: usize, n: usize) -> bool {
    m <= NARROW || n <= NARROW
}

impl NativeCode for GemmCode {
    fn name(&self) -> &str {
        &self.name
    }

    /// The parameters are those of the product, then those of the loop nest.
    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        evaluate(&self.params, symbols, params)?;
        let sizes = self.gemm.sizes(&params[start..]);
        let narrow = match &self.narrow {
            Some(narrow) => narrow.prepare(symbols, n_threads, params)?,
            None => Work::default(),
        };
        let few = self.is_few(sizes);
        if !self.is_unpacked(sizes) && self.is_narrow(sizes) {
            return Ok(narrow);
        }
        let factors = [sizes.batch, sizes.m, sizes.n, sizes.k];
        Ok(Work {
            units: 0,
            cost: factors.into_iter().fold(1, usize::saturating_mul),
            n_threads,
            scratch_bytes: match few {
                true => self.gemm.few_scratch_bytes(sizes),
                false if self.gemm.is_summed(sizes) => 0,
                false if self.packed.is_none() => self.gemm.raw_scratch_bytes(sizes, n_threads),
                false => self.gemm.scratch_bytes(sizes, n_threads),
            },
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        let narrow = self.narrow.as_ref();
        has(&self.params, symbol) || narrow.is_some_and(|narrow| narrow.depends_on(symbol))
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let (params, rest) = call.params.split_at(self.params.len());
        let sizes = self.gemm.sizes(params);
        let output = self.lhs.max(self.rhs) + 1;
        if self.is_unpacked(sizes) {
            let operands = [self.lhs, self.rhs].map(|input| call.buffers[input].cast_const());
            let (out, threads) = (call.buffers[output].cast(), call.work.n_threads);
            let gemm = &self.gemm;
            // SAFETY: the buffers are as large as the operands' and the result's types say, and disjoint; the scratch
            // memory has the length that `prepare` gave for these sizes.
            unsafe {
                match self.is_few(sizes) {
                    true => gemm.run_few(operands, out, params, call.scratch, threads),
                    false => gemm.run_sums(operands, out, params, threads),
                }
            };
            return Ok(());
        }
        if let Some(narrow) = self.narrow.as_ref().filter(|_| self.is_narrow(sizes)) {
            let call = KernelCall {
                params: rest,
                ..*call
            };
            // SAFETY: the same contract, for the same buffers.
            return unsafe { narrow.run(&call) };
        }
        // SAFETY: the caller's scratch memory has the length that `prepare` gave for these sizes.
        let scratch =
            unsafe { std::slice::from_raw_parts_mut(call.scratch, call.work.scratch_bytes) };
        let panels = call
            .buffers
            .get(output + 1)
            .map(|panels| panels.cast_const());
        let call = Call {
            lhs: call.buffers[self.lhs].cast_const(),
            rhs: self.factor(call.buffers[self.rhs], panels),
            out: call.buffers[output].cast(),
            params,
            scratch,
            threads: call.work.n_threads,
        };
        // SAFETY: the buffers are as large as the operands' and the result's types say, and disjoint.
        unsafe { self.gemm.run(call) };
        Ok(())
    }

    fn packings(&self) -> &[Packing] {
        self.packed.as_ref().map_or(&[], |packed| &packed.packings)
    }

    // SAFETY: the trait's contract. Products that share this code have right operands of one form.
    unsafe fn pack(&self, _number: usize, from: *const u8, to: *mut u8, n_threads: usize) {
        let packed = self.packed.as_ref().expect("the caller asked for it");
        // SAFETY: the caller vouches for both; the view has no symbols.
        unsafe {
            self.gemm
                .pack_all((from, packed.dtype), packed.sizes, &[], to, n_threads)
        };
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
