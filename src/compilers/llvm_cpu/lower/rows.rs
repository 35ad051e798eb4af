//! Nests that run row by row: several reductions, or a result per point.
//!
//! A unit is a row. Each stage walks over it once, in the order of [`super::reduce`] along the reduced dim, so that its
//! result has the bits of a nest with that stage alone. The result is then computed once, or in one more walk. A row is
//! read from memory once and stays in a cache for the later walks, unless it is very long. These leave the memory idle,
//! so the last walk asks for the next row.

use inkwell::values::IntValue;

use super::emitter::Emitter;
use super::frame::{At, Done, Frame};
use super::plan::{Along, Plan};
use crate::compilers::llvm_cpu::ir::Scalar;
use crate::shape::{Expr, numel};

/// Fewer rows than this, each longer than [`LONG`], are not worth a kernel: threads would have nothing to share, and the
/// walks would read from memory.
const FEW: i64 = 4;
/// A row that no cache holds.
const LONG: i64 = 1 << 18;
/// A row that a core's cache holds beside the next one.
const SHORT: i64 = 1 << 16;

impl Plan<'_> {
    /// Whether this runs row by row without more work or another order of reductions than a nest for each stage.
    pub fn runs_by_rows(&self) -> bool {
        let known = |size: Expr| size.as_const();
        let (rows, length) = (known(numel(&self.space)), known(numel(&self.reduce)));
        let few = rows.is_some_and(|n| n < FEW) && length.is_some_and(|n| n >= LONG);
        let nodes = self.turns.iter().map(|turn| &turn.nodes);
        let mut along = nodes.map(|nodes| self.along_for(Some(nodes)));
        self.reduce.len() == 1 && !few && along.all(|along| along == Along::Reduced)
    }
}

impl<'c> Emitter<'_, 'c> {
    /// Emits a nest row by row.
    pub fn by_rows(&mut self) {
        let plan = self.plan;
        let n_stages = plan.nest.stages.len();
        let slots: Vec<_> = (0..n_stages)
            .map(|stage| self.slot(self.identity(stage, 1), "stripes"))
            .collect();
        self.for_each_unit(&plan.space, |e, unit, mut coords| {
            let length = e.expr(plan.reduce[0]);
            let mut done = Done::default();
            if plan.nest.per_point {
                done.first = Some(e.imul(unit, length));
            }
            for (stage, &slot) in slots.iter().enumerate() {
                let value = e.reduce_row(stage, &coords, slot, &done);
                done.reduced.push(value);
            }
            let Some(first) = done.first else {
                e.value_of_row(unit, coords, &done);
                return;
            };
            coords.push(e.int(0));
            // What is fixed for the row is read only if the row has elements.
            let some = e.imin(length, e.int(1));
            e.for_each((e.int(0), some, 1), |e, _| {
                let turn = &plan.turns[n_stages];
                let frame = e.row(turn, Some(plan.rank() - 1), &coords, &done);
                let over = e.left_over(plan.reduce[0]);
                let ahead = e.next_rows(&frame);
                e.lanes_of_row((e.int(0), length), over, |e, at: At<'c>| {
                    for &(access, start) in &ahead {
                        e.fetch_ahead(access, e.iadd(start, at.col));
                    }
                    let values = e.evaluate(&frame, &at);
                    let result = values[plan.nest.result].expect("the result is evaluated");
                    e.write(e.iadd(first, at.col), result, &at);
                });
            });
        });
    }

    /// The accesses that the first stage walks element by element, with where the next row of each starts.
    fn next_rows(&mut self, frame: &Frame<'c>) -> Vec<(usize, IntValue<'c>)> {
        let plan = self.plan;
        let (row, length) = (plan.space.len() - 1, plan.reduce[0].as_const());
        let mut out = Vec::new();
        for &id in &plan.turns[0].nodes {
            let Scalar::Load(access) = plan.nest.body[id] else {
                continue;
            };
            let source = &plan.sources[access];
            let walked = source.below.is_empty() && source.strides[row + 1].is_one();
            if walked && !source.strides[row].is_zero() && length.is_none_or(|n| n <= SHORT) {
                let start = self.base(frame, id).start;
                let stride = self.expr(source.strides[row]);
                out.push((access, self.iadd(start, stride)));
            }
        }
        out
    }

    /// Brings element `index` of an access into a cache. It may lie outside of the buffer.
    fn fetch_ahead(&mut self, access: usize, index: IntValue<'c>) {
        let source = &self.plan.sources[access];
        let element = self.memory(source.dtype, 1).get_element_type();
        let at = self
            .ops
            .element(element, self.pointers[source.input], index);
        self.ops.prefetch(at);
    }
}
