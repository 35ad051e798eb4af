//! The tokenizer in a GGUF file's metadata, as parts of one of the `tokenizers` crate.
//!
//! | `tokenizer.ggml.model` | is | becomes |
//! |---|---|---|
//! | `llama` | SentencePiece: pieces with scores, bytes for what has no piece | BPE whose merges are every way to put a piece together from two others, best score first |
//! | `gpt2` | byte-level BPE: pieces and merges, a rule that cuts text into words | the same |
//!
//! A file with `tokenizer.huggingface.json` holds the text of a `tokenizer.json`, and nothing is derived.
//!
//! The vocabulary and the merges, which may be a million strings, go to the crate as they are; only the small parts around
//! them are written as JSON, in the form that the crate reads.
//!
//! SentencePiece joins the neighbours that make the piece of the best score, the leftmost first when there are several;
//! BPE joins the neighbours of the best merge. The two agree when scores differ, as those of trained models do.

use std::collections::HashMap;

use serde_json::{Value as Json, json};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BpeBuilder, Merges, Vocab};

use super::super::tokenizer_parts::Parts;
use super::convert::TOKENIZER_KEY;
use super::words::{self, Words};
use super::{Array, Gguf, Value, keys};
use crate::error::Result;

pub(super) const MODEL_KEY: &str = "tokenizer.ggml.model";
pub(super) const PRE_KEY: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
pub(super) const SCORES_KEY: &str = "tokenizer.ggml.scores";
pub(super) const TYPES_KEY: &str = "tokenizer.ggml.token_type";
pub(super) const MERGES_KEY: &str = "tokenizer.ggml.merges";
pub(super) const UNKNOWN_KEY: &str = "tokenizer.ggml.unknown_token_id";
pub(super) const PREFIX_KEY: &str = "tokenizer.ggml.add_space_prefix";
pub(super) const ADD_BOS_KEY: &str = "tokenizer.ggml.add_bos_token";

/// The longest token that is believed.
const LONGEST_TOKEN: usize = 1024;
/// What stands for a space in a piece.
pub(super) const SPACE: &str = "\u{2581}";

/// Kinds of tokens, as files number them.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// A tokenizer as a file holds it.
pub(in super::super) enum Stored<'a> {
    /// The text of a `tokenizer.json`.
    Text(&'a str),
    /// Its parts.
    Parts(Box<Parts>),
}

/// The file's tokenizer, if it has one.
///
/// # Errors
/// If the tokenizer is of another kind than those in the table, or its lists do not belong together.
pub(in super::super) fn stored(file: &Gguf) -> Result<Option<Stored<'_>>> {
    if let Some(value) = file.value(TOKENIZER_KEY) {
        let text = value.as_str();
        let text = text.ok_or_else(|| file.error(TOKENIZER_KEY, "is not a string"))?;
        return Ok(Some(Stored::Text(text)));
    }
    let Some(model) = file.value(MODEL_KEY) else {
        return Ok(None);
    };
    let vocabulary = || Vocabulary::read(file);
    let parts = match model.as_str() {
        Some("llama") => sentence_piece(file, &vocabulary()?)?,
        Some("gpt2") => byte_level(file, &vocabulary()?)?,
        Some("none" | "no_vocab") => return Ok(None),
        Some(other) => {
            let what = format!("is {other:?}; \"llama\" and \"gpt2\" are supported");
            return Err(file.error(MODEL_KEY, what));
        }
        None => return Err(file.error(MODEL_KEY, "is not a string")),
    };
    Ok(Some(Stored::Parts(Box::new(parts))))
}

/// Whether the begin-of-text token is put before a text. Where no key says it, byte-level tokenizers do not, but for
/// Llama 3's.
pub(in super::super) fn adds_bos(file: &Gguf) -> bool {
    let is_bytes = file.value(MODEL_KEY).and_then(Value::as_str) == Some("gpt2");
    let pre = file.value(PRE_KEY).and_then(Value::as_str);
    let default = !is_bytes || pre.and_then(Words::of_name) == Some(Words::Llama3);
    file.value(ADD_BOS_KEY)
        .and_then(Value::as_bool)
        .unwrap_or(default)
}

/// The begin-of-text token, if the file names one.
pub(in super::super) fn bos(file: &Gguf, vocab_size: usize) -> Result<Option<u32>> {
    keys::token(file, keys::BOS_KEY, vocab_size)
}

/// The tokens by id, and what they are.
pub(super) struct Vocabulary<'a> {
    pub(super) tokens: &'a [String],
    types: &'a [i32],
    ids: HashMap<&'a str, u32>,
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a Gguf) -> Result<Vocabulary<'a>> {
        let tokens = array(file, TOKENS_KEY, Array::as_strings, "strings")?;
        let tokens = tokens.ok_or_else(|| file.error(TOKENS_KEY, "is missing"))?;
        let types = array(file, TYPES_KEY, Array::as_i32s, "i32")?.unwrap_or_default();
        if !types.is_empty() && types.len() != tokens.len() {
            let what = format!("has {} entries for {} tokens", types.len(), tokens.len());
            return Err(file.error(TYPES_KEY, what));
        }
        let mut ids = HashMap::new();
        for (token, id) in tokens.iter().zip(0..) {
            let wrong = |what: &str| Err(file.error(TOKENS_KEY, format!("token {id} {what}")));
            if token.len() > LONGEST_TOKEN {
                return wrong(&format!("has more than {LONGEST_TOKEN} bytes"));
            }
            if ids.insert(token.as_str(), id).is_some() {
                return wrong("is the same as one before it");
            }
        }
        Ok(Vocabulary { tokens, types, ids })
    }

    /// The same from lists that belong together; nothing if a token occurs twice or is too long.
    pub(super) fn new(tokens: &'a [String], types: &'a [i32]) -> Option<Vocabulary<'a>> {
        let ids: HashMap<&str, u32> = tokens.iter().map(String::as_str).zip(0..).collect();
        let short = tokens.iter().all(|token| token.len() <= LONGEST_TOKEN);
        (short && ids.len() == tokens.len()).then_some(Vocabulary { tokens, types, ids })
    }

    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<usize> {
        self.ids.get(token).map(|&id| id as usize)
    }

    /// Whether a text can become this token by being put together.
    fn is_piece(&self, id: usize) -> bool {
        ![UNKNOWN, CONTROL, UNUSED, BYTE].contains(&self.kind(id))
    }

    pub(super) fn kind(&self, id: usize) -> i32 {
        self.types.get(id).copied().unwrap_or(NORMAL)
    }

    /// The tokens that are found in a text before anything else is.
    fn added(&self) -> Vec<AddedToken> {
        let kinds = (0..self.tokens.len()).map(|id| (id, self.kind(id)));
        let added = kinds.filter(|(id, kind)| {
            [CONTROL, USER_DEFINED].contains(kind) && !self.tokens[*id].is_empty()
        });
        let token = |(id, kind): (usize, i32)| {
            let token = AddedToken::from(self.tokens[id].clone(), kind == CONTROL);
            token.normalized(false)
        };
        added.map(token).collect()
    }

    /// A model of this vocabulary and these merges.
    fn model(&self, merges: Merges) -> BpeBuilder {
        let vocab: Vocab = self.tokens.iter().cloned().zip(0..).collect();
        BpeBuilder::new().vocab_and_merges(vocab, merges)
    }
}

/// The metadata's array of a key, if it is there.
fn array<'a, T: ?Sized>(
    file: &'a Gguf,
    key: &str,
    of: impl Fn(&'a Array) -> Option<&'a T>,
    what: &str,
) -> Result<Option<&'a T>> {
    let Some(value) = file.value(key) else {
        return Ok(None);
    };
    let array = value.as_array().and_then(of);
    let wrong = || file.error(key, format!("is not an array of {what}"));
    array.map(Some).ok_or_else(wrong)
}

fn sentence_piece(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    let scores = array(file, SCORES_KEY, Array::as_f32s, "f32")?.unwrap_or_default();
    if scores.len() != vocabulary.tokens.len() {
        let what = format!(
            "has {} entries for {} tokens",
            scores.len(),
            vocabulary.tokens.len()
        );
        return Err(file.error(SCORES_KEY, what));
    }
    let prefix = file
        .value(PREFIX_KEY)
        .and_then(Value::as_bool)
        .unwrap_or(true);
    let replace = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let mut normalizers = vec![replace(" ", SPACE)];
    let mut decoders = vec![
        replace(SPACE, " "),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = file.value(UNKNOWN_KEY).and_then(Value::as_u64);
    let unknown = unknown.and_then(|id| vocabulary.tokens.get(usize::try_from(id).ok()?));
    let merges = merges_by_score(vocabulary, scores);
    let merges = merges
        .into_iter()
        .map(|parts| parts.map(str::to_owned).into());
    let mut model = vocabulary.model(merges.collect());
    model = model.fuse_unk(true).byte_fallback(true);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown.clone());
    }
    let frame = json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {"type": "Sequence", "decoders": decoders},
    });
    Ok(Parts::new(frame, model, vocabulary.added()))
}

/// Every way to put a piece together from two others: the best score first, then the longest left part, then the longest
/// right part.
pub(super) fn merges_by_score<'a>(
    vocabulary: &Vocabulary<'a>,
    scores: &[f32],
) -> Vec<[&'a str; 2]> {
    let is_piece = |part: &str| {
        vocabulary
            .id(part)
            .is_some_and(|id| vocabulary.is_piece(id))
    };
    let mut merges = Vec::new();
    let all = vocabulary.tokens.iter().zip(scores).enumerate();
    for (_, (piece, score)) in all.filter(|(id, _)| vocabulary.is_piece(*id)) {
        let cuts = piece.char_indices().skip(1);
        let parts = cuts.map(|(at, _)| piece.split_at(at));
        let merge = |(left, right)| is_piece(left) && is_piece(right);
        merges.extend(
            parts
                .filter(|&parts| merge(parts))
                .map(|parts| (*score, parts)),
        );
    }
    let lengths = |(left, right): (&str, &str)| (left.chars().count(), right.chars().count());
    merges.sort_by(|(a_score, a), (b_score, b)| {
        let by_score = b_score.total_cmp(a_score);
        by_score.then_with(|| lengths(*b).cmp(&lengths(*a)))
    });
    merges
        .into_iter()
        .map(|(_, (left, right))| [left, right])
        .collect()
}

fn byte_level(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    let merges = array(file, MERGES_KEY, Array::as_strings, "strings")?.unwrap_or_default();
    let words = match file.value(PRE_KEY).map(Value::as_str) {
        None => Words::Gpt2,
        Some(name) => name.and_then(Words::of_name).ok_or_else(|| {
            let name = name.unwrap_or("no string");
            file.error(PRE_KEY, format!("is {name:?}, which is not supported"))
        })?,
    };
    let normalizer = match words {
        Words::Qwen2 => json!({"type": "NFC"}),
        _ => Json::Null,
    };
    let merge = |(number, merge): (usize, &String)| {
        let parts = merge
            .split_once(' ')
            .filter(|(_, right)| !right.contains(' '));
        let wrong = || {
            let what = format!("merge {number} is {merge:?}, not two parts with a space between");
            file.error(MERGES_KEY, what)
        };
        let (left, right) = parts.ok_or_else(wrong)?;
        Ok((left.to_owned(), right.to_owned()))
    };
    let merges = merges.iter().enumerate().map(merge);
    let model = vocabulary.model(merges.collect::<Result<_>>()?);
    let frame = json!({
        "normalizer": normalizer,
        "pre_tokenizer": words.pre_tokenizer(),
        "decoder": words::byte_level(true),
    });
    let model = model.ignore_merges(words.ignores_merges());
    Ok(Parts::new(frame, model, vocabulary.added()))
}
