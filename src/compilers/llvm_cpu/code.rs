//! Machine code as the executor calls it.
//!
//! A call evaluates the code's symbolic parameters on the stack, fills the pointer table and splits the units of work
//! over threads. Nothing is allocated.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use smallvec::SmallVec;

use super::gemm::{Call, Gemm, Rhs, Sizes};
use super::jit::{Jit, KernelFn};
use crate::error::{Error, Result};
use crate::exec::pool;
use crate::op::{KernelCall, NativeCode};
use crate::shape::{Expr, Symbols};

/// Work below which a second thread costs more than it brings, in units of `NestCode::cost`.
const SERIAL_COST: usize = 1 << 20;

fn evaluate(params: &[Expr], symbols: &Symbols) -> Result<SmallVec<[i64; 32]>> {
    let value = |expr: &Expr| expr.eval(symbols).map_err(|e| Error::msg(e.to_string()));
    params.iter().map(value).collect()
}

/// A compiled loop nest.
pub struct NestCode {
    pub(super) name: String,
    pub(super) key: u64,
    pub(super) function: KernelFn,
    pub(super) params: Vec<Expr>,
    pub(super) units: Expr,
    /// About how many additions one execution costs, for choosing the number of threads.
    pub(super) cost: Expr,
    /// Keeps the code alive.
    pub(super) _jit: Arc<Jit>,
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

    fn scratch_bytes(&self, _: &Symbols, _: usize) -> Result<usize> {
        Ok(0)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let params = evaluate(&self.params, call.symbols)?;
        let units = evaluate(&[self.units, self.cost], call.symbols)?;
        let (units, cost) = (units[0].max(0) as usize, units[1].max(0) as usize);
        let mut pointers: SmallVec<[*mut u8; 40]> =
            call.inputs.iter().map(|&input| input.cast_mut()).collect();
        pointers.push(call.output);
        let error = AtomicI64::new(0);
        let n_threads = if cost < SERIAL_COST {
            1
        } else {
            call.n_threads
        };
        let table = Shared(pointers.as_ptr(), params.as_ptr());
        pool::for_each_range(n_threads, units, &|range| {
            let table = &table;
            // SAFETY: the caller guarantees the buffers' sizes under these symbols; the code reads and writes only
            // inside them, and different units write different elements. The error slot is only ever written with
            // whole words by the code.
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
        match error.load(Ordering::Relaxed) {
            0 => Ok(()),
            bad => Err(Error::msg(format!(
                "index {} is out of range",
                bad - (1 << 32)
            ))),
        }
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}

/// The pointer and parameter tables, shared by the threads of one call.
struct Shared(*const *mut u8, *const i64);

// SAFETY: the tables are only read while the call runs, and what they point to is split between threads by unit.
unsafe impl Sync for Shared {}

/// A compiled matrix product, with a loop nest for the shapes where packing does not pay.
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
}

/// Rows (or columns) up to which reading the other operand once, without packing it, is faster.
const NARROW: usize = 4;

impl GemmCode {
    fn sizes(&self, symbols: &Symbols) -> Result<(SmallVec<[i64; 32]>, Sizes)> {
        let params = evaluate(&self.params, symbols)?;
        let sizes = self.gemm.sizes(&params);
        Ok((params, sizes))
    }

    fn is_narrow(&self, sizes: Sizes) -> bool {
        self.narrow.is_some() && (sizes.m <= NARROW || sizes.n <= NARROW)
    }
}

impl NativeCode for GemmCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn scratch_bytes(&self, symbols: &Symbols, n_threads: usize) -> Result<usize> {
        let (_, sizes) = self.sizes(symbols)?;
        Ok(if self.is_narrow(sizes) {
            0
        } else {
            self.gemm.scratch_bytes(sizes, n_threads)
        })
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let (params, sizes) = self.sizes(call.symbols)?;
        if let Some(narrow) = self.narrow.as_ref().filter(|_| self.is_narrow(sizes)) {
            // SAFETY: the same contract, for the same buffers.
            return unsafe { narrow.run(call) };
        }
        let len = self.gemm.scratch_bytes(sizes, call.n_threads);
        // SAFETY: the caller's scratch memory has the length that `scratch_bytes` gave for these symbols.
        let scratch = unsafe { std::slice::from_raw_parts_mut(call.scratch, len) };
        let call = Call {
            lhs: call.inputs[self.lhs],
            rhs: Rhs::Raw(call.inputs[self.rhs]),
            out: call.output.cast(),
            params: &params,
            scratch,
            threads: call.n_threads,
        };
        // SAFETY: the buffers are as large as the operands' and the result's types say, and disjoint.
        unsafe { self.gemm.run(call) };
        Ok(())
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
