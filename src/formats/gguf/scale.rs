//! Tensors of a file, row by row times factors.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::format_error;
use super::{Gguf, Writer, tensor_field};
use crate::error::Result;

/// Multiplies rows of tensors of the file at `path`, which is replaced in one step: tensor by tensor, by name, a factor for each
/// row of a matrix, folded into the scales of its blocks ([`BlockType::scale`]), or for each number of a vector. Everything else
/// stays as it is.
///
/// # Errors
/// If the file is damaged, a tensor is not in it, has another number of rows than there are factors, or is of a type that
/// cannot be scaled, or the file cannot be written.
///
/// [`BlockType::scale`]: crate::blocks::BlockType::scale
pub fn scale_rows(path: &Path, factors: &BTreeMap<String, Vec<f32>>) -> Result<()> {
    let file = Gguf::open(path)?;
    for (name, factors) in factors {
        let tensor = file.get(name)?;
        let wrong = match tensor.shape.first() == Some(&factors.len()) {
            true if tensor.ty.can_scale() => None,
            true => Some(format!("is {}, which has no scales of f16", tensor.ty)),
            false => Some(format!("has the shape {:?}", tensor.shape)),
        };
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
