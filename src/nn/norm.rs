//! Normalization over the last axis.

use super::init::Init;
use super::module::{Module, Visitor};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, Shape};

/// `x / sqrt(mean(x²) + eps) * w` over the last axis (Zhang and Sennrich 2019), or `* (1 + w)`.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// `[width]`.
    pub weight: GraphTensor,
    /// What is added to the mean square.
    pub eps: f64,
    /// Whether the scale is `1 + weight`, as Gemma stores it.
    pub plus_one: bool,
}

impl RmsNorm {
    /// A norm with an `f32` weight that has no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::RmsNorm;
    /// let mut cx = Graph::new();
    /// let norm = RmsNorm::new(&mut cx, 2, 0.0);
    /// norm.weight.set([1.0, 2.0]);
    /// let x = cx.tensor::<R2<1, 2>>().set([[1.0, 7.0]]);
    /// let y = norm.forward(x).retrieve();
    /// cx.execute();
    /// assert!((y.data()[1] - 2.8).abs() < 1e-6, "7 / 5 * 2");
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, width: usize, eps: f64) -> RmsNorm {
        RmsNorm {
            weight: cx.input(width, DType::F32).set_name("weight"),
            eps,
            plus_one: false,
        }
    }

    /// `[.., width]` to `[.., width]`.
    ///
    /// # Panics
    /// If the last axis is not `width` wide.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor<S> {
        let weight = self.weight.cast(DType::F32);
        let scale = if self.plus_one { weight + 1.0 } else { weight };
        x.rms_norm(-1, Some(scale), self.eps)
    }
}

impl Module for RmsNorm {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        let neutral = if self.plus_one {
            Init::ZEROS
        } else {
            Init::ONES
        };
        visitor.parameter("weight", self.weight, neutral);
    }
}

/// `(x - mean) / sqrt(variance + eps) * w + b` over the last axis (Ba et al. 2016).
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm {
    /// `[width]`.
    pub weight: GraphTensor,
    /// `[width]`.
    pub bias: Option<GraphTensor>,
    /// What is added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// A norm with `f32` parameters that have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::LayerNorm;
    /// let mut cx = Graph::new();
    /// let norm = LayerNorm::new(&mut cx, 2, 0.0);
    /// norm.weight.set([1.0, 2.0]);
    /// norm.bias.unwrap().set([0.0, 0.5]);
    /// let x = cx.tensor::<R2<1, 2>>().set([[3.0, 7.0]]);
    /// let y = norm.forward(x).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-1.0, 2.5]);
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, width: usize, eps: f64) -> LayerNorm {
        LayerNorm {
            weight: cx.input(width, DType::F32).set_name("weight"),
            bias: Some(cx.input(width, DType::F32).set_name("bias")),
            eps,
        }
    }

    /// `[.., width]` to `[.., width]`.
    ///
    /// # Panics
    /// If the last axis is not `width` wide.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor<S> {
        x.layer_norm(-1, Some(self.weight), self.bias, self.eps)
    }
}

impl Module for LayerNorm {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.parameter("weight", self.weight, Init::ONES);
        if let Some(bias) = self.bias {
            visitor.parameter("bias", bias, Init::ZEROS);
        }
    }
}
