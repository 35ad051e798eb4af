//! Movement, joining and triangles.

use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::{Family, Out, unsupported};

fn from_front(axis: i64, rank: usize) -> usize {
    (if axis < 0 { axis + rank as i64 } else { axis }) as usize
}

/// Python's slice: bounds count from the end where negative, and are clamped.
fn python_slice(x: GraphTensor, axis: usize, [start, end, step]: [Option<i64>; 3]) -> GraphTensor {
    let n = x.dims()[axis].as_const().expect("static sizes");
    let bound = |bound: i64| if bound < 0 { bound + n } else { bound }.clamp(0, n);
    let start = start.map_or(0, bound);
    let end = end.map_or(n, bound).max(start);
    x.slice_step(axis, start, end, step.unwrap_or(1))
}

/// The row-major index of lists of coordinates on neighbouring axes of these sizes.
fn joint_index(lists: &[Arg], sizes: &[usize]) -> Vec<i64> {
    let lists: Vec<Vec<i64>> = lists.iter().map(Arg::ints).collect();
    let n = lists.iter().map(Vec::len).max().unwrap_or(0);
    if lists.iter().any(|list| list.len() != n && list.len() != 1) {
        unsupported("lists of indices of different lengths");
    }
    let coordinate = |list: &[i64], i: usize, size| from_front(list[i.min(list.len() - 1)], size);
    let index = |i: usize| {
        let axes = lists.iter().zip(sizes);
        axes.fold(0, |at, (list, &size)| at * size + coordinate(list, i, size)) as i64
    };
    (0..n).map(index).collect()
}

/// Indexing with integers, slices, an ellipsis, and lists of indices beside each other.
pub fn getitem(c: &mut Call<'_>) -> GraphTensor {
    let index: Vec<Arg> = match &c.args[0] {
        // A list of integers is a list of indices, any other list a tuple.
        Arg::List(list) if !list.iter().all(|i| matches!(i, Arg::Int(_))) => list.clone(),
        one => vec![one.clone()],
    };
    let (mut x, mut axis) = (c.x(), 0);
    let named = index.iter().filter(|i| !matches!(i, Arg::Ellipsis)).count();
    let is_list = |item: &Arg| matches!(item, Arg::List(_));
    if index.iter().filter(|item| is_list(item)).count()
        != index
            .iter()
            .skip_while(|i| !is_list(i))
            .take_while(|i| is_list(i))
            .count()
    {
        unsupported("lists of indices that are apart");
    }
    for (i, item) in index.iter().enumerate() {
        match item {
            Arg::Int(at) => {
                let at = from_front(*at, x.dims()[axis].as_usize().expect("static sizes"));
                x = x.slice_axis(axis, at, at + 1).squeeze(axis);
            }
            Arg::Slice(bounds) => {
                x = python_slice(x, axis, *bounds);
                axis += 1;
            }
            Arg::Ellipsis => axis += c.x().rank() - named,
            Arg::List(_) if i > 0 && is_list(&index[i - 1]) => (),
            Arg::List(_) => {
                let n = index[i..].iter().take_while(|i| is_list(i)).count();
                let dims = x.dims();
                let sizes = dims[axis..axis + n].iter().map(|n| n.as_usize());
                let sizes: Vec<usize> = sizes.map(|n| n.expect("static sizes")).collect();
                let list = joint_index(&index[i..i + n], &sizes);
                let at = c.cx.input([list.len()], DType::I32).set(list);
                x = x.flatten(axis, axis + n - 1).index_select(axis, at);
                axis += 1;
            }
            other => unsupported(format!("an index of {other:?}")),
        }
    }
    x
}

fn dims(c: &Call<'_>) -> Vec<i64> {
    match c.args.as_slice() {
        [Arg::List(list)] => list.iter().map(Arg::int).collect(),
        args => args.iter().map(Arg::int).collect(),
    }
}

/// Each element so many times, or as many as a list says.
fn repeat_interleave(c: &mut Call<'_>) -> GraphTensor {
    let times = c.get(0, "repeats").map_or(vec![1], Arg::ints);
    let (x, axis) = match c.get(1, "dim") {
        Some(dim) => (c.x(), dim.int()),
        None => (c.x().flatten(0, -1), 0),
    };
    if let [times] = times[..] {
        return x.repeat_interleave(times, axis);
    }
    let each = times.iter().enumerate();
    let places = each.flat_map(|(i, &times)| std::iter::repeat_n(i as i64, times as usize));
    let places: Vec<i64> = places.collect();
    let index = c.cx.input([places.len()], DType::I32).set(places);
    x.index_select(axis, index)
}

fn squeeze(c: &Call<'_>) -> GraphTensor {
    let (x, rank) = (c.x(), c.x().rank());
    let all: Vec<i64> = (0..rank as i64).collect();
    let wanted = c.ints(0, "dim").unwrap_or(all);
    let axes = wanted.iter().map(|&axis| from_front(axis, rank));
    let ones = axes.filter(|&axis| axis < rank && x.dims()[axis].is_one());
    x.squeeze(ones.collect::<Vec<usize>>())
}

fn split(c: &Call<'_>) -> Vec<GraphTensor> {
    let axis = c.int(1, "dim", 0);
    match &c.args[0] {
        Arg::List(_) => c.x().split_sizes(c.args[0].ints(), axis),
        size => c.x().split(size.int() as usize, axis),
    }
}

/// Pairs of (before, after) from the last axis on; negative ones cut.
fn pad(c: &Call<'_>) -> GraphTensor {
    let value = c.float(2, "value", 0.0);
    let mut x = c.x();
    for (i, pair) in c.args[0].ints().chunks_exact(2).enumerate() {
        let axis = x.rank() - 1 - i;
        x = x.pad_with(axis, pair[0].max(0), pair[1].max(0), value);
        let end = x.dims()[axis] - (-pair[1]).max(0);
        x = x.slice_axis(axis, (-pair[0]).max(0), end);
    }
    x
}

fn roll(c: &Call<'_>) -> GraphTensor {
    let x = c.x();
    let shifts = c.ints(0, "shifts").expect("roll has shifts");
    let Some(axes) = c.ints(1, "dims") else {
        return x.flatten(0, -1).roll(shifts[0], 0).reshape(x.dims());
    };
    if x.rank() == 0 {
        return x;
    }
    (shifts.iter().zip(axes)).fold(x, |x, (&shift, axis)| x.roll(shift, axis))
}

/// A diagonal is `offset` columns right of the main one: a padded matrix's rows, moved on one by one.
fn diag_embed(c: &Call<'_>, offset: i64) -> GraphTensor {
    let x = c.x();
    let (rank, n) = (x.rank(), x.dims()[x.rank() - 1]);
    let (low, high) = ((-offset).max(0), offset.max(0));
    let size = n + low + high;
    let rows = x.pad(-1, low, high).unsqueeze(-1);
    let square = rows.repeat_interleave(size, rank);
    square.tril(offset).triu(offset)
}

fn rot90(c: &Call<'_>) -> GraphTensor {
    let axes = c.ints(1, "dims").unwrap_or(vec![0, 1]);
    (0..c.int(0, "k", 1).rem_euclid(4))
        .fold(c.x(), |x, _| x.flip(axes[1]).transpose(axes[0], axes[1]))
}

fn tensor_split(c: &Call<'_>) -> Vec<GraphTensor> {
    let axis = from_front(c.int(1, "dim", 0), c.x().rank());
    let n = c.x().dims()[axis].as_const().expect("static sizes");
    let ends: Vec<i64> = match &c.args[0] {
        Arg::List(list) => list.iter().map(|at| at.int().min(n)).collect(),
        Arg::Tensor(list) if list.rank() == 1 => {
            let ends = c.args[0].ints().into_iter();
            ends.map(|end| end.min(n)).collect()
        }
        parts => {
            let parts = parts.int();
            let end = |i: i64| (i + 1) * (n / parts) + (i + 1).min(n % parts);
            (0..parts - 1).map(end).collect()
        }
    };
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let sizes = starts
        .zip(ends.iter().copied().chain([n]))
        .map(|(a, b)| b - a);
    c.x().split_sizes(sizes.collect::<Vec<i64>>(), axis)
}

fn meshgrid(c: &Call<'_>) -> Vec<GraphTensor> {
    let lines: Vec<GraphTensor> = c.input.tensors().iter().map(|x| x.reshape([-1])).collect();
    let dims: Vec<Expr> = lines.iter().map(|x| x.dims()[0]).collect();
    let grid = |(i, x): (usize, &GraphTensor)| {
        let mut thin = vec![Expr::from(1); dims.len()];
        thin[i] = dims[i];
        let grid = x.reshape(thin).expand(&dims);
        match c.kw("indexing") {
            Some(Arg::Str(order)) if order == "xy" && dims.len() > 1 => grid.transpose(0, 1),
            _ => grid,
        }
    };
    lines.iter().enumerate().map(grid).collect()
}

fn diagonal(c: &Call<'_>) -> GraphTensor {
    let (first, second) = (c.int(1, "dim1", 0), c.int(2, "dim2", 1));
    c.x().diagonal(c.int(0, "offset", 0), first, second)
}

fn unfold(c: &Call<'_>) -> GraphTensor {
    let (axis, size, step) = (c.int(0, "dim", 0), c.int(1, "size", 1), c.int(2, "step", 1));
    match c.x().rank() {
        0 => c.x().unsqueeze(0).unfold(0, size, step).squeeze(0),
        _ => c.x().unfold(axis, size, step),
    }
}

fn unflatten(c: &Call<'_>) -> GraphTensor {
    let x = c.x();
    let axis = from_front(c.args[0].int(), x.rank());
    let mut inner = c.args[1].ints();
    let n = x.dims()[axis].as_const().expect("static sizes");
    if let Some(at) = inner.iter().position(|&size| size == -1) {
        inner[at] = n / inner.iter().filter(|&&size| size != -1).product::<i64>();
    }
    let mut dims: Vec<Expr> = x.dims().to_vec();
    dims.splice(axis..=axis, inner.into_iter().map(Expr::from));
    x.reshape(dims)
}

fn narrow(c: &Call<'_>) -> Out {
    let (axis, start, len) = (c.args[0].int(), c.args[1].int(), c.args[2].int());
    let axis = from_front(axis, c.x().rank());
    let n = c.x().dims()[axis].as_usize().expect("static sizes");
    let start = from_front(start, n) as i64;
    c.x().slice_axis(axis, start, start + len).into()
}

/// Rows under each other, or beside each other.
fn joined(c: &Call<'_>, columns: bool) -> GraphTensor {
    let rows = c.input.tensors().into_iter().map(|x| match x.rank() {
        0 if columns => x.reshape([1]),
        0 | 1 if !columns => x.reshape([1, -1]),
        _ => x,
    });
    let rows: Vec<GraphTensor> = rows.collect();
    let axis = usize::from(columns && rows[0].rank() > 1);
    GraphTensor::concat(&rows, axis)
}

/// torch leaves out tensors of shape [0], whatever the others' rank.
fn cat(c: &Call<'_>) -> GraphTensor {
    let mut all = c.input.tensors();
    let rank = all.iter().map(|x| x.rank()).max().unwrap_or(0);
    all.retain(|x| x.rank() == rank);
    GraphTensor::concat(&all, c.int(0, "dim", 0))
}

pub const FAMILY: Family = Family {
    ops: &[
        ("reshape", |c| c.x().reshape(c.args[0].ints()).into()),
        ("view", |c| c.x().reshape(dims(c)).into()),
        ("permute", |c| c.x().permute(dims(c)).into()),
        ("transpose", |c| match c.x().rank() {
            0 => c.x().into(),
            _ => c.x().transpose(c.args[0].int(), c.args[1].int()).into(),
        }),
        ("t", |c| match c.x().rank() {
            2 => c.x().transpose(0, 1).into(),
            _ => c.x().into(),
        }),
        ("squeeze", |c| squeeze(c).into()),
        ("unsqueeze", |c| c.x().unsqueeze(c.args[0].int()).into()),
        ("flatten", |c| {
            c.x()
                .flatten(c.int(0, "start_dim", 0), c.int(1, "end_dim", -1))
                .into()
        }),
        ("unflatten", |c| unflatten(c).into()),
        ("expand", |c| c.x().expand(dims(c)).into()),
        ("broadcast_to", |c| c.x().expand(dims(c)).into()),
        ("repeat", |c| c.x().repeat(dims(c)).into()),
        ("tile", |c| c.x().tile(dims(c)).into()),
        ("repeat_interleave", |c| repeat_interleave(c).into()),
        ("cat", |c| cat(c).into()),
        ("stack", |c| {
            GraphTensor::stack(&c.input.tensors(), c.int(0, "dim", 0)).into()
        }),
        ("hstack", |c| joined(c, true).into()),
        ("vstack", |c| joined(c, false).into()),
        ("split", |c| split(c).into()),
        ("split_with_sizes", |c| split(c).into()),
        ("chunk", |c| {
            c.x()
                .chunk(c.args[0].int() as usize, c.int(1, "dim", 0))
                .into()
        }),
        ("unbind", |c| {
            let axis = from_front(c.int(0, "dim", 0), c.x().rank());
            let slices = c.x().split(1, axis).into_iter().map(|x| x.squeeze(axis));
            slices.collect::<Vec<_>>().into()
        }),
        ("narrow", |c| narrow(c)),
        ("slice", |c| {
            let axis = from_front(c.int(0, "dim", 0), c.x().rank());
            let bound = |i: usize| c.get(i, "").map(Arg::int);
            python_slice(c.x(), axis, [bound(1), bound(2), bound(3)]).into()
        }),
        ("__getitem__", |c| getitem(c).into()),
        ("flip", |c| {
            let axes = c.ints(0, "dims").expect("flip has dims");
            match c.x().rank() {
                0 => c.x().into(),
                _ => c.x().flip(axes).into(),
            }
        }),
        ("roll", |c| roll(c).into()),
        ("movedim", |c| {
            let (from, to) = (c.args[0].ints(), c.args[1].ints());
            let rank = c.x().rank();
            let mut order = vec![0; rank];
            for (from, to) in from.into_iter().zip(to) {
                order[from_front(to, rank)] = from_front(from, rank);
            }
            c.x().permute(order).into()
        }),
        ("tril", |c| c.x().tril(c.int(0, "diagonal", 0)).into()),
        ("triu", |c| c.x().triu(c.int(0, "diagonal", 0)).into()),
        ("diag", |c| match c.x().rank() {
            1 => diag_embed(c, c.int(0, "diagonal", 0)).into(),
            _ => c.x().diagonal(c.int(0, "diagonal", 0), 0, 1).into(),
        }),
        ("diag_embed", |c| {
            diag_embed(c, c.int(0, "offset", 0)).into()
        }),
        ("rot90", |c| rot90(c).into()),
        ("tensor_split", |c| tensor_split(c).into()),
        ("meshgrid.list_of_tensors", |c| meshgrid(c).into()),
        ("diagonal", |c| diagonal(c).into()),
        ("unfold", |c| unfold(c).into()),
        ("nn.functional.pad.constant", |c| pad(c).into()),
    ],
    excluded: &[("unfold#edge.size_zero", "a window has at least one element")],
    n_cases: 342,
    rtol: 1e-5,
};
