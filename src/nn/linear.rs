//! A linear layer.

use super::init::Init;
use super::module::{Module, Visitor};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, Shape};

/// `y = x Wᵀ + b`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: GraphTensor,
    /// `[out]`.
    pub bias: Option<GraphTensor>,
}

impl Linear {
    /// A layer with `f32` parameters that have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::Linear;
    /// let mut cx = Graph::new();
    /// let layer = Linear::new(&mut cx, 3, 2, false);
    /// layer.weight.set([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]);
    /// let x = cx.input(('s', 3), DType::F32).set([[1.0, 2.0, 3.0]]);
    /// let y = layer.forward(x).retrieve();
    /// cx.set_dim('s', 1);
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 5.0]);
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, n_in: usize, n_out: usize, bias: bool) -> Linear {
        let weight = cx.input((n_out, n_in), DType::F32).set_name("weight");
        let bias = bias.then(|| cx.input(n_out, DType::F32).set_name("bias"));
        Linear { weight, bias }
    }

    /// `[.., in]` to `[.., out]`.
    ///
    /// # Panics
    /// If the last axis of `x` is not `in` wide.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor {
        let x = x.dynamic();
        let weight = self.weight.cast(x.dtype());
        let y = x.matmul(weight.transpose(0, 1));
        match self.bias {
            Some(bias) => y + bias.cast(x.dtype()),
            None => y,
        }
    }
}

impl Module for Linear {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.parameter("weight", self.weight, Init::LeCunUniform);
        if let Some(bias) = self.bias {
            visitor.parameter("bias", bias, Init::ZEROS);
        }
    }
}
