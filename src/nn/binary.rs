//! A linear layer of one bit, or of three values, a weight.
//!
//! ```text
//! rounds:  y = sum_k round(x)[k] * units(w)[n, k] * scales(w)[n] + b      training, and what is measured of it
//! latent:  y = sum_k round(x)[k] * w[n, k] + b                            what `Binarize` makes the same of
//! ```
//! With `rounds` (as it is made) the graph computes with rounded weights wherever it runs, as products of floats. Recorded
//! without, it is a plain product with the latent weights: compiled with `Binarize` it stores their signs and scales, counts
//! bits, and gives the numbers of training. Compiled without it is another function, that of the latent weights.
//!
//! | inputs | after `Binarize` |
//! |---|---|
//! | `Signs`, `ScaledSigns`, `TwoBits`, `FourBits` | the same bits; with three values the same up to rounding, unless the scales are `f16` |
//! | `Bytes` | the same up to the order of additions: whole numbers are added, then scaled |
//! | `Kept` | tell it to keep them ([`SignInputs::Kept`]: it would round them) |
//!
//! What it deliberately does not do: keep latent weights small (no decay, no clipping: that is the optimizer's).

use super::init::Init;
use super::low_bit::LowBit;
use super::module::{Module, Visitor};
use super::norm::RmsNorm;
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, Shape};
#[cfg(doc)]
use crate::nn::SignInputs;

/// `y = round(x) round(W)ᵀ + b`.
#[derive(Clone, Copy, Debug)]
pub struct BinaryLinear {
    /// Latent weights, `[out, in]`.
    pub weight: GraphTensor,
    /// `[out]`.
    pub bias: Option<GraphTensor>,
    /// Applied to x first: sums of signs grow with the width, and signs say nothing of a shift.
    pub norm: Option<RmsNorm>,
    /// How it rounds.
    pub low_bit: LowBit,
    /// Whether `forward` records rounding of the weights; see the [module](self).
    pub rounds: bool,
}

impl BinaryLinear {
    /// A layer with `f32` parameters that have no data yet; it rounds.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{BinaryLinear, LowBit};
    /// let mut cx = Graph::new();
    /// let layer = BinaryLinear::new(&mut cx, 4, 1, LowBit::w1a1());
    /// layer.weight.set([[0.3, -0.1, 0.1, -0.5]]); // signs times 1/4
    /// let x = cx.input((1, 4), DType::F32).set([[9.0, -2.0, -0.1, 0.0]]);
    /// let y = layer.forward(x).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0], "(1 + 1 - 1 - 1) / 4");
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, n_in: usize, n_out: usize, low_bit: LowBit) -> BinaryLinear {
        BinaryLinear {
            weight: cx.input((n_out, n_in), DType::F32).set_name("weight"),
            bias: None,
            norm: None,
            low_bit,
            rounds: true,
        }
    }

    /// With a bias.
    #[track_caller]
    pub fn with_bias(mut self, cx: &mut Graph) -> BinaryLinear {
        let n_out = self.weight.dims()[0];
        self.bias = Some(cx.input(n_out, DType::F32).set_name("bias"));
        self
    }

    /// With an [`RmsNorm`] in front.
    #[track_caller]
    pub fn with_norm(mut self, cx: &mut Graph, eps: f64) -> BinaryLinear {
        let n_in = self.weight.dims()[1].as_usize();
        let n_in = n_in.expect("a weight's sizes are known");
        self.norm = Some(RmsNorm::new(cx, n_in, eps));
        self
    }

    /// The same, recorded with latent weights; see the [module](self).
    pub fn latent(mut self) -> BinaryLinear {
        self.rounds = false;
        self
    }

    /// `[.., in]` to `[.., out]`.
    ///
    /// # Panics
    /// If the last axis of `x` is not `in` wide.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor {
        let x = x.dynamic().cast(DType::F32);
        let x = self.norm.map_or(x, |norm| norm.forward(x));
        let (rows, sizes) = self.low_bit.rows(x);
        let mut y = product(rows, self.weight, &self.low_bit, self.rounds);
        if let Some(sizes) = sizes {
            y *= sizes;
        }
        match self.bias {
            Some(bias) => y + bias.cast(DType::F32),
            None => y,
        }
    }
}

/// Rows `[.., k]` times weights `[out, k]`: `[.., out]`.
#[track_caller]
pub(super) fn product(
    rows: GraphTensor,
    weight: GraphTensor,
    low_bit: &LowBit,
    rounds: bool,
) -> GraphTensor {
    let weight = weight.cast(DType::F32);
    if !rounds {
        return rows.matmul(weight.transpose(0, 1));
    }
    let (units, scales) = low_bit.weight(weight);
    rows.matmul(units.transpose(0, 1)) * scales
}

impl Module for BinaryLinear {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.parameter("weight", self.weight, Init::LeCunUniform);
        if let Some(bias) = self.bias {
            visitor.parameter("bias", bias, Init::ZEROS);
        }
        if let Some(norm) = &self.norm {
            visitor.module("norm", norm);
        }
    }
}
