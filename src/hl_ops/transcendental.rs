//! The functions that models use at every step and that need more than one primitive op: near-zero forms of `exp` and
//! `log`, `tanh`, `sigmoid` and the error function. (`erfc` and `logit` stand beside their relatives.)
//!
//! They are computed in the tensor's own format (16-bit ones in `F32`), accurate to a few units in the last place, near
//! 0 too.
//!
//! The coefficients below minimize the largest relative error of `x P(x²) / Q(x²)`; they are this project's own fits.

use std::f64::consts;

use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};
use crate::op::KnownGradient;

/// tanh on |x| <= 9.02, to 2e-8.
const TANH: Ratio = Ratio {
    p: &[
        9.999_999_791_114_775e-1,
        1.337_974_578_963_093_7e-1,
        3.494_065_905_555_538_7e-3,
        2.058_393_005_493_692e-5,
        1.331_957_272_264_554_2e-8,
    ],
    q: &[
        1.0,
        4.671_306_109_701_369e-1,
        2.587_119_691_583_110_8e-2,
        3.283_141_174_677_875e-4,
        7.762_249_771_452_809e-7,
    ],
};
/// The first number at which the ratio, rounded operation by operation in `F32`, is exactly 1. Before it the ratio is
/// nowhere above 1, and from here on 1 is no further from tanh than the ratio is elsewhere: so limiting `x` is enough.
const TANH_END: f64 = 7.845_142_36;

/// erf on |x| <= 3.92, to 2e-8.
const ERF: Ratio = Ratio {
    p: &[
        1.128_379_146_279_328_2,
        1.903_999_464_603_183_5e-1,
        5.274_765_677_352_435e-2,
        3.765_276_016_557_677e-3,
        2.848_646_653_595_883e-4,
        2.050_004_257_183_143_7e-6,
    ],
    q: &[
        1.0,
        5.020_703_032_230_39e-1,
        1.141_062_291_737_153_1e-1,
        1.496_854_966_717_068e-2,
        1.162_433_019_864_662e-3,
        3.808_990_408_589_995_6e-5,
    ],
};
/// From here on erf is 1 in `F32`.
const ERF_IS_ONE: f64 = 3.92;

/// An odd function as `x P(x²) / Q(x²)`, lowest coefficients first.
pub(crate) struct Ratio {
    pub(crate) p: &'static [f64],
    pub(crate) q: &'static [f64],
}

impl Ratio {
    #[track_caller]
    pub(crate) fn at(&self, x: GraphTensor) -> GraphTensor {
        let square = x * x;
        x * polynomial(square, self.p) / polynomial(square, self.q)
    }

    /// The ratio below `end`, 1 from there on, -1 on the other side. Never outside -1 .. 1.
    #[track_caller]
    fn saturating_at(&self, x: GraphTensor, end: f64) -> GraphTensor {
        let (above, below) = (x.gt(end), x.lt(-end));
        let inside = below.where_(-end, above.where_(end, x));
        let y = self.at(inside).clamp(-1.0, 1.0);
        below.where_(-1.0, above.where_(1.0, y))
    }
}

/// `c[0] + c[1] x + c[2] x² ..`.
#[track_caller]
fn polynomial(x: GraphTensor, c: &[f64]) -> GraphTensor {
    let (&last, rest) = c.split_last().expect("a polynomial has coefficients");
    let last = x.filled("polynomial", last);
    let mut sum = last;
    for &c in rest.iter().rev() {
        sum = sum * x + c;
    }
    sum
}

/// With `u = 1 + x` rounded and `e` what the rounding lost, `log(1 + x) = log(u + e) = log(u) + e / u`, whose gradient is
/// that of the first term.
#[track_caller]
pub(crate) fn log1p(x: GraphTensor) -> GraphTensor {
    let u = x + 1.0;
    let lost = (x - (u - 1.0)) / u;
    let regular = x.gt(-1.0) & x.lt(f64::INFINITY);
    let lost = regular.where_(lost, 0.0);
    u.log() + lost.detach()
}

/// The Taylor series where `exp(x) - 1` would lose digits.
#[track_caller]
pub(crate) fn expm1(x: GraphTensor) -> GraphTensor {
    let n_terms = if x.dtype() == DType::F64 { 15 } else { 9 };
    let mut factorial = 1.0;
    let terms = (1..=n_terms).map(|n| {
        factorial *= f64::from(n);
        1.0 / factorial
    });
    let terms: Vec<f64> = terms.collect();
    let small = x.lt(0.5) & x.gt(-0.5);
    let near = small.where_(x, 0.0);
    let series = near * polynomial(near, &terms);
    small.where_(series, x.exp() - 1.0)
}

#[track_caller]
fn tanh(x: GraphTensor) -> GraphTensor {
    if x.dtype() != DType::F64 {
        return TANH.at(x.clamp(-TANH_END, TANH_END));
    }
    let size = x.lt(0.0).where_(x, -x);
    let e = expm1(size * 2.0);
    let y = e / (e + 2.0);
    x.lt(0.0).where_(y, -y)
}

/// In `F64` the series `2 x exp(-x²) / sqrt(pi) (1 + 2x²/3 + (2x²)²/(3·5) + ..)`, whose terms are all positive.
#[track_caller]
fn erf(x: GraphTensor) -> GraphTensor {
    if x.dtype() != DType::F64 {
        return ERF.saturating_at(x, ERF_IS_ONE);
    }
    let end = 6.0;
    let inside = x.clamp(-end, end);
    let square = inside * inside;
    // Horner's scheme from the last term that matters at |x| = 6.
    let mut sum = x.filled("erf", 1.0);
    for n in (1..=140).rev() {
        sum = sum * square * (2.0 / f64::from(2 * n + 1)) + 1.0;
    }
    inside * sum * (-square).exp() * consts::FRAC_2_SQRT_PI
}

impl<S: Shape> GraphTensor<S> {
    /// `log(1 + x)`, accurate near 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1e-08, 1.0]);
    /// let y = x.log1p().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1e-08, 0.6931471805599453]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn log1p(self) -> GraphTensor<S> {
        log1p(self.wide("log1p")).narrowed(self)
    }

    /// `exp(x) - 1`, accurate near 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1e-08, 1.0]);
    /// let y = x.expm1().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1e-08, 1.718281828459045]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn expm1(self) -> GraphTensor<S> {
        expm1(self.wide("expm1")).narrowed(self)
    }

    /// `1 / (1 + exp(-x))`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 2.0]);
    /// let y = x.sigmoid().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[0.5, 0.8807970779778823]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn sigmoid(self) -> GraphTensor<S> {
        let x = self.wide("sigmoid");
        // Where the exponential would be infinite, the result is 0.
        let limit = if x.dtype() == DType::F64 {
            709.7
        } else {
            88.72
        };
        let y = ((-x).minimum(limit).exp() + 1.0).recip();
        let y = x.lt(-limit).where_(x.full_like(0.0), y);
        x.with_gradient(y, KnownGradient::Sigmoid).narrowed(self)
    }

    /// The hyperbolic tangent; exactly -1 and 1 far from 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1e-08, 1.0, 50.0]);
    /// let y = x.tanh().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1e-08, 0.7615941559557649, 1.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn tanh(self) -> GraphTensor<S> {
        let x = self.wide("tanh");
        x.with_gradient(tanh(x), KnownGradient::Tanh).narrowed(self)
    }

    /// The error function, `2 / sqrt(pi)` times the integral of `exp(-t²)` from 0 to x.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1e-08, 1.0, 50.0]);
    /// let y = x.erf().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1.1283791671e-08, 0.8427007929497149, 1.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn erf(self) -> GraphTensor<S> {
        let x = self.wide("erf");
        x.with_gradient(erf(x), KnownGradient::Erf).narrowed(self)
    }

    /// `1 - erf(x)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.erfc().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1.0, 0.15729920705028513]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn erfc(self) -> GraphTensor<S> {
        let x = self.double("erfc");
        (1.0 - x.erf()).narrowed(self)
    }

    /// `log(x / (1 - x))`, the inverse of `sigmoid`; NaN outside 0 .. 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.5, 0.25]);
    /// let y = x.logit().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[0.0, -1.0986122886681098]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn logit(self) -> GraphTensor<S> {
        let x = self.double("logit");
        (x.log() - log1p(-x)).narrowed(self)
    }
}
