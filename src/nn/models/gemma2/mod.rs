//! Gemma 2 (Gemma Team 2024): a decoder that reads tokens and gives logits for the next one.
//!
//! Every layer norms before *and* after its two halves (RMSNorm with `1 + w`), caps attention scores and final logits
//! softly, alternates sliding-window and global attention, and shares key heads among query heads. The output layer
//! is the embedding. Parameters have the names of Hugging Face checkpoints.
//!
//! Symbols: `'s'` new tokens, `'p'` tokens that came before and are in the caches. Both are set before each execution;
//! `p + s` must not exceed the capacity.

mod config;

pub use config::{Config, LayerType};

use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};
use crate::nn::attention::{KvCache, Mask, ScoreRule, Steps};
use crate::nn::feed_forward::GatedMlp;
use crate::nn::module::{Module, Visitor};
use crate::nn::{Embedding, Linear, MultiHeadAttention, RmsNorm, Rope, soft_cap};
use crate::shape::{Expr, IntoDims};

/// The symbol of the number of new tokens.
pub const NEW_TOKENS: char = 's';
/// The symbol of the number of tokens before them.
pub const PAST_TOKENS: char = 'p';

/// Which positions' logits are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rows {
    /// Every new token's.
    All,
    /// The last token's.
    #[default]
    Last,
}

/// Makes parameters: a name tells the format that the checkpoint has it in.
struct Weights<'a> {
    cx: &'a mut Graph,
    dtype_of: &'a dyn Fn(&str) -> DType,
}

impl Weights<'_> {
    fn get(&mut self, name: &str, dims: impl IntoDims) -> GraphTensor {
        let dtype = (self.dtype_of)(name);
        self.cx.input(dims, dtype).set_name(name)
    }

    fn linear(&mut self, name: &str, n_in: usize, n_out: usize) -> Linear {
        let weight = self.get(&format!("{name}.weight"), (n_out, n_in));
        Linear { weight, bias: None }
    }

    fn norm(&mut self, name: &str, config: &Config) -> RmsNorm {
        RmsNorm {
            weight: self.get(&format!("{name}.weight"), config.hidden_size),
            eps: config.rms_norm_eps,
            plus_one: true,
        }
    }
}

/// Grouped-query attention with rotary positions and a cache.
#[derive(Clone, Copy, Debug)]
struct Attention {
    heads: MultiHeadAttention,
    cache: KvCache,
}

impl Attention {
    fn new(
        weights: &mut Weights<'_>,
        name: &str,
        config: &Config,
        layer: usize,
        shared: Shared,
    ) -> Attention {
        let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (hidden, d) = (config.hidden_size, config.head_dim);
        let heads = MultiHeadAttention {
            q_proj: weights.linear(&format!("{name}.q_proj"), hidden, heads * d),
            k_proj: weights.linear(&format!("{name}.k_proj"), hidden, kv_heads * d),
            v_proj: weights.linear(&format!("{name}.v_proj"), hidden, kv_heads * d),
            o_proj: weights.linear(&format!("{name}.o_proj"), heads * d, hidden),
            head_dim: d,
            rule: ScoreRule {
                scale: config.query_pre_attn_scalar.powf(-0.5),
                soft_cap: config.attn_logit_softcapping.map(f64::from),
                mask: match config.layer_types[layer] {
                    LayerType::Sliding => Mask::SlidingWindow(config.sliding_window),
                    LayerType::Full => Mask::Causal,
                },
            },
            rope: Some(shared.rope),
        };
        let cache = KvCache::new(weights.cx, kv_heads, shared.capacity, d);
        Attention { heads, cache }
    }

    /// `[s, hidden]` to `[s, hidden]` with the cache, `[.., s, hidden]` to the same without.
    fn forward(&self, x: GraphTensor, steps: Option<Steps>) -> GraphTensor {
        match steps {
            Some(steps) => self.heads.forward_cached(x, &self.cache, steps),
            None => self.heads.forward(x),
        }
    }
}

impl Module for Attention {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        self.heads.visit(visitor);
    }
}

/// What all layers have in common.
#[derive(Clone, Copy)]
struct Shared {
    rope: Rope,
    capacity: usize,
}

/// One layer: attention, then feed-forward, each between two norms and added to its input.
#[derive(Clone, Copy, Debug)]
struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
}

impl DecoderLayer {
    fn new(
        weights: &mut Weights<'_>,
        config: &Config,
        layer: usize,
        shared: Shared,
    ) -> DecoderLayer {
        let at = |name: &str| format!("model.layers.{layer}.{name}");
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        DecoderLayer {
            input_layernorm: weights.norm(&at("input_layernorm"), config),
            self_attn: Attention::new(weights, &at("self_attn"), config, layer, shared),
            post_attention_layernorm: weights.norm(&at("post_attention_layernorm"), config),
            pre_feedforward_layernorm: weights.norm(&at("pre_feedforward_layernorm"), config),
            mlp: GatedMlp {
                gate_proj: weights.linear(&at("mlp.gate_proj"), hidden, inner),
                up_proj: weights.linear(&at("mlp.up_proj"), hidden, inner),
                down_proj: weights.linear(&at("mlp.down_proj"), inner, hidden),
                activation: config.hidden_activation,
            },
            post_feedforward_layernorm: weights.norm(&at("post_feedforward_layernorm"), config),
        }
    }

    fn forward(&self, x: GraphTensor, steps: Option<Steps>) -> GraphTensor {
        let attended = self
            .self_attn
            .forward(self.input_layernorm.forward(x), steps);
        let x = x + self.post_attention_layernorm.forward(attended);
        let fed = self.mlp.forward(self.pre_feedforward_layernorm.forward(x));
        x + self.post_feedforward_layernorm.forward(fed)
    }
}

impl Module for DecoderLayer {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("input_layernorm", &self.input_layernorm);
        visitor.module("self_attn", &self.self_attn);
        visitor.module("post_attention_layernorm", &self.post_attention_layernorm);
        visitor.module("pre_feedforward_layernorm", &self.pre_feedforward_layernorm);
        visitor.module("mlp", &self.mlp);
        visitor.module(
            "post_feedforward_layernorm",
            &self.post_feedforward_layernorm,
        );
    }
}

/// The model.
#[derive(Clone, Debug)]
pub struct Gemma2 {
    embed_tokens: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    embedding_scale: f64,
    final_cap: Option<f64>,
}

impl Gemma2 {
    /// A model whose parameters have no data yet, with caches for `capacity` tokens. `dtype_of` tells the format that
    /// a parameter is stored in, by its name.
    #[track_caller]
    pub fn new(
        cx: &mut Graph,
        config: &Config,
        capacity: usize,
        dtype_of: &dyn Fn(&str) -> DType,
    ) -> Gemma2 {
        let rope = Rope::new(cx, config.head_dim, config.rope_theta, capacity);
        let shared = Shared { rope, capacity };
        let mut weights = Weights { cx, dtype_of };
        let table = (config.vocab_size, config.hidden_size);
        Gemma2 {
            embed_tokens: Embedding {
                weight: weights.get("model.embed_tokens.weight", table),
            },
            layers: (0..config.num_hidden_layers)
                .map(|layer| DecoderLayer::new(&mut weights, config, layer, shared))
                .collect(),
            norm: weights.norm("model.norm", config),
            embedding_scale: f64::from((config.hidden_size as f32).sqrt()),
            final_cap: config.final_logit_softcapping.map(f64::from),
        }
    }

    /// Logits `[s, vocabulary]` (or `[1, vocabulary]` for [`Rows::Last`]) after the tokens `I32 [s]`, which follow
    /// `p` others. To be called once: it also defines the caches' next state.
    ///
    /// # Panics
    /// If `tokens` has another type.
    #[track_caller]
    pub fn forward(&self, tokens: GraphTensor, rows: Rows) -> GraphTensor {
        let steps = Steps {
            start: Expr::from(PAST_TOKENS),
            rows: Expr::from(NEW_TOKENS),
        };
        let mut x = self.hidden(tokens, Some(steps)); // [s, hidden]
        if rows == Rows::Last {
            x = x.slice_axis(0, steps.rows - 1, steps.rows);
        }
        self.logits(x)
    }

    /// Logits `[.., s, vocabulary]` after the tokens `I32 [.., s]` of sequences that stand for themselves, each from
    /// position 0 on. No cache is read or written: for training, and for measuring many sequences at once.
    ///
    /// # Panics
    /// If `tokens` has another type.
    #[track_caller]
    pub fn forward_sequences(&self, tokens: GraphTensor) -> GraphTensor {
        self.logits(self.hidden(tokens, None))
    }

    /// `[.., s]` to `[.., s, hidden]`.
    #[track_caller]
    fn hidden(&self, tokens: GraphTensor, steps: Option<Steps>) -> GraphTensor {
        let x = self.embed_tokens.forward(tokens) * self.embedding_scale;
        self.layers
            .iter()
            .fold(x, |x, layer| layer.forward(x, steps))
    }

    /// `[.., hidden]` to `[.., vocabulary]`.
    #[track_caller]
    fn logits(&self, x: GraphTensor) -> GraphTensor {
        let logits = self.embed_tokens.logits(self.norm.forward(x));
        match self.final_cap {
            Some(cap) => soft_cap(logits, cap),
            None => logits,
        }
    }
}

impl Module for Gemma2 {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("model.embed_tokens", &self.embed_tokens);
        visitor.modules("model.layers", &self.layers);
        visitor.module("model.norm", &self.norm);
    }
}
