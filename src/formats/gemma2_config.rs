//! The configuration of a Gemma 2 checkpoint in the Hugging Face layout.
//!
//! Read from `config.json`, and the ids that end a text from `generation_config.json` when that is there. Old and new
//! spellings of a field are both read (`rope_theta` and `rope_parameters.rope_theta`, `torch_dtype` and `dtype`); a
//! field that this file does not know is an error, and so is a variant that Gemma 2 does not have (biases, untied
//! embeddings, scaled rotary positions).
//!
//! Defaults for absent fields are those of the model's reference implementation.

use std::path::Path;

use super::gguf::{Gguf, is_gguf};
use super::huggingface::{ConfigReader, LARGEST_DIM};
use crate::dtype::DType;
use crate::error::Result;
pub use crate::nn::Activation;
pub use crate::nn::models::gemma2::{Config as Gemma2Config, LayerType};

/// More layers than any model of this kind has.
const MOST_LAYERS: usize = 1024;
/// More heads than any model of this kind has.
const MOST_HEADS: usize = 1 << 16;

/// Fields that say nothing about what the model computes at inference.
const IGNORED: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "attention_dropout",
    "cache_implementation",
    // The layers use `hidden_activation`; this older name stays in files as a copy, or a leftover.
    "hidden_act",
    "initializer_range",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "transformers_version",
    "use_cache",
];

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
        let generation = folder.join("generation_config.json");
        if generation.exists() {
            // The file holds defaults of another program's sampler; of those, only what ends a text is the model's.
            let mut reader = ConfigReader::open(&generation)?;
            let eos = reader.token_ids("eos_token_id", config.vocab_size)?;
            if !eos.is_empty() {
                config.eos_token_ids = eos;
            }
        }
        Ok(config)
    }

    /// Takes the configuration out of `reader`, which must hold nothing else.
    ///
    /// # Errors
    /// As [`Gemma2Config::open`].
    pub fn read(mut reader: ConfigReader) -> Result<Gemma2Config> {
        let r = &mut reader;
        check_kind(r)?;
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
            hidden_activation: read_activation(r)?,
            max_position_embeddings: r.usize("max_position_embeddings")?,
            rms_norm_eps: r.positive_opt("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta: read_rope_theta(r)?,
            attn_logit_softcapping: read_cap(r, "attn_logit_softcapping", 50.0)?,
            final_logit_softcapping: read_cap(r, "final_logit_softcapping", 30.0)?,
            query_pre_attn_scalar: r.positive("query_pre_attn_scalar")?,
            sliding_window: read_sliding_window(r)?,
            layer_types: read_layer_types(r, num_hidden_layers)?,
            bos_token_id: r.token_id("bos_token_id", vocab_size)?,
            eos_token_ids: r.token_ids("eos_token_id", vocab_size)?,
            pad_token_id: r.token_id("pad_token_id", vocab_size)?,
            dtype: read_dtype(r)?,
        };
        if let Some((field, what)) = config.contradiction() {
            return Err(r.error(field, what));
        }
        reader.ignore(IGNORED);
        reader.finish()?;
        Ok(config)
    }

    /// The field at fault and what is wrong with it, if fields contradict each other.
    pub(super) fn contradiction(&self) -> Option<(&'static str, String)> {
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            let what = format!("{kv_heads} does not divide num_attention_heads, {heads}");
            return Some(("num_key_value_heads", what));
        }
        if !self.head_dim.is_multiple_of(2) {
            let what = format!("{} is odd; rotary positions need pairs", self.head_dim);
            return Some(("head_dim", what));
        }
        if self.head_dim.saturating_mul(heads) > LARGEST_DIM {
            let what = format!(
                "{} for {heads} heads is wider than {LARGEST_DIM}",
                self.head_dim
            );
            return Some(("head_dim", what));
        }
        let overflows = self.parameter_count().is_none();
        let what = "the number of parameters overflows";
        overflows.then(|| ("hidden_size", what.to_owned()))
    }
}

/// Refuses the configuration of another kind of model.
fn check_kind(r: &mut ConfigReader) -> Result<()> {
    let kind = r.string("model_type")?;
    if kind != "gemma2" {
        return Err(r.error("model_type", format!("is {kind:?}, not \"gemma2\"")));
    }
    match r.strings_opt("architectures")? {
        Some(names) if !names.iter().any(|name| name == "Gemma2ForCausalLM") => {
            Err(r.error("architectures", "Gemma2ForCausalLM is not among them"))
        }
        _ => Ok(()),
    }
}

/// Refuses variants that the model in this crate does not compute.
fn check_variants(r: &mut ConfigReader) -> Result<()> {
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

fn read_activation(r: &mut ConfigReader) -> Result<Activation> {
    match r.string_opt("hidden_activation")?.as_deref() {
        None | Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("gelu") => Ok(Activation::Gelu),
        Some(other) => {
            let what = format!("{other:?} is neither \"gelu_pytorch_tanh\" nor \"gelu\"");
            Err(r.error("hidden_activation", what))
        }
    }
}

/// A soft-cap: `null` switches it off, absence means the reference implementation's default.
fn read_cap(r: &mut ConfigReader, field: &str, default: f32) -> Result<Option<f32>> {
    if !r.contains(field) {
        return Ok(Some(default));
    }
    match r.positive_opt(field)? {
        None => Ok(None),
        Some(cap) => match cap as f32 {
            narrow if narrow.is_finite() && narrow > 0.0 => Ok(Some(narrow)),
            _ => Err(r.error(field, format!("{cap:e} is out of the range of f32"))),
        },
    }
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

/// The layers' types: listed, or every `sliding_window_pattern`-th full, or (by default) every second one.
fn read_layer_types(r: &mut ConfigReader, n_layers: usize) -> Result<Vec<LayerType>> {
    let pattern = r.usize_in("sliding_window_pattern", 1..=MOST_LAYERS)?;
    let by_pattern = |pattern: usize| -> Vec<LayerType> {
        let kind = |layer: usize| match (layer + 1).is_multiple_of(pattern) {
            true => LayerType::Full,
            false => LayerType::Sliding,
        };
        (0..n_layers).map(kind).collect()
    };
    let Some(names) = r.strings_opt("layer_types")? else {
        return Ok(by_pattern(pattern.unwrap_or(2)));
    };
    let kind = |name: &String| match name.as_str() {
        "sliding_attention" => Ok(LayerType::Sliding),
        "full_attention" => Ok(LayerType::Full),
        _ => {
            let what = format!("{name:?} is neither \"sliding_attention\" nor \"full_attention\"");
            Err(r.error("layer_types", what))
        }
    };
    let types: Vec<LayerType> = names.iter().map(kind).collect::<Result<_>>()?;
    if types.len() != n_layers {
        let what = format!("has {} entries for {n_layers} layers", types.len());
        return Err(r.error("layer_types", what));
    }
    match pattern {
        Some(pattern) if by_pattern(pattern) != types => {
            let what = format!("{pattern} contradicts layer_types");
            Err(r.error("sliding_window_pattern", what))
        }
        _ => Ok(types),
    }
}

fn read_dtype(r: &mut ConfigReader) -> Result<Option<DType>> {
    let (new, old) = (r.string_opt("dtype")?, r.string_opt("torch_dtype")?);
    let field = if new.is_some() {
        "dtype"
    } else {
        "torch_dtype"
    };
    if let (Some(new), Some(old)) = (&new, &old)
        && new != old
    {
        return Err(r.error("dtype", format!("{new:?} contradicts torch_dtype, {old:?}")));
    }
    match new.or(old).as_deref() {
        None => Ok(None),
        Some("float32") => Ok(Some(DType::F32)),
        Some("float16") => Ok(Some(DType::F16)),
        Some("bfloat16") => Ok(Some(DType::BF16)),
        Some(other) => Err(r.error(field, format!("{other:?} is not supported"))),
    }
}
