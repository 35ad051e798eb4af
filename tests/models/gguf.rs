//! Checkpoints as GGUF files and back: the same logits, with rows, names and frequencies as llama.cpp has them.

use std::fs;
use std::path::{Path, PathBuf};

use brain_blitz::blocks::BlockType;
use brain_blitz::formats::gguf::{Options, Value, Writer, convert};
use brain_blitz::formats::{Gguf, LlamaConfig, ModelConfig, Tokenizer, Weights, open_model};
use brain_blitz::generation::Session;
use brain_blitz::nn::{RopePairs, RopeScaling};
use brain_blitz::prelude::*;
use serde_json::json;
use tempfile::tempdir;

use crate::support::{NAMES, assert_golden, folder, golden, max_diff, options};

/// The checkpoint as a file in `target`.
fn converted(input: &Path, target: &Path, ty: BlockType) -> Result<PathBuf, String> {
    let path = target.join("model.gguf");
    let options = Options::new(ty);
    convert(input, &path, &options, &mut |_, _| ()).map_err(|error| error.to_string())?;
    Ok(path)
}

/// A copy of a checkpoint whose configuration is changed.
fn changed(name: &str, target: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    fs::copy(
        folder(name).join("model.safetensors"),
        target.join("model.safetensors"),
    )
    .unwrap();
    let text = fs::read_to_string(folder(name).join("config.json")).unwrap();
    let mut config = serde_json::from_str(&text).unwrap();
    change(&mut config);
    fs::write(target.join("config.json"), config.to_string()).unwrap();
}

/// What files cannot say: a window of some layers only, which the checkpoint of Qwen 2 has.
fn in_files() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().filter(|&name| name != "qwen2")
}

#[test]
fn files_have_the_logits_of_their_checkpoints() {
    let target = tempdir().unwrap();
    for name in in_files() {
        let path = converted(&folder(name), target.path(), BlockType::F32).unwrap();
        for cpu in ["reference", "native"] {
            if cpu == "native" && cfg!(not(feature = "llvm-backend")) {
                continue;
            }
            let mut session = Session::load(&path, &options(cpu), &mut |_| ()).unwrap();
            assert_golden(&mut session, name, "as a file");
        }
    }
}

#[test]
fn files_say_what_their_checkpoints_say() {
    let target = tempdir().unwrap();
    for name in in_files() {
        let path = converted(&folder(name), target.path(), BlockType::F32).unwrap();
        let mut config = ModelConfig::open(folder(name)).unwrap();
        match &mut config {
            ModelConfig::Llama(c) => {
                if name != "qwen3" {
                    c.rope.pairs = RopePairs::Neighbours;
                }
                if let RopeScaling::Llama3 { .. } = c.rope.scaling {
                    let factors = c.rope.factors(c.head_dim).unwrap();
                    assert_eq!((factors[0], factors[5]), (1.0, 8.0), "fast and slow");
                    c.rope.scaling = RopeScaling::Factors(factors);
                }
                c.dtype = Some(DType::F32);
            }
            ModelConfig::Gemma3(c) => c.dtype = Some(DType::F32),
            ModelConfig::Gemma2(_) => unreachable!(),
        }
        assert_eq!(ModelConfig::open(&path).unwrap(), config, "{name}");
    }
}

#[test]
fn rows_of_llama_files_are_for_neighbours() {
    let target = tempdir().unwrap();
    for (name, is_permuted) in [("smollm2", true), ("qwen3", false)] {
        let path = converted(&folder(name), target.path(), BlockType::F32).unwrap();
        let (config, weights) = open_model(&path, DType::F32).unwrap();
        let ModelConfig::Llama(mut config) = config else {
            panic!("{name} is of the Llama family")
        };
        config.rope.pairs = match config.rope.pairs {
            RopePairs::Halves => RopePairs::Neighbours,
            RopePairs::Neighbours => RopePairs::Halves,
        };
        let options = options("reference");
        let mut session = Session::new(config, &*weights, &options, &mut |_| ()).unwrap();
        let golden = golden(name);
        let diff = max_diff(session.feed(&golden.prompt).unwrap(), &golden.logits);
        assert!(
            diff > 1.0,
            "{name}: the other pairs change logits by {diff}"
        );

        // The second row of a head of twelve is what was the seventh.
        let (_, theirs) = open_model(&folder(name), DType::F32).unwrap();
        let rows = |weights: &dyn Weights| {
            let tensor = weights.get("model.layers.0.self_attn.k_proj.weight");
            let bytes = tensor.unwrap().convert_to(DType::F32).unwrap();
            let numbers: Vec<f32> = bytes.cast::<f32>().unwrap().to_vec();
            numbers.chunks(36).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let (ours, theirs) = (rows(&*weights), rows(&*theirs));
        let from = if is_permuted {
            [0, 6, 1, 7]
        } else {
            [0, 1, 2, 3]
        };
        for (row, from) in from.into_iter().enumerate() {
            assert_eq!(ours[row], theirs[from], "{name}: row {row}");
            assert_eq!(
                ours[12 + row],
                theirs[12 + from],
                "{name}: row {row} of head 1"
            );
        }
    }
}

#[test]
fn tensors_have_the_names_of_their_architecture() {
    let target = tempdir().unwrap();
    let names = |name: &str| {
        let path = converted(&folder(name), target.path(), BlockType::F32).unwrap();
        let file = Gguf::open(path).unwrap();
        let tensors = file.tensors().iter().map(|info| info.name.clone());
        tensors.collect::<Vec<String>>()
    };
    let llama = names("llama");
    for name in [
        "token_embd.weight",
        "output.weight",
        "output_norm.weight",
        "rope_freqs.weight",
        "blk.2.ffn_norm.weight",
        "blk.0.attn_q.bias",
        "blk.1.ffn_down.bias",
    ] {
        assert!(
            llama.iter().any(|found| found == name),
            "{name} in {llama:?}"
        );
    }
    let smollm2 = names("smollm2");
    for name in ["output.weight", "rope_freqs.weight", "blk.0.attn_q.bias"] {
        assert!(smollm2.iter().all(|found| found != name), "{name}");
    }
    let qwen3 = names("qwen3");
    assert!(qwen3.iter().any(|name| name == "blk.0.attn_q_norm.weight"));
    let gemma3 = names("gemma3");
    for name in ["blk.5.post_ffw_norm.weight", "blk.5.attn_k_norm.weight"] {
        assert!(gemma3.iter().any(|found| found == name), "{name}");
    }
}

#[test]
fn a_window_of_some_layers_is_refused_and_biases_without_it_are_kept() {
    let target = tempdir().unwrap();
    let error = converted(&folder("qwen2"), target.path(), BlockType::F32).unwrap_err();
    assert_eq!(
        error,
        "GGUF files of qwen2 models have no way to say that some layers have a window and others have none"
    );
    changed("qwen2", target.path(), |config| {
        config["use_sliding_window"] = json!(false);
        config.as_object_mut().unwrap().remove("layer_types");
    });
    let path = converted(target.path(), target.path(), BlockType::F32).unwrap();
    let prompt = golden("qwen2").prompt;
    let logits = |path: &Path| {
        let mut session = Session::load(path, &options("reference"), &mut |_| ()).unwrap();
        session.feed(&prompt).unwrap().to_vec()
    };
    let whole = logits(target.path());
    // Only the width of numbers in the metadata differs.
    assert!(max_diff(&whole, &logits(&path)) < 1e-4);
    assert!(
        max_diff(&whole, &golden("qwen2").logits) > 0.1,
        "without a window"
    );
    let file = Gguf::open(&path).unwrap();
    let ModelConfig::Llama(config) = ModelConfig::from_gguf(&file).unwrap() else {
        panic!("a Qwen 2 is of the Llama family")
    };
    assert!(config.qkv_bias && !config.o_bias && !config.qk_norm);
    assert_eq!(config.rope.scaling, RopeScaling::Linear(2.0));
}

/// The metadata of a file after a change, without tensors.
fn reread(path: &Path, change: impl FnOnce(&mut Writer)) -> Result<LlamaConfig, String> {
    let mut writer = Writer::new();
    for (key, value) in Gguf::open(path).unwrap().metadata() {
        writer.set(key, value.clone());
    }
    change(&mut writer);
    let again = path.with_file_name("again.gguf");
    writer.write(&again, &mut |_, _| Ok(())).unwrap();
    LlamaConfig::open(&again).map_err(|error| error.to_string())
}

#[test]
fn what_the_model_does_not_do_is_an_error() {
    let target = tempdir().unwrap();
    let path = converted(&folder("smollm2"), target.path(), BlockType::F32).unwrap();
    assert!(reread(&path, |_| ()).is_ok());
    let cases: [(&str, Value, &str); 4] = [
        (
            "llama.expert_count",
            8u32.into(),
            "models of experts are not supported",
        ),
        (
            "llama.rope.scaling.type",
            "yarn".into(),
            "\"none\" and \"linear\" are supported",
        ),
        (
            "llama.rope.dimension_count",
            4u32.into(),
            "4 is not attention.key_length, 12",
        ),
        (
            "llama.logit_scale",
            2f32.into(),
            "is not a key that this model knows",
        ),
    ];
    for (key, value, what) in cases {
        let error = reread(&path, |writer| {
            writer.set(key, value);
        });
        let error = error.unwrap_err();
        assert!(error.contains(key) && error.contains(what), "{error}");
    }
    let none = reread(&path, |writer| {
        writer.set("llama.expert_count", 0u32);
    });
    assert!(none.is_ok());
}

fn tokenizer() -> serde_json::Value {
    let special = |id: usize, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json!({
        "version": "1.0",
        "added_tokens": [special(0, "<|end|>")],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "vocab": {"<|end|>": 0, "a": 1, "b": 2, "Ġ": 3, "ab": 4, "Ġab": 5, "1": 6, "11": 7},
            "merges": [["a", "b"], ["Ġ", "ab"], ["1", "1"]],
        },
    })
}

#[test]
fn byte_level_tokenizers_are_written_as_lists_if_their_rule_has_a_name() {
    let target = tempdir().unwrap();
    changed("smollm2", target.path(), |_| ());
    let text = tokenizer();
    fs::write(target.path().join("tokenizer.json"), text.to_string()).unwrap();
    let path = converted(target.path(), target.path(), BlockType::F16).unwrap();
    let file = Gguf::open(&path).unwrap();
    let value = |key: &str| file.value(&format!("tokenizer.ggml.{key}"));
    assert_eq!(value("model"), Some(&"gpt2".into()));
    assert_eq!(value("pre"), Some(&"smollm".into()));
    assert_eq!(value("add_bos_token"), Some(&false.into()));
    let merges = ["a b", "Ġ ab", "1 1"].map(str::to_owned).to_vec();
    assert_eq!(value("merges"), Some(&merges.into()));
    let tokens = value("tokens").and_then(Value::as_array).unwrap();
    let tokens = tokens.as_strings().unwrap();
    assert_eq!(
        (tokens.len(), &tokens[5][..], &tokens[100][..]),
        (101, "Ġab", "[PAD100]")
    );

    // The lists alone are the same tokenizer.
    let mut writer = Writer::new();
    for (key, value) in file.metadata() {
        if key != "tokenizer.huggingface.json" {
            writer.set(key, value.clone());
        }
    }
    let lists = target.path().join("lists.gguf");
    writer.write(&lists, &mut |_, _| Ok(())).unwrap();
    let (lists, whole) = (
        Tokenizer::open(&lists).unwrap(),
        Tokenizer::open(&path).unwrap(),
    );
    let text = "ab abb 11<|end|>1";
    assert_eq!(lists.encode(text, false).unwrap(), [4, 5, 2, 3, 6, 6, 0, 6]);
    assert_eq!(
        whole.encode(text, false).unwrap(),
        lists.encode(text, false).unwrap()
    );
    assert!(!lists.adds_bos() && !whole.adds_bos());

    // Another rule has no name.
    let mut other = tokenizer();
    other["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = json!(false);
    fs::write(target.path().join("tokenizer.json"), other.to_string()).unwrap();
    let path = converted(target.path(), target.path(), BlockType::F16).unwrap();
    let file = Gguf::open(&path).unwrap();
    assert!(file.value("tokenizer.huggingface.json").is_some());
    assert_eq!(file.value("tokenizer.ggml.tokens"), None);
}
