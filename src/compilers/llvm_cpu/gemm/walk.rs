//! Offsets of elements along dims whose sizes are known when a product runs.

use super::ir::collapse;
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::shape::Expr;

/// A size in compiled code's terms.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Const(i64),
    Param(usize),
}

impl Size {
    pub(super) fn of(expr: Expr, params: &mut Params) -> Size {
        match expr.as_const() {
            Some(value) => Size::Const(value),
            None => Size::Param(params.slot(expr)),
        }
    }

    pub(super) fn value(self, params: &[i64]) -> i64 {
        match self {
            Size::Const(value) => value,
            Size::Param(slot) => params[slot],
        }
    }
}

/// Where in the output the elements of some dims are: (dim, stride), merged where possible.
#[derive(Clone, Debug)]
pub(super) struct Walk(Vec<(Size, Size)>);

impl Walk {
    pub(super) fn of(dims: &[Expr], strides: &[Expr], params: &mut Params) -> Walk {
        let steps = collapse(dims, strides).into_iter();
        Walk(
            steps
                .map(|(d, s)| (Size::of(d, params), Size::of(s, params)))
                .collect(),
        )
    }

    /// The offset of a row-major linear index.
    pub(super) fn offset(&self, mut index: usize, params: &[i64]) -> isize {
        let mut offset = 0;
        for (position, (dim, stride)) in self.0.iter().enumerate().rev() {
            let coordinate = if position == 0 {
                index
            } else {
                let dim = dim.value(params).max(1) as usize;
                let coordinate = index % dim;
                index /= dim;
                coordinate
            };
            offset += coordinate as isize * stride.value(params) as isize;
        }
        offset
    }

    /// The distance between neighbours if it is the same for all; any number for a single one.
    pub(super) fn stride(&self, params: &[i64]) -> Option<i64> {
        match self.0[..] {
            [] => Some(1),
            [(_, stride)] => Some(stride.value(params)),
            _ => None,
        }
    }
}
