//! The configuration of any model that the crate has.

use super::decoder::{LanguageModel, LayerType};
use super::{gemma2, gemma3, llama};
use crate::dtype::DType;
use crate::graph::Graph;
use crate::nn::attention::CacheConfig;

/// The sizes and constants of a model, checked for consistency.
#[derive(Clone, PartialEq, Debug)]
pub enum ModelConfig {
    /// Gemma 2.
    Gemma2(gemma2::Config),
    /// Gemma 3.
    Gemma3(gemma3::Config),
    /// Llama and the models of its form.
    Llama(llama::Config),
}

/// Does the same with the configuration of whatever model it is.
macro_rules! each {
    ($config:expr, $c:ident => $value:expr) => {
        match $config {
            ModelConfig::Gemma2($c) => $value,
            ModelConfig::Gemma3($c) => $value,
            ModelConfig::Llama($c) => $value,
        }
    };
}

impl ModelConfig {
    /// The model, whose parameters have no data yet, with caches as `cache` says, or in `F32` for as many tokens as it
    /// says. `dtype_of` tells the format that a parameter is stored in, by its name.
    #[track_caller]
    pub fn build(
        &self,
        cx: &mut Graph,
        cache: impl Into<CacheConfig>,
        dtype_of: &dyn Fn(&str) -> DType,
    ) -> Box<dyn LanguageModel> {
        match self {
            ModelConfig::Gemma2(c) => Box::new(gemma2::Gemma2::new(cx, c, cache, dtype_of)),
            ModelConfig::Gemma3(c) => Box::new(gemma3::Gemma3::new(cx, c, cache, dtype_of)),
            ModelConfig::Llama(c) => Box::new(llama::Llama::new(cx, c, cache, dtype_of)),
        }
    }

    /// Rows of the embedding.
    pub fn vocab_size(&self) -> usize {
        each!(self, c => c.vocab_size)
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        each!(self, c => c.hidden_size)
    }

    /// Number of layers.
    pub fn num_hidden_layers(&self) -> usize {
        each!(self, c => c.num_hidden_layers)
    }

    /// Query heads.
    pub fn num_attention_heads(&self) -> usize {
        each!(self, c => c.num_attention_heads)
    }

    /// Key and value heads.
    pub fn num_key_value_heads(&self) -> usize {
        each!(self, c => c.num_key_value_heads)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        each!(self, c => c.head_dim)
    }

    /// The longest sequence that the model was made for.
    pub fn max_position_embeddings(&self) -> usize {
        each!(self, c => c.max_position_embeddings)
    }

    /// Positions that each layer sees, the query's own included; `None` for one that sees all.
    pub fn windows(&self) -> Vec<Option<usize>> {
        let window = match self {
            ModelConfig::Gemma2(c) => Some(c.sliding_window),
            ModelConfig::Gemma3(c) => Some(c.sliding_window),
            ModelConfig::Llama(c) => c.sliding_window,
        };
        let seen = |kind: &LayerType| window.filter(|_| *kind == LayerType::Sliding);
        each!(self, c => c.layer_types.iter().map(seen).collect())
    }

    /// Whether the output layer is the embedding.
    pub fn is_tied(&self) -> bool {
        match self {
            ModelConfig::Gemma2(_) | ModelConfig::Gemma3(_) => true,
            ModelConfig::Llama(c) => c.tie_word_embeddings,
        }
    }

    /// The id that starts a text.
    pub fn bos_token_id(&self) -> Option<u32> {
        each!(self, c => c.bos_token_id)
    }

    /// The ids that end a text; none means that only length ends it.
    pub fn eos_token_ids(&self) -> &[u32] {
        each!(self, c => &c.eos_token_ids)
    }

    /// The id that fills a batch.
    pub fn pad_token_id(&self) -> Option<u32> {
        each!(self, c => c.pad_token_id)
    }

    /// The number of parameters, or `None` when that overflows.
    pub fn parameter_count(&self) -> Option<usize> {
        each!(self, c => c.parameter_count())
    }
}

impl From<gemma2::Config> for ModelConfig {
    fn from(config: gemma2::Config) -> ModelConfig {
        ModelConfig::Gemma2(config)
    }
}

impl From<gemma3::Config> for ModelConfig {
    fn from(config: gemma3::Config) -> ModelConfig {
        ModelConfig::Gemma3(config)
    }
}

impl From<llama::Config> for ModelConfig {
    fn from(config: llama::Config) -> ModelConfig {
        ModelConfig::Llama(config)
    }
}
