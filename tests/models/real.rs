//! Real models, which `make models` fetches: texts become the ids that llama.cpp has for them, and conversations the texts
//! that the template's own language makes of them. Long tests (`BB_LONG=1`).

use std::io::Write;
use std::path::PathBuf;

use brain_blitz::formats::{ModelFiles, Tokenizer};
use brain_blitz::generation::chat::{ChatTemplate, Message};
use serde::Deserialize;

use crate::support::folder;

/// The best token and its logit, and the second best.
pub type Step = (u32, f32, u32, f32);

#[derive(Deserialize)]
pub struct Reference {
    pub file: String,
    tokenize: Vec<Tokenized>,
    pub cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Tokenized {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
pub struct Case {
    /// What a user said, if the prompt is that in the form of the chat template.
    user: Option<String>,
    pub prompt: String,
    pub ids: Vec<u32>,
    /// What llama.cpp chose.
    pub llama_cpp: Vec<Step>,
    /// What transformers computed after the same tokens.
    pub transformers: Vec<Step>,
}

/// Tells it, even where a test's output is only shown when it fails.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The reference and the model's file, if long tests run and it was fetched.
pub fn model(name: &str) -> Option<(Reference, PathBuf)> {
    let path = folder("real").join(format!("{name}.json"));
    let reference: Reference = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    if !brain_blitz::knobs::long_tests() {
        return None;
    }
    let path = brain_blitz::knobs::models_cache_dir().map(|dir| dir.join(&reference.file));
    match path.filter(|path| path.exists()) {
        Some(path) => Some((reference, path)),
        None => {
            let file = &reference.file;
            tell(&format!(
                "tests/models: no {file}, not tested; `make models` fetches it"
            ));
            None
        }
    }
}

fn check_texts(name: &str) {
    let Some((reference, path)) = model(name) else {
        return;
    };
    let tokenizer = Tokenizer::open(&path).unwrap();
    assert_eq!(reference.tokenize.len(), 30);
    for Tokenized { text, ids } in &reference.tokenize {
        let found = tokenizer.encode(text, tokenizer.adds_bos()).unwrap();
        assert_eq!(&found, ids, "{name}: {text:?}");
    }
    let template =
        ChatTemplate::of_model(&ModelFiles::open(&path).unwrap(), &tokenizer, None).unwrap();
    for case in &reference.cases {
        let ids = tokenizer
            .encode(&case.prompt, tokenizer.adds_bos())
            .unwrap();
        assert_eq!((case.llama_cpp.len(), case.transformers.len()), (40, 40));
        assert_eq!(ids, case.ids, "{name}: {:?}", case.prompt);
        if let Some(user) = &case.user {
            let template = template.as_ref().expect("the model has a chat template");
            let said = [Message::new("user", user)];
            assert_eq!(template.render(&said, true).unwrap(), case.prompt);
        }
    }
}

#[test]
fn smollm2_reads_texts_as_llama_cpp_does() {
    check_texts("smollm2");
}

#[test]
fn gemma3_reads_texts_as_llama_cpp_does() {
    check_texts("gemma3");
}
