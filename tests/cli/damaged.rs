//! What is damaged or does not fit: one clear message each, soon, and in little memory.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::tempdir;

use crate::support::{Copy, fail, fail_with, list, program, shakespeare, succeed, tiny};

const GENERATE: &str = "generate --model MODEL --tokens 3,4 --max-tokens 1";

/// The first layer's key projection.
const K_PROJ: &str = "model.layers.0.self_attn.k_proj.weight";

#[test]
fn truncated_weights() {
    for cut in [0, 4, 100, 5000, 500_000] {
        let copy = Copy::new().weights(|bytes| bytes.truncate(cut));
        fail_with(copy.path(), GENERATE, &["model.safetensors"]);
    }
    let copy = Copy::new().weights(|bytes| {
        bytes.pop();
    });
    fail_with(copy.path(), GENERATE, &["model.safetensors", "tensor"]);
}

#[test]
fn a_header_length_beyond_the_file() {
    let copy = Copy::new().weights(|bytes| bytes[..8].fill(0xff));
    fail_with(copy.path(), GENERATE, &["model.safetensors", "header"]);
}

#[test]
fn a_missing_an_unknown_and_a_renamed_tensor() {
    let rename = |to: &'static str| {
        Copy::new().header(move |header| {
            let entry = header.remove(K_PROJ).unwrap();
            header.insert(to.to_owned(), entry);
        })
    };
    let copy = rename("model.layers.0.self_attn.extra.weight");
    fail_with(copy.path(), GENERATE, &["model.safetensors", "self_attn"]);
    let copy = Copy::new().set("num_hidden_layers", 5).config(|config| {
        config.insert("layer_types".into(), json!(null));
    });
    fail_with(
        copy.path(),
        GENERATE,
        &["model.safetensors", "model.layers.4."],
    );
}

#[test]
fn a_tensor_of_another_shape() {
    let copy = Copy::new().header(|header| {
        let shape = &mut header[K_PROJ]["shape"];
        let (rows, columns) = (shape[0].clone(), shape[1].clone());
        assert_ne!(rows.as_u64().unwrap() % 2, 1);
        *shape = json!([rows.as_u64().unwrap() / 2, columns.as_u64().unwrap() * 2]);
    });
    fail_with(
        copy.path(),
        GENERATE,
        &["model.safetensors", K_PROJ, "shape"],
    );
    let copy = Copy::new().set("intermediate_size", 170);
    fail_with(copy.path(), GENERATE, &["model.safetensors", "mlp", "170"]);
}

#[test]
fn a_tensor_of_a_wrong_type() {
    for (dtype, fragment) in [("F64", "F64"), ("I32", "I32"), ("X9", "X9")] {
        let copy = Copy::new().header(|header| header[K_PROJ]["dtype"] = json!(dtype));
        fail_with(copy.path(), GENERATE, &["model.safetensors", K_PROJ]);
        let message = fail(1, copy.path(), GENERATE);
        assert!(message.contains(fragment), "{message}");
    }
}

#[test]
fn a_configuration_that_is_wrong() {
    let cases = [
        ("windw_size", json!(3)),
        ("num_attention_heads", json!(3)),
        ("hidden_size", json!("wide")),
        ("rms_norm_eps", json!(-1.0)),
        ("hidden_activation", json!("relu")),
        ("model_type", json!("gpt2")),
        ("architectures", json!(["LlamaForCausalLM"])),
        ("layer_types", json!(["full_attention"])),
    ];
    for (field, value) in cases {
        let blamed = match field {
            "num_attention_heads" => "num_key_value_heads",
            _ => field,
        };
        let copy = Copy::new().set(field, value);
        fail_with(copy.path(), GENERATE, &["config.json", blamed]);
    }
    let copy = Copy::new().config(|config| {
        config.remove("head_dim");
    });
    fail_with(copy.path(), GENERATE, &["config.json", "head_dim"]);
    fs::write(copy.file("config.json"), "{\"model_type\": ").unwrap();
    fail_with(copy.path(), GENERATE, &["config.json"]);
}

#[test]
fn absurd_sizes_fail_soon_and_without_memory_for_them() {
    let largest = 16_777_216;
    let cases = [
        ("vocab_size", largest, ["model.safetensors", "embed_tokens"]),
        ("hidden_size", largest, ["model.safetensors", "16777216"]),
        ("intermediate_size", largest, ["model.safetensors", "mlp"]),
        ("vocab_size", usize::MAX, ["config.json", "vocab_size"]),
        (
            "num_hidden_layers",
            usize::MAX,
            ["config.json", "num_hidden_layers"],
        ),
        ("head_dim", largest, ["config.json", "head_dim"]),
    ];
    for (field, value, fragments) in cases {
        let copy = Copy::new().set(field, value);
        let start = Instant::now();
        fail_with(copy.path(), GENERATE, &fragments);
        let elapsed = start.elapsed();
        assert!(elapsed < Duration::from_secs(20), "{field}: {elapsed:?}");
    }
}

#[test]
fn a_long_context_costs_nothing_until_it_is_used() {
    let copy = Copy::new().set("max_position_embeddings", 16_777_216);
    assert!(!succeed(program(copy.path(), GENERATE)).is_empty());
}

#[test]
fn without_a_tokenizer_ids_work_and_text_fails() {
    let text = "generate --model MODEL --prompt hi --max-tokens 1";
    fail_with(&tiny(), text, &["tokenizer.json", "does not exist"]);
    assert!(succeed(program(&tiny(), GENERATE)).starts_with("3,4,"));
    let copy = Copy::new();
    fs::write(copy.file("tokenizer.json"), "{\"version\": 1").unwrap();
    fail_with(copy.path(), text, &["tokenizer.json"]);
    fail_with(copy.path(), GENERATE, &["tokenizer.json"]);
    // Another model's tokenizer: ids beyond the vocabulary.
    fs::copy(
        shakespeare().join("tokenizer.json"),
        copy.file("tokenizer.json"),
    )
    .unwrap();
    let text = "generate --model MODEL --prompt tomorrow --max-tokens 1";
    fail_with(copy.path(), text, &["token id", "512"]);
}

#[test]
fn prompts_that_do_not_fit() {
    let long = list(&vec![3; 257]);
    let generate = format!("generate --model MODEL --tokens {long}");
    fail_with(&tiny(), &generate, &["257", "256"]);
    let logits = format!("logits --model MODEL --output never.npy --tokens {long}");
    fail_with(&tiny(), &logits, &["257", "256"]);
    fail_with(
        &tiny(),
        "generate --model MODEL --tokens 3,512",
        &["512", "vocab_size"],
    );
    fail_with(
        &tiny(),
        "bench --model MODEL --prompt-tokens 300",
        &["300", "256", "--prompt-tokens"],
    );
    let mut command = program(&tiny(), "generate --model MODEL --tokens");
    let output = command.arg("").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no tokens"));
}

#[test]
fn paths_that_are_not_what_they_should_be() {
    let empty = tempdir().unwrap();
    fail_with(
        &empty.path().join("nowhere"),
        GENERATE,
        &["nowhere", "No such file"],
    );
    fail_with(empty.path(), GENERATE, &["holds no config.json", "hint: "]);
    let file = empty.path().join("model.gguf");
    fs::write(&file, b"GGUF\x03\0\0\0").unwrap();
    fail_with(&file, GENERATE, &["model.gguf", "tensor count", "cut off"]);
    let file = tiny().join("config.json");
    fail_with(
        &file,
        GENERATE,
        &["config.json", "neither a folder nor a GGUF file"],
    );

    let copy = Copy::new();
    fs::remove_file(copy.file("model.safetensors")).unwrap();
    fail_with(copy.path(), GENERATE, &["model.safetensors"]);

    let inside = |name: &str| empty.path().join(name).display().to_string();
    for name in ["missing/out.npy", "."] {
        let path = inside(name);
        let args = format!("logits --model MODEL --tokens 3 --output {path}");
        fail_with(&tiny(), &args, &[path.trim_end_matches("/out.npy")]);
    }
    let args = format!("display --model MODEL --output {}", inside("graph.png"));
    fail_with(&tiny(), &args, &["graph.png", ".svg"]);
}

#[test]
fn impossible_settings() {
    let unknown = format!("{GENERATE} --cpu z80");
    fail_with(&tiny(), &unknown, &["z80", "reference"]);
    if cfg!(feature = "llvm-backend") {
        fail_with(&tiny(), &unknown, &["native", "scalar", "x86-64-v3"]);
    }
    for setting in [
        "--temperature -1",
        "--temperature inf",
        "--top-p 0",
        "--top-p 1.5",
        "--min-p -0.1",
        "--repeat-penalty 0",
    ] {
        let (name, value) = setting.split_once(' ').unwrap();
        for args in [format!("{name}={value}"), format!("{name} {value}")] {
            fail_with(&tiny(), &format!("{GENERATE} {args}"), &[&name[2..]]);
        }
    }
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    let wrong = [
        "generate --model MODEL",
        "generate --tokens 3",
        "generate --model MODEL --tokens 3 --prompt hi",
        "generate --model MODEL --tokens 3,x",
        "generate --model MODEL --tokens 3,,4",
        "generate --model MODEL --tokens -1",
        "generate --model MODEL --tokens 99999999999",
        "generate --model MODEL --tokens 3 --threads 0",
        "generate --model MODEL --tokens 3 --max-tokens many",
        "generate --model MODEL --tokens 3 --prompt-file -",
        "generate --model MODEL --prompt hi --system x",
        "chat",
        "chat --model MODEL --max-tokens 0",
        "logits --model MODEL --tokens 3",
        "bench --model MODEL --repeat 0",
        "display --model MODEL --stage final",
        "train",
    ];
    for args in wrong {
        fail(2, &tiny(), args);
    }
}

#[test]
fn nothing_is_left_behind_by_a_failed_command() {
    let out = tempdir().unwrap();
    let file = out.path().join("logits.npy");
    fs::write(&file, "old").unwrap();
    let args = format!(
        "logits --model MODEL --tokens 3,512 --output {}",
        file.display()
    );
    fail_with(&tiny(), &args, &["512"]);
    assert_eq!(fs::read(&file).unwrap(), b"old");
    let names = fs::read_dir(out.path()).unwrap();
    assert_eq!(names.count(), 1);
    assert!(!Path::new("never.npy").exists());
}
