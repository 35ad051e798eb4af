//! The block that transformers are stacks of.

use super::activation::Activation;
use super::feed_forward::Mlp;
use super::module::{Module, Visitor};
use super::multi_head::{AttentionConfig, MultiHeadAttention};
use super::norm::LayerNorm;
use crate::graph::{Graph, GraphTensor, Shape};

/// `x + attention(norm1(x))`, then `x + mlp(norm2(x))` (Xiong et al. 2020). With a causal mask a decoder's block, else
/// an encoder's.
#[derive(Clone, Copy, Debug)]
pub struct TransformerBlock {
    /// Before attention.
    pub norm1: LayerNorm,
    /// Attention of the rows to each other.
    pub attention: MultiHeadAttention,
    /// Before the feed-forward layer.
    pub norm2: LayerNorm,
    /// The feed-forward layer.
    pub mlp: Mlp,
}

impl TransformerBlock {
    /// A block whose `f32` parameters have no data yet, with a feed-forward layer of width `inner`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{Activation, AttentionConfig, Layer, Module, TransformerBlock};
    /// let mut cx = Graph::new();
    /// let config = AttentionConfig::new(8, 2);
    /// let stack: Vec<_> = (0..3)
    ///     .map(|_| TransformerBlock::new(&mut cx, &config, 32, Activation::Gelu))
    ///     .collect();
    /// stack.init(7);
    /// assert!(stack.parameters().get("2.attention.q_proj.weight").is_some());
    /// let x = cx.input(('s', 8), DType::F32).set(vec![0.5; 3 * 8]);
    /// let y = stack.forward(x).retrieve();
    /// cx.set_dim('s', 3);
    /// cx.execute();
    /// assert_eq!(y.array().dims(), [3, 8]);
    /// ```
    #[track_caller]
    pub fn new(
        cx: &mut Graph,
        config: &AttentionConfig,
        inner: usize,
        activation: Activation,
    ) -> TransformerBlock {
        let norm = |cx: &mut Graph| LayerNorm::new(cx, config.width, 1e-5);
        TransformerBlock {
            norm1: norm(cx),
            attention: MultiHeadAttention::new(cx, config),
            norm2: norm(cx),
            mlp: Mlp::new(cx, config.width, inner, activation),
        }
    }

    /// `[.., s, width]` to `[.., s, width]`.
    ///
    /// # Panics
    /// If the last axis of `x` has another width.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor<S> {
        let x = x.dynamic();
        let x = x + self.attention.forward(self.norm1.forward(x));
        (x + self.mlp.forward(self.norm2.forward(x))).retag()
    }
}

impl Module for TransformerBlock {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("norm1", &self.norm1);
        visitor.module("attention", &self.attention);
        visitor.module("norm2", &self.norm2);
        visitor.module("mlp", &self.mlp);
    }
}
