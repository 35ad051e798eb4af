//! Running averages of weights.

use super::{Named, States, wide};
use crate::graph::{Graph, GraphTensor};

/// An exponential average of each parameter over the steps, often better than the last one (Polyak and Juditsky, 1992):
/// `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`.
///
/// ```text
/// e ← w at the first step, then decay * e + (1 - decay) * w      with w after its update
/// ```
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::optim::{Ema, Optimizer, Sgd};
/// let mut cx = Graph::new();
/// let w = cx.input(1, DType::F32).set([4.0]);
/// let states = Sgd::new(1.0).step(&mut cx, &[w], &[w * 0.5]);
/// let averages = Ema { decay: 0.75 }.record(&mut cx, &[w], &states);
/// cx.execute();
/// cx.execute();
/// let average = averages.get("0.ema").expect("that of the only parameter");
/// assert_eq!((w.data(), average.data()), (vec![1.0], vec![1.75]));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Ema {
    /// Part of the average that is kept.
    pub decay: f64,
}

impl Ema {
    /// Averages the new values that an optimizer's step recorded; the states are `ema` of each parameter. Where the step
    /// only counts sometimes ([`Optimizer::step_when`](super::Optimizer::step_when)), so does the average.
    ///
    /// # Panics
    /// At the caller's line, if the step had other parameters.
    #[track_caller]
    pub fn record(&self, cx: &mut Graph, params: &(impl Named + ?Sized), step: &States) -> States {
        let params = params.named();
        assert_eq!(
            params.len(),
            step.updated.len(),
            "the averages' parameters are those of the step"
        );
        let done = step.get("step").expect("every step counts");
        let is_first = done.eq(0);
        let mut states = States::default();
        for ((name, _), &new) in params.iter().zip(&step.updated) {
            let new: GraphTensor = new.cast(wide(new.dtype()));
            let name = format!("{name}.ema");
            states.add(cx, name, (new, 0.0), step.when, |old| {
                let moved = old * self.decay + new * (1.0 - self.decay);
                is_first.where_(new, moved)
            });
        }
        states
    }
}
