//! Text to token ids and back: a thin layer over the `tokenizers` crate.
//!
//! What it adds: errors that name the file, an explicit choice of whether a text starts with the begin-of-text token
//! (the crate's post-processing templates are not used), ids without a token as errors (the crate drops them
//! silently), and a stream that decodes token by token.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::bytes::Bytes;
use super::gguf::tokenizer::Stored;
use super::gguf::{self, Gguf, is_gguf};
use super::model_files::ModelFiles;
use super::tokenizer_parts::Parts;
use super::{format_error, json};
use crate::error::{Error, Result};

/// The longest tokenizer that is read.
const LONGEST_TOKENIZER: u64 = 1 << 30;
/// The file in a checkpoint's folder.
const FILE: &str = "tokenizer.json";
/// What a decoder puts in the place of bytes that are not valid UTF-8.
const REPLACEMENT: char = '\u{FFFD}';

/// A tokenizer with its vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    file: PathBuf,
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    adds_bos: bool,
    vocab_size: usize,
}

impl Tokenizer {
    /// Opens `tokenizer.json` in a checkpoint's folder, or the tokenizer in a GGUF file.
    ///
    /// # Errors
    /// If it is not there, cannot be read, or is not a tokenizer.
    pub fn open(path: impl AsRef<Path>) -> Result<Tokenizer> {
        Tokenizer::of_model(&ModelFiles::open(path)?)
    }

    /// As [`Tokenizer::open`], from files that are open.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn of_model(files: &ModelFiles) -> Result<Tokenizer> {
        if let Some(tokenizer) = files.tokenizer()? {
            return Ok(tokenizer);
        }
        let path = files.path();
        if is_gguf(path) {
            return Err(format_error(path, "tokenizer", None, "the file has none"));
        }
        let what = format!(
            "does not exist; copy the {FILE} that the checkpoint was published with into this folder"
        );
        Err(format_error(&path.join(FILE), "file", None, what))
    }

    /// As [`Tokenizer::open`], but nothing where there is no tokenizer.
    ///
    /// # Errors
    /// If it cannot be read, or is not a tokenizer.
    pub fn find(path: impl AsRef<Path>) -> Result<Option<Tokenizer>> {
        ModelFiles::open(path)?.tokenizer()
    }

    /// The tokenizer in a checkpoint's folder, if there is one.
    pub(super) fn find_in_folder(folder: &Path) -> Result<Option<Tokenizer>> {
        let file = folder.join(FILE);
        if !file.exists() {
            return Ok(None);
        }
        let text = Bytes::read(&file, LONGEST_TOKENIZER)?;
        Tokenizer::parse(&file, &text, || adds_bos_in_folder(folder, &text)).map(Some)
    }

    /// The tokenizer in a GGUF file's metadata, if it has one.
    ///
    /// # Errors
    /// If it is of an unknown kind, or contradicts itself.
    pub fn from_gguf(file: &Gguf) -> Result<Option<Tokenizer>> {
        let path = file.file();
        let adds_bos = gguf::tokenizer::adds_bos(file);
        let mut tokenizer = match gguf::tokenizer::stored(file)? {
            None => return Ok(None),
            Some(Stored::Text(text)) => Tokenizer::parse(path, text.as_bytes(), || Ok(adds_bos))?,
            Some(Stored::Parts(parts)) => Tokenizer::new(path, || parts.build(), adds_bos)?,
        };
        if let Some(bos) = gguf::tokenizer::bos(file, tokenizer.vocab_size)? {
            tokenizer.set_bos(Some(bos));
        }
        Ok(Some(tokenizer))
    }

    /// The tokenizer in `text`, the contents of a `tokenizer.json`; messages call it `file`.
    ///
    /// # Errors
    /// If it is not a tokenizer.
    pub fn from_bytes(file: &Path, text: &[u8]) -> Result<Tokenizer> {
        Tokenizer::parse(file, text, || Ok(puts_bos(text)))
    }

    /// As [`Tokenizer::from_bytes`]; `adds_bos` tells whether texts start with the begin-of-text token, which takes a walk
    /// through `text` where nothing else says it.
    fn parse(
        file: &Path,
        text: &[u8],
        adds_bos: impl FnOnce() -> Result<bool>,
    ) -> Result<Tokenizer> {
        json::check(file, text)?;
        let make = || match Parts::of_json(text) {
            Some(parts) => parts.build(),
            None => tokenizers::Tokenizer::from_bytes(text),
        };
        let mut tokenizer = Tokenizer::new(file, make, false)?;
        tokenizer.adds_bos = adds_bos()?;
        Ok(tokenizer)
    }

    /// The tokenizer that `make` makes; messages call it `file`.
    fn new(
        file: &Path,
        make: impl FnOnce() -> tokenizers::Result<tokenizers::Tokenizer>,
        adds_bos: bool,
    ) -> Result<Tokenizer> {
        let inner = guard(make);
        let mut inner = inner.map_err(|what| format_error(file, "tokenizer", None, what))?;
        // A saved tokenizer may carry the settings of the batch that it was last used for.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| format_error(file, "truncation", None, error.to_string()))?;
        let bos = ["<bos>", "<s>", "<|begin_of_text|>"];
        let bos = bos.iter().find_map(|name| inner.token_to_id(name));
        Ok(Tokenizer {
            file: file.to_path_buf(),
            vocab_size: vocab_size(&inner),
            inner,
            bos,
            adds_bos,
        })
    }

    /// Chooses the begin-of-text token; by default it is the one called `<bos>`, `<s>` or `<|begin_of_text|>`.
    pub fn set_bos(&mut self, bos: Option<u32>) {
        self.bos = bos;
    }

    /// The begin-of-text token.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether a text that the model is to continue starts with the begin-of-text token: what a GGUF file says, or
    /// `tokenizer_config.json`, or what the tokenizer puts before texts. A tokenizer that says nothing of it does, unless
    /// it is one of bytes.
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// One more than the largest id that has a token. A model's embedding may have more rows than that.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id, as the vocabulary spells it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether the id is a control token, such as the one that ends a text.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        self.inner
            .id_to_token(id)
            .is_some_and(|token| added.is_special_token(&token))
    }

    /// The ids of a text, after the begin-of-text token if `add_bos`.
    ///
    /// # Errors
    /// If `add_bos` and the tokenizer has no such token, or it cannot encode the text.
    pub fn encode(&self, text: &str, add_bos: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        if add_bos {
            ids.push(
                self.bos
                    .ok_or_else(|| self.error("there is no begin-of-text token"))?,
            );
        }
        let encoding = guard(|| self.inner.encode_fast(text, false));
        ids.extend(encoding.map_err(|what| self.error(what))?.get_ids());
        Ok(ids)
    }

    /// The text of the ids, without control tokens. Bytes that are not valid UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// If an id has no token.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(&id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(self.error(format!("id {id} has no token")));
        }
        guard(|| self.inner.decode(ids, true)).map_err(|what| self.error(what))
    }

    /// A decoder for ids that come one at a time.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream {
            tokenizer: self,
            ids: Vec::new(),
            settled: 0,
            shown: String::new(),
            waiting: 0,
        }
    }

    fn error(&self, what: impl Into<String>) -> Error {
        format_error(&self.file, "tokenizer", None, what)
    }
}

/// One more than the largest id that has a token.
fn vocab_size(inner: &tokenizers::Tokenizer) -> usize {
    // Ids mostly have no gaps; then they need no list of all tokens, which takes long to make.
    let n = inner.get_vocab_size(true);
    let has = |id: usize| u32::try_from(id).is_ok_and(|id| inner.id_to_token(id).is_some());
    let known = match (0..n).all(has) {
        true => n,
        false => {
            let ids = inner.get_vocab(true).into_values();
            ids.max().map_or(0, |largest| largest as usize + 1)
        }
    };
    // A token that a list has twice is counted once, but both of its ids may come out of a text.
    known + (known..).take_while(|&id| has(id)).count()
}

/// Whether texts start with the begin-of-text token, if the folder's `tokenizer_config.json` says it.
fn said_of_bos(folder: &Path) -> Result<Option<bool>> {
    const LONGEST_CONFIG: u64 = 16 << 20;
    let file = folder.join("tokenizer_config.json");
    if !file.exists() {
        return Ok(None);
    }
    let config = json::parse_object(&file, &Bytes::read(&file, LONGEST_CONFIG)?, 0)?;
    Ok(config.get("add_bos_token").and_then(Json::as_bool))
}

/// Whether the tokenizer in `text` is for texts that start with the begin-of-text token.
fn puts_bos(text: &[u8]) -> bool {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Parts {
        pre_tokenizer: Json,
        post_processor: Json,
    }
    let parts: Parts = serde_json::from_slice(text).unwrap_or_default();
    fn any(json: &Json, list: &str, is: &dyn Fn(&Json) -> bool) -> bool {
        let inner = json[list].as_array();
        is(json) || inner.is_some_and(|inner| inner.iter().any(|part| any(part, list, is)))
    }
    let is_template = |json: &Json| json["single"][0].get("SpecialToken").is_some();
    let is_bytes = |json: &Json| json["type"] == "ByteLevel";
    any(&parts.post_processor, "processors", &is_template)
        || !any(&parts.pre_tokenizer, "pretokenizers", &is_bytes)
}

/// Whether texts start with the begin-of-text token in a checkpoint's folder whose `tokenizer.json` is `text`.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn adds_bos_in_folder(folder: &Path, text: &[u8]) -> Result<bool> {
    Ok(said_of_bos(folder)?.unwrap_or_else(|| puts_bos(text)))
}

/// The text of the `tokenizer.json` in a checkpoint's folder, if there is one.
pub(super) fn text_of_folder(folder: &Path) -> Result<Option<String>> {
    let file = folder.join(FILE);
    if !file.exists() {
        return Ok(None);
    }
    let text = Bytes::read(&file, LONGEST_TOKENIZER)?;
    let text = std::str::from_utf8(&text);
    let text = text.map_err(|_| format_error(&file, "tokenizer", None, "is not UTF-8"))?;
    Ok(Some(text.to_owned()))
}

/// Runs a call into the `tokenizers` crate. A `tokenizer.json` that its parser accepts can still break assumptions of
/// its code, and foreign bytes must not end the program: such a panic becomes an error.
fn guard<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    // The tokenizer is behind a shared reference, and what it caches inside is only ever whole entries.
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the tokenizer contradicts itself".to_owned()),
    }
}

/// Decodes ids as they come.
///
/// A token may hold part of a character, and its text may depend on the tokens before it (a space that is only written
/// between words). So the last tokens are decoded together, what was shown before is cut off, and text that
/// ends in an unfinished character waits for the rest of it. The pieces, with [`DecodeStream::finish`], add up to what
/// [`Tokenizer::decode`] gives for all ids, if those spell valid UTF-8; in runs of invalid bytes, the number of U+FFFD may
/// differ.
#[derive(Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The tokens that are decoded together: `settled` ones for context, and those after them.
    ids: Vec<u32>,
    settled: usize,
    /// How the text of `ids` begins that was given out.
    shown: String,
    /// Tokens since the last piece.
    waiting: usize,
}

impl DecodeStream<'_> {
    /// An unfinished character has at most this many bytes, and a token at least one: what waits longer is invalid.
    const LONGEST_WAIT: usize = 3;

    /// Takes the next id, and gives the text that is complete with it, if there is any. Control tokens have none.
    ///
    /// # Errors
    /// If the id has no token; the stream can go on without it.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        if self.tokenizer.is_special(id) {
            return Ok(None);
        }
        self.ids.push(id);
        let text = match self.tokenizer.decode(&self.ids) {
            Ok(text) => text,
            Err(error) => {
                self.ids.pop();
                return Err(error);
            }
        };
        self.waiting += 1;
        let overdue = self.waiting > Self::LONGEST_WAIT;
        let whole = text.trim_end_matches(REPLACEMENT);
        let piece = if whole.len() == text.len() {
            if text.len() == self.shown.len() && !overdue {
                return Ok(None);
            }
            let piece = self.rest(&text)?;
            self.settle()?;
            piece
        } else if let Some(more) = whole
            .strip_prefix(self.shown.as_str())
            .filter(|s| !s.is_empty())
        {
            let piece = more.to_owned();
            self.shown = whole.to_owned();
            self.waiting = 0;
            piece
        } else if overdue {
            self.give_up_the_oldest()?
        } else {
            String::new()
        };
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// What is left at the end of the stream: the bytes of an unfinished character, as U+FFFD. The stream starts anew.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn finish(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids)?;
        let rest = self.rest(&text)?;
        *self = self.tokenizer.decode_stream();
        Ok(rest)
    }

    /// The part of `text`, which all `ids` or the first of them decode to, that was not shown. Invalid bytes may change
    /// how the bytes before them are decoded; then the tokens after the settled ones are decoded alone.
    fn rest(&self, text: &str) -> Result<String> {
        match text.strip_prefix(self.shown.as_str()) {
            Some(rest) => Ok(rest.to_owned()),
            None => self.tokenizer.decode(&self.ids[self.settled..]),
        }
    }

    /// Gives out the tokens that have waited too long to be part of a character that could still be finished, as the
    /// invalid bytes that they are. The others are whole or wait on, whatever came before them.
    fn give_up_the_oldest(&mut self) -> Result<String> {
        let overdue = self.ids.len() - Self::LONGEST_WAIT - 1;
        let whole = self.tokenizer.decode(&self.ids[overdue..])?;
        let is_whole = !whole.ends_with(REPLACEMENT);
        let fresh = self
            .ids
            .split_off(if is_whole { overdue } else { overdue + 1 });
        let text = self.tokenizer.decode(&self.ids)?;
        let mut piece = self.rest(&text)?;
        self.settle()?;
        let fresh_text = self.tokenizer.decode(&fresh)?;
        self.waiting = fresh.len();
        self.ids.extend(fresh);
        if !fresh_text.ends_with(REPLACEMENT) {
            piece.push_str(&fresh_text);
            self.settle()?;
        }
        Ok(piece)
    }

    /// Settles all tokens; those that were settled before are no longer needed as context.
    fn settle(&mut self) -> Result<()> {
        self.ids.drain(..self.settled);
        self.settled = self.ids.len();
        self.shown = self.tokenizer.decode(&self.ids)?;
        self.waiting = 0;
        Ok(())
    }
}
