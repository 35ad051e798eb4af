//! Gemma 2's configuration as metadata of GGUF files.
//!
//! | | Hugging Face | GGUF |
//! |---|---|---|
//! | soft-caps, window, sizes | `config.json` | keys that start with `gemma2.` |
//! | scale of attention scores | `query_pre_attn_scalar` | `gemma2.attention.scale`, else from the sizes |
//! | which layers slide | `layer_types` | the first, the third, .. |

use super::super::gemma2_config::{Activation, Gemma2Config, LayerType};
use super::super::huggingface::LARGEST_DIM;
use super::architecture::{Architecture, EMBEDDING};
use super::keys::{Keys, MOST_HEADS, MOST_LAYERS, Sizes, Tokens, write_numbers, write_size};
use super::{Gguf, Value, Writer};
use crate::error::{Error, Result};

const ARCHITECTURE: Architecture = Architecture::Gemma2;
/// The number of layers of the model whose scores are scaled by its width for each head, not by the head's size.
const LAYERS_OF_27B: usize = 46;
/// Every second layer sees everything.
const PERIOD: usize = 2;

impl Gemma2Config {
    /// The configuration in a GGUF file's metadata.
    ///
    /// # Errors
    /// If the file's architecture is another one, or a key is missing, unknown or out of range.
    pub fn from_gguf(file: &Gguf) -> Result<Gemma2Config> {
        let keys = Keys::of(file, ARCHITECTURE)?;
        let k = &keys;
        let num_hidden_layers = k.size("block_count", MOST_LAYERS)?;
        let hidden_size = k.size("embedding_length", LARGEST_DIM)?;
        let num_attention_heads = k.size("attention.head_count", MOST_HEADS)?;
        let head_dim = k.head_dim(None)?;
        let vocab_size = k.vocab_size()?;
        let config = Gemma2Config {
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
            rope_theta: read_rope(k, head_dim)?,
            attn_logit_softcapping: read_cap(k, "attn_logit_softcapping", 50.0)?,
            final_logit_softcapping: read_cap(k, "final_logit_softcapping", 30.0)?,
            query_pre_attn_scalar: read_query_scalar(
                k,
                num_hidden_layers == LAYERS_OF_27B,
                (hidden_size, num_attention_heads, head_dim),
            )?,
            sliding_window: k.size("attention.sliding_window", LARGEST_DIM)?,
            layer_types: LayerType::pattern(num_hidden_layers, PERIOD),
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
    /// If the metadata cannot say it: an activation, layer types or absent soft-caps that llama.cpp's Gemma 2 does not have.
    pub fn to_gguf(&self, writer: &mut Writer) -> Result<()> {
        let cannot = |what: &str| {
            Error::msg(format!(
                "GGUF files of Gemma 2 have no way to say that {what}"
            ))
        };
        if self.hidden_activation != Activation::GeluTanh {
            return Err(cannot(
                "the activation is another one than gelu_pytorch_tanh",
            ));
        }
        if self.layer_types != LayerType::pattern(self.num_hidden_layers, PERIOD) {
            return Err(cannot("layers do not slide in turn, from the first one on"));
        }
        let (Some(attn_cap), Some(final_cap)) =
            (self.attn_logit_softcapping, self.final_logit_softcapping)
        else {
            return Err(cannot("there is no soft-cap"));
        };
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
        write_size(
            writer,
            ARCHITECTURE,
            "attention.sliding_window",
            self.sliding_window,
        )?;
        let numbers = [
            ("attention.layer_norm_rms_epsilon", self.rms_norm_eps),
            ("attn_logit_softcapping", f64::from(attn_cap)),
            ("final_logit_softcapping", f64::from(final_cap)),
            ("rope.freq_base", self.rope_theta),
        ];
        write_numbers(writer, ARCHITECTURE, &numbers);
        let sizes = (self.hidden_size, self.num_attention_heads, self.head_dim);
        let is_27b = self.num_hidden_layers == LAYERS_OF_27B;
        if self.query_pre_attn_scalar != default_query_scalar(is_27b, sizes) {
            let scale = self.query_pre_attn_scalar.powf(-0.5);
            write_numbers(writer, ARCHITECTURE, &[("attention.scale", scale)]);
        }
        let tokens = Tokens {
            bos: self.bos_token_id,
            eos: &self.eos_token_ids,
            pad: self.pad_token_id,
        };
        tokens.write(writer);
        Ok(())
    }
}

/// What the root that scores are divided by is of, from sizes of the stream, the number of heads and the size of one.
pub(super) fn read_query_scalar(
    k: &Keys<'_>,
    is_27b: bool,
    sizes: (usize, usize, usize),
) -> Result<f64> {
    let scale = k.positive("attention.scale")?;
    Ok(scale.map_or(default_query_scalar(is_27b, sizes), scalar_of))
}

/// The same when no key says it: in the largest models of a generation the width of the stream for each head.
pub(super) fn default_query_scalar(
    is_27b: bool,
    (hidden, heads, head_dim): (usize, usize, usize),
) -> f64 {
    match is_27b {
        true => hidden as f64 / heads as f64,
        false => head_dim as f64,
    }
}

/// `scale^-2`, which is an integer in all models: what differs from one by no more than the rounding of an `f32` is one.
fn scalar_of(scale: f64) -> f64 {
    let scalar = scale.powi(-2);
    let whole = scalar.round();
    if (scalar - whole).abs() < 1e-5 * whole {
        whole
    } else {
        scalar
    }
}

/// A soft-cap: absence means the architecture's default.
fn read_cap(k: &Keys<'_>, key: &str, default: f32) -> Result<Option<f32>> {
    let cap = k.positive(key)?;
    Ok(Some(cap.map_or(default, |cap| cap as f32)))
}

fn read_rope(k: &Keys<'_>, head_dim: usize) -> Result<f64> {
    k.check_rotary_width(head_dim)?;
    match k.value("rope.scaling.type").map(Value::as_str) {
        None | Some(Some("none")) => {}
        Some(_) => {
            return Err(k.error(
                "rope.scaling.type",
                "scaled rotary positions are not supported",
            ));
        }
    }
    Ok(k.positive("rope.freq_base")?.unwrap_or(10_000.0))
}
