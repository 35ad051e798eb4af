//! `inspect`, `convert`, and models in GGUF files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::tempdir;

#[cfg(feature = "llvm-backend")]
use crate::support::talk;
use crate::support::{
    Copy, fail, fail_with, ids, list, program, shakespeare, succeed, succeed_json, text, tiny,
};

/// A GGUF file of `tests/data`.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/gguf")
        .join(name)
}

/// `convert MODEL output ..`
fn convert(model: &Path, output: &Path, settings: &str) -> Command {
    program(
        model,
        &format!("convert MODEL {} {settings}", output.display()),
    )
}

#[test]
fn a_converted_model_chooses_the_reference_tokens() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    let said = succeed(convert(&tiny(), &file, "--quant f32"));
    assert!(
        said.contains("46 tensors") && said.contains("32.00 bits per weight"),
        "{said}"
    );
    let prompt = list(&ids(&tiny(), "ref_input_ids.npy"));
    let greedy = ids(&tiny(), "ref_greedy_ids.npy");
    let args = format!(
        "generate --model MODEL --tokens {prompt} --max-tokens {} --temperature 0",
        greedy.len()
    );
    let expected = format!("{prompt},{}\n", list(&greedy));
    assert_eq!(succeed(program(&file, &args)), expected);
    // From file to file, by way of 16 bits, the tokens stay the same.
    let half = folder.path().join("half.gguf");
    succeed(convert(&file, &half, "--quant f16"));
    assert_eq!(succeed(program(&half, &args)), expected);
}

#[test]
fn a_quantized_model_writes_text() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("shakespeare.gguf");
    succeed(convert(&shakespeare(), &file, "--quant q8_0"));
    let cases = fs::read(shakespeare().join("reference.json")).unwrap();
    let cases: Value = serde_json::from_slice(&cases).unwrap();
    // The first prompt leads to two tokens that are as likely but for 0.04.
    let prompt = cases[1]["prompt"].as_str().unwrap();
    let mut command = program(
        &file,
        "generate --model MODEL --max-tokens 12 --temperature 0",
    );
    command.args(["--prompt", prompt]);
    let found = succeed(command);
    let expected = cases[1]["text"].as_str().unwrap();
    // Eight bits change no choice so early in the text.
    assert!(expected.starts_with(found.trim_end()), "{found}");
    assert!(found.len() > prompt.len() + 8, "{found}");
    let bench = "bench --model MODEL --prompt-tokens 4 --generate-tokens 2 --repeat 1 --json";
    assert!(
        succeed_json(program(&file, bench))["weight_bytes"]
            .as_u64()
            .unwrap()
            > 0
    );
}

#[test]
fn a_chat_template_puts_the_prompt_into_its_form() {
    let folder = tempdir().unwrap();
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ] {
        fs::copy(shakespeare().join(name), folder.path().join(name)).unwrap();
    }
    let chat = |model: &Path| {
        let mut command = program(model, "generate --model MODEL --chat --max-tokens 0");
        command.args(["--prompt", " hi "]);
        command
    };
    let args = "generate --model MODEL --chat --max-tokens 0 --prompt hi";
    fail_with(folder.path(), args, &["holds no chat template", "hint: "]);
    let template = folder.path().join("chat_template.jinja");
    fs::write(
        &template,
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}",
    )
    .unwrap();
    assert_eq!(succeed(chat(folder.path())), "[user] hi\n\n");
    // It goes along to a GGUF file.
    let file = folder.path().join("x.gguf");
    succeed(convert(folder.path(), &file, "--quant q8_0"));
    let mut command = chat(&file);
    command.arg("--json");
    let found = succeed_json(command);
    assert_eq!(found["text"], "[user] hi\n");
    let tokens = found["tokens"].as_array().unwrap();
    assert_eq!(
        tokens.iter().filter(|&id| *id == 2).count(),
        1,
        "one <bos>: {tokens:?}"
    );
    fs::write(&template, "{{ raise_exception('not today') }}").unwrap();
    fail_with(folder.path(), args, &["chat template", "not today"]);
    fail(2, &tiny(), "generate --model MODEL --chat --tokens 3");
}

#[test]
fn conversion_tells_what_did_not_fit() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("tiny.gguf");
    let output = convert(&tiny(), &file, "--quant q4_k").output().unwrap();
    assert!(output.status.success());
    let notes = text(&output.stderr);
    assert_eq!(
        notes,
        "note: 4 of 46 tensors are F16: their rows are no whole number of Q4_K blocks of 256\n\
         note: 24 of 46 tensors are Q5_0: their rows are no whole number of Q4_K blocks of 256\n\
         note: 1 of 46 tensors are Q8_0: their rows are no whole number of Q6_K blocks of 256\n"
    );
    assert_eq!(
        succeed(convert(&tiny(), &file, "--quant q4_k --quiet"))
            .lines()
            .count(),
        1
    );
    let found = succeed_json(convert(
        &tiny(),
        &file,
        "--quant q4_0 --embedding q8_0 --json",
    ));
    let tensors = found["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 46);
    assert_eq!(
        tensors[0],
        json!({"name": "token_embd.weight", "from": "F32", "to": "Q8_0", "instead_of": null, "calibrated": false})
    );
    assert!(found["bytes_after"].as_u64() < found["bytes_before"].as_u64());
    assert!(found["bits_per_weight"].as_f64().unwrap() < 8.0);
}

#[test]
fn inspect_lists_metadata_tensors_and_sums() {
    let found = succeed_json(program(&data("sample.gguf"), "inspect MODEL --json"));
    assert_eq!(found["format"], "gguf");
    assert_eq!(found["version"], 3);
    assert_eq!(found["metadata"]["a.u64"], 1u64 << 60);
    assert_eq!(
        found["metadata"]["a.strings"],
        json!(["", "two words", "日本"])
    );
    assert_eq!(
        found["tensors"][2],
        json!({"name": "blocks", "type": "Q8_0", "shape": [3, 64], "bytes": 204})
    );
    assert_eq!(found["parameters"], 15 + 6 + 192 + 24 + 1);
    assert_eq!(found["bytes"], 60 + 12 + 204 + 96 + 4);
    let bits = found["bits_per_weight"].as_f64().unwrap();
    assert!((bits - 376.0 * 8.0 / 238.0).abs() < 1e-9);
    let table = succeed(program(&data("sample.gguf"), "inspect MODEL"));
    for line in [
        "gguf version 3",
        "  blocks  Q8_0  [3, 64]    204",
        "  a.string              string       naïve",
        "  Q8_0  1 tensors  192 weights  204 bytes  8.5000 bits per weight",
    ] {
        assert!(
            table.lines().any(|found| found == line),
            "no {line:?} in\n{table}"
        );
    }
    let long = succeed_json(program(&data("tokenizer.gguf"), "inspect MODEL --json"));
    assert_eq!(long["metadata"]["tokenizer.ggml.scores"]["type"], "f32");
    assert_eq!(long["bits_per_weight"], Value::Null, "there are no tensors");
    // Checkpoints too.
    let found = succeed_json(program(&tiny(), "inspect MODEL --json"));
    assert_eq!(found["format"], "safetensors");
    assert_eq!(found["bits_per_weight"], 32.0);
    let table = succeed(program(&tiny().join("model.safetensors"), "inspect MODEL"));
    assert!(
        table.contains("model.layers.0.mlp.up_proj.weight"),
        "{table}"
    );
}

#[test]
fn what_is_damaged_is_one_clear_message() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("x.gguf");
    let whole = fs::read(data("gemma2.gguf")).unwrap();
    let generate = "generate --model MODEL --tokens 3,4 --max-tokens 1";
    for cut in [0, 5, 20, 300, 3000, whole.len() - 500] {
        fs::write(&file, &whole[..cut]).unwrap();
        for args in [
            generate,
            "inspect MODEL",
            "convert MODEL never.gguf --quant f16",
        ] {
            fail_with(&file, args, &["x.gguf: ", " at byte "]);
        }
    }
    // Counts that promise more than there is.
    let mut huge = whole.clone();
    huge[8..16].fill(0x7f);
    fs::write(&file, huge).unwrap();
    fail_with(&file, "inspect MODEL", &["x.gguf", "tensor count"]);
}

#[test]
fn what_is_another_thing_is_one_clear_message() {
    let folder = tempdir().unwrap();
    let generate = "generate --model MODEL --tokens 3,4 --max-tokens 1";
    // A model of another kind, and one without a tokenizer.
    fail_with(
        &data("sample.gguf"),
        generate,
        &[
            "general.architecture",
            "is \"none\"; supported are \"gemma2\", \"gemma3\", \"llama\", \"qwen2\", \"qwen3\"",
        ],
    );
    let prompt = "generate --model MODEL --prompt hi --max-tokens 1";
    fail_with(
        &data("gemma2.gguf"),
        prompt,
        &["gemma2.gguf: tokenizer: the file has none"],
    );
    fail_with(
        &tiny().join("config.json"),
        "convert MODEL x.gguf --quant f16",
        &["neither a folder nor a GGUF file", "hint: "],
    );
    fail_with(
        &tiny(),
        "convert MODEL nowhere/x.gguf --quant f16",
        &["nowhere"],
    );
    fail_with(
        &folder.path().join("none.gguf"),
        "inspect MODEL",
        &["none.gguf", "No such file"],
    );
    let copy = Copy::new().set("hidden_activation", "gelu");
    fail_with(
        copy.path(),
        "convert MODEL never.gguf --quant f16",
        &["gelu_pytorch_tanh"],
    );
    assert!(!Path::new("never.gguf").exists());
    for usage in [
        "convert MODEL x.gguf",
        "convert MODEL x.gguf --quant q9",
        "convert MODEL x.gguf --quant q2_k",
        "inspect",
    ] {
        fail(2, &tiny(), usage);
    }
}

/// A folder with a text, and the options that have a model read it.
#[cfg(feature = "llvm-backend")]
fn sample() -> (tempfile::TempDir, String) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("text.txt");
    let words = (0..400).map(|i| ["To be, or not ", "to speak\n", "the king "][i * i % 7 % 3]);
    fs::write(&path, words.collect::<String>()).unwrap();
    let options = format!("--calibrate {} --threads 1 --quiet", path.display());
    (folder, options)
}

#[cfg(feature = "llvm-backend")]
#[test]
fn factors_are_learnt_and_take_no_room() {
    let (folder, text) = sample();
    let at = |name: &str| folder.path().join(name);
    let run = |name: &str, more: &str| {
        let settings = format!("--quant q4_0 --sample-tokens 512 --json {text} {more}");
        succeed_json(convert(&shakespeare(), &at(name), &settings))
    };
    assert_eq!(run("plain", "")["rescaled"], Value::Null);
    let found = &run("learnt", "--rescale")["rescaled"];
    // Seven matrices and four norms of six layers, and the last norm.
    assert_eq!(found["tensors"], 6 * 11 + 1);
    let divergences = found["divergences"].as_array().unwrap();
    assert_eq!(divergences.len(), 2, "{found}");
    assert!(
        divergences.iter().all(|x| x.as_f64().unwrap() > 0.0),
        "{found}"
    );
    let bytes = |name: &str| fs::read(at(name)).unwrap();
    assert_eq!(bytes("learnt").len(), bytes("plain").len());
    assert!(bytes("learnt") != bytes("plain"));
}

// The definitions of operations would read the text for minutes.
#[cfg(feature = "llvm-backend")]
#[test]
fn a_text_chooses_scales_and_types() {
    let (folder, text) = sample();
    let at = |name: &str| folder.path().join(name);
    let model = shakespeare();
    let save = format!("--save-importance {}", at("found").display());
    let run = |name: &str, settings: &str| succeed(convert(&model, &at(name), settings));
    run("plain", "--quant q4_0 --quiet");
    run("a", &format!("--quant q4_0 {text} {save}"));
    run(
        "b",
        &format!(
            "--quant q4_0 --quiet --importance {}",
            at("found").display()
        ),
    );
    let bytes = |name: &str| fs::read(at(name)).unwrap();
    assert!(bytes("a") == bytes("b"), "the same scales from the file");
    assert!(bytes("a") != bytes("plain"));
    assert_eq!(bytes("a").len(), bytes("plain").len());
    // A plan, of which the table says what each matrix got and what that costs.
    let settings = format!("--bits 6 --by-kind --plan-tokens 40 --sample-tokens 512 {text}");
    let said = run("c", &settings);
    for part in [
        "mlp.down_proj",
        "bits  cost",
        "with all of it",
        "KL ",
        "68 tensors",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let found = succeed_json(convert(&model, &at("d"), &format!("{settings} --json")));
    let bits = found["plan"]["bits_per_weight"].as_f64().unwrap();
    assert!(bits > 5.5 && bits <= 6.0, "{found}");
    assert!(
        (found["bits_per_weight"].as_f64().unwrap() - bits).abs() < 1e-9,
        "{found}"
    );
    assert!(bytes("c") == bytes("d"));
    // Standard input can be read once only.
    let settings = settings.replace(&at("text.txt").display().to_string(), "-");
    let piped = fs::read_to_string(at("text.txt")).unwrap();
    talk(convert(&model, &at("e"), &settings), &piped);
    assert!(bytes("c") == bytes("e"));
    let few = format!("convert MODEL never.gguf --bits 1.5 --by-kind --plan-tokens 40 {text}");
    fail_with(&model, &few, &["too few"]);
    let without = format!("convert MODEL never.gguf --quant q4_0 {text}");
    fail_with(&tiny(), &without, &["has no tokenizer", "hint: "]);
}

#[test]
fn scales_and_plans_need_a_text() {
    for usage in [
        "convert MODEL x.gguf --bits 5",
        "convert MODEL x.gguf --bits 99 --calibrate x",
        "convert MODEL x.gguf --bits 5 --quant q4_0 --calibrate x",
        "convert MODEL x.gguf --quant q4_0 --save-importance x",
        "convert MODEL x.gguf --quant q4_0 --importance nowhere",
        "convert MODEL x.gguf --quant q4_0 --by-kind",
        "convert MODEL x.gguf --quant q4_0 --feedback",
        "convert MODEL x.gguf --quant q4_0 --rescale",
    ] {
        fail(2, &shakespeare(), usage);
    }
}
