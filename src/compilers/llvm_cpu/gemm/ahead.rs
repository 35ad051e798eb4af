//! Asking for what is packed next, while micro-kernels run.
//!
//! Before: a block of the right operand is packed, multiplied, and the next one is packed, whose rows are short pieces far
//! apart: packing waits for memory, which rests while the product runs. After: with each tile some of the next block's
//! rows are asked for, so they are in the second cache when they are packed.
//!
//! Only rows whose steps of K are neighbours, as weights are stored: steps of other operands are long pieces, which the
//! machine foresees. Results do not change.

use std::ops::Range;

use inkwell::context::Context;
use inkwell::module::Module;

use super::ir::Contraction;
use super::place::Place;
use super::stored::Stored;
use crate::compilers::llvm_cpu::emit::Emit;
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::target::Target;

/// Asks for so many cache lines, which may lie anywhere.
pub type AskFn = unsafe extern "C" fn(from: *const u8, lines: i64);

/// Bytes of a cache line.
const LINE: usize = 64;

/// The symbol of the function.
pub(super) fn symbol(target: &Target) -> String {
    format!("gemm_ask_{}", target.symbol_part())
}

/// Writes it into a module.
pub(super) fn emit<'c>(context: &'c Context, module: &Module<'c>, symbol: &str) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, symbol, &[ptr, int]);
    let line = context.i8_type().array_type(LINE as u32);
    e.each(e.int(0), e.int_argument(1), 1, |at| {
        e.prefetch(e.at(line, e.pointer_argument(0), at), 0, 2);
    });
    e.finish();
}

/// Where the right operand's rows are, if steps of K are neighbours and numbers are not in blocks.
pub(super) fn place(c: &Contraction, params: &mut Params) -> Option<Place> {
    let is_number = matches!(Stored::of(&c.rhs), Stored::Number(_));
    let place = Place::of(&c.rhs, &c.batch, &c.n, &c.k, params);
    place.filter(|place| is_number && place.has_rows())
}

/// What is packed next.
#[derive(Clone, Debug)]
pub(super) struct Next {
    /// The buffer that the operand's view looks at.
    pub(super) from: *const u8,
    pub(super) batch: usize,
    pub(super) n: Range<usize>,
    pub(super) k: Range<usize>,
}

impl Next {
    /// Asks for one of `parts` about equal parts of the rows.
    pub(super) fn ask(
        &self,
        (place, ask): (&Place, AskFn),
        params: &[i64],
        part: usize,
        parts: usize,
    ) {
        let at = |part: usize| self.n.start + self.n.len() * part / parts;
        for row in at(part)..at(part + 1) {
            let row = place.row(self.from, (self.batch, row), params);
            let bytes = |steps: usize| place.stored.bytes(steps as isize) as usize;
            let first = row.wrapping_add(bytes(self.k.start));
            let lines = (first as usize % LINE + bytes(self.k.len())).div_ceil(LINE);
            // SAFETY: the function reads nothing.
            unsafe { ask(first, lines as i64) };
        }
    }
}
