//! The architectures whose GGUF files are models of this crate: how tensors are called, and how they differ from what a
//! checkpoint's folder has.
//!
//! | | Hugging Face | GGUF |
//! |---|---|---|
//! | a norm's weight in Gemma | w, the layer scales by 1 + w | 1 + w |
//! | rows of queries and keys in `llama` | a pair to turn is `i` and `i + d/2` of a head | neighbours |
//! | the same in all others | as the layers use them | the same |
//! | Llama 3's slowed frequencies | a rule in `config.json` | a tensor of factors, `rope_freqs.weight` |
//! | Mistral | an architecture of its own | `llama` |

use super::super::model_config::ModelConfig;
use super::{Gguf, Value};
use crate::error::Result;

/// The embedding.
pub(super) const EMBEDDING: &str = "token_embd.weight";
/// The output layer, where it is not the embedding.
pub(super) const OUTPUT: &str = "output.weight";
/// What frequencies of rotary positions are divided by; no parameter, but a part of the configuration.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

const ARCHITECTURE_KEY: &str = "general.architecture";

/// A tensor's name in files, and in models of the Gemma and the Llama family.
type Row = (&'static str, &'static str, &'static str);

/// Names outside of layers: here, and in the crate's models.
const OUTER: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Names in a layer, in the order of files; an empty one is not there.
const INNER: [Row; 13] = [
    ("attn_norm", "input_layernorm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm", "self_attn.k_norm"),
    ("post_attention_norm", "post_attention_layernorm", ""),
    (
        "ffn_norm",
        "pre_feedforward_layernorm",
        "post_attention_layernorm",
    ),
    ("ffn_gate", "mlp.gate_proj", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm", ""),
];

/// What `general.architecture` may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Architecture {
    Gemma2,
    Gemma3,
    Llama,
    Qwen2,
    Qwen3,
}

impl Architecture {
    const ALL: [Architecture; 5] = [
        Architecture::Gemma2,
        Architecture::Gemma3,
        Architecture::Llama,
        Architecture::Qwen2,
        Architecture::Qwen3,
    ];

    /// As files name it; keys of its metadata start with this.
    pub(super) fn name(self) -> &'static str {
        match self {
            Architecture::Gemma2 => "gemma2",
            Architecture::Gemma3 => "gemma3",
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }

    /// The architecture of a file.
    ///
    /// # Errors
    /// If it is none of those here.
    pub(super) fn of(file: &Gguf) -> Result<Architecture> {
        let names = Architecture::ALL.map(|known| format!("{:?}", known.name()));
        let supported = format!("supported are {}", names.join(", "));
        match file.value(ARCHITECTURE_KEY).map(Value::as_str) {
            None => Err(file.error(ARCHITECTURE_KEY, "is missing")),
            Some(None) => Err(file.error(ARCHITECTURE_KEY, "is not a string")),
            Some(Some(name)) => {
                let mut all = Architecture::ALL.into_iter();
                let unknown = || file.error(ARCHITECTURE_KEY, format!("is {name:?}; {supported}"));
                all.find(|known| known.name() == name).ok_or_else(unknown)
            }
        }
    }

    /// The error that a file is of another architecture than this one.
    pub(super) fn check(self, file: &Gguf) -> Result<()> {
        match Architecture::of(file)? {
            found if found == self => Ok(()),
            found => {
                let what = format!("is {:?}, not {:?}", found.name(), self.name());
                Err(file.error(ARCHITECTURE_KEY, what))
            }
        }
    }

    /// The architecture that files of this model have.
    pub(super) fn of_model(config: &ModelConfig) -> Architecture {
        match config {
            ModelConfig::Gemma2(_) => Architecture::Gemma2,
            ModelConfig::Gemma3(_) => Architecture::Gemma3,
            ModelConfig::Llama(config) => config.architecture(),
        }
    }

    fn is_gemma(self) -> bool {
        matches!(self, Architecture::Gemma2 | Architecture::Gemma3)
    }

    /// Whether rows of queries and keys are stored so that neighbours are turned together.
    pub(super) fn has_neighbours(self) -> bool {
        self == Architecture::Llama
    }

    /// Whether a tensor is stored plus one.
    pub(super) fn adds_one(self, tensor: &str) -> bool {
        self.is_gemma() && tensor.ends_with("norm.weight")
    }

    fn inner(self, row: &Row) -> &'static str {
        if self.is_gemma() { row.1 } else { row.2 }
    }

    /// The parameter that a file's tensor is.
    pub(super) fn parameter_name(self, tensor: &str) -> Option<String> {
        let (stem, kind) = split_kind(tensor)?;
        if let Some(row) = OUTER.iter().find(|row| row.0 == stem) {
            return Some(format!("{}.{kind}", row.1));
        }
        let (layer, stem) = stem.strip_prefix("blk.")?.split_once('.')?;
        let row = INNER.iter().find(|row| row.0 == stem)?;
        let name = self.inner(row);
        (is_number(layer) && !name.is_empty())
            .then(|| format!("model.layers.{layer}.{name}.{kind}"))
    }

    /// The tensor that a parameter becomes.
    pub(super) fn tensor_name(self, parameter: &str) -> Option<String> {
        let (stem, kind) = split_kind(parameter)?;
        if let Some(row) = OUTER.iter().find(|row| row.1 == stem) {
            return Some(format!("{}.{kind}", row.0));
        }
        let (layer, stem) = stem.strip_prefix("model.layers.")?.split_once('.')?;
        let row = INNER.iter().find(|row| self.inner(row) == stem)?;
        is_number(layer).then(|| format!("blk.{layer}.{}.{kind}", row.0))
    }
}

/// A name without its last part, which is `weight` or `bias`.
fn split_kind(name: &str) -> Option<(&str, &str)> {
    let (stem, kind) = name.rsplit_once('.')?;
    ["weight", "bias"].contains(&kind).then_some((stem, kind))
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
    let stem = split_kind(stem).map_or(stem, |(stem, _)| stem);
    let row = INNER.iter().position(|row| stem == row.0);
    // Behind the embedding, whatever number a foreign name has.
    let layer = layer
        .parse()
        .map_or(usize::MAX, |n: usize| n.saturating_add(1));
    (layer, row.unwrap_or(INNER.len()))
}

/// A number as names have it: digits without a leading zero.
fn is_number(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && !text.is_empty() && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_norm_before_the_feed_forward_layer_has_the_name_of_its_family() {
        let stored = "blk.3.ffn_norm.weight";
        let gemma = "model.layers.3.pre_feedforward_layernorm.weight";
        let llama = "model.layers.3.post_attention_layernorm.weight";
        for (architecture, name) in [
            (Architecture::Gemma3, gemma),
            (Architecture::Llama, llama),
            (Architecture::Qwen3, llama),
        ] {
            assert_eq!(architecture.parameter_name(stored).as_deref(), Some(name));
            assert_eq!(architecture.tensor_name(name).as_deref(), Some(stored));
        }
        let four = "blk.3.post_ffw_norm.weight";
        assert!(Architecture::Gemma3.parameter_name(four).is_some());
        assert_eq!(Architecture::Llama.parameter_name(four), None);
        let bias = "blk.0.attn_q.bias";
        let name = "model.layers.0.self_attn.q_proj.bias";
        assert_eq!(
            Architecture::Qwen2.parameter_name(bias).as_deref(),
            Some(name)
        );
        assert_eq!(
            Architecture::Qwen2.parameter_name("blk.00.attn_q.bias"),
            None
        );
    }
}
