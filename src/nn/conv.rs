//! Convolution layers over one, two or three axes, and their transposes.

use super::init::Init;
use super::module::{Module, Visitor};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};
use crate::hl_ops::{Conv, PerAxis};

/// A convolution over `D` axes.
#[derive(Clone, Debug)]
pub struct ConvNd<const D: usize> {
    /// `[out, in / groups, kernel..]`.
    pub weight: GraphTensor,
    /// `[out]`.
    pub bias: Option<GraphTensor>,
    /// How windows lie.
    pub rule: Conv,
}

/// A convolution of `[n, in, s]`.
pub type Conv1d = ConvNd<1>;
/// A convolution of `[n, in, h, w]`.
pub type Conv2d = ConvNd<2>;
/// A convolution of `[n, in, d, h, w]`.
pub type Conv3d = ConvNd<3>;

/// Weight and bias without data. Weights are `[first, second, kernel..]`, where `second` are a group's channels.
#[track_caller]
fn parameters<const D: usize>(
    cx: &mut Graph,
    [n_in, n_out]: [usize; 2],
    is_transposed: bool,
    kernel: &PerAxis,
    groups: usize,
) -> (GraphTensor, Option<GraphTensor>) {
    assert!(
        groups > 0 && n_in.is_multiple_of(groups) && n_out.is_multiple_of(groups),
        "{groups} groups do not share {n_in} and {n_out} channels evenly"
    );
    let (first, second) = match is_transposed {
        false => (n_out, n_in / groups),
        true => (n_in, n_out / groups),
    };
    let kernel = kernel.each(D);
    let dims: Vec<usize> = [first, second].into_iter().chain(kernel).collect();
    let weight = cx.input(dims, DType::F32).set_name("weight");
    let bias = cx.input(n_out, DType::F32).set_name("bias");
    (weight, Some(bias))
}

/// Names weight and bias.
fn visit_parameters(weight: GraphTensor, bias: Option<GraphTensor>, visitor: &mut Visitor<'_>) {
    visitor.parameter("weight", weight, Init::LeCunUniform);
    if let Some(bias) = bias {
        visitor.parameter("bias", bias, bias_init(weight));
    }
}

/// Evenly within `1 / sqrt(fan_in)` of a weight, as PyTorch draws a bias.
fn bias_init(weight: GraphTensor) -> Init {
    let sizes = weight.dims();
    let inputs = sizes[1..].iter().filter_map(|size| size.as_usize());
    let bound = 1.0 / (inputs.product::<usize>().max(1) as f32).sqrt();
    Init::Uniform(-bound, bound)
}

impl<const D: usize> ConvNd<D> {
    /// A layer with a bias whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::{Conv, Padding};
    /// use brain_blitz::nn::{Conv2d, Module};
    /// let mut cx = Graph::new();
    /// let rule = Conv { padding: Padding::Same, ..Conv::default() };
    /// let layer = Conv2d::new(&mut cx, 3, 8, 5, rule);
    /// assert_eq!(layer.weight.ty().to_string(), "f32[8, 3, 5, 5]");
    /// let x = cx.input(('b', 3, 9, 9), DType::F32);
    /// assert_eq!(layer.forward(x).ty().to_string(), "f32[b, 8, 9, 9]");
    /// ```
    ///
    /// # Panics
    /// If the groups do not share the channels evenly, or the kernel has neither 1 nor `D` sizes.
    #[track_caller]
    pub fn new(
        cx: &mut Graph,
        n_in: usize,
        n_out: usize,
        kernel: impl Into<PerAxis>,
        rule: Conv,
    ) -> ConvNd<D> {
        let (weight, bias) = parameters::<D>(cx, [n_in, n_out], false, &kernel.into(), rule.groups);
        ConvNd { weight, bias, rule }
    }

    /// `[n, in, s..]` (or `[in, s..]`) to `[n, out, o..]`.
    ///
    /// # Panics
    /// If the channels do not fit, or no window does.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        x.conv(self.weight, self.bias, &self.rule)
    }
}

impl<const D: usize> Module for ConvNd<D> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visit_parameters(self.weight, self.bias, visitor);
    }
}

/// A transposed convolution over `D` axes.
#[derive(Clone, Debug)]
pub struct ConvTransposeNd<const D: usize> {
    /// `[in, out / groups, kernel..]`.
    pub weight: GraphTensor,
    /// `[out]`.
    pub bias: Option<GraphTensor>,
    /// How the windows of the convolution lie whose gradient this is.
    pub rule: Conv,
    /// What is added at the end of each axis.
    pub output_padding: PerAxis,
}

/// A transposed convolution of `[n, in, s]`.
pub type ConvTranspose1d = ConvTransposeNd<1>;
/// A transposed convolution of `[n, in, h, w]`.
pub type ConvTranspose2d = ConvTransposeNd<2>;
/// A transposed convolution of `[n, in, d, h, w]`.
pub type ConvTranspose3d = ConvTransposeNd<3>;

impl<const D: usize> ConvTransposeNd<D> {
    /// A layer with a bias whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Conv;
    /// use brain_blitz::nn::{ConvTranspose1d, Module};
    /// let mut cx = Graph::new();
    /// let rule = Conv { stride: 2.into(), ..Conv::default() };
    /// let layer = ConvTranspose1d::new(&mut cx, 8, 3, 2, rule);
    /// let x = cx.input((1, 8, 5), DType::F32);
    /// assert_eq!(layer.forward(x).ty().to_string(), "f32[1, 3, 10]");
    /// ```
    ///
    /// # Panics
    /// If the groups do not share the channels evenly, or the kernel has neither 1 nor `D` sizes.
    #[track_caller]
    pub fn new(
        cx: &mut Graph,
        n_in: usize,
        n_out: usize,
        kernel: impl Into<PerAxis>,
        rule: Conv,
    ) -> ConvTransposeNd<D> {
        let (weight, bias) = parameters::<D>(cx, [n_in, n_out], true, &kernel.into(), rule.groups);
        ConvTransposeNd {
            weight,
            bias,
            rule,
            output_padding: 0.into(),
        }
    }

    /// `[n, in, s..]` (or `[in, s..]`) to `[n, out, o..]`.
    ///
    /// # Panics
    /// If the channels do not fit.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        let extra = self.output_padding.clone();
        x.conv_transpose(self.weight, self.bias, &self.rule, extra)
    }
}

impl<const D: usize> Module for ConvTransposeNd<D> {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visit_parameters(self.weight, self.bias, visitor);
    }
}
