//! Two optimizers for one model.

use super::{Optimizer, Update};
use crate::graph::GraphTensor;
use crate::train::schedule::Rate;

/// One optimizer for the parameters that are chosen, another for the rest: Muon for matrices and AdamW for what is
/// none, or a decay for weights but not for biases.
///
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::optim::{AdamW, Muon, Optimizer, Split};
/// let mut cx = Graph::new();
/// let (w, b) = (cx.input((2, 2), DType::F32).set_zeros(), cx.input(2, DType::F32).set_zeros());
/// let optimizer = Split::new(Muon::new(0.02), AdamW::new(1e-3), |_, tensor| tensor.rank() == 2);
/// let states = optimizer.step(&mut cx, &[w, b], &[w + 1.0, b + 1.0]);
/// let names: Vec<_> = states.iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["step", "0.momentum_buffer", "1.exp_avg", "1.exp_avg_sq"]);
/// ```
pub struct Split<A, B, F> {
    chosen: A,
    others: B,
    choice: F,
}

impl<A, B, F> Split<A, B, F>
where
    A: Optimizer,
    B: Optimizer,
    F: Fn(&str, GraphTensor) -> bool,
{
    /// `chosen` for the parameters of which `choice` says so, by name and tensor, `others` for the rest.
    pub fn new(chosen: A, others: B, choice: F) -> Split<A, B, F> {
        Split {
            chosen,
            others,
            choice,
        }
    }
}

impl<A, B, F> Optimizer for Split<A, B, F>
where
    A: Optimizer,
    B: Optimizer,
    F: Fn(&str, GraphTensor) -> bool,
{
    /// That of the chosen ones; the others have their own.
    fn rate(&self) -> &Rate {
        self.chosen.rate()
    }

    fn update(&self, at: &mut Update<'_>) -> GraphTensor {
        if (self.choice)(at.name(), at.param) {
            return self.chosen.update(at);
        }
        let rate = std::mem::replace(&mut at.rate, self.others.rate().record(at.done));
        let new = self.others.update(at);
        at.rate = rate;
        new
    }
}
