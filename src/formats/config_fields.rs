//! Fields that the configurations of several models have, in the Hugging Face layout.

use std::path::Path;

use super::huggingface::{ConfigReader, LARGEST_DIM};
use crate::dtype::DType;
use crate::error::Result;
use crate::nn::models::LayerType;
use crate::nn::{Activation, RopeConfig, RopePairs, RopeScaling};

/// More layers than any model of these kinds has.
pub(super) const MOST_LAYERS: usize = 1024;
/// More heads than any model of these kinds has.
pub(super) const MOST_HEADS: usize = 1 << 16;

/// Fields that say nothing about what a model computes at inference.
pub(super) const IGNORED: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "attention_dropout",
    "cache_implementation",
    "initializer_range",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "transformers_version",
    "use_cache",
];

/// The ids that end a text, as the folder's `generation_config.json` says, or nothing.
///
/// # Errors
/// If there is such a file and it cannot be read, or an id is not in the vocabulary.
pub(super) fn generation_eos(folder: &Path, vocab_size: usize) -> Result<Option<Vec<u32>>> {
    let file = folder.join("generation_config.json");
    if !file.exists() {
        return Ok(None);
    }
    // The file holds defaults of another program's sampler; of those, only what ends a text is the model's.
    let eos = ConfigReader::open(&file)?.token_ids("eos_token_id", vocab_size)?;
    Ok(Some(eos).filter(|eos| !eos.is_empty()))
}

/// Refuses the configuration of another kind of model: `model_type` must be one of `kinds`, and `architectures`, where it is
/// there, hold the name beside it. Gives the kind's number.
pub(super) fn check_kind(r: &mut ConfigReader, kinds: &[(&str, &str)]) -> Result<usize> {
    let found = r.string("model_type")?;
    let Some(at) = kinds.iter().position(|kind| kind.0 == found) else {
        let names: Vec<String> = kinds.iter().map(|kind| format!("{:?}", kind.0)).collect();
        let what = format!("is {found:?}, not {}", names.join(" or "));
        return Err(r.error("model_type", what));
    };
    let architecture = kinds[at].1;
    match r.strings_opt("architectures")? {
        Some(names) if !names.iter().any(|name| name == architecture) => {
            let what = format!("{architecture} is not among them");
            Err(r.error("architectures", what))
        }
        _ => Ok(at),
    }
}

/// The field at fault and what is wrong with it, if sizes contradict each other.
pub(super) fn contradiction(
    (heads, kv_heads, head_dim): (usize, usize, usize),
    parameters: Option<usize>,
) -> Option<(&'static str, String)> {
    if !heads.is_multiple_of(kv_heads) {
        let what = format!("{kv_heads} does not divide num_attention_heads, {heads}");
        return Some(("num_key_value_heads", what));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        let what = format!("{head_dim} is odd; rotary positions need pairs");
        return Some(("head_dim", what));
    }
    if head_dim.saturating_mul(heads) > LARGEST_DIM {
        let what = format!("{head_dim} for {heads} heads is wider than {LARGEST_DIM}");
        return Some(("head_dim", what));
    }
    let what = "the number of parameters overflows";
    parameters
        .is_none()
        .then(|| ("hidden_size", what.to_owned()))
}

/// Gemma's activation.
pub(super) fn read_gelu(r: &mut ConfigReader) -> Result<Activation> {
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
pub(super) fn read_cap(
    r: &mut ConfigReader,
    field: &str,
    default: Option<f32>,
) -> Result<Option<f32>> {
    if !r.contains(field) {
        return Ok(default);
    }
    match r.positive_opt(field)? {
        None => Ok(None),
        Some(cap) => match cap as f32 {
            narrow if narrow.is_finite() && narrow > 0.0 => Ok(Some(narrow)),
            _ => Err(r.error(field, format!("{cap:e} is out of the range of f32"))),
        },
    }
}

/// The base of rotary frequencies and how they are slowed: `rope_theta` and `rope_scaling`, or both in `rope_parameters`.
pub(super) fn read_rope(r: &mut ConfigReader, default: f64) -> Result<RopeConfig> {
    let old = r.positive_opt("rope_theta")?;
    let old_scaling = match r.object_opt("rope_scaling")? {
        None => None,
        Some(mut reader) => {
            let scaling = read_scaling(&mut reader)?;
            reader.finish()?;
            Some(scaling)
        }
    };
    let (mut theta, mut scaling) = (old, old_scaling.clone());
    if let Some(mut rope) = r.object_opt("rope_parameters")? {
        let new = rope.positive_opt("rope_theta")?;
        if let (Some(old), Some(new)) = (old, new)
            && old != new
        {
            let what = format!("{new} contradicts rope_theta, {old}");
            return Err(rope.error("rope_theta", what));
        }
        let new_scaling = read_scaling(&mut rope)?;
        if old_scaling.is_some_and(|old| old != new_scaling) {
            return Err(rope.error("rope_type", "contradicts rope_scaling"));
        }
        rope.finish()?;
        (theta, scaling) = (new.or(theta), Some(new_scaling));
    }
    Ok(RopeConfig {
        theta: theta.unwrap_or(default),
        scaling: scaling.unwrap_or_default(),
        pairs: RopePairs::Halves,
    })
}

/// How frequencies are slowed, from an object that says it.
pub(super) fn read_scaling(r: &mut ConfigReader) -> Result<RopeScaling> {
    let (new, old) = (r.string_opt("rope_type")?, r.string_opt("type")?);
    match new.or(old).as_deref() {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear(r.positive("factor")?)),
        Some("llama3") => {
            let (low, high) = (
                r.positive("low_freq_factor")?,
                r.positive("high_freq_factor")?,
            );
            if high <= low {
                let what = format!("{high} is not above low_freq_factor, {low}");
                return Err(r.error("high_freq_factor", what));
            }
            Ok(RopeScaling::Llama3 {
                factor: r.positive("factor")?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context: r.usize("original_max_position_embeddings")?,
            })
        }
        Some(other) => {
            let what =
                format!("is {other:?}; \"default\", \"linear\" and \"llama3\" are supported");
            Err(r.error("rope_type", what))
        }
    }
}

/// The layers' types: listed, or every `sliding_window_pattern`-th full, or (by default) every `default`-th one.
pub(super) fn read_layer_types(
    r: &mut ConfigReader,
    n_layers: usize,
    default: usize,
) -> Result<Vec<LayerType>> {
    let pattern = r.usize_in("sliding_window_pattern", 1..=MOST_LAYERS)?;
    // Files are saved with it though they list the types, and with a default that those contradict.
    let leftover = r.usize_in("_sliding_window_pattern", 1..=MOST_LAYERS)?;
    let Some(types) = read_layer_list(r, n_layers)? else {
        let period = pattern.or(leftover).unwrap_or(default);
        return Ok(LayerType::pattern(n_layers, period));
    };
    match pattern {
        Some(pattern) if LayerType::pattern(n_layers, pattern) != types => {
            let what = format!("{pattern} contradicts layer_types");
            Err(r.error("sliding_window_pattern", what))
        }
        _ => Ok(types),
    }
}

/// The layers' types, if they are listed.
pub(super) fn read_layer_list(
    r: &mut ConfigReader,
    n_layers: usize,
) -> Result<Option<Vec<LayerType>>> {
    let Some(names) = r.strings_opt("layer_types")? else {
        return Ok(None);
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
    Ok(Some(types))
}

/// The type that the weights were saved in.
pub(super) fn read_dtype(r: &mut ConfigReader) -> Result<Option<DType>> {
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
