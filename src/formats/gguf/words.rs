//! The rules by which byte-level tokenizers cut text into words, and what files call them.

use serde_json::{Value as Json, json};

/// Words as Llama 3 has them.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words as Qwen 2 has them: every digit is one.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Words {
    /// GPT-2's, which byte-level pre-tokenizers have built in.
    Gpt2,
    /// The same after every digit is cut off.
    Smollm,
    /// Llama 3's.
    Llama3,
    /// Qwen 2's and Qwen 3's.
    Qwen2,
}

/// The rules and their names as `tokenizer.ggml.pre`, the one that is written first.
const NAMES: [(Words, &[&str]); 4] = [
    (Words::Gpt2, &["gpt-2", "default"]),
    (Words::Smollm, &["smollm"]),
    (Words::Llama3, &["llama-bpe", "llama3", "llama-v3"]),
    (Words::Qwen2, &["qwen2", "deepseek-r1-qwen"]),
];

/// A step of a pre-tokenizer, without what makes no difference.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Digits,
    Split(String),
    /// Whether GPT-2's rule is applied.
    Bytes(bool),
}

impl Words {
    /// The rule that files call by this name.
    pub(super) fn of_name(name: &str) -> Option<Words> {
        let row = NAMES.iter().find(|row| row.1.contains(&name))?;
        Some(row.0)
    }

    /// What files call it.
    pub(super) fn name(self) -> &'static str {
        let row = NAMES.iter().find(|row| row.0 == self);
        row.expect("every rule has a name").1[0]
    }

    /// Whether a word that is a token is taken whole, though merges might not make it.
    pub(super) fn ignores_merges(self) -> bool {
        self == Words::Llama3
    }

    fn steps(self) -> Vec<Step> {
        match self {
            Words::Gpt2 => vec![Step::Bytes(true)],
            Words::Smollm => vec![Step::Digits, Step::Bytes(true)],
            Words::Llama3 => vec![Step::Split(LLAMA3.into()), Step::Bytes(false)],
            Words::Qwen2 => vec![Step::Split(QWEN2.into()), Step::Bytes(false)],
        }
    }

    /// The rule as the `pre_tokenizer` of a `tokenizer.json`.
    pub(super) fn pre_tokenizer(self) -> Json {
        let steps = self.steps().into_iter().map(|step| match step {
            Step::Digits => json!({"type": "Digits", "individual_digits": true}),
            Step::Bytes(use_regex) => byte_level(use_regex),
            Step::Split(words) => json!({
                "type": "Split",
                "pattern": {"Regex": words},
                "behavior": "Isolated",
                "invert": false,
            }),
        });
        json!({"type": "Sequence", "pretokenizers": steps.collect::<Vec<_>>()})
    }

    /// The rule that a `pre_tokenizer` is, if it is one of these.
    pub(super) fn of_pre_tokenizer(json: &Json) -> Option<Words> {
        let mut steps = Vec::new();
        read(json, &mut steps)?;
        let row = NAMES.iter().find(|row| row.0.steps() == steps)?;
        Some(row.0)
    }
}

/// Adds the steps of a pre-tokenizer; nothing if one is unknown.
fn read(json: &Json, steps: &mut Vec<Step>) -> Option<()> {
    let step = match json["type"].as_str()? {
        "Sequence" => {
            let mut parts = json["pretokenizers"].as_array()?.iter();
            return parts.try_for_each(|part| read(part, steps));
        }
        "Digits" if json["individual_digits"] == true => Step::Digits,
        "ByteLevel" if json["add_prefix_space"] == false => {
            Step::Bytes(json["use_regex"].as_bool().unwrap_or(true))
        }
        "Split" if json["behavior"] == "Isolated" && json["invert"] == false => {
            Step::Split(json["pattern"]["Regex"].as_str()?.to_owned())
        }
        _ => return None,
    };
    steps.push(step);
    Some(())
}

/// The step that writes bytes as visible characters.
pub(super) fn byte_level(use_regex: bool) -> Json {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": true,
        "use_regex": use_regex,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_recognized_by_what_they_are_written_as() {
        for (words, names) in NAMES {
            assert_eq!(Words::of_pre_tokenizer(&words.pre_tokenizer()), Some(words));
            assert!(names.iter().all(|name| Words::of_name(name) == Some(words)));
            assert_eq!(Words::of_name(words.name()), Some(words));
        }
        let plain = json!({"type": "ByteLevel", "add_prefix_space": false});
        assert_eq!(Words::of_pre_tokenizer(&plain), Some(Words::Gpt2));
    }

    #[test]
    fn other_rules_are_not() {
        let spaced = json!({"type": "ByteLevel", "add_prefix_space": true});
        let grouped = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": false},
            byte_level(true),
        ]});
        let punctuation = json!({"type": "Punctuation"});
        for json in [spaced, grouped, punctuation, Json::Null] {
            assert_eq!(Words::of_pre_tokenizer(&json), None, "{json}");
        }
    }
}
