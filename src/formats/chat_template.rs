//! The template that puts a conversation into the form that a chat model was trained on, as files hold it.
//!
//! A checkpoint's folder has it in `chat_template.jinja`, or in `tokenizer_config.json`: one text, or several with names, of
//! which the one called `default` counts. A GGUF file has it in its metadata.

use std::path::Path;

use serde_json::Value as Json;

use super::bytes::Bytes;
use super::gguf::Gguf;
use super::{format_error, json};
use crate::error::Result;

/// The key in a GGUF file.
pub(super) const KEY: &str = "tokenizer.chat_template";
const TEXT_FILE: &str = "chat_template.jinja";
const CONFIG_FILE: &str = "tokenizer_config.json";
const FIELD: &str = "chat_template";
/// The longest template, and the longest configuration with one, that is read.
const LONGEST_TEXT: u64 = 1 << 20;
const LONGEST_CONFIG: u64 = 16 << 20;

/// The text of the chat template in a GGUF file's metadata, if it has one.
pub(super) fn of_gguf(file: &Gguf) -> Result<Option<String>> {
    let Some(value) = file.value(KEY) else {
        return Ok(None);
    };
    let text = value.as_str().map(str::to_owned);
    let wrong = || format_error(file.file(), KEY, None, "is not a string");
    text.map(Some).ok_or_else(wrong)
}

/// The text of the chat template in a checkpoint's folder, if it has one.
pub(super) fn of_folder(folder: &Path) -> Result<Option<String>> {
    let file = folder.join(TEXT_FILE);
    if file.exists() {
        let bytes = Bytes::read(&file, LONGEST_TEXT)?;
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| format_error(&file, "file", None, "is not UTF-8"))?;
        return Ok(Some(text.to_owned()));
    }
    let file = folder.join(CONFIG_FILE);
    if !file.exists() {
        return Ok(None);
    }
    let bytes = Bytes::read(&file, LONGEST_CONFIG)?;
    let mut config = json::parse_object(&file, &bytes, 0)?;
    let wrong = |what: &str| {
        Err(format_error(
            &file,
            FIELD,
            json::key_offset(&bytes, FIELD),
            what,
        ))
    };
    match config.remove(FIELD) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(Json::Array(named)) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            match default.map(|entry| &entry["template"]) {
                Some(Json::String(text)) => Ok(Some(text.clone())),
                _ => wrong("has no template called \"default\""),
            }
        }
        Some(_) => wrong("is neither a string nor a list of them"),
    }
}
