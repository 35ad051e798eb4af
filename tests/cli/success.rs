//! Commands that work.

use std::fs;

use brain_blitz::formats::{StoredType, npy};
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{Copy, ids, list, program, shakespeare, succeed, succeed_json, text, tiny};

/// The largest difference of a logit from the reference's that f32 rounding explains.
const TOLERANCE: f32 = 5e-4;

fn token_ids(value: &Value) -> Vec<u32> {
    let ids = value["tokens"].as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

#[test]
fn greedy_tokens_equal_the_reference() {
    let folder = tiny();
    let prompt = ids(&folder, "ref_input_ids.npy");
    let greedy = ids(&folder, "ref_greedy_ids.npy");
    let n = greedy.len();
    let args = format!(
        "generate --model MODEL --tokens {} --max-tokens {n} --temperature 0",
        list(&prompt)
    );
    let found = succeed_json(program(&folder, &format!("{args} --json")));
    let all = [prompt, greedy].concat();
    assert_eq!(token_ids(&found), all);
    assert_eq!(found["generated"], n);
    assert_eq!(found["stop"], "length");
    assert_eq!(found["text"], Value::Null, "there is no tokenizer");
    assert_eq!(found.as_object().unwrap().len(), 4);
    let plain = succeed(program(&folder, &args));
    assert_eq!(plain, list(&all) + "\n");
}

#[test]
fn text_equals_the_reference_and_is_the_same_with_and_without_json() {
    let folder = shakespeare();
    let cases = fs::read(folder.join("reference.json")).unwrap();
    let cases: Value = serde_json::from_slice(&cases).unwrap();
    let prompt = cases[0]["prompt"].as_str().unwrap();
    let expected = cases[0]["text"].as_str().unwrap();
    let args = "generate --model MODEL --max-tokens 40 --temperature 0";
    let mut command = program(&folder, args);
    command.args(["--json", "--prompt", prompt]);
    let found = succeed_json(command);
    assert_eq!(found["text"], expected);
    assert_eq!(token_ids(&found)[0], 2, "a text starts with <bos>");
    let mut command = program(&folder, args);
    command.args(["--prompt", prompt]);
    assert_eq!(succeed(command), format!("{expected}\n"));
}

#[test]
fn a_prompt_may_start_with_a_hyphen_or_be_empty() {
    for prompt in ["--", "-x", ""] {
        let mut command = program(&shakespeare(), "generate --model MODEL --max-tokens 0");
        command.args(["--prompt", prompt]);
        assert_eq!(succeed(command), format!("{prompt}\n"));
    }
}

#[test]
fn logits_equal_the_reference_for_any_number_of_threads() {
    let folder = tiny();
    let prompt = list(&ids(&folder, "ref_input_ids.npy"));
    let out = tempdir().unwrap();
    let mut written = Vec::new();
    for threads in [1, 2] {
        let file = out.path().join(format!("{threads}.npy"));
        let args = format!(
            "logits --model MODEL --tokens {prompt} --threads {threads} --output {}",
            file.display()
        );
        assert_eq!(succeed(program(&folder, &args)), "");
        written.push(fs::read(&file).unwrap());
    }
    assert!(written[0] == written[1], "1 and 2 threads differ");
    let found = npy::read(out.path().join("1.npy")).unwrap();
    let golden = npy::read(folder.join("ref_logits_f32.npy")).unwrap();
    assert_eq!(found.dtype, StoredType::F32);
    assert_eq!(found.shape, golden.shape);
    let floats = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, f32>(bytes);
    for (a, b) in floats(&found.bytes).iter().zip(floats(&golden.bytes)) {
        // Written so that NaN fails.
        assert!((a - b).abs() <= TOLERANCE, "{a} for {b}");
    }
}

#[test]
fn prompts_that_are_fed_in_pieces_give_the_same_prediction() {
    // Longer than a piece of either command; their pieces differ.
    let prompt: Vec<u32> = (0..600).map(|i| (i * 37 + i / 7) % 509 + 3).collect();
    let copy = Copy::new().set("max_position_embeddings", 2048);
    let tokens = list(&prompt);
    let args =
        format!("generate --model MODEL --tokens {tokens} --max-tokens 1 --temperature 0 --json");
    let next = *token_ids(&succeed_json(program(copy.path(), &args)))
        .last()
        .unwrap();
    let file = copy.file("logits.npy");
    let args = format!(
        "logits --model MODEL --tokens {tokens} --output {}",
        file.display()
    );
    succeed(program(copy.path(), &args));
    let logits = npy::read(&file).unwrap();
    assert_eq!(logits.shape, [600, 512]);
    let floats: Vec<f32> = bytemuck::pod_collect_to_vec(&logits.bytes);
    let best = |row: &[f32]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    assert_eq!(best(&floats[599 * 512..]), Some(next as usize));
    // The first rows do not depend on what comes after them.
    let file = copy.file("first.npy");
    let args = format!(
        "logits --model MODEL --tokens {} --output {}",
        list(&prompt[..100]),
        file.display()
    );
    succeed(program(copy.path(), &args));
    let first: Vec<f32> = bytemuck::pod_collect_to_vec(&npy::read(&file).unwrap().bytes);
    for (a, b) in first.iter().zip(&floats) {
        assert!((a - b).abs() <= TOLERANCE, "{a} and {b}");
    }
}

#[cfg(feature = "llvm-backend")]
#[test]
fn other_cpus_and_the_reference_choose_the_same_tokens() {
    let args = "generate --model MODEL --tokens 7,8,9 --max-tokens 5 --temperature 0 --json";
    let native = succeed_json(program(&tiny(), args));
    for cpu in ["scalar", "reference"] {
        let other = succeed_json(program(&tiny(), &format!("{args} --cpu {cpu}")));
        assert_eq!(native, other, "{cpu}");
    }
}

#[test]
fn a_seed_names_one_continuation_and_top_k_1_is_greedy() {
    let draw = |settings: &str| {
        let args = "generate --model MODEL --tokens 7,8,9 --max-tokens 12 --json";
        let args = format!("{args} {settings}");
        token_ids(&succeed_json(program(&tiny(), &args)))
    };
    let hot = "--temperature 2 --top-k 40 --top-p 0.95";
    let first = draw(&format!("{hot} --seed 3"));
    assert_eq!(first, draw(&format!("{hot} --seed 3 --threads 1")));
    assert_ne!(first, draw(&format!("{hot} --seed 4")));
    assert_eq!(draw("--temperature 2 --top-k 1"), draw("--temperature 0"));
}

#[test]
fn the_end_of_text_token_and_the_context_end_a_text() {
    let greedy = ids(&tiny(), "ref_greedy_ids.npy");
    let prompt = ids(&tiny(), "ref_input_ids.npy");
    let eos = greedy[3];
    let first = greedy.iter().position(|&id| id == eos).unwrap();
    let copy = Copy::new().set("eos_token_id", eos);
    let args = format!(
        "generate --model MODEL --temperature 0 --tokens {} --json",
        list(&prompt)
    );
    let found = succeed_json(program(copy.path(), &args));
    assert_eq!(found["stop"], "eos");
    assert_eq!(found["generated"], first + 1);
    assert_eq!(token_ids(&found).last(), Some(&eos));

    let copy = Copy::new().set("max_position_embeddings", prompt.len() + 2);
    let found = succeed_json(program(copy.path(), &args));
    assert_eq!(found["stop"], "length");
    // The last token is chosen from the last position's logits and needs no room itself.
    assert_eq!(found["generated"], 3);
    assert_eq!(token_ids(&found)[prompt.len()..], greedy[..3]);
}

#[test]
fn bench_reports_every_number() {
    let args = "bench --model MODEL --prompt-tokens 12 --generate-tokens 3 --repeat 2";
    let found = succeed_json(program(&tiny(), &format!("{args} --threads 1 --json")));
    let positive = [
        "load_s",
        "compile_s",
        "pack_s",
        "prefill_tok_s",
        "prefill_tok_s_min",
        "prefill_tok_s_max",
        "decode_tok_s",
        "decode_tok_s_min",
        "decode_tok_s_max",
        "arena_bytes",
        "nodes_recorded",
        "nodes_compiled",
        "weight_bytes",
    ];
    for field in positive {
        assert!(found[field].as_f64().unwrap() > 0.0, "{field}: {found}");
    }
    for rate in ["prefill_tok_s", "decode_tok_s"] {
        let at = |suffix: &str| found[format!("{rate}{suffix}")].as_f64().unwrap();
        assert!(at("_min") <= at("") && at("") <= at("_max"), "{found}");
    }
    for (field, value) in [
        ("threads", 1),
        ("prompt_tokens", 12),
        ("generate_tokens", 3),
    ] {
        assert_eq!(found[field], value, "{field}");
    }
    if cfg!(feature = "llvm-backend") {
        assert!(found["kernels"].as_u64().unwrap() > 0, "{found}");
    }
    if cfg!(target_os = "linux") {
        assert!(
            found["peak_rss_bytes"].as_u64().unwrap() > 1 << 20,
            "{found}"
        );
    }
    assert!(found["cache_hits"].is_u64());
    let table = succeed(program(&tiny(), args));
    for row in ["load", "compile", "prefill", "decode", "peak memory"] {
        assert!(table.lines().any(|line| line.starts_with(row)), "{table}");
    }
}

#[test]
fn bench_measures_a_synthetic_model() {
    let args = "bench --synthetic gemma2-tiny --prompt-tokens 12 --generate-tokens 4 --repeat 1";
    let mut bytes = Vec::new();
    for (precision, size) in [("f32", 4), ("bf16", 2), ("f16", 2)] {
        let found = succeed_json(program(
            &tiny(),
            &format!("{args} --precision {precision} --json"),
        ));
        let weights = found["weight_bytes"].as_u64().unwrap();
        bytes.push(weights / size);
        // Two layers of keys and values of two heads of 32 in f32; 14 positions on average.
        let cache = 2.0 * 2.0 * (2 * 32 * 4 * 14) as f64;
        assert_eq!(found["bytes_read_per_token"], weights as f64 + cache);
        assert!(found["decode_tok_s"].as_f64().unwrap() > 0.0, "{found}");
        if cfg!(feature = "llvm-backend") {
            let time = |name: &str| found[name].as_f64().unwrap();
            assert!(time("compile_cold_s") > time("compile_warm_s"), "{found}");
        } else {
            assert!(found["compile_cold_s"].is_null());
        }
    }
    assert_eq!(bytes, [bytes[0]; 3], "as many weights in each format");

    let more = succeed_json(program(
        &tiny(),
        &format!("{args} --layers 3 --precision f32 --json"),
    ));
    let weights = |layers: u64| 640 * 96 + 96 + layers * 96 * (4 + 12 * 32 + 3 * 224);
    assert_eq!(bytes[0], weights(2));
    assert_eq!(more["weight_bytes"], 4 * weights(3));
    assert_eq!(more["layers"], 3);
}

#[test]
fn caches_of_fewer_bits_take_less_memory() {
    let args = "bench --model MODEL --prompt-tokens 12 --generate-tokens 3 --repeat 1";
    let [whole, half] = ["", "--kv-cache f16"].map(|cache| {
        let found = succeed_json(program(&tiny(), &format!("{args} {cache} --json")));
        let number = |name: &str| found[name].as_u64().unwrap_or_else(|| panic!("{found}"));
        let read = found["bytes_read_per_token"].as_f64().unwrap();
        let cache = read - number("weight_bytes") as f64;
        (found["kv_cache"].clone(), number("kv_cache_bytes"), cache)
    });
    assert_eq!(whole.0, "f32");
    assert_eq!(half, ("f16".into(), whole.1 / 2, whole.2 / 2.0));
    let table = succeed(program(&tiny(), &format!("{args} --kv-cache bf16")));
    let line = table.lines().find(|line| line.starts_with("kv cache"));
    assert!(
        line.is_some_and(|line| line.ends_with("MiB, bf16")),
        "{table}"
    );
}

#[cfg(feature = "llvm-backend")]
#[test]
fn bench_knows_the_limits_once_they_are_measured() {
    let cache = tempdir().unwrap();
    let run = |args: &str| {
        let mut command = program(&tiny(), args);
        command.env("BB_CACHE_DIR", cache.path());
        succeed_json(command)
    };
    let speed =
        "bench --model MODEL --prompt-tokens 12 --generate-tokens 3 --repeat 1 --threads 1 --json";
    let before = run(speed);
    for field in ["prefill_peak_fraction", "decode_bandwidth_fraction"] {
        assert!(before[field].is_null(), "{before}");
    }
    let measured = run("bench --machine --json");
    assert_eq!(
        run("bench --machine --json"),
        measured,
        "the second one is from the file"
    );
    let after = run(speed);
    let of = |field: &str| after[field].as_f64().unwrap();
    let flops = measured["flops"][0].as_f64().unwrap();
    for (part, rate, per_token, limit) in [
        (
            "prefill_peak_fraction",
            "prefill_tok_s",
            "flop_per_prompt_token",
            flops,
        ),
        (
            "decode_bandwidth_fraction",
            "decode_tok_s",
            "bytes_read_per_token",
            // Measured again, beside the rate.
            of("read_bytes_per_s"),
        ),
    ] {
        let expected = of(rate) * of(per_token) / limit;
        assert!((of(part) / expected - 1.0).abs() < 1e-9, "{part}: {after}");
    }
    std::fs::write(cache.path().join("machine.json"), "{ damaged").unwrap();
    assert!(run(speed)["prefill_peak_fraction"].is_null());
}

#[test]
fn bench_profiles_every_kernel() {
    let out = tempdir().unwrap();
    let page = out.path().join("profile.html");
    let args = "bench --model MODEL --prompt-tokens 12 --generate-tokens 3 --repeat 1 --profile";
    let table = succeed(program(&tiny(), &format!("{args} {}", page.display())));
    for part in ["prefill: ", "decode: ", "GB/s", "GFLOP/s"] {
        assert!(table.contains(part), "{table}");
    }
    let page = fs::read_to_string(page).unwrap();
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let parts = data["parts"].as_array().unwrap();
    assert_eq!(parts.len(), 2);
    let calls = |part: &serde_json::Value| {
        let lines = part["lines"].as_array().unwrap().iter();
        lines
            .map(|line| line["calls"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        calls(&parts[1]),
        3 * calls(&parts[0]),
        "three tokens were generated"
    );
    let trace = fs::read_to_string(out.path().join("profile.trace.json")).unwrap();
    let trace: serde_json::Value = serde_json::from_str(&trace).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!(events.len() as u64, calls(&parts[0]) + calls(&parts[1]));
    assert!(events.iter().all(|event| event["ph"] == "X"));
    if cfg!(feature = "llvm-backend") {
        let lines = parts[0]["lines"].as_array().unwrap().iter();
        let kernels = lines.filter(|line| line["ir"].as_str().unwrap().contains("define "));
        assert!(kernels.count() > 5, "kernels have code");
    }
    let quiet = succeed_json(program(&tiny(), &format!("{args} --json")));
    assert!(quiet["decode_tok_s"].is_f64());
}

#[cfg(feature = "llvm-backend")]
#[test]
fn kernels_do_not_grow_with_layers() {
    let compiled = |layers: usize| {
        let args = format!("bench --synthetic gemma2-2b --layers {layers} --compile --json");
        succeed_json(program(&tiny(), &args))
    };
    let (two, six) = (compiled(2), compiled(6));
    assert!(two["kernels"].as_u64() < six["kernels"].as_u64());
    assert_eq!(two["distinct_kernels"], six["distinct_kernels"]);
}

#[test]
fn bench_cuts_a_default_prompt_with_a_notice() {
    let args = "bench --model MODEL --generate-tokens 2 --repeat 1";
    let output = program(&tiny(), args).output().unwrap();
    assert!(output.status.success());
    let notice = text(&output.stderr);
    assert!(notice.starts_with("note: "), "{notice}");
    assert!(notice.contains("256") && notice.contains("254"), "{notice}");
}

#[test]
fn display_shows_every_stage_in_every_form() {
    let n_nodes = |stage: &str| -> usize {
        let args = format!("display --model MODEL --stage {stage}");
        let listing = succeed(program(&tiny(), &args));
        let summary = listing.lines().last().unwrap();
        let (count, rest) = summary.split_once(' ').unwrap();
        assert!(rest.starts_with("nodes"), "{summary}");
        count.parse().unwrap()
    };
    let recorded = n_nodes("recorded");
    if cfg!(feature = "llvm-backend") {
        let (generic, compiled) = (n_nodes("generic"), n_nodes("compiled"));
        assert!(recorded > generic && generic > compiled);
    }
    let out = tempdir().unwrap();
    for (form, start) in [
        ("svg", "<svg"),
        ("dot", "digraph"),
        ("html", "<!"),
        ("txt", " "),
    ] {
        let file = out.path().join(format!("graph.{form}"));
        let args = format!("display --model MODEL --output {}", file.display());
        assert_eq!(succeed(program(&tiny(), &args)), "");
        let content = fs::read_to_string(&file).unwrap();
        assert!(content.contains(start), "{form}: {}", &content[..80]);
    }
}

#[test]
fn help_and_version_are_there() {
    let version = succeed(program(&tiny(), "--version"));
    assert_eq!(
        version,
        format!("brain-blitz {}\n", env!("CARGO_PKG_VERSION"))
    );
    for command in ["generate", "logits", "bench", "display"] {
        assert!(succeed(program(&tiny(), "--help")).contains(command));
        let help = succeed(program(&tiny(), &format!("{command} --help")));
        let example = format!("brain-blitz {command} --model");
        assert!(help.contains(&example), "{help}");
    }
}
