//! Running sums and products along an axis.
//!
//! Element `i` of round `k` is the fold of the `2^k` elements up to `i`: each round adds (or multiplies) the axis
//! moved on by `2^k`, a view, so that `ceil(log2 n)` rounds of n operations do. On a symbolic axis `cumsum` sums
//! sliding windows over the zero-padded axis instead, one reduction of n² additions, and `cumprod` does the rounds that
//! suffice for every `i32` size. A running maximum carries the place along with the value.

use super::axes::{AxisIndex, one_axis};
use super::coordinates::{coordinate, fill_outside, pick};
use super::reduction::reversed;
use super::sort::below;
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};
use crate::op::{BinaryOp, Op, ReduceOp};
use crate::shape::Expr;

/// Rounds after which `2^rounds` reaches every size.
pub(super) const MAX_ROUNDS: u32 = 31;

/// Rounds that fold an axis of this size.
pub(super) fn n_rounds(dim: Expr) -> u32 {
    match dim.as_usize() {
        Some(n) => n.max(1).next_power_of_two().trailing_zeros(),
        None => MAX_ROUNDS,
    }
}

/// `x` with its axis moved on by `shift` and `neutral` moved in.
#[track_caller]
fn moved_on(op: &str, x: GraphTensor, axis: usize, shift: Expr, neutral: f64) -> GraphTensor {
    let dim = x.dims()[axis];
    let moved = x.pad(axis, shift, 0).slice_axis(axis, 0, dim);
    if neutral == 0.0 {
        return moved;
    }
    fill_outside(op, moved, axis, (shift, dim), neutral)
}

#[track_caller]
fn scan(op: &str, x: GraphTensor, axis: usize, neutral: f64, fold: BinaryOp) -> GraphTensor {
    let mut out = x;
    for round in 0..n_rounds(x.dims()[axis]) {
        let shift = Expr::from(1i64 << round);
        let moved = moved_on(op, out, axis, shift, neutral);
        out = GraphTensor::record(Op::Binary(fold), &[out, moved]);
    }
    out
}

/// Running maxima and their places: of equal ones the last, and a NaN, which is largest, as soon as there is one.
#[track_caller]
fn largest_so_far(op: &str, x: GraphTensor, axis: usize) -> (GraphTensor, GraphTensor) {
    let lowest = super::pool::lowest(x.dtype());
    let (mut values, mut places) = (x, coordinate(x.graph, &x.dims(), axis));
    for round in 0..n_rounds(x.dims()[axis]) {
        let shift = Expr::from(1i64 << round);
        let before = moved_on(op, values, axis, shift, lowest);
        let place = moved_on(op, places, axis, shift, 0.0);
        let is_larger = below(op, values, before);
        values = pick(op, is_larger, before, values);
        places = pick(op, is_larger, place, places);
    }
    (values, places)
}

#[track_caller]
fn cumsum_windows(x: GraphTensor, axis: usize) -> GraphTensor {
    let dim = x.dims()[axis];
    // A window of dim + 1 that ends at element i holds every element up to i, and padding. The first window holds
    // nothing else, so that there is one on an empty axis too.
    let windows = x.pad(axis, dim + 1, 0).unfold(axis, dim + 1, 1);
    let own = windows.slice_axis(axis, 1, dim + 1);
    own.fold(ReduceOp::Sum, &[x.rank()].into_iter().collect())
}

/// A tensor in a format that accumulates well: `F32` for 16-bit floats, `I32` for booleans. The result's format comes
/// with it.
#[track_caller]
pub(super) fn accumulator(x: GraphTensor) -> (GraphTensor, DType) {
    match x.dtype() {
        DType::Bool => (x.cast(DType::I32), DType::I32),
        dtype @ (DType::F16 | DType::BF16) => (x.cast(DType::F32), dtype),
        dtype => (x, dtype),
    }
}

impl<S: Shape> GraphTensor<S> {
    /// Sums of the elements up to each, along an axis.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 2.0, 3.0, 4.0]);
    /// let y = x.cumsum(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 3.0, 6.0, 10.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn cumsum(self, axis: impl AxisIndex) -> GraphTensor<S> {
        let ty = self.ty();
        let axis = one_axis("cumsum", &ty, axis);
        let (x, dtype) = accumulator(self.dynamic());
        let out = match ty.dims[axis].as_const() {
            Some(_) => scan("cumsum", x, axis, 0.0, BinaryOp::Add),
            None => cumsum_windows(x, axis),
        };
        out.cast(dtype).retag()
    }

    /// Products of the elements up to each, along an axis.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 2.0, 3.0, 4.0]);
    /// let y = x.cumprod(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 6.0, 24.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn cumprod(self, axis: impl AxisIndex) -> GraphTensor<S> {
        let axis = one_axis("cumprod", &self.ty(), axis);
        let (x, dtype) = accumulator(self.dynamic());
        let out = scan("cumprod", x, axis, 1.0, BinaryOp::Mul);
        out.cast(dtype).retag()
    }

    /// The largest of the elements up to each, along an axis, and where it is (`I32`): the last of equal ones.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 3.0, 2.0, 3.0]);
    /// let (values, places) = x.cummax(0);
    /// let (values, places) = (values.retrieve(), places.retrieve());
    /// cx.execute();
    /// assert_eq!(values.data(), [1.0, 3.0, 3.0, 3.0]);
    /// assert_eq!(places.array().to_i32(), [0, 1, 1, 3]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn cummax(self, axis: impl AxisIndex) -> (GraphTensor<S>, GraphTensor<S>) {
        let axis = one_axis("cummax", &self.ty(), axis);
        let (values, places) = largest_so_far("cummax", self.dynamic(), axis);
        (values.retag(), places.retag())
    }

    /// The smallest of the elements up to each, along an axis, and where it is (`I32`): the last of equal ones.
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn cummin(self, axis: impl AxisIndex) -> (GraphTensor<S>, GraphTensor<S>) {
        let axis = one_axis("cummin", &self.ty(), axis);
        let (values, places) = largest_so_far("cummin", reversed(self.dynamic()), axis);
        (reversed(values).retag(), places.retag())
    }

    /// `log(sum(exp(x)))` of the elements up to each, along an axis, without overflow. Results are as large as the largest
    /// element, so what is carried along is that element, which has no gradient, and the sum of exponentials of what the
    /// others are below it: a result near 10000 has no place for the digits that gradients depend on.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([10000.0, 10000.0, 10000.0]);
    /// let y = x.logcumsumexp(0);
    /// let dx = cx.compile(Autograd::new(x, y), ())[0].retrieve(); // 1 + 1/2 + 1/3, 1/2 + 1/3, 1/3
    /// cx.execute();
    /// assert!((dx.data()[0] - 11.0 / 6.0).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or the format is not a floating-point one.
    #[track_caller]
    pub fn logcumsumexp(self, axis: impl AxisIndex) -> GraphTensor<S> {
        let axis = one_axis("logcumsumexp", &self.ty(), axis);
        let x = self.wide("logcumsumexp");
        let most = match x.dtype() {
            DType::F64 => f64::MAX,
            _ => f64::from(f32::MAX),
        };
        // An infinity must not be taken away from itself.
        let mut largest = x.detach().clamp(-most, most);
        let mut sum = (x - largest).exp();
        for round in 0..n_rounds(x.dims()[axis]) {
            let shift = Expr::from(1i64 << round);
            let before = moved_on("logcumsumexp", largest, axis, shift, -most);
            let rest = moved_on("logcumsumexp", sum, axis, shift, 0.0);
            let both = largest.maximum(before);
            sum = sum * (largest - both).exp() + rest * (before - both).exp();
            largest = both;
        }
        // Chosen before and after: the logarithm of 0 has no gradient.
        let some = sum.ne(0.0);
        let log = some.where_(some.where_(sum, 1.0).log(), f64::NEG_INFINITY);
        (log + largest).narrowed(self)
    }
}
