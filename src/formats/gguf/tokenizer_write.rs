//! The tokenizer of a `tokenizer.json` as the lists that llama.cpp reads, where they say the same.
//!
//! A BPE model with byte fallback becomes a SentencePiece model: of pieces, scores stay, and merges follow from them. So the
//! scores are made from the merges' order, and if the merges that follow from them are not the ones that the text has,
//! nothing is written: a tokenizer that is nearly the same is worse than none. Byte-level BPE is written as it is, if its rule
//! for words is one that has a name.

use serde::Deserialize;
use serde_json::Value as Json;

use super::Writer;
use super::tokenizer::{
    ADD_BOS_KEY, BYTE, CONTROL, MERGES_KEY, MODEL_KEY, NORMAL, PRE_KEY, PREFIX_KEY, SCORES_KEY,
    SPACE, TOKENS_KEY, TYPES_KEY, UNKNOWN, UNKNOWN_KEY, UNUSED, USER_DEFINED, Vocabulary,
    merges_by_score,
};
use super::words::Words;

/// What matters of a `tokenizer.json`.
#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    added_tokens: Vec<Added>,
    normalizer: Option<Json>,
    pre_tokenizer: Option<Json>,
    model: Model,
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    content: String,
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: std::collections::BTreeMap<String, usize>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

impl Merge {
    fn pair(&self) -> Option<(&str, &str)> {
        match self {
            Merge::Pair(left, right) => Some((left, right)),
            Merge::Joined(both) => both.split_once(' '),
        }
    }
}

/// Adds llama.cpp's lists for the tokenizer in `text`, if they say the same. They have an entry for each of the `rows` of
/// the embedding, as llama.cpp asks for; `adds_bos` is whether texts start with the begin-of-text token.
pub(super) fn add_lists(text: &str, rows: usize, adds_bos: bool, writer: &mut Writer) {
    let Ok(text) = serde_json::from_str::<Text>(text) else {
        return;
    };
    let Some(mut lists) = lists(&text).or_else(|| byte_level(&text)) else {
        return;
    };
    for id in lists.tokens.len()..rows {
        lists.tokens.push(format!("[PAD{id}]"));
        lists.types.push(UNUSED);
    }
    writer.set(MODEL_KEY, lists.model).set(PRE_KEY, lists.pre);
    if let Some(id) = lists.unknown {
        writer.set(UNKNOWN_KEY, id);
    }
    match lists.order {
        Order::Scores(mut scores) => {
            // Behind all that merges make.
            let last = scores.iter().copied().fold(0.0, f32::min) - 1.0;
            scores.resize(lists.tokens.len(), last);
            writer.set(SCORES_KEY, scores)
        }
        Order::Merges(merges) => writer.set(MERGES_KEY, merges),
    };
    writer
        .set(ADD_BOS_KEY, adds_bos)
        .set(PREFIX_KEY, false)
        .set(TOKENS_KEY, lists.tokens)
        .set(TYPES_KEY, lists.types);
}

/// What says which tokens are put together first.
enum Order {
    Scores(Vec<f32>),
    Merges(Vec<String>),
}

struct Lists {
    model: &'static str,
    pre: &'static str,
    tokens: Vec<String>,
    order: Order,
    types: Vec<i32>,
    unknown: Option<u32>,
}

fn lists(text: &Text) -> Option<Lists> {
    let model = &text.model;
    let is_bpe =
        model.kind.as_deref() == Some("BPE") && model.byte_fallback && !model.ignore_merges;
    if !is_bpe
        || !replaces_spaces(text.normalizer.as_ref())
        || !keeps_text_whole(text.pre_tokenizer.as_ref())
    {
        return None;
    }
    let (tokens, types) = tokens(text)?;
    let vocabulary = Vocabulary::new(&tokens, &types)?;
    let merges: Vec<(&str, &str)> = model
        .merges
        .iter()
        .map(Merge::pair)
        .collect::<Option<_>>()?;
    let scores = scores(&vocabulary, &merges)?;
    let derived = merges_by_score(&vocabulary, &scores);
    let same = derived
        .iter()
        .map(|[left, right]| (*left, *right))
        .eq(merges);
    let unknown = types
        .iter()
        .position(|&kind| kind == UNKNOWN)
        .map(|id| id as u32);
    same.then_some(Lists {
        model: "llama",
        pre: "default",
        tokens,
        order: Order::Scores(scores),
        types,
        unknown,
    })
}

/// The lists of a byte-level tokenizer.
fn byte_level(text: &Text) -> Option<Lists> {
    let model = &text.model;
    let words = Words::of_pre_tokenizer(text.pre_tokenizer.as_ref()?)?;
    let is_same = model.kind.as_deref() == Some("BPE")
        && !model.byte_fallback
        && model.ignore_merges == words.ignores_merges();
    let normalizes = match text.normalizer.as_ref() {
        None | Some(Json::Null) => false,
        Some(json) if json["type"] == "NFC" => true,
        Some(_) => return None,
    };
    if !is_same || normalizes != (words == Words::Qwen2) {
        return None;
    }
    let (tokens, types) = tokens(text)?;
    let merges = model.merges.iter().map(|merge| {
        let (left, right) = merge.pair()?;
        Some(format!("{left} {right}"))
    });
    Some(Lists {
        model: "gpt2",
        pre: words.name(),
        order: Order::Merges(merges.collect::<Option<_>>()?),
        unknown: None,
        tokens,
        types,
    })
}

/// Tokens by id and their kinds; nothing if ids have gaps.
fn tokens(text: &Text) -> Option<(Vec<String>, Vec<i32>)> {
    let vocab = text.model.vocab.iter().map(|(token, &id)| (id, token));
    let added = text
        .added_tokens
        .iter()
        .map(|token| (token.id, &token.content));
    let mut by_id: std::collections::BTreeMap<usize, &String> = vocab.collect();
    by_id.extend(added);
    let n = by_id.len();
    if by_id.keys().copied().ne(0..n) {
        return None;
    }
    let mut types: Vec<i32> = by_id
        .values()
        .map(|token| if is_byte(token) { BYTE } else { NORMAL })
        .collect();
    for token in &text.added_tokens {
        types[token.id] = if token.special { CONTROL } else { USER_DEFINED };
    }
    if let Some(id) = text
        .model
        .unk_token
        .as_ref()
        .and_then(|token| text.model.vocab.get(token))
    {
        types[*id] = UNKNOWN;
    }
    Some((by_id.into_values().cloned().collect(), types))
}

/// `<0x41>`: a byte that no piece holds.
fn is_byte(token: &str) -> bool {
    let digits = token
        .strip_prefix("<0x")
        .and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

/// Scores that put pieces in the order in which merges first make them: what users defined scores 0, as in SentencePiece's
/// own models, and what no merge makes comes last.
fn scores(vocabulary: &Vocabulary<'_>, merges: &[(&str, &str)]) -> Option<Vec<f32>> {
    let n = vocabulary.tokens.len();
    let mut scores: Vec<Option<f32>> = vec![None; n];
    let mut made = 0;
    for (left, right) in merges {
        let id = vocabulary.id(&format!("{left}{right}"))?;
        if scores[id].is_none() && vocabulary.kind(id) != USER_DEFINED {
            made += 1;
            scores[id] = Some(-(made as f32));
        }
    }
    let rest = |(id, score): (usize, Option<f32>)| match vocabulary.kind(id) {
        NORMAL => score.unwrap_or(-((made + 1 + id) as f32)),
        _ => 0.0,
    };
    Some(scores.into_iter().enumerate().map(rest).collect())
}

/// Whether all that is done to a text is to write its spaces visibly.
fn replaces_spaces(normalizer: Option<&Json>) -> bool {
    let Some(normalizer) = normalizer else {
        return false;
    };
    match normalizer["normalizers"].as_array().map(Vec::as_slice) {
        Some([only]) => replaces_spaces(Some(only)),
        Some(_) => false,
        None => {
            let is_replace = normalizer["type"] == "Replace" && normalizer["content"] == SPACE;
            is_replace && normalizer["pattern"]["String"] == " "
        }
    }
}

/// Whether a text is not cut, or only at spaces, of which there are none any more.
fn keeps_text_whole(pre_tokenizer: Option<&Json>) -> bool {
    let cuts_at = |json: &Json| json["type"] == "Split" && json["pattern"]["String"] == " ";
    pre_tokenizer.is_none_or(cuts_at)
}
