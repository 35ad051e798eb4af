//! `generate`: where prompts come from, what ends a text, and what it tells about choices.

use std::fs;

use brain_blitz::formats::Checkpoint;
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{
    chat_model, fail_with, program, shakespeare, succeed, succeed_json, talk, tiny,
};

/// The reference's first prompt and its greedy text.
fn reference() -> (String, String) {
    let cases = fs::read(shakespeare().join("reference.json")).unwrap();
    let cases: Value = serde_json::from_slice(&cases).unwrap();
    let field = |name: &str| cases[0][name].as_str().unwrap().to_owned();
    (field("prompt"), field("text"))
}

const GREEDY: &str = "generate --model MODEL --max-tokens 40 --temperature 0";

#[test]
fn a_prompt_comes_from_a_file_or_standard_input_without_its_last_line_break() {
    let (prompt, expected) = reference();
    let folder = tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    assert!(prompt.ends_with('\n'), "only one line break is left out");
    for end in ["\n", "\r\n"] {
        fs::write(&file, format!("{prompt}{end}")).unwrap();
        let args = format!("{GREEDY} --prompt-file {}", file.display());
        let found = succeed(program(&shakespeare(), &args));
        assert_eq!(found, format!("{expected}\n"), "{end:?}");
    }
    fs::write(&file, "HAMLET").unwrap();
    let args = format!(
        "generate --model MODEL --max-tokens 0 --prompt-file {}",
        file.display()
    );
    assert_eq!(succeed(program(&shakespeare(), &args)), "HAMLET\n");
    let piped = program(&shakespeare(), &format!("{GREEDY} --prompt-file -"));
    let (found, notes) = talk(piped, &format!("{prompt}\n"));
    assert_eq!((found, notes.as_str()), (format!("{expected}\n"), ""));
    fs::write(&file, [b'a', 0xff]).unwrap();
    let args = format!("{GREEDY} --prompt-file {}", file.display());
    fail_with(
        &shakespeare(),
        &args,
        &["prompt.txt", "not UTF-8 at byte 1"],
    );
    let args = format!("{GREEDY} --prompt-file nowhere.txt");
    fail_with(&shakespeare(), &args, &["nowhere.txt", "No such file"]);
}

#[test]
fn every_place_of_a_text_can_end_it() {
    let (prompt, expected) = reference();
    let new: Vec<char> = expected[prompt.len()..].chars().collect();
    // Four letters are more than a token in some places and less in others.
    for at in (0..new.len() - 4).step_by(13) {
        let stop: String = new[at..at + 4].iter().collect();
        let cut = expected[prompt.len()..].find(&stop).unwrap();
        let kept = &expected[..prompt.len() + cut];
        let mut plain = program(&shakespeare(), GREEDY);
        plain.args([
            "--prompt",
            &prompt,
            "--stop",
            &stop,
            "--stop",
            "never there",
        ]);
        assert_eq!(succeed(plain), format!("{kept}\n"), "{stop:?}");
    }
    let stop: String = new[20..24].iter().collect();
    let mut json = program(&shakespeare(), &format!("{GREEDY} --json"));
    json.args(["--prompt", &prompt, "--stop", &stop]);
    let found = succeed_json(json);
    assert_eq!(found["stop"], "string");
    assert!(expected.starts_with(found["text"].as_str().unwrap()));
    assert!(found["generated"].as_u64().unwrap() < 40, "{found}");
    // The prompt may hold it, and what only begins like it is printed in the end.
    let mut command = program(&shakespeare(), GREEDY);
    let last: String = new[new.len() - 3..].iter().collect();
    command.args(["--prompt", &prompt, "--stop", &format!("{last}\u{1}")]);
    command.args(["--stop", &prompt]);
    let found = succeed(command);
    assert_eq!(found, format!("{expected}\n"));
    fail_with(
        &tiny(),
        "generate --model MODEL --tokens 3 --stop=",
        &["empty stop string"],
    );
}

#[test]
fn log_probabilities_are_the_reference_models() {
    let (prompt, _) = reference();
    let golden = Checkpoint::open(shakespeare().join("reference.safetensors")).unwrap();
    let logits = golden.get("0/logits").unwrap();
    let logits: Vec<f32> = bytemuck::pod_collect_to_vec(&logits.bytes);
    let row = &logits[logits.len() - 2048..];
    let log_sum = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln();

    let args = "generate --model MODEL --max-tokens 5 --logprobs 3";
    let with = |more: &str| {
        let mut command = program(&shakespeare(), &format!("{args} {more}"));
        command.args(["--prompt", &prompt]);
        command
    };
    let found = succeed_json(with("--json --temperature 0"));
    let rows = found["logprobs"].as_array().unwrap();
    assert_eq!(rows.len(), 5);
    let tokens = found["tokens"].as_array().unwrap();
    for (row, id) in rows.iter().zip(&tokens[tokens.len() - 5..]) {
        assert_eq!(&row["id"], id);
        assert_eq!(
            row["top"][0]["id"], row["id"],
            "greedy takes the most likely"
        );
        assert_eq!(row["top"][0]["logprob"], row["logprob"]);
        assert_eq!(row["top"].as_array().unwrap().len(), 3);
    }
    for top in rows[0]["top"].as_array().unwrap() {
        let expected = f64::from(row[top["id"].as_u64().unwrap() as usize]) - log_sum;
        let logprob = top["logprob"].as_f64().unwrap();
        assert!(
            (logprob - expected).abs() < 1e-3,
            "{logprob} for {expected}"
        );
    }
    // Neither a penalty nor the temperature changes what the model thinks of the first token.
    let hot = succeed_json(with(
        "--json --temperature 3 --repeat-penalty 1.3 --top-k 7",
    ));
    assert_eq!(hot["logprobs"][0]["top"], rows[0]["top"]);
    let table = succeed(with("--temperature 0"));
    let table: Vec<&str> = table.lines().collect();
    let heading = table
        .iter()
        .position(|line| line.contains("logprob"))
        .unwrap();
    assert_eq!(table.len(), heading + 1 + 5, "{table:?}");
    // Without a tokenizer there are only ids.
    let ids = "generate --model MODEL --tokens 3,4 --max-tokens 2 --logprobs 0 --json";
    let found = succeed_json(program(&tiny(), ids));
    assert_eq!(found["logprobs"][1]["token"], Value::Null);
    assert_eq!(found["logprobs"][1]["top"], Value::Array(Vec::new()));
}

#[test]
fn a_penalty_ends_repetitions_and_min_p_1_is_greedy() {
    let draw = |settings: &str| {
        let args = "generate --model MODEL --tokens 7,8,9 --max-tokens 30 --json";
        let found = succeed_json(program(&tiny(), &format!("{args} {settings}")));
        found["tokens"].as_array().unwrap().clone()
    };
    let repeats = |ids: &[Value]| (0..ids.len()).any(|at| ids[..at].contains(&ids[at]));
    let greedy = draw("--temperature 0");
    assert!(repeats(&greedy), "{greedy:?}");
    assert!(!repeats(&draw("--temperature 0 --repeat-penalty 1e6")));
    assert_eq!(
        draw("--temperature 0 --repeat-penalty 1e6 --repeat-last-n 0"),
        greedy
    );
    assert_eq!(draw("--temperature 2 --min-p 1"), greedy);
}

#[test]
fn a_system_text_goes_into_the_chat_template() {
    let model = chat_model("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}");
    let args = "generate --model MODEL --chat --max-tokens 0 --prompt hi --system brief";
    let found = succeed(program(model.path(), args));
    assert_eq!(found, "[system] brief\n[user] hi\n\n");
}

#[test]
#[cfg(feature = "llvm-backend")]
fn approximate_functions_give_the_same_greedy_text() {
    let (prompt, expected) = reference();
    for math in ["lut", "approx"] {
        let mut command = program(&shakespeare(), &format!("{GREEDY} --math {math}"));
        command.args(["--prompt", &prompt]);
        assert_eq!(succeed(command), format!("{expected}\n"), "{math}");
    }
    // The same text, but not the same numbers: the mode was used.
    let folder = tempfile::tempdir().unwrap();
    let mut logits = ["exact", "lut", "approx"].map(|math| {
        let file = folder.path().join(math);
        let args = format!(
            "logits --model MODEL --tokens 2,17,99 --math {math} --output {}",
            file.display()
        );
        succeed(program(&shakespeare(), &args));
        std::fs::read(file).unwrap()
    });
    logits.sort();
    assert!(logits.windows(2).all(|pair| pair[0] != pair[1]));
    let fail = |args: &str| crate::support::fail(2, &shakespeare(), &format!("{GREEDY} {args}"));
    let message = fail("--prompt A --math fast");
    assert!(message.contains("are exact, lut, approx"), "{message}");
    let args = format!("{GREEDY} --prompt A --math lut --cpu reference");
    let message = crate::support::fail(1, &shakespeare(), &args);
    assert!(message.contains("--cpu native has it"), "{message}");
}

#[test]
fn caches_of_fewer_bits_give_the_same_greedy_text() {
    let (prompt, expected) = reference();
    for cache in ["f16", "bf16", "q8_0"] {
        let mut command = program(&shakespeare(), &format!("{GREEDY} --kv-cache {cache}"));
        command.args(["--prompt", &prompt]);
        assert_eq!(succeed(command), format!("{expected}\n"), "{cache}");
    }
    let args = format!("{GREEDY} --prompt A --kv-cache q4_0");
    let message = crate::support::fail(2, &shakespeare(), &args);
    assert!(
        message.contains("types of caches are f32, f16, bf16, q8_0"),
        "{message}"
    );
}

#[cfg(feature = "llvm-backend")]
#[test]
fn weights_that_were_kept_packed_give_the_same_text() {
    let folder = tempdir().unwrap();
    let packed = folder.path().join("packed");
    let args = format!("{GREEDY} --prompt HAMLET: --quant q8_0");
    let expected = succeed(program(&shakespeare(), &args));
    let args = format!("{args} --pack-dir {}", packed.display());
    let files = || {
        let entries = fs::read_dir(&packed).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                let written = entry.metadata().unwrap().modified().unwrap();
                (entry.file_name(), written)
            })
            .collect();
        files.sort();
        files
    };
    assert_eq!(succeed(program(&shakespeare(), &args)), expected);
    let before = files();
    assert!(before.len() > 10, "{} files", before.len());
    assert_eq!(succeed(program(&shakespeare(), &args)), expected);
    assert_eq!(files(), before, "read, not written again");
}
