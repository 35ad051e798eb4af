//! Nests that run row by row: several reductions, or a result per point.
//!
//! A unit is a row. Each stage walks over it once, in the order of [`super::reduce`] along the reduced dim, so that its
//! result has the bits of a nest with that stage alone. The result is then computed once, or in one more walk. A row is
//! read from memory once and stays in a cache for the later walks, unless it is very long. These leave the memory idle,
//! so one of them asks for the next row.

use inkwell::values::{IntValue, PointerValue};

use super::emitter::Emitter;
use super::frame::{At, Done, Frame};
use super::plan::{Along, Plan};
use super::vector::V;
use crate::compilers::llvm_cpu::ir::{Id, Scalar};
use crate::shape::{Expr, numel};

/// Fewer rows than this, each longer than [`LONG`], are not worth a kernel: threads would have nothing to share, and the
/// walks would read from memory.
const FEW: i64 = 4;
/// A row that no cache holds.
const LONG: i64 = 1 << 18;
/// The longest row that is kept on the stack.
const ON_STACK: i64 = 1 << 14;
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

impl Plan<'_> {
    /// How many bytes a row of values takes; `None` if it has no place of its own.
    pub fn kept_bytes(&self) -> Option<u32> {
        let length = self.reduce.last()?.as_const()?;
        (length <= ON_STACK).then_some(8 * length as u32)
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
        let keeps = plan.turns.iter().any(|turn| turn.writes.is_some());
        if let Some(bytes) = plan.kept_bytes().filter(|_| keeps) {
            self.kept_row = Some(self.room(bytes, "row"));
        }
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
                e.storing(first, |e| {
                    e.lanes_of_row((e.int(0), length), over, |e, at| {
                        let values = e.evaluate(&frame, &at);
                        let result = values[plan.nest.result].expect("the result is evaluated");
                        e.write(e.iadd(first, at.col), result, &at);
                    });
                });
            });
        });
    }

    /// The accesses that the first stage walks element by element, with where the row so many rows behind starts in each.
    pub fn next_rows(&mut self, frame: &Frame<'c>, rows: i64) -> Vec<(usize, IntValue<'c>)> {
        let plan = self.plan;
        let (row, length) = (plan.space.len() - 1, plan.reduce[0].as_const());
        let mut out = Vec::new();
        if frame.dim != Some(row + 1) {
            return out;
        }
        for &id in &plan.turns[0].nodes {
            let Scalar::Load(access) = plan.nest.body[id] else {
                continue;
            };
            let source = &plan.sources[access];
            let walked = source.below.is_empty() && source.strides[row + 1].is_one();
            if walked && !source.strides[row].is_zero() && length.is_none_or(|n| n <= SHORT) {
                let start = self.base(frame, id).start;
                let stride = self.expr(source.strides[row]);
                let behind = self.imul(stride, self.int(rows));
                out.push((access, self.iadd(start, behind)));
            }
        }
        out
    }

    /// Brings element `index` of an access into a cache. It may lie outside of the buffer.
    pub fn fetch_ahead(&mut self, access: usize, index: IntValue<'c>) {
        let source = &self.plan.sources[access];
        let element = self.memory(source.dtype, 1).get_element_type();
        let at = self
            .ops
            .element(element, self.pointers[source.input], index);
        self.ops.prefetch(at);
    }

    /// Where `col` of the kept row is.
    fn kept(&self, frame: &Frame<'c>, id: Id, col: IntValue<'c>) -> PointerValue<'c> {
        let element = self.memory(self.plan.types[id], 1).get_element_type();
        if let Some(row) = self.kept_row {
            return self.ops.element(element, row, col);
        }
        let first = frame
            .done
            .first
            .expect("values are kept in rows of the output");
        let output = *self.pointers.last().expect("the output is in the table");
        self.ops.element(element, output, self.iadd(first, col))
    }

    /// Keeps the value of a node for later turns.
    pub fn keep(&mut self, frame: &Frame<'c>, id: Id, value: V<'c>, at: &At<'c>) {
        let dtype = self.plan.types[id];
        let (to, align) = (self.kept(frame, id, at.col), dtype.size() as u32);
        let value = self.packed(dtype, value);
        match at.active {
            _ if at.lanes == 1 => self.ops.store(self.ops.extract(value, 0), to, align),
            None => self.ops.store(value.into(), to, align),
            Some(mask) => self.ops.store_masked(value, to, mask, align),
        }
    }

    /// What an earlier turn kept of a node.
    pub fn read_back(&self, frame: &Frame<'c>, id: Id, at: &At<'c>) -> V<'c> {
        let dtype = self.plan.types[id];
        let kind = self.memory(dtype, at.lanes);
        let (from, align) = (self.kept(frame, id, at.col), dtype.size() as u32);
        let raw = match at.active {
            _ if at.lanes == 1 => self
                .ops
                .one(self.ops.load(kind.get_element_type(), from, align)),
            None => self.ops.load(kind, from, align).into_vector_value(),
            Some(mask) => self.ops.load_masked(kind, from, mask, align),
        };
        self.unpacked(dtype, raw)
    }
}
