//! Kernels that count, of several numbers of rows: their names, linking them, and choosing one.

use super::counts::{CountFn, Form, Output};
use crate::compilers::llvm_cpu::jit::Jit;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;

/// The symbol of a kernel.
pub(super) fn symbol(target: &Target, output: Output, rows: usize) -> String {
    let (form, output) = (Form::of(target).name(), output.name());
    format!("signs_{rows}_{output}_{form}_{}", target.symbol_part())
}

/// The kernels of these heights, of an object that is linked.
///
/// # Errors
/// If it has none of such a height.
pub(super) fn linked(
    jit: &Jit,
    (target, output): (&Target, Output),
    heights: &[usize],
) -> Result<Vec<(usize, CountFn)>> {
    let function = |&rows: &usize| {
        let address = jit.address(&symbol(target, output, rows))?;
        // SAFETY: the symbol is of a function that `emit_count` wrote, with this signature.
        let function = unsafe { std::mem::transmute::<*const (), CountFn>(address) };
        Ok((rows, function))
    };
    heights.iter().map(function).collect()
}

/// The kernel of the most rows up to so many, at least one.
pub(super) fn for_rows(kernels: &[(usize, CountFn)], n: usize) -> (usize, CountFn) {
    let fits = kernels.iter().find(|(rows, _)| *rows <= n);
    *fits.expect("there is a kernel for one row")
}
