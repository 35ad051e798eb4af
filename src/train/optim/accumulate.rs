//! One update for several batches.

use super::{Named, States, wide};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};

/// Gradients over several executions.
pub struct Accumulated {
    /// The mean of the gradients since the last update, those of this execution among them.
    pub grads: Vec<GraphTensor>,
    /// Whether this execution completes the mean, a boolean of no dimensions.
    pub is_due: GraphTensor,
    /// The sums so far, `accumulated` of each parameter, and the counter `micro_step`.
    pub states: States,
}

/// Averages the gradients of `every` executions: batches larger than what fits at once. With
/// [`Optimizer::step_when`](super::Optimizer::step_when) every `every`-th execution moves the parameters.
///
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::optim::{Optimizer, Sgd, accumulate};
/// let mut cx = Graph::new();
/// let w = cx.input(1, DType::F32).set([1.0]);
/// let g = cx.input(1, DType::F32).set([1.0]);
/// let mean = accumulate(&mut cx, &[w], &[g], 2);
/// Sgd::new(0.5).step_when(&mut cx, mean.is_due, &[w], &mean.grads);
/// cx.execute();
/// assert_eq!(w.data(), [1.0]);
/// g.set([2.0]);
/// cx.execute();
/// assert_eq!(w.data(), [0.25]); // 1 - 0.5 * (1 + 2) / 2
/// ```
///
/// The update is computed in every execution and thrown away in all but one; next to forward and backward passes it is
/// little. Only then clipping sees the mean.
///
/// # Panics
/// At the caller's line, if there is not one gradient for each parameter, a size is symbolic, or `every` is 0.
#[track_caller]
pub fn accumulate(
    cx: &mut Graph,
    params: &(impl Named + ?Sized),
    grads: &[GraphTensor],
    every: usize,
) -> Accumulated {
    assert!(every > 0, "an update after 0 batches");
    let params = params.named();
    assert_eq!(
        params.len(),
        grads.len(),
        "one gradient for each parameter is accumulated"
    );
    let mut states = States::default();
    let count = cx.scalar(0.0, DType::I32);
    let name = "micro_step".to_string();
    states.add(cx, name, (count, 0.0), None, |n| (n + 1) % every);
    let n = states.entries[0].1;
    let part = (every as f64).recip();
    let mut means = Vec::new();
    for ((name, _), grad) in params.iter().zip(grads) {
        let grad = grad.detach().cast(wide(grad.dtype()));
        let name = format!("{name}.accumulated");
        let mean = states.add(cx, name, (grad, 0.0), None, |sum| {
            n.eq(0).where_(0.0, sum) + grad * part
        });
        means.push(mean);
    }
    Accumulated {
        grads: means,
        is_due: n.eq(every - 1),
        states,
    }
}
