//! A convolution of one bit, or of three values, a weight, over two axes.
//!
//! ```text
//! rounds:  y = conv(round(x), units(w)) * scales(w) + b
//! latent:  y = windows(round(x)) [n, o.., c k..] · w [out, c k..] + b
//! ```
//! Like [`BinaryLinear`](super::BinaryLinear), whose header says what both forms are for: recorded with latent weights, the
//! windows are rows of a matrix product, of which `Binarize` makes products of signs.
//!
//! The weight is a matrix `[out, in * h * w]`, as its signs are stored. Around the input are zeros, whose sign is +1 (zero
//! would be a third value). Inputs of 8 bits, and sizes of signs, have a scale for each window.
//!
//! What it deliberately does not do: groups, more than two axes.

use super::binary::product;
use super::init::Init;
use super::low_bit::{LowBit, SignInputs};
use super::module::{Module, Visitor};
use crate::dtype::DType;
use crate::error::Error;
use crate::graph::{Graph, GraphTensor};
use crate::hl_ops::{Conv, Padding, PerAxis};
use crate::shape::Expr;

/// A convolution of `[n, in, h, w]` with rounded weights and inputs.
#[derive(Clone, Debug)]
pub struct BinaryConv2d {
    /// Latent weights, `[out, in * h * w]` of a kernel `[in, h, w]`.
    pub weight: GraphTensor,
    /// `[out]`.
    pub bias: Option<GraphTensor>,
    /// How windows lie.
    pub rule: Conv,
    /// How it rounds.
    pub low_bit: LowBit,
    /// Whether `forward` records rounding of the weights; see the [module](self).
    pub rounds: bool,
    channels: usize,
    kernel: [usize; 2],
}

impl BinaryConv2d {
    /// A layer without a bias whose `f32` weight has no data yet; it rounds.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::{Conv, Padding};
    /// use brain_blitz::nn::{BinaryConv2d, LowBit};
    /// let mut cx = Graph::new();
    /// let rule = Conv { padding: Padding::Same, ..Conv::default() };
    /// let layer = BinaryConv2d::new(&mut cx, 3, 8, 5, rule, LowBit::w1a1());
    /// assert_eq!(layer.weight.ty().to_string(), "f32[8, 75]");
    /// let x = cx.input(('b', 3, 9, 9), DType::F32);
    /// assert_eq!(layer.forward(x).ty().to_string(), "f32[b, 8, 9, 9]");
    /// ```
    ///
    /// # Panics
    /// If the rule has groups, or the kernel has neither 1 nor 2 sizes.
    #[track_caller]
    pub fn new(
        cx: &mut Graph,
        n_in: usize,
        n_out: usize,
        kernel: impl Into<PerAxis>,
        rule: Conv,
        low_bit: LowBit,
    ) -> BinaryConv2d {
        if rule.groups != 1 {
            Error::msg("binary convolutions have no groups").raise()
        }
        let kernel: PerAxis = kernel.into();
        let sizes = kernel.each(2);
        let columns = n_in * sizes[0] * sizes[1];
        BinaryConv2d {
            weight: cx.input((n_out, columns), DType::F32).set_name("weight"),
            bias: None,
            rule,
            low_bit,
            rounds: true,
            channels: n_in,
            kernel: [sizes[0], sizes[1]],
        }
    }

    /// With a bias.
    #[track_caller]
    pub fn with_bias(mut self, cx: &mut Graph) -> BinaryConv2d {
        let n_out = self.weight.dims()[0];
        self.bias = Some(cx.input(n_out, DType::F32).set_name("bias"));
        self
    }

    /// The same, recorded with latent weights; see [`BinaryLinear`](super::BinaryLinear).
    pub fn latent(mut self) -> BinaryConv2d {
        self.rounds = false;
        self
    }

    /// `[n, in, h, w]` to `[n, out, o, p]`.
    ///
    /// # Panics
    /// If the channels do not fit, or no window does.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        let padded = self.padded(x.cast(DType::F32));
        let is_signs = self.low_bit.inputs == SignInputs::Signs;
        let out = match is_signs && self.rounds {
            true => self.by_conv(padded),
            false => self.by_rows(padded, is_signs),
        };
        match self.bias {
            Some(bias) => out + bias.cast(DType::F32).reshape((bias.dims()[0], 1, 1)),
            None => out,
        }
    }

    /// With the zeros around it.
    #[track_caller]
    fn padded(&self, x: GraphTensor) -> GraphTensor {
        let dilation = self.rule.dilation.each(2);
        let [kernel, dilation] =
            [&self.kernel[..], &dilation[..]].map(|sizes| [sizes[0] as i64, sizes[1] as i64]);
        let around = self.rule.around(&kernel, &dilation);
        let axes = around.into_iter().zip(2..);
        axes.fold(x, |x, ((before, after), axis)| match before + after {
            0 => x,
            _ => x.pad(axis, before, after),
        })
    }

    /// The layer's rule, once the zeros are there.
    fn inside(&self) -> Conv {
        Conv {
            padding: Padding::Valid,
            ..self.rule.clone()
        }
    }

    /// Signs by signs: sums of ones are the same in every order, so this has the bits of the product of rows.
    #[track_caller]
    fn by_conv(&self, padded: GraphTensor) -> GraphTensor {
        let (signs, _) = self.low_bit.rows(padded);
        let (units, scales) = self.low_bit.weight(self.weight.cast(DType::F32));
        let n_out = self.weight.dims()[0];
        let [h, w] = self.kernel;
        let units = units.reshape((n_out, self.channels, h, w));
        signs.conv(units, None, &self.inside()) * scales.reshape((n_out, 1, 1))
    }

    /// A row for each window.
    #[track_caller]
    fn by_rows(&self, padded: GraphTensor, is_signs: bool) -> GraphTensor {
        let padded = match is_signs {
            true => self.low_bit.rows(padded).0,
            false => padded,
        };
        let (stride, dilation) = (self.rule.stride.clone(), self.rule.dilation.clone());
        let columns = padded.window_columns(self.kernel, stride, 0.into(), dilation);
        let rows = columns.permute([0, 2, 1]); // [n, o p, c h w]
        let (rows, sizes) = match is_signs {
            true => (rows, None),
            false => self.low_bit.rows(rows),
        };
        let mut out = product(rows, self.weight, &self.low_bit, self.rounds);
        if let Some(sizes) = sizes {
            out *= sizes;
        }
        let [o, p] = self.windows(padded);
        let (n, n_out) = (padded.dims()[0], self.weight.dims()[0]);
        out.permute([0, 2, 1]).reshape((n, n_out, o, p))
    }

    /// How many windows fit along each axis.
    fn windows(&self, padded: GraphTensor) -> [Expr; 2] {
        let (stride, dilation) = (self.rule.stride.each(2), self.rule.dilation.each(2));
        [0, 1].map(|i| {
            let reach = dilation[i] * (self.kernel[i] - 1) + 1;
            (padded.dims()[2 + i] - reach as i64).floor_div(stride[i] as i64) + 1
        })
    }
}

impl Module for BinaryConv2d {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.parameter("weight", self.weight, Init::LeCunUniform);
        if let Some(bias) = self.bias {
            visitor.parameter("bias", bias, Init::ZEROS);
        }
    }
}
