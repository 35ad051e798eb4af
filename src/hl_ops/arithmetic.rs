//! Functions of two elements beside the operators: powers, interpolation, and tests for closeness.
//!
//! A power with a small whole exponent is multiplications. Any other is `2^(y log2 |x|)` in `F64`: in `F32` the
//! product would lose the digits that a large exponent multiplies.

use super::binary::{numeric, pair};
use super::operand::{Operand, Term, broadcast};
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};

/// Largest whole exponent that is multiplied out.
const MULTIPLIED: f64 = 32.0;

/// `x` to the power of `n > 0` by squaring.
#[track_caller]
fn power(x: GraphTensor, mut n: u32) -> GraphTensor {
    let mut square = x;
    while n & 1 == 0 {
        square *= square;
        n >>= 1;
    }
    let mut result = square;
    while n > 1 {
        square *= square;
        n >>= 1;
        if n & 1 == 1 {
            result *= square;
        }
    }
    result
}

/// The power of two `F64` tensors, as C defines it at its edges.
#[track_caller]
fn general_power(x: GraphTensor, y: GraphTensor) -> GraphTensor {
    let size = x.abs();
    let (is_zero, is_one) = (size.eq(0.0), size.eq(1.0));
    // At 0 the logarithm is kept finite, so that gradients are.
    let powered = (y * is_zero.where_(1.0, size).log2()).exp2();
    let of_zero = y.lt(0.0).where_(f64::INFINITY, y);
    let of_zero = y.gt(0.0).where_(0.0, of_zero);
    let powered = is_zero.where_(of_zero, powered);

    // The reciprocal tells -0.0 from 0.0.
    let negative = x.lt(0.0) | x.recip().lt(0.0);
    let odd = (y % 2.0).abs().eq(1.0);
    let fraction = y.ne(y.round());
    let signed = (negative & odd).where_(-powered, powered);
    let undefined = x.lt(0.0) & x.gt(f64::NEG_INFINITY) & fraction;
    let signed = undefined.where_(f64::NAN, signed);
    let always_one = y.eq(0.0) | x.eq(1.0) | (is_one & y.isinf());
    always_one.where_(1.0, signed)
}

#[track_caller]
fn pow(x: GraphTensor, y: Term) -> GraphTensor {
    numeric("pow", x);
    let dtype = x.dtype();
    match y.number() {
        Some(0.0) => return x.filled("pow", 1.0),
        Some(0.5) if dtype.is_float() => return x.sqrt(),
        Some(-0.5) if dtype.is_float() => return x.rsqrt(),
        Some(n) if n.fract() == 0.0 && n.abs() <= MULTIPLIED => {
            if dtype == DType::I32 && n > 0.0 {
                return power(x, n as u32);
            }
            if n > 0.0 {
                return power(x.wide("pow"), n as u32).narrowed(x);
            }
            if dtype.is_float() {
                return power(x.wide("pow").recip(), -n as u32).narrowed(x);
            }
        }
        _ => {}
    }
    let [x, y] = pair("pow", x, y);
    let result = general_power(x.cast(DType::F64), y.cast(DType::F64));
    if dtype == DType::I32 {
        return result.round().cast(dtype);
    }
    result.cast(dtype)
}

impl<S: Shape> GraphTensor<S> {
    /// x to the power of the exponent, as C's `pow`: `pow(x, 0)` and `pow(1, y)` are 1 even for NaN, and a negative
    /// number has whole powers only, else NaN. The exponents 0.5 and -0.5 are `sqrt` and `rsqrt`. Integers are rounded (a negative power is 0, or 1 of 1).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([2.0, -3.0]);
    /// let (y, z) = (x.pow(3).retrieve(), x.pow(x).retrieve());
    /// cx.execute();
    /// assert_eq!(y.data(), [8.0, -27.0]);
    /// assert_eq!(z.data(), [4.0, -1.0 / 27.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans, or if the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn pow(self, exponent: impl Operand<S>) -> GraphTensor<S> {
        pow(self.dynamic(), exponent.term()).retag()
    }

    /// `self + weight * (end - self)`, exact at weights 0 and 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R1<2>>().set([0.0, 10.0]);
    /// let b = cx.tensor::<R1<2>>().set([4.0, 20.0]);
    /// let y = a.lerp(b, 0.25).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 12.5]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn lerp(self, end: impl Operand<S>, weight: impl Operand<S>) -> GraphTensor<S> {
        let (a, weight) = (self.dynamic(), weight.term());
        let [a, b] = pair("lerp", a, end.term());
        let [_, weight_tensor] = pair("lerp", a, weight);
        let [a, b, w] = broadcast("lerp", [a, b, weight_tensor]);
        let from_start = a + w * (b - a);
        let from_end = b - (b - a) * (1.0 - w);
        // Counted from the nearer end.
        let result = match weight.number() {
            Some(w) if w < 0.5 => from_start,
            Some(_) => from_end,
            None => w.lt(0.5).where_(from_start, from_end),
        };
        result.retag()
    }

    /// The length of the hypotenuse, `sqrt(x² + y²)`, without overflow on the way.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([3.0, 3e30]);
    /// let y = cx.tensor::<R1<2>>().set([4.0, 4e30]);
    /// let z = x.hypot(y).retrieve();
    /// cx.execute();
    /// assert_eq!(z.data(), [5.0, 5e30]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one, or the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn hypot(self, other: impl Operand<S>) -> GraphTensor<S> {
        let [x, y] = pair("hypot", self.dynamic(), other.term());
        let (x, y) = (x.double("hypot"), y.double("hypot"));
        (x * x + y * y).sqrt().narrowed(self)
    }

    /// `log(exp(x) + exp(y))` without overflow.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1000.0]);
    /// let y = x.logaddexp(x).retrieve();
    /// cx.execute();
    /// assert!((y.data()[0] - 2f32.ln()).abs() < 1e-6);
    /// assert!((y.data()[1] - 1000.6931).abs() < 1e-3);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one, or the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn logaddexp(self, other: impl Operand<S>) -> GraphTensor<S> {
        let [x, y] = pair("logaddexp", self.dynamic(), other.term());
        // Equal infinities have no difference. Equal numbers have one: both share the gradient.
        let gap = (x.eq(y) & x.isinf()).where_(0.0, x - y);
        let below = gap.gt(0.0).where_(-gap, gap);
        let larger = gap.gt(0.0).where_(x, y);
        (larger + below.exp().log1p()).retag()
    }

    /// Whether `|x - y| <= atol + rtol * |y|`, or both are the same infinity.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 1.000001, 1.1]);
    /// let y = x.isclose(1.0, 1e-5, 1e-8).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans, or if the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn isclose(self, other: impl Operand<S>, rtol: f64, atol: f64) -> GraphTensor<S> {
        numeric("isclose", self.dynamic());
        let [x, y] = pair("isclose", self.dynamic(), other.term());
        let same = x.eq(y);
        let (x, y) = (x.cast(DType::F64), y.cast(DType::F64));
        let near = (x - y).abs().le(y.abs() * rtol + atol);
        (same | (near & x.isfinite() & y.isfinite())).retag()
    }

    /// Whether both are not 0 (NaN is not 0), whatever their formats.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 2.0]);
    /// let y = x.logical_and(x.cast(DType::Bool)).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes do not fit.
    #[track_caller]
    pub fn logical_and(self, other: GraphTensor<S>) -> GraphTensor<S> {
        self.nonzero_mask() & other.nonzero_mask()
    }

    /// Whether one of both is not 0 (NaN is not 0), whatever their formats.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 2.0]);
    /// let y = x.logical_or(x.eq(0.0)).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes do not fit.
    #[track_caller]
    pub fn logical_or(self, other: GraphTensor<S>) -> GraphTensor<S> {
        self.nonzero_mask() | other.nonzero_mask()
    }

    /// Whether exactly one of both is not 0 (NaN is not 0), whatever their formats.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 2.0]);
    /// let y = x.logical_xor(x).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the operands' shapes do not fit.
    #[track_caller]
    pub fn logical_xor(self, other: GraphTensor<S>) -> GraphTensor<S> {
        self.nonzero_mask() ^ other.nonzero_mask()
    }

    /// Whether an element is 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 2.0]);
    /// let y = x.logical_not().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn logical_not(self) -> GraphTensor<S> {
        !self.nonzero_mask()
    }
    /// `x * log(y)`, and 0 where x is 0 (unless y is NaN).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 2.0]);
    /// let y = x.xlogy(1.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one, or the operands do not fit.
    #[track_caller]
    pub fn xlogy(self, other: impl Operand<S>) -> GraphTensor<S> {
        let [x, y] = pair("xlogy", self.dynamic(), other.term());
        let none = x.eq(0.0) & !y.isnan();
        none.where_(0.0, x * none.where_(1.0, y).log()).retag()
    }

    /// The size of x with the sign of y (a NaN counts as positive).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, -2.0, 3.0]);
    /// let y = x.copysign(-0.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-1.0, -2.0, -3.0]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one, or the operands do not fit.
    #[track_caller]
    pub fn copysign(self, other: impl Operand<S>) -> GraphTensor<S> {
        let [x, y] = pair("copysign", self.dynamic(), other.term());
        let size = x.abs();
        // The reciprocal tells -0.0 from 0.0.
        let negative = y.lt(0.0) | y.recip().lt(0.0);
        negative.where_(-size, size).retag()
    }
}
