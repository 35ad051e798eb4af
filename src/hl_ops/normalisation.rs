//! Normalisation along axes: softmax and its logarithm, layer norm, RMS norm.
//!
//! All of them take the axes' largest element or mean away first, so that large numbers stay finite, and compute 16-bit
//! formats in `F32`, rounding once.

use super::axes::{IntoAxes, axis_set};
use crate::graph::{GraphTensor, Shape};
use crate::op::KnownGradient;

/// An optional operand in the format and shape of `x`.
#[track_caller]
fn like(op: &str, x: GraphTensor, operand: Option<GraphTensor>) -> Option<GraphTensor> {
    let operand = operand?;
    Some(operand.cast(x.dtype()).broadcast_to(op, &x.dims()))
}

impl<S: Shape> GraphTensor<S> {
    /// `exp(x) / sum(exp(x))` over these axes. Where everything is -inf, or something is +inf, the result is NaN.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1000.0, 1000.0]);
    /// let y = x.softmax(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.5, 0.5]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, or the format is not a floating-point one.
    #[track_caller]
    pub fn softmax(self, axes: impl IntoAxes) -> GraphTensor<S> {
        let axes = axis_set("softmax", &self.ty(), axes);
        let x = self.wide("softmax");
        let e = (x - x.max_keepdim(axes.as_slice())).exp();
        let out = e * e.sum_keepdim(axes.as_slice()).recip();
        let known = KnownGradient::Softmax(axes);
        x.with_gradient(out, known).narrowed(self)
    }

    /// The logarithm of [`GraphTensor::softmax`], exact where that rounds to 0.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([0.0, 1000.0]);
    /// let y = x.log_softmax(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-1000.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, or the format is not a floating-point one.
    #[track_caller]
    pub fn log_softmax(self, axes: impl IntoAxes) -> GraphTensor<S> {
        let axes = axis_set("log_softmax", &self.ty(), axes);
        let x = self.wide("log_softmax");
        let centred = x - x.max_keepdim(axes.as_slice());
        let out = centred - centred.exp().sum_keepdim(axes.as_slice()).log();
        let known = KnownGradient::LogSoftmax(axes);
        x.with_gradient(out, known).narrowed(self)
    }

    /// `(x - mean) / sqrt(variance + eps)` over these axes (population variance), times `weight`, plus `bias`; both
    /// broadcast from the right.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 3.0]);
    /// let y = x.layer_norm(-1, None, None, 0.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-1.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, the format is not a floating-point one, or weight or bias do not fit.
    #[track_caller]
    pub fn layer_norm(
        self,
        axes: impl IntoAxes,
        weight: Option<GraphTensor>,
        bias: Option<GraphTensor>,
        eps: f64,
    ) -> GraphTensor<S> {
        let axes = axis_set("layer_norm", &self.ty(), axes);
        let x = self.wide("layer_norm");
        let centred = x - x.mean_keepdim(axes.as_slice());
        let variance = centred.square().mean_keepdim(axes.as_slice());
        let mut out = centred * (variance + eps).rsqrt();
        if let Some(weight) = like("layer_norm", x, weight) {
            out *= weight;
        }
        if let Some(bias) = like("layer_norm", x, bias) {
            out += bias;
        }
        out.narrowed(self)
    }

    /// `x / sqrt(mean(x²) + eps)` over these axes, times `weight`, which broadcasts from the right.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([2.0, -2.0]);
    /// let y = x.rms_norm(-1, None, 0.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, -1.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, the format is not a floating-point one, or the weight does not fit.
    #[track_caller]
    pub fn rms_norm(
        self,
        axes: impl IntoAxes,
        weight: Option<GraphTensor>,
        eps: f64,
    ) -> GraphTensor<S> {
        let axes = axis_set("rms_norm", &self.ty(), axes);
        let x = self.wide("rms_norm");
        let mean = x.square().mean_keepdim(axes.as_slice());
        let out = x * (mean + eps).rsqrt();
        let out = match like("rms_norm", x, weight) {
            Some(weight) => out * weight,
            None => out,
        };
        out.narrowed(self)
    }
}
