//! Configurations of published models, in old and new spellings, and what is refused.

use std::fs;
use std::path::Path;

use brain_blitz::Result;
use brain_blitz::formats::llama_config::Family;
use brain_blitz::formats::{Bytes, Checkpoint, TensorView, safetensors};
use brain_blitz::formats::{ConfigReader, Gemma3Config, LlamaConfig, ModelConfig, open_model};
use brain_blitz::generation::Session;
use brain_blitz::nn::models::LayerType;
use brain_blitz::nn::{RopeConfig, RopeScaling};
use brain_blitz::prelude::*;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{assert_golden, folder, options};

fn reader(value: &Value) -> Result<ConfigReader> {
    let text = value.to_string();
    ConfigReader::from_bytes(Path::new("config.json"), Bytes::copy_of(text.as_bytes()))
}

fn llama(value: &Value) -> Result<LlamaConfig> {
    LlamaConfig::read(reader(value)?)
}

/// `value` with some fields changed.
fn with(value: &Value, changes: Value) -> Value {
    let mut value = value.clone();
    for (field, change) in changes.as_object().unwrap() {
        value[field] = change.clone();
    }
    value
}

fn llama_3_2() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 8192,
        "max_position_embeddings": 131072,
        "mlp_bias": false,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 16,
        "num_key_value_heads": 8,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3"
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.45.0.dev0",
        "use_cache": true,
        "vocab_size": 128256
    })
}

fn mistral() -> Value {
    json!({
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0",
        "use_cache": true,
        "vocab_size": 32000
    })
}

fn qwen2() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 896,
        "initializer_range": 0.02,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "max_window_layers": 21,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "tie_word_embeddings": true,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": 151936
    })
}

#[test]
fn published_models_have_the_numbers_of_parameters_that_they_should() {
    let smollm2 = with(
        &llama_3_2(),
        json!({
            "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 576, "intermediate_size": 1536,
            "is_llama_config": true, "max_position_embeddings": 8192, "num_attention_heads": 9,
            "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2,
            "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "vocab_size": 49152,
        }),
    );
    let qwen3 = with(
        &qwen2(),
        json!({
            "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "attention_bias": false,
            "head_dim": 128, "hidden_size": 1024, "intermediate_size": 3072, "max_window_layers": 28,
            "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
            "rope_scaling": null, "sliding_window": null,
        }),
    );
    for (value, family, n) in [
        (llama_3_2(), Family::Llama, 1_235_814_400),
        (smollm2, Family::Llama, 134_515_008),
        (mistral(), Family::Mistral, 7_241_732_096),
        (qwen2(), Family::Qwen2, 494_032_768),
        (qwen3, Family::Qwen3, 596_049_920),
    ] {
        let config = llama(&value).unwrap();
        assert_eq!(config.family, family);
        assert_eq!(config.parameter_count(), Some(n), "{family:?}");
    }
}

#[test]
fn what_members_of_the_family_say_without_a_field() {
    let llama3 = llama(&llama_3_2()).unwrap();
    let scaling = RopeScaling::Llama3 {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_context: 8192,
    };
    let rope = RopeConfig {
        scaling,
        ..RopeConfig::new(500_000.0)
    };
    assert_eq!(llama3.rope, rope);
    assert!(llama3.tie_word_embeddings && !llama3.qkv_bias && !llama3.qk_norm);

    let window = llama(&mistral()).unwrap();
    assert_eq!((window.sliding_window, window.head_dim), (Some(4096), 128));
    assert!(
        window
            .layer_types
            .iter()
            .all(|&kind| kind == LayerType::Sliding)
    );
    let none = llama(&with(&mistral(), json!({"sliding_window": null}))).unwrap();
    assert_eq!(none.sliding_window, None);
    assert!(none.layer_types.iter().all(|&kind| kind == LayerType::Full));

    let plain = llama(&qwen2()).unwrap();
    assert!(plain.qkv_bias && !plain.o_bias);
    assert_eq!(plain.sliding_window, None);
    let some = llama(&with(&qwen2(), json!({"use_sliding_window": true}))).unwrap();
    assert_eq!(some.sliding_window, Some(32768));
    assert_eq!(
        some.layer_types[20..22],
        [LayerType::Full, LayerType::Sliding]
    );
}

fn gemma_3_1b() -> Value {
    json!({
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": null,
        "bos_token_id": 2,
        "cache_implementation": "hybrid",
        "eos_token_id": [1, 106],
        "final_logit_softcapping": null,
        "head_dim": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 1152,
        "initializer_range": 0.02,
        "intermediate_size": 6912,
        "max_position_embeddings": 32768,
        "model_type": "gemma3_text",
        "num_attention_heads": 4,
        "num_hidden_layers": 26,
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 256,
        "rms_norm_eps": 1e-06,
        "rope_local_base_freq": 10000,
        "rope_scaling": null,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "use_cache": true,
        "vocab_size": 262144
    })
}

/// What the configuration of a model of pictures says of its text part: what is no default.
fn gemma_3_4b() -> Value {
    json!({
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": 255999,
        "eoi_token_index": 256000,
        "eos_token_id": [1, 106],
        "image_token_index": 262144,
        "initializer_range": 0.02,
        "mm_tokens_per_image": 256,
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024
        },
        "torch_dtype": "bfloat16",
        "transformers_version": "4.50.0.dev0",
        "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"}
    })
}

#[test]
fn gemma_3_of_texts_and_of_pictures() {
    let small = Gemma3Config::read(reader(&gemma_3_1b()).unwrap()).unwrap();
    assert_eq!(small.parameter_count(), Some(999_885_952));
    assert_eq!((small.rope.theta, small.rope_local.theta), (1e6, 1e4));
    assert_eq!(small.eos_token_ids, [1, 106]);
    let full: Vec<usize> = (0..26)
        .filter(|&i| small.layer_types[i] == LayerType::Full)
        .collect();
    assert_eq!(full, [5, 11, 17, 23]);

    let large = Gemma3Config::read(reader(&gemma_3_4b()).unwrap()).unwrap();
    assert_eq!(large.rope.scaling, RopeScaling::Linear(8.0));
    assert_eq!(large.rope_local.scaling, RopeScaling::None);
    assert_eq!(
        (large.num_attention_heads, large.num_key_value_heads),
        (8, 4)
    );
    assert_eq!((large.vocab_size, large.head_dim), (262_208, 256));
    assert_eq!(large.eos_token_ids, [1, 106]);
    assert_eq!(large.dtype, Some(DType::BF16));
    assert_eq!(large.parameter_count(), Some(3_880_263_168));
}

/// Checks that a change of a valid configuration is an error that says so.
#[track_caller]
fn assert_refused(value: &Value, changes: Value, field: &str, what: &str) {
    let message = llama(&with(value, changes)).unwrap_err().to_string();
    assert!(
        message.contains(field) && message.contains(what),
        "{message}"
    );
}

#[test]
fn fields_that_change_what_is_computed_are_not_passed_over() {
    let cases = [
        (json!({"sliding_window": 8}), "a Llama has no window"),
        (
            json!({"num_experts": 8}),
            "is not a field that this model knows",
        ),
        (
            json!({"hidden_act": "quick_gelu"}),
            "\"quick_gelu\" is none of",
        ),
        (json!({"rope_interleaved": true}), "are not supported here"),
        (json!({"num_key_value_heads": 5}), "5 does not divide"),
        (json!({"use_mrope": true}), "several axes"),
    ];
    for (changes, what) in cases {
        let field = changes.as_object().unwrap().keys().next().unwrap().clone();
        assert_refused(&llama_3_2(), changes, &field, what);
    }
    let other = json!({"architectures": ["LlamaForSequenceClassification"]});
    assert_refused(
        &llama_3_2(),
        other,
        "architectures",
        "LlamaForCausalLM is not among them",
    );
    let none = json!({"num_key_value_heads": null});
    assert_refused(&qwen2(), none, "num_key_value_heads", "is null");
}

#[test]
fn frequencies_and_caps_that_are_not_computed_are_refused() {
    let yarn = json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}});
    assert_refused(&llama_3_2(), yarn, "rope_scaling.rope_type", "is \"yarn\"");
    let flat = json!({"rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }});
    let what = "4 is not above low_freq_factor";
    assert_refused(&llama_3_2(), flat, "rope_scaling.high_freq_factor", what);
    let capped = with(&gemma_3_1b(), json!({"attn_logit_softcapping": 50.0}));
    let refused = Gemma3Config::read(reader(&capped).unwrap());
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("scores of Gemma 3 are not capped"),
        "{message}"
    );
}

#[test]
fn a_model_of_another_kind_is_an_error_that_lists_what_is_supported() {
    let target = tempdir().unwrap();
    let value = json!({"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"]});
    fs::write(target.path().join("config.json"), value.to_string()).unwrap();
    let message = ModelConfig::open(target.path()).unwrap_err().to_string();
    assert!(
        message.contains(
            ": is \"gpt_neox\"; supported are \"gemma2\", \"gemma3\", \"gemma3_text\", \"llama\", \"mistral\", \"qwen2\", \"qwen3\""
        ),
        "{message}"
    );
}

/// A checkpoint of texts as the text part of one of pictures, under both names that such parts have had.
#[test]
fn the_text_part_of_a_model_of_pictures_has_the_logits_of_the_text_model() {
    for prefix in ["language_model.model.", "model.language_model."] {
        let target = tempdir().unwrap();
        let checkpoint = Checkpoint::open(folder("gemma3")).unwrap();
        let renamed = |name: &str| {
            let tensor = checkpoint.get(name).unwrap();
            let name = name.replacen("model.", prefix, 1);
            TensorView { name, ..tensor }
        };
        let mut tensors: Vec<TensorView> = checkpoint.names().map(renamed).collect();
        let vision = checkpoint.get("model.norm.weight").unwrap();
        let name = "vision_tower.norm.weight".to_owned();
        tensors.push(TensorView { name, ..vision });
        safetensors::write(target.path().join("model.safetensors"), &tensors).unwrap();
        let text = fs::read_to_string(folder("gemma3").join("config.json")).unwrap();
        let text: Value = serde_json::from_str(&text).unwrap();
        let config = with(
            &gemma_3_4b(),
            json!({"text_config": text, "eos_token_id": 2}),
        );
        fs::write(target.path().join("config.json"), config.to_string()).unwrap();
        let mut session = Session::load(target.path(), &options("reference"), &mut |_| ()).unwrap();
        assert_golden(&mut session, "gemma3", prefix);
        let (_, weights) = open_model(target.path(), DType::F32).unwrap();
        assert_eq!(
            weights.names().len(),
            checkpoint.len(),
            "pictures are left out"
        );
    }
}
