//! Functions of one element.

use brain_blitz::prelude::*;

use crate::call::Call;
use crate::outcome::Family;

fn logit(c: &mut Call<'_>) -> GraphTensor {
    match c.get(0, "eps") {
        // The bounds may cross.
        Some(eps) => {
            let (x, low, high) = (c.x(), eps.float(), 1.0 - eps.float());
            let below = x.lt(low);
            let x = x.masked_fill(x.gt(high), high);
            x.masked_fill(below, low).logit()
        }
        None => c.x().logit(),
    }
}

fn nan_to_num(c: &mut Call<'_>) -> GraphTensor {
    let max = f64::from(f32::MAX);
    let nan = c.float(0, "nan", 0.0);
    let (posinf, neginf) = (c.float(1, "posinf", max), c.float(2, "neginf", -max));
    c.x().nan_to_num(nan, posinf, neginf)
}

pub const FAMILY: Family = Family {
    ops: &[
        ("abs", |c| c.x().abs().into()),
        ("neg", |c| (-c.x()).into()),
        ("sign", |c| c.x().sign().into()),
        ("sgn", |c| c.x().sign().into()),
        ("exp", |c| c.x().exp().into()),
        ("exp2", |c| c.x().exp2().into()),
        ("log", |c| c.x().log().into()),
        ("log2", |c| c.x().log2().into()),
        ("log10", |c| c.x().log10().into()),
        ("log1p", |c| c.x().log1p().into()),
        ("expm1", |c| c.x().expm1().into()),
        ("sqrt", |c| c.x().sqrt().into()),
        ("rsqrt", |c| c.x().rsqrt().into()),
        ("square", |c| c.x().square().into()),
        ("reciprocal", |c| c.x().recip().into()),
        ("sin", |c| c.x().sin().into()),
        ("cos", |c| c.x().cos().into()),
        ("tan", |c| c.x().tan().into()),
        ("acos", |c| c.x().acos().into()),
        ("asin", |c| c.x().asin().into()),
        ("atan", |c| c.x().atan().into()),
        ("sinh", |c| c.x().sinh().into()),
        ("cosh", |c| c.x().cosh().into()),
        ("tanh", |c| c.x().tanh().into()),
        ("sech", |c| c.x().sech().into()),
        ("asinh", |c| c.x().asinh().into()),
        ("acosh", |c| c.x().acosh().into()),
        ("atanh", |c| c.x().atanh().into()),
        ("erf", |c| c.x().erf().into()),
        ("erfc", |c| c.x().erfc().into()),
        ("lgamma", |c| c.x().lgamma().into()),
        ("digamma", |c| c.x().digamma().into()),
        ("floor", |c| c.x().floor().into()),
        ("ceil", |c| c.x().ceil().into()),
        ("round", |c| {
            c.x().round_to(c.int(0, "decimals", 0) as i32).into()
        }),
        ("trunc", |c| c.x().trunc().into()),
        ("frac", |c| (c.x() - c.x().trunc()).into()),
        ("sigmoid", |c| c.x().sigmoid().into()),
        ("logit", |c| logit(c).into()),
        ("isnan", |c| c.x().isnan().into()),
        ("isinf", |c| c.x().isinf().into()),
        ("isfinite", |c| c.x().isfinite().into()),
        ("nan_to_num", |c| nan_to_num(c).into()),
    ],
    excluded: &[],
    n_cases: 242,
    rtol: 1e-5,
};
