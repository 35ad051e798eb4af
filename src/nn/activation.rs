//! Activation functions as values, for layers whose configuration chooses one.

use super::module::{Module, Visitor};
use crate::graph::{GraphTensor, Shape};

/// A function of one element.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// GELU, exact.
    Gelu,
    /// GELU in its tanh approximation.
    GeluTanh,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * tanh(softplus(x))`.
    Mish,
    /// `log(1 + exp(x))`.
    Softplus,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// SELU.
    Selu,
}

impl Activation {
    /// The function's value at each element.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::Activation;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([-1.0, 0.0, 7.0]);
    /// let y = Activation::Relu6.forward(x).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.0, 6.0]);
    /// ```
    ///
    /// # Panics
    /// If the format is not a floating-point one.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor<S> {
        match self {
            Activation::Relu => x.relu(),
            Activation::Relu6 => x.relu6(),
            Activation::Gelu => x.gelu(),
            Activation::GeluTanh => x.gelu_tanh(),
            Activation::Silu => x.silu(),
            Activation::Mish => x.mish(),
            Activation::Softplus => x.softplus(),
            Activation::Sigmoid => x.sigmoid(),
            Activation::Tanh => x.tanh(),
            Activation::Selu => x.selu(),
        }
    }
}

/// Without parameters.
impl Module for Activation {
    fn visit(&self, _: &mut Visitor<'_>) {}
}
