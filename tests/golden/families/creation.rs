//! Constants, ranges, identity matrices.

use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::Family;

fn dims(arg: &Arg) -> Vec<i64> {
    arg.ints()
}

fn full(c: &mut Call<'_>, value: f64) -> GraphTensor {
    let (dims, dtype) = (dims(&c.input), c.dtype());
    c.cx.full(dims, value, dtype)
}

fn arange(c: &mut Call<'_>) -> GraphTensor {
    let first = c.input.float();
    let (start, end) = match c.args.first() {
        Some(end) => (first, end.float()),
        None => (0.0, first),
    };
    let is_whole = |arg: &Arg| matches!(arg, Arg::Int(_));
    let all_whole = is_whole(&c.input) && c.args.as_slice().iter().all(is_whole);
    let dtype = match c.kw("dtype") {
        None if all_whole => DType::I32,
        _ => c.dtype(),
    };
    let step = c.float(1, "step", 1.0);
    c.cx.arange_step(start, end, step, dtype)
}

fn linspace(c: &mut Call<'_>) -> GraphTensor {
    let (start, end) = (c.input.float(), c.args[0].float());
    c.cx.linspace(start, end, c.args[1].int() as usize)
}

fn logspace(c: &mut Call<'_>) -> GraphTensor {
    let (start, end) = (c.input.float(), c.args[0].float());
    let (n, base) = (c.args[1].int(), c.float(2, "base", 10.0));
    c.cx.logspace(start, end, n as usize, base)
}

fn eye(c: &mut Call<'_>) -> GraphTensor {
    let n = c.input.int();
    let (m, dtype) = (c.int(0, "m", n), c.dtype());
    c.cx.eye(n, m, dtype)
}

pub const FAMILY: Family = Family {
    ops: &[
        ("zeros", |c| full(c, 0.0).into()),
        ("ones", |c| full(c, 1.0).into()),
        ("full", |c| full(c, c.args[0].float()).into()),
        ("zeros_like", |c| c.x().zeros_like().into()),
        ("ones_like", |c| c.x().ones_like().into()),
        ("full_like", |c| c.x().full_like(c.args[0].float()).into()),
        ("scalar_tensor", |c| {
            c.cx.scalar(c.input.float(), DType::F32).into()
        }),
        ("arange", |c| arange(c).into()),
        ("linspace", |c| linspace(c).into()),
        ("logspace", |c| logspace(c).into()),
        ("eye", |c| eye(c).into()),
        ("nn.functional.one_hot", |c| {
            c.x().one_hot(c.args[0].int(), DType::I32).into()
        }),
    ],
    excluded: &[],
    n_cases: 84,
    rtol: 1e-5,
};
