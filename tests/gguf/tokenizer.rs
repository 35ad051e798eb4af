//! Tokenizers in GGUF files: the ids of SentencePiece itself, byte-level BPE, and lists that contradict each other.

use std::fs;

use brain_blitz::formats::Tokenizer;
use brain_blitz::formats::gguf::{Gguf, Value, Writer};
use serde::Deserialize;
use tempfile::tempdir;

use crate::data;

/// A text and what the `sentencepiece` library makes of it.
#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
    decoded: String,
}

/// The tokenizer in a file with this metadata, or the message.
fn tokenizer(entries: &[(&str, Value)]) -> Result<Option<Tokenizer>, String> {
    let folder = tempdir().unwrap();
    let path = folder.path().join("t.gguf");
    let mut writer = Writer::new();
    for (key, value) in entries {
        writer.set(format!("tokenizer.{key}"), value.clone());
    }
    writer.write(&path, &mut |_, _| Ok(())).unwrap();
    let found = Tokenizer::find(&path);
    found.map_err(|e| e.to_string().replace(&path.display().to_string(), "t.gguf"))
}

fn strings(list: &[&str]) -> Value {
    let list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
    list.into()
}

#[test]
fn ids_and_texts_are_those_of_sentence_piece() {
    let tokenizer = Tokenizer::open(data("tokenizer.gguf")).unwrap();
    let cases = fs::read(data("tokenizer.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    assert!(cases.len() > 10);
    for case in &cases {
        let ids = tokenizer.encode(&case.text, false).unwrap();
        assert_eq!(ids, case.ids, "{:?}", case.text);
        assert_eq!(
            tokenizer.decode(&ids).unwrap(),
            case.decoded,
            "{:?}",
            case.text
        );
    }
    assert_eq!(tokenizer.bos(), Some(2));
    assert!(tokenizer.adds_bos());
    assert!(tokenizer.is_special(1) && tokenizer.is_special(2));
    assert!(
        !tokenizer.is_special(4),
        "a symbol that users defined has a text"
    );
    // What SentencePiece leaves to its callers: control tokens in a text.
    assert_eq!(tokenizer.encode("<bos>", false).unwrap(), [2]);
}

#[test]
fn a_space_prefix_comes_and_goes() {
    let file = Gguf::open(data("tokenizer.gguf")).unwrap();
    let entry = |key: &'static str| {
        (
            key,
            file.value(&format!("tokenizer.{key}")).unwrap().clone(),
        )
    };
    let mut entries: Vec<(&str, Value)> = [
        "ggml.model",
        "ggml.tokens",
        "ggml.scores",
        "ggml.token_type",
    ]
    .into_iter()
    .map(entry)
    .collect();
    let with = tokenizer(&entries).unwrap().unwrap();
    entries.push(("ggml.add_space_prefix", false.into()));
    entries.push(("ggml.add_bos_token", false.into()));
    let without = tokenizer(&entries).unwrap().unwrap();
    let ids = with.encode("king", false).unwrap();
    assert_eq!(ids, without.encode(" king", false).unwrap());
    assert_ne!(ids, without.encode("king", false).unwrap());
    assert_eq!(with.decode(&ids).unwrap(), "king");
    assert_eq!(without.decode(&ids).unwrap(), " king");
    assert!(with.adds_bos() && !without.adds_bos());
}

#[test]
fn byte_level_bpe_joins_by_its_merges() {
    let tokens = ["a", "b", "Ġ", "ab", "Ġab", "<|end|>", "1", "Ã", "©"];
    let base = |pre: &str| {
        vec![
            ("ggml.model", Value::from("gpt2")),
            ("ggml.pre", pre.into()),
            ("ggml.tokens", strings(&tokens)),
            ("ggml.token_type", vec![1, 1, 1, 1, 1, 3, 1, 1, 1i32].into()),
            ("ggml.merges", strings(&["a b", "Ġ ab"])),
        ]
    };
    for pre in ["gpt-2", "llama-bpe", "qwen2"] {
        let tokenizer = tokenizer(&base(pre)).unwrap().unwrap();
        let ids = tokenizer.encode("ab abb<|end|>11é", false).unwrap();
        assert_eq!(ids, [3, 4, 1, 5, 6, 6, 7, 8], "{pre}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), "ab abb11é", "{pre}");
    }
    let message = tokenizer(&base("klingon")).unwrap_err();
    assert_eq!(
        message,
        "t.gguf: metadata \"tokenizer.ggml.pre\": is \"klingon\", which is not supported"
    );
}

#[track_caller]
fn assert_wrong(entries: &[(&str, Value)], key: &str, what: &str) {
    let message = tokenizer(entries).unwrap_err();
    let expected = format!("t.gguf: metadata \"tokenizer.{key}\": {what}");
    assert_eq!(message, expected);
}

#[test]
fn lists_that_contradict_each_other_are_errors() {
    let model = ("ggml.model", Value::from("llama"));
    let tokens = ("ggml.tokens", strings(&["a", "b"]));
    let cases = [
        (
            vec![("ggml.model", "bert".into())],
            "ggml.model",
            "is \"bert\"; \"llama\" and \"gpt2\" are supported",
        ),
        (vec![model.clone()], "ggml.tokens", "is missing"),
        (
            vec![model.clone(), ("ggml.tokens", 3u8.into())],
            "ggml.tokens",
            "is not an array of strings",
        ),
        (
            vec![model.clone(), tokens.clone()],
            "ggml.scores",
            "has 0 entries for 2 tokens",
        ),
        (
            vec![model.clone(), ("ggml.tokens", strings(&["a", "a"]))],
            "ggml.tokens",
            "token 1 is the same as one before it",
        ),
        (
            vec![
                model.clone(),
                ("ggml.tokens", strings(&[&"x".repeat(1025)])),
            ],
            "ggml.tokens",
            "token 0 has more than 1024 bytes",
        ),
    ];
    for (entries, key, what) in cases {
        assert_wrong(&entries, key, what);
    }
}

#[test]
fn other_wrong_entries_are_errors() {
    let model = ("ggml.model", Value::from("llama"));
    let tokens = ("ggml.tokens", strings(&["a", "b"]));
    let scores = ("ggml.scores", Value::from(vec![0.0f32, 1.0]));
    let cases = [
        (
            vec![
                model.clone(),
                tokens.clone(),
                scores.clone(),
                ("ggml.token_type", vec![1i32].into()),
            ],
            "ggml.token_type",
            "has 1 entries for 2 tokens",
        ),
        (
            vec![model, tokens, scores, ("ggml.bos_token_id", 2u32.into())],
            "ggml.bos_token_id",
            "is not a token id below 2",
        ),
        (
            vec![("huggingface.json", 1u8.into())],
            "huggingface.json",
            "is not a string",
        ),
    ];
    for (entries, key, what) in cases {
        assert_wrong(&entries, key, what);
    }
    assert!(tokenizer(&[]).unwrap().is_none());
    assert!(
        tokenizer(&[("ggml.model", "no_vocab".into())])
            .unwrap()
            .is_none()
    );
    let damaged = tokenizer(&[("huggingface.json", "{\"version\": 1".into())]);
    assert!(damaged.unwrap_err().starts_with("t.gguf: "));
}
