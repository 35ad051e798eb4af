//! Reading the configuration files of Hugging Face checkpoints, field by field.
//!
//! A field that a loader does not know may change what the model computes, so a field that nobody read must not pass
//! in silence. [`ConfigReader`] notes which fields were asked for; [`ConfigReader::finish`] is an error that names the
//! others. Fields that are known and do not matter are declared with [`ConfigReader::ignore`].
//!
//! `null` means absent, as it does in the files' own readers, except where a getter says otherwise.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::bytes::Bytes;
use super::suggest::did_you_mean;
use super::{format_error, json, shorten};
use crate::error::{Error, Result};

/// The longest configuration that is read.
const LONGEST_CONFIG: u64 = 16 << 20;
/// The largest size that a dimension may have; real vocabularies end well below it.
pub const LARGEST_DIM: usize = 1 << 24;

/// A configuration file, and which of its fields were read.
#[derive(Clone, Debug)]
pub struct ConfigReader {
    file: PathBuf,
    text: Bytes,
    /// The fields that this object is inside of, each followed by a dot.
    path: String,
    map: Map<String, Value>,
    read: BTreeSet<String>,
}

impl ConfigReader {
    /// Opens `config.json` in `folder`.
    ///
    /// # Errors
    /// If it cannot be read, or is not a JSON object without duplicate keys.
    pub fn open_folder(folder: impl AsRef<Path>) -> Result<ConfigReader> {
        ConfigReader::open(folder.as_ref().join("config.json"))
    }

    /// Opens the configuration file at `path`.
    ///
    /// # Errors
    /// As [`ConfigReader::open_folder`].
    pub fn open(path: impl AsRef<Path>) -> Result<ConfigReader> {
        let path = path.as_ref();
        ConfigReader::from_bytes(path, Bytes::read(path, LONGEST_CONFIG)?)
    }

    /// The configuration in `text`; messages call it `file`.
    ///
    /// # Errors
    /// If it is not a JSON object without duplicate keys.
    pub fn from_bytes(file: &Path, text: Bytes) -> Result<ConfigReader> {
        let map = json::parse_object(file, &text, 0)?;
        Ok(ConfigReader {
            file: file.to_path_buf(),
            text,
            path: String::new(),
            map,
            read: BTreeSet::new(),
        })
    }

    /// The file that is read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The error that `field` is wrong in the way that `what` says.
    pub fn error(&self, field: &str, what: impl Into<String>) -> Error {
        let path = format!("{}{field}", self.path);
        let outermost = path.split('.').next().unwrap_or(field);
        let at = json::key_offset(&self.text, outermost);
        format_error(&self.file, path, at, what)
    }

    /// Whether the field is there; `null` counts. This does not read it.
    pub fn contains(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    /// The field's value as it is, if it is there and not `null`. The field counts as read.
    pub fn value(&mut self, field: &str) -> Option<&Value> {
        self.read.insert(field.to_owned());
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// The field converted by `convert`, or the error that it is not `what`.
    fn typed<T>(
        &mut self,
        field: &str,
        what: &str,
        convert: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        match self.value(field).map(|value| (convert(value), value)) {
            None => Ok(None),
            Some((Some(converted), _)) => Ok(Some(converted)),
            Some((None, value)) => {
                let what = format!("{} is not {what}", shorten(&value.to_string()));
                Err(self.error(field, what))
            }
        }
    }

    fn required<T>(&self, field: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| match self.map.contains_key(field) {
            true => self.error(field, "is null"),
            false => {
                let near = did_you_mean(field, self.map.keys().map(String::as_str));
                self.error(field, format!("is missing{near}"))
            }
        })
    }

    /// An integer in `range`, if the field is there.
    ///
    /// # Errors
    /// If it is not an integer, or outside the range.
    pub fn usize_in(&mut self, field: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let (low, high) = (range.start(), range.end());
        let what = format!("an integer from {low} to {high}");
        self.typed(field, &what, |value| {
            let size = usize::try_from(value.as_u64()?).ok()?;
            range.contains(&size).then_some(size)
        })
    }

    /// A dimension: an integer from 1 to [`LARGEST_DIM`].
    ///
    /// # Errors
    /// If it is missing, not an integer, or outside that range.
    pub fn usize(&mut self, field: &str) -> Result<usize> {
        self.usize_up_to(field, LARGEST_DIM)
    }

    /// An integer from 1 to `largest`.
    ///
    /// # Errors
    /// If it is missing, not an integer, or outside that range.
    pub fn usize_up_to(&mut self, field: &str, largest: usize) -> Result<usize> {
        let value = self.usize_in(field, 1..=largest)?;
        self.required(field, value)
    }

    /// A finite number, if the field is there.
    ///
    /// # Errors
    /// If it is not a number.
    pub fn f64_opt(&mut self, field: &str) -> Result<Option<f64>> {
        self.typed(field, "a finite number", |value| {
            value.as_f64().filter(|number| number.is_finite())
        })
    }

    /// A finite number.
    ///
    /// # Errors
    /// If it is missing or not a number.
    pub fn f64(&mut self, field: &str) -> Result<f64> {
        let value = self.f64_opt(field)?;
        self.required(field, value)
    }

    /// A finite number, or `default` when the field is absent.
    ///
    /// # Errors
    /// If it is not a number.
    pub fn f64_or(&mut self, field: &str, default: f64) -> Result<f64> {
        Ok(self.f64_opt(field)?.unwrap_or(default))
    }

    /// A finite number above zero, if the field is there.
    ///
    /// # Errors
    /// If it is not a number, or not above zero.
    pub fn positive_opt(&mut self, field: &str) -> Result<Option<f64>> {
        self.typed(field, "a finite number above zero", |value| {
            value
                .as_f64()
                .filter(|number| number.is_finite() && *number > 0.0)
        })
    }

    /// A finite number above zero.
    ///
    /// # Errors
    /// If it is missing, not a number, or not above zero.
    pub fn positive(&mut self, field: &str) -> Result<f64> {
        let value = self.positive_opt(field)?;
        self.required(field, value)
    }

    /// `true` or `false`, or `default` when the field is absent.
    ///
    /// # Errors
    /// If it is something else.
    pub fn bool_or(&mut self, field: &str, default: bool) -> Result<bool> {
        Ok(self
            .typed(field, "true or false", Value::as_bool)?
            .unwrap_or(default))
    }

    /// A string, if the field is there.
    ///
    /// # Errors
    /// If it is something else.
    pub fn string_opt(&mut self, field: &str) -> Result<Option<String>> {
        self.typed(field, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A string.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn string(&mut self, field: &str) -> Result<String> {
        let value = self.string_opt(field)?;
        self.required(field, value)
    }

    /// A list of strings, if the field is there.
    ///
    /// # Errors
    /// If it is something else.
    pub fn strings_opt(&mut self, field: &str) -> Result<Option<Vec<String>>> {
        self.typed(field, "a list of strings", |value| {
            let string = |value: &Value| value.as_str().map(str::to_owned);
            value.as_array()?.iter().map(string).collect()
        })
    }

    /// A list of any values, if the field is there.
    ///
    /// # Errors
    /// If it is something else.
    pub fn list_opt(&mut self, field: &str) -> Result<Option<Vec<Value>>> {
        self.typed(field, "a list", |value| value.as_array().cloned())
    }

    /// Token ids below `vocab_size`: one integer or a list of them. Empty when the field is absent.
    ///
    /// # Errors
    /// If it is something else.
    pub fn token_ids(&mut self, field: &str, vocab_size: usize) -> Result<Vec<u32>> {
        let what = format!("a token id below {vocab_size}, or a list of them");
        let id = |value: &Value| {
            let id = u32::try_from(value.as_u64()?).ok()?;
            ((id as usize) < vocab_size).then_some(id)
        };
        let ids = self.typed(field, &what, |value| match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => Some(vec![id(one)?]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// One token id below `vocab_size`, if the field is there.
    ///
    /// # Errors
    /// If it is something else.
    pub fn token_id(&mut self, field: &str, vocab_size: usize) -> Result<Option<u32>> {
        let ids = self.token_ids(field, vocab_size)?;
        match ids.as_slice() {
            [] if self.value(field).is_none() => Ok(None),
            &[id] => Ok(Some(id)),
            _ => Err(self.error(field, "is not a single token id")),
        }
    }

    /// A reader for the object in the field, if it is there. The object's own fields are accounted for in that reader:
    /// call its [`ConfigReader::finish`] too.
    ///
    /// # Errors
    /// If it is not an object.
    pub fn object_opt(&mut self, field: &str) -> Result<Option<ConfigReader>> {
        let map = self.typed(field, "an object", |value| value.as_object().cloned())?;
        Ok(map.map(|map| ConfigReader {
            file: self.file.clone(),
            text: self.text.clone(),
            path: format!("{}{field}.", self.path),
            map,
            read: BTreeSet::new(),
        }))
    }

    /// Declares fields that are known and do not change what the model computes.
    pub fn ignore(&mut self, fields: &[&str]) {
        self.read
            .extend(fields.iter().map(|&field| field.to_owned()));
    }

    /// The fields that are in the file and that nobody read or ignored.
    pub fn unused(&self) -> Vec<&str> {
        let names = self.map.keys().map(String::as_str);
        names.filter(|name| !self.read.contains(*name)).collect()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// If a field was neither read nor ignored.
    pub fn finish(self) -> Result<()> {
        let unused = self.unused();
        let Some(first) = unused.first() else {
            return Ok(());
        };
        let near = did_you_mean(first, self.read.iter().map(String::as_str));
        let others = match unused.len() {
            1 => String::new(),
            n => format!(", and {} more", n - 1),
        };
        let what = format!("is not a field that this model knows{near}{others}");
        Err(self.error(first, what))
    }
}
