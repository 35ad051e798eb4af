//! `chat`, with lines that come from a pipe.

use std::fs;

use brain_blitz::formats::Tokenizer;
use serde_json::{Value, json};

use crate::support::{
    Copy, chat_model, fail_with, program, shakespeare, succeed, succeed_json, talk,
};

/// Turns as a play has them.
const PLAY: &str = "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n\
    {% elif m.role == 'user' %}HAMLET:\n{{ m.content }}\n\n{% else %}HORATIO:\n{{ m.content }}\n\n{% endif %}\
    {% endfor %}{% if add_generation_prompt %}HORATIO:\n{% endif %}";
const CHAT: &str = "chat --model MODEL --temperature 0 --max-tokens 24 --stop HAMLET:";

/// The number before a word of what `/stats` printed.
fn number(text: &str, before: &str) -> usize {
    let at = text
        .find(before)
        .unwrap_or_else(|| panic!("no {before:?} in {text}"));
    let word = text[..at].split_whitespace().last().unwrap();
    word.parse().unwrap()
}

fn ids(model: &Copy, text: &str) -> Vec<u32> {
    Tokenizer::open(model.path())
        .unwrap()
        .encode(text, true)
        .unwrap()
}

/// The greedy answer to a prompt, and its ids.
fn generated(model: &Copy, prompt: &str) -> (String, Vec<u32>) {
    let args = "generate --model MODEL --temperature 0 --max-tokens 24 --stop HAMLET: --json";
    let mut command = program(model.path(), args);
    command.args(["--prompt", prompt]);
    let found = succeed_json(command);
    let text = found["text"].as_str().unwrap()[prompt.len()..].to_owned();
    let all: Vec<u32> = serde_json::from_value(found["tokens"].clone()).unwrap();
    (text, all)
}

#[test]
fn turns_see_what_was_said_and_feed_only_what_is_new() {
    let model = chat_model(PLAY);
    let said = "My lord is dead.\nWho art thou?\n/stats\n";
    let (found, notes) = talk(program(model.path(), &format!("{CHAT} --quiet")), said);
    assert_eq!(notes, "");

    let first = "HAMLET:\nMy lord is dead.\n\nHORATIO:\n".to_owned();
    let (answer, held) = generated(&model, &first);
    let second = format!(
        "{first}{}\n\nHAMLET:\nWho art thou?\n\nHORATIO:\n",
        answer.trim()
    );
    let (other, all) = generated(&model, &second);
    let start = format!("{answer}\n{other}\n");
    assert!(found.starts_with(&start), "{found:?} for {start:?}");

    // The last token was chosen, but not fed.
    let (wanted, held) = (ids(&model, &second), &held[..held.len() - 1]);
    let common = wanted.iter().zip(held).take_while(|(a, b)| a == b).count();
    let n_first = ids(&model, &first).len();
    assert!(common > n_first, "{common} of {n_first}");
    let stats = &found[start.len()..];
    assert_eq!(number(stats, " more were known"), common, "{stats}");
    assert_eq!(
        number(stats, " tokens, "),
        n_first + wanted.len() - common,
        "{stats}"
    );
    assert_eq!(number(stats, " of 1024 tokens"), all.len() - 1, "{stats}");
    assert_eq!(number(stats, "\ncontext"), 2, "{stats}");
}

#[test]
fn a_full_context_drops_the_oldest_turns_and_says_so() {
    let model = chat_model(PLAY);
    let said = "One.\nTwo.\nThree.\nFour.\nFive.\nSix.\n/stats\n";
    let (found, notes) = talk(program(model.path(), &format!("{CHAT} --context 80")), said);
    assert!(
        notes.contains("note: the context of 80 tokens is full: dropped the oldest turn"),
        "{notes}"
    );
    assert_eq!(number(&found, "\ncontext"), 6, "{found}");
    assert!(number(&found, " of 80 tokens") <= 80, "{found}");
    // With room there is nothing to drop.
    let (_, notes) = talk(program(model.path(), CHAT), said);
    assert!(!notes.contains("dropped"), "{notes}");
}

#[test]
fn what_cannot_be_answered_ends_nothing() {
    let model = chat_model(PLAY);
    let long = "word ".repeat(100);
    let said = format!(
        "{long}\n/undo\n/retry\n/save\n/what\n/load nowhere.json\n/save nowhere/x\nHi.\n/stats\n"
    );
    let (found, notes) = talk(
        program(model.path(), &format!("{CHAT} --context 80")),
        &said,
    );
    let errors: Vec<&str> = notes
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 7, "{notes}");
    assert!(errors[0].contains("there is room for"), "{notes}");
    assert_eq!(number(&found, "\ncontext"), 1, "{found}");
}

#[test]
fn conversations_are_saved_loaded_and_taken_back() {
    let model = chat_model(PLAY);
    let file = model.file("said.json");
    let said = format!(
        "/system A play.\nOne.\nTwo.\\\nand more.\n/undo\n//bin\n/save {}\n/system\n/quit\nnever\n",
        file.display()
    );
    let (found, notes) = talk(program(model.path(), CHAT), &said);
    assert!(found.ends_with("A play.\n"), "{found}");
    assert!(notes.contains("took back: Two.\nand more."), "{notes}");
    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let saved = saved["messages"].as_array().unwrap();
    let roles: Vec<_> = saved.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(saved[0]["content"], "A play.");
    assert_eq!(saved[1]["content"], "One.");
    assert_eq!(saved[3]["content"], "/bin");

    // It goes on where it was: the answer is that to the whole conversation.
    let args = format!("{CHAT} --quiet --load {}", file.display());
    let (again, _) = talk(program(model.path(), &args), "/retry\n/reset\nOne.\n");
    let answer = saved[4]["content"].as_str().unwrap();
    assert!(
        again.trim_start().starts_with(answer),
        "{again:?} for {answer:?}"
    );
    let first = saved[2]["content"].as_str().unwrap();
    assert!(again.trim_end().ends_with(first), "{again:?} for {first:?}");

    fs::write(&file, json!({"messages": [saved[2]]}).to_string()).unwrap();
    fail_with(
        model.path(),
        &args,
        &["said.json", "`assistant`", "`user` is due"],
    );
    fs::write(&file, "[]").unwrap();
    fail_with(model.path(), &args, &["said.json", "hint: "]);
}

#[test]
fn a_model_without_a_chat_template_is_one_clear_message() {
    let what = ["holds no chat template", "hint: ", "chat_template.jinja"];
    fail_with(&shakespeare(), "chat --model MODEL", &what);
}

#[test]
fn a_template_without_a_system_says_where_its_text_goes() {
    let model = chat_model(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}{{ m.content }}\n{% endfor %}",
    );
    let (_, notes) = talk(program(model.path(), &format!("{CHAT} --system x")), "a\n");
    assert!(notes.contains("before the first message"), "{notes}");
    let with = succeed(program(
        model.path(),
        "generate --model MODEL --chat --system x --prompt a --max-tokens 0",
    ));
    assert_eq!(with, "x\n\na\n\n");
}

#[test]
fn an_answer_that_cannot_be_replaced_stays() {
    let model = chat_model(PLAY);
    let file = model.file("said.json");
    let said = format!(
        "One.\n/system {}\n/retry\n/save {}\n",
        "word ".repeat(100),
        file.display()
    );
    let command = program(model.path(), &format!("{CHAT} --context 80"));
    let (_, notes) = talk(command, &said);
    assert!(notes.contains("there is room for"), "{notes}");
    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(saved["messages"].as_array().unwrap().len(), 3);
}

#[test]
fn a_context_above_the_models_limit_is_an_error() {
    let model = chat_model(PLAY);
    let wanted = ["a context of 2000", "limit of 1024"];
    fail_with(model.path(), "chat --model MODEL --context 2000", &wanted);
}
