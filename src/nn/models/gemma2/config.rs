//! A Gemma 2 model's sizes and constants.

use crate::dtype::DType;
use crate::nn::Activation;
use crate::nn::models::LayerType;

/// A Gemma 2 model's sizes and constants, checked for consistency.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads; a multiple of `num_key_value_heads`.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head, even; not necessarily `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// The feed-forward layer's activation.
    pub hidden_activation: Activation,
    /// The longest sequence that the model was made for.
    pub max_position_embeddings: usize,
    /// What is added to the mean square before its root.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scores become `cap * tanh(score / cap)`.
    pub attn_logit_softcapping: Option<f32>,
    /// Logits become `cap * tanh(logit / cap)`.
    pub final_logit_softcapping: Option<f32>,
    /// Scores are divided by this number's root; not necessarily `head_dim`.
    pub query_pre_attn_scalar: f64,
    /// Positions that a sliding layer sees, the query's own included.
    pub sliding_window: usize,
    /// One for each layer.
    pub layer_types: Vec<LayerType>,
    /// The id that starts a text.
    pub bos_token_id: Option<u32>,
    /// The ids that end a text; none means that only length ends it.
    pub eos_token_ids: Vec<u32>,
    /// The id that fills a batch.
    pub pad_token_id: Option<u32>,
    /// The type that the weights were saved in.
    pub dtype: Option<DType>,
}

impl Config {
    /// The number of parameters, or `None` when that overflows.
    pub fn parameter_count(&self) -> Option<usize> {
        let projections = self
            .num_attention_heads
            .checked_add(self.num_key_value_heads)?
            .checked_mul(2)?
            .checked_mul(self.head_dim)?;
        let feed_forward = self.intermediate_size.checked_mul(3)?;
        // The four norms of a layer have a weight for each channel.
        let columns = projections.checked_add(feed_forward)?.checked_add(4)?;
        let layers = columns.checked_mul(self.num_hidden_layers)?;
        // The embedding, all layers, and the last norm.
        let rows = self.vocab_size.checked_add(layers)?.checked_add(1)?;
        rows.checked_mul(self.hidden_size)
    }
}
