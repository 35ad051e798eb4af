//! Reductions: axes folded away.
//!
//! The plain forms remove the axes, the `_keepdim` forms leave them with size 1. No axes fold nothing.

use super::axes::{IntoAxes, axis_set};
use super::coordinates::{constant_like, coordinate, int, less, pick};
use super::operand::fail;
use super::scan::{MAX_ROUNDS, accumulator};
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};
use crate::op::{AxisSet, Op, ReduceOp};
use crate::shape::Expr;

impl GraphTensor {
    /// One primitive reduction.
    #[track_caller]
    pub(crate) fn fold(self, op: ReduceOp, axes: &AxisSet) -> GraphTensor {
        if axes.is_empty() {
            return self;
        }
        GraphTensor::record(Op::Reduce(op, axes.clone()), &[self])
    }

    /// Folded axes back, with size 1.
    #[track_caller]
    pub(crate) fn unfold_axes(self, axes: &AxisSet) -> GraphTensor {
        let mut out = self;
        for &axis in axes {
            out = out.unsqueeze(axis);
        }
        out
    }
}

impl<S: Shape> GraphTensor<S> {
    /// Sum over these axes. Booleans are counted.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [3.0, 4.0]]);
    /// let (rows, all) = (x.sum(1).retrieve(), x.sum(..).retrieve());
    /// cx.execute();
    /// assert_eq!((rows.data(), all.data()), (vec![3.0, 7.0], vec![10.0]));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn sum(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("sum", &self.ty(), axes);
        let x = self.dynamic();
        let x = match x.dtype() {
            DType::Bool => x.cast(DType::I32),
            _ => x,
        };
        x.fold(ReduceOp::Sum, &axes)
    }

    /// [`GraphTensor::sum`] that keeps the axes, with size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// # let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>();
    /// assert_eq!(x.sum_keepdim(1).dims()[..], [2, 1].map(Expr::from));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn sum_keepdim(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("sum", &self.ty(), axes);
        self.sum(axes.as_slice()).unfold_axes(&axes)
    }

    /// Largest element over these axes; NaN if there is one, the format's smallest value over nothing.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [4.0, 3.0]]);
    /// let y = x.max(-1).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn max(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("max", &self.ty(), axes);
        self.dynamic().fold(ReduceOp::Max, &axes)
    }

    /// [`GraphTensor::max`] that keeps the axes, with size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// # let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>();
    /// assert_eq!(x.max_keepdim(1).dims()[..], [2, 1].map(Expr::from));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn max_keepdim(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("max", &self.ty(), axes);
        self.max(axes.as_slice()).unfold_axes(&axes)
    }

    /// Smallest element over these axes; NaN if there is one, the format's largest value over nothing.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [4.0, 3.0]]);
    /// let y = x.min(-1).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn min(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("min", &self.ty(), axes);
        reversed(reversed(self.dynamic()).fold(ReduceOp::Max, &axes))
    }

    /// [`GraphTensor::min`] that keeps the axes, with size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// # let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>();
    /// assert_eq!(x.min_keepdim(1).dims()[..], [2, 1].map(Expr::from));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn min_keepdim(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("min", &self.ty(), axes);
        self.min(axes.as_slice()).unfold_axes(&axes)
    }

    /// Whether some element over these axes is not 0 (NaN is not); false over nothing.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[0.0, 2.0], [0.0, 0.0]]);
    /// let y = x.any(1).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn any(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("any", &self.ty(), axes);
        self.dynamic().cast(DType::Bool).fold(ReduceOp::Max, &axes)
    }

    /// [`GraphTensor::any`] that keeps the axes, with size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// # let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>();
    /// assert_eq!(x.any_keepdim(1).dims()[..], [2, 1].map(Expr::from));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn any_keepdim(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("any", &self.ty(), axes);
        self.any(axes.as_slice()).unfold_axes(&axes)
    }

    /// Whether no element over these axes is 0; true over nothing.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [0.0, 1.0]]);
    /// let y = x.all(1).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn all(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("all", &self.ty(), axes);
        !(!self.dynamic().cast(DType::Bool)).fold(ReduceOp::Max, &axes)
    }

    /// [`GraphTensor::all`] that keeps the axes, with size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// # let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>();
    /// assert_eq!(x.all_keepdim(1).dims()[..], [2, 1].map(Expr::from));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn all_keepdim(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("all", &self.ty(), axes);
        self.all(axes.as_slice()).unfold_axes(&axes)
    }

    /// Product over these axes; 1 over nothing. Neighbouring halves are multiplied in log2(n) rounds, without
    /// logarithms; on a symbolic axis in the 31 rounds that suffice for every size.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([2.0, -3.0, 4.0]);
    /// let y = x.prod(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-24.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn prod(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("prod", &self.ty(), axes);
        let (mut x, dtype) = accumulator(self.dynamic());
        for &axis in axes.iter().rev() {
            x = product(x, axis);
        }
        x.cast(dtype)
    }

    /// [`GraphTensor::prod`] that keeps the axes, with size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// # let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>();
    /// assert_eq!(x.prod_keepdim(1).dims()[..], [2, 1].map(Expr::from));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn prod_keepdim(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("prod", &self.ty(), axes);
        self.prod(axes.as_slice()).unfold_axes(&axes)
    }

    /// Where the largest element over these axes is, as `I32`: the first of equal ones, or the first NaN. Over several axes
    /// it is the row-major index among them.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 2.0, 2.0, 0.0]);
    /// let y = x.argmax(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.array().to_i32(), [1]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, or they are empty.
    #[track_caller]
    pub fn argmax(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("argmax", &self.ty(), axes);
        first_largest("argmax", self.dynamic(), &axes)
    }

    /// [`GraphTensor::argmax`] that keeps the axes, with size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// # let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>();
    /// assert_eq!(x.argmax_keepdim(1).dims()[..], [2, 1].map(Expr::from));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, or they are empty.
    #[track_caller]
    pub fn argmax_keepdim(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("argmax", &self.ty(), axes);
        self.argmax(axes.as_slice()).unfold_axes(&axes)
    }

    /// Where the smallest element over these axes is, as `I32`: the first of equal ones, or the first NaN. Over several axes
    /// it is the row-major index among them.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 0.0, 2.0, 0.0]);
    /// let y = x.argmin(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.array().to_i32(), [1]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, or they are empty.
    #[track_caller]
    pub fn argmin(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("argmin", &self.ty(), axes);
        first_largest("argmin", reversed(self.dynamic()), &axes)
    }

    /// [`GraphTensor::argmin`] that keeps the axes, with size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// # let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 3>>();
    /// assert_eq!(x.argmin_keepdim(1).dims()[..], [2, 1].map(Expr::from));
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, or they are empty.
    #[track_caller]
    pub fn argmin_keepdim(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("argmin", &self.ty(), axes);
        self.argmin(axes.as_slice()).unfold_axes(&axes)
    }
}

/// An order-reversing map that is its own inverse: `-x`, `-1 - x` of integers (which cannot overflow), `!x` of booleans.
#[track_caller]
pub(super) fn reversed(x: GraphTensor) -> GraphTensor {
    match x.dtype() {
        DType::Bool => !x,
        DType::I32 => x * -1 + -1,
        _ => -x,
    }
}

/// Product over one axis: the halves are multiplied until one element is left.
#[track_caller]
fn product(x: GraphTensor, axis: usize) -> GraphTensor {
    let dim = x.dims()[axis];
    // A symbolic axis may be empty; with a 1 at its end it is not.
    let (mut x, dim, n_rounds) = match dim.as_usize() {
        Some(0) => return product(x.pad_with(axis, 0, 1, 1.0), axis),
        Some(n) => (x, dim, n.next_power_of_two().trailing_zeros()),
        None => (x.pad_with(axis, 0, 1, 1.0), dim + 1, MAX_ROUNDS),
    };
    let mut len = dim;
    for round in 1..=n_rounds {
        let half = dim.ceil_div(1i64 << round);
        let second = x.slice_axis(axis, half, len);
        let second = match half + half == len {
            true => second,
            false => second.pad_with(axis, 0, half + half - len, 1.0),
        };
        x = x.slice_axis(axis, 0, half) * second;
        len = half;
    }
    x.slice_axis(axis, 0, 1).squeeze(axis)
}

/// Row-major index, among `axes`, of the first element that is largest or NaN.
#[track_caller]
fn first_largest(op: &str, x: GraphTensor, axes: &AxisSet) -> GraphTensor {
    let ty = x.ty();
    if axes.iter().any(|&axis| ty.dims[axis].is_zero()) {
        fail(op, format!("{ty} has no elements over axes {axes:?}"));
    }
    let largest = x.fold(ReduceOp::Max, axes).unfold_axes(axes);
    let hit = !less(op, x, largest);
    let hit = match ty.dtype.is_float() {
        // Nothing is less than a NaN, but only NaN is what was found then.
        true => hit & (x.isnan() | !largest.isnan()),
        false => hit,
    };
    let mut index = int(x.graph, Expr::from(0));
    let mut stride = Expr::from(1);
    for &axis in axes.iter().rev() {
        let step = int(x.graph, stride);
        index = coordinate(x.graph, &ty.dims, axis) * step + index;
        stride *= ty.dims[axis];
    }
    // The smallest index is the largest of the reversed ones.
    let index = reversed(index);
    let nowhere = constant_like(index, f64::from(i32::MIN));
    reversed(pick(op, hit, index, nowhere).fold(ReduceOp::Max, axes))
}
