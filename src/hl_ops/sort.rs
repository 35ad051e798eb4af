//! Sorting by counting.
//!
//! The rank of an element is the number of elements that come before it; scattering `0, 1, ..` to the ranks gives the
//! order. That is O(n²) comparisons along the axis, all of them independent, and needs no sorting primitive. The order
//! is stable, NaN counts as the largest number, and -0 equals 0.

use super::axes::{AxisIndex, one_axis};
use super::coordinates::{coordinate, less, pick};
use super::operand::fail;
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};
use crate::op::{Op, ReduceOp, ScatterMode};
use crate::shape::Expr;

/// Whether `a < b` when NaN is the largest number.
#[track_caller]
pub(super) fn below(op: &str, a: GraphTensor, b: GraphTensor) -> GraphTensor {
    let smaller = less(op, a, b);
    if !a.dtype().is_float() {
        return smaller;
    }
    smaller | (!a.isnan() & b.isnan())
}

/// For each element, how many elements of its line along `axis` come before it.
#[track_caller]
fn ranks(op: &str, x: GraphTensor, axis: usize, descending: bool) -> GraphTensor {
    // [.., i, j, ..]: is element j before element i?
    let (own, other) = (x.unsqueeze(axis + 1), x.unsqueeze(axis));
    let (low, high) = if descending {
        (own, other)
    } else {
        (other, own)
    };
    let strictly = below(op, low, high);
    let or_equal = !below(op, high, low);
    let dims = strictly.dims();
    let own_at = coordinate(x.graph, &dims, axis);
    let other_at = coordinate(x.graph, &dims, axis + 1);
    let before = pick(op, less(op, other_at, own_at), or_equal, strictly);
    let counts = before.cast(DType::I32);
    counts.fold(ReduceOp::Sum, &[axis + 1].into_iter().collect())
}

#[track_caller]
fn order(op: &str, x: GraphTensor, axis: usize, descending: bool) -> GraphTensor {
    let ranks = ranks(op, x, axis, descending);
    let dims = x.dims();
    let zeros = GraphTensor::scalar(x.graph, DType::I32, 0.0).broadcast_to(op, &dims);
    let mode = ScatterMode::Set;
    let at = coordinate(x.graph, &dims, axis);
    GraphTensor::record(Op::Scatter { axis, mode }, &[zeros, ranks, at])
}

impl<S: Shape> GraphTensor<S> {
    /// Where the elements of the sorted axis come from, as `I32`. Equal elements stay in their order. O(n²).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([3.0, 1.0, 2.0, 1.0]);
    /// let y = x.argsort(0, false).retrieve();
    /// cx.execute();
    /// assert_eq!(y.array().to_i32(), [1, 3, 2, 0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn argsort(self, axis: impl AxisIndex, descending: bool) -> GraphTensor<S> {
        let axis = one_axis("argsort", &self.ty(), axis);
        order("argsort", self.dynamic(), axis, descending).retag()
    }

    /// The sorted axis, and where its elements come from. O(n²).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([3.0, 1.0, 2.0, 1.0]);
    /// let (values, index) = x.sort(-1, true);
    /// let (values, index) = (values.retrieve(), index.retrieve());
    /// cx.execute();
    /// assert_eq!(values.data(), [3.0, 2.0, 1.0, 1.0]);
    /// assert_eq!(index.array().to_i32(), [0, 2, 1, 3]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn sort(self, axis: impl AxisIndex, descending: bool) -> (GraphTensor<S>, GraphTensor<S>) {
        let axis = one_axis("sort", &self.ty(), axis);
        let x = self.dynamic();
        let index = order("sort", x, axis, descending);
        (x.gather(axis, index).retag(), index.retag())
    }

    /// The `k` largest elements of an axis, largest first, and where they come from. Of equal ones the first counts.
    /// O(n²).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([3.0, 1.0, 2.0, 5.0]);
    /// let (values, index) = x.topk(2, 0);
    /// let (values, index) = (values.retrieve(), index.retrieve());
    /// cx.execute();
    /// assert_eq!((values.data(), index.array().to_i32()), (vec![5.0, 3.0], vec![3, 0]));
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or it has fewer elements.
    #[track_caller]
    pub fn topk(self, k: impl Into<Expr>, axis: impl AxisIndex) -> (GraphTensor, GraphTensor) {
        self.first_k("topk", k.into(), axis, true)
    }

    /// The `k` smallest elements of an axis, smallest first, and where they come from. O(n²).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([3.0, 1.0, 2.0, 5.0]);
    /// let values = x.bottomk(2, 0).0.retrieve();
    /// cx.execute();
    /// assert_eq!(values.data(), [1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or it has fewer elements.
    #[track_caller]
    pub fn bottomk(self, k: impl Into<Expr>, axis: impl AxisIndex) -> (GraphTensor, GraphTensor) {
        self.first_k("bottomk", k.into(), axis, false)
    }

    /// The median of an axis, of an even number the lower one, and where it is; a NaN, if there is one. The axis goes.
    /// O(n²).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([3.0, 1.0, 2.0, 5.0]);
    /// let (value, place) = x.median(0);
    /// let (value, place) = (value.retrieve(), place.retrieve());
    /// cx.execute();
    /// assert_eq!((value.data(), place.array().to_i32()), (vec![2.0], vec![2]));
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or its size is symbolic or 0.
    #[track_caller]
    pub fn median(self, axis: impl AxisIndex) -> (GraphTensor, GraphTensor) {
        let ty = self.ty();
        let axis = one_axis("median", &ty, axis);
        let Some(n @ 1..) = ty.dims[axis].as_const() else {
            fail("median", format!("axis {axis} of {ty}"));
        };
        let index = order("median", self.dynamic(), axis, false);
        let middle = index.slice_axis(axis, (n - 1) / 2, (n - 1) / 2 + 1);
        // NaN comes last.
        let last = index.slice_axis(axis, n - 1, n);
        let place = match ty.dtype.is_float() {
            true => self.gather(axis, last).isnan().where_(last, middle),
            false => middle,
        };
        (self.gather(axis, place).squeeze(axis), place.squeeze(axis))
    }

    #[track_caller]
    fn first_k(
        self,
        op: &str,
        k: Expr,
        axis: impl AxisIndex,
        descending: bool,
    ) -> (GraphTensor, GraphTensor) {
        let ty = self.ty();
        let axis = one_axis(op, &ty, axis);
        if (ty.dims[axis] - k).bounds().1.is_some_and(|room| room < 0) {
            fail(op, format!("{k} elements of axis {axis} of {ty}"));
        }
        let index = order(op, self.dynamic(), axis, descending).slice_axis(axis, 0, k);
        (self.gather(axis, index), index)
    }
}
