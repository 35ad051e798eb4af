//! Normalization of channels within each sample, in groups or each alone.

use super::init::Init;
use super::module::{Module, Visitor};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};

/// Normalizes groups of neighbouring channels of `[n, c, ..]` (Wu and He 2018).
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm {
    /// Number of groups.
    pub groups: usize,
    /// `[c]`.
    pub weight: GraphTensor,
    /// `[c]`.
    pub bias: GraphTensor,
    /// What is added to the variance.
    pub eps: f64,
}

impl GroupNorm {
    /// A norm whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{GroupNorm, Module};
    /// let mut cx = Graph::new();
    /// let norm = GroupNorm::new(&mut cx, 1, 2);
    /// norm.init(0);
    /// let x = cx.tensor::<R3<1, 2, 1>>().set([[[1.0], [3.0]]]).dynamic();
    /// let y = norm.forward(x).retrieve();
    /// cx.execute();
    /// assert!((y.data()[0] + 1.0).abs() < 1e-4 && (y.data()[1] - 1.0).abs() < 1e-4);
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, groups: usize, channels: usize) -> GroupNorm {
        GroupNorm {
            groups,
            weight: cx.input(channels, DType::F32).set_name("weight"),
            bias: cx.input(channels, DType::F32).set_name("bias"),
            eps: 1e-5,
        }
    }

    /// `[n, c, ..]` to the same.
    ///
    /// # Panics
    /// If the groups do not share the channels of `x` evenly.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        x.group_norm(self.groups, Some(self.weight), Some(self.bias), self.eps)
    }
}

impl Module for GroupNorm {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.parameter("weight", self.weight, Init::ONES);
        visitor.parameter("bias", self.bias, Init::ZEROS);
    }
}

/// Normalizes each channel of each sample of `[n, c, s..]` (Ulyanov et al. 2016).
#[derive(Clone, Copy, Debug)]
pub struct InstanceNorm {
    /// `[c]`.
    pub weight: Option<GraphTensor>,
    /// `[c]`.
    pub bias: Option<GraphTensor>,
    /// What is added to the variance.
    pub eps: f64,
}

impl InstanceNorm {
    /// A norm with `f32` parameters that have no data yet, for so many channels; without parameters for none.
    #[track_caller]
    pub fn new(cx: &mut Graph, channels: Option<usize>) -> InstanceNorm {
        let mut vector = |name| channels.map(|n| cx.input(n, DType::F32).set_name(name));
        InstanceNorm {
            weight: vector("weight"),
            bias: vector("bias"),
            eps: 1e-5,
        }
    }

    /// `[n, c, s..]` to the same.
    ///
    /// # Panics
    /// If `x` has other channels or no axis `s`.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        x.instance_norm(None, self.weight, self.bias, self.eps)
    }
}

impl Module for InstanceNorm {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        if let Some(weight) = self.weight {
            visitor.parameter("weight", weight, Init::ONES);
        }
        if let Some(bias) = self.bias {
            visitor.parameter("bias", bias, Init::ZEROS);
        }
    }
}
