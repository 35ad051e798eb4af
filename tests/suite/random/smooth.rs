//! Steps of smooth functions on real numbers, with a bound of the rounding error that each adds.
//!
//! The bound is first-order: the operands' errors times the function's steepness, plus its own rounding. A value
//! whose error would pass [`MOST_ERROR`] is not made, so one tolerance holds for all.

use brain_blitz::prelude::*;
use brain_blitz::shape::numel;

use super::build::{Build, Value};

/// The largest error of a value in units of 2^-24: just below 1e-4, which both sides of a comparison share.
pub const MOST_ERROR: f64 = 800.0;
/// Values are scaled down beyond this.
const MOST: f64 = 4.0;

/// A step of arithmetic on some value; `None` if the drawn one does not fit.
pub fn step(build: &mut Build) -> Option<Value> {
    let a = build.any()?;
    match build.dice.below(8) {
        0..=2 => function(build, a),
        3 | 4 => binary(build, a),
        5 => mean(build, a),
        6 => rows(build, a),
        _ => product(build, a),
    }
}

fn smooth(t: GraphTensor, magnitude: f64, error: f64) -> Option<Value> {
    let (t, magnitude, error) = if magnitude > MOST {
        (t * (1.0 / magnitude), 1.0, error / magnitude + 1.0)
    } else {
        (t, magnitude, error)
    };
    (error <= MOST_ERROR).then_some(Value {
        t,
        magnitude,
        error,
    })
}

fn function(build: &mut Build, a: Value) -> Option<Value> {
    let (t, m, e) = (a.t, a.magnitude, a.error);
    match build.dice.below(11) {
        0 => smooth(t.sin(), 1.0, e + 2.0),
        1 => {
            let top = m.exp2();
            smooth(t.exp2(), top, top * (e * 0.7 + 2.0))
        }
        2 => {
            let top = m.exp();
            // The reference rounds x * log2(e) before the power: half a unit of an exponent of up to 1.5 * m.
            smooth(t.exp(), top, top * (e + 3.0 + 2.0 * m))
        }
        3 => smooth(
            (t.abs() + 0.5).log2(),
            (m + 0.5).log2().max(1.0),
            e * 2.9 + 3.0 * (m + 1.0),
        ),
        4 => smooth((t.abs() + 0.5).sqrt(), (m + 0.5).sqrt(), e * 0.71 + m + 1.0),
        5 => smooth((t.square() + 1.0).recip(), 1.0, e * 0.65 + 3.0),
        6 => smooth(t.tanh(), 1.0, e + 8.0),
        8 => smooth(t.sigmoid(), 1.0, e * 0.25 + 4.0 + m),
        9 => smooth(t.silu(), m, e * 1.1 + (5.0 + m) * m),
        7 => smooth(t * 0.75 - 0.5, m * 0.75 + 0.5, e + m + 1.0),
        _ => smooth(-t, m, e),
    }
}

fn binary(build: &mut Build, a: Value) -> Option<Value> {
    let b = build.partner(a);
    let (m, n) = (a.magnitude, b.magnitude);
    if build.dice.one_in(2) {
        return smooth(a.t + b.t, m + n, a.error + b.error + m + n);
    }
    smooth(a.t * b.t, m * n, a.error * n + b.error * m + m * n)
}

fn mean(build: &mut Build, a: Value) -> Option<Value> {
    let axis = build.dice.below(a.t.rank().max(1));
    let size = *a.t.dims().get(axis)?;
    let n = build.largest(size) as f64;
    if build.smallest(size) == 0 {
        return None;
    }
    let m = a.magnitude;
    smooth(a.t.sum(axis) * (1.0 / n), m, a.error + m * (n / 2.0 + 2.0))
}

/// Softmax or normalisation along the last axis.
fn rows(build: &mut Build, a: Value) -> Option<Value> {
    let size = *a.t.dims().last()?;
    let (n, m, e) = (build.largest(size) as f64, a.magnitude, a.error);
    if build.smallest(size) == 0 {
        return None;
    }
    if build.dice.one_in(2) {
        return smooth(a.t.softmax(-1), 1.0, 2.0 * (2.0 * e + 6.0 * m + 6.0) + n);
    }
    // The added constant bounds the steepness: an error grows by at most 2 / sqrt(0.25) times.
    let centred = a.t - a.t.sum_keepdim(-1) * (1.0 / n);
    let variance = centred.square().sum_keepdim(-1) * (1.0 / n);
    let t = centred * (variance + 0.25).sqrt().recip();
    smooth(t, n.sqrt().max(1.0), 8.0 * (e + m * n) + n)
}

fn product(build: &mut Build, a: Value) -> Option<Value> {
    let size = *a.t.dims().last()?;
    let fitting: Vec<Value> = build
        .pool
        .iter()
        .filter(|b| b.t.rank() == 2 && b.t.dims().contains(&size))
        .copied()
        .collect();
    if fitting.is_empty() {
        return None;
    }
    let b = build.dice.pick(&fitting);
    let y = if b.t.dims()[0] == size {
        b.t
    } else {
        b.t.transpose(0, 1)
    };
    let mut out = a.t.dims().to_vec();
    *out.last_mut()? = y.dims()[1];
    let n = build.largest(size) as f64;
    let all: Vec<Expr> = out.iter().copied().chain([size]).collect();
    if build.largest(numel(&all)) > 10 * build.max_elements || !build.fits(&out) {
        return None;
    }
    let (m, k) = (a.magnitude, b.magnitude);
    let scale = 1.0 / n.max(1.0);
    let error = a.error * k + b.error * m + m * k * (n / 2.0 + 2.0);
    smooth(a.t.matmul(y) * scale, m * k, error)
}
