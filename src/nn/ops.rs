//! Small compositions that several layers share.

use crate::graph::{GraphTensor, Shape};
use crate::op::Op;
use crate::shape::Expr;

/// `0, 1, ..` as `I32 [len]`, in the graph of `like`.
#[track_caller]
pub(crate) fn iota(like: GraphTensor, len: Expr) -> GraphTensor {
    GraphTensor::leaf(like.graph, Op::Iota { len })
}

/// `cap * tanh(x / cap)`: close to `x` where it is small, never beyond the cap.
///
/// ```
/// # use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// let x = cx.tensor::<R1<2>>().set([0.01, 1000.0]);
/// let y = brain_blitz::nn::soft_cap(x, 30.0).retrieve();
/// cx.execute();
/// assert!((y.data()[0] - 0.01).abs() < 1e-6 && y.data()[1] == 30.0);
/// ```
///
/// # Panics
/// If the format is not a floating-point one.
#[track_caller]
pub fn soft_cap<S: Shape>(x: GraphTensor<S>, cap: f64) -> GraphTensor<S> {
    ((x.dynamic() * (1.0 / cap)).tanh() * cap).retag()
}
