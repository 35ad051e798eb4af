//! Chat templates: what transformers renders, and what cannot be rendered.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use brain_blitz::formats::ModelFiles;
use brain_blitz::formats::gguf::Writer;
use brain_blitz::generation::chat::{ChatTemplate, Message};
use serde::Deserialize;
use tempfile::tempdir;

use crate::data;

#[derive(Deserialize)]
struct Golden {
    templates: BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    messages: Vec<Message>,
    prompt: bool,
    text: Option<String>,
    error: Option<String>,
}

fn template(path: &Path) -> brain_blitz::error::Result<Option<String>> {
    ModelFiles::open(path)?.chat_template()
}

fn failure(text: &str, messages: &[Message]) -> String {
    let template = ChatTemplate::new(text, "<bos>", "<eos>");
    let rendered = template.and_then(|template| template.render(messages, true));
    rendered.unwrap_err().to_string()
}

#[test]
fn conversations_are_rendered_as_transformers_does() {
    let golden: Golden = serde_json::from_slice(&fs::read(data("chat.json")).unwrap()).unwrap();
    assert!(golden.cases.len() > 20);
    for case in &golden.cases {
        let template = ChatTemplate::new(&golden.templates[&case.name], "<bos>", "<eos>").unwrap();
        let found = template.render(&case.messages, case.prompt);
        let place = format!("{} {:?}", case.name, case.messages);
        match (&case.text, &case.error) {
            (Some(text), _) => assert_eq!(&found.unwrap(), text, "{place}"),
            (None, Some(error)) => {
                let message = found.unwrap_err().to_string();
                assert!(message.starts_with("chat template, line 1: "), "{message}");
                // Other errors have other words in Python.
                if error.contains("no system role") {
                    assert!(message.ends_with(error), "{message}");
                }
            }
            (None, None) => panic!("{place}: neither a text nor an error"),
        }
    }
}

#[test]
fn what_cannot_be_rendered_is_an_error() {
    assert!(failure("{% if %}", &[]).starts_with("chat template, line 1: "));
    assert!(failure("{{ messages.nosuch() }}", &[]).contains("nosuch"));
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    assert!(failure(endless, &[]).contains("fuel"));
    let json = "{{ {'b': [1, 'é<'], 'a': none} | tojson }}|{{ [1] | tojson(indent=2) }}";
    let template = ChatTemplate::new(json, "", "").unwrap();
    let text = template.render(&[], false).unwrap();
    assert!(text.ends_with("|[\n  1\n]"), "{text}");
    assert!(text.contains("\"b\": [1, \"é<\"]"), "{text}");
}

#[test]
fn a_template_is_found_where_files_have_it() {
    let folder = tempdir().unwrap();
    let find = || template(folder.path()).map_err(|e| e.to_string());
    let config = folder.path().join("tokenizer_config.json");
    assert_eq!(find(), Ok(None));
    fs::write(&config, r#"{"bos_token": "<bos>"}"#).unwrap();
    assert_eq!(find(), Ok(None));
    fs::write(&config, r#"{"chat_template": "one"}"#).unwrap();
    assert_eq!(find(), Ok(Some("one".into())));
    let several = r#"{"chat_template": [{"name": "x", "template": "a"}, {"name": "default", "template": "b"}]}"#;
    fs::write(&config, several).unwrap();
    assert_eq!(find(), Ok(Some("b".into())));
    fs::write(
        &config,
        r#"{"chat_template": [{"name": "x", "template": "a"}]}"#,
    )
    .unwrap();
    assert!(
        find()
            .unwrap_err()
            .contains("no template called \"default\"")
    );
    fs::write(&config, r#"{"chat_template": 3}"#).unwrap();
    assert!(
        find()
            .unwrap_err()
            .contains("tokenizer_config.json: chat_template at byte 1: is neither")
    );
    fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(find(), Ok(Some("file".into())));

    let path = folder.path().join("x.gguf");
    let write = |writer: &Writer| writer.write(&path, &mut |_, _| Ok(())).unwrap();
    write(&Writer::new());
    assert_eq!(template(&path).unwrap(), None);
    write(Writer::new().set("tokenizer.chat_template", "in a file"));
    assert_eq!(template(&path).unwrap(), Some("in a file".into()));
    write(Writer::new().set("tokenizer.chat_template", 3u8));
    assert!(
        template(&path)
            .unwrap_err()
            .to_string()
            .contains("is not a string")
    );
}
