//! Adagrad, `torch.optim.Adagrad`.

use super::sgd::decayed;
use super::{Optimizer, Update};
use crate::graph::GraphTensor;
use crate::train::schedule::Rate;

/// Duchi et al. (2011).
///
/// ```text
/// g ← g + weight_decay * w
/// s ← s + g²
/// w ← w - rate / (1 + (t - 1) * rate_decay) * g / (√s + ε)
/// ```
/// State: `sum`.
#[derive(Clone, Debug)]
pub struct Adagrad {
    /// Learning rate.
    pub rate: Rate,
    /// How fast the rate falls beside its schedule.
    pub rate_decay: f64,
    /// Part of the weight that is added to its gradient.
    pub weight_decay: f64,
    /// First value of `sum`.
    pub initial: f64,
    /// What keeps the quotient finite.
    pub epsilon: f64,
}

impl Adagrad {
    /// PyTorch's defaults: ε 1e-10, nothing else.
    pub fn new(rate: impl Into<Rate>) -> Adagrad {
        Adagrad {
            rate: rate.into(),
            rate_decay: 0.0,
            weight_decay: 0.0,
            initial: 0.0,
            epsilon: 1e-10,
        }
    }
}

impl Optimizer for Adagrad {
    fn rate(&self) -> &Rate {
        &self.rate
    }

    fn update(&self, at: &mut Update<'_>) -> GraphTensor {
        let grad = decayed(at, self.weight_decay);
        let sum = at.state("sum", self.initial, |s| s + grad.square());
        let rate = match self.rate_decay {
            0.0 => at.rate,
            decay => at.rate / ((at.step - 1.0) * decay + 1.0),
        };
        at.param - grad * at.narrow(rate) / (sum.sqrt() + self.epsilon)
    }
}
