//! The plain recurrent layer.

use super::activation::Activation;
use super::module::{Module, Visitor};
use super::recurrent::{RecurrentConfig, Stack, Weights};
use crate::graph::{Graph, GraphTensor};

/// `h' = f(W_ih x + b_ih + W_hh h + b_hh)` at every step (Elman 1990); parameters are named as in PyTorch.
#[derive(Clone, Debug)]
pub struct Rnn {
    stack: Stack<1>,
    /// `f`: the hyperbolic tangent, or another.
    pub activation: Activation,
}

impl Rnn {
    /// A layer whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Module, RecurrentConfig, Rnn};
    /// let mut cx = Graph::new();
    /// let layer = Rnn::new(&mut cx, RecurrentConfig::new(2, 3));
    /// layer.init(7);
    /// let x = cx.input((5, 4, 2), DType::F32).set(vec![0.5; 40]);
    /// let (y, h) = layer.run(x, None);
    /// assert_eq!((y.ty().to_string(), h.ty().to_string()), ("f32[5, 4, 3]".into(), "f32[1, 4, 3]".into()));
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, config: RecurrentConfig) -> Rnn {
        Rnn {
            stack: Stack::new(cx, config, 1),
            activation: Activation::Tanh,
        }
    }

    /// Outputs of all steps, and the states after the last, `[layers * directions, batch, hidden]`; from zeros, or from
    /// given states of that shape.
    ///
    /// # Panics
    /// If shapes do not fit, or the number of steps is symbolic.
    #[track_caller]
    pub fn run(&self, x: GraphTensor, initial: Option<GraphTensor>) -> (GraphTensor, GraphTensor) {
        let step = |weights: &Weights, x: GraphTensor, [h]: [GraphTensor; 1]| {
            [self.activation.forward(x + weights.of_state(h))]
        };
        let (out, [h]) = self.stack.run(x, initial.map(|h| [h]), step);
        (out, h)
    }

    /// Outputs of all steps, from a state of zeros.
    ///
    /// # Panics
    /// As [`Rnn::run`].
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        self.run(x, None).0
    }
}

impl Module for Rnn {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.stack.visit(visitor);
    }
}
