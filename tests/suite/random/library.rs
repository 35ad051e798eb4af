//! Steps with the tensor methods that record many ops at once, on whole numbers.

use brain_blitz::prelude::*;
use brain_blitz::shape::numel;

use super::build::{Build, Value, exact_limit};
use super::exact::{at_most, exact, number};

/// The most pairs of elements that sorting may compare.
const MOST_PAIRS: i64 = 60_000;

/// A library function of some value; `None` if the drawn one does not fit.
pub fn step(build: &mut Build) -> Option<Value> {
    let a = number(build)?;
    match build.dice.below(5) {
        0 | 1 => along(build, a),
        2 => order(build, a),
        3 => divide(build, a),
        _ => {
            let formula = ["ab->ba", "ab->b", "ab->", "aa->a", "abc->ca", "ab,ab->a"];
            einsum(build, a, formula)
        }
    }
}

/// Running sums and products of signs along an axis.
fn along(build: &mut Build, a: Value) -> Option<Value> {
    let axis = build.dice.below(a.t.rank().max(1));
    let n = build.largest(*a.t.dims().get(axis)?);
    if build.dice.one_in(4) {
        return exact(a.t.sign().cumprod(axis), 1.0);
    }
    let most = (exact_limit(a.t.dtype()) / n.max(1) as f64).floor();
    let a = at_most(a, most);
    exact(a.t.cumsum(axis), a.magnitude * n as f64)
}

/// Sorted values, their places, or the first of them.
fn order(build: &mut Build, a: Value) -> Option<Value> {
    let axis = build.dice.below(a.t.rank().max(1));
    let dims = a.t.dims();
    let size = *dims.get(axis)?;
    let (n, least) = (build.largest(size), build.smallest(size));
    if build.largest(numel(&dims)) * n > MOST_PAIRS {
        return None;
    }
    let descending = build.dice.one_in(2);
    match build.dice.below(3) {
        0 => exact(a.t.sort(axis, descending).0, a.magnitude),
        1 => exact(a.t.argsort(axis, descending), n as f64),
        _ if least > 0 => {
            let k = build.dice.between(1, least.min(4));
            exact(a.t.topk(k, axis).0, a.magnitude)
        }
        _ => None,
    }
}

/// Whole quotients and remainders by a number; the formats that hold few numbers stay away.
fn divide(build: &mut Build, a: Value) -> Option<Value> {
    if ![DType::F32, DType::I32].contains(&a.t.dtype()) {
        return None;
    }
    let a = at_most(a, 1000.0);
    let divisor = build.dice.pick(&[-7.0, -3.0, 2.0, 5.0, 11.0]);
    match build.dice.below(3) {
        0 => exact(a.t.floor_divide(divisor), a.magnitude),
        1 => exact(a.t.trunc_divide(divisor), a.magnitude),
        _ => exact(a.t.remainder(divisor), 11.0),
    }
}

/// One of the formulas that fits the value's axes.
fn einsum(build: &mut Build, a: Value, formulas: [&str; 6]) -> Option<Value> {
    let formula = build.dice.pick(&formulas);
    let (left, _) = formula.split_once("->")?;
    let operands: Vec<&str> = left.split(',').collect();
    let rank = operands[0].len();
    let dims = a.t.dims();
    if dims.len() != rank || (left == "aa" && dims[0] != dims[1]) {
        return None;
    }
    let n = build.largest(numel(&dims)).max(1) as f64;
    let power = operands.len() as i32;
    let most = (exact_limit(a.t.dtype()) / n)
        .powf(1.0 / f64::from(power))
        .floor();
    if most < 1.0 {
        return None;
    }
    let a = at_most(a, most);
    let tensors = vec![a.t; operands.len()];
    exact(
        GraphTensor::einsum(formula, &tensors),
        a.magnitude.powi(power) * n,
    )
}
