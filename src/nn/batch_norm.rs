//! Batch normalization, with statistics that the graph carries from one execution to the next.

use super::init::Init;
use super::module::{Module, Visitor};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};
use crate::shape::numel;

/// Normalizes each channel of `[n, c, ..]` (Ioffe and Szegedy 2015): in training by the statistics of the batch, which
/// also move the running ones; else by the running ones. The graph is recorded for one or the other.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// `[c]`.
    pub weight: GraphTensor,
    /// `[c]`.
    pub bias: GraphTensor,
    /// State, `[c]`.
    pub running_mean: GraphTensor,
    /// State, `[c]`; of a sample, not of the population.
    pub running_var: GraphTensor,
    /// What is added to the variance.
    pub eps: f64,
    /// How far the running statistics move towards those of a batch.
    pub momentum: f64,
    /// Whether `forward` records training.
    pub training: bool,
}

impl BatchNorm {
    /// A norm for inference whose `f32` parameters have no data yet; its running statistics are those of a fresh layer:
    /// 0 and 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{BatchNorm, Module};
    /// let mut cx = Graph::new();
    /// let mut norm = BatchNorm::new(&mut cx, 1);
    /// norm.training = true;
    /// norm.init(0);
    /// let x = cx.tensor::<R2<2, 1>>().set([[1.0], [3.0]]).dynamic();
    /// let y = norm.forward(x).retrieve();
    /// cx.execute();
    /// assert!((y.data()[1] - 1.0).abs() < 1e-4);
    /// assert_eq!(norm.running_mean.data(), [0.2], "a tenth of the way from 0 to 2");
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, channels: usize) -> BatchNorm {
        let mut vector = |name| cx.input(channels, DType::F32).set_name(name);
        let (weight, bias) = (vector("weight"), vector("bias"));
        let running_mean = vector("running_mean").set(vec![0.0f32; channels]);
        let running_var = vector("running_var").set(vec![1.0f32; channels]);
        BatchNorm {
            weight,
            bias,
            running_mean,
            running_var,
            eps: 1e-5,
            momentum: 0.1,
            training: false,
        }
    }

    /// `[n, c, ..]` to the same. In training it defines the next running statistics, so it is to be called once for a layer.
    ///
    /// # Panics
    /// If `x` does not have the channels.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        let (weight, bias) = (Some(self.weight), Some(self.bias));
        if !self.training {
            let statistics = Some((self.running_mean, self.running_var));
            return x.batch_norm(statistics, weight, bias, self.eps);
        }
        let (mean, variance) = x.detach().cast(DType::F32).channel_statistics();
        let dims = x.dims();
        let n = numel(&dims).floor_div(dims[1]);
        let n = GraphTensor::size(x.graph, n).cast(DType::F32);
        // The variance of the population that the batch is a sample of; one value says nothing of it.
        let of_sample = n
            .gt(1.0)
            .where_(variance * (n / (n - 1.0)), self.running_var);
        let moved = |state: GraphTensor, new: GraphTensor| {
            let next = state * (1.0 - self.momentum) + new * self.momentum;
            state.assign(next);
        };
        moved(self.running_mean, mean);
        moved(self.running_var, of_sample);
        x.batch_norm(None, weight, bias, self.eps)
    }
}

impl Module for BatchNorm {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.parameter("weight", self.weight, Init::ONES);
        visitor.parameter("bias", self.bias, Init::ZEROS);
        visitor.state("running_mean", self.running_mean, Init::ZEROS);
        visitor.state("running_var", self.running_var, Init::ONES);
    }
}
