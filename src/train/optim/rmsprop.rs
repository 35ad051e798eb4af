//! RMSprop, `torch.optim.RMSprop`.

use super::sgd::decayed;
use super::{Optimizer, Update};
use crate::graph::GraphTensor;
use crate::train::schedule::Rate;

/// Tieleman and Hinton (2012); centred as in Graves (2013).
///
/// ```text
/// g ← g + weight_decay * w
/// v ← α * v + (1 - α) * g²
/// a ← α * a + (1 - α) * g              centred: d = √(v - a²) + ε,  else d = √v + ε
/// b ← momentum * b + g / d             with momentum: w ← w - rate * b,  else w ← w - rate * g / d
/// ```
/// States: `square_avg`, `grad_avg` if centred, `momentum_buffer` if there is momentum.
#[derive(Clone, Debug)]
pub struct RmsProp {
    /// Learning rate.
    pub rate: Rate,
    /// Part of the averages that is kept.
    pub alpha: f64,
    /// What keeps the quotient finite.
    pub epsilon: f64,
    /// Part of the weight that is added to its gradient.
    pub weight_decay: f64,
    /// Part of the last direction that is kept.
    pub momentum: f64,
    /// Divides by the deviation instead of the root of the mean square.
    pub centered: bool,
}

impl RmsProp {
    /// PyTorch's defaults: α 0.99, ε 1e-8, nothing else.
    pub fn new(rate: impl Into<Rate>) -> RmsProp {
        RmsProp {
            rate: rate.into(),
            alpha: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            centered: false,
        }
    }
}

impl Optimizer for RmsProp {
    fn rate(&self) -> &Rate {
        &self.rate
    }

    fn update(&self, at: &mut Update<'_>) -> GraphTensor {
        let grad = decayed(at, self.weight_decay);
        let alpha = self.alpha;
        let mut spread = at.state("square_avg", 0.0, |v| {
            Update::average(v, grad.square(), alpha)
        });
        if self.centered {
            let mean = at.state("grad_avg", 0.0, |a| Update::average(a, grad, alpha));
            spread -= mean.square();
        }
        let mut direction = grad / (spread.sqrt() + self.epsilon);
        if self.momentum != 0.0 {
            direction = at.state("momentum_buffer", 0.0, |b| b * self.momentum + direction);
        }
        at.param - direction * at.narrow(at.rate)
    }
}
