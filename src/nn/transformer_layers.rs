//! The layers of encoder-decoder transformers (Vaswani et al. 2017), with parameters named and packed as in PyTorch.
//!
//! [`super::TransformerBlock`] is the layer for new models; these read checkpoints of `torch.nn`. Axes are
//! `[.., steps, width]` (torch's `batch_first`). There is no dropout inside: that is put between layers.

use super::activation::Activation;
use super::attention::{Mask, ScoreRule};
use super::init::Init;
use super::linear::Linear;
use super::module::{Module, Visitor};
use super::multi_head::MultiHeadAttention;
use super::norm::LayerNorm;
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};

/// Sizes of a transformer's layers.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TransformerConfig {
    /// Width of a row.
    pub width: usize,
    /// Number of heads, which share the width.
    pub heads: usize,
    /// Width inside the feed-forward part.
    pub inner: usize,
    /// What is inside the feed-forward part.
    pub activation: Activation,
    /// Whether norms come before each part (Xiong et al. 2020), not after.
    pub norm_first: bool,
    /// What norms add to the variance.
    pub eps: f64,
}

impl TransformerConfig {
    /// Norms after each part, ReLU: torch's defaults.
    pub fn new(width: usize, heads: usize, inner: usize) -> TransformerConfig {
        TransformerConfig {
            width,
            heads,
            inner,
            activation: Activation::Relu,
            norm_first: false,
            eps: 1e-5,
        }
    }
}

/// Multi-head attention with the projections of queries, keys and values in one weight.
#[derive(Clone, Copy, Debug)]
pub struct PackedAttention {
    /// `[3 * width, width]`: queries, keys, values.
    pub in_proj_weight: GraphTensor,
    /// `[3 * width]`.
    pub in_proj_bias: GraphTensor,
    /// `[width, width]`.
    pub out_proj: Linear,
    heads: usize,
    width: usize,
}

impl PackedAttention {
    /// A layer whose `f32` parameters have no data yet.
    ///
    /// # Panics
    /// If `heads` does not divide `width`.
    #[track_caller]
    pub fn new(cx: &mut Graph, width: usize, heads: usize) -> PackedAttention {
        assert!(
            heads > 0 && width.is_multiple_of(heads),
            "{heads} heads do not share a width of {width} evenly"
        );
        let weight = cx.input((3 * width, width), DType::F32);
        PackedAttention {
            in_proj_weight: weight.set_name("in_proj_weight"),
            in_proj_bias: cx.input(3 * width, DType::F32).set_name("in_proj_bias"),
            out_proj: Linear::new(cx, width, width, true),
            heads,
            width,
        }
    }

    /// Every row of `x [.., s, width]` attends to the rows of `memory [.., t, width]` that the mask shows.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn attend(&self, x: GraphTensor, memory: GraphTensor, mask: Mask) -> GraphTensor {
        let part = |i: usize| {
            let (start, end) = (i * self.width, (i + 1) * self.width);
            Linear {
                weight: self.in_proj_weight.slice_axis(0, start, end),
                bias: Some(self.in_proj_bias.slice_axis(0, start, end)),
            }
        };
        let head_dim = self.width / self.heads;
        let rule = ScoreRule {
            mask,
            ..ScoreRule::scaled(head_dim)
        };
        let attention = MultiHeadAttention {
            q_proj: part(0),
            k_proj: part(1),
            v_proj: part(2),
            o_proj: self.out_proj,
            head_dim,
            qk_norm: None,
            rule,
            rope: None,
        };
        attention.attend(x, memory)
    }
}

impl Module for PackedAttention {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.parameter("in_proj_weight", self.in_proj_weight, Init::XavierUniform);
        visitor.parameter("in_proj_bias", self.in_proj_bias, Init::ZEROS);
        visitor.module("out_proj", &self.out_proj);
    }
}

/// `x + f(x)` with a norm before the part or after the sum.
#[track_caller]
fn residual(
    x: GraphTensor,
    norm: &LayerNorm,
    norm_first: bool,
    f: impl Fn(GraphTensor) -> GraphTensor,
) -> GraphTensor {
    match norm_first {
        true => x + f(norm.forward(x)),
        false => norm.forward(x + f(x)),
    }
}

/// Attention of the rows to each other, then a feed-forward part.
#[derive(Clone, Copy, Debug)]
pub struct TransformerEncoderLayer {
    /// Attention of the rows to each other.
    pub self_attn: PackedAttention,
    /// Into the feed-forward part.
    pub linear1: Linear,
    /// Out of it.
    pub linear2: Linear,
    /// The norm of the attention.
    pub norm1: LayerNorm,
    /// The norm of the feed-forward part.
    pub norm2: LayerNorm,
    /// Which rows see which.
    pub mask: Mask,
    config: TransformerConfig,
}

impl TransformerEncoderLayer {
    /// A layer whose `f32` parameters have no data yet, in which all rows see each other.
    ///
    /// # Panics
    /// If the heads do not share the width evenly.
    #[track_caller]
    pub fn new(cx: &mut Graph, config: TransformerConfig) -> TransformerEncoderLayer {
        TransformerEncoderLayer {
            self_attn: PackedAttention::new(cx, config.width, config.heads),
            linear1: Linear::new(cx, config.width, config.inner, true),
            linear2: Linear::new(cx, config.inner, config.width, true),
            norm1: LayerNorm::new(cx, config.width, config.eps),
            norm2: LayerNorm::new(cx, config.width, config.eps),
            mask: Mask::None,
            config,
        }
    }

    /// `[.., s, width]` to the same.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        let first = self.config.norm_first;
        let attended = residual(x, &self.norm1, first, |x| {
            self.self_attn.attend(x, x, self.mask)
        });
        residual(attended, &self.norm2, first, |x| {
            let inner = self.config.activation.forward(self.linear1.forward(x));
            self.linear2.forward(inner)
        })
    }
}

impl Module for TransformerEncoderLayer {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("self_attn", &self.self_attn);
        visitor.module("linear1", &self.linear1);
        visitor.module("linear2", &self.linear2);
        visitor.module("norm1", &self.norm1);
        visitor.module("norm2", &self.norm2);
    }
}

/// Attention of the rows to each other, then to an encoder's rows, then a feed-forward part.
#[derive(Clone, Copy, Debug)]
pub struct TransformerDecoderLayer {
    /// Attention of the rows to each other.
    pub self_attn: PackedAttention,
    /// Attention to the encoder's rows.
    pub multihead_attn: PackedAttention,
    /// Into the feed-forward part.
    pub linear1: Linear,
    /// Out of it.
    pub linear2: Linear,
    /// The norm of the first attention.
    pub norm1: LayerNorm,
    /// The norm of the second attention.
    pub norm2: LayerNorm,
    /// The norm of the feed-forward part.
    pub norm3: LayerNorm,
    /// Which rows see which.
    pub mask: Mask,
    /// Which of the encoder's rows are seen.
    pub memory_mask: Mask,
    config: TransformerConfig,
}

impl TransformerDecoderLayer {
    /// A layer whose `f32` parameters have no data yet, in which a row sees itself and those before it.
    ///
    /// # Panics
    /// If the heads do not share the width evenly.
    #[track_caller]
    pub fn new(cx: &mut Graph, config: TransformerConfig) -> TransformerDecoderLayer {
        let norm = |cx: &mut Graph| LayerNorm::new(cx, config.width, config.eps);
        TransformerDecoderLayer {
            self_attn: PackedAttention::new(cx, config.width, config.heads),
            multihead_attn: PackedAttention::new(cx, config.width, config.heads),
            linear1: Linear::new(cx, config.width, config.inner, true),
            linear2: Linear::new(cx, config.inner, config.width, true),
            norm1: norm(cx),
            norm2: norm(cx),
            norm3: norm(cx),
            mask: Mask::Causal,
            memory_mask: Mask::None,
            config,
        }
    }

    /// `[.., s, width]` to the same, with an encoder's rows `[.., t, width]`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor, memory: GraphTensor) -> GraphTensor {
        let first = self.config.norm_first;
        let x = residual(x, &self.norm1, first, |x| {
            self.self_attn.attend(x, x, self.mask)
        });
        let x = residual(x, &self.norm2, first, |x| {
            self.multihead_attn.attend(x, memory, self.memory_mask)
        });
        residual(x, &self.norm3, first, |x| {
            let inner = self.config.activation.forward(self.linear1.forward(x));
            self.linear2.forward(inner)
        })
    }
}

impl Module for TransformerDecoderLayer {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("self_attn", &self.self_attn);
        visitor.module("multihead_attn", &self.multihead_attn);
        visitor.module("linear1", &self.linear1);
        visitor.module("linear2", &self.linear2);
        visitor.module("norm1", &self.norm1);
        visitor.module("norm2", &self.norm2);
        visitor.module("norm3", &self.norm3);
    }
}

/// Encoder layers, one after the other, and a last norm.
#[derive(Clone, Debug)]
pub struct TransformerEncoder {
    /// The layers, named `layers.0` ...
    pub layers: Vec<TransformerEncoderLayer>,
    /// After the last layer, as `norm_first` needs it.
    pub norm: Option<LayerNorm>,
}

impl TransformerEncoder {
    /// So many layers without a last norm, whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Module, TransformerConfig, TransformerEncoder};
    /// let mut cx = Graph::new();
    /// let encoder = TransformerEncoder::new(&mut cx, TransformerConfig::new(8, 2, 16), 3);
    /// assert!(encoder.parameters().get("layers.2.self_attn.in_proj_weight").is_some());
    /// let x = cx.input(('b', 's', 8), DType::F32);
    /// assert_eq!(encoder.forward(x).ty().to_string(), "f32[b, s, 8]");
    /// ```
    ///
    /// # Panics
    /// If the heads do not share the width evenly.
    #[track_caller]
    pub fn new(cx: &mut Graph, config: TransformerConfig, n: usize) -> TransformerEncoder {
        let layers = (0..n).map(|_| TransformerEncoderLayer::new(cx, config));
        TransformerEncoder {
            layers: layers.collect(),
            norm: None,
        }
    }

    /// `[.., s, width]` to the same.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        let mut x = x;
        for layer in &self.layers {
            x = layer.forward(x);
        }
        match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}

impl Module for TransformerEncoder {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.modules("layers", &self.layers);
        visitor.module("norm", &self.norm);
    }
}

/// Decoder layers, one after the other, and a last norm.
#[derive(Clone, Debug)]
pub struct TransformerDecoder {
    /// The layers, named `layers.0` ...
    pub layers: Vec<TransformerDecoderLayer>,
    /// After the last layer, as `norm_first` needs it.
    pub norm: Option<LayerNorm>,
}

impl TransformerDecoder {
    /// So many layers without a last norm, whose `f32` parameters have no data yet.
    ///
    /// # Panics
    /// If the heads do not share the width evenly.
    #[track_caller]
    pub fn new(cx: &mut Graph, config: TransformerConfig, n: usize) -> TransformerDecoder {
        let layers = (0..n).map(|_| TransformerDecoderLayer::new(cx, config));
        TransformerDecoder {
            layers: layers.collect(),
            norm: None,
        }
    }

    /// `[.., s, width]` to the same, with an encoder's rows `[.., t, width]`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor, memory: GraphTensor) -> GraphTensor {
        let mut x = x;
        for layer in &self.layers {
            x = layer.forward(x, memory);
        }
        match &self.norm {
            Some(norm) => norm.forward(x),
            None => x,
        }
    }
}

impl Module for TransformerDecoder {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.modules("layers", &self.layers);
        visitor.module("norm", &self.norm);
    }
}
