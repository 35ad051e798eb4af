//! Where the rows of a product's operand are, and writing some out whose steps of K lie apart.
//!
//! Before: a view without padding, `x[k, n]` seen as rows of n. After: for a row the address of its first step, if the
//! steps lie next to each other; otherwise [`Place::write_rows`] makes such rows in other memory, in the same format.
//!
//! For few rows only ([`super::dot`]): elements are copied one at a time. Rows of blocks are never written out.

use super::ir::collapse;
use super::linear::linear;
use super::stored::Stored;
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
    /// Where the steps of a row are, unless next to each other.
    steps: Option<Walk>,
    /// How elements are stored.
    pub(super) stored: Stored,
}

/// Rows that were written out, in order and without gaps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    start: *const u8,
    per_batch: usize,
    bytes: usize,
}

impl Rows {
    /// The address of a row.
    pub(super) fn row(self, batch: usize, row: usize) -> *const u8 {
        let index = batch * self.per_batch + row;
        self.start.wrapping_add(index * self.bytes)
    }
}

impl Place {
    /// Nothing for a view with padding, or whose elements have no linear form.
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
        let is_row = match collapse(k, &strides[last..])[..] {
            [] => true,
            [(_, stride)] => stride == Expr::from(1),
            _ => false,
        };
        Some(Place {
            start: Size::of(linear.index.start, params),
            batch: Walk::of(batch, &strides[..first], params),
            rows: Walk::of(rows, &strides[first..last], params),
            steps: (!is_row).then(|| Walk::of(k, &strides[last..], params)),
            stored: Stored::of(access),
        })
    }

    /// Whether the steps of a row lie next to each other.
    pub(super) fn has_rows(&self) -> bool {
        self.steps.is_none()
    }

    /// The address of a row's first step.
    pub(super) fn row(
        &self,
        base: *const u8,
        (batch, row): (usize, usize),
        params: &[i64],
    ) -> *const u8 {
        let offset = self.batch.offset(batch, params) + self.rows.offset(row, params);
        let offset = offset + self.start.value(params) as isize;
        base.wrapping_offset(self.stored.bytes(offset))
    }

    /// Bytes from one row of a batch to the next, if that is the same for all.
    pub(super) fn distance(&self, params: &[i64]) -> Option<isize> {
        let stride = self.rows.stride(params);
        stride.map(|stride| self.stored.bytes(stride as isize))
    }

    /// Bytes of an element; of blocks, none stands for itself.
    pub(super) fn element(&self) -> usize {
        self.stored.bytes(1) as usize
    }

    /// Writes out all rows whose steps lie apart, given how many batches, rows in each and steps there are; nothing if they
    /// are neighbours.
    ///
    /// # Safety
    /// `base` holds every element that the view reads with these parameters; `to` has room for all of them, aligned to
    /// their size.
    pub(super) unsafe fn write_rows(
        &self,
        base: *const u8,
        [n_batches, n_rows, k]: [usize; 3],
        params: &[i64],
        to: *mut u8,
    ) -> Option<Rows> {
        let steps = self.steps.as_ref()?;
        let element = self.element();
        for (batch, row) in (0..n_batches).flat_map(|b| (0..n_rows).map(move |row| (b, row))) {
            let from = self.row(base, (batch, row), params);
            let to = to.wrapping_add((batch * n_rows + row) * k * element);
            for step in 0..k {
                let offset = steps.offset(step, params);
                let from = from.wrapping_offset(offset * element as isize);
                let to = to.wrapping_add(step * element);
                // SAFETY: an element of the view, and its place among as many.
                unsafe {
                    match element {
                        2 => *to.cast::<u16>() = from.cast::<u16>().read_unaligned(),
                        _ => *to.cast::<u32>() = from.cast::<u32>().read_unaligned(),
                    }
                }
            }
        }
        Some(Rows {
            start: to,
            per_batch: n_rows,
            bytes: k * element,
        })
    }
}
