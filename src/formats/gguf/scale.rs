//! Rows of a file's tensors times factors.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::format_error;
use super::{Gguf, Writer, tensor_field};
use crate::error::Result;

/// Multiplies rows of tensors of the file at `path`, which is replaced in one step: tensor by tensor, by name, a factor for each
/// row, folded into the scales of its blocks ([`BlockType::scale`]). Everything else stays as it is.
///
/// # Errors
/// If the file is damaged, a tensor is not in it, is no matrix with as many rows as there are factors, or its blocks have no
/// `f16` scales, or the file cannot be written.
///
/// [`BlockType::scale`]: crate::blocks::BlockType::scale
pub fn scale_rows(path: &Path, factors: &BTreeMap<String, Vec<f32>>) -> Result<()> {
    let file = Gguf::open(path)?;
    for (name, factors) in factors {
        let tensor = file.get(name)?;
        let wrong = match tensor.shape[..] {
            [n, _] if n == factors.len() => None,
            _ => Some(format!("has the shape {:?}", tensor.shape)),
        };
        let wrong = wrong.or_else(|| {
            let has_none = tensor.ty.scale_offsets().is_empty();
            has_none.then(|| format!("is {}, which has no scales of f16", tensor.ty))
        });
        if let Some(wrong) = wrong {
            let what = format!("{wrong}: {} rows cannot be multiplied", factors.len());
            return Err(format_error(path, tensor_field(name), None, what));
        }
    }
    let mut writer = Writer::new();
    for (key, value) in file.metadata() {
        writer.set(key, value.clone());
    }
    for info in file.tensors() {
        writer.tensor(&info.name, info.ty, &info.shape);
    }
    writer.write(path, &mut |info, sink| {
        let tensor = file.get(&info.name)?;
        let Some(factors) = factors.get(&info.name) else {
            return sink.write(&tensor.bytes);
        };
        let mut row = vec![0; tensor.bytes.len() / factors.len().max(1)];
        for (bytes, &factor) in tensor.bytes.chunks(row.len().max(1)).zip(factors) {
            row.copy_from_slice(bytes);
            info.ty.scale(&mut row, factor);
            sink.write(&row)?;
        }
        Ok(())
    })
}
