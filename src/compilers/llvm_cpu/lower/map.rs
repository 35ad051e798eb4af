//! Nests without a reduction.
//!
//! A unit is a block of [`BLOCK`] columns of a row; the row's coordinates are
//! computed once per unit.

use inkwell::values::IntValue;

use super::emitter::Emitter;
use super::frame::Done;
use super::plan::Plan;
use crate::shape::{Expr, numel};

/// Columns per unit: enough that starting a unit costs nothing, few enough that a
/// nest of one row is shared by all threads. A multiple of every vector width.
pub const BLOCK: i64 = 4096;

/// How many units `plan` has, with `block` columns each.
pub fn units(plan: &Plan<'_>, block: i64) -> Expr {
    let (last, rows) = plan.space.split_last().expect("a plan has a space dim");
    numel(rows) * last.ceil_div(Expr::from(block))
}

impl<'c> Emitter<'_, 'c> {
    /// Emits `body(coordinates of a row, block of columns)` for every unit of the call.
    pub fn for_each_block(
        &mut self,
        block: i64,
        body: impl FnOnce(&mut Self, Vec<IntValue<'c>>, Block<'c>),
    ) {
        let plan = self.plan;
        let (&last, rows) = plan.space.split_last().expect("a plan has a space dim");
        let per_row = last.ceil_div(Expr::from(block));
        let mut sizes = rows.to_vec();
        if !per_row.is_one() {
            sizes.push(per_row);
        }
        self.for_each_unit(&sizes, |e, unit, mut coords| {
            let (row, number) = if per_row.is_one() {
                (unit, e.int(0))
            } else {
                let number = coords.pop().expect("the blocks of a row are the last dim");
                (e.ravel(&coords, rows), number)
            };
            coords.push(e.int(0));
            let size = e.expr(last);
            let start = e.imul(number, e.int(block));
            let end = e.imin(e.iadd(start, e.int(block)), size);
            let first = e.imul(row, size);
            body(e, coords, Block { start, end, first });
        });
    }

    /// How many columns of a row of `size` whole vectors leave over, if it is known.
    pub fn left_over(&self, size: Expr) -> Option<i64> {
        size.as_const().map(|size| size % i64::from(self.lanes))
    }

    /// Emits a map.
    pub fn map(&mut self) {
        let plan = self.plan;
        self.for_each_block(BLOCK, |e, coords, block| {
            let row = plan.space.len() - 1;
            let frame = e.row(plan.last(), Some(row), &coords, &Done::default());
            let over = e.left_over(plan.space[row]);
            e.storing(e.iadd(block.first, block.start), |e| {
                e.lanes_of_row((block.start, block.end), over, |e, at| {
                    let values = e.evaluate(&frame, &at);
                    let result = values[plan.nest.result].expect("the result is evaluated");
                    e.write(e.iadd(block.first, at.col), result, &at);
                });
            });
        });
    }
}

/// A range of columns of a row.
#[derive(Clone, Copy)]
pub struct Block<'c> {
    /// The first column.
    pub start: IntValue<'c>,
    /// The one after the last.
    pub end: IntValue<'c>,
    /// The output element of column zero.
    pub first: IntValue<'c>,
}
