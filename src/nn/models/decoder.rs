//! What decoders of different families have in common: how they are fed, how their parts are made of a checkpoint's
//! parameters, and the layer of the Gemma family.
//!
//! Symbols: `'s'` new tokens, `'p'` tokens that came before and are in the caches. Both are set before each execution;
//! `p + s` must not exceed the capacity.

use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};
use crate::nn::attention::{CacheConfig, KvCache, ScoreRule, Steps};
use crate::nn::feed_forward::GatedMlp;
use crate::nn::module::{Module, Visitor};
use crate::nn::{Activation, Linear, MultiHeadAttention, QkNorm, RmsNorm, Rope};
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

/// What a layer's attention sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LayerType {
    /// The last `sliding_window` positions.
    Sliding,
    /// All positions before it.
    Full,
}

impl LayerType {
    /// The types of `n` layers of which every `period`-th is full.
    pub fn pattern(n: usize, period: usize) -> Vec<LayerType> {
        let kind = |layer: usize| match (layer + 1).is_multiple_of(period) {
            true => LayerType::Full,
            false => LayerType::Sliding,
        };
        (0..n).map(kind).collect()
    }
}

/// A decoder that reads tokens and gives logits for the next one.
pub trait LanguageModel: Module {
    /// Tokens `I32 [.., s]` to what the embedding and then each layer gives, `[.., s, hidden]`: with `steps` as the next
    /// ones of the sequence in the caches, without as sequences that stand for themselves. The last is what the output
    /// layer reads.
    ///
    /// # Panics
    /// If `tokens` has another type.
    #[track_caller]
    fn hidden_states(&self, tokens: GraphTensor, steps: Option<Steps>) -> Vec<GraphTensor>;

    /// The last of the [hidden states](LanguageModel::hidden_states).
    ///
    /// # Panics
    /// If `tokens` has another type.
    #[track_caller]
    fn hidden(&self, tokens: GraphTensor, steps: Option<Steps>) -> GraphTensor {
        let states = self.hidden_states(tokens, steps);
        *states.last().expect("the embedding's is there")
    }

    /// `[.., hidden]` to `[.., vocabulary]`.
    #[track_caller]
    fn logits(&self, x: GraphTensor) -> GraphTensor;

    /// Logits `[s, vocabulary]` (or `[1, vocabulary]` for [`Rows::Last`]) after the tokens `I32 [s]`, which follow
    /// `p` others. To be called once: it also defines the caches' next state.
    ///
    /// # Panics
    /// If `tokens` has another type.
    #[track_caller]
    fn forward(&self, tokens: GraphTensor, rows: Rows) -> GraphTensor {
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
    fn forward_sequences(&self, tokens: GraphTensor) -> GraphTensor {
        self.logits(self.hidden(tokens, None))
    }
}

/// `x`, and what each layer makes of what comes before it.
#[track_caller]
pub(super) fn each_state<L>(
    x: GraphTensor,
    layers: &[L],
    forward: impl Fn(&L, GraphTensor) -> GraphTensor,
) -> Vec<GraphTensor> {
    let mut states = vec![x];
    for layer in layers {
        states.push(forward(layer, states[states.len() - 1]));
    }
    states
}

/// Makes parameters: a name tells the format that the checkpoint has it in.
pub(super) struct Weights<'a> {
    pub cx: &'a mut Graph,
    pub dtype_of: &'a dyn Fn(&str) -> DType,
    /// What norms add to the mean square.
    pub norm_eps: f64,
    /// Whether norms scale by `1 + w`.
    pub norm_plus_one: bool,
    /// How many tokens a cache holds, and in which format.
    pub cache: CacheConfig,
}

impl Weights<'_> {
    pub fn get(&mut self, name: &str, dims: impl IntoDims) -> GraphTensor {
        let dtype = (self.dtype_of)(name);
        self.cx.input(dims, dtype).set_name(name)
    }

    pub fn linear(&mut self, name: &str, n_in: usize, n_out: usize, bias: bool) -> Linear {
        let weight = self.get(&format!("{name}.weight"), (n_out, n_in));
        let bias = bias.then(|| self.get(&format!("{name}.bias"), n_out));
        Linear { weight, bias }
    }

    pub fn norm(&mut self, name: &str, width: usize) -> RmsNorm {
        RmsNorm {
            weight: self.get(&format!("{name}.weight"), width),
            eps: self.norm_eps,
            plus_one: self.norm_plus_one,
        }
    }

    /// A gated feed-forward layer of `hidden` and `inner` channels.
    pub fn mlp(
        &mut self,
        name: &str,
        (hidden, inner): (usize, usize),
        bias: bool,
        activation: Activation,
    ) -> GatedMlp {
        GatedMlp {
            gate_proj: self.linear(&format!("{name}.gate_proj"), hidden, inner, bias),
            up_proj: self.linear(&format!("{name}.up_proj"), hidden, inner, bias),
            down_proj: self.linear(&format!("{name}.down_proj"), inner, hidden, bias),
            activation,
        }
    }
}

/// Sizes and rules of a layer's attention.
pub(super) struct AttentionParts {
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the output has one.
    pub o_bias: bool,
    /// Whether queries and keys are normed.
    pub qk_norm: bool,
    pub rule: ScoreRule,
    pub rope: Rope,
}

/// Grouped-query attention with rotary positions and a cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attention {
    heads: MultiHeadAttention,
    cache: KvCache,
}

impl Attention {
    pub fn new(weights: &mut Weights<'_>, name: &str, parts: &AttentionParts) -> Attention {
        let (hidden, d) = (parts.hidden, parts.head_dim);
        let (q, kv) = (parts.heads * d, parts.kv_heads * d);
        let at = |part: &str| format!("{name}.{part}");
        let heads = MultiHeadAttention {
            q_proj: weights.linear(&at("q_proj"), hidden, q, parts.qkv_bias),
            k_proj: weights.linear(&at("k_proj"), hidden, kv, parts.qkv_bias),
            v_proj: weights.linear(&at("v_proj"), hidden, kv, parts.qkv_bias),
            o_proj: weights.linear(&at("o_proj"), q, hidden, parts.o_bias),
            head_dim: d,
            qk_norm: parts.qk_norm.then(|| QkNorm {
                q_norm: weights.norm(&at("q_norm"), d),
                k_norm: weights.norm(&at("k_norm"), d),
            }),
            rule: parts.rule,
            rope: Some(parts.rope),
        };
        let cache = KvCache::new(weights.cx, parts.kv_heads, weights.cache, d);
        Attention { heads, cache }
    }

    /// `[s, hidden]` to `[s, hidden]` with the cache, `[.., s, hidden]` to the same without.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor, steps: Option<Steps>) -> GraphTensor {
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

/// A layer of the Gemma family: attention, then feed-forward, each between two norms and added to its input.
#[derive(Clone, Copy, Debug)]
pub(super) struct GemmaLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    pre_feedforward_layernorm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_layernorm: RmsNorm,
}

impl GemmaLayer {
    pub fn new(
        weights: &mut Weights<'_>,
        name: &str,
        attention: &AttentionParts,
        inner: usize,
        activation: Activation,
    ) -> GemmaLayer {
        let at = |part: &str| format!("{name}.{part}");
        let hidden = attention.hidden;
        GemmaLayer {
            input_layernorm: weights.norm(&at("input_layernorm"), hidden),
            self_attn: Attention::new(weights, &at("self_attn"), attention),
            post_attention_layernorm: weights.norm(&at("post_attention_layernorm"), hidden),
            pre_feedforward_layernorm: weights.norm(&at("pre_feedforward_layernorm"), hidden),
            mlp: weights.mlp(&at("mlp"), (hidden, inner), false, activation),
            post_feedforward_layernorm: weights.norm(&at("post_feedforward_layernorm"), hidden),
        }
    }

    #[track_caller]
    pub fn forward(&self, x: GraphTensor, steps: Option<Steps>) -> GraphTensor {
        let attended = self
            .self_attn
            .forward(self.input_layernorm.forward(x), steps);
        let x = x + self.post_attention_layernorm.forward(attended);
        let fed = self.mlp.forward(self.pre_feedforward_layernorm.forward(x));
        x + self.post_feedforward_layernorm.forward(fed)
    }
}

impl Module for GemmaLayer {
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
