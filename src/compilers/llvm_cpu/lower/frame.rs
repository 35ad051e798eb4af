//! Evaluating one phase of the body: once per row what is the same along the row,
//! and once per vector what is not.
//!
//! A row is a run along one dim with all other coordinates fixed. [`Emitter::row`]
//! emits, as scalars and before the loop over the row, the nodes that do not vary
//! along it and the address parts of the others; [`Emitter::evaluate`] emits the rest
//! for any number of lanes. So a row's maximum, a broadcast bias or the start of an
//! embedding is fetched once.

use inkwell::IntPredicate as I;
use inkwell::values::IntValue;

use super::emitter::Emitter;
use super::stages::Turn;
use super::vector::{V, built};
use crate::compilers::llvm_cpu::ir::{Id, Scalar};

/// Which lanes are evaluated.
#[derive(Clone, Copy)]
pub struct At<'c> {
    /// How many; 1 is a scalar.
    pub lanes: u32,
    /// The coordinate of the first along the row.
    pub col: IntValue<'c>,
    /// Lanes that exist; all of them if `None`.
    pub active: Option<V<'c>>,
}

/// The part of an access that is fixed for a row.
#[derive(Clone, Copy)]
pub struct Base<'c> {
    /// Address of the row's coordinate zero in the top layer.
    pub start: IntValue<'c>,
    /// Whether the fixed coordinates are not padding; `None` if they never are.
    pub ok: Option<IntValue<'c>>,
    /// The coordinates along the row that are not padding.
    pub range: Option<(IntValue<'c>, IntValue<'c>)>,
}

/// One row of one phase.
pub struct Frame<'c> {
    /// The nodes to evaluate, in order.
    pub nodes: Vec<Id>,
    /// The dim of the row; `None` for a single point.
    pub dim: Option<usize>,
    /// The coordinates; that of `dim` is meaningless.
    pub coords: Vec<IntValue<'c>>,
    /// Which nodes vary along the row.
    pub varies: Vec<bool>,
    /// The values of those that do not.
    pub uniform: Vec<Option<V<'c>>>,
    /// Address parts of the accesses, by the node that reads them.
    pub bases: Vec<Option<Base<'c>>>,
    /// The node whose values were kept.
    pub reads: Option<Id>,
    /// What is known from earlier turns.
    pub done: Done<'c>,
    /// The accesses of which the next row is asked for, with where it starts.
    pub ahead: Vec<(usize, IntValue<'c>)>,
}

/// What the turns so far leave to later ones.
#[derive(Clone, Default)]
pub struct Done<'c> {
    /// The results of the stages.
    pub reduced: Vec<V<'c>>,
    /// The output element of the row's first point, in a nest with a result per point.
    pub first: Option<IntValue<'c>>,
}

/// The values of all nodes for some lanes of a row.
pub type Values<'c> = Vec<Option<V<'c>>>;

impl<'c> Emitter<'_, 'c> {
    /// Starts a row: emits what does not vary along it.
    pub fn row(
        &mut self,
        turn: &Turn,
        dim: Option<usize>,
        coords: &[IntValue<'c>],
        done: &Done<'c>,
    ) -> Frame<'c> {
        let count = self.plan.nest.body.len();
        let mut frame = Frame {
            nodes: turn.nodes.clone(),
            dim,
            coords: coords.to_vec(),
            varies: self.plan.varying(dim),
            uniform: vec![None; count],
            bases: vec![None; count],
            reads: turn.reads,
            done: done.clone(),
            ahead: vec![],
        };
        if turn.fetches {
            frame.ahead = self.next_rows(&frame, 1);
        }
        let at = At {
            lanes: 1,
            col: self.int(0),
            active: None,
        };
        for &id in &turn.nodes {
            if let Scalar::Load(_)
            | Scalar::Valid(_)
            | Scalar::Position(_)
            | Scalar::Gather { .. } = self.plan.nest.body[id]
            {
                frame.bases[id] = Some(self.base(&frame, id));
            }
            if !frame.varies[id] {
                frame.uniform[id] = Some(self.node(&frame, &at, &frame.uniform, id));
            }
        }
        frame
    }

    /// Emits the nodes of a row for some lanes.
    pub fn evaluate(&mut self, frame: &Frame<'c>, at: &At<'c>) -> Values<'c> {
        for &(access, start) in frame.ahead.iter().filter(|_| at.lanes > 1) {
            self.fetch_ahead(access, self.iadd(start, at.col));
        }
        let mut values = vec![None; self.plan.nest.body.len()];
        for &id in &frame.nodes {
            values[id] = Some(match frame.uniform[id] {
                _ if frame.reads == Some(id) => self.read_back(frame, id, at),
                Some(value) => self.ops.splat(value, at.lanes),
                None => self.node(frame, at, &values, id),
            });
        }
        values
    }

    /// The lanes `col..col + lanes`, of which those below `end` exist.
    pub fn partial(&mut self, lanes: u32, col: IntValue<'c>, end: IntValue<'c>) -> At<'c> {
        let cols = self.cols(&At {
            lanes,
            col,
            active: None,
        });
        let end = self.ops.splat_int(end, lanes);
        At {
            lanes,
            col,
            active: Some(self.ops.icmp(I::SLT, cols, end)),
        }
    }

    /// The coordinates of the lanes along the row.
    pub fn cols(&self, at: &At<'c>) -> V<'c> {
        let first = self.ops.splat_int(at.col, at.lanes);
        if at.lanes == 1 {
            first
        } else {
            self.ops.add(first, self.ops.iota(at.lanes))
        }
    }

    /// Covers `start..end` by whole vectors of `width` lanes, then by the rest: one
    /// masked vector where the target has masks for everything, else lane by lane.
    /// `over` is the length of that rest, if it is known.
    ///
    /// A rest of one is a scalar also because LLVM 22 compiles a truncating masked
    /// store with a constant mask of one lane to a store that is too wide.
    pub fn lanes_of_row(
        &mut self,
        (start, end): (IntValue<'c>, IntValue<'c>),
        over: Option<i64>,
        mut body: impl FnMut(&mut Self, At<'c>),
    ) {
        let lanes = self.lanes;
        let whole = self.isub(end, start);
        let whole = self.iand(whole, self.int(-i64::from(lanes)));
        let middle = self.iadd(start, whole);
        self.for_each((start, middle, i64::from(lanes)), |e, col| {
            body(
                e,
                At {
                    lanes,
                    col,
                    active: None,
                },
            )
        });
        if lanes == 1 || over == Some(0) {
            return;
        }
        if lanes == 16 && over != Some(1) {
            let some = self.icmp(I::SLT, middle, end);
            self.when(some, |e| {
                let at = e.partial(lanes, middle, end);
                body(e, at);
            });
        } else {
            self.for_each((middle, end, 1), |e, col| {
                body(
                    e,
                    At {
                        lanes: 1,
                        col,
                        active: None,
                    },
                )
            });
        }
    }

    /// Reports a bad index in the error slot, if there is one among the lanes.
    pub fn report(&mut self, bad: V<'c>, index: V<'c>, at: &At<'c>) {
        let bad = at.active.map_or(bad, |active| self.ops.and(bad, active));
        let any = self.ops.any(bad);
        self.when(any, |e| {
            // The largest bad index as unsigned; any of them will do.
            let none = e.ops.i32(at.lanes, 0);
            let mut worst = e
                .ops
                .extract(e.ops.select(bad, index, none), 0)
                .into_int_value();
            for lane in 1..at.lanes {
                let flag = e.ops.extract(bad, lane).into_int_value();
                let value = e.ops.extract(index, lane).into_int_value();
                worst = built(e.ops.builder.build_select(flag, value, worst, "")).into_int_value();
            }
            let kind = e.ops.context.i64_type();
            let wide = built(e.ops.builder.build_int_s_extend(worst, kind, ""));
            let marked = e.iadd(wide, e.int(1 << 32));
            let errors = e.errors;
            e.ops.store_atomic(marked, errors);
        });
    }
}
