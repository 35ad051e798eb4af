//! Normalisation of channels, which stand on axis 1: over the batch, over groups of channels, over single ones, over
//! neighbours.
//!
//! Each is a mean and a variance over other axes than those of [`super::normalisation`]. 16-bit formats are computed in
//! `F32` and rounded once.

use super::operand::fail;
use crate::graph::GraphTensor;
use crate::shape::{Dims, Expr, numel};

/// A vector of channels along axis 1 of `x`.
#[track_caller]
fn channels(x: GraphTensor, vector: GraphTensor) -> GraphTensor {
    let mut dims: Dims = x.dims().iter().map(|_| Expr::from(1)).collect();
    dims[1] = x.dims()[1];
    vector.cast(x.dtype()).reshape(dims)
}

/// `x * weight + bias`, by channel.
#[track_caller]
fn scaled(x: GraphTensor, weight: Option<GraphTensor>, bias: Option<GraphTensor>) -> GraphTensor {
    let mut out = x;
    if let Some(weight) = weight {
        out *= channels(x, weight);
    }
    if let Some(bias) = bias {
        out += channels(x, bias);
    }
    out
}

#[track_caller]
fn check(op: &str, x: GraphTensor, least: usize) {
    if x.rank() < least {
        fail(op, format!("{} has fewer than {least} axes", x.ty()));
    }
}

impl GraphTensor {
    /// Mean and variance (of the population) of each channel of `[n, c, ..]`: two vectors `[c]`, over all other axes.
    ///
    /// # Panics
    /// If there are not two axes, or the format is not a floating-point one.
    #[track_caller]
    pub fn channel_statistics(self) -> (GraphTensor, GraphTensor) {
        check("channel_statistics", self, 2);
        let axes: Vec<usize> = (0..self.rank()).filter(|&axis| axis != 1).collect();
        (self.mean(&axes), self.var(&axes, 0.0))
    }

    /// `(x - mean) / sqrt(variance + eps) * weight + bias` by channel of `[n, c, ..]` (Ioffe and Szegedy 2015); all four
    /// are vectors `[c]`. Without given `statistics`, those of `x` count, as in training.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 1>>().set([[1.0], [3.0]]).dynamic();
    /// let y = x.batch_norm(None, None, None, 0.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-1.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If there are not two axes, shapes do not fit, or the format is not a floating-point one.
    #[track_caller]
    pub fn batch_norm(
        self,
        statistics: Option<(GraphTensor, GraphTensor)>,
        weight: Option<GraphTensor>,
        bias: Option<GraphTensor>,
        eps: f64,
    ) -> GraphTensor {
        check("batch_norm", self, 2);
        let x = self.wide("batch_norm");
        let out = match statistics {
            Some((mean, variance)) => {
                let centred = x - channels(x, mean);
                centred * (channels(x, variance) + eps).rsqrt()
            }
            None => {
                let axes: Vec<usize> = (0..x.rank()).filter(|&axis| axis != 1).collect();
                x.layer_norm(&axes, None, None, eps)
            }
        };
        scaled(out, weight, bias).narrowed(self)
    }

    /// The channels of `[n, c, ..]` in `groups` of neighbours, each normalised over its channels and the other axes
    /// (Wu and He 2018), times `weight [c]`, plus `bias [c]`.
    ///
    /// # Panics
    /// If there are not two axes, `groups` does not divide the channels, shapes do not fit, or the format is not a
    /// floating-point one.
    #[track_caller]
    pub fn group_norm(
        self,
        groups: usize,
        weight: Option<GraphTensor>,
        bias: Option<GraphTensor>,
        eps: f64,
    ) -> GraphTensor {
        check("group_norm", self, 2);
        let dims = self.dims();
        if groups == 0 || !dims[1].rem(groups as i64).is_zero() {
            fail(
                "group_norm",
                format!("the channels of {} in {groups} groups", self.ty()),
            );
        }
        let x = self.wide("group_norm");
        let inner = numel(&dims[1..]).floor_div(groups as i64);
        let grouped = x.reshape([dims[0], Expr::from(groups), inner]);
        let out = grouped.layer_norm([2], None, None, eps).reshape(dims);
        scaled(out, weight, bias).narrowed(self)
    }

    /// Each channel of each sample of `[n, c, ..]` normalised over the other axes (Ulyanov et al. 2016), or by given
    /// statistics `[c]`, times `weight [c]`, plus `bias [c]`.
    ///
    /// # Panics
    /// If there are not three axes, shapes do not fit, or the format is not a floating-point one.
    #[track_caller]
    pub fn instance_norm(
        self,
        statistics: Option<(GraphTensor, GraphTensor)>,
        weight: Option<GraphTensor>,
        bias: Option<GraphTensor>,
        eps: f64,
    ) -> GraphTensor {
        if statistics.is_some() {
            return self.batch_norm(statistics, weight, bias, eps);
        }
        check("instance_norm", self, 3);
        let x = self.wide("instance_norm");
        let axes: Vec<usize> = (2..x.rank()).collect();
        scaled(x.layer_norm(&axes, None, None, eps), weight, bias).narrowed(self)
    }

    /// `x / (k + alpha mean(x²))^beta` of `[n, c, ..]`, the mean over a window of `size` channels around each; missing
    /// channels count as 0 (Krizhevsky et al. 2012).
    ///
    /// # Panics
    /// If there are not two axes, `size` is 0, or the format is not a floating-point one.
    #[track_caller]
    pub fn local_response_norm(self, size: usize, alpha: f64, beta: f64, k: f64) -> GraphTensor {
        check("local_response_norm", self, 2);
        if size == 0 {
            fail("local_response_norm", "a window of 0 channels".into());
        }
        let x = self.wide("local_response_norm");
        let squares = x.square().pad(1, size / 2, (size - 1) / 2);
        let sum = squares.unfold(1, size, 1).sum(-1);
        let scale = sum * (alpha / size as f64) + k;
        (x / scale.pow(beta)).narrowed(self)
    }
}
