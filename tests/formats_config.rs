//! Configuration files: the Gemma 2 configuration in its spellings, and everything that must be refused.

use std::fs;
use std::path::Path;

use brain_blitz::dtype::DType;
use brain_blitz::error::Result;
use brain_blitz::formats::gemma2_config::{Activation, LayerType};
use brain_blitz::formats::{Bytes, ConfigReader, Gemma2Config};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::tempdir;

use LayerType::{Full, Sliding};

fn valid() -> Value {
    json!({
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": 50.0,
        "bos_token_id": 2,
        "dtype": "bfloat16",
        "eos_token_id": 1,
        "final_logit_softcapping": 30.0,
        "head_dim": 48,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 192,
        "initializer_range": 0.02,
        "intermediate_size": 512,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "max_position_embeddings": 1024,
        "model_type": "gemma2",
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "query_pre_attn_scalar": 40,
        "rms_norm_eps": 1e-6,
        "rope_parameters": { "rope_theta": 10000.0, "rope_type": "default" },
        "sliding_window": 64,
        "tie_word_embeddings": true,
        "transformers_version": "5.0.0",
        "use_bidirectional_attention": null,
        "use_cache": true,
        "vocab_size": 2048
    })
}

fn reader(text: &str) -> Result<ConfigReader> {
    ConfigReader::from_bytes(Path::new("config.json"), Bytes::copy_of(text.as_bytes()))
}

fn read(value: &Value) -> Result<Gemma2Config> {
    Gemma2Config::read(reader(&value.to_string())?)
}

/// The valid configuration with some fields changed; `null` removes one.
fn with(changes: Value) -> Value {
    let mut value = valid();
    let map = value.as_object_mut().unwrap();
    for (field, change) in changes.as_object().unwrap() {
        match change {
            Value::Null => map.remove(field),
            change => map.insert(field.clone(), change.clone()),
        };
    }
    value
}

#[test]
fn a_new_configuration() {
    let config = read(&valid()).unwrap();
    let expected = Gemma2Config {
        vocab_size: 2048,
        hidden_size: 192,
        intermediate_size: 512,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 48,
        hidden_activation: Activation::GeluTanh,
        max_position_embeddings: 1024,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        attn_logit_softcapping: Some(50.0),
        final_logit_softcapping: Some(30.0),
        query_pre_attn_scalar: 40.0,
        sliding_window: 64,
        layer_types: vec![Sliding, Full, Sliding],
        bos_token_id: Some(2),
        eos_token_ids: vec![1],
        pad_token_id: Some(0),
        dtype: Some(DType::BF16),
    };
    assert_eq!(config, expected);
}

#[test]
fn an_old_configuration() {
    let config = read(&with(json!({
        "rope_parameters": null, "rope_theta": 5000.0, "layer_types": null, "dtype": null,
        "torch_dtype": "float32", "hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid",
        "sliding_window_size": 64, "eos_token_id": [1, 107],
    })));
    let config = config.unwrap();
    assert_eq!(config.rope_theta, 5000.0);
    assert_eq!(config.layer_types, [Sliding, Full, Sliding]);
    assert_eq!(config.dtype, Some(DType::F32));
    assert_eq!(config.eos_token_ids, [1, 107]);
}

#[test]
fn patterns_defaults_and_nulls() {
    let config = read(&with(
        json!({ "layer_types": null, "sliding_window_pattern": 3 }),
    ))
    .unwrap();
    assert_eq!(config.layer_types, [Sliding, Sliding, Full]);
    let mut value = with(json!({ "rope_parameters": null, "final_logit_softcapping": null }));
    value["attn_logit_softcapping"] = Value::Null;
    let config = read(&value).unwrap();
    assert_eq!(config.rope_theta, 10_000.0);
    assert_eq!(config.final_logit_softcapping, Some(30.0));
    assert_eq!(config.attn_logit_softcapping, None);
    let config = read(&with(
        json!({ "hidden_activation": "gelu", "query_pre_attn_scalar": 0.5 }),
    ));
    let config = config.unwrap();
    assert_eq!(config.hidden_activation, Activation::Gelu);
    assert_eq!(config.query_pre_attn_scalar, 0.5);
}

#[test]
fn parameters_are_counted() {
    let config = read(&with(json!({
        "num_hidden_layers": 6, "layer_types": null,
    })));
    assert_eq!(config.unwrap().parameter_count(), Some(2_831_040));
}

/// Changes of the valid configuration, and the start of the message about each.
const REFUSED: &[(&str, &str)] = &[
    (r#"{ "vocab_size": null }"#, "vocab_size: is missing"),
    (
        r#"{ "vocab_size": 0 }"#,
        "vocab_size: 0 is not an integer from 1 to 16777216",
    ),
    (
        r#"{ "vocab_size": -1 }"#,
        "vocab_size: -1 is not an integer from 1 to 16777216",
    ),
    (
        r#"{ "hidden_size": 1099511627776 }"#,
        "hidden_size: 1099511627776 is not an integer from 1 to 16777216",
    ),
    (
        r#"{ "hidden_size": 192.0 }"#,
        "hidden_size: 192.0 is not an integer from 1 to 16777216",
    ),
    (
        r#"{ "hidden_size": "192" }"#,
        "hidden_size: \"192\" is not an integer from 1 to 16777216",
    ),
    (
        r#"{ "num_hidden_layers": 1025 }"#,
        "num_hidden_layers: 1025 is not an integer from 1 to 1024",
    ),
    (
        r#"{ "num_key_value_heads": 3 }"#,
        "num_key_value_heads: 3 does not divide num_attention_heads, 4",
    ),
    (
        r#"{ "head_dim": 47 }"#,
        "head_dim: 47 is odd; rotary positions need pairs",
    ),
    (
        r#"{ "head_dim": 8388608 }"#,
        "head_dim: 8388608 for 4 heads is wider than 16777216",
    ),
    (
        r#"{ "hidden_activation": "relu" }"#,
        "hidden_activation: \"relu\" is neither",
    ),
    (
        r#"{ "rms_norm_eps": 0.0 }"#,
        "rms_norm_eps: 0.0 is not a finite number above zero",
    ),
    (
        r#"{ "query_pre_attn_scalar": -40 }"#,
        "query_pre_attn_scalar: -40 is not a finite number above zero",
    ),
    (
        r#"{ "query_pre_attn_scalar": null }"#,
        "query_pre_attn_scalar: is missing",
    ),
    (
        r#"{ "attn_logit_softcapping": 1e300 }"#,
        "attn_logit_softcapping: 1e300 is out of the range of f32",
    ),
    (
        r#"{ "tie_word_embeddings": false }"#,
        "tie_word_embeddings: an output layer of its own is not supported",
    ),
    (
        r#"{ "attention_bias": true }"#,
        "attention_bias: biases are not supported",
    ),
    (
        r#"{ "attention_bias": 0 }"#,
        "attention_bias: 0 is not true or false",
    ),
    (
        r#"{ "use_bidirectional_attention": true }"#,
        "use_bidirectional_attention: only causal attention is supported",
    ),
    (
        r#"{ "model_type": "llama" }"#,
        "model_type: is \"llama\", not \"gemma2\"",
    ),
    (
        r#"{ "architectures": ["Other"] }"#,
        "architectures: Gemma2ForCausalLM is not among them",
    ),
    (
        r#"{ "layer_types": ["full_attention"] }"#,
        "layer_types: has 1 entries for 3 layers",
    ),
    (
        r#"{ "layer_types": ["full", "full", "full"] }"#,
        "layer_types: \"full\" is neither",
    ),
    (
        r#"{ "sliding_window_pattern": 3 }"#,
        "sliding_window_pattern: 3 contradicts layer_types",
    ),
    (
        r#"{ "sliding_window": null }"#,
        "sliding_window: is missing",
    ),
    (
        r#"{ "sliding_window_size": 32 }"#,
        "sliding_window_size: 32 contradicts sliding_window, 64",
    ),
    (
        r#"{ "rope_theta": 500.0 }"#,
        "rope_parameters.rope_theta: 10000 contradicts rope_theta, 500",
    ),
    (
        r#"{ "rope_scaling": { "factor": 2.0 } }"#,
        "rope_scaling: scaled rotary positions are not supported",
    ),
    (
        r#"{ "rope_parameters": { "rope_type": "yarn" } }"#,
        "rope_parameters.rope_type: is \"yarn\"; only \"default\" is supported",
    ),
    (
        r#"{ "rope_parameters": { "factor": 2.0 } }"#,
        "rope_parameters.factor: is not a field that this model knows",
    ),
    (
        r#"{ "eos_token_id": 2048 }"#,
        "eos_token_id: 2048 is not a token id below 2048, or a list of them",
    ),
    (
        r#"{ "bos_token_id": [1, 2] }"#,
        "bos_token_id: is not a single token id",
    ),
    (r#"{ "dtype": "int4" }"#, "dtype: \"int4\" is not supported"),
    (
        r#"{ "torch_dtype": "float32" }"#,
        "dtype: \"bfloat16\" contradicts torch_dtype, \"float32\"",
    ),
    (
        r#"{ "quantization_config": {} }"#,
        "quantization_config: is not a field that this model knows",
    ),
    (
        r#"{ "head_dims": 3 }"#,
        "head_dims: is not a field that this model knows (did you mean \"head_dim\"?)",
    ),
];

#[test]
fn refused_configurations() {
    for (changes, expected) in REFUSED {
        let changes = serde_json::from_str(changes).unwrap();
        let message = read(&with(changes)).unwrap_err().to_string();
        // The place is checked elsewhere; absent fields have none.
        let words: Vec<&str> = message.split(' ').collect();
        let at = words.iter().position(|&word| word == "at");
        let plain = match at {
            Some(at) if words[at + 1] == "byte" => {
                format!("{}: {}", words[..at].join(" "), words[at + 3..].join(" "))
            }
            _ => message.clone(),
        };
        let expected = format!("config.json: {expected}");
        assert!(
            plain.starts_with(&expected),
            "{message}\nshould start with\n{expected}"
        );
    }
}

#[test]
fn errors_have_places() {
    let mut config = reader("{\n  \"a\": {\"size\": 1},\n  \"size\": true\n}").unwrap();
    assert_eq!(
        config.usize("size").unwrap_err().to_string(),
        "config.json: size at byte 24: true is not an integer from 1 to 16777216"
    );
    let mut inner = config.object_opt("a").unwrap().unwrap();
    assert_eq!(
        inner.string("size").unwrap_err().to_string(),
        "config.json: a.size at byte 4: 1 is not a string"
    );
    let twice = reader("{\"a\": 1, \"a\": 2}").unwrap_err().to_string();
    assert_eq!(twice, "config.json: \"a\" at byte 11: occurs twice");
    let null = reader("{\"a\": null}")
        .unwrap()
        .f64("a")
        .unwrap_err()
        .to_string();
    assert_eq!(null, "config.json: a at byte 1: is null");
}

#[test]
fn fields_that_nobody_read_are_named() {
    let mut config = reader(r#"{"a": 1, "b": [2], "c": 3, "d": null}"#).unwrap();
    assert_eq!(config.unused(), ["a", "b", "c", "d"]);
    assert_eq!(config.usize("a").unwrap(), 1);
    config.ignore(&["c", "absent"]);
    assert_eq!(config.unused(), ["b", "d"]);
    let message = config.clone().finish().unwrap_err().to_string();
    assert!(message.starts_with("config.json: b at byte 9: is not a field that this model knows"));
    assert!(message.ends_with(", and 1 more"), "{message}");
    assert_eq!(config.list_opt("b").unwrap(), Some(vec![json!(2)]));
    assert!(config.bool_or("d", true).unwrap());
    config.finish().unwrap();
}

#[test]
fn the_generation_configuration_decides_what_ends_a_text() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("config.json"), valid().to_string()).unwrap();
    assert_eq!(
        Gemma2Config::open(folder.path()).unwrap().eos_token_ids,
        [1]
    );
    let generation = folder.path().join("generation_config.json");
    fs::write(&generation, r#"{"eos_token_id": [1, 107], "top_k": 64}"#).unwrap();
    assert_eq!(
        Gemma2Config::open(folder.path()).unwrap().eos_token_ids,
        [1, 107]
    );
    fs::write(&generation, r#"{"bos_token_id": 2}"#).unwrap();
    assert_eq!(
        Gemma2Config::open(folder.path()).unwrap().eos_token_ids,
        [1]
    );
    fs::write(&generation, r#"{"eos_token_id": 9999}"#).unwrap();
    let message = Gemma2Config::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("generation_config.json: eos_token_id at byte 1: 9999 is not"));
    fs::remove_file(folder.path().join("config.json")).unwrap();
    let message = Gemma2Config::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("config.json: "), "{message}");
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_]{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([1, 2])),
        Just(json!(["full_attention"])),
    ]
}

proptest! {
    #[test]
    fn random_fields_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any_value()), 1..5),
    ) {
        let mut value = valid();
        let fields: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        for (field, change) in changes {
            value[field.get(&fields)] = change;
        }
        if let Ok(config) = read(&value) {
            prop_assert_eq!(config.layer_types.len(), config.num_hidden_layers);
            prop_assert_eq!(config.num_attention_heads % config.num_key_value_heads, 0);
        }
    }

    #[test]
    fn damaged_text_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        junk in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = valid().to_string().into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [bytes, junk] {
            let file = Path::new("config.json");
            let _ = ConfigReader::from_bytes(file, Bytes::copy_of(&bytes)).and_then(Gemma2Config::read);
        }
    }
}
