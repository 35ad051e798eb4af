//! The sizes and constants of a model of the Llama family.

use crate::dtype::DType;
use crate::nn::models::LayerType;
use crate::nn::{Activation, RopeConfig};

/// A member of the family, as files name it. What it computes is in the other fields of a [`Config`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Family {
    /// Llama 2 and 3, SmolLM2.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
}

/// The sizes and constants of a model of the Llama family, checked for consistency.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// How files name the model.
    pub family: Family,
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
    /// Angles by which queries and keys are turned.
    pub rope: RopeConfig,
    /// Whether queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether attention's output has a bias.
    pub o_bias: bool,
    /// Whether the feed-forward layer has biases.
    pub mlp_bias: bool,
    /// Whether each head's queries and keys are normed.
    pub qk_norm: bool,
    /// Whether the output layer is the embedding.
    pub tie_word_embeddings: bool,
    /// Positions that a sliding layer sees, the query's own included.
    pub sliding_window: Option<usize>,
    /// One for each layer; sliding only where there is a window.
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
        let (hidden, inner) = (self.hidden_size, self.intermediate_size);
        let q = self.num_attention_heads.checked_mul(self.head_dim)?;
        let kv = self.num_key_value_heads.checked_mul(self.head_dim)?;
        let qkv = kv.checked_mul(2)?.checked_add(q)?;
        // Columns of matrices whose other side is the stream, and the weights of two norms.
        let columns = qkv.checked_add(q)?.checked_add(inner.checked_mul(3)?)?;
        let matrices = columns.checked_add(2)?.checked_mul(hidden)?;
        let extra = [
            (self.qkv_bias, qkv),
            (self.o_bias, hidden),
            (self.mlp_bias, inner.checked_mul(2)?.checked_add(hidden)?),
            (self.qk_norm, self.head_dim.checked_mul(2)?),
        ];
        let mut extra = extra.into_iter().filter(|(there, _)| *there);
        let layer = extra.try_fold(matrices, |sum, (_, n)| sum.checked_add(n))?;
        let tables = if self.tie_word_embeddings { 1 } else { 2 };
        let outer = self.vocab_size.checked_mul(tables)?.checked_add(1)?;
        let layers = layer.checked_mul(self.num_hidden_layers)?;
        outer.checked_mul(hidden)?.checked_add(layers)
    }
}
