//! Nests with one reduction and a value per row; the reductions of [`super::rows`] too.
//!
//! Along the reduced dim ([`Along::Reduced`]): a unit is one output element. The last
//! reduced dim is striped over 16 partial results (position `i` goes to `i % 16`),
//! each accumulated in sequence over everything, and combined 16 -> 8 -> 4 -> 2 -> 1,
//! partial result `i` with `i + half`. Wide targets keep the 16 in registers; where
//! single lanes are left over, and on targets of one lane, they are in a stack slot.
//!
//! Along the kept dim ([`Along::Kept`]): a unit is a block of columns of the output;
//! each element is accumulated in sequence.
//!
//! Either way the order, and so every bit, is the same on all targets and for any
//! split into units. A sum of products used nowhere else is accumulated by fused
//! multiply-add, which the reference executor does not do.

use inkwell::values::{IntValue, PointerValue};

use super::emitter::Emitter;
use super::frame::{At, Done, Frame};
use super::map::{self, Block};
use super::plan::{Along, Plan};
use super::vector::{V, lanes};
use crate::compilers::llvm_cpu::ir::{ReduceOp, Reduction};
use crate::dtype::DType;
use crate::shape::{Expr, numel};

/// Partial results of a reduction along the reduced dim.
pub const STRIPES: u32 = 16;

/// Output columns per unit of a reduction along the kept dim.
pub const COLUMNS: i64 = 64;

/// Vectors of columns that are accumulated side by side, to read longer pieces of
/// each row.
const ABREAST: u32 = 4;

/// Emits one point of the reduced dims, from partial results to partial results.
type Body<'b, 'a, 'c> =
    dyn FnMut(&mut Emitter<'a, 'c>, &[IntValue<'c>], Vec<V<'c>>) -> Vec<V<'c>> + 'b;

/// A stage on its way over a row.
struct Walk<'w, 'c> {
    stage: usize,
    /// Where partial results are when they are not in registers.
    slot: PointerValue<'c>,
    done: &'w Done<'c>,
}

impl<'a, 'c> Emitter<'a, 'c> {
    fn stage(&self, stage: usize) -> Reduction {
        self.plan.nest.stages[stage]
    }

    /// The type of the values that are reduced.
    fn reduced_type(&self, stage: usize) -> DType {
        self.plan.types[self.stage(stage).value]
    }

    /// What a reduction of nothing gives.
    pub fn identity(&self, stage: usize, l: u32) -> V<'c> {
        let ops = &self.ops;
        match (self.stage(stage).kind, self.reduced_type(stage)) {
            (_, DType::Bool) => ops.i8s(l).const_zero(),
            (ReduceOp::Sum, DType::I32) => ops.i32(l, 0),
            (ReduceOp::Sum, DType::F64) => ops.f64(l, 0.0),
            (ReduceOp::Sum, _) => ops.f32(l, 0.0),
            (ReduceOp::Max, DType::I32) => ops.i32(l, i32::MIN),
            (ReduceOp::Max, DType::F64) => ops.f64(l, f64::NEG_INFINITY),
            (ReduceOp::Max, _) => ops.f32(l, f32::NEG_INFINITY),
        }
    }

    /// Two partial results as one.
    fn combine(&self, stage: usize, a: V<'c>, b: V<'c>) -> V<'c> {
        match (self.stage(stage).kind, self.reduced_type(stage)) {
            (_, DType::Bool) => self.ops.or(a, b),
            (ReduceOp::Sum, DType::I32) => self.ops.add(a, b),
            (ReduceOp::Sum, _) => self.ops.fadd(a, b),
            (ReduceOp::Max, dtype) => self.larger(dtype, a, b),
        }
    }

    /// A partial result and the values of one more point per lane.
    pub fn accumulate(
        &mut self,
        stage: usize,
        frame: &Frame<'c>,
        at: &At<'c>,
        acc: V<'c>,
    ) -> V<'c> {
        let values = self.evaluate(frame, at);
        let value = |id: usize| values[id].expect("the turn evaluates its roots");
        let turn = &self.plan.turns[stage];
        if let Some(id) = turn.writes {
            self.keep(frame, id, value(id), at);
        }
        let next = match turn.factors {
            Some((a, b)) => self.ops.fma(value(a), value(b), acc),
            None => {
                let mut new = value(self.stage(stage).value);
                if self.reduced_type(stage) == DType::Bool {
                    new = self.ops.zext(new, self.ops.i8s(at.lanes));
                }
                self.combine(stage, acc, new)
            }
        };
        at.active
            .map_or(next, |active| self.ops.select(active, next, acc))
    }

    /// A finished partial result as a value of the reduced type.
    fn finished(&self, stage: usize, acc: V<'c>) -> V<'c> {
        let dtype = self.reduced_type(stage);
        match dtype {
            DType::Bool => self.unpacked(dtype, acc),
            _ => self.rounded(dtype, acc),
        }
    }

    /// Emits a reduction.
    pub fn reduce(&mut self) {
        match self.plan.along() {
            Along::Reduced if self.lanes > 1 && self.plan.sums_abreast() => self.sum_abreast(),
            Along::Reduced => self.reduce_along_reduced(),
            Along::Kept => self.reduce_along_kept(),
        }
    }

    /// Loops over the reduced dims from number `dim` up to `last`, outermost first.
    fn over_reduced(
        &mut self,
        coords: &mut Vec<IntValue<'c>>,
        last: usize,
        accs: Vec<V<'c>>,
        body: &mut Body<'_, 'a, 'c>,
    ) -> Vec<V<'c>> {
        let dim = coords.len();
        if dim == last {
            return body(self, coords, accs);
        }
        let size = self.expr(self.plan.reduce[dim - self.plan.space.len()]);
        let range = (self.int(0), size, 1);
        let accs = self.repeat(range, accs, |e, i, accs| {
            coords.push(i);
            e.over_reduced(coords, last, accs, body)
        });
        coords.truncate(dim);
        accs
    }

    fn reduce_along_reduced(&mut self) {
        let slot = self.slot(self.identity(0, 1), "stripes");
        self.for_each_unit(&self.plan.space, |e, unit, coords| {
            let mut done = Done::default();
            let value = e.reduce_row(0, &coords, slot, &done);
            done.reduced.push(value);
            e.value_of_row(unit, coords, &done);
        });
    }

    /// The result of a stage for the row at `coords`.
    pub fn reduce_row(
        &mut self,
        stage: usize,
        coords: &[IntValue<'c>],
        slot: PointerValue<'c>,
        done: &Done<'c>,
    ) -> V<'c> {
        let parts = if self.lanes == 1 {
            0
        } else {
            STRIPES / self.lanes
        };
        if parts == 0 {
            self.ops
                .store(self.identity(stage, STRIPES).into(), slot, 16);
        }
        let accs = vec![self.identity(stage, self.lanes); parts as usize];
        let walk = Walk { stage, slot, done };
        let last = self.plan.rank() - 1;
        let accs = self.over_reduced(&mut coords.to_vec(), last, accs, &mut |e, coords, accs| {
            e.inner(&walk, coords, accs)
        });
        if parts > 0 {
            return self.folded(stage, accs);
        }
        let kind = self.identity(stage, STRIPES).get_type();
        let stripes = self.ops.load(kind, slot, 16).into_vector_value();
        self.folded(stage, vec![stripes])
    }

    /// The result of a row of which these, side by side, are all partial results.
    pub fn folded(&self, stage: usize, parts: Vec<V<'c>>) -> V<'c> {
        let stripes = self.concatenated(parts);
        let reduced = self.tree(stage, stripes);
        self.finished(stage, reduced)
    }

    /// Computes and stores the result of row number `unit`, from those of the stages.
    pub fn value_of_row(
        &mut self,
        unit: IntValue<'c>,
        mut coords: Vec<IntValue<'c>>,
        done: &Done<'c>,
    ) {
        let plan = self.plan;
        // The coordinates of reduced dims are never asked for here.
        coords.resize(plan.rank(), self.int(0));
        let frame = self.row(plan.last(), None, &coords, done);
        let result = frame.uniform[plan.nest.result].expect("the result is evaluated");
        let at = At {
            lanes: 1,
            col: unit,
            active: None,
        };
        self.write(unit, result, &at);
    }

    /// 16 partial results as one.
    fn tree(&self, stage: usize, mut stripes: V<'c>) -> V<'c> {
        while lanes(stripes) > 1 {
            let half = lanes(stripes) / 2;
            let order: Vec<u32> = (0..2 * half).collect();
            let (low, high) = order.split_at(half as usize);
            let low = self.ops.shuffle(stripes, stripes, low);
            let high = self.ops.shuffle(stripes, stripes, high);
            stripes = self.combine(stage, low, high);
        }
        stripes
    }

    /// The last reduced dim, for one setting of the others.
    fn inner(
        &mut self,
        walk: &Walk<'_, 'c>,
        outer: &[IntValue<'c>],
        accs: Vec<V<'c>>,
    ) -> Vec<V<'c>> {
        let plan = self.plan;
        let size = *plan.reduce.last().expect("a reduction has a reduced dim");
        let n = self.expr(size);
        let mut coords = outer.to_vec();
        coords.push(self.int(0));
        // What is fixed for the row is read only if the row has elements.
        let some = self.imin(n, self.int(1));
        self.repeat((self.int(0), some, 1), accs, |e, _, accs| {
            let turn = &plan.turns[walk.stage];
            let frame = e.row(turn, Some(plan.rank() - 1), &coords, walk.done);
            let middle = e.iand(n, e.int(-i64::from(STRIPES)));
            if e.lanes == 1 {
                e.single_lanes(walk, &frame, (e.int(0), n));
                return accs;
            }
            let range = (e.int(0), middle, i64::from(STRIPES));
            let accs = e.repeat(range, accs, |e, i, mut accs| {
                for (part, acc) in accs.iter_mut().enumerate() {
                    let col = e.iadd(i, e.int(part as i64 * i64::from(e.lanes)));
                    let at = At {
                        lanes: e.lanes,
                        col,
                        active: None,
                    };
                    *acc = e.accumulate(walk.stage, &frame, &at, *acc);
                }
                accs
            });
            if size.as_const().is_some_and(|n| n % i64::from(STRIPES) == 0) {
                return accs;
            }
            // Runs once or not at all.
            e.repeat((middle, n, i64::from(STRIPES)), accs, |e, _, accs| {
                e.rest(walk, &frame, (middle, n), accs)
            })
        })
    }

    /// Fewer than 16 positions at the end of a row.
    fn rest(
        &mut self,
        walk: &Walk<'_, 'c>,
        frame: &Frame<'c>,
        (start, end): (IntValue<'c>, IntValue<'c>),
        accs: Vec<V<'c>>,
    ) -> Vec<V<'c>> {
        if self.lanes == STRIPES {
            let at = self.partial(STRIPES, start, end);
            return vec![self.accumulate(walk.stage, frame, &at, accs[0])];
        }
        let kind = accs[0].get_type();
        let part = |e: &Self, i: usize| {
            let index = e.int(i as i64 * i64::from(e.lanes));
            e.ops.element(kind.get_element_type(), walk.slot, index)
        };
        for (i, acc) in accs.iter().enumerate() {
            self.ops.store((*acc).into(), part(self, i), 1);
        }
        self.single_lanes(walk, frame, (start, end));
        (0..accs.len())
            .map(|i| self.ops.load(kind, part(self, i), 1).into_vector_value())
            .collect()
    }

    /// Positions one by one, with the partial results in memory.
    fn single_lanes(
        &mut self,
        walk: &Walk<'_, 'c>,
        frame: &Frame<'c>,
        (start, end): (IntValue<'c>, IntValue<'c>),
    ) {
        let kind = self.identity(walk.stage, 1).get_type().get_element_type();
        self.for_each((start, end, 1), |e, col| {
            let stripe = e.iand(col, e.int(i64::from(STRIPES) - 1));
            let place = e.ops.element(kind, walk.slot, stripe);
            let acc = e.ops.one(e.ops.load(kind, place, 1));
            let at = At {
                lanes: 1,
                col,
                active: None,
            };
            let acc = e.accumulate(walk.stage, frame, &at, acc);
            e.ops.store(e.ops.extract(acc, 0), place, 1);
        });
    }

    fn reduce_along_kept(&mut self) {
        let wide = i64::from(ABREAST * self.lanes);
        let last = *self.plan.space.last().expect("a plan has a space dim");
        let over = self.left_over(last);
        self.for_each_block(COLUMNS, |e, coords, block| {
            let whole = e.isub(block.end, block.start);
            let whole = e.iand(whole, e.int(-wide));
            let middle = e.iadd(block.start, whole);
            e.for_each((block.start, middle, wide), |e, col| {
                let part = |i| At {
                    lanes: e.lanes,
                    col: e.iadd(col, e.int(i64::from(i * e.lanes))),
                    active: None,
                };
                let parts: Vec<At<'c>> = (0..ABREAST).map(part).collect();
                e.columns(&coords, block, &parts);
            });
            e.lanes_of_row((middle, block.end), over, |e, at| {
                e.columns(&coords, block, &[at]);
            });
        });
    }

    /// Some columns, from the first reduced point to the store.
    fn columns(&mut self, coords: &[IntValue<'c>], block: Block<'c>, parts: &[At<'c>]) {
        let plan = self.plan;
        let row = Some(plan.space.len() - 1);
        let accs = parts.iter().map(|at| self.identity(0, at.lanes)).collect();
        let mut point = coords.to_vec();
        let accs = self.over_reduced(&mut point, plan.rank(), accs, &mut |e, coords, accs| {
            let frame = e.row(&plan.turns[0], row, coords, &Done::default());
            let each = parts.iter().zip(accs);
            each.map(|(at, acc)| e.accumulate(0, &frame, at, acc))
                .collect()
        });
        point.resize(plan.rank(), self.int(0));
        for (at, acc) in parts.iter().zip(accs) {
            let done = Done {
                reduced: vec![self.finished(0, acc)],
                first: None,
            };
            let frame = self.row(plan.last(), row, &point, &done);
            let values = self.evaluate(&frame, at);
            let result = values[plan.nest.result].expect("the result is evaluated");
            self.write(self.iadd(block.first, at.col), result, at);
        }
    }
}

/// How many units a reduction has.
pub fn units(plan: &Plan<'_>) -> Expr {
    match plan.along() {
        _ if plan.is_by_rows() => numel(&plan.space),
        Along::Reduced => numel(&plan.space),
        Along::Kept => map::units(plan, COLUMNS),
    }
}
