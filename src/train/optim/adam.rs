//! Adam and AdamW, `torch.optim.Adam` and `torch.optim.AdamW`.

use super::sgd::decayed;
use super::{Optimizer, Update};
use crate::graph::GraphTensor;
use crate::train::schedule::Rate;

/// Kingma and Ba (2015), with the weights' decay in the gradient.
///
/// ```text
/// g ← g + weight_decay * w
/// m ← β1 * m + (1 - β1) * g
/// v ← β2 * v + (1 - β2) * g²
/// w ← w - rate / (1 - β1^t) * m / (√v / √(1 - β2^t) + ε)
/// ```
/// States: `exp_avg`, `exp_avg_sq`, and `max_exp_avg_sq` with `amsgrad`.
#[derive(Clone, Debug)]
pub struct Adam {
    /// Learning rate.
    pub rate: Rate,
    /// Part of the gradients' average that is kept.
    pub beta1: f64,
    /// Part of the squares' average that is kept.
    pub beta2: f64,
    /// What keeps the quotient finite.
    pub epsilon: f64,
    /// Part of the weight that is added to its gradient.
    pub weight_decay: f64,
    /// Divides by the largest `v` there was (Reddi et al., 2018).
    pub amsgrad: bool,
}

/// Loshchilov and Hutter (2019): Adam whose weights decay on their own, `w ← w * (1 - rate * weight_decay)` first.
///
/// States: those of [`Adam`].
#[derive(Clone, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub rate: Rate,
    /// Part of the gradients' average that is kept.
    pub beta1: f64,
    /// Part of the squares' average that is kept.
    pub beta2: f64,
    /// What keeps the quotient finite.
    pub epsilon: f64,
    /// Part of the weight that decays, per unit of the rate.
    pub weight_decay: f64,
    /// Divides by the largest `v` there was (Reddi et al., 2018).
    pub amsgrad: bool,
}

impl Adam {
    /// PyTorch's defaults: β 0.9 and 0.999, ε 1e-8, no decay.
    pub fn new(rate: impl Into<Rate>) -> Adam {
        Adam {
            rate: rate.into(),
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            amsgrad: false,
        }
    }

    /// `w` moved by what the moments of `grad` say.
    #[track_caller]
    fn moved(&self, at: &mut Update<'_>, w: GraphTensor, grad: GraphTensor) -> GraphTensor {
        let (beta1, beta2) = (self.beta1, self.beta2);
        let m = at.state("exp_avg", 0.0, |m| Update::average(m, grad, beta1));
        let mut v = at.state("exp_avg_sq", 0.0, |v| {
            Update::average(v, grad.square(), beta2)
        });
        if self.amsgrad {
            v = at.state("max_exp_avg_sq", 0.0, |most| most.maximum(v));
        }
        let size = at.narrow(at.rate / at.seen(beta1));
        let unbias = at.narrow(at.seen(beta2).rsqrt());
        w - m * size / (v.sqrt() * unbias + self.epsilon)
    }
}

impl AdamW {
    /// PyTorch's defaults: those of [`Adam::new`], and a decay of 0.01.
    pub fn new(rate: impl Into<Rate>) -> AdamW {
        let plain = Adam::new(rate);
        AdamW {
            rate: plain.rate,
            beta1: plain.beta1,
            beta2: plain.beta2,
            epsilon: plain.epsilon,
            weight_decay: 0.01,
            amsgrad: plain.amsgrad,
        }
    }
}

/// The weight after a decay of its own.
#[track_caller]
pub(super) fn shrunk(at: &Update<'_>, weight_decay: f64) -> GraphTensor {
    match weight_decay {
        0.0 => at.param,
        decay => at.param * at.narrow(1.0 - at.rate * decay),
    }
}

impl Optimizer for Adam {
    fn rate(&self) -> &Rate {
        &self.rate
    }

    fn update(&self, at: &mut Update<'_>) -> GraphTensor {
        let grad = decayed(at, self.weight_decay);
        self.moved(at, at.param, grad)
    }
}

impl Optimizer for AdamW {
    fn rate(&self) -> &Rate {
        &self.rate
    }

    fn update(&self, at: &mut Update<'_>) -> GraphTensor {
        let inner = Adam {
            rate: self.rate.clone(),
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            weight_decay: 0.0,
            amsgrad: self.amsgrad,
        };
        let w = shrunk(at, self.weight_decay);
        inner.moved(at, w, at.grad)
    }
}
