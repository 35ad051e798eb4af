//! Long short-term memory.

use super::module::{Module, Visitor};
use super::recurrent::{RecurrentConfig, Stack, Weights};
use crate::graph::{Graph, GraphTensor};

/// `c' = f c + i g`, `h' = o tanh(c')` at every step, with gates `i, f, o` (sigmoid) and `g` (tanh) of the input and the
/// state before (Hochreiter and Schmidhuber 1997, Gers et al. 2000). Parameters are named, and gates ordered, as in
/// PyTorch: `i, f, g, o`.
#[derive(Clone, Debug)]
pub struct Lstm {
    stack: Stack<2>,
}

impl Lstm {
    /// A layer whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Lstm, Module, RecurrentConfig};
    /// let mut cx = Graph::new();
    /// let config = RecurrentConfig { bidirectional: true, ..RecurrentConfig::new(2, 3) };
    /// let layer = Lstm::new(&mut cx, config);
    /// assert!(layer.parameters().get("weight_hh_l0_reverse").is_some());
    /// let x = cx.input((5, 4, 2), DType::F32);
    /// assert_eq!(layer.forward(x).ty().to_string(), "f32[5, 4, 6]");
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, config: RecurrentConfig) -> Lstm {
        let stack = Stack::new(cx, config, 4);
        Lstm { stack }
    }

    /// Outputs of all steps, and `(h, c)` after the last, each `[layers * directions, batch, hidden]`; from zeros, or from
    /// given `(h, c)` of that shape.
    ///
    /// # Panics
    /// If shapes do not fit, or the number of steps is symbolic.
    #[track_caller]
    pub fn run(
        &self,
        x: GraphTensor,
        initial: Option<(GraphTensor, GraphTensor)>,
    ) -> (GraphTensor, (GraphTensor, GraphTensor)) {
        let step = |weights: &Weights, x: GraphTensor, [h, c]: [GraphTensor; 2]| {
            let gates = (x + weights.of_state(h)).chunk(4, -1);
            let (i, f, g, o) = (
                gates[0].sigmoid(),
                gates[1].sigmoid(),
                gates[2].tanh(),
                gates[3].sigmoid(),
            );
            let c = f * c + i * g;
            [o * c.tanh(), c]
        };
        let (out, [h, c]) = self.stack.run(x, initial.map(|(h, c)| [h, c]), step);
        (out, (h, c))
    }

    /// Outputs of all steps, from a state of zeros.
    ///
    /// # Panics
    /// As [`Lstm::run`].
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        self.run(x, None).0
    }
}

impl Module for Lstm {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.stack.visit(visitor);
    }
}
