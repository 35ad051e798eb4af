//! Blocks → numbers, where nothing multiplies by them: rows that were looked up, types without kernels.
//!
//! The decoders are those of [`crate::blocks`], which define what blocks mean; threads take rows.

use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::code::{evaluate, has};
use crate::error::Result;
use crate::exec::pool;
use crate::op::{Kernel, KernelCall, KernelInput, NativeCode, Op, Work};
use crate::shape::{Expr, Symbols, numel};

/// Numbers below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 14;

/// Rows of whole blocks, one after the other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BlockRows {
    ty: BlockType,
    rows: [Expr; 1],
    /// Bytes of a row.
    bytes: usize,
}

impl BlockRows {
    /// The rows that a kernel of one step decodes, if it does that.
    pub fn of(kernel: &Kernel) -> Option<BlockRows> {
        let [step] = &kernel.steps[..] else {
            return None;
        };
        let Op::Dequantize(ty) = step.op else {
            return None;
        };
        let (KernelInput::Operand(0), view) = &step.inputs[0] else {
            return None;
        };
        let stored = &kernel.operands[0];
        let (last, outer) = stored.dims.split_last()?;
        let whole = view.is_identity(stored.numel());
        whole.then_some(BlockRows {
            ty,
            rows: [numel(outer)],
            bytes: last.as_usize()?,
        })
    }

    /// Numbers in a row.
    fn numbers(&self) -> usize {
        self.bytes / self.ty.block_bytes() * self.ty.block_len()
    }

    /// For names: rows and their length.
    pub fn dims(&self) -> Vec<Expr> {
        vec![self.rows[0], self.numbers().into()]
    }

    /// The type of the blocks.
    pub fn ty(&self) -> BlockType {
        self.ty
    }
}

/// The code.
#[derive(Debug)]
pub struct DecodeCode {
    pub(crate) name: String,
    pub(crate) key: u64,
    pub(crate) rows: BlockRows,
}

struct Run(*const u8, *mut f32);

// SAFETY: blocks are only read; each row of numbers is written by one thread.
unsafe impl Sync for Run {}

impl NativeCode for DecodeCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        evaluate(&self.rows.rows, symbols, params)?;
        let units = params[start].max(0) as usize;
        let cost = units.saturating_mul(self.rows.numbers());
        Ok(Work {
            units,
            cost,
            n_threads: if cost < SERIAL { 1 } else { n_threads },
            scratch_bytes: 0,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&self.rows.rows, symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let run = Run(call.buffers[0].cast_const(), call.buffers[1].cast());
        let (bytes, numbers) = (self.rows.bytes, self.rows.numbers());
        pool::for_each_range(call.work.n_threads, call.work.units, &|rows| {
            let run = &run;
            for row in rows {
                // SAFETY: a row of either buffer.
                let (from, to) = unsafe {
                    (
                        std::slice::from_raw_parts(run.0.add(row * bytes), bytes),
                        std::slice::from_raw_parts_mut(run.1.add(row * numbers), numbers),
                    )
                };
                let decoded = self.rows.ty.dequantize(from, to);
                decoded.expect("the op is only made for types with a decoder");
            }
        });
        Ok(())
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
