//! Llama (Touvron et al. 2023; Llama Team 2024) and the models of its form: Mistral, SmolLM2, Qwen 2 and Qwen 3.
//!
//! A layer norms before each of its halves, attention and a gated feed-forward layer, and adds what they give to its
//! input. Members of the family differ in what a [`Config`] says: biases (Qwen 2), norms of queries and keys
//! (Qwen 3), a sliding window (Mistral), scaled frequencies (Llama 3), whether the output layer is the embedding.
//!
//! Deliberately absent: experts.

mod config;

pub use config::{Config, Family};

use super::decoder::{Attention, AttentionParts, LanguageModel, LayerType, Weights, each_state};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor};
use crate::nn::attention::{CacheConfig, Mask, ScoreRule, Steps};
use crate::nn::feed_forward::GatedMlp;
use crate::nn::module::{Module, Visitor};
use crate::nn::{Embedding, Linear, RmsNorm, Rope};

/// One layer.
#[derive(Clone, Copy, Debug)]
struct DecoderLayer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}

impl DecoderLayer {
    fn new(weights: &mut Weights<'_>, config: &Config, layer: usize, rope: Rope) -> DecoderLayer {
        let at = |part: &str| format!("model.layers.{layer}.{part}");
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let parts = AttentionParts {
            hidden,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            qkv_bias: config.qkv_bias,
            o_bias: config.o_bias,
            qk_norm: config.qk_norm,
            rule: ScoreRule {
                mask: match (config.layer_types[layer], config.sliding_window) {
                    (LayerType::Sliding, Some(window)) => Mask::SlidingWindow(window),
                    _ => Mask::Causal,
                },
                ..ScoreRule::scaled(config.head_dim)
            },
            rope,
        };
        let (bias, activation) = (config.mlp_bias, config.hidden_activation);
        DecoderLayer {
            input_layernorm: weights.norm(&at("input_layernorm"), hidden),
            self_attn: Attention::new(weights, &at("self_attn"), &parts),
            post_attention_layernorm: weights.norm(&at("post_attention_layernorm"), hidden),
            mlp: weights.mlp(&at("mlp"), (hidden, inner), bias, activation),
        }
    }

    #[track_caller]
    fn forward(&self, x: GraphTensor, steps: Option<Steps>) -> GraphTensor {
        let normed = self.input_layernorm.forward(x);
        let x = x + self.self_attn.forward(normed, steps);
        x + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }
}

impl Module for DecoderLayer {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("input_layernorm", &self.input_layernorm);
        visitor.module("self_attn", &self.self_attn);
        visitor.module("post_attention_layernorm", &self.post_attention_layernorm);
        visitor.module("mlp", &self.mlp);
    }
}

/// The model.
#[derive(Clone, Debug)]
pub struct Llama {
    embed_tokens: Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    /// `None` where the output layer is the embedding.
    lm_head: Option<Linear>,
}

impl Llama {
    /// A model whose parameters have no data yet, with caches as `cache` says, or in `F32` for as many tokens as it
    /// says. `dtype_of` tells the format that a parameter is stored in, by its name.
    #[track_caller]
    pub fn new(
        cx: &mut Graph,
        config: &Config,
        cache: impl Into<CacheConfig>,
        dtype_of: &dyn Fn(&str) -> DType,
    ) -> Llama {
        let cache = cache.into();
        let rope = Rope::with_config(cx, config.head_dim, &config.rope, cache.capacity);
        let mut weights = Weights {
            cx,
            dtype_of,
            norm_eps: config.rms_norm_eps,
            norm_plus_one: false,
            cache,
        };
        let (vocabulary, hidden) = (config.vocab_size, config.hidden_size);
        Llama {
            embed_tokens: Embedding {
                weight: weights.get("model.embed_tokens.weight", (vocabulary, hidden)),
            },
            layers: (0..config.num_hidden_layers)
                .map(|layer| DecoderLayer::new(&mut weights, config, layer, rope))
                .collect(),
            norm: weights.norm("model.norm", hidden),
            lm_head: (!config.tie_word_embeddings)
                .then(|| weights.linear("lm_head", hidden, vocabulary, false)),
        }
    }
}

impl LanguageModel for Llama {
    fn hidden_states(&self, tokens: GraphTensor, steps: Option<Steps>) -> Vec<GraphTensor> {
        let x = self.embed_tokens.forward(tokens);
        each_state(x, &self.layers, |layer, x| layer.forward(x, steps))
    }

    fn logits(&self, x: GraphTensor) -> GraphTensor {
        let x = self.norm.forward(x);
        match &self.lm_head {
            Some(head) => head.forward(x),
            None => self.embed_tokens.logits(x),
        }
    }
}

impl Module for Llama {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("model.embed_tokens", &self.embed_tokens);
        visitor.modules("model.layers", &self.layers);
        visitor.module("model.norm", &self.norm);
        if let Some(head) = &self.lm_head {
            visitor.module("lm_head", head);
        }
    }
}
