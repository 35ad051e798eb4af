//! `eval`: figures of a model alone, beside a reference, and in blocks of several types.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{fail, fail_with, program, shakespeare, succeed, succeed_json, talk, tiny};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/evaluate")
        .join(name)
}

fn eval(more: &str) -> String {
    format!(
        "eval --model MODEL --text {} {more}",
        data("text.txt").display()
    )
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn perplexity_is_that_of_transformers_from_a_file_and_from_a_pipe() {
    let figures: Value = serde_json::from_slice(&fs::read(data("figures.json")).unwrap()).unwrap();
    let cases = figures["perplexity"].as_array().unwrap();
    let mut checked = 0;
    for case in cases.iter().filter(|case| case["bos"] == true) {
        let args = format!(
            "--context {} --stride {} --json",
            case["context"], case["stride"]
        );
        let found = succeed_json(program(&shakespeare(), &eval(&args)));
        assert_eq!(found["text"]["tokens"], case["tokens"]);
        let model = &found["models"][0];
        assert!((number(&model["nats_per_token"]) - number(&case["nats"])).abs() < 1e-4);
        assert!((number(&model["perplexity"]).ln() - number(&case["nats"])).abs() < 1e-4);
        // Every byte of the text counts.
        let bytes = fs::metadata(data("text.txt")).unwrap().len() as f64;
        let bits = number(&case["nats"]) * number(&case["tokens"]) / std::f64::consts::LN_2 / bytes;
        assert!((number(&model["bits_per_byte"]) - bits).abs() < 1e-4);
        assert_eq!(model["against"], Value::Null);
        assert_eq!(number(&model["bits_per_weight"]).round(), 16.0);
        checked += 1;
    }
    assert_eq!(checked, 2);
    let piped = "eval --model MODEL --text - --context 128 --limit 100";
    let text = fs::read_to_string(data("text.txt")).unwrap();
    let (found, notes) = talk(program(&shakespeare(), piped), &text);
    assert_eq!(notes, "");
    for part in [
        "100 tokens, ",
        "1 windows of 128",
        "perplexity  ",
        "bits/byte  ",
        "reading  ",
    ] {
        assert!(found.contains(part), "no {part:?} in {found}");
    }
    assert!(!found.contains("KL"), "{found}");
}

#[test]
fn a_model_beside_itself_and_beside_a_worse_one() {
    let path = shakespeare();
    let args = format!(
        "--context 128 --limit 600 --length 8 --json --against {}",
        path.display()
    );
    let same = succeed_json(program(&path, &eval(&args)));
    let against = &same["models"][1]["against"];
    for (field, expected) in [
        ("kl_mean", 0.0),
        ("kl_p99", 0.0),
        ("agreement", 1.0),
        ("rms_delta_p", 0.0),
        ("logit_mse", 0.0),
        ("perplexity_ratio", 1.0),
        ("brevity_penalty", 1.0),
    ] {
        assert_eq!(number(&against[field]), expected, "{field}");
    }
    assert!(
        (number(&against["bleu"][3]) - 100.0).abs() < 1e-9,
        "{against}"
    );
    assert_eq!(same["models"][0]["against"], Value::Null, "the reference");

    let worse = succeed_json(program(&path, &eval(&format!("{args} --quant q4_0"))));
    let (reference, model) = (&worse["models"][0], &worse["models"][1]);
    assert_eq!(reference["quant"], Value::Null);
    assert_eq!(model["quant"], "Q4_0");
    let against = &model["against"];
    assert!(number(&against["kl_mean"]) > 0.001, "{against}");
    assert!(number(&against["kl_p99"]) > number(&against["kl_mean"]));
    assert!(number(&against["agreement"]) < 1.0);
    assert!(number(&against["bleu"][0]) < 100.0, "{against}");
    let ratio = number(&model["perplexity"]) / number(&reference["perplexity"]);
    assert!((number(&against["perplexity_ratio"]) - ratio).abs() < 1e-12);
}

#[test]
fn a_table_has_a_line_for_each_type() {
    let args = "--context 128 --limit 400 --continuations 2 --length 4 --quants q8_0,q4_0";
    let table = succeed(program(&shakespeare(), &eval(args)));
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(3)
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert_eq!(rows[0][..2], ["as", "stored"], "{table}");
    assert_eq!((rows[1][0], rows[2][0]), ("Q8_0", "Q4_0"), "{table}");
    let bits: Vec<f64> = [rows[0][2], rows[1][1], rows[2][1]]
        .iter()
        .map(|bits| bits.parse().unwrap())
        .collect();
    assert!(
        bits[0] > bits[1] && bits[1] > 8.0 && bits[2] > 4.0 && bits[2] < 7.0,
        "{bits:?}"
    );
    for column in ["MSE", "cosine", "BLEU-1", "BLEU-4", "KL mean", "written/s"] {
        assert!(table.contains(column), "no {column} in {table}");
    }
    // Without continuations nothing is written.
    let args = "--context 128 --limit 100 --continuations 0 --quants q8_0 --json";
    let found = succeed_json(program(&shakespeare(), &eval(args)));
    assert_eq!(found["models"].as_array().unwrap().len(), 2);
    assert_eq!(found["models"][1]["write_tok_s"], Value::Null);
    assert_eq!(found["models"][1]["against"]["bleu"], Value::Null);
    assert!(number(&found["models"][1]["against"]["kl_mean"]) > 0.0);
}

/// What `--quants bits` compares.
const BITS: [&str; 19] = [
    "Q8_0-A32", "Q8_0", "Q4_0-A32", "Q4_0", "W2", "W2A8", "W2A4", "W2A2", "W2A1", "W1.58",
    "W1.58A8", "W1.58A4", "W1.58A2", "W1.58A1", "W1", "W1A8", "W1A4", "W1A2", "W1A1",
];

#[test]
fn fewer_bits_are_smaller_and_worse_in_rows_and_in_the_picture() {
    let folder = tempdir().unwrap();
    let svg = folder.path().join("bits.svg");
    let student = shakespeare().with_file_name("gemma2-shakespeare-1bit");
    let student = student.join("gemma2-shakespeare-w1a8.gguf");
    let args = format!(
        "--context 128 --limit 300 --continuations 2 --length 4 --json --quants bits --svg {} --other {}",
        svg.display(),
        student.display()
    );
    let found = succeed_json(program(&shakespeare(), &eval(&args)));
    let models = found["models"].as_array().unwrap();
    let names: Vec<&str> = models.iter().filter_map(|m| m["quant"].as_str()).collect();
    assert_eq!(names, BITS);
    let row = |name: &str| models.iter().find(|m| m["quant"] == name).unwrap();
    let of = |name: &str, what: &str| number(&row(name)["against"][what]);
    let bits = |name: &str| number(&row(name)["bits_per_weight"]);
    // From better to worse, and from large to small; of three values and of two bases the matrices take two bits.
    for pair in ["Q8_0-A32", "Q4_0-A32", "W2", "W1"].windows(2) {
        assert!(of(pair[0], "kl_mean") < of(pair[1], "kl_mean"), "{pair:?}");
        assert!(of(pair[0], "logit_cosine") > of(pair[1], "logit_cosine"));
        assert!(bits(pair[0]) > bits(pair[1]), "{pair:?}");
    }
    for better in [
        &["Q8_0", "Q4_0", "W2A8", "W1A8", "W1A1"][..],
        &["W2A8", "W2A4", "W2A2", "W2A1"],
        &["W2A2", "W1A2", "W1A1"],
    ] {
        for pair in better.windows(2) {
            assert!(of(pair[0], "kl_mean") < of(pair[1], "kl_mean"), "{pair:?}");
        }
    }
    assert!(of("W1.58", "kl_mean") < of("W1", "kl_mean"));
    assert!(of("Q8_0", "agreement") > 0.9 && of("W1A1", "agreement") < 0.6);
    assert!(bits("W1") < 2.6, "{}", bits("W1"));
    // What was trained to have one bit is near, and as small.
    let trained = models.last().unwrap();
    assert!(trained["model"].as_str().unwrap().ends_with("-w1a8.gguf"));
    let kl = number(&trained["against"]["kl_mean"]);
    assert!(kl < 0.3 * of("W1A8", "kl_mean"), "{kl}");
    let smaller = number(&trained["weight_bytes"]) / number(&row("W1A8")["weight_bytes"]);
    assert!((smaller - 1.0).abs() < 0.02, "{smaller}");

    let picture = fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    let count = |what: &str| picture.matches(what).count();
    assert_eq!(
        count("<circle"),
        names.len() + 1 + names.len() + 2,
        "one in each panel"
    );
    assert_eq!(count("<text"), count("</text>"));
    for text in names
        .iter()
        .chain(&["as stored", "bits of a weight", "weights in MB"])
    {
        assert!(picture.contains(text), "no {text} in the picture");
    }
}

#[test]
fn what_cannot_be_evaluated_is_one_clear_message() {
    let path = shakespeare();
    for (args, parts) in [
        (eval("--context 2000"), vec!["2000 are needed", "hint: "]),
        (eval("--context 64 --stride 65"), vec!["stride of 65"]),
        (
            eval(&format!("--context 64 --against {}", tiny().display())),
            vec!["2048", "512"],
        ),
        (
            "eval --model MODEL --text nowhere.txt".to_owned(),
            vec!["nowhere.txt", "No such file"],
        ),
    ] {
        fail_with(&path, &args, &parts);
    }
    let folder = tempdir().unwrap();
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "").unwrap();
    let args = format!("eval --model MODEL --text {}", empty.display());
    fail_with(&path, &args, &["no tokens to predict"]);
    // What is in blocks already is not put into others.
    let file = folder.path().join("q8.gguf");
    let convert = format!("convert MODEL {} --quant q8_0 --quiet", file.display());
    succeed(program(&path, &convert));
    let args = "--limit 40 --context 64 --continuations 0 --quants q4_0";
    fail_with(&file, &eval(args), &["no weights can be stored", "hint: "]);
    for usage in [
        "eval --model MODEL",
        "eval --model MODEL --text x --quants q9",
        "eval --model MODEL --text x --quants q8_0 --against y",
        "eval --model MODEL --text x --context 0",
        "eval --model MODEL --text x --svg y",
        "eval --model MODEL --text x --other y",
    ] {
        fail(2, &path, usage);
    }
}
