//! Stochastic gradient descent, `torch.optim.SGD`.

use super::{Optimizer, Update};
use crate::graph::GraphTensor;
use crate::train::schedule::Rate;

/// `w ← w - rate * g`, with momentum as in Sutskever et al. (2013).
///
/// ```text
/// g ← g + weight_decay * w
/// b ← momentum * b + (1 - dampening) * g        b = g at the first step
/// g ← g + momentum * b  (nesterov),  or  b
/// ```
/// State: `momentum_buffer`, if there is momentum.
#[derive(Clone, Debug)]
pub struct Sgd {
    /// Learning rate.
    pub rate: Rate,
    /// Part of the last direction that is kept.
    pub momentum: f64,
    /// Part of a gradient that does not enter the direction.
    pub dampening: f64,
    /// Part of the weight that is added to its gradient.
    pub weight_decay: f64,
    /// Nesterov's momentum: the gradient where the momentum leads.
    pub nesterov: bool,
}

impl Sgd {
    /// Plain gradient descent.
    pub fn new(rate: impl Into<Rate>) -> Sgd {
        Sgd {
            rate: rate.into(),
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
        }
    }
}

/// The gradient with the weight's decay in it.
#[track_caller]
pub(super) fn decayed(at: &Update<'_>, weight_decay: f64) -> GraphTensor {
    match weight_decay {
        0.0 => at.grad,
        decay => at.grad + at.param * decay,
    }
}

impl Optimizer for Sgd {
    fn rate(&self) -> &Rate {
        &self.rate
    }

    fn update(&self, at: &mut Update<'_>) -> GraphTensor {
        let mut grad = decayed(at, self.weight_decay);
        if self.momentum != 0.0 {
            let kept = 1.0 - self.dampening;
            let part = at.step.lt(1.5).where_(at.step.full_like(1.0), kept);
            let fresh = match self.dampening {
                0.0 => grad,
                _ => grad * at.narrow(part),
            };
            let buffer = at.state("momentum_buffer", 0.0, |b| b * self.momentum + fresh);
            grad = match self.nesterov {
                true => grad + buffer * self.momentum,
                false => buffer,
            };
        }
        at.param - grad * at.narrow(at.rate)
    }
}
