//! A Gemma 2 configuration as the files of the Hugging Face layout.

use std::path::Path;

use serde_json::{Value, json};

use super::gemma2_config::{Activation, Gemma2Config, LayerType};
use crate::atomic;
use crate::dtype::DType;
use crate::error::{Error, Result};

impl Gemma2Config {
    /// Writes `config.json` and `generation_config.json` into a folder, each in one step.
    ///
    /// # Errors
    /// If the activation is not one that a Gemma 2 can have, or a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let generation = json!({
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_json(),
            "pad_token_id": self.pad_token_id,
        });
        let files = [
            ("config.json", self.to_json()?),
            ("generation_config.json", generation),
        ];
        for (name, value) in files {
            let text = format!("{value:#}\n");
            atomic::write_bytes(&folder.as_ref().join(name), text.as_bytes())?;
        }
        Ok(())
    }

    fn to_json(&self) -> Result<Value> {
        let activation = match self.hidden_activation {
            Activation::GeluTanh => "gelu_pytorch_tanh",
            Activation::Gelu => "gelu",
            other => {
                let what = format!("{other:?} is no activation of a Gemma 2");
                return Err(Error::msg(what));
            }
        };
        let dtype = match self.dtype {
            Some(DType::BF16) => "bfloat16",
            Some(DType::F16) => "float16",
            _ => "float32",
        };
        let kind = |layer: &LayerType| match layer {
            LayerType::Sliding => "sliding_attention",
            LayerType::Full => "full_attention",
        };
        let layer_types: Vec<&str> = self.layer_types.iter().map(kind).collect();
        Ok(json!({
            "architectures": ["Gemma2ForCausalLM"],
            "model_type": "gemma2",
            "attention_bias": false,
            "attn_logit_softcapping": self.attn_logit_softcapping,
            "bos_token_id": self.bos_token_id,
            "dtype": dtype,
            "eos_token_id": self.eos_json(),
            "final_logit_softcapping": self.final_logit_softcapping,
            "head_dim": self.head_dim,
            "hidden_activation": activation,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "layer_types": layer_types,
            "max_position_embeddings": self.max_position_embeddings,
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "pad_token_id": self.pad_token_id,
            "query_pre_attn_scalar": whole(self.query_pre_attn_scalar),
            "rms_norm_eps": self.rms_norm_eps,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "sliding_window": self.sliding_window,
            "tie_word_embeddings": true,
            "vocab_size": self.vocab_size,
        }))
    }

    /// Nothing, a number, or a list of them.
    fn eos_json(&self) -> Value {
        match self.eos_token_ids.as_slice() {
            [] => json!(null),
            [one] => json!(one),
            several => json!(several),
        }
    }
}

/// A number without a fraction as an integer, which transformers asks for.
fn whole(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e9 {
        json!(x as i64)
    } else {
        json!(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back() {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/models/gemma2-shakespeare");
        let mut config = Gemma2Config::open(shipped).expect("the repository's model");
        config.attn_logit_softcapping = None;
        config.eos_token_ids = vec![1, 3];
        config.layer_types[0] = LayerType::Full;
        config.dtype = Some(DType::F16);
        let folder = tempfile::tempdir().expect("a folder");
        config.save(&folder).expect("a folder that can be written");
        let text = std::fs::read_to_string(folder.path().join("config.json")).expect("a file");
        assert!(text.contains("\"query_pre_attn_scalar\": 40,"), "{text}");
        let again = Gemma2Config::open(&folder).expect("the same configuration");
        assert_eq!(again, config);
    }
}
