//! Reading a model's configuration from metadata, key by key.
//!
//! Keys of an architecture start with its name. One that nobody reads is an error: it may change what the model computes.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::super::huggingface::LARGEST_DIM;
use super::super::suggest::did_you_mean;
use super::architecture::{Architecture, EMBEDDING};
use super::value::Array;
use super::{Gguf, Value, Writer};
use crate::error::{Error, Result};

pub(super) use super::super::config_fields::{MOST_HEADS, MOST_LAYERS};

/// What ends a text, in the order of preference.
const EOS_KEYS: [&str; 3] = [
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
];
/// All that ends a text, where it is more than these keys hold.
const ALL_EOS_KEY: &str = "tokenizer.ggml.eos_token_ids";
pub(super) const BOS_KEY: &str = "tokenizer.ggml.bos_token_id";
const PAD_KEY: &str = "tokenizer.ggml.padding_token_id";

/// The ids that begin, end and pad a text.
pub(super) struct Tokens<'a> {
    pub bos: Option<u32>,
    pub eos: &'a [u32],
    pub pad: Option<u32>,
}

impl Tokens<'_> {
    /// Adds them to a file that is to be written.
    pub(super) fn write(&self, writer: &mut Writer) {
        let ids = EOS_KEYS.iter().copied().zip(self.eos.iter().copied());
        let named = [(BOS_KEY, self.bos), (PAD_KEY, self.pad)];
        let named = named.into_iter().filter_map(|(key, id)| Some((key, id?)));
        for (key, id) in ids.chain(named) {
            writer.set(key, id);
        }
        if self.eos.len() > EOS_KEYS.len() {
            writer.set(ALL_EOS_KEY, Value::Array(Array::U32(self.eos.to_vec())));
        }
    }
}

/// The keys of an architecture, and which of them were read.
pub(super) struct Keys<'a> {
    pub file: &'a Gguf,
    architecture: Architecture,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    /// The keys of a file of this architecture.
    ///
    /// # Errors
    /// If the file is of another one.
    pub(super) fn of(file: &'a Gguf, architecture: Architecture) -> Result<Keys<'a>> {
        architecture.check(file)?;
        Ok(Keys {
            file,
            architecture,
            read: RefCell::default(),
        })
    }

    fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name())
    }

    pub(super) fn error(&self, key: &str, what: impl Into<String>) -> Error {
        self.file.error(&self.full(key), what)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        let key = self.full(key);
        let value = self.file.value(&key);
        self.read.borrow_mut().insert(key);
        value
    }

    pub(super) fn size_in(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.filter(|n| range.contains(n)).map(Some).ok_or_else(|| {
            let what = format!(
                "is not an integer from {} to {}",
                range.start(),
                range.end()
            );
            self.error(key, what)
        })
    }

    pub(super) fn size(&self, key: &str, most: usize) -> Result<usize> {
        self.size_in(key, 1..=most)?
            .ok_or_else(|| self.missing(key))
    }

    pub(super) fn missing(&self, key: &str) -> Error {
        let keys = self.file.metadata().keys().map(String::as_str);
        self.error(
            key,
            format!("is missing{}", did_you_mean(&self.full(key), keys)),
        )
    }

    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let number = value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        let wrong = || self.error(key, "is not a finite number above zero");
        number.map(Some).ok_or_else(wrong)
    }

    pub(super) fn rms_norm_eps(&self) -> Result<f64> {
        const KEY: &str = "attention.layer_norm_rms_epsilon";
        self.positive(KEY)?.ok_or_else(|| self.missing(KEY))
    }

    /// `attention.key_length`, which values have too; `default` where it is not there.
    pub(super) fn head_dim(&self, default: Option<usize>) -> Result<usize> {
        let key = match (
            self.size_in("attention.key_length", 1..=LARGEST_DIM)?,
            default,
        ) {
            (Some(key), _) | (None, Some(key)) => key,
            (None, None) => return Err(self.missing("attention.key_length")),
        };
        match self.size_in("attention.value_length", 1..=LARGEST_DIM)? {
            Some(value) if value != key => {
                let what = format!("{value} is not attention.key_length, {key}");
                Err(self.error("attention.value_length", what))
            }
            _ => Ok(key),
        }
    }

    /// The rows of the embedding, or what a key says where there is none.
    pub(super) fn vocab_size(&self) -> Result<usize> {
        let said = self.size_in("vocab_size", 1..=LARGEST_DIM)?;
        let rows = self
            .file
            .info(EMBEDDING)
            .and_then(|info| info.shape.first().copied());
        match (said, rows) {
            (Some(said), Some(rows)) if said != rows => {
                let what = format!("{said} contradicts the {rows} rows of {EMBEDDING}");
                Err(self.error("vocab_size", what))
            }
            (said, rows) => {
                let size = said
                    .or(rows)
                    .filter(|size| (1..=LARGEST_DIM).contains(size));
                size.ok_or_else(|| self.missing("vocab_size"))
            }
        }
    }

    /// The error that not all of a head is turned.
    pub(super) fn check_rotary_width(&self, head_dim: usize) -> Result<()> {
        match self.size_in("rope.dimension_count", 1..=LARGEST_DIM)? {
            Some(n) if n != head_dim => {
                let what = format!("{n} is not attention.key_length, {head_dim}");
                Err(self.error("rope.dimension_count", what))
            }
            _ => Ok(()),
        }
    }

    /// The number that all frequencies are divided by, if there is one.
    pub(super) fn linear_rope_factor(&self) -> Result<Option<f64>> {
        // An older name for the same.
        let old = self.positive("rope.scale_linear")?;
        let factor = self.positive("rope.scaling.factor")?;
        self.value("rope.scaling.original_context_length");
        self.value("rope.scaling.finetuned");
        match self.value("rope.scaling.type").map(Value::as_str) {
            None => Ok(old.or(factor).filter(|&x| x != 1.0)),
            Some(Some("none")) => Ok(None),
            Some(Some("linear")) => {
                let missing = || self.missing("rope.scaling.factor");
                factor.or(old).map(Some).ok_or_else(missing)
            }
            Some(other) => {
                let other = other.unwrap_or("no string");
                let what = format!("is {other:?}; \"none\" and \"linear\" are supported");
                Err(self.error("rope.scaling.type", what))
            }
        }
    }

    /// The error that a field of a configuration contradicts others, under its key.
    pub(super) fn check(&self, contradiction: Option<(&'static str, String)>) -> Result<()> {
        let Some((field, what)) = contradiction else {
            return Ok(());
        };
        let key = match field {
            "num_key_value_heads" => "attention.head_count_kv",
            "head_dim" => "attention.key_length",
            _ => "embedding_length",
        };
        Err(self.error(key, what))
    }

    /// The error that a key was not read, if there is one.
    pub(super) fn finish(self) -> Result<()> {
        let read = self.read.borrow();
        let ours = self.full("");
        let mut keys = self.file.metadata().keys();
        match keys.find(|key| key.starts_with(&ours) && !read.contains(*key)) {
            None => Ok(()),
            Some(key) => {
                let near = did_you_mean(key, read.iter().map(String::as_str));
                let what = format!("is not a key that this model knows{near}");
                Err(self.file.error(key, what))
            }
        }
    }

    pub(super) fn bos(&self, vocab_size: usize) -> Result<Option<u32>> {
        token(self.file, BOS_KEY, vocab_size)
    }

    pub(super) fn pad(&self, vocab_size: usize) -> Result<Option<u32>> {
        token(self.file, PAD_KEY, vocab_size)
    }

    pub(super) fn eos(&self, vocab_size: usize) -> Result<Vec<u32>> {
        let mut found: Vec<u32> = Vec::new();
        for key in EOS_KEYS {
            let id = token(self.file, key, vocab_size)?;
            found.extend(id.filter(|id| !found.contains(id)));
        }
        for id in listed(self.file, ALL_EOS_KEY, vocab_size)? {
            found.extend(Some(id).filter(|id| !found.contains(id)));
        }
        Ok(found)
    }
}

/// The sizes that every configuration has.
pub(super) struct Sizes {
    pub vocabulary: usize,
    pub context: usize,
    pub hidden: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl Sizes {
    /// Adds the architecture and these sizes to a file that is to be written.
    ///
    /// # Errors
    /// If one is too large.
    pub(super) fn write(&self, writer: &mut Writer, architecture: Architecture) -> Result<()> {
        writer.set("general.architecture", architecture.name());
        let sizes = [
            ("context_length", self.context),
            ("embedding_length", self.hidden),
            ("block_count", self.layers),
            ("feed_forward_length", self.inner),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("vocab_size", self.vocabulary),
        ];
        let mut sizes = sizes.into_iter();
        sizes.try_for_each(|(key, size)| write_size(writer, architecture, key, size))
    }
}

/// Adds a size of a configuration to a file that is to be written.
///
/// # Errors
/// If it is too large.
pub(super) fn write_size(
    writer: &mut Writer,
    architecture: Architecture,
    key: &str,
    size: usize,
) -> Result<()> {
    let size = u32::try_from(size).map_err(|_| Error::msg(format!("{key} {size} is no u32")))?;
    writer.set(format!("{}.{key}", architecture.name()), size);
    Ok(())
}

/// Adds a configuration's numbers to a file that is to be written.
pub(super) fn write_numbers(
    writer: &mut Writer,
    architecture: Architecture,
    numbers: &[(&str, f64)],
) {
    for &(key, number) in numbers {
        writer.set(format!("{}.{key}", architecture.name()), number as f32);
    }
}

/// The tokens that a key lists, if it is there.
fn listed(file: &Gguf, key: &str, vocab_size: usize) -> Result<Vec<u32>> {
    let Some(value) = file.value(key) else {
        return Ok(Vec::new());
    };
    let ids: Option<Vec<u64>> = match value {
        Value::Array(Array::U32(ids)) => Some(ids.iter().map(|&id| id.into()).collect()),
        Value::Array(Array::I32(ids)) => ids.iter().map(|&id| id.try_into().ok()).collect(),
        _ => None,
    };
    let ids = ids.filter(|ids| ids.iter().all(|&id| id < vocab_size as u64));
    let wrong = || file.error(key, format!("is no list of token ids below {vocab_size}"));
    let ids = ids.ok_or_else(wrong)?;
    Ok(ids.into_iter().map(|id| id as u32).collect())
}

/// The token that a key names, if it is there.
pub(super) fn token(file: &Gguf, key: &str, vocab_size: usize) -> Result<Option<u32>> {
    let Some(value) = file.value(key) else {
        return Ok(None);
    };
    let id = value.as_u64().filter(|&id| id < vocab_size as u64);
    let wrong = || file.error(key, format!("is not a token id below {vocab_size}"));
    id.map(|id| Some(id as u32)).ok_or_else(wrong)
}
