//! Gemma 3's configuration as metadata of GGUF files.
//!
//! | | Hugging Face | GGUF |
//! |---|---|---|
//! | frequencies of layers that see everything | `rope_theta` and `rope_scaling` | `gemma3.rope.freq_base`, `.rope.scaling.*` |
//! | frequencies of layers with a window | `rope_local_base_freq` | `gemma3.rope.freq_base_swa` |
//! | scale of attention scores | `query_pre_attn_scalar` | `gemma3.attention.scale`, which llama.cpp does not read, else from the sizes |
//! | which layers slide | `layer_types` | every n-th does not; n is `gemma3.attention.sliding_window_pattern`, else 6 |

use super::super::gemma3_config::Gemma3Config;
use super::super::huggingface::LARGEST_DIM;
use super::architecture::{Architecture, EMBEDDING};
use super::gemma2::{default_query_scalar, read_query_scalar};
use super::keys::{Keys, MOST_HEADS, MOST_LAYERS, Sizes, Tokens, write_numbers, write_size};
use super::{Gguf, Writer};
use crate::error::{Error, Result};
use crate::nn::models::LayerType;
use crate::nn::{Activation, RopeConfig, RopeScaling};

const ARCHITECTURE: Architecture = Architecture::Gemma3;
/// The number of layers of the model whose scores are scaled by its width for each head, not by the head's size.
const LAYERS_OF_27B: usize = 62;
/// Every sixth layer sees everything, where no key says otherwise.
const PERIOD: usize = 6;
const PERIOD_KEY: &str = "attention.sliding_window_pattern";

impl Gemma3Config {
    /// The configuration in a GGUF file's metadata.
    ///
    /// # Errors
    /// If the file's architecture is another one, or a key is missing, unknown or out of range.
    pub fn from_gguf(file: &Gguf) -> Result<Gemma3Config> {
        let keys = Keys::of(file, ARCHITECTURE)?;
        let k = &keys;
        let num_hidden_layers = k.size("block_count", MOST_LAYERS)?;
        let hidden_size = k.size("embedding_length", LARGEST_DIM)?;
        let num_attention_heads = k.size("attention.head_count", MOST_HEADS)?;
        let head_dim = k.head_dim(None)?;
        k.check_rotary_width(head_dim)?;
        let vocab_size = k.vocab_size()?;
        let scaling = k.linear_rope_factor()?.map(RopeScaling::Linear);
        let period = k.size_in(PERIOD_KEY, 1..=MOST_LAYERS)?.unwrap_or(PERIOD);
        let config = Gemma3Config {
            vocab_size,
            hidden_size,
            intermediate_size: k.size("feed_forward_length", LARGEST_DIM)?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: k
                .size_in("attention.head_count_kv", 1..=MOST_HEADS)?
                .unwrap_or(num_attention_heads),
            head_dim,
            hidden_activation: Activation::GeluTanh,
            max_position_embeddings: k.size("context_length", LARGEST_DIM)?,
            rms_norm_eps: k.rms_norm_eps()?,
            rope: RopeConfig {
                scaling: scaling.unwrap_or_default(),
                ..RopeConfig::new(k.positive("rope.freq_base")?.unwrap_or(1e6))
            },
            rope_local: RopeConfig::new(k.positive("rope.freq_base_swa")?.unwrap_or(1e4)),
            final_logit_softcapping: k.positive("final_logit_softcapping")?.map(|cap| cap as f32),
            query_pre_attn_scalar: read_query_scalar(
                k,
                num_hidden_layers == LAYERS_OF_27B,
                (hidden_size, num_attention_heads, head_dim),
            )?,
            sliding_window: k.size("attention.sliding_window", LARGEST_DIM)?,
            layer_types: LayerType::pattern(num_hidden_layers, period),
            bos_token_id: k.bos(vocab_size)?,
            eos_token_ids: k.eos(vocab_size)?,
            pad_token_id: k.pad(vocab_size)?,
            dtype: file.info(EMBEDDING).and_then(|info| info.ty.to_dtype()),
        };
        keys.check(config.contradiction())?;
        keys.finish()?;
        Ok(config)
    }

    /// Adds the configuration to a GGUF file that is to be written.
    ///
    /// # Errors
    /// If the metadata cannot say it: an activation, layer types or frequencies that llama.cpp's Gemma 3 does not have.
    pub fn to_gguf(&self, writer: &mut Writer) -> Result<()> {
        if self.hidden_activation != Activation::GeluTanh {
            return Err(cannot(
                "the activation is another one than gelu_pytorch_tanh",
            ));
        }
        let layers = self.num_hidden_layers;
        // A pattern longer than the model is one whose layers all slide.
        let period = (1..=layers + 1).find(|&n| LayerType::pattern(layers, n) == self.layer_types);
        let period =
            period.ok_or_else(|| cannot("layers do not see everything at equal distances"))?;
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
        sizes.write(writer, ARCHITECTURE)?;
        if self.layer_types != LayerType::pattern(layers, PERIOD) {
            write_size(writer, ARCHITECTURE, PERIOD_KEY, period)?;
        }
        write_size(
            writer,
            ARCHITECTURE,
            "attention.sliding_window",
            self.sliding_window,
        )?;
        write_numbers(writer, ARCHITECTURE, &self.numbers()?);
        if self.rope.scaling != RopeScaling::None {
            writer.set("gemma3.rope.scaling.type", "linear");
        }
        let tokens = Tokens {
            bos: self.bos_token_id,
            eos: &self.eos_token_ids,
            pad: self.pad_token_id,
        };
        tokens.write(writer);
        Ok(())
    }

    /// What is no integer.
    fn numbers(&self) -> Result<Vec<(&'static str, f64)>> {
        let mut numbers = vec![
            ("attention.layer_norm_rms_epsilon", self.rms_norm_eps),
            ("rope.freq_base", self.rope.theta),
            ("rope.freq_base_swa", self.rope_local.theta),
        ];
        match (&self.rope.scaling, &self.rope_local.scaling) {
            (RopeScaling::None, RopeScaling::None) => {}
            (RopeScaling::Linear(factor), RopeScaling::None) => {
                numbers.push(("rope.scaling.factor", *factor));
            }
            _ => {
                return Err(cannot(
                    "frequencies are slowed in another way than linearly",
                ));
            }
        }
        if let Some(cap) = self.final_logit_softcapping {
            numbers.push(("final_logit_softcapping", f64::from(cap)));
        }
        let sizes = (self.hidden_size, self.num_attention_heads, self.head_dim);
        let is_27b = self.num_hidden_layers == LAYERS_OF_27B;
        if self.query_pre_attn_scalar != default_query_scalar(is_27b, sizes) {
            numbers.push(("attention.scale", self.query_pre_attn_scalar.powf(-0.5)));
        }
        Ok(numbers)
    }
}

fn cannot(what: &str) -> Error {
    Error::msg(format!(
        "GGUF files of Gemma 3 have no way to say that {what}"
    ))
}
