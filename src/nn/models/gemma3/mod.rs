//! Gemma 3, its text part (Gemma Team 2025).
//!
//! A Gemma 2 whose queries and keys are normed instead of its scores capped. Five layers with a sliding window come for
//! each one that sees everything; the two kinds turn queries and keys at frequencies of their own.

mod config;

pub use config::Config;

use super::decoder::{AttentionParts, GemmaLayer, LanguageModel, LayerType, Weights, each_state};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};
use crate::nn::attention::{CacheConfig, Mask, ScoreRule, Steps};
use crate::nn::module::{Module, Visitor};
use crate::nn::{Embedding, RmsNorm, Rope, soft_cap};

/// The model.
#[derive(Clone, Debug)]
pub struct Gemma3 {
    embed_tokens: Embedding,
    layers: Vec<GemmaLayer>,
    norm: RmsNorm,
    embedding_scale: f64,
    final_cap: Option<f64>,
}

impl Gemma3 {
    /// A model whose parameters have no data yet, with caches as `cache` says, or in `F32` for as many tokens as it
    /// says. `dtype_of` tells the format that a parameter is stored in, by its name.
    #[track_caller]
    pub fn new(
        cx: &mut Graph,
        config: &Config,
        cache: impl Into<CacheConfig>,
        dtype_of: &dyn Fn(&str) -> DType,
    ) -> Gemma3 {
        let cache = cache.into();
        let full = Rope::with_config(cx, config.head_dim, &config.rope, cache.capacity);
        let sliding = Rope::with_config(cx, config.head_dim, &config.rope_local, cache.capacity);
        let mut weights = Weights {
            cx,
            dtype_of,
            norm_eps: config.rms_norm_eps,
            norm_plus_one: true,
            cache,
        };
        let table = (config.vocab_size, config.hidden_size);
        let embed_tokens = Embedding {
            weight: weights.get("model.embed_tokens.weight", table),
        };
        let layer = |(i, kind): (usize, &LayerType)| {
            let name = format!("model.layers.{i}");
            let parts = match kind {
                LayerType::Full => attention(config, Mask::Causal, full),
                LayerType::Sliding => {
                    attention(config, Mask::SlidingWindow(config.sliding_window), sliding)
                }
            };
            let (inner, activation) = (config.intermediate_size, config.hidden_activation);
            GemmaLayer::new(&mut weights, &name, &parts, inner, activation)
        };
        Gemma3 {
            embed_tokens,
            layers: config.layer_types.iter().enumerate().map(layer).collect(),
            norm: weights.norm("model.norm", config.hidden_size),
            embedding_scale: f64::from((config.hidden_size as f32).sqrt()),
            final_cap: config.final_logit_softcapping.map(f64::from),
        }
    }
}

fn attention(config: &Config, mask: Mask, rope: Rope) -> AttentionParts {
    AttentionParts {
        hidden: config.hidden_size,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        qkv_bias: false,
        o_bias: false,
        qk_norm: true,
        rule: ScoreRule {
            scale: config.query_pre_attn_scalar.powf(-0.5),
            soft_cap: None,
            mask,
        },
        rope,
    }
}

impl LanguageModel for Gemma3 {
    fn hidden_states(&self, tokens: GraphTensor, steps: Option<Steps>) -> Vec<GraphTensor> {
        let x = self.embed_tokens.forward(tokens) * self.embedding_scale;
        each_state(x, &self.layers, |layer, x| layer.forward(x, steps))
    }

    fn logits(&self, x: GraphTensor) -> GraphTensor {
        let logits = self.embed_tokens.logits(self.norm.forward(x));
        match self.final_cap {
            Some(cap) => soft_cap(logits, cap),
            None => logits,
        }
    }
}

impl Module for Gemma3 {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("model.embed_tokens", &self.embed_tokens);
        visitor.modules("model.layers", &self.layers);
        visitor.module("model.norm", &self.norm);
    }
}
