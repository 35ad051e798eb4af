//! Gradients back through a view: from the gradient by what is seen to the gradient by what is looked at.
//!
//! A view's layer reads, at coordinate `c`, element `offset + Σ c[d] * strides[d]` of what is below it, or a zero
//! outside its mask. Backwards, the gradient at `c` is added to that element:
//!
//! - masked coordinates are cut off, axes of stride 0 (broadcasts) are summed, negative strides are turned round;
//! - what is left, ordered by stride, are digits of the element's number: padding each axis to the next one's stride
//!   puts every gradient at its place. That is a view again, no op;
//! - where two axes reach the same elements (overlapping windows), the shorter one is taken apart, and the sum of its
//!   parts is taken: an elementwise kernel over shifted views;
//! - what cannot be proved for all values of the symbols, or has too many parts, is a scatter that adds.

use super::build::Builder;
use crate::op::gradient::{GradientBuilder, Var};
use crate::op::{AxisSet, Op, ScatterMode};
use crate::shape::view::{Layer, View};
use crate::shape::{Dims, Expr, numel, same_size};

/// The most terms that a sum over overlapping windows may have.
const MAX_TERMS: i64 = 128;

/// The gradient by a tensor of dimensions `dims`, given the gradient by what `view` shows of it.
pub(super) fn transpose(
    build: &mut Builder<'_>,
    gradient: Var,
    view: &View,
    dims: &[Expr],
) -> Result<Var, String> {
    let layers = view.layers();
    let mut gradient = gradient;
    for (i, layer) in layers.iter().enumerate().rev() {
        let below: &[Expr] = if i == 0 { dims } else { &layers[i - 1].dims };
        gradient = through(build, gradient, layer, below)?;
    }
    Ok(gradient)
}

/// What is left of a layer: a gradient with an axis for each stride.
#[derive(Clone)]
struct Rest {
    gradient: Var,
    dims: Dims,
    strides: Dims,
    offset: Expr,
}

fn through(
    build: &mut Builder<'_>,
    gradient: Var,
    layer: &Layer,
    below: &[Expr],
) -> Result<Var, String> {
    let n = numel(below);
    if layer.is_contiguous() && same_size(numel(&layer.dims), n) {
        return build.reshape(gradient, below);
    }
    let is_nothing = |axis: usize| {
        let (low, high) = layer.range(axis);
        low == high
    };
    if (0..layer.dims.len()).any(is_nothing) {
        let dtype = build.ty(gradient).dtype;
        let ty = crate::op::TensorType::new(below.iter().copied().collect::<Dims>(), dtype);
        return (build as &mut dyn GradientBuilder).fill_as(&ty, 0.0);
    }
    let rest = unmask(build, gradient, layer)?;
    let rest = sum_broadcasts(build, rest)?;
    let flat = match upright(build, &rest)? {
        Some(upright) => match place(build, &upright, n, MAX_TERMS)? {
            Some(flat) => flat,
            None => scatter(build, &upright, n)?,
        },
        None => scatter(build, &rest, n)?,
    };
    build.reshape(flat, below)
}

/// Cuts off what reads padding.
fn unmask(build: &mut Builder<'_>, gradient: Var, layer: &Layer) -> Result<Rest, String> {
    let mut rest = Rest {
        gradient,
        dims: layer.dims.clone(),
        strides: layer.strides.clone(),
        offset: layer.offset,
    };
    for axis in 0..layer.dims.len() {
        let (low, high) = layer.range(axis);
        if (low, high) != (Expr::from(0), layer.dims[axis]) {
            rest.gradient = build.look(rest.gradient, |view| view.slice(axis, low, high, 1))?;
            rest.dims[axis] = high - low;
            rest.offset += low * rest.strides[axis];
        }
    }
    Ok(rest)
}

/// Sums over the axes that the layer does not walk.
fn sum_broadcasts(build: &mut Builder<'_>, mut rest: Rest) -> Result<Rest, String> {
    let is_still = |axis: &usize| rest.strides[*axis].is_zero();
    let still: Vec<usize> = (0..rest.dims.len()).filter(is_still).collect();
    let (ones, summed): (Vec<usize>, AxisSet) = {
        let (ones, summed): (Vec<usize>, Vec<usize>) =
            still.iter().partition(|&&axis| rest.dims[axis].is_one());
        (ones, summed.into_iter().collect())
    };
    for &axis in ones.iter().rev() {
        rest.gradient = build.look(rest.gradient, |view| view.squeeze(axis))?;
    }
    let moved = |axis: &usize| axis - ones.iter().filter(|one| *one < axis).count();
    let summed: AxisSet = summed.iter().map(moved).collect();
    rest.gradient = build.sum(rest.gradient, summed)?;
    for &axis in still.iter().rev() {
        rest.dims.remove(axis);
        rest.strides.remove(axis);
    }
    Ok(rest)
}

/// All strides positive and falling; `None` if their order depends on symbols.
fn upright(build: &mut Builder<'_>, rest: &Rest) -> Result<Option<Rest>, String> {
    let mut rest = rest.clone();
    for axis in 0..rest.dims.len() {
        let stride = rest.strides[axis];
        if stride.is_nonnegative() {
            continue;
        }
        if !(-stride).is_nonnegative() {
            return Ok(None);
        }
        rest.gradient = build.look(rest.gradient, |view| view.flip(axis))?;
        rest.offset += stride * (rest.dims[axis] - 1);
        rest.strides[axis] = -stride;
    }
    let mut order: Vec<usize> = (0..rest.dims.len()).collect();
    let at_least = |a: usize, b: usize| (rest.strides[a] - rest.strides[b]).is_nonnegative();
    for i in 1..order.len() {
        let mut at = i;
        while at > 0 && !at_least(order[at - 1], order[at]) {
            if !at_least(order[at], order[at - 1]) {
                return Ok(None);
            }
            order.swap(at - 1, at);
            at -= 1;
        }
    }
    rest.gradient = build.look(rest.gradient, |view| view.permute(&order))?;
    rest.dims = order.iter().map(|&axis| rest.dims[axis]).collect();
    rest.strides = order.iter().map(|&axis| rest.strides[axis]).collect();
    Ok(Some(rest))
}

/// `(quotient, remainder)`.
fn divide(a: Expr, b: Expr) -> (Expr, Expr) {
    match (a.as_const(), b.as_const()) {
        (Some(a), Some(b)) => (a.div_euclid(b).into(), a.rem_euclid(b).into()),
        _ => a.div_poly(b),
    }
}

/// How one axis fills the stride of the axis before it.
enum Fill {
    /// Padded by so many steps before and after, it is exactly the stride.
    Whole(Expr, Expr),
    /// Merged with what is within a step, moved by so many elements, then padded or cut to the stride.
    Cut(Expr),
}

/// The digits of each axis, and of what is within a step; `None` if an axis may reach the same elements as another one.
fn digits(rest: &Rest, n: Expr) -> Option<(Vec<Fill>, Expr)> {
    let mut left = rest.offset;
    let mut starts = Vec::new();
    for &stride in &rest.strides {
        let (start, remainder) = divide(left, stride);
        starts.push(start);
        left = remainder;
    }
    if !left.is_nonnegative() || !starts.iter().all(|start| start.is_nonnegative()) {
        return None;
    }
    let mut fills = Vec::new();
    // Elements from the start of a step to the end of what is in it.
    let mut content = left + 1;
    for axis in (0..rest.dims.len()).rev() {
        let (dim, stride, start) = (rest.dims[axis], rest.strides[axis], starts[axis]);
        if !(stride - content).is_nonnegative() {
            return None;
        }
        let outer = if axis == 0 { n } else { rest.strides[axis - 1] };
        content += (start + dim - 1) * stride;
        let (steps, remainder) = divide(outer, stride);
        let after = steps - start - dim;
        if remainder.is_zero() && after.is_nonnegative() {
            fills.push(Fill::Whole(start, after));
        } else if (outer - content).is_nonnegative() {
            fills.push(Fill::Cut(start * stride));
        } else {
            return None;
        }
    }
    fills.reverse();
    Some((fills, left))
}

/// The gradient as a line of `n` elements, each at its place; `None` if that would have too many terms.
fn place(
    build: &mut Builder<'_>,
    rest: &Rest,
    n: Expr,
    max_terms: i64,
) -> Result<Option<Var>, String> {
    let Some((fills, within)) = digits(rest, n) else {
        return take_apart(build, rest, n, max_terms);
    };
    let rank = rest.dims.len();
    let mut x = rest.gradient;
    // An axis for what is within one step of the last axis.
    let unit = rest.strides.last().copied().unwrap_or(n);
    x = build.look(x, |view| view.insert(rank, 1))?;
    x = build.look(x, |view| view.pad(rank, within, unit - within - 1))?;
    let mut last = rank;
    for axis in (0..rank).rev() {
        let outer = if axis == 0 { n } else { rest.strides[axis - 1] };
        match fills[axis] {
            Fill::Whole(before, after) => {
                x = build.look(x, |view| view.pad(axis, before, after))?;
            }
            Fill::Cut(before) => {
                x = build.look(x, |view| view.merge(axis, last - axis + 1))?;
                last = axis;
                let length = before + rest.dims[axis] * rest.strides[axis];
                x = build.look(x, |view| view.pad(axis, before, 0))?;
                x = match (length - outer).is_nonnegative() {
                    true => build.look(x, |view| view.slice(axis, 0, outer, 1))?,
                    false => build.look(x, |view| view.pad(axis, 0, outer - length))?,
                };
            }
        }
    }
    build.reshape(x, &[n]).map(Some)
}

/// A sum over the elements of the shortest axis, each of which is placed without it.
fn take_apart(
    build: &mut Builder<'_>,
    rest: &Rest,
    n: Expr,
    max_terms: i64,
) -> Result<Option<Var>, String> {
    let sizes = rest.dims.iter().enumerate();
    let sizes = sizes.filter_map(|(axis, dim)| dim.as_const().map(|size| (size, axis)));
    let Some((size, axis)) = sizes.min() else {
        return Ok(None);
    };
    if size > max_terms || rest.dims.len() < 2 {
        return Ok(None);
    }
    let mut terms = Vec::new();
    for k in 0..size {
        let mut part = rest.clone();
        part.gradient = build.look(part.gradient, |view| view.slice(axis, k, k + 1, 1))?;
        part.gradient = build.look(part.gradient, |view| view.squeeze(axis))?;
        part.offset += part.strides[axis] * k;
        part.dims.remove(axis);
        part.strides.remove(axis);
        match place(build, &part, n, max_terms / size.max(1))? {
            Some(term) => terms.push(term),
            None => return Ok(None),
        }
    }
    build.total(&terms)
}

/// Every gradient added to the element that its coordinates lead to.
fn scatter(build: &mut Builder<'_>, rest: &Rest, n: Expr) -> Result<Var, String> {
    let index = positions(build, rest)?;
    let count = [numel(&rest.dims)];
    let index = build.reshape(index, &count)?;
    let updates = build.reshape(rest.gradient, &count)?;
    let ty = crate::op::TensorType::new([n].into_iter().collect::<Dims>(), build.ty(updates).dtype);
    let zeros = (build as &mut dyn GradientBuilder).fill_as(&ty, 0.0)?;
    let add = Op::Scatter {
        axis: 0,
        mode: ScatterMode::Add,
    };
    build.apply(add, &[zeros, index, updates])
}

/// The number of the element that each coordinate leads to: `offset + Σ c[d] * strides[d]`.
fn positions(build: &mut Builder<'_>, rest: &Rest) -> Result<Var, String> {
    let size = |build: &mut Builder<'_>, value: Expr| {
        let number = build.apply(Op::Constant(crate::op::ConstantValue::Size(value)), &[])?;
        let mut dims = rest.dims.iter().enumerate();
        dims.try_fold(number, |x, (axis, &dim)| build.insert(x, axis, dim))
    };
    let mut total = size(build, rest.offset)?;
    for (axis, &stride) in rest.strides.iter().enumerate() {
        let line = build.apply(
            Op::Iota {
                len: rest.dims[axis],
            },
            &[],
        )?;
        let mut coordinate = line;
        for (other, &dim) in rest.dims.iter().enumerate() {
            if other != axis {
                coordinate = build.insert(coordinate, other, dim)?;
            }
        }
        let stride = size(build, stride)?;
        let build = build as &mut dyn GradientBuilder;
        let step = build.mul(coordinate, stride)?;
        total = build.add(total, step)?;
    }
    Ok(total)
}
