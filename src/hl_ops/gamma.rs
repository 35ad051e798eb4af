//! The logarithm of the gamma function and its derivative.
//!
//! Computed in `F64`: Stirling's series 8 to the right of x, taken back by `gamma(x + 1) = x gamma(x)`, and for x below
//! one half the reflections `gamma(x) gamma(1 - x) = π / sin(πx)` and `digamma(1 - x) - digamma(x) = π / tan(πx)`.

use std::f64::consts;

use crate::graph::{GraphTensor, Shape};

/// How far to the right the series is evaluated.
const SHIFT: i32 = 8;
/// From here on the series needs no shift.
const FAR: f64 = 100.0;

/// `x` moved to where the series holds, and the numbers `x, x + 1, ..` that lie between (1 where nothing was moved).
#[track_caller]
fn moved(x: GraphTensor) -> (GraphTensor, Vec<GraphTensor>) {
    let far = x.gt(FAR);
    let mut between = Vec::new();
    for k in 0..SHIFT {
        between.push(far.where_(1.0, x + k));
    }
    (far.where_(x, x + SHIFT), between)
}

/// For x of at least one half.
#[track_caller]
fn log_gamma(x: GraphTensor) -> GraphTensor {
    let (y, between) = moved(x);
    let r = y.recip();
    let r2 = r * r;
    let tail = r * (((r2 * (-1.0 / 1680.0) + 1.0 / 1260.0) * r2 - 1.0 / 360.0) * r2 + 1.0 / 12.0);
    let half_log_tau = 0.5 * consts::TAU.ln();
    let stirling = (y - 0.5) * y.log() - y + half_log_tau + tail;
    let mut product = between[0];
    for factor in &between[1..] {
        product *= *factor;
    }
    stirling - product.log()
}

/// For x of at least one half.
#[track_caller]
fn digamma(x: GraphTensor) -> GraphTensor {
    let (y, between) = moved(x);
    let far = x.gt(FAR);
    let r = y.recip();
    let r2 = r * r;
    let tail = ((r2 * (1.0 / 252.0) - 1.0 / 120.0) * r2 + 1.0 / 12.0) * r2;
    let series = y.log() - r * 0.5 - tail;
    let mut sum = between[0].recip();
    for term in &between[1..] {
        sum += term.recip();
    }
    far.where_(series, series - sum)
}

impl<S: Shape> GraphTensor<S> {
    /// The logarithm of the size of the gamma function; infinite at 0 and the negative whole numbers.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 5.0, -1.0]);
    /// let y = x.lgamma().retrieve();
    /// cx.execute();
    /// assert!(y.data()[0].abs() < 1e-6);
    /// assert!((y.data()[1] - 24f32.ln()).abs() < 1e-6);
    /// assert_eq!(y.data()[2], f32::INFINITY);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn lgamma(self) -> GraphTensor<S> {
        let x = self.double("lgamma");
        let left = x.lt(0.5);
        let right = log_gamma(left.where_(1.0 - x, x));
        let turn = left.where_(x, 0.5) % 1.0;
        let reflected = ((turn * consts::PI).sin().abs().recip() * consts::PI).log() - right;
        let y = left.where_(reflected, right);
        y.masked_fill(x.isinf(), f64::INFINITY).narrowed(self)
    }

    /// The derivative of [`GraphTensor::lgamma`]; NaN at the negative whole numbers.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<1>>().set([1.0]);
    /// let y = x.digamma().retrieve();
    /// cx.execute();
    /// assert!((y.data()[0] + 0.577_215_7).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn digamma(self) -> GraphTensor<S> {
        let x = self.double("digamma");
        let left = x.lt(0.5);
        let right = digamma(left.where_(1.0 - x, x));
        let turn = left.where_(x, 0.5) % 1.0;
        let angle = turn * consts::PI;
        let y = left.where_(right - angle.cos() / angle.sin() * consts::PI, right);
        let pole = x.lt(0.0) & turn.eq(0.0);
        y.masked_fill(pole, f64::NAN).narrowed(self)
    }
}
