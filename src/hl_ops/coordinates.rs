//! Numbers that depend on the place: coordinates, sizes, and choosing by them.

use super::compare::select;
use super::movement::expand_view;
use super::operand::broadcast;
use crate::dtype::DType;
use crate::graph::GraphTensor;
use crate::op::{BinaryOp, Op};
use crate::shape::{Dims, Expr};

/// A size as an `I32` of no dimensions.
#[track_caller]
pub(crate) fn int(graph: u32, value: Expr) -> GraphTensor {
    match value.as_const() {
        Some(number) => GraphTensor::scalar(graph, DType::I32, number as f64),
        None => GraphTensor::size(graph, value),
    }
}

/// The coordinate on `axis`, for every element of a tensor of these dims, as `I32`.
#[track_caller]
pub(crate) fn coordinate(graph: u32, dims: &[Expr], axis: usize) -> GraphTensor {
    let line = GraphTensor::leaf(graph, Op::Iota { len: dims[axis] });
    let mut whole: Dims = dims.iter().map(|_| Expr::from(1)).collect();
    whole[axis] = dims[axis];
    line.look("coordinate", |view| {
        expand_view(&view.reshape(&whole)?, &Dims::from(dims))
    })
}

/// `a < b`, broadcast.
#[track_caller]
pub(crate) fn less(op: &str, a: GraphTensor, b: GraphTensor) -> GraphTensor {
    GraphTensor::record(Op::Binary(BinaryOp::LessThan), &broadcast(op, [a, b]))
}

/// `condition ? a : b`, broadcast.
#[track_caller]
pub(crate) fn pick(
    op: &str,
    condition: GraphTensor,
    a: GraphTensor,
    b: GraphTensor,
) -> GraphTensor {
    let [condition, a, b] = broadcast(op, [condition, a, b]);
    select(condition, a, b)
}

/// A constant of a tensor's format.
#[track_caller]
pub(crate) fn constant_like(x: GraphTensor, value: f64) -> GraphTensor {
    GraphTensor::scalar(x.graph, x.dtype(), value)
}

/// `x` where its coordinate on `axis` is in `low..high`, `value` elsewhere.
#[track_caller]
pub(crate) fn fill_outside(
    op: &str,
    x: GraphTensor,
    axis: usize,
    (low, high): (Expr, Expr),
    value: f64,
) -> GraphTensor {
    let dims = x.dims();
    let (at, value) = (coordinate(x.graph, &dims, axis), constant_like(x, value));
    let mut out = x;
    if high != dims[axis] {
        out = pick(op, less(op, at, int(x.graph, high)), out, value);
    }
    if !low.is_zero() {
        out = pick(op, less(op, at, int(x.graph, low)), value, out);
    }
    out
}
