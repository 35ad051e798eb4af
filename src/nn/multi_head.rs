//! Multi-head attention with its projections, with grouped key heads, norms of queries and keys, rotary positions and a cache
//! where wanted.

use super::attention::{KvCache, ScoreRule, Steps};
use super::linear::Linear;
use super::module::{Module, Visitor};
use super::norm::RmsNorm;
use super::rope::Rope;
use crate::graph::{Graph, GraphTensor, Shape};
use crate::shape::{Dims, Expr};

/// Sizes and rules of a [`MultiHeadAttention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionConfig {
    /// Width of the input and the output.
    pub width: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Whether the projections have biases.
    pub bias: bool,
    /// What happens to the scores.
    pub rule: ScoreRule,
}

impl AttentionConfig {
    /// Heads that share the width evenly, each with keys of its own; scores scaled by `1 / sqrt(head_dim)`, all seen.
    ///
    /// # Panics
    /// If `heads` does not divide `width`.
    #[track_caller]
    pub fn new(width: usize, heads: usize) -> AttentionConfig {
        assert!(
            heads > 0 && width.is_multiple_of(heads),
            "{heads} heads do not share a width of {width} evenly"
        );
        let head_dim = width / heads;
        AttentionConfig {
            width,
            heads,
            kv_heads: heads,
            head_dim,
            bias: true,
            rule: ScoreRule::scaled(head_dim),
        }
    }
}

/// `o_proj(attention(q_proj(x), k_proj(y), v_proj(y)))`.
#[derive(Clone, Copy, Debug)]
pub struct MultiHeadAttention {
    /// `[heads * head_dim, width]`.
    pub q_proj: Linear,
    /// `[kv_heads * head_dim, width]`.
    pub k_proj: Linear,
    /// `[kv_heads * head_dim, width]`.
    pub v_proj: Linear,
    /// `[width, heads * head_dim]`.
    pub o_proj: Linear,
    /// Width of a head.
    pub head_dim: usize,
    /// Norms of each head's queries and keys, before they are turned.
    pub qk_norm: Option<QkNorm>,
    /// What happens to the scores.
    pub rule: ScoreRule,
    /// Turns queries and keys by their positions.
    pub rope: Option<Rope>,
}

/// Norms that keep products of queries and keys small (Henry et al. 2020).
#[derive(Clone, Copy, Debug)]
pub struct QkNorm {
    /// Over the width of a head.
    pub q_norm: RmsNorm,
    /// Over the width of a head.
    pub k_norm: RmsNorm,
}

impl MultiHeadAttention {
    /// A layer whose `f32` parameters have no data yet.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::{AttentionConfig, Mask, Module, MultiHeadAttention};
    /// let mut cx = Graph::new();
    /// let mut config = AttentionConfig::new(8, 4);
    /// config.kv_heads = 2;
    /// config.rule.mask = Mask::Causal;
    /// let layer = MultiHeadAttention::new(&mut cx, &config);
    /// layer.init(7);
    /// let x = cx.input(('b', 's', 8), DType::F32).set(vec![0.5; 2 * 3 * 8]);
    /// let y = layer.forward(x).retrieve();
    /// cx.set_dim('b', 2);
    /// cx.set_dim('s', 3);
    /// cx.execute();
    /// assert_eq!(y.array().dims(), [2, 3, 8]);
    /// ```
    #[track_caller]
    pub fn new(cx: &mut Graph, config: &AttentionConfig) -> MultiHeadAttention {
        let (width, bias) = (config.width, config.bias);
        let (q, kv) = (
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        MultiHeadAttention {
            q_proj: Linear::new(cx, width, q, bias),
            k_proj: Linear::new(cx, width, kv, bias),
            v_proj: Linear::new(cx, width, kv, bias),
            o_proj: Linear::new(cx, q, width, bias),
            head_dim: config.head_dim,
            qk_norm: None,
            rule: config.rule,
            rope: None,
        }
    }

    /// Every row of `x [.., s, width]` attends to the rows of `x`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor<S> {
        self.attend(x.dynamic(), x.dynamic()).retag()
    }

    /// Every row of `x [.., s, width]` attends to the rows of `memory [.., t, width]`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn attend(&self, x: GraphTensor, memory: GraphTensor) -> GraphTensor {
        let start = Expr::from(0);
        let queries = self.queries(x, start);
        let keys = self.keys(memory, start);
        let values = self.heads(self.v_proj.forward(memory));
        self.joined(self.rule.attend(queries, keys, values, start))
    }

    /// The new rows `x [s, width]` attend to themselves and to the rows in the cache, to which theirs are added.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn forward_cached(&self, x: GraphTensor, cache: &KvCache, steps: Steps) -> GraphTensor {
        let queries = self.queries(x, steps.start); // [heads, s, d]
        let keys = self.keys(x, steps.start); // [kv, s, d]
        let values = self.heads(self.v_proj.forward(x)); // [kv, s, d]
        let (keys, values) = cache.append(keys, values, steps); // [kv, p + s, d]
        self.joined(self.rule.attend(queries, keys, values, steps.start))
    }

    /// `[.., s, width]` to `[.., heads, s, d]`.
    #[track_caller]
    fn queries(&self, x: GraphTensor, start: Expr) -> GraphTensor {
        let queries = self.heads(self.q_proj.forward(x));
        let norm = self.qk_norm.map(|norms| norms.q_norm);
        self.turned(norm.map_or(queries, |norm| norm.forward(queries)), start)
    }

    /// `[.., t, width]` to `[.., kv_heads, t, d]`.
    #[track_caller]
    fn keys(&self, memory: GraphTensor, start: Expr) -> GraphTensor {
        let keys = self.heads(self.k_proj.forward(memory));
        let norm = self.qk_norm.map(|norms| norms.k_norm);
        self.turned(norm.map_or(keys, |norm| norm.forward(keys)), start)
    }

    #[track_caller]
    fn turned(&self, x: GraphTensor, start: Expr) -> GraphTensor {
        match &self.rope {
            Some(rope) => rope.forward(x, start),
            None => x,
        }
    }

    /// `[.., s, heads * d]` to `[.., heads, s, d]`.
    #[track_caller]
    fn heads(&self, x: GraphTensor) -> GraphTensor {
        let mut dims = x.dims();
        let last = dims.len() - 1;
        dims[last] = dims[last].floor_div(self.head_dim);
        dims.push(Expr::from(self.head_dim));
        x.reshape(dims).transpose(-3, -2)
    }

    /// `[.., heads, s, d]` to `[.., s, width]`.
    #[track_caller]
    fn joined(&self, x: GraphTensor) -> GraphTensor {
        let x = x.transpose(-3, -2);
        let mut dims: Dims = x.dims();
        let d = dims.pop().expect("heads have a width");
        let last = dims.len() - 1;
        dims[last] *= d;
        self.o_proj.forward(x.reshape(dims))
    }
}

impl Module for MultiHeadAttention {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("q_proj", &self.q_proj);
        visitor.module("k_proj", &self.k_proj);
        visitor.module("v_proj", &self.v_proj);
        visitor.module("o_proj", &self.o_proj);
        if let Some(norms) = &self.qk_norm {
            visitor.module("q_norm", &norms.q_norm);
            visitor.module("k_norm", &norms.k_norm);
        }
    }
}
