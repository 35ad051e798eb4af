//! Muon, `torch.optim.Muon`.

use super::adam::shrunk;
use super::{Optimizer, Update, numbers};
use crate::graph::GraphTensor;
use crate::train::schedule::Rate;

/// Jordan et al. (2024), "Muon: An optimizer for hidden layers in neural networks": momentum whose singular values are
/// brought near 1.
///
/// ```text
/// b ← momentum * b + (1 - momentum) * g
/// u = (1 - momentum) * g + momentum * b  (nesterov),  or  u = b
/// w ← w * (1 - rate * weight_decay) - rate * adjust * orthogonal(u)
/// ```
/// For matrices only: a convolution's weights are reshaped by the caller, and biases, gains and embeddings want another
/// optimizer, see [`Split`](super::Split). The iteration runs in the parameter's format (PyTorch's in `bf16`).
///
/// State: `momentum_buffer`.
#[derive(Clone, Debug)]
pub struct Muon {
    /// Learning rate.
    pub rate: Rate,
    /// Part of the weight that decays, per unit of the rate.
    pub weight_decay: f64,
    /// Part of the last direction that is kept.
    pub momentum: f64,
    /// The gradient where the momentum leads.
    pub nesterov: bool,
    /// Coefficients of `a x + b x³ + c x⁵`.
    pub coefficients: [f64; 3],
    /// What keeps the quotient by the norm finite.
    pub epsilon: f64,
    /// Number of iterations.
    pub iterations: usize,
    /// How the rate depends on the matrix's shape.
    pub adjust: Adjust,
}

/// What the rate of an `[n, m]` matrix is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjust {
    /// `√max(1, n / m)`.
    Original,
    /// `0.2 √max(n, m)`: steps as large as AdamW's (Liu et al., 2025).
    MatchRmsAdamW,
}

impl Muon {
    /// PyTorch's defaults.
    pub fn new(rate: impl Into<Rate>) -> Muon {
        Muon {
            rate: rate.into(),
            weight_decay: 0.1,
            momentum: 0.95,
            nesterov: true,
            coefficients: [3.4445, -4.775, 2.0315],
            epsilon: 1e-7,
            iterations: 5,
            adjust: Adjust::Original,
        }
    }

    /// A matrix with nearly the singular vectors of `u` and singular values near 1, by iterations of Newton and Schulz:
    /// `x ← a x + (b x xᵀ + c (x xᵀ)²) x`.
    fn orthogonal(&self, u: GraphTensor) -> GraphTensor {
        let [a, b, c] = self.coefficients;
        let dims = numbers(u);
        let turned = dims[0] > dims[1];
        let mut x = if turned { u.transpose(0, 1) } else { u };
        let norm = x.square().sum(..).sqrt();
        x /= norm.maximum(self.epsilon);
        for _ in 0..self.iterations {
            let gram = x.matmul(x.transpose(0, 1));
            let factor = gram * b + gram.matmul(gram) * c;
            x = x * a + factor.matmul(x);
        }
        if turned { x.transpose(0, 1) } else { x }
    }
}

impl Optimizer for Muon {
    fn rate(&self) -> &Rate {
        &self.rate
    }

    /// # Panics
    /// If the parameter is no matrix.
    fn update(&self, at: &mut Update<'_>) -> GraphTensor {
        let rank = at.param.rank();
        assert_eq!(rank, 2, "Muon is for matrices; `{}` is none", at.name());
        let (grad, mu) = (at.grad, self.momentum);
        let buffer = at.state("momentum_buffer", 0.0, |b| Update::average(b, grad, mu));
        let direction = match self.nesterov {
            true => Update::average(buffer, grad, mu),
            false => buffer,
        };
        let dims = numbers(at.param);
        let (n, m) = (dims[0] as f64, dims[1] as f64);
        let factor = match self.adjust {
            Adjust::Original => (n / m).max(1.0).sqrt(),
            Adjust::MatchRmsAdamW => 0.2 * n.max(m).sqrt(),
        };
        let size = at.narrow(at.rate * factor);
        shrunk(at, self.weight_decay) - self.orthogonal(direction) * size
    }
}
