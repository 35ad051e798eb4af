//! The configuration of a model of the Llama family as metadata of GGUF files.
//!
//! | | Hugging Face | GGUF |
//! |---|---|---|
//! | biases, norms of queries and keys | fields, or the kind of model | which tensors there are |
//! | an output layer of its own | `tie_word_embeddings` | whether there is `output.weight` |
//! | Llama 3's frequencies | `rope_scaling` | the tensor `rope_freqs.weight` |
//! | Mistral | `MistralForCausalLM` | `llama`, with `llama.attention.sliding_window` |

use super::super::huggingface::LARGEST_DIM;
use super::super::llama_config::LlamaConfig;
use super::architecture::{Architecture, EMBEDDING, OUTPUT, ROPE_FACTORS};
use super::keys::{Keys, MOST_HEADS, MOST_LAYERS, Sizes, Tokens, write_numbers, write_size};
use super::{Gguf, Writer};
use crate::error::{Error, Result};
use crate::nn::models::LayerType;
use crate::nn::models::llama::Family;
use crate::nn::{Activation, RopeConfig, RopePairs, RopeScaling};

const WINDOW_KEY: &str = "attention.sliding_window";

impl LlamaConfig {
    /// The configuration in a GGUF file's metadata and the names of its tensors.
    ///
    /// # Errors
    /// If the file's architecture is another one, or a key is missing, unknown or out of range.
    pub fn from_gguf(file: &Gguf) -> Result<LlamaConfig> {
        let architecture = Architecture::of(file)?;
        let keys = Keys::of(file, architecture)?;
        let k = &keys;
        let num_hidden_layers = k.size("block_count", MOST_LAYERS)?;
        let hidden_size = k.size("embedding_length", LARGEST_DIM)?;
        let num_attention_heads = k.size("attention.head_count", MOST_HEADS)?;
        let head_dim = k.head_dim(Some(hidden_size / num_attention_heads))?;
        k.check_rotary_width(head_dim)?;
        let vocab_size = k.vocab_size()?;
        let sliding_window = k.size_in(WINDOW_KEY, 1..=LARGEST_DIM)?;
        let family = match architecture {
            Architecture::Qwen2 => Family::Qwen2,
            Architecture::Qwen3 => Family::Qwen3,
            Architecture::Llama if sliding_window.is_some() => Family::Mistral,
            Architecture::Llama => Family::Llama,
            Architecture::Gemma2 | Architecture::Gemma3 => {
                let what = format!("is {:?}, no model of the Llama family", architecture.name());
                return Err(file.error("general.architecture", what));
            }
        };
        if k.size_in("expert_count", 0..=LARGEST_DIM)?.unwrap_or(0) > 0 {
            return Err(k.error("expert_count", "models of experts are not supported"));
        }
        // Says how the file was made.
        k.value("tensor_data_layout");
        let window = sliding_window.map_or(LayerType::Full, |_| LayerType::Sliding);
        let has = |name: &str| file.info(name).is_some();
        let config = LlamaConfig {
            family,
            vocab_size,
            hidden_size,
            intermediate_size: k.size("feed_forward_length", LARGEST_DIM)?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: k
                .size_in("attention.head_count_kv", 1..=MOST_HEADS)?
                .unwrap_or(num_attention_heads),
            head_dim,
            hidden_activation: Activation::Silu,
            max_position_embeddings: k.size("context_length", LARGEST_DIM)?,
            rms_norm_eps: k.rms_norm_eps()?,
            rope: read_rope(k, architecture, head_dim)?,
            qkv_bias: has("blk.0.attn_q.bias"),
            o_bias: has("blk.0.attn_output.bias"),
            mlp_bias: has("blk.0.ffn_up.bias"),
            qk_norm: family == Family::Qwen3,
            tie_word_embeddings: !has(OUTPUT),
            sliding_window,
            layer_types: vec![window; num_hidden_layers],
            bos_token_id: k.bos(vocab_size)?,
            eos_token_ids: k.eos(vocab_size)?,
            pad_token_id: k.pad(vocab_size)?,
            dtype: file.info(EMBEDDING).and_then(|info| info.ty.to_dtype()),
        };
        keys.check(config.contradiction())?;
        keys.finish()?;
        Ok(config)
    }

    /// Adds the configuration to a GGUF file that is to be written. The tensor `rope_freqs.weight` is added by whoever
    /// adds tensors; see [`RopeConfig::factors`].
    ///
    /// # Errors
    /// If the metadata cannot say it: an activation that llama.cpp's models do not have, or a window of some layers only.
    pub fn to_gguf(&self, writer: &mut Writer) -> Result<()> {
        let architecture = self.architecture();
        let window = self.common_window()?;
        let sizes = Sizes {
            vocabulary: self.vocab_size,
            context: self.max_position_embeddings,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
        };
        sizes.write(writer, architecture)?;
        write_size(writer, architecture, "rope.dimension_count", self.head_dim)?;
        if let Some(window) = window {
            write_size(writer, architecture, WINDOW_KEY, window)?;
        }
        let mut numbers = vec![
            ("attention.layer_norm_rms_epsilon", self.rms_norm_eps),
            ("rope.freq_base", self.rope.theta),
        ];
        if let RopeScaling::Linear(factor) = self.rope.scaling {
            writer.set(
                format!("{}.rope.scaling.type", architecture.name()),
                "linear",
            );
            numbers.push(("rope.scaling.factor", factor));
        }
        write_numbers(writer, architecture, &numbers);
        let tokens = Tokens {
            bos: self.bos_token_id,
            eos: &self.eos_token_ids,
            pad: self.pad_token_id,
        };
        tokens.write(writer);
        Ok(())
    }

    /// The window of all layers, if they have one.
    ///
    /// # Errors
    /// If the metadata cannot say what this configuration does.
    fn common_window(&self) -> Result<Option<usize>> {
        let architecture = self.architecture();
        let cannot = |what: &str| {
            let name = architecture.name();
            let what = format!("GGUF files of {name} models have no way to say that {what}");
            Err(Error::msg(what))
        };
        if self.hidden_activation != Activation::Silu {
            return cannot("the activation is another one than silu");
        }
        let is_plain = matches!(
            self.rope.scaling,
            RopeScaling::None | RopeScaling::Linear(_)
        );
        if !is_plain && architecture != Architecture::Llama {
            return cannot("frequencies are slowed in another way than linearly");
        }
        let all = |kind: LayerType| self.layer_types.iter().all(|&found| found == kind);
        match self.sliding_window {
            Some(window) if all(LayerType::Sliding) => Ok(Some(window)),
            _ if all(LayerType::Full) => Ok(None),
            _ => cannot("some layers have a window and others have none"),
        }
    }

    /// The architecture that files of this member of the family have.
    pub(super) fn architecture(&self) -> Architecture {
        match self.family {
            Family::Llama | Family::Mistral => Architecture::Llama,
            Family::Qwen2 => Architecture::Qwen2,
            Family::Qwen3 => Architecture::Qwen3,
        }
    }
}

fn read_rope(k: &Keys<'_>, architecture: Architecture, head_dim: usize) -> Result<RopeConfig> {
    let linear = k.linear_rope_factor()?.map(RopeScaling::Linear);
    let scaling = match k.file.info(ROPE_FACTORS) {
        None => linear.unwrap_or_default(),
        Some(info) => {
            let wrong = |what: String| k.file.error(ROPE_FACTORS, what);
            if info.shape != [head_dim / 2] {
                let what = format!("has shape {:?}, not [{}]", info.shape, head_dim / 2);
                return Err(wrong(what));
            }
            let factors = k.file.get(ROPE_FACTORS)?.dequantize()?;
            if linear.is_some() || !factors.iter().all(|x| x.is_finite() && *x > 0.0) {
                let what = "contradicts rope.scaling, or is not all finite numbers above zero";
                return Err(wrong(what.into()));
            }
            RopeScaling::Factors(factors)
        }
    };
    Ok(RopeConfig {
        theta: k.positive("rope.freq_base")?.unwrap_or(10_000.0),
        scaling,
        pairs: match architecture.has_neighbours() {
            true => RopePairs::Neighbours,
            false => RopePairs::Halves,
        },
    })
}
