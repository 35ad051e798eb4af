//! Circular and hyperbolic functions beside the primitive `sin`, and their inverses.
//!
//! All but `sech` are computed in `F64` and rounded once: they are rare, and most lose digits somewhere in `F32` (`tan`
//! beside its poles, the inverses at the ends of their range).

use std::f64::consts;

use super::binary::pair;
use super::operand::Operand;
use super::transcendental::{Ratio, expm1, log1p};
use crate::graph::{GraphTensor, Shape};

/// atan on |x| <= 1, to 4e-15.
const ATAN: Ratio = Ratio {
    p: &[
        9.999_999_999_999_97e-1,
        2.047_462_580_925_613,
        1.407_660_745_252_286_5,
        3.729_926_328_900_514_7e-1,
        3.188_361_046_999_466e-2,
        3.874_350_374_850_257_4e-4,
    ],
    q: &[
        1.0,
        2.380_795_914_257_881_4,
        2.001_259_383_397_697_7,
        7.067_770_527_344_965e-1,
        9.622_669_030_809_851e-2,
        3.377_896_244_112_635e-3,
    ],
};

#[track_caller]
fn atan(x: GraphTensor) -> GraphTensor {
    let (above, below) = (x.gt(1.0), x.lt(-1.0));
    let steep = above | below;
    let flat = steep.where_(steep.where_(x, 1.0).recip(), x);
    let y = ATAN.at(flat);
    let y = above.where_(consts::FRAC_PI_2 - y, y);
    below.where_(-consts::FRAC_PI_2 - y, y)
}

/// The quotient's angle, turned by half a circle on the left. Two zeros or two infinities are taken as a quotient of 0
/// and 1.
#[track_caller]
fn atan2(y: GraphTensor, x: GraphTensor) -> GraphTensor {
    let both_zero = y.eq(0.0) & x.eq(0.0);
    let both_infinite = y.isinf() & x.isinf();
    let quotient = y / both_zero.where_(1.0, x);
    let corner = with_sign(with_sign(x.filled("atan2", 1.0), x), y);
    let angle = atan(both_infinite.where_(corner, quotient));
    let left = x.lt(0.0) | x.recip().lt(0.0);
    let below = y.lt(0.0) | y.recip().lt(0.0);
    let half = below.where_(-consts::PI, x.filled("atan2", consts::PI));
    left.where_(angle + half, angle)
}

/// The sign of `of` (NaN counts as positive) given to the positive `size`.
#[track_caller]
fn with_sign(size: GraphTensor, of: GraphTensor) -> GraphTensor {
    of.lt(0.0).where_(-size, size)
}

impl<S: Shape> GraphTensor<S> {
    /// The tangent of x in radians.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.tan().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[0.0, 1.5574077246549023]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn tan(self) -> GraphTensor<S> {
        let x = self.double("tan");
        (x.sin() / x.cos()).narrowed(self)
    }

    /// The angle in -π/2 .. π/2 with this sine; NaN outside -1 .. 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.5, -1.0]);
    /// let y = x.asin().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[0.5235987755982989, -1.5707963267948966]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn asin(self) -> GraphTensor<S> {
        let x = self.double("asin");
        atan(x / (1.0 - x * x).sqrt()).narrowed(self)
    }

    /// The angle in 0 .. π with this cosine; NaN outside -1 .. 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.5, 1.0]);
    /// let y = x.acos().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1.0471975511965979, 0.0]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn acos(self) -> GraphTensor<S> {
        let x = self.double("acos");
        (consts::FRAC_PI_2 - atan(x / (1.0 - x * x).sqrt())).narrowed(self)
    }

    /// The angle in -π/2 .. π/2 with this tangent.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, -5.0]);
    /// let y = x.atan().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[0.7853981633974483, -1.373400766945016]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn atan(self) -> GraphTensor<S> {
        let x = self.double("atan");
        atan(x).narrowed(self)
    }

    /// The hyperbolic sine.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1e-08, 1.0]);
    /// let y = x.sinh().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1e-08, 1.1752011936438014]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn sinh(self) -> GraphTensor<S> {
        let x = self.double("sinh");
        let u = expm1(x.abs());
        with_sign((u + u / (u + 1.0)) * 0.5, x).narrowed(self)
    }

    /// The hyperbolic cosine.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.cosh().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1.0, 1.5430806348152437]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn cosh(self) -> GraphTensor<S> {
        let x = self.double("cosh");
        ((x.exp() + (-x).exp()) * 0.5).narrowed(self)
    }

    /// `1 / cosh(x)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1.0]);
    /// let y = x.sech().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1.0, 0.6480542736638855]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn sech(self) -> GraphTensor<S> {
        let x = self.wide("sech");
        let e = x.lt(0.0).where_(x, -x).exp();
        (e * 2.0 / (e * e + 1.0)).narrowed(self)
    }

    /// The inverse of `sinh`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1e-08, 1.0]);
    /// let y = x.asinh().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1e-08, 0.881373587019543]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn asinh(self) -> GraphTensor<S> {
        let x = self.double("asinh");
        let size = x.abs();
        let square = x * x;
        with_sign(log1p(size + square / ((square + 1.0).sqrt() + 1.0)), x).narrowed(self)
    }

    /// The inverse of `cosh`; NaN below 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.acosh().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[0.0, 1.3169578969248166]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn acosh(self) -> GraphTensor<S> {
        let x = self.double("acosh");
        (x + (x * x - 1.0).sqrt()).log().narrowed(self)
    }

    /// The inverse of `tanh`; NaN outside -1 .. 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1e-08, 0.5]);
    /// let y = x.atanh().retrieve();
    /// cx.execute();
    /// let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-6 * b.abs();
    /// assert!(y.data().iter().zip(&[1e-08, 0.5493061443340548]).all(close));
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn atanh(self) -> GraphTensor<S> {
        let x = self.double("atanh");
        ((log1p(x) - log1p(-x)) * 0.5).narrowed(self)
    }

    /// The angle in -π .. π of the point at `(x, self)`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.tensor::<R1<2>>().set([1.0, 0.0]);
    /// let x = cx.tensor::<R1<2>>().set([-1.0, -2.0]);
    /// let angle = y.atan2(x).retrieve();
    /// cx.execute();
    /// let pi = std::f32::consts::PI;
    /// assert_eq!(angle.data(), [0.75 * pi, pi]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one, or the operands' shapes or formats do not fit.
    #[track_caller]
    pub fn atan2(self, x: impl Operand<S>) -> GraphTensor<S> {
        let [y, x] = pair("atan2", self.dynamic(), x.term());
        atan2(y.double("atan2"), x.double("atan2")).narrowed(self)
    }
}
