//! Gated recurrent units.

use super::module::{Module, Visitor};
use super::recurrent::{RecurrentConfig, Stack, Weights};
use crate::graph::{Graph, GraphTensor};

/// `h' = (1 - z) n + z h` at every step, with gates `r, z` (sigmoid) and `n = tanh(x_n + r h_n)` of the input and the state
/// before (Cho et al. 2014). Parameters are named, and gates ordered, as in PyTorch: `r, z, n`.
#[derive(Clone, Debug)]
pub struct Gru {
    stack: Stack<1>,
}

impl Gru {
    /// A layer whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Gru, Module, RecurrentConfig};
    /// let mut cx = Graph::new();
    /// let config = RecurrentConfig { batch_first: true, ..RecurrentConfig::new(2, 3) };
    /// let layer = Gru::new(&mut cx, config);
    /// let x = cx.input(('b', 5, 2), DType::F32);
    /// assert_eq!(layer.forward(x).ty().to_string(), "f32[b, 5, 3]");
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, config: RecurrentConfig) -> Gru {
        let stack = Stack::new(cx, config, 3);
        Gru { stack }
    }

    /// Outputs of all steps, and the states after the last, `[layers * directions, batch, hidden]`; from zeros, or from
    /// given states of that shape.
    ///
    /// # Panics
    /// If shapes do not fit, or the number of steps is symbolic.
    #[track_caller]
    pub fn run(&self, x: GraphTensor, initial: Option<GraphTensor>) -> (GraphTensor, GraphTensor) {
        let step = |weights: &Weights, x: GraphTensor, [h]: [GraphTensor; 1]| {
            let (x, own) = (x.chunk(3, -1), weights.of_state(h).chunk(3, -1));
            let reset = (x[0] + own[0]).sigmoid();
            let keep = (x[1] + own[1]).sigmoid();
            let new = (x[2] + reset * own[2]).tanh();
            [new + keep * (h - new)]
        };
        let (out, [h]) = self.stack.run(x, initial.map(|h| [h]), step);
        (out, h)
    }

    /// Outputs of all steps, from a state of zeros.
    ///
    /// # Panics
    /// As [`Gru::run`].
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        self.run(x, None).0
    }
}

impl Module for Gru {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.stack.visit(visitor);
    }
}
