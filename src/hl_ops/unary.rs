//! Functions of one element.
//!
//! Functions made of several primitive ops compute `F16` and `BF16` in `F32` and round once at the end.
//! - `exp(x) = exp2(x * log2 e)`, `log(x) = log2(x) * ln 2`: back ends recognize the first.

use std::f64::consts;

use super::binary::numeric;
use super::operand::fail;
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};
use crate::op::{KnownGradient, Op, UnaryOp};

/// # Panics
/// At the caller's line, for integers and booleans.
#[track_caller]
pub(crate) fn floating(op: &str, x: GraphTensor) {
    if !x.dtype().is_float() {
        fail(
            op,
            format!(
                "needs a floating-point operand, not {}; use `.cast(DType::F32)` first",
                x.ty()
            ),
        );
    }
}

#[track_caller]
fn unary(name: &str, op: UnaryOp, x: GraphTensor) -> GraphTensor {
    floating(name, x);
    GraphTensor::record(Op::Unary(op), &[x])
}

impl<S: Shape> GraphTensor<S> {
    /// This tensor as `F32` if its format is a 16-bit one, else as it is: the start of a function of several steps,
    /// which [`GraphTensor::narrowed`] ends.
    #[track_caller]
    pub(crate) fn wide(self, op: &str) -> GraphTensor {
        let x = self.dynamic();
        floating(op, x);
        match x.dtype() {
            DType::F16 | DType::BF16 => x.cast(DType::F32),
            _ => x,
        }
    }

    /// This tensor as `F64`, for a function that `F32` is too coarse for.
    #[track_caller]
    pub(crate) fn double(self, op: &str) -> GraphTensor {
        floating(op, self.dynamic());
        self.dynamic().cast(DType::F64)
    }
}

impl GraphTensor {
    /// The result of a function of `x` in x's format and with its static shape, which the caller vouches for.
    #[track_caller]
    pub(crate) fn narrowed<S: Shape>(self, x: GraphTensor<S>) -> GraphTensor<S> {
        self.cast(x.dtype()).retag()
    }
}

impl<S: Shape> GraphTensor<S> {
    /// The square root; NaN below 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([4.0, 9.0]);
    /// let y = x.sqrt().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn sqrt(self) -> GraphTensor<S> {
        unary("sqrt", UnaryOp::Sqrt, self.dynamic()).retag()
    }

    /// `1 / x`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([4.0, -2.0]);
    /// let y = x.recip().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.25, -0.5]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn recip(self) -> GraphTensor<S> {
        unary("recip", UnaryOp::Recip, self.dynamic()).retag()
    }

    /// 2 to the power of x.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([3.0, -1.0]);
    /// let y = x.exp2().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [8.0, 0.5]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn exp2(self) -> GraphTensor<S> {
        unary("exp2", UnaryOp::Exp2, self.dynamic()).retag()
    }

    /// The logarithm to base 2; -inf at 0, NaN below.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([8.0, 0.5]);
    /// let y = x.log2().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [3.0, -1.0]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn log2(self) -> GraphTensor<S> {
        unary("log2", UnaryOp::Log2, self.dynamic()).retag()
    }

    /// The sine of x in radians.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, std::f32::consts::FRAC_PI_2]);
    /// let y = x.sin().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 1.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn sin(self) -> GraphTensor<S> {
        unary("sin", UnaryOp::Sin, self.dynamic()).retag()
    }

    /// `x * x`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([4.0, -2.0]);
    /// let y = x.square().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [16.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn square(self) -> GraphTensor<S> {
        self * self
    }

    /// The value without its sign.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([4.0, -2.0]);
    /// let y = x.abs().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [4.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn abs(self) -> GraphTensor<S> {
        let x = self.dynamic();
        numeric("abs", x);
        if x.dtype() == DType::I32 {
            return x.lt(0).where_(-x, x).retag();
        }
        // `0 - x` has no -0.0, which has to become 0.0 too.
        x.gt(0.0).where_(x, 0.0 - x).retag()
    }

    /// 1, 0 or -1 as x is above, at or below 0; 0 for NaN. No gradient flows through it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([4.0, 0.0, -2.0]);
    /// let y = x.sign().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, -1.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn sign(self) -> GraphTensor<S> {
        let x = self.dynamic().detach();
        numeric("sign", x);
        let below = x.lt(0.0).where_(x.filled("sign", -1.0), 0.0);
        x.gt(0.0).where_(x.filled("sign", 1.0), below).retag()
    }

    /// `1 / sqrt(x)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([4.0, 16.0]);
    /// let y = x.rsqrt().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.5, 0.25]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn rsqrt(self) -> GraphTensor<S> {
        self.sqrt().recip()
    }

    /// e to the power of x.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.exp().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    /// assert!(y.data().iter().zip(&[1.0, std::f32::consts::E]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn exp(self) -> GraphTensor<S> {
        let x = self.wide("exp");
        (x * consts::LOG2_E).exp2().narrowed(self)
    }

    /// The natural logarithm; -inf at 0, NaN below.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, std::f32::consts::E]);
    /// let y = x.log().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 1.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn log(self) -> GraphTensor<S> {
        let x = self.wide("log");
        (x.log2() * consts::LN_2).narrowed(self)
    }

    /// The logarithm to base 10; -inf at 0, NaN below.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 1000.0]);
    /// let y = x.log10().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    /// assert!(y.data().iter().zip(&[0.0, 3.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn log10(self) -> GraphTensor<S> {
        let x = self.wide("log10");
        (x.log2() * consts::LOG10_2).narrowed(self)
    }

    /// The cosine of x in radians: `1 - 2 sin²(x / 2)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, std::f32::consts::PI]);
    /// let y = x.cos().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
    /// assert!(y.data().iter().zip(&[1.0, -1.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn cos(self) -> GraphTensor<S> {
        let x = self.wide("cos");
        (1.0 - (x * 0.5).sin().square() * 2.0).narrowed(self)
    }

    /// The same numbers in another format: to floats rounds to nearest even, to `I32` cuts towards zero and saturates
    /// (NaN is 0), to `Bool` is `x != 0`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.7, -1.7, 0.0]);
    /// let (i, b) = (x.cast(DType::I32).retrieve(), x.cast(DType::Bool).retrieve());
    /// cx.execute();
    /// assert_eq!(i.array().to_i32(), [1, -1, 0]);
    /// assert_eq!(b.data(), [1.0, 1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn cast(self, dtype: DType) -> GraphTensor<S> {
        if self.dtype() == dtype {
            return self;
        }
        GraphTensor::record(Op::Cast(dtype), &[self.dynamic()]).retag()
    }

    /// The same numbers, through which no gradient flows.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.detach().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn detach(self) -> GraphTensor<S> {
        GraphTensor::record(Op::Detach, &[self.dynamic()]).retag()
    }

    /// The numbers of `value`, through which gradients flow to `self` as if it were that (a straight-through estimator,
    /// Bengio et al. 2013): for functions whose own gradient is zero almost everywhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([0.4, 1.6, -2.2]);
    /// let y = x.straight_through(x.round()).retrieve();
    /// let dx = cx.compile(Autograd::new(x, y * y), ())[0].retrieve(); // 2 round(x)
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 2.0, -2.0]);
    /// assert_eq!(dx.data(), [0.0, 4.0, -4.0]);
    /// ```
    ///
    /// # Panics
    /// If shapes or formats differ.
    #[track_caller]
    pub fn straight_through(self, value: GraphTensor<S>) -> GraphTensor<S> {
        let operands = [value.dynamic(), self.dynamic()];
        GraphTensor::record(Op::StraightThrough, &operands).retag()
    }

    /// The numbers of `value`, a function of `self` whose gradient is known.
    #[track_caller]
    pub(crate) fn with_gradient(self, value: GraphTensor<S>, of: KnownGradient) -> GraphTensor<S> {
        let operands = [value.dynamic(), self.dynamic()];
        GraphTensor::record(Op::KnownGradient(of), &operands).retag()
    }

    /// [`straight_through`](Self::straight_through), but no gradient flows where `self` is outside `-limit..=limit`
    /// (Hubara et al. 2016, section 1.3: "saturated").
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([0.4, 1.6, -2.2]);
    /// let y = x.straight_through_clipped(x.sign(), 1.0).retrieve();
    /// let dx = cx.compile(Autograd::new(x, y), ())[0].retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 1.0, -1.0]);
    /// assert_eq!(dx.data(), [1.0, 0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If shapes or formats differ.
    #[track_caller]
    pub fn straight_through_clipped(self, value: GraphTensor<S>, limit: f64) -> GraphTensor<S> {
        let x = self.dynamic();
        let passed = x.abs().le(limit).where_(x, x.detach());
        passed.straight_through(value.dynamic()).retag()
    }

    /// The same numbers written out in row-major order. Never needed for correct results.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.contiguous().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn contiguous(self) -> GraphTensor<S> {
        GraphTensor::record(Op::Contiguous, &[self.dynamic()]).retag()
    }
}
