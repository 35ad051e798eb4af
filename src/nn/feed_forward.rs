//! Feed-forward layers.

use super::activation::Activation;
use super::linear::Linear;
use super::module::{Module, Visitor};
use crate::graph::{Graph, GraphTensor, Shape};

/// `down(activation(gate(x)) * up(x))`: a gated linear unit (Shazeer 2020); GeGLU and SwiGLU by activation.
#[derive(Clone, Copy, Debug)]
pub struct GatedMlp {
    /// `[inner, width]`.
    pub gate_proj: Linear,
    /// `[inner, width]`.
    pub up_proj: Linear,
    /// `[width, inner]`.
    pub down_proj: Linear,
    /// What the gate goes through.
    pub activation: Activation,
}

impl GatedMlp {
    /// A layer without biases whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Activation, GatedMlp};
    /// let mut cx = Graph::new();
    /// let mlp = GatedMlp::new(&mut cx, 1, 1, Activation::Relu);
    /// mlp.gate_proj.weight.set([[2.0]]);
    /// mlp.up_proj.weight.set([[10.0]]);
    /// mlp.down_proj.weight.set([[0.5]]);
    /// let x = cx.tensor::<R2<2, 1>>().set([[3.0], [-1.0]]);
    /// let y = mlp.forward(x).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [90.0, 0.0], "relu(2 x) * 10 x / 2");
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, width: usize, inner: usize, activation: Activation) -> GatedMlp {
        GatedMlp {
            gate_proj: Linear::new(cx, width, inner, false),
            up_proj: Linear::new(cx, width, inner, false),
            down_proj: Linear::new(cx, inner, width, false),
            activation,
        }
    }

    /// `[.., width]` to `[.., width]`.
    ///
    /// # Panics
    /// If the last axis of `x` has another width.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor<S> {
        let gate = self.activation.forward(self.gate_proj.forward(x));
        self.down_proj
            .forward(gate * self.up_proj.forward(x))
            .retag()
    }
}

impl Module for GatedMlp {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("gate_proj", &self.gate_proj);
        visitor.module("up_proj", &self.up_proj);
        visitor.module("down_proj", &self.down_proj);
    }
}

/// `fc2(activation(fc1(x)))`.
#[derive(Clone, Copy, Debug)]
pub struct Mlp {
    /// `[inner, width]`.
    pub fc1: Linear,
    /// `[width, inner]`.
    pub fc2: Linear,
    /// What is between them.
    pub activation: Activation,
}

impl Mlp {
    /// A layer with biases whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Activation, Mlp, Module};
    /// let mut cx = Graph::new();
    /// let mlp = Mlp::new(&mut cx, 8, 32, Activation::Gelu);
    /// assert_eq!(mlp.parameters().n_elements(), 2 * 8 * 32 + 32 + 8);
    /// mlp.init(7);
    /// let x = cx.input(('s', 8), DType::F32).set(vec![0.0; 16]);
    /// let y = mlp.forward(x).retrieve();
    /// cx.set_dim('s', 2);
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0; 16]);
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, width: usize, inner: usize, activation: Activation) -> Mlp {
        Mlp {
            fc1: Linear::new(cx, width, inner, true),
            fc2: Linear::new(cx, inner, width, true),
            activation,
        }
    }

    /// `[.., width]` to `[.., width]`.
    ///
    /// # Panics
    /// If the last axis of `x` has another width.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor<S> {
        let inner = self.activation.forward(self.fc1.forward(x));
        self.fc2.forward(inner).retag()
    }
}

impl Module for Mlp {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("fc1", &self.fc1);
        visitor.module("fc2", &self.fc2);
    }
}
