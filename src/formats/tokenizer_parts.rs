//! The parts of a tokenizer of the `tokenizers` crate, put together without a detour.
//!
//! The crate reads a `tokenizer.json` into a copy of its whole model before it knows what kind of model that is: for the quarter
//! of a million pieces of a Gemma, half a gigabyte and a second. Here the vocabulary and the merges of a BPE model go from the
//! text to the crate's maps; everything else, which is small, the crate reads itself.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, SeqAccess, Visitor};
use serde_json::{Value as Json, json};
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::{AddedToken, PaddingParams, TruncationParams};

/// A tokenizer that is still to be put together.
pub(super) struct Parts {
    /// A `tokenizer.json` with all small parts, an empty model and no added tokens.
    frame: Json,
    model: BpeBuilder,
    added: Vec<AddedToken>,
}

impl Parts {
    /// Of small parts (`normalizer`, `pre_tokenizer`, `post_processor`, `decoder`, in the form of a `tokenizer.json`), a model and the
    /// tokens that are found in a text before anything else is.
    pub(super) fn new(mut frame: Json, model: BpeBuilder, added: Vec<AddedToken>) -> Parts {
        frame["version"] = json!("1.0");
        frame["model"] = json!({"type": "BPE", "vocab": {}, "merges": []});
        Parts {
            frame,
            model,
            added,
        }
    }

    /// The parts of a `tokenizer.json` with a BPE model. Nothing where there is another model or something that is not known
    /// here: the crate may read that, or say what is wrong.
    pub(super) fn of_json(text: &[u8]) -> Option<Parts> {
        let whole: Whole = serde_json::from_slice(text).ok()?;
        if whole.version.is_some_and(|version| version != "1.0") {
            return None;
        }
        let frame = json!({
            "normalizer": whole.normalizer,
            "pre_tokenizer": whole.pre_tokenizer,
            "post_processor": whole.post_processor,
            "decoder": whole.decoder,
        });
        let added = whole.added_tokens.into_iter().map(|added| added.token);
        Some(Parts::new(frame, whole.model.builder()?, added.collect()))
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// What the crate says.
    pub(super) fn build(self) -> tokenizers::Result<tokenizers::Tokenizer> {
        let mut tokenizer: tokenizers::Tokenizer = serde_json::from_value(self.frame)?;
        let model: BPE = self.model.build()?;
        tokenizer.with_model(model);
        tokenizer.add_tokens(&self.added);
        Ok(tokenizer)
    }
}

/// A `tokenizer.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    version: Option<String>,
    #[serde(default, rename = "truncation")]
    _truncation: Option<TruncationParams>,
    #[serde(default, rename = "padding")]
    _padding: Option<PaddingParams>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Json,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    post_processor: Json,
    #[serde(default)]
    decoder: Json,
    model: Model,
}

/// A token with the number that it is to have, which follows from the vocabulary.
#[derive(Deserialize)]
struct Added {
    #[serde(rename = "id")]
    _id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: String,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: Vocab,
    merges: Merged,
}

impl Model {
    fn builder(self) -> Option<BpeBuilder> {
        if self.kind != "BPE" {
            return None;
        }
        let mut model = BpeBuilder::new().vocab_and_merges(self.vocab, self.merges.0);
        if let Some(dropout) = self.dropout {
            model = model.dropout(dropout);
        }
        if let Some(unknown) = self.unk_token {
            model = model.unk_token(unknown);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            model = model.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            model = model.end_of_word_suffix(suffix);
        }
        let set = |flag: Option<bool>| flag.unwrap_or(false);
        Some(
            model
                .fuse_unk(set(self.fuse_unk))
                .byte_fallback(set(self.byte_fallback))
                .ignore_merges(set(self.ignore_merges)),
        )
    }
}

/// Neighbours that become one: all `["a", "b"]`, or, in older files, all `"a b"`.
struct Merged(Merges);

impl<'de> Deserialize<'de> for Merged {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Merged, D::Error> {
        deserializer.deserialize_seq(MergedVisitor)
    }
}

struct MergedVisitor;

impl<'de> Visitor<'de> for MergedVisitor {
    type Value = Merged;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pairs of pieces")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Merged, A::Error> {
        let (mut merges, mut in_lists) = (Vec::new(), None);
        while let Some(Merge { pair, is_list }) = all.next_element()? {
            if *in_lists.get_or_insert(is_list) != is_list {
                return Err(de::Error::custom("lists among texts"));
            }
            merges.push(pair);
        }
        Ok(Merged(merges))
    }
}

/// One of them.
struct Merge {
    pair: (String, String),
    is_list: bool,
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Merge, D::Error> {
        deserializer.deserialize_any(MergeVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("two pieces")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge, E> {
        // A line `#version: ...` is no merge; the crate passes over it.
        let parts = text
            .split_once(' ')
            .filter(|(left, right)| !left.starts_with("#version") && !right.contains(' '));
        let (left, right) = parts.ok_or_else(|| E::custom("not two pieces"))?;
        Ok(Merge {
            pair: (left.to_owned(), right.to_owned()),
            is_list: false,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Merge, A::Error> {
        let missing = || de::Error::custom("not two pieces");
        let left = parts.next_element()?.ok_or_else(missing)?;
        let right = parts.next_element()?.ok_or_else(missing)?;
        match parts.next_element::<de::IgnoredAny>()? {
            None => Ok(Merge {
                pair: (left, right),
                is_list: true,
            }),
            Some(_) => Err(missing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tokenizer whose model has these fields beside a vocabulary.
    fn text(model: Json, merges: Json) -> String {
        let token = |id: usize, content: &str, special: bool| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            })
        };
        let mut file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [token(0, "<s>", true), token(7, "<new>", false)],
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": null,
            "decoder": {"type": "ByteFallback"},
            "model": {
                "type": "BPE",
                "vocab": {"<s>": 0, "<unk>": 1, "a": 2, "b": 3, "ab": 4, "aba": 5, "c": 6},
                "merges": merges,
            },
        });
        for (key, value) in model.as_object().unwrap() {
            file["model"][key] = value.clone();
        }
        file.to_string()
    }

    #[test]
    fn it_is_what_the_crate_reads() {
        let pairs = json!([["a", "b"], ["ab", "a"]]);
        let fields = json!({
            "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null, "end_of_word_suffix": "</w>",
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": true,
        });
        let shipped = include_str!("../../models/gemma2-shakespeare/tokenizer.json");
        for text in [
            text(json!({}), pairs.clone()),
            text(json!({}), json!(["a b", "ab a"])),
            text(fields, pairs),
            shipped.to_owned(),
        ] {
            let ours = Parts::of_json(text.as_bytes()).unwrap().build().unwrap();
            let theirs = tokenizers::Tokenizer::from_bytes(&text).unwrap();
            let said = "ABA ab aba<new>c <s>, to be or not to be \u{1F600}";
            let ids = |t: &tokenizers::Tokenizer| t.encode(said, false).unwrap().get_ids().to_vec();
            assert_eq!(ids(&ours), ids(&theirs));
            assert_eq!(
                ours.to_string(false).unwrap(),
                theirs.to_string(false).unwrap()
            );
        }
    }

    #[test]
    fn what_is_not_known_is_left_to_the_crate() {
        let none = json!([]);
        for wrong in [
            text(json!({"type": "WordPiece"}), none.clone()),
            text(json!({"vocab": [1]}), none.clone()),
            text(json!({}), json!([["a"]])),
            text(json!({}), json!([["a", "b"], "ab a"])),
            text(json!({}), json!(["a b c"])),
            text(json!({}), json!(["#version: 0.2", "a b"])),
            text(json!({}), none.clone()).replace("1.0", "2.0"),
            text(json!({}), none.clone()).replace("\"padding\":null", "\"padding\":5"),
            text(json!({}), none.clone()).replace("\"padding\":null", "\"else\":5"),
            text(json!({}), none).replace("\"id\":7,", ""),
        ] {
            assert!(Parts::of_json(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
