//! Blocks → numbers, where nothing multiplies by them (rows that were looked up, types without kernels), numbers → blocks, and
//! activations rounded for somebody else than a product.
//!
//! Encoders and decoders are those of [`crate::blocks`], which define what blocks mean; threads take rows.

use std::sync::{Mutex, PoisonError};

use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::code::{evaluate, has};
use crate::dtype::DType;
use crate::error::Result;
use crate::exec::pool;
use crate::op::{ActivationScheme, Kernel, KernelCall, KernelInput, NativeCode, Op, Work};
use crate::shape::{Expr, Symbols, numel};

/// Numbers below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 14;

/// What is made of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Make {
    /// Numbers of blocks.
    Numbers(BlockType),
    /// Blocks of numbers.
    Blocks(BlockType),
    /// Numbers rounded to 8 bits.
    Rounded(ActivationScheme),
}

impl Make {
    /// For names.
    pub fn name(self) -> String {
        match self {
            Make::Numbers(ty) => format!("decode_{ty}"),
            Make::Blocks(ty) => format!("encode_{ty}"),
            Make::Rounded(scheme) => format!("round_{}", scheme.name()),
        }
    }
}

impl Make {
    /// Makes a row of another.
    fn row(self, from: &[u8], to: &mut [u8]) -> Result<()> {
        match self {
            Make::Numbers(ty) => ty.dequantize(from, bytemuck::cast_slice_mut(to)),
            Make::Blocks(ty) => ty.quantize(bytemuck::cast_slice(from), to),
            Make::Rounded(scheme) => {
                to.copy_from_slice(from);
                scheme.round(bytemuck::cast_slice_mut(to));
                Ok(())
            }
        }
    }
}

/// Rows, one after the other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BlockRows {
    make: Make,
    rows: Expr,
    /// Bytes of a row that is read.
    from: usize,
    /// Bytes of a row that is written.
    to: usize,
    /// Numbers in a row.
    numbers: usize,
}

impl BlockRows {
    /// The rows that a kernel of one step makes, if it does that.
    pub fn of(kernel: &Kernel) -> Option<BlockRows> {
        let [step] = &kernel.steps[..] else {
            return None;
        };
        let make = match step.op {
            Op::Dequantize(ty) => Make::Numbers(ty),
            Op::Quantize(ty) => Make::Blocks(ty),
            Op::FakeQuantize(scheme) => Make::Rounded(scheme),
            _ => return None,
        };
        let (KernelInput::Operand(0), view) = &step.inputs[0] else {
            return None;
        };
        let stored = &kernel.operands[0];
        let (last, outer) = stored.dims.split_last()?;
        let whole = view.is_identity(stored.numel()) && stored.dims.len() == step.ty.dims.len();
        let (read, written) = (last.as_usize()?, step.ty.dims.last()?.as_usize()?);
        whole.then_some(BlockRows {
            make,
            rows: numel(outer),
            from: read * stored.dtype.size(),
            to: written * step.ty.dtype.size(),
            numbers: if stored.dtype == DType::F32 {
                read
            } else {
                written
            },
        })
    }

    /// For names: rows and their length.
    pub fn dims(&self) -> Vec<Expr> {
        vec![self.rows, self.numbers.into()]
    }

    /// What is made.
    pub fn make(&self) -> Make {
        self.make
    }
}

/// The code.
#[derive(Debug)]
pub struct DecodeCode {
    pub(crate) name: String,
    pub(crate) key: u64,
    pub(crate) rows: BlockRows,
}

struct Run(*const u8, *mut u8);

// SAFETY: what is made of is only read; each row that is made is written by one thread.
unsafe impl Sync for Run {}

impl NativeCode for DecodeCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        evaluate(&[self.rows.rows], symbols, params)?;
        let units = params[start].max(0) as usize;
        let cost = units.saturating_mul(self.rows.numbers);
        Ok(Work {
            units,
            cost,
            n_threads: if cost < SERIAL { 1 } else { n_threads },
            scratch_bytes: 0,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&[self.rows.rows], symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let run = Run(call.buffers[0].cast_const(), call.buffers[1]);
        let BlockRows { make, from, to, .. } = self.rows;
        let failure = Mutex::new(None);
        pool::for_each_range(call.work.n_threads, call.work.units, &|rows| {
            let run = &run;
            for row in rows {
                // SAFETY: a row of either buffer.
                let (from, to) = unsafe {
                    (
                        std::slice::from_raw_parts(run.0.add(row * from), from),
                        std::slice::from_raw_parts_mut(run.1.add(row * to), to),
                    )
                };
                if let Err(error) = make.row(from, to) {
                    let mut slot = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    slot.get_or_insert(error);
                }
            }
        });
        let failed = failure.into_inner();
        match failed.unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
