//! Packing of operands in blocks.
//!
//! Before: blocks, with rows or steps of K next to each other. After: a panel `[k][width]` in f32; columns without a row are
//! zeros.
//!
//! Blocks hold whole rows, so vectors that are read behind the last row of numbers still lie in a block.

use inkwell::IntPredicate;
use inkwell::values::{BasicValueEnum, IntValue};

use super::ir::collapse;
use super::linear::Form;
use super::pack::{Pack, Panel, Walk};
use super::stored::Unit;
use crate::compilers::llvm_cpu::emit::BUILT;
use crate::compilers::llvm_cpu::emit_view::Params;

/// Where an operand's blocks are.
struct Blocks<'c> {
    /// The element of the first row and step.
    base: IntValue<'c>,
    rows: Walk<'c>,
    steps: Walk<'c>,
}

impl<'c> Pack<'_, '_, 'c> {
    /// Packs panels of blocks.
    pub(super) fn blocks(&self, unit: Unit, form: &Form, params: &mut Params) {
        let (e, o) = (self.e, self.operand);
        let (batch, rows) = (o.batch.len(), o.batch.len() + o.rows.len());
        let [batch_steps, row_steps, k_steps] = [
            collapse(o.batch, &form.steps[..batch]),
            collapse(o.rows, &form.steps[batch..rows]),
            collapse(o.k, &form.steps[rows..]),
        ];
        let offset = self.walk_offset(&self.values(&batch_steps, params), self.batch());
        let blocks = Blocks {
            base: e.add(e.expr(params, 1, form.start), offset),
            rows: self.values(&row_steps, params),
            steps: self.values(&k_steps, params),
        };
        self.panels(|panel| match unit {
            Unit::Rows => self.block_rows(&blocks, &panel),
            Unit::Steps => {
                self.block_steps(&blocks, &panel);
                self.fill(&panel);
            }
        });
    }

    /// A panel whose rows are neighbours.
    fn block_rows(&self, blocks: &Blocks<'c>, panel: &Panel<'c>) {
        let (e, o) = (self.e, self.operand);
        let chunks = (0..o.width).step_by(o.lanes as usize).map(|column| {
            let first = e.int(column.into());
            let rest = e.sub(panel.rows, first);
            (first, e.lanes_below(o.lanes, rest), rest)
        });
        let chunks: Vec<_> = chunks.collect();
        e.each(e.int(0), self.steps(), 1, |step| {
            let step_offset = self.walk_offset(&blocks.steps, e.add(self.k_begin(), step));
            let from = e.add(blocks.base, step_offset);
            for &(column, valid, rest) in &chunks {
                let slot = self.slot(panel, step, column);
                let zero = e.vector(o.lanes).const_zero();
                let some = e.compare(IntPredicate::SGT, rest, e.int(0));
                let read = || {
                    let index = e.add(from, e.add(panel.first, column));
                    let values = self.element(index, o.lanes);
                    e.store(e.select(valid, values, zero), slot, 4);
                };
                e.branch(some, read, || e.store(zero, slot, 4));
            }
        });
    }

    /// A panel whose steps are neighbours: four of them of a row at a time.
    fn block_steps(&self, blocks: &Blocks<'c>, panel: &Panel<'c>) {
        let e = self.e;
        let (begin, steps) = (self.k_begin(), self.steps());
        // Fours that begin at a multiple of four lie in one block.
        let four = e.builder.build_and(begin, e.int(3), "").expect(BUILT);
        let aligned = e.compare(IntPredicate::EQ, four, e.int(0));
        let fours = e.builder.build_and(steps, e.int(-4), "").expect(BUILT);
        let fours = e.builder.build_select(aligned, fours, e.int(0), "");
        let fours = fours.expect(BUILT).into_int_value();
        e.each(e.int(0), panel.rows, 1, |column| {
            let row = self.walk_offset(&blocks.rows, e.add(panel.first, column));
            let from = e.add(e.add(blocks.base, row), begin);
            let put = |step: IntValue<'c>, lanes: u32| {
                let values = self.element(e.add(from, step), lanes);
                for lane in 0..lanes {
                    let value = match lanes {
                        1 => values,
                        _ => e.extract(values, lane),
                    };
                    let step = e.add(step, e.int(lane.into()));
                    e.store(value, self.slot(panel, step, column), 4);
                }
            };
            e.each(e.int(0), fours, 4, |step| put(step, 4));
            e.each(fours, steps, 1, |step| put(step, 1));
        });
    }

    /// Numbers from `index` on, all of one block.
    fn element(&self, index: IntValue<'c>, lanes: u32) -> BasicValueEnum<'c> {
        let e = self.e;
        let block = e.block(e.pointer_argument(0), index, 0);
        e.numbers(block, e.in_block(index), lanes)
    }
}
