//! Gather, scatter and sorting.

use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::{Family, Out, unsupported};

use super::shape::getitem;

/// The updates of a scatter: a tensor, or one number everywhere.
fn updates(c: &mut Call<'_>) -> GraphTensor {
    match c.args[2] {
        Arg::Tensor(tensor) => tensor,
        ref number => {
            let (number, dims) = (number.float(), c.t(1).dims());
            let dtype = c.x().dtype();
            c.cx.full(dims, number, dtype)
        }
    }
}

fn sort(c: &Call<'_>) -> (GraphTensor, GraphTensor) {
    let dim = c.int(0, "dim", -1);
    let x = c.x();
    if x.rank() == 0 {
        // A number alone is a sorted axis of one.
        let (values, index) = x.unsqueeze(0).sort(0, false);
        return (values.squeeze(0), index.squeeze(0));
    }
    x.sort(dim, c.bool(1, "descending", false))
}

fn topk(c: &Call<'_>) -> Out {
    let (k, dim) = (c.int(0, "k", 1), c.int(1, "dim", -1));
    let x = c.x();
    if x.rank() == 0 {
        let (values, index) = x.unsqueeze(0).topk(1, 0);
        return vec![values.squeeze(0), index.squeeze(0)].into();
    }
    let (values, index) = match c.bool(2, "largest", true) {
        true => x.topk(k, dim),
        false => x.bottomk(k, dim),
    };
    vec![values, index].into()
}

/// In torch a negative index counts from the end; here that takes a choice.
fn wrapped(x: GraphTensor, dim: i64, index: GraphTensor) -> GraphTensor {
    let at = if dim < 0 { dim + x.rank() as i64 } else { dim };
    let n = x.dims()[at as usize].as_const().expect("static sizes");
    index.lt(0).where_(index + n as i32, index)
}

fn take_along(c: &Call<'_>) -> GraphTensor {
    let (x, index, dim) = match c.get(1, "dim") {
        Some(dim) => (c.x(), c.t(0), dim.int()),
        None => (c.x().flatten(0, -1), c.t(0).flatten(0, -1), 0),
    };
    x.take_along(dim, wrapped(x, dim, index))
}

/// torch lets a number alone pass for an axis of one.
fn along(c: &Call<'_>, f: impl Fn(GraphTensor, i64, GraphTensor) -> GraphTensor) -> GraphTensor {
    let (dim, x, index) = (c.int(0, "dim", 0), c.x(), c.t(1));
    if x.rank() > 0 {
        return f(x, dim, index);
    }
    let out = f(x.unsqueeze(0), dim, index.flatten(0, -1));
    out.reshape(index.dims())
}

type Write = fn(GraphTensor, i64, GraphTensor, GraphTensor) -> GraphTensor;

fn scatter(c: &mut Call<'_>, f: Write) -> GraphTensor {
    let x = c.x();
    scatter_into(c, x, f)
}

/// The input, with `neutral` in the places written to unless they count themselves.
fn start(c: &mut Call<'_>, neutral: f64) -> GraphTensor {
    let x = c.x();
    if c.bool(usize::MAX, "include_self", true) {
        return x;
    }
    let new = c.t(1).cast(DType::F32).full_like(neutral);
    match x.rank() {
        0 => x
            .unsqueeze(0)
            .scatter(0, c.t(1).flatten(0, -1), new.flatten(0, -1))
            .squeeze(0),
        _ => x.scatter(c.int(0, "dim", 0), c.t(1), new),
    }
}

/// Whole rows along an axis, written where a vector of indices says.
fn along_rows(c: &Call<'_>, new: GraphTensor, f: Write) -> GraphTensor {
    let x = match c.x().rank() {
        0 => c.x().unsqueeze(0),
        _ => c.x(),
    };
    let axis = c.int(0, "dim", 0);
    let at = (if axis < 0 {
        axis + x.rank() as i64
    } else {
        axis
    }) as usize;
    let index = c.t(1).flatten(0, -1);
    let mut dims = x.dims();
    dims[at] = index.dims()[0];
    let mut thin = vec![1i64; dims.len()];
    thin[at] = -1;
    let index = index.reshape(thin).expand(&dims);
    let new = match new.rank() {
        0 => new.expand(&dims),
        _ => new,
    };
    f(x, axis, index, new).reshape(c.x().dims())
}

fn scatter_into(c: &mut Call<'_>, x: GraphTensor, f: Write) -> GraphTensor {
    let new = updates(c);
    let (dim, index) = (c.int(0, "dim", 0), c.t(1));
    if x.rank() > 0 {
        return f(x, dim, index, new);
    }
    f(
        x.unsqueeze(0),
        dim,
        index.flatten(0, -1),
        new.flatten(0, -1),
    )
    .squeeze(0)
}

/// Elements of the source, in order, where the mask holds.
fn masked_scatter(c: &Call<'_>) -> GraphTensor {
    let (mask, source) = (c.t(0), c.t(1).flatten(0, -1));
    let both = c.x().cast(DType::F32).full_like(0.0) + mask.cast(DType::F32) * 0.0;
    let dims = both.dims();
    let (x, mask) = (c.x().expand(&dims), mask.expand(&dims));
    let place = mask.flatten(0, -1).cumsum(0) - 1;
    let taken = source.index_select(0, place.maximum(0)).reshape(&dims);
    mask.where_(taken, x)
}

/// Rows of the first axis, named by a mask or by numbers.
fn index_put(c: &Call<'_>) -> GraphTensor {
    let at = match c.args[0].list() {
        [Arg::Tensor(at)] => *at,
        _ => unsupported("indices of several axes"),
    };
    let (x, new) = (c.x(), c.t(1));
    let adds = c.bool(2, "accumulate", false);
    let rows = x.dims()[1..].to_vec();
    if at.dtype() == DType::Bool {
        if new.rank() >= x.rank() || at.rank() != 1 {
            unsupported("a row of its own for each true of a mask");
        }
        let mut thin = vec![Expr::from(1); x.rank()];
        thin[0] = at.dims()[0];
        let new = if adds { x + new } else { new.expand(x.dims()) };
        return at.reshape(thin).where_(new, x);
    }
    let n = at.dims()[0];
    let mut thin = vec![Expr::from(1); x.rank()];
    thin[0] = n;
    let dims: Vec<Expr> = [n].into_iter().chain(rows).collect();
    let (index, new) = (at.reshape(thin).expand(&dims), new.expand(&dims));
    match adds {
        true => x.scatter_add(0, index, new),
        false => x.scatter(0, index, new),
    }
}

/// How many of the sorted numbers come before each value.
fn searchsorted(c: &Call<'_>) -> GraphTensor {
    if c.kw("sorter")
        .is_some_and(|order| !order.tensor().dims()[0].is_zero())
    {
        unsupported("a sorter");
    }
    let (line, values) = (c.x(), c.t(0));
    let is_right = matches!(c.kw("side"), Some(Arg::Str(side)) if side == "right");
    let right = c.bool(usize::MAX, "right", false) || is_right;
    c.kw("out_int32");
    let (line, values) = (line.unsqueeze(-2), values.unsqueeze(-1));
    match right {
        true => line.le(values).sum(-1),
        false => line.lt(values).sum(-1),
    }
}

pub const FAMILY: Family = Family {
    ops: &[
        ("gather", |c| along(c, |x, dim, i| x.gather(dim, i)).into()),
        ("index_select", |c| {
            let (x, dim) = (c.x(), c.int(0, "dim", 0));
            match x.rank() {
                0 => x.into(),
                _ => x.index_select(dim, c.t(1).flatten(0, -1)).into(),
            }
        }),
        ("take_along_dim", |c| take_along(c).into()),
        ("take", |c| {
            let x = c.x().flatten(0, -1);
            x.index_select(0, wrapped(x, 0, c.t(0))).into()
        }),
        ("select", |c| {
            let (x, dim, at) = (c.x(), c.int(0, "dim", 0), c.int(1, "index", 0));
            let dim = if dim < 0 { dim + x.rank() as i64 } else { dim } as usize;
            let at = match at {
                ..0 => x.dims()[dim] + at,
                _ => Expr::from(at),
            };
            x.slice_axis(dim, at, at + 1).squeeze(dim).into()
        }),
        ("scatter", |c| {
            scatter(c, |x, dim, i, new| x.scatter(dim, i, new)).into()
        }),
        ("scatter_add", |c| {
            scatter(c, |x, dim, i, new| x.scatter_add(dim, i, new)).into()
        }),
        ("scatter_reduce.sum", |c| {
            let x = start(c, 0.0);
            scatter_into(c, x, |x, dim, i, new| x.scatter_add(dim, i, new)).into()
        }),
        ("scatter_reduce.amax", |c| {
            let x = start(c, f64::NEG_INFINITY);
            scatter_into(c, x, |x, dim, i, new| x.scatter_max(dim, i, new)).into()
        }),
        ("index_add", |c| {
            let new = c.t(2) * c.float(usize::MAX, "alpha", 1.0);
            along_rows(c, new, |x, dim, i, new| x.scatter_add(dim, i, new)).into()
        }),
        ("index_fill", |c| {
            let new = match &c.args[2] {
                Arg::Tensor(tensor) => *tensor,
                number => {
                    let number = number.float();
                    c.cx.scalar(number, DType::F32)
                }
            };
            along_rows(c, new, |x, dim, i, new| x.scatter(dim, i, new)).into()
        }),
        ("index_copy", |c| {
            along_rows(c, c.t(2), |x, dim, i, new| x.scatter(dim, i, new)).into()
        }),
        ("index_put", |c| index_put(c).into()),
        ("masked_scatter", |c| masked_scatter(c).into()),
        ("searchsorted", |c| searchsorted(c).into()),
        ("__getitem__", |c| getitem(c).into()),
        ("bucketize", |c| {
            let (x, bounds) = (c.x().unsqueeze(-1), c.t(0));
            let passed = match c.bool(usize::MAX, "right", false) {
                true => bounds.le(x),
                false => bounds.lt(x),
            };
            passed.sum(-1).into()
        }),
        ("kthvalue", |c| {
            let (x, k) = (c.x(), c.int(0, "k", 1));
            let (x, axis) = match x.rank() {
                0 => (x.unsqueeze(0), 0),
                _ => (x, c.int(1, "dim", -1)),
            };
            let (values, index) = x.bottomk(k, axis);
            let last = |t: GraphTensor| {
                let t = t.slice_axis(axis, k - 1, k);
                match c.bool(2, "keepdim", false) && c.x().rank() > 0 {
                    true => t,
                    false => t.squeeze(axis),
                }
            };
            vec![last(values), last(index)].into()
        }),
        ("sort", |c| {
            let (values, index) = sort(c);
            vec![values, index].into()
        }),
        ("argsort", |c| sort(c).1.into()),
        ("topk", |c| topk(c)),
    ],
    excluded: &[],
    n_cases: 157,
    rtol: 1e-5,
};
