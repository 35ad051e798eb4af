//! Operands whose steps of K are neighbours, and where their rows are.

use super::ir::collapse;
use super::linear::linear;
use super::walk::{Size, Walk};
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::ir::Access;
use crate::shape::{Dims, Expr};

/// Where the rows of an operand are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    start: Size,
    batch: Walk,
    rows: Walk,
    /// Bytes of an element.
    pub(super) element: usize,
}

impl Place {
    /// Nothing if the operand's steps do not lie next to each other.
    pub(super) fn of(
        access: &Access,
        batch: &Dims,
        rows: &Dims,
        k: &Dims,
        params: &mut Params,
    ) -> Option<Place> {
        let linear = linear(&access.view).filter(|linear| linear.masks.is_empty())?;
        let (first, last) = (batch.len(), batch.len() + rows.len());
        let strides = &linear.index.steps;
        match collapse(k, &strides[last..])[..] {
            [] => {}
            [(_, stride)] if stride == Expr::from(1) => {}
            _ => return None,
        }
        Some(Place {
            start: Size::of(linear.index.start, params),
            batch: Walk::of(batch, &strides[..first], params),
            rows: Walk::of(rows, &strides[first..last], params),
            element: access.dtype.size(),
        })
    }

    /// The address of a row.
    pub(super) fn row(
        &self,
        base: *const u8,
        (batch, row): (usize, usize),
        params: &[i64],
    ) -> *const u8 {
        let offset = self.batch.offset(batch, params) + self.rows.offset(row, params);
        let offset = offset + self.start.value(params) as isize;
        base.wrapping_offset(offset * self.element as isize)
    }
}
