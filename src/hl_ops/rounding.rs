//! Rounding to whole numbers, and the divisions that round.
//!
//! For 0 <= x < 2^23 the sum `x + 2^23` has no fraction left in `f32` (2^52 in `f64`): subtracting 2^23 again gives x
//! rounded half to even. Larger numbers are whole already. A result of zero may have either sign.

use super::binary::{numeric, pair};
use super::operand::Operand;
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};

/// `x` rounded half to even; `x` itself where it is whole, infinite or NaN.
#[track_caller]
fn round(x: GraphTensor) -> GraphTensor {
    let whole = if x.dtype() == DType::F64 {
        (1u64 << 52) as f64
    } else {
        f64::from(1 << 23)
    };
    let size = x.abs();
    let rounded = (size + whole) - whole;
    let signed = x.lt(0.0).where_(-rounded, rounded);
    size.lt(whole).where_(signed, x)
}

#[track_caller]
fn floor(x: GraphTensor) -> GraphTensor {
    let nearest = round(x);
    x.lt(nearest).where_(nearest - 1.0, nearest)
}

#[track_caller]
fn trunc(x: GraphTensor) -> GraphTensor {
    let down = floor(x.abs());
    x.lt(0.0).where_(-down, down)
}

/// The sign of `r` differs from that of `b`, and `r` is not 0.
#[track_caller]
fn opposite(r: GraphTensor, b: GraphTensor) -> GraphTensor {
    (r.lt(0.0) & b.gt(0.0)) | (r.gt(0.0) & b.lt(0.0))
}

/// What a rounding function starts from; `None` if the numbers are integers and stay as they are.
#[track_caller]
fn start<S: Shape>(x: GraphTensor<S>, op: &str) -> Option<GraphTensor> {
    numeric(op, x.dynamic());
    if x.dtype() == DType::I32 {
        return None;
    }
    Some(x.detach().wide(op))
}

impl<S: Shape> GraphTensor<S> {
    /// The largest whole number that is not above x. No gradient flows through it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.5, -1.5, 2.0]);
    /// let y = x.floor().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, -2.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn floor(self) -> GraphTensor<S> {
        match start(self, "floor") {
            Some(x) => floor(x).narrowed(self),
            None => self,
        }
    }

    /// The smallest whole number that is not below x. No gradient flows through it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.5, -1.5, 2.0]);
    /// let y = x.ceil().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, -1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn ceil(self) -> GraphTensor<S> {
        let Some(x) = start(self, "ceil") else {
            return self;
        };
        let nearest = round(x);
        nearest.lt(x).where_(nearest + 1.0, nearest).narrowed(self)
    }

    /// The nearest whole number, of two the even one. No gradient flows through it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.5, 2.5, -0.6]);
    /// let y = x.round().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 2.0, -1.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn round(self) -> GraphTensor<S> {
        match start(self, "round") {
            Some(x) => round(x).narrowed(self),
            None => self,
        }
    }

    /// x without its fraction. No gradient flows through it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.5, -1.5, 2.0]);
    /// let y = x.trunc().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, -1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn trunc(self) -> GraphTensor<S> {
        match start(self, "trunc") {
            Some(x) => trunc(x).narrowed(self),
            None => self,
        }
    }

    /// The remainder with the sign of the dividend, as `%` and C's `fmod`; an integer remainder by 0 is 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([7.0, -7.0]);
    /// let y = x.fmod(3.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, -1.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans, or if the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn fmod(self, other: impl Operand<S>) -> GraphTensor<S> {
        self % other
    }

    /// The remainder with the sign of the divisor, as in Python; an integer remainder by 0 is 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([7.0, -7.0]);
    /// let y = x.remainder(3.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans, or if the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn remainder(self, other: impl Operand<S>) -> GraphTensor<S> {
        numeric("remainder", self.dynamic());
        let [a, b] = pair("remainder", self.dynamic(), other.term());
        let r = a % b;
        opposite(r, b).where_(r + b, r).retag()
    }

    /// The quotient rounded down. Of integers it is exact (and of no meaning where the divisor is 0).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([7.0, -7.0]);
    /// let y = x.floor_divide(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [3.0, -4.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans, or if the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn floor_divide(self, other: impl Operand<S>) -> GraphTensor<S> {
        numeric("floor_divide", self.dynamic());
        let [a, b] = pair("floor_divide", self.dynamic(), other.term());
        let r = a % b;
        let quotient = whole_quotient(a, b, r);
        opposite(r, b).where_(quotient - 1, quotient).retag()
    }

    /// The quotient without its fraction. Of integers it is exact (and of no meaning where the divisor is 0).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([7.0, -7.0]);
    /// let y = x.trunc_divide(2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [3.0, -3.0]);
    /// ```
    ///
    /// # Panics
    /// For booleans, or if the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn trunc_divide(self, other: impl Operand<S>) -> GraphTensor<S> {
        numeric("trunc_divide", self.dynamic());
        let [a, b] = pair("trunc_divide", self.dynamic(), other.term());
        whole_quotient(a, b, a % b).retag()
    }

    /// x rounded to this many decimals (negative: to tens, hundreds ..), of two the one with an even last digit.
    /// No gradient flows through it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.25, 0.126]);
    /// let y = x.round_to(2).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.25, 0.13]);
    /// ```
    ///
    /// # Panics
    /// For booleans.
    #[track_caller]
    pub fn round_to(self, decimals: i32) -> GraphTensor<S> {
        let Some(x) = start(self, "round_to") else {
            return self;
        };
        let scale = 10f64.powi(decimals.abs());
        let y = if decimals > 0 {
            round(x * scale) / scale
        } else {
            round(x / scale) * scale
        };
        y.narrowed(self)
    }
}

/// `(a - r) / b`, of which it is known that it is whole: rounding removes what the reciprocal lost. Integers are
/// divided as `f64`, which holds their difference and quotient exactly.
#[track_caller]
fn whole_quotient(a: GraphTensor, b: GraphTensor, r: GraphTensor) -> GraphTensor {
    let dtype = a.dtype();
    if dtype != DType::I32 {
        let (a, b, r) = (a.detach(), b.detach(), r.detach());
        // Dividing by 0 leaves no remainder: the plain quotient is the answer.
        return b.eq(0.0).where_(a / b, ((a - r) / b).round());
    }
    let (a, b, r) = (a.cast(DType::F64), b.cast(DType::F64), r.cast(DType::F64));
    ((a - r) / b).round().cast(dtype)
}
