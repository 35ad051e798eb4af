//! Closed-form continuous-time networks (Hasani et al. 2022, Nature Machine Intelligence 4).
//!
//! A liquid time-constant network without its differential equation: the state after a gap of time `t` is written down,
//! `h' = (1 - s) g + s k` with `s = sigmoid(a t + b)`, where `g` and `k` (tanh) and the speeds `a` and `b` are linear
//! functions of what a backbone makes of the input and the state before.

use super::linear::Linear;
use super::module::{Module, Visitor};
use super::recurrent::{row, steps};
use crate::graph::{Graph, GraphTensor};
use crate::shape::Expr;

/// Sizes of a [`Cfc`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CfcConfig {
    /// Width of the input.
    pub input: usize,
    /// Width of the state.
    pub hidden: usize,
    /// Width of the backbone.
    pub backbone: usize,
    /// Number of linear layers in the backbone.
    pub backbone_layers: usize,
}

/// A recurrent layer whose steps may lie any time apart.
#[derive(Clone, Debug)]
pub struct Cfc {
    /// From the input and the state side by side.
    pub backbone: Vec<Linear>,
    /// The state that time leads away from.
    pub ff1: Linear,
    /// The state that time leads to.
    pub ff2: Linear,
    /// The speed.
    pub time_a: Linear,
    /// The offset.
    pub time_b: Linear,
    hidden: usize,
}

/// `1.7159 tanh(2/3 x)` (LeCun et al. 1998).
#[track_caller]
fn lecun_tanh(x: GraphTensor) -> GraphTensor {
    (x * 0.666).tanh() * 1.7159
}

impl Cfc {
    /// A layer whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Cfc, CfcConfig, Module};
    /// let mut cx = Graph::new();
    /// let config = CfcConfig { input: 2, hidden: 3, backbone: 8, backbone_layers: 1 };
    /// let layer = Cfc::new(&mut cx, config);
    /// layer.init(7);
    /// let x = cx.input((5, 4, 2), DType::F32);
    /// let gaps = cx.input((5, 4), DType::F32);
    /// let (y, h) = layer.run(x, Some(gaps), None);
    /// assert_eq!((y.ty().to_string(), h.ty().to_string()), ("f32[5, 4, 3]".into(), "f32[4, 3]".into()));
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, config: CfcConfig) -> Cfc {
        let mut width = config.input + config.hidden;
        let mut backbone = Vec::new();
        for _ in 0..config.backbone_layers {
            backbone.push(Linear::new(cx, width, config.backbone, true));
            width = config.backbone;
        }
        let mut head = || Linear::new(cx, width, config.hidden, true);
        Cfc {
            ff1: head(),
            ff2: head(),
            time_a: head(),
            time_b: head(),
            backbone,
            hidden: config.hidden,
        }
    }

    /// One step: the state `[b, hidden]` a time `gap` (`[b]`) after the state before, with an input `[b, input]`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn step(&self, x: GraphTensor, h: GraphTensor, gap: GraphTensor) -> GraphTensor {
        let mut x = GraphTensor::concat(&[x, h], -1);
        for layer in &self.backbone {
            x = lecun_tanh(layer.forward(x));
        }
        let (from, to) = (self.ff1.forward(x).tanh(), self.ff2.forward(x).tanh());
        let speed = self.time_a.forward(x) * gap.unsqueeze(-1);
        let share = (speed + self.time_b.forward(x)).sigmoid();
        from * (1.0 - share) + share * to
    }

    /// Outputs of all steps of `x [steps, b, input]`, `[steps, b, hidden]`, and the last state `[b, hidden]`. `gaps [steps, b]`
    /// are the times before each step, 1 if not given; the first state is 0 if not given.
    ///
    /// # Panics
    /// If shapes do not fit, or the number of steps is symbolic.
    #[track_caller]
    pub fn run(
        &self,
        x: GraphTensor,
        gaps: Option<GraphTensor>,
        initial: Option<GraphTensor>,
    ) -> (GraphTensor, GraphTensor) {
        let (n, batch) = (steps(x), x.dims()[1]);
        let number = |value| GraphTensor::scalar(x.graph, x.dtype(), value);
        let zeros = || number(0.0).expand([batch, Expr::from(self.hidden)]);
        let mut h = initial.unwrap_or_else(zeros);
        let mut outputs = Vec::new();
        for i in 0..n {
            let gap = match gaps {
                Some(gaps) => row(gaps, i),
                None => number(1.0).expand([batch]),
            };
            h = self.step(row(x, i), h, gap);
            outputs.push(h);
        }
        (GraphTensor::stack(&outputs, 0), h)
    }

    /// Outputs of all steps, one unit of time apart, from a state of zeros.
    ///
    /// # Panics
    /// As [`Cfc::run`].
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        self.run(x, None, None).0
    }
}

impl Module for Cfc {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.modules("backbone", &self.backbone);
        visitor.module("ff1", &self.ff1);
        visitor.module("ff2", &self.ff2);
        visitor.module("time_a", &self.time_a);
        visitor.module("time_b", &self.time_b);
    }
}
