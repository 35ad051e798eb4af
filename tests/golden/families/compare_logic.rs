//! Comparisons, logic, choices.

use brain_blitz::hl_ops::Term;
use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::Family;

fn clamp(c: &mut Call<'_>) -> GraphTensor {
    // Torch lets an integer tensor bound a floating one; here that takes a cast.
    let x = c.x();
    let bound = |arg: &Arg| match arg.term() {
        Term::Tensor(bound) => Term::Tensor(bound.cast(x.dtype())),
        number => number,
    };
    let low = c.get(0, "min").map(bound);
    let high = c.get(1, "max").map(bound);
    match (low, high) {
        (Some(low), Some(high)) => x.clamp(low, high),
        (Some(low), None) => x.maximum(low),
        (None, Some(high)) => x.minimum(high),
        (None, None) => panic!("clamp without bounds"),
    }
}

fn bound(c: &mut Call<'_>) -> Term {
    let arg = c.args.first().or_else(|| c.kwargs.any());
    arg.expect("a bound").term()
}

const BEYOND_I32: &str = "its numbers need 64-bit integers; here integers are i32";

pub const FAMILY: Family = Family {
    ops: &[
        ("eq", |c| c.x().eq(c.term(0)).into()),
        ("ne", |c| c.x().ne(c.term(0)).into()),
        ("lt", |c| c.x().lt(c.term(0)).into()),
        ("le", |c| c.x().le(c.term(0)).into()),
        ("gt", |c| c.x().gt(c.term(0)).into()),
        ("ge", |c| c.x().ge(c.term(0)).into()),
        ("logical_and", |c| c.x().logical_and(c.t(0)).into()),
        ("logical_or", |c| c.x().logical_or(c.t(0)).into()),
        ("logical_xor", |c| c.x().logical_xor(c.t(0)).into()),
        ("logical_not", |c| c.x().logical_not().into()),
        ("where", |c| c.t(0).where_(c.x(), c.term(1)).into()),
        ("isclose", |c| isclose(c).into()),
        ("clamp", |c| clamp(c).into()),
        ("clamp_min", |c| c.x().maximum(bound(c)).into()),
        ("clamp_max", |c| c.x().minimum(bound(c)).into()),
        ("masked_fill", |c| {
            c.x().masked_fill(c.t(0), c.term(1)).into()
        }),
    ],
    excluded: &[
        ("eq#edge.int", BEYOND_I32),
        ("ne#edge.int", BEYOND_I32),
        ("lt#edge.int", BEYOND_I32),
        ("le#edge.int", BEYOND_I32),
        ("gt#edge.int", BEYOND_I32),
        ("ge#edge.int", BEYOND_I32),
        ("logical_or#edge.int", BEYOND_I32),
        ("logical_and#edge.int", BEYOND_I32),
    ],
    n_cases: 158,
    rtol: 1e-5,
};

fn isclose(c: &mut Call<'_>) -> GraphTensor {
    let (rtol, atol) = (c.float(1, "rtol", 1e-5), c.float(2, "atol", 1e-8));
    let nan_too = c.bool(3, "equal_nan", false);
    let (x, y) = (c.x(), c.t(0));
    let close = x.isclose(y, rtol, atol);
    if nan_too {
        close | (x.isnan() & y.isnan())
    } else {
        close
    }
}
