//! Comparisons, tests for NaN and infinity, and the choices built on them.
//!
//! Everything is `LessThan` and `Select`. As in IEEE 754, every comparison with NaN is false except `ne`.

use super::binary::{boolean, pair};
use super::operand::{Operand, Term, broadcast, fail};
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};
use crate::op::{BinaryOp, Op};

#[track_caller]
fn less(a: GraphTensor, b: GraphTensor) -> GraphTensor {
    GraphTensor::record(Op::Binary(BinaryOp::LessThan), &[a, b])
}

/// `condition ? a : b`, of three tensors of one shape.
#[track_caller]
pub(crate) fn select(condition: GraphTensor, a: GraphTensor, b: GraphTensor) -> GraphTensor {
    GraphTensor::record(Op::Select, &[condition, a, b])
}

/// Whether no element of the tensor can be NaN, without looking at any data.
fn is_never_nan(term: Term, dtype: DType) -> bool {
    !dtype.is_float() || term.number().is_some_and(|value| !value.is_nan())
}

/// `x` is a number, not NaN: any number is below infinity or above minus infinity.
#[track_caller]
fn is_number(x: GraphTensor) -> GraphTensor {
    x.lt(f64::INFINITY) | x.gt(f64::NEG_INFINITY)
}

/// `test` where neither operand is NaN, false elsewhere.
#[track_caller]
fn unless_nan(test: GraphTensor, [a, b]: [GraphTensor; 2], right: Term) -> GraphTensor {
    let dtype = a.dtype();
    let mut test = test;
    if !is_never_nan(Term::Tensor(a), dtype) {
        test = test & is_number(a);
    }
    if !is_never_nan(right, dtype) {
        test = test & is_number(b);
    }
    test
}

impl<S: Shape> GraphTensor<S> {
    /// Whether `self < other`, element by element.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let y = x.lt(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn lt(self, other: impl Operand<S>) -> GraphTensor<S> {
        let [a, b] = pair("lt", self.dynamic(), other.term());
        less(a, b).retag()
    }

    /// Whether `self > other`, element by element.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let y = x.gt(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn gt(self, other: impl Operand<S>) -> GraphTensor<S> {
        let [a, b] = pair("gt", self.dynamic(), other.term());
        less(b, a).retag()
    }

    /// Whether `self <= other`, element by element.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let y = x.le(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn le(self, other: impl Operand<S>) -> GraphTensor<S> {
        let other = other.term();
        let [a, b] = pair("le", self.dynamic(), other);
        unless_nan(!less(b, a), [a, b], other).retag()
    }

    /// Whether `self >= other`, element by element.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let y = x.ge(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 1.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn ge(self, other: impl Operand<S>) -> GraphTensor<S> {
        let other = other.term();
        let [a, b] = pair("ge", self.dynamic(), other);
        unless_nan(!less(a, b), [a, b], other).retag()
    }

    /// Whether `self == other`, element by element.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, f32::NAN]);
    /// let y = (x.eq(2.0), x.eq(x));
    /// let y = (y.0.retrieve(), y.1.retrieve());
    /// cx.execute();
    /// assert_eq!(y.0.data(), [0.0, 1.0, 0.0]);
    /// assert_eq!(y.1.data(), [1.0, 1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn eq(self, other: impl Operand<S>) -> GraphTensor<S> {
        let other = other.term();
        let [a, b] = pair("eq", self.dynamic(), other);
        let neither = !(less(a, b) | less(b, a));
        unless_nan(neither, [a, b], other).retag()
    }

    /// Whether `self != other`, element by element; true where one of them is NaN.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, f32::NAN]);
    /// let y = x.ne(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn ne(self, other: impl Operand<S>) -> GraphTensor<S> {
        !self.eq(other)
    }

    /// Whether an element is NaN.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, f32::NAN]);
    /// let y = x.isnan().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn isnan(self) -> GraphTensor<S> {
        if self.dtype().is_float() {
            return (!is_number(self.dynamic())).retag();
        }
        let never = GraphTensor::scalar(self.graph, DType::Bool, 0.0);
        never.broadcast_to("isnan", &self.dims()).retag()
    }

    /// Whether an element is infinite.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, f32::NAN, f32::NEG_INFINITY]);
    /// let y = x.isinf().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn isinf(self) -> GraphTensor<S> {
        !(self.isfinite() | self.isnan())
    }

    /// Whether an element is neither infinite nor NaN.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, f32::NAN, f32::NEG_INFINITY]);
    /// let y = x.isfinite().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn isfinite(self) -> GraphTensor<S> {
        if self.dtype().is_float() {
            return self.lt(f64::INFINITY) & self.gt(f64::NEG_INFINITY);
        }
        !self.isnan()
    }

    /// The larger of two elements; NaN if one of them is.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 3.0, f32::NAN]);
    /// let y = x.maximum(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data()[..2], [2.0, 3.0]);
    /// assert!(y.data()[2].is_nan());
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn maximum(self, other: impl Operand<S>) -> GraphTensor<S> {
        let other = other.term();
        let [a, b] = pair("maximum", self.dynamic(), other);
        choose(less(a, b), [a, b], other).retag()
    }

    /// The smaller of two elements; NaN if one of them is.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 3.0]);
    /// let y = x.minimum(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn minimum(self, other: impl Operand<S>) -> GraphTensor<S> {
        let other = other.term();
        let [a, b] = pair("minimum", self.dynamic(), other);
        choose(less(b, a), [a, b], other).retag()
    }

    /// `minimum(maximum(x, low), high)`: NaN stays NaN, and where the bounds cross the upper one holds.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([-5.0, 0.5, 5.0]);
    /// let y = x.clamp(-1.0, 2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-1.0, 0.5, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn clamp(self, low: impl Operand<S>, high: impl Operand<S>) -> GraphTensor<S> {
        self.maximum(low).minimum(high)
    }

    /// Of booleans: where `self` holds `a`, elsewhere `b`. What is not chosen has no influence, not even a NaN. Two
    /// numbers give an `f32` tensor.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([-1.0, 0.0, 4.0]);
    /// let y = x.lt(0.0).where_(0.0, x.sqrt()).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If `self` does not hold booleans, or the shapes or formats do not fit.
    #[track_caller]
    pub fn where_(self, a: impl Operand<S>, b: impl Operand<S>) -> GraphTensor<S> {
        let condition = self.dynamic();
        boolean("where", condition);
        let (a, b) = (a.term(), b.term());
        let dtype = match (a, b) {
            (Term::Tensor(x), _) | (_, Term::Tensor(x)) => x.dtype(),
            _ => DType::F32,
        };
        let a = a.tensor(self.graph, dtype, "where");
        let b = b.tensor(self.graph, dtype, "where");
        if a.dtype() != b.dtype() {
            let (a, b) = (a.ty(), b.ty());
            let what = format!("choices of different formats, {a} and {b}; use `.cast(..)` on one");
            fail("where", what);
        }
        let [condition, a, b] = broadcast("where", [condition, a, b]);
        select(condition, a, b).retag()
    }

    /// This tensor with `value` where `mask` holds.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let y = x.masked_fill(x.gt(1.0), f32::NEG_INFINITY).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    /// ```
    ///
    /// # Panics
    /// If `mask` does not hold booleans, or the shapes or formats do not fit.
    #[track_caller]
    pub fn masked_fill(self, mask: GraphTensor<S>, value: impl Operand<S>) -> GraphTensor<S> {
        mask.where_(value, self)
    }

    /// Whether an element is not 0; NaN is not 0.
    #[track_caller]
    pub(crate) fn nonzero_mask(self) -> GraphTensor<S> {
        if self.dtype() == DType::Bool {
            return self;
        }
        self.ne(0.0)
    }

    /// The larger of two elements; where one is NaN the other.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 3.0, f32::NAN]);
    /// let y = x.fmax(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 3.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn fmax(self, other: impl Operand<S>) -> GraphTensor<S> {
        let [a, b] = pair("fmax", self.dynamic(), other.term());
        // False where b is NaN, so a stays.
        let chosen = select(less(a, b), b, a);
        a.isnan().where_(b, chosen).retag()
    }

    /// The smaller of two elements; where one is NaN the other.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 3.0, f32::NAN]);
    /// let y = x.fmin(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn fmin(self, other: impl Operand<S>) -> GraphTensor<S> {
        let [a, b] = pair("fmin", self.dynamic(), other.term());
        let chosen = select(less(b, a), b, a);
        a.isnan().where_(b, chosen).retag()
    }

    /// This tensor with `nan` for NaN, `posinf` for infinity and `neginf` for minus infinity.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, f32::NAN, f32::INFINITY]);
    /// let y = x.nan_to_num(0.0, 9.0, -9.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, 9.0]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn nan_to_num(self, nan: f64, posinf: f64, neginf: f64) -> GraphTensor<S> {
        let x = self.masked_fill(self.isnan(), nan);
        let x = x.masked_fill(self.ge(f64::INFINITY), posinf);
        x.masked_fill(self.le(f64::NEG_INFINITY), neginf)
    }
}

/// `b` where `take_b` holds or `b` is NaN, else `a`; with `take_b` false where either is NaN, a NaN in `a` stays too.
#[track_caller]
fn choose(take_b: GraphTensor, [a, b]: [GraphTensor; 2], right: Term) -> GraphTensor {
    let chosen = select(take_b, b, a);
    if is_never_nan(right, a.dtype()) {
        return chosen;
    }
    select(is_number(b), chosen, b)
}
