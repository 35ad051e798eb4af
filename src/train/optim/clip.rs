//! Gradients that are kept from growing too large.

use crate::dtype::DType;
use crate::graph::GraphTensor;

/// What keeps the quotient of norms finite.
const EPSILON: f64 = 1e-6;

/// The norm of all gradients together, an `F32` (or `F64`) of no dimensions.
///
/// # Panics
/// At the caller's line, if there is no gradient.
#[track_caller]
pub fn grad_norm(grads: &[GraphTensor]) -> GraphTensor {
    let squares = grads.iter().map(|grad| {
        let dtype = super::wide(grad.dtype());
        grad.cast(dtype).square().sum(..).cast(DType::F64)
    });
    let total = squares.reduce(|sum, one| sum + one);
    let total = total.expect("clipping needs at least one gradient");
    total.sqrt().cast(super::wide(grads[0].dtype()))
}

/// The gradients, scaled so that their common norm is at most `max`, and the norm that they had:
/// `torch.nn.utils.clip_grad_norm_` (Pascanu et al., 2013).
///
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::optim::clip_grad_norm;
/// let mut cx = Graph::new();
/// let (a, b) = (cx.input(1, DType::F32).set([3.0]), cx.input(1, DType::F32).set([4.0]));
/// let (clipped, norm) = clip_grad_norm(&[a, b], 1.0);
/// clipped.iter().for_each(|grad| { grad.retrieve(); });
/// norm.retrieve();
/// cx.execute();
/// assert_eq!(norm.data(), [5.0]);
/// assert!((clipped[0].data()[0] - 0.6).abs() < 1e-6 && (clipped[1].data()[0] - 0.8).abs() < 1e-6);
/// ```
///
/// # Panics
/// At the caller's line, if there is no gradient.
#[track_caller]
pub fn clip_grad_norm(grads: &[GraphTensor], max: f64) -> (Vec<GraphTensor>, GraphTensor) {
    let norm = grad_norm(grads);
    let part = (max / (norm.cast(DType::F64) + EPSILON)).minimum(1.0);
    let clipped = grads.iter().map(|&grad| {
        let dtype = super::wide(grad.dtype());
        (grad.cast(dtype) * part.cast(dtype)).cast(grad.dtype())
    });
    (clipped.collect(), norm)
}

/// The gradients with every element between `-max` and `max`: `torch.nn.utils.clip_grad_value_`.
#[track_caller]
pub fn clip_grad_value(grads: &[GraphTensor], max: f64) -> Vec<GraphTensor> {
    let clipped = grads.iter().map(|grad| grad.clamp(-max, max));
    clipped.collect()
}
