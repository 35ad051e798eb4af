//! Functions of two or three elements.

use brain_blitz::prelude::*;

use crate::call::Call;
use crate::outcome::Family;

/// `x + value * f(a, b)`.
fn add_combined(c: &mut Call<'_>, f: fn(GraphTensor, GraphTensor) -> GraphTensor) -> GraphTensor {
    let combined = f(c.t(0), c.t(1)) * c.float(usize::MAX, "value", 1.0);
    c.x() + combined
}

/// The second operand times `alpha`.
fn scaled(c: &mut Call<'_>) -> brain_blitz::hl_ops::Term {
    use brain_blitz::hl_ops::Term;
    match (c.kw("alpha"), c.term(0)) {
        (None, other) => other,
        (Some(alpha), Term::Tensor(other)) => Term::Tensor(other * alpha.float()),
        (Some(alpha), Term::Number(other)) => Term::Number(other * alpha.float()),
    }
}

pub const FAMILY: Family = Family {
    ops: &[
        ("add", |c| (c.x() + scaled(c)).into()),
        ("sub", |c| (c.x() - scaled(c)).into()),
        ("mul", |c| (c.x() * c.term(0)).into()),
        ("div.no_rounding_mode", |c| (c.x() / c.term(0)).into()),
        ("div.floor_rounding", |c| {
            c.x().floor_divide(c.term(0)).into()
        }),
        ("div.trunc_rounding", |c| {
            c.x().trunc_divide(c.term(0)).into()
        }),
        ("floor_divide", |c| c.x().floor_divide(c.term(0)).into()),
        ("remainder", |c| c.x().remainder(c.term(0)).into()),
        ("fmod", |c| c.x().fmod(c.term(0)).into()),
        ("pow", |c| c.x().pow(c.term(0)).into()),
        ("atan2", |c| c.x().atan2(c.term(0)).into()),
        ("maximum", |c| c.x().maximum(c.term(0)).into()),
        ("minimum", |c| c.x().minimum(c.term(0)).into()),
        ("fmax", |c| c.x().fmax(c.term(0)).into()),
        ("fmin", |c| c.x().fmin(c.term(0)).into()),
        ("lerp", |c| c.x().lerp(c.term(0), c.term(1)).into()),
        ("addcmul", |c| add_combined(c, |a, b| a * b).into()),
        ("addcdiv", |c| add_combined(c, |a, b| a / b).into()),
        ("hypot", |c| c.x().hypot(c.term(0)).into()),
        ("logaddexp", |c| c.x().logaddexp(c.term(0)).into()),
        ("xlogy", |c| c.x().xlogy(c.term(0)).into()),
        ("copysign", |c| c.x().copysign(c.term(0)).into()),
    ],
    excluded: &[],
    n_cases: 206,
    rtol: 1e-5,
};
