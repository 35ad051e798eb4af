//! Writing safetensors files.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::super::format_error;
use super::super::tensor::TensorView;
use super::super::tensor_field;
use super::{LONGEST_HEADER, METADATA};
use crate::atomic;
use crate::error::Result;

/// The data starts at a multiple of this, so that every element of a mapped file is aligned.
const ALIGNMENT: usize = 64;

/// Replaces the file at `path` by a safetensors file with these tensors, in one step (see [`atomic`]).
///
/// # Errors
/// If a name occurs twice or is reserved, a tensor's bytes are not what its type and shape ask for, or writing fails.
pub fn write(path: impl AsRef<Path>, tensors: &[TensorView]) -> Result<()> {
    write_with_metadata(path, tensors, &BTreeMap::new())
}

/// As [`write()`], with free-form strings in the header.
///
/// The same arguments give the same bytes: larger elements come first (which keeps all of them aligned), then tensors
/// go by name.
///
/// # Errors
/// As [`write()`].
pub fn write_with_metadata(
    path: impl AsRef<Path>,
    tensors: &[TensorView],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let path = path.as_ref();
    check(path, tensors)?;
    let mut sorted: Vec<&TensorView> = tensors.iter().collect();
    sorted.sort_by(|a, b| {
        b.dtype
            .bits()
            .cmp(&a.dtype.bits())
            .then_with(|| a.name.cmp(&b.name))
    });
    let header = header(&sorted, metadata);
    if header.len() as u64 > LONGEST_HEADER {
        let what = format!("{} bytes are more than the format allows", header.len());
        return Err(format_error(path, "header", None, what));
    }
    atomic::write(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        sorted
            .iter()
            .try_for_each(|tensor| file.write_all(&tensor.bytes))
    })
}

fn check(path: &Path, tensors: &[TensorView]) -> Result<()> {
    let mut names = BTreeSet::new();
    for tensor in tensors {
        let wrong = |what: String| Err(format_error(path, tensor_field(&tensor.name), None, what));
        if tensor.name == METADATA {
            return wrong("is a reserved name".to_owned());
        }
        if !names.insert(&tensor.name) {
            return wrong("occurs twice".to_owned());
        }
        match tensor.dtype.bytes_of(&tensor.shape) {
            Err(what) => return wrong(what),
            Ok(size) if size != tensor.bytes.len() => {
                let (dtype, shape) = (tensor.dtype.name(), &tensor.shape);
                return wrong(format!(
                    "{dtype}{shape:?} needs {size} bytes, not {}",
                    tensor.bytes.len()
                ));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// The header's text, padded with spaces so that the data is aligned.
fn header(sorted: &[&TensorView], metadata: &BTreeMap<String, String>) -> String {
    let mut entries = Map::new();
    if !metadata.is_empty() {
        entries.insert(METADATA.to_owned(), json!(metadata));
    }
    let mut begin = 0;
    for tensor in sorted {
        let end = begin + tensor.bytes.len();
        let entry = json!({
            "dtype": tensor.dtype.name(),
            "shape": tensor.shape,
            "data_offsets": [begin, end],
        });
        entries.insert(tensor.name.clone(), entry);
        begin = end;
    }
    let mut text = Value::Object(entries).to_string();
    let start = (size_of::<u64>() + text.len()).next_multiple_of(ALIGNMENT);
    let padding = start - size_of::<u64>() - text.len();
    text.extend(std::iter::repeat_n(' ', padding));
    text
}
