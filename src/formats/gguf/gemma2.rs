//! Gemma 2 in GGUF files: what its tensors are called, and its configuration as metadata.
//!
//! | | Hugging Face | GGUF |
//! |---|---|---|
//! | a norm's weight | w, the layer scales by 1 + w | 1 + w |
//! | projections | rows as the layers use them | the same: only llama's are permuted |
//! | soft-caps, window, sizes | `config.json` | keys that start with `gemma2.` |
//! | scale of attention scores | `query_pre_attn_scalar` | `gemma2.attention.scale`, else from the sizes |
//! | which layers slide | `layer_types` | the first, the third, .. |
//!
//! A key that starts with `gemma2.` and that this file does not know is an error: it may change what the model computes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::super::gemma2_config::{Activation, Gemma2Config, LayerType};
use super::super::huggingface::LARGEST_DIM;
use super::super::suggest::did_you_mean;
use super::{Gguf, Value, Writer};
use crate::error::{Error, Result};

/// The name of the architecture.
pub(super) const ARCHITECTURE: &str = "gemma2";

/// The embedding.
pub(super) const EMBEDDING: &str = "token_embd.weight";

/// Names outside of layers: here, and in the crate's model.
const OUTER: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Names in a layer.
const INNER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// The parameter that a file's tensor is.
pub(super) fn parameter_name(tensor: &str) -> Option<String> {
    let stem = tensor.strip_suffix(".weight")?;
    if let Some(row) = OUTER.iter().find(|row| row.0 == stem) {
        return Some(format!("{}.weight", row.1));
    }
    let (layer, stem) = stem.strip_prefix("blk.")?.split_once('.')?;
    let row = INNER.iter().find(|row| row.0 == stem)?;
    is_number(layer).then(|| format!("model.layers.{layer}.{}.weight", row.1))
}

/// The tensor that a parameter becomes.
pub(super) fn tensor_name(parameter: &str) -> Option<String> {
    let stem = parameter.strip_suffix(".weight")?;
    if let Some(row) = OUTER.iter().find(|row| row.1 == stem) {
        return Some(format!("{}.weight", row.0));
    }
    let (layer, stem) = stem.strip_prefix("model.layers.")?.split_once('.')?;
    let row = INNER.iter().find(|row| row.1 == stem)?;
    is_number(layer).then(|| format!("blk.{layer}.{}.weight", row.0))
}

/// Where a tensor comes in a file: the embedding, the layers by number, what is after them.
pub(super) fn place(tensor: &str) -> (usize, usize) {
    let layer = tensor
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'));
    let Some((layer, stem)) = layer else {
        let outer = if tensor == EMBEDDING { 0 } else { usize::MAX };
        return (outer, 0);
    };
    let row = INNER
        .iter()
        .position(|row| stem.strip_suffix(".weight") == Some(row.0));
    // Behind the embedding, whatever number a foreign name has.
    let layer = layer
        .parse()
        .map_or(usize::MAX, |n: usize| n.saturating_add(1));
    (layer, row.unwrap_or(INNER.len()))
}

/// Whether a tensor is stored plus one.
pub(super) fn is_norm(tensor: &str) -> bool {
    tensor.ends_with("norm.weight")
}

/// A number as names have it: digits without a leading zero.
fn is_number(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && !text.is_empty() && (text == "0" || !text.starts_with('0'))
}

const MOST_LAYERS: usize = 1024;
const MOST_HEADS: usize = 1 << 16;
/// The number of layers of the model whose scores are scaled by its width for each head, not by the head's size.
const LAYERS_OF_27B: usize = 46;

/// What ends a text, in the order of preference.
const EOS_KEYS: [&str; 3] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
];
pub(super) const BOS_KEY: &str = "tokenizer.ggml.bos_token_id";
const PAD_KEY: &str = "tokenizer.ggml.padding_token_id";

/// The keys of the architecture, and which of them were read.
struct Keys<'a> {
    file: &'a Gguf,
    read: RefCell<BTreeSet<String>>,
}

impl Keys<'_> {
    fn full(key: &str) -> String {
        format!("{ARCHITECTURE}.{key}")
    }

    fn error(&self, key: &str, what: impl Into<String>) -> Error {
        self.file.error(&Keys::full(key), what)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let key = Keys::full(key);
        let value = self.file.value(&key);
        self.read.borrow_mut().insert(key);
        value
    }

    fn size_in(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.filter(|n| range.contains(n)).map(Some).ok_or_else(|| {
            let what = format!(
                "is not an integer from {} to {}",
                range.start(),
                range.end()
            );
            self.error(key, what)
        })
    }

    fn size(&self, key: &str, most: usize) -> Result<usize> {
        self.size_in(key, 1..=most)?
            .ok_or_else(|| self.missing(key))
    }

    fn missing(&self, key: &str) -> Error {
        let keys = self.file.metadata().keys().map(String::as_str);
        self.error(
            key,
            format!("is missing{}", did_you_mean(&Keys::full(key), keys)),
        )
    }

    fn positive(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        let wrong = || self.error(key, "is not a finite number above zero");
        number.map(Some).ok_or_else(wrong)
    }

    /// A soft-cap: absence means the architecture's default.
    fn cap(&self, key: &str, default: f32) -> Result<Option<f32>> {
        let cap = self.positive(key)?;
        Ok(Some(cap.map_or(default, |cap| cap as f32)))
    }

    /// The error that a key was not read, if there is one.
    fn finish(self) -> Result<()> {
        let read = self.read.borrow();
        let ours = Keys::full("");
        let mut keys = self.file.metadata().keys();
        match keys.find(|key| key.starts_with(&ours) && !read.contains(*key)) {
            None => Ok(()),
            Some(key) => {
                let near = did_you_mean(key, read.iter().map(String::as_str));
                let what = format!("is not a key that this model knows{near}");
                Err(self.file.error(key, what))
            }
        }
    }
}

impl Gemma2Config {
    /// The configuration in a GGUF file's metadata.
    ///
    /// # Errors
    /// If the file's architecture is another one, or a key is missing, unknown or out of range.
    pub fn from_gguf(file: &Gguf) -> Result<Gemma2Config> {
        check_architecture(file)?;
        let keys = Keys {
            file,
            read: RefCell::default(),
        };
        let k = &keys;
        let num_hidden_layers = k.size("block_count", MOST_LAYERS)?;
        let hidden_size = k.size("embedding_length", LARGEST_DIM)?;
        let num_attention_heads = k.size("attention.head_count", MOST_HEADS)?;
        let head_dim = read_head_dim(k)?;
        let vocab_size = read_vocab_size(k)?;
        let default = default_query_scalar(
            num_hidden_layers,
            hidden_size,
            num_attention_heads,
            head_dim,
        );
        let dtype = file.info(EMBEDDING).and_then(|info| info.ty.to_dtype());
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
            rms_norm_eps: k
                .positive("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| k.missing("attention.layer_norm_rms_epsilon"))?,
            rope_theta: read_rope(k, head_dim)?,
            attn_logit_softcapping: k.cap("attn_logit_softcapping", 50.0)?,
            final_logit_softcapping: k.cap("final_logit_softcapping", 30.0)?,
            query_pre_attn_scalar: k.positive("attention.scale")?.map_or(default, scalar_of),
            sliding_window: k.size("attention.sliding_window", LARGEST_DIM)?,
            layer_types: layer_types(num_hidden_layers),
            bos_token_id: token(file, BOS_KEY, vocab_size)?,
            eos_token_ids: read_eos(file, vocab_size)?,
            pad_token_id: token(file, PAD_KEY, vocab_size)?,
            dtype,
        };
        if let Some((field, what)) = config.contradiction() {
            let key = match field {
                "num_key_value_heads" => "attention.head_count_kv",
                "head_dim" => "attention.key_length",
                _ => "embedding_length",
            };
            return Err(keys.error(key, what));
        }
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
        if self.layer_types != layer_types(self.num_hidden_layers) {
            return Err(cannot("layers do not slide in turn, from the first one on"));
        }
        let (Some(attn_cap), Some(final_cap)) =
            (self.attn_logit_softcapping, self.final_logit_softcapping)
        else {
            return Err(cannot("there is no soft-cap"));
        };
        let sizes = [
            ("context_length", self.max_position_embeddings),
            ("embedding_length", self.hidden_size),
            ("block_count", self.num_hidden_layers),
            ("feed_forward_length", self.intermediate_size),
            ("attention.head_count", self.num_attention_heads),
            ("attention.head_count_kv", self.num_key_value_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("attention.sliding_window", self.sliding_window),
            ("vocab_size", self.vocab_size),
        ];
        writer.set("general.architecture", ARCHITECTURE);
        for (key, size) in sizes {
            let size =
                u32::try_from(size).map_err(|_| Error::msg(format!("{key} {size} is no u32")))?;
            writer.set(Keys::full(key), size);
        }
        let numbers = [
            ("attention.layer_norm_rms_epsilon", self.rms_norm_eps as f32),
            ("attn_logit_softcapping", attn_cap),
            ("final_logit_softcapping", final_cap),
            ("rope.freq_base", self.rope_theta as f32),
        ];
        for (key, number) in numbers {
            writer.set(Keys::full(key), number);
        }
        let (layers, hidden) = (self.num_hidden_layers, self.hidden_size);
        let default = default_query_scalar(layers, hidden, self.num_attention_heads, self.head_dim);
        if self.query_pre_attn_scalar != default {
            writer.set(
                Keys::full("attention.scale"),
                self.query_pre_attn_scalar.powf(-0.5) as f32,
            );
        }
        self.tokens_to_gguf(writer);
        Ok(())
    }

    /// Adds the ids that begin, end and pad a text.
    fn tokens_to_gguf(&self, writer: &mut Writer) {
        let ids = EOS_KEYS
            .iter()
            .copied()
            .zip(self.eos_token_ids.iter().copied());
        let named = [(BOS_KEY, self.bos_token_id), (PAD_KEY, self.pad_token_id)];
        let named = named.into_iter().filter_map(|(key, id)| Some((key, id?)));
        for (key, id) in ids.chain(named) {
            writer.set(key, id);
        }
    }
}

/// The error that the file is of another architecture than the one that is read.
pub(super) fn check_architecture(file: &Gguf) -> Result<()> {
    const KEY: &str = "general.architecture";
    match file.value(KEY).map(Value::as_str) {
        None => Err(file.error(KEY, "is missing")),
        Some(Some(ARCHITECTURE)) => Ok(()),
        Some(Some(other)) => Err(file.error(KEY, format!("is {other:?}, not {ARCHITECTURE:?}"))),
        Some(None) => Err(file.error(KEY, "is not a string")),
    }
}

/// The first layer slides, the second sees everything, and so on.
fn layer_types(n: usize) -> Vec<LayerType> {
    let kinds = [LayerType::Sliding, LayerType::Full];
    kinds.into_iter().cycle().take(n).collect()
}

/// What the root that scores are divided by is of, when no key says it.
fn default_query_scalar(layers: usize, hidden: usize, heads: usize, head_dim: usize) -> f64 {
    match layers {
        LAYERS_OF_27B => hidden as f64 / heads as f64,
        _ => head_dim as f64,
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

fn read_head_dim(k: &Keys<'_>) -> Result<usize> {
    let key = k.size("attention.key_length", LARGEST_DIM)?;
    match k.size_in("attention.value_length", 1..=LARGEST_DIM)? {
        Some(value) if value != key => {
            let what = format!("{value} is not attention.key_length, {key}");
            Err(k.error("attention.value_length", what))
        }
        _ => Ok(key),
    }
}

/// The rows of the embedding, or what a key says where there is none.
fn read_vocab_size(k: &Keys<'_>) -> Result<usize> {
    let said = k.size_in("vocab_size", 1..=LARGEST_DIM)?;
    let rows = k
        .file
        .info(EMBEDDING)
        .and_then(|info| info.shape.first().copied());
    match (said, rows) {
        (Some(said), Some(rows)) if said != rows => {
            let what = format!("{said} contradicts the {rows} rows of {EMBEDDING}");
            Err(k.error("vocab_size", what))
        }
        (said, rows) => {
            let size = said
                .or(rows)
                .filter(|size| (1..=LARGEST_DIM).contains(size));
            size.ok_or_else(|| k.missing("vocab_size"))
        }
    }
}

fn read_rope(k: &Keys<'_>, head_dim: usize) -> Result<f64> {
    match k.size_in("rope.dimension_count", 1..=LARGEST_DIM)? {
        Some(n) if n != head_dim => {
            let what = format!("{n} is not attention.key_length, {head_dim}");
            return Err(k.error("rope.dimension_count", what));
        }
        _ => {}
    }
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

/// The token that a key names, if it is there.
pub(super) fn token(file: &Gguf, key: &str, vocab_size: usize) -> Result<Option<u32>> {
    let Some(value) = file.value(key) else {
        return Ok(None);
    };
    let id = value.as_u64().filter(|&id| id < vocab_size as u64);
    let wrong = || file.error(key, format!("is not a token id below {vocab_size}"));
    id.map(|id| Some(id as u32)).ok_or_else(wrong)
}

fn read_eos(file: &Gguf, vocab_size: usize) -> Result<Vec<u32>> {
    let ids = EOS_KEYS.iter().map(|key| token(file, key, vocab_size));
    let mut found: Vec<u32> = Vec::new();
    for id in ids {
        found.extend(id?.filter(|id| !found.contains(id)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn layers_come_by_number_behind_the_embedding() {
        let largest = format!("blk.{}.attn_norm.weight", usize::MAX);
        let beyond = format!("blk.{}0.attn_norm.weight", usize::MAX);
        let names = [
            "token_embd.weight",
            "blk.2.attn_q.weight",
            "blk.10.attn_q.weight",
            &largest,
        ];
        assert!(names.map(place).is_sorted());
        assert!(place(&beyond) > place(names[2]));
    }
}
