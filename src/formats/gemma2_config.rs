//! The configuration of a Gemma 2 checkpoint in the Hugging Face layout.
//!
//! Read from `config.json`, and the ids that end a text from `generation_config.json` when that is there. Old and new
//! spellings of a field are both read (`rope_theta` and `rope_parameters.rope_theta`, `torch_dtype` and `dtype`); a
//! field that this file does not know is an error, and so is a variant that Gemma 2 does not have (biases, untied
//! embeddings, scaled rotary positions).
//!
//! Defaults for absent fields are those of the model's reference implementation.

use std::path::Path;

use super::config_fields::{
    IGNORED, MOST_HEADS, MOST_LAYERS, check_kind, contradiction, generation_eos, read_cap,
    read_dtype, read_gelu, read_layer_types,
};
use super::gguf::{Gguf, is_gguf};
use super::huggingface::{ConfigReader, LARGEST_DIM};
use crate::error::Result;
pub use crate::nn::Activation;
pub use crate::nn::models::LayerType;
pub use crate::nn::models::gemma2::Config as Gemma2Config;

/// The layers use `hidden_activation`; this older name stays in files as a copy, or a leftover.
pub(super) const OLD_ACTIVATION: &str = "hidden_act";

impl Gemma2Config {
    /// Reads `config.json` and, when it is there, `generation_config.json` of a checkpoint's folder; or the metadata of a
    /// GGUF file.
    ///
    /// # Errors
    /// If a file cannot be read, a field is missing, unknown or out of range, or fields contradict each other. The
    /// message names the file and the field.
    pub fn open(folder: impl AsRef<Path>) -> Result<Gemma2Config> {
        let folder = folder.as_ref();
        if is_gguf(folder) {
            return Gemma2Config::from_gguf(&Gguf::open(folder)?);
        }
        let mut config = Gemma2Config::read(ConfigReader::open_folder(folder)?)?;
        if let Some(eos) = generation_eos(folder, config.vocab_size)? {
            config.eos_token_ids = eos;
        }
        Ok(config)
    }

    /// Takes the configuration out of `reader`, which must hold nothing else.
    ///
    /// # Errors
    /// As [`Gemma2Config::open`].
    pub fn read(mut reader: ConfigReader) -> Result<Gemma2Config> {
        let r = &mut reader;
        check_kind(r, &[("gemma2", "Gemma2ForCausalLM")])?;
        check_variants(r)?;
        let vocab_size = r.usize("vocab_size")?;
        let num_hidden_layers = r.usize_up_to("num_hidden_layers", MOST_LAYERS)?;
        let config = Gemma2Config {
            vocab_size,
            hidden_size: r.usize("hidden_size")?,
            intermediate_size: r.usize("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads: r.usize_up_to("num_attention_heads", MOST_HEADS)?,
            num_key_value_heads: r.usize_up_to("num_key_value_heads", MOST_HEADS)?,
            head_dim: r.usize("head_dim")?,
            hidden_activation: read_gelu(r)?,
            max_position_embeddings: r.usize("max_position_embeddings")?,
            rms_norm_eps: r.positive_opt("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: read_rope_theta(r)?,
            attn_logit_softcapping: read_cap(r, "attn_logit_softcapping", Some(50.0))?,
            final_logit_softcapping: read_cap(r, "final_logit_softcapping", Some(30.0))?,
            query_pre_attn_scalar: r.positive("query_pre_attn_scalar")?,
            sliding_window: read_sliding_window(r)?,
            layer_types: read_layer_types(r, num_hidden_layers, 2)?,
            bos_token_id: r.token_id("bos_token_id", vocab_size)?,
            eos_token_ids: r.token_ids("eos_token_id", vocab_size)?,
            pad_token_id: r.token_id("pad_token_id", vocab_size)?,
            dtype: read_dtype(r)?,
        };
        if let Some((field, what)) = config.contradiction() {
            return Err(r.error(field, what));
        }
        reader.ignore(IGNORED);
        reader.ignore(&[OLD_ACTIVATION]);
        reader.finish()?;
        Ok(config)
    }

    /// The field at fault and what is wrong with it, if fields contradict each other.
    pub(super) fn contradiction(&self) -> Option<(&'static str, String)> {
        let heads = (
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        );
        contradiction(heads, self.parameter_count())
    }
}

/// Refuses variants that the Gemma models in this crate do not compute.
pub(super) fn check_variants(r: &mut ConfigReader) -> Result<()> {
    if r.bool_or("attention_bias", false)? {
        return Err(r.error("attention_bias", "biases are not supported"));
    }
    if !r.bool_or("tie_word_embeddings", true)? {
        return Err(r.error(
            "tie_word_embeddings",
            "an output layer of its own is not supported",
        ));
    }
    if r.bool_or("use_bidirectional_attention", false)? {
        return Err(r.error(
            "use_bidirectional_attention",
            "only causal attention is supported",
        ));
    }
    Ok(())
}

fn read_rope_theta(r: &mut ConfigReader) -> Result<f64> {
    const DEFAULT: f64 = 10_000.0;
    if r.value("rope_scaling").is_some() {
        return Err(r.error("rope_scaling", "scaled rotary positions are not supported"));
    }
    let old = r.positive_opt("rope_theta")?;
    let Some(mut rope) = r.object_opt("rope_parameters")? else {
        return Ok(old.unwrap_or(DEFAULT));
    };
    if let Some(kind) = rope.string_opt("rope_type")?
        && kind != "default"
    {
        return Err(rope.error(
            "rope_type",
            format!("is {kind:?}; only \"default\" is supported"),
        ));
    }
    let new = rope.positive_opt("rope_theta")?;
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            Err(rope.error("rope_theta", format!("{new} contradicts rope_theta, {old}")))
        }
        _ => {
            rope.finish()?;
            Ok(new.or(old).unwrap_or(DEFAULT))
        }
    }
}

fn read_sliding_window(r: &mut ConfigReader) -> Result<usize> {
    let window = r.usize("sliding_window")?;
    match r.usize_in("sliding_window_size", 1..=LARGEST_DIM)? {
        Some(size) if size != window => {
            let what = format!("{size} contradicts sliding_window, {window}");
            Err(r.error("sliding_window_size", what))
        }
        _ => Ok(window),
    }
}
