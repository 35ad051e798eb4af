//! The configuration of a Gemma 3 checkpoint in the Hugging Face layout, its text part.
//!
//! A checkpoint that also sees pictures has the text part's fields in `text_config`; what is beside it says nothing about
//! texts, but for the ids that begin and end them. Such files leave out what is the reference implementation's default,
//! so here an absent field is that.

use std::path::Path;

use super::config_fields::{
    IGNORED, MOST_HEADS, MOST_LAYERS, check_kind, contradiction, generation_eos, read_cap,
    read_dtype, read_gelu, read_layer_types, read_rope, read_scaling,
};
use super::gemma2_config::{OLD_ACTIVATION, check_variants};
use super::gguf::{Gguf, is_gguf};
use super::huggingface::{ConfigReader, LARGEST_DIM};
use crate::error::Result;
use crate::nn::RopeConfig;
pub use crate::nn::models::gemma3::Config as Gemma3Config;

/// What a configuration is called in files: of a model of texts, and of one of texts and pictures.
const TEXT: (&str, &str) = ("gemma3_text", "Gemma3ForCausalLM");
const PICTURES: (&str, &str) = ("gemma3", "Gemma3ForConditionalGeneration");

/// Fields beside `text_config`.
const OF_PICTURES: &[&str] = &[
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "mm_tokens_per_image",
    "vision_config",
];

impl Gemma3Config {
    /// Reads `config.json` and, when it is there, `generation_config.json` of a checkpoint's folder; or the metadata of a
    /// GGUF file.
    ///
    /// # Errors
    /// If a file cannot be read, a field is unknown or out of range, or fields contradict each other. The message names the
    /// file and the field.
    pub fn open(folder: impl AsRef<Path>) -> Result<Gemma3Config> {
        let folder = folder.as_ref();
        if is_gguf(folder) {
            return Gemma3Config::from_gguf(&Gguf::open(folder)?);
        }
        let mut config = Gemma3Config::read(ConfigReader::open_folder(folder)?)?;
        if let Some(eos) = generation_eos(folder, config.vocab_size)? {
            config.eos_token_ids = eos;
        }
        Ok(config)
    }

    /// Takes the configuration out of `reader`, which must hold nothing else.
    ///
    /// # Errors
    /// As [`Gemma3Config::open`].
    pub fn read(mut reader: ConfigReader) -> Result<Gemma3Config> {
        if check_kind(&mut reader, &[TEXT, PICTURES])? == 0 {
            return read_text(reader);
        }
        let Some(mut text) = reader.object_opt("text_config")? else {
            return Err(reader.error("text_config", "is missing"));
        };
        if let Some(kind) = text.string_opt("model_type")?
            && kind != TEXT.0
        {
            return Err(text.error("model_type", format!("is {kind:?}, not {:?}", TEXT.0)));
        }
        let mut config = read_text(text)?;
        let (r, vocab_size) = (&mut reader, config.vocab_size);
        let eos = r.token_ids("eos_token_id", vocab_size)?;
        if !eos.is_empty() {
            config.eos_token_ids = eos;
        }
        config.bos_token_id = r
            .token_id("bos_token_id", vocab_size)?
            .or(config.bos_token_id);
        config.pad_token_id = r
            .token_id("pad_token_id", vocab_size)?
            .or(config.pad_token_id);
        config.dtype = config.dtype.or(read_dtype(r)?);
        check_variants(r)?;
        reader.ignore(IGNORED);
        reader.ignore(OF_PICTURES);
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

fn read_text(mut reader: ConfigReader) -> Result<Gemma3Config> {
    let r = &mut reader;
    r.ignore(&["model_type", "architectures"]);
    check_variants(r)?;
    if r.positive_opt("attn_logit_softcapping")?.is_some() {
        return Err(r.error("attn_logit_softcapping", "scores of Gemma 3 are not capped"));
    }
    let or = |value: Option<usize>, default| value.unwrap_or(default);
    let vocab_size = or(r.usize_in("vocab_size", 1..=LARGEST_DIM)?, 262_208);
    let num_hidden_layers = or(r.usize_in("num_hidden_layers", 1..=MOST_LAYERS)?, 26);
    let (rope, rope_local) = read_ropes(r)?;
    let eos_token_ids = match r.contains("eos_token_id") {
        true => r.token_ids("eos_token_id", vocab_size)?,
        false => vec![1],
    };
    let config = Gemma3Config {
        vocab_size,
        hidden_size: or(r.usize_in("hidden_size", 1..=LARGEST_DIM)?, 2304),
        intermediate_size: or(r.usize_in("intermediate_size", 1..=LARGEST_DIM)?, 9216),
        num_hidden_layers,
        num_attention_heads: or(r.usize_in("num_attention_heads", 1..=MOST_HEADS)?, 8),
        num_key_value_heads: or(r.usize_in("num_key_value_heads", 1..=MOST_HEADS)?, 4),
        head_dim: or(r.usize_in("head_dim", 1..=LARGEST_DIM)?, 256),
        hidden_activation: read_gelu(r)?,
        max_position_embeddings: or(
            r.usize_in("max_position_embeddings", 1..=LARGEST_DIM)?,
            131_072,
        ),
        rms_norm_eps: r.positive_opt("rms_norm_eps")?.unwrap_or(1e-6),
        rope,
        rope_local,
        final_logit_softcapping: read_cap(r, "final_logit_softcapping", None)?,
        query_pre_attn_scalar: r.positive_opt("query_pre_attn_scalar")?.unwrap_or(256.0),
        sliding_window: or(r.usize_in("sliding_window", 1..=LARGEST_DIM)?, 4096),
        layer_types: read_layer_types(r, num_hidden_layers, 6)?,
        bos_token_id: match r.contains("bos_token_id") {
            true => r.token_id("bos_token_id", vocab_size)?,
            false => Some(2).filter(|_| vocab_size > 2),
        },
        eos_token_ids,
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

/// The frequencies of layers that see everything, and of those with a window.
fn read_ropes(r: &mut ConfigReader) -> Result<(RopeConfig, RopeConfig)> {
    const FULL: f64 = 1e6;
    const LOCAL: f64 = 1e4;
    let local = r.positive_opt("rope_local_base_freq")?;
    let is_nested = match r.value("rope_parameters") {
        Some(value) => {
            value.get("full_attention").is_some() || value.get("sliding_attention").is_some()
        }
        None => false,
    };
    if !is_nested {
        return Ok((read_rope(r, FULL)?, RopeConfig::new(local.unwrap_or(LOCAL))));
    }
    let mut outer = r.object_opt("rope_parameters")?.expect("it is there");
    let mut of = |field: &str, default: f64| {
        let Some(mut rope) = outer.object_opt(field)? else {
            return Ok(RopeConfig::new(default));
        };
        let config = RopeConfig {
            scaling: read_scaling(&mut rope)?,
            ..RopeConfig::new(rope.positive_opt("rope_theta")?.unwrap_or(default))
        };
        rope.finish()?;
        Ok(config)
    };
    let old = r.positive_opt("rope_theta")?;
    let ropes = (
        of("full_attention", old.unwrap_or(FULL))?,
        of("sliding_attention", local.unwrap_or(LOCAL))?,
    );
    outer.finish()?;
    Ok(ropes)
}
