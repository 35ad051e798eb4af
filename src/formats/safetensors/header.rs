//! The header of a safetensors file, parsed and checked against the file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::super::tensor::StoredType;
use super::super::{format_error, json, quote, tensor_field};
use super::{LONGEST_HEADER, METADATA};
use crate::error::{Error, Result};

/// Bytes of the header's length, at the start of the file.
const PREFIX: usize = 8;

/// What a header says.
pub(super) struct Header {
    pub(super) tensors: Vec<(String, Slot)>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// A tensor's type, shape and place; `start..end` are bytes of the file.
pub(super) struct Slot {
    pub(super) dtype: StoredType,
    pub(super) shape: Vec<usize>,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The file while its header is being read.
struct Source<'a> {
    file: &'a Path,
    header: &'a [u8],
    data_start: usize,
    data_len: usize,
}

/// Parses the header of the file whose contents are `bytes`.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Header> {
    let source = split(file, bytes)?;
    let mut map = json::parse_object(file, source.header, PREFIX as u64)?;
    let metadata = match map.remove(METADATA) {
        None => BTreeMap::new(),
        Some(value) => source.metadata(value)?,
    };
    let mut tensors = Vec::with_capacity(map.len());
    for (name, value) in map {
        let slot = source.slot(&name, value)?;
        tensors.push((name, slot));
    }
    tensors.sort_by(|(a_name, a), (b_name, b)| {
        (a.start, a.end, a_name).cmp(&(b.start, b.end, b_name))
    });
    source.check_tiling(&tensors)?;
    Ok(Header { tensors, metadata })
}

/// Finds the header and the data.
fn split<'a>(file: &'a Path, bytes: &'a [u8]) -> Result<Source<'a>> {
    let wrong = |what: String| Err(format_error(file, "header length", Some(0), what));
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
        return wrong(format!(
            "needs {PREFIX} bytes; the file has {}",
            bytes.len()
        ));
    };
    let len = u64::from_le_bytes(*prefix);
    if len > LONGEST_HEADER {
        return wrong(format!(
            "is {len}, more than the format's limit of {LONGEST_HEADER}"
        ));
    }
    if len > rest.len() as u64 {
        return wrong(format!(
            "is {len}, but only {} bytes follow: the file is cut off",
            rest.len()
        ));
    }
    let (header, data) = rest.split_at(usize::try_from(len).expect("no longer than a slice"));
    if header.first() != Some(&b'{') {
        let what = "does not start with '{': not a safetensors file";
        return Err(format_error(file, "header", Some(PREFIX as u64), what));
    }
    Ok(Source {
        file,
        header,
        data_start: PREFIX + header.len(),
        data_len: data.len(),
    })
}

impl Source<'_> {
    /// An error in the entry `key`, with the place of that entry.
    fn error(&self, key: &str, field: String, what: String) -> Error {
        let at = json::key_offset(self.header, key).map(|at| at + PREFIX as u64);
        format_error(self.file, field, at, what)
    }

    fn metadata(&self, value: Value) -> Result<BTreeMap<String, String>> {
        let wrong = |what: String| self.error(METADATA, METADATA.to_owned(), what);
        let Value::Object(map) = value else {
            return Err(wrong("is not an object".to_owned()));
        };
        let entry = |(key, value): (String, Value)| match value {
            Value::String(value) => Ok((key, value)),
            _ => Err(wrong(format!("{} is not a string", quote(&key)))),
        };
        map.into_iter().map(entry).collect()
    }

    fn slot(&self, name: &str, value: Value) -> Result<Slot> {
        let wrong = |field: &str, what: String| {
            self.error(name, format!("{}{field}", tensor_field(name)), what)
        };
        let Value::Object(mut entry) = value else {
            return Err(wrong("", "is not an object".to_owned()));
        };
        let dtype = take_dtype(&mut entry).map_err(|what| wrong(".dtype", what))?;
        let shape = take_sizes(&mut entry, "shape").map_err(|what| wrong(".shape", what))?;
        let offsets =
            take_sizes(&mut entry, "data_offsets").map_err(|what| wrong(".data_offsets", what))?;
        if let Some(key) = entry.keys().next() {
            return Err(wrong("", format!("has an unknown field {}", quote(key))));
        }
        let &[begin, end] = offsets.as_slice() else {
            return Err(wrong(
                ".data_offsets",
                format!("has {} entries, not two", offsets.len()),
            ));
        };
        if begin > end {
            return Err(wrong(
                ".data_offsets",
                format!("[{begin}, {end}] runs backwards"),
            ));
        }
        if end > self.data_len {
            let what = format!(
                "[{begin}, {end}] reaches past the {} bytes of data",
                self.data_len
            );
            return Err(wrong(".data_offsets", what));
        }
        let size = dtype
            .bytes_of(&shape)
            .map_err(|what| wrong(".shape", what))?;
        if end - begin != size {
            let (stored, given) = (dtype.name(), end - begin);
            let what =
                format!("{stored}{shape:?} needs {size} bytes, data_offsets give it {given}");
            return Err(wrong(".shape", what));
        }
        Ok(Slot {
            dtype,
            shape,
            start: self.data_start + begin,
            end: self.data_start + end,
        })
    }

    /// Checks that the tensors, sorted by place, cover the data without holes or overlaps.
    fn check_tiling(&self, tensors: &[(String, Slot)]) -> Result<()> {
        let mut covered = self.data_start;
        let mut before = "";
        for (name, slot) in tensors {
            let wrong = |what| {
                let field = format!("{}.data_offsets", tensor_field(name));
                Err(format_error(
                    self.file,
                    field,
                    Some(slot.start as u64),
                    what,
                ))
            };
            if slot.start < covered {
                return wrong(format!("overlaps {}", tensor_field(before)));
            }
            if slot.start > covered {
                return wrong(format!(
                    "leaves a hole of {} bytes before it",
                    slot.start - covered
                ));
            }
            (covered, before) = (slot.end, name);
        }
        match self.data_start + self.data_len - covered {
            0 => Ok(()),
            left => {
                let what = format!("{left} bytes after the last tensor belong to none");
                Err(format_error(self.file, "data", Some(covered as u64), what))
            }
        }
    }
}

fn take_dtype(entry: &mut Map<String, Value>) -> Result<StoredType, String> {
    match entry.remove("dtype") {
        None => Err("is missing".to_owned()),
        Some(Value::String(name)) => StoredType::from_name(&name)
            .ok_or_else(|| format!("{} is not a type of the format", quote(&name))),
        Some(_) => Err("is not a string".to_owned()),
    }
}

fn take_sizes(entry: &mut Map<String, Value>, key: &str) -> Result<Vec<usize>, String> {
    let Some(value) = entry.remove(key) else {
        return Err("is missing".to_owned());
    };
    let Value::Array(values) = value else {
        return Err("is not a list".to_owned());
    };
    let size = |value: &Value| value.as_u64().and_then(|size| usize::try_from(size).ok());
    let sizes: Option<Vec<usize>> = values.iter().map(size).collect();
    sizes.ok_or_else(|| "has an entry that is not a size".to_owned())
}
