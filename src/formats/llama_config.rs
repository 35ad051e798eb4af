//! The configuration of a checkpoint of the Llama family in the Hugging Face layout: Llama, SmolLM2, Mistral, Qwen 2 and
//! Qwen 3.
//!
//! Members differ in defaults and in what their kind says without a field: Qwen 2 has biases for queries, keys and values,
//! Qwen 3 norms of queries and keys. A field that this file does not know is an error, and so is a variant that the
//! crate's model does not compute.

use std::path::Path;

use super::config_fields::{
    IGNORED, MOST_HEADS, MOST_LAYERS, check_kind, contradiction, generation_eos, read_dtype,
    read_layer_list, read_rope,
};
use super::gguf::{Gguf, is_gguf};
use super::huggingface::{ConfigReader, LARGEST_DIM};
use crate::error::Result;
use crate::nn::Activation;
use crate::nn::models::LayerType;
pub use crate::nn::models::llama::{Config as LlamaConfig, Family};

/// What members are called in files.
const KINDS: [(&str, &str); 4] = [
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
];
/// Members in the same order.
const FAMILIES: [Family; 4] = [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3];

/// More fields that say nothing about what the model computes.
const ALSO_IGNORED: &[&str] = &[
    "is_llama_config",
    // How products were split in training.
    "pretraining_tp",
    "transformers.js_config",
];

impl LlamaConfig {
    /// Reads `config.json` and, when it is there, `generation_config.json` of a checkpoint's folder; or the metadata of a
    /// GGUF file.
    ///
    /// # Errors
    /// If a file cannot be read, a field is missing, unknown or out of range, or fields contradict each other. The
    /// message names the file and the field.
    pub fn open(folder: impl AsRef<Path>) -> Result<LlamaConfig> {
        let folder = folder.as_ref();
        if is_gguf(folder) {
            return LlamaConfig::from_gguf(&Gguf::open(folder)?);
        }
        let mut config = LlamaConfig::read(ConfigReader::open_folder(folder)?)?;
        if let Some(eos) = generation_eos(folder, config.vocab_size)? {
            config.eos_token_ids = eos;
        }
        Ok(config)
    }

    /// Takes the configuration out of `reader`, which must hold nothing else.
    ///
    /// # Errors
    /// As [`LlamaConfig::open`].
    pub fn read(mut reader: ConfigReader) -> Result<LlamaConfig> {
        let r = &mut reader;
        let family = FAMILIES[check_kind(r, &KINDS)?];
        check_variants(r)?;
        let vocab_size = r.usize("vocab_size")?;
        let hidden_size = r.usize("hidden_size")?;
        let num_hidden_layers = r.usize_up_to("num_hidden_layers", MOST_LAYERS)?;
        let num_attention_heads = r.usize_up_to("num_attention_heads", MOST_HEADS)?;
        let bias = r.bool_or("attention_bias", false)?;
        let (sliding_window, layer_types) = read_windows(r, family, num_hidden_layers)?;
        let config = LlamaConfig {
            family,
            vocab_size,
            hidden_size,
            intermediate_size: r.usize("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: match family {
                Family::Llama => r
                    .usize_in("num_key_value_heads", 1..=MOST_HEADS)?
                    .unwrap_or(num_attention_heads),
                _ => r.usize_up_to("num_key_value_heads", MOST_HEADS)?,
            },
            head_dim: match (r.usize_in("head_dim", 1..=LARGEST_DIM)?, family) {
                (Some(width), _) => width,
                (None, Family::Qwen3) => 128,
                (None, _) => hidden_size / num_attention_heads,
            },
            hidden_activation: read_activation(r)?,
            max_position_embeddings: r.usize("max_position_embeddings")?,
            rms_norm_eps: r.positive_opt("rms_norm_eps")?.unwrap_or(1e-6),
            rope: read_rope(r, 10_000.0)?,
            qkv_bias: bias || family == Family::Qwen2,
            o_bias: bias,
            mlp_bias: r.bool_or("mlp_bias", false)?,
            qk_norm: family == Family::Qwen3,
            tie_word_embeddings: r.bool_or("tie_word_embeddings", false)?,
            sliding_window,
            layer_types,
            bos_token_id: r.token_id("bos_token_id", vocab_size)?,
            eos_token_ids: r.token_ids("eos_token_id", vocab_size)?,
            pad_token_id: read_pad(r, vocab_size)?,
            dtype: read_dtype(r)?,
        };
        if let Some((field, what)) = config.contradiction() {
            return Err(r.error(field, what));
        }
        reader.ignore(IGNORED);
        reader.ignore(ALSO_IGNORED);
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

/// Refuses variants that the model in this crate does not compute.
fn check_variants(r: &mut ConfigReader) -> Result<()> {
    // Names of one file's author: rows are in the order of Hugging Face all the same.
    if r.bool_or("rope_interleaved", false)? {
        return Err(r.error(
            "rope_interleaved",
            "neighbours that are turned together are not supported here",
        ));
    }
    if r.bool_or("use_mrope", false)? {
        return Err(r.error(
            "use_mrope",
            "rotary positions of several axes are not supported",
        ));
    }
    Ok(())
}

fn read_activation(r: &mut ConfigReader) -> Result<Activation> {
    match r.string_opt("hidden_act")?.as_deref() {
        None | Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        Some(other) => {
            let what =
                format!("{other:?} is none of \"silu\", \"gelu\", \"gelu_pytorch_tanh\", \"relu\"");
            Err(r.error("hidden_act", what))
        }
    }
}

/// The id that fills a batch; -1 says that there is none.
fn read_pad(r: &mut ConfigReader, vocab_size: usize) -> Result<Option<u32>> {
    match r.value("pad_token_id").and_then(serde_json::Value::as_i64) {
        Some(-1) => Ok(None),
        _ => r.token_id("pad_token_id", vocab_size),
    }
}

/// The window, if any layer has one, and which layers do.
fn read_windows(
    r: &mut ConfigReader,
    family: Family,
    n_layers: usize,
) -> Result<(Option<usize>, Vec<LayerType>)> {
    let is_absent = !r.contains("sliding_window");
    let mut window = r.usize_in("sliding_window", 1..=LARGEST_DIM)?;
    let listed = read_layer_list(r, n_layers)?;
    let full = vec![LayerType::Full; n_layers];
    let types = match family {
        Family::Llama => {
            if window.is_some() {
                return Err(r.error("sliding_window", "a Llama has no window"));
            }
            full
        }
        Family::Mistral => {
            window = window.or(is_absent.then_some(4096));
            let kind = window.map_or(LayerType::Full, |_| LayerType::Sliding);
            vec![kind; n_layers]
        }
        Family::Qwen2 | Family::Qwen3 => {
            let first = r.usize_in("max_window_layers", 0..=MOST_LAYERS)?;
            let first = first.unwrap_or(28).min(n_layers);
            match r.bool_or("use_sliding_window", false)? {
                false => window = None,
                true => window = window.or(is_absent.then_some(4096)),
            }
            let mut types = full;
            if window.is_some() {
                types[first..].fill(LayerType::Sliding);
            }
            types
        }
    };
    let types = listed.unwrap_or(types);
    if window.is_none() && types.contains(&LayerType::Sliding) {
        return Err(r.error("layer_types", "a layer slides, but there is no window"));
    }
    Ok((
        window.filter(|_| types.contains(&LayerType::Sliding)),
        types,
    ))
}
