//! Lion.

use super::adam::shrunk;
use super::{Optimizer, Update};
use crate::graph::GraphTensor;
use crate::train::schedule::Rate;

/// Chen et al. (2023), "Symbolic Discovery of Optimization Algorithms", algorithm 2: steps of one size.
///
/// ```text
/// w ← w * (1 - rate * weight_decay) - rate * sign(β1 * m + (1 - β1) * g)
/// m ← β2 * m + (1 - β2) * g
/// ```
/// State: `exp_avg`.
#[derive(Clone, Debug)]
pub struct Lion {
    /// Learning rate; a third to a tenth of AdamW's.
    pub rate: Rate,
    /// Part of the momentum in the direction.
    pub beta1: f64,
    /// Part of the momentum that is kept.
    pub beta2: f64,
    /// Part of the weight that decays, per unit of the rate.
    pub weight_decay: f64,
}

impl Lion {
    /// The paper's defaults: β 0.9 and 0.99, no decay.
    pub fn new(rate: impl Into<Rate>) -> Lion {
        Lion {
            rate: rate.into(),
            beta1: 0.9,
            beta2: 0.99,
            weight_decay: 0.0,
        }
    }
}

impl Optimizer for Lion {
    fn rate(&self) -> &Rate {
        &self.rate
    }

    fn update(&self, at: &mut Update<'_>) -> GraphTensor {
        let grad = at.grad;
        let mut direction = grad;
        at.state("exp_avg", 0.0, |m| {
            direction = Update::average(m, grad, self.beta1);
            Update::average(m, grad, self.beta2)
        });
        shrunk(at, self.weight_decay) - direction.sign() * at.narrow(at.rate)
    }
}
