//! Reductions and scans.

use brain_blitz::hl_ops::Axes;
use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::{Family, Out};

/// The axes given at `i` or as `dim`: all of them where there are none (also for an empty list, as torch has it). torch
/// takes axis 0 of a number alone, which has none here.
fn axes(c: &Call<'_>, i: usize) -> Axes {
    if c.x().rank() == 0 {
        return Axes::All;
    }
    match c.ints(i, "dim") {
        Some(list) if !list.is_empty() => Axes::List(list.into_iter().collect()),
        _ => Axes::All,
    }
}

type Method = fn(GraphTensor, Axes) -> GraphTensor;

/// One of a method and its `_keepdim` form.
fn reduce(c: &Call<'_>, first: usize, [plain, keepdim]: [Method; 2]) -> GraphTensor {
    match c.bool(first + 1, "keepdim", false) {
        true => keepdim(c.x(), axes(c, first)),
        false => plain(c.x(), axes(c, first)),
    }
}

/// The methods of these names.
macro_rules! both {
    ($plain:ident, $keepdim:ident) => {
        [
            |x: GraphTensor, axes: Axes| x.$plain(axes),
            |x: GraphTensor, axes: Axes| x.$keepdim(axes),
        ]
    };
}

fn with_index(c: &Call<'_>, values: [Method; 2], index: [Method; 2]) -> Out {
    vec![reduce(c, 0, values), reduce(c, 0, index)].into()
}

fn correction(c: &Call<'_>) -> f64 {
    let unbiased = c.bool(usize::MAX, "unbiased", true);
    c.float(usize::MAX, "correction", f64::from(u8::from(unbiased)))
}

fn var(c: &Call<'_>) -> GraphTensor {
    let correction = correction(c);
    match c.bool(usize::MAX, "keepdim", false) {
        true => c.x().var_keepdim(axes(c, 0), correction),
        false => c.x().var(axes(c, 0), correction),
    }
}

fn std(c: &Call<'_>) -> GraphTensor {
    let correction = correction(c);
    match c.bool(usize::MAX, "keepdim", false) {
        true => c.x().std_keepdim(axes(c, 0), correction),
        false => c.x().std(axes(c, 0), correction),
    }
}

fn mean(c: &Call<'_>) -> GraphTensor {
    reduce(c, 0, both!(mean, mean_keepdim))
}

/// `p` and axes stand at different places in torch's `norm` and `vector_norm`.
fn norm(c: &Call<'_>) -> GraphTensor {
    let p = match c.get(0, "ord").or_else(|| c.kw("p")) {
        Some(Arg::Str(_)) | None => 2.0,
        Some(p) => p.float(),
    };
    match c.bool(2, "keepdim", false) {
        true => c.x().norm_keepdim(axes(c, 1), p),
        false => c.x().norm(axes(c, 1), p),
    }
}

fn scan(c: &Call<'_>, f: impl Fn(GraphTensor, i64) -> GraphTensor) -> GraphTensor {
    match c.x().rank() {
        0 => f(c.x().unsqueeze(0), 0).squeeze(0),
        _ => f(c.x(), c.int(0, "dim", 0)),
    }
}

/// Differences of neighbours, `n` times.
fn diff(c: &Call<'_>) -> GraphTensor {
    let axis = c.int(1, "dim", -1);
    (0..c.int(0, "n", 1)).fold(c.x(), |x, _| {
        let at = (if axis < 0 {
            axis + x.rank() as i64
        } else {
            axis
        }) as usize;
        let n = x.dims()[at];
        match n.is_zero() {
            true => x,
            false => x.slice_axis(at, 1, n) - x.slice_axis(at, 0, n - 1),
        }
    })
}

fn nansum(c: &Call<'_>) -> GraphTensor {
    let x = c.x();
    let clean = x.isnan().where_(0.0, x);
    match c.bool(1, "keepdim", false) {
        true => clean.sum_keepdim(axes(c, 0)),
        false => clean.sum(axes(c, 0)),
    }
}

/// A scan with places; a number alone is an axis of one.
fn scan_with_places(
    c: &Call<'_>,
    f: impl Fn(GraphTensor, i64) -> (GraphTensor, GraphTensor),
) -> Out {
    let dims = c.x().dims();
    let (values, places) = match c.x().rank() {
        0 => f(c.x().unsqueeze(0), 0),
        _ => f(c.x(), c.int(0, "dim", 0)),
    };
    vec![values.reshape(&dims), places.reshape(&dims)].into()
}

/// Of everything, or along an axis.
fn median(c: &Call<'_>) -> Out {
    let Some(dim) = c.get(0, "dim").map(Arg::int) else {
        return c.x().flatten(0, -1).median(0).0.into();
    };
    if c.x().rank() == 0 {
        let (value, place) = c.x().unsqueeze(0).median(0);
        return vec![value, place].into();
    }
    let (values, places) = c.x().median(dim);
    match c.bool(1, "keepdim", false) {
        true => {
            let mut dims = c.x().dims();
            let at = if dim < 0 {
                dim + dims.len() as i64
            } else {
                dim
            };
            dims[at as usize] = Expr::from(1);
            vec![values.reshape(&dims), places.reshape(&dims)].into()
        }
        false => vec![values, places].into(),
    }
}

pub const FAMILY: Family = Family {
    ops: &[
        ("sum", |c| reduce(c, 0, both!(sum, sum_keepdim)).into()),
        ("mean", |c| mean(c).into()),
        ("prod", |c| reduce(c, 0, both!(prod, prod_keepdim)).into()),
        ("amax", |c| reduce(c, 0, both!(max, max_keepdim)).into()),
        ("amin", |c| reduce(c, 0, both!(min, min_keepdim)).into()),
        ("max.reduction_no_dim", |c| c.x().max(..).into()),
        ("max.reduction_with_dim", |c| {
            with_index(c, both!(max, max_keepdim), both!(argmax, argmax_keepdim))
        }),
        ("min.reduction_with_dim", |c| {
            with_index(c, both!(min, min_keepdim), both!(argmin, argmin_keepdim))
        }),
        ("argmax", |c| {
            reduce(c, 0, both!(argmax, argmax_keepdim)).into()
        }),
        ("argmin", |c| {
            reduce(c, 0, both!(argmin, argmin_keepdim)).into()
        }),
        ("var", |c| var(c).into()),
        ("std", |c| std(c).into()),
        ("var_mean", |c| vec![var(c), mean(c)].into()),
        ("std_mean", |c| vec![std(c), mean(c)].into()),
        ("logsumexp", |c| {
            reduce(c, 0, both!(logsumexp, logsumexp_keepdim)).into()
        }),
        ("norm", |c| norm(c).into()),
        ("linalg.vector_norm", |c| norm(c).into()),
        ("any", |c| reduce(c, 0, both!(any, any_keepdim)).into()),
        ("all", |c| reduce(c, 0, both!(all, all_keepdim)).into()),
        ("diff", |c| diff(c).into()),
        ("count_nonzero", |c| {
            c.x().cast(DType::Bool).sum(axes(c, 0)).into()
        }),
        ("nansum", |c| nansum(c).into()),
        ("cumsum", |c| scan(c, |x, axis| x.cumsum(axis)).into()),
        ("median", |c| median(c)),
        ("cummax", |c| scan_with_places(c, |x, axis| x.cummax(axis))),
        ("cummin", |c| scan_with_places(c, |x, axis| x.cummin(axis))),
        ("logcumsumexp", |c| {
            scan(c, |x, axis| x.logcumsumexp(axis)).into()
        }),
        ("cumprod", |c| scan(c, |x, axis| x.cumprod(axis)).into()),
    ],
    excluded: &[("sum#edge.int", "64-bit sums; integers are 32-bit and wrap")],
    n_cases: 517,
    rtol: 1e-4,
};
