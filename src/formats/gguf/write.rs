//! Writing GGUF files: the header from a plan, then the data as it comes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::super::{format_error, io_error};
use super::value::{Array, Value};
use super::{
    ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, TensorInfo, metadata_field, parse, tensor_field,
};
use crate::atomic;
use crate::blocks::BlockType;
use crate::error::Result;

/// The version that is written.
const VERSION: u32 = 3;
/// The longest name of a tensor that llama.cpp reads.
const LONGEST_NAME: usize = 63;
/// The longest key that the format allows.
const LONGEST_KEY: usize = 65_535;

/// What a GGUF file is to hold. The metadata and the list of tensors are collected first, since they come first in the file;
/// the data follows piece by piece, and no more of it than a piece need be in memory.
///
/// ```
/// use brain_blitz::blocks::BlockType;
/// use brain_blitz::formats::gguf::{Gguf, Writer};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("x.gguf");
/// let mut writer = Writer::new();
/// writer.set("general.architecture", "none").tensor("x", BlockType::F32, &[2]);
/// writer.write(&path, &mut |_, sink| sink.write(bytemuck::bytes_of(&[1.0f32, 2.0])))?;
/// assert_eq!(Gguf::open(&path)?.get("x")?.dequantize()?, [1.0, 2.0]);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Writer {
    metadata: Vec<(String, Value)>,
    tensors: Vec<(String, BlockType, Vec<usize>)>,
}

/// Takes a tensor's data.
pub struct Sink<'a> {
    file: &'a mut BufWriter<File>,
    path: &'a Path,
    written: usize,
}

impl Sink<'_> {
    /// Takes the next bytes of the tensor.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len();
        self.file
            .write_all(bytes)
            .map_err(|error| io_error(self.path, error))
    }
}

impl Writer {
    /// A file without metadata and tensors.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// Sets the metadata's value of a key, in the place of an earlier one.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Writer {
        let (key, value) = (key.into(), value.into());
        match self.metadata.iter_mut().find(|entry| entry.0 == key) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key, value)),
        }
        self
    }

    /// Adds a tensor; its last dimension is that of neighbouring elements.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        ty: BlockType,
        shape: &[usize],
    ) -> &mut Writer {
        self.tensors.push((name.into(), ty, shape.to_vec()));
        self
    }

    /// Replaces the file at `path` in one step (see [`atomic`]). `fill` is called for each tensor, in the order in which they
    /// were added, and gives the sink its data.
    ///
    /// # Errors
    /// If a name occurs twice or is too long, a shape is no whole number of blocks, `fill` fails or gives another number
    /// of bytes than the tensor has, or writing fails. The old file, if any, is then untouched.
    pub fn write(
        &self,
        path: impl AsRef<Path>,
        fill: &mut dyn FnMut(&TensorInfo, &mut Sink<'_>) -> Result<()>,
    ) -> Result<()> {
        let path = path.as_ref();
        let alignment = self.alignment(path)?;
        let (header, tensors) = self.header(path, alignment)?;
        let mut failed = None;
        let written = atomic::write(path, |file| {
            let done = write_all(path, file, alignment, &header, &tensors, fill);
            done.map_err(|error| {
                failed = Some(error);
                io::Error::other("not written")
            })
        });
        match failed {
            Some(error) => Err(error),
            None => written,
        }
    }

    fn alignment(&self, path: &Path) -> Result<usize> {
        let given = self.metadata.iter().find(|entry| entry.0 == ALIGNMENT_KEY);
        let Some((_, value)) = given else {
            return Ok(DEFAULT_ALIGNMENT);
        };
        let n = match value {
            Value::U32(n) if n.is_power_of_two() && u64::from(*n) <= parse::LARGEST_ALIGNMENT => {
                usize::try_from(*n).ok()
            }
            _ => None,
        };
        let what = "is not a u32 that is a power of two";
        n.ok_or_else(|| format_error(path, metadata_field(ALIGNMENT_KEY), None, what))
    }

    /// The bytes before the data, without their padding, and the tensors with their places.
    fn header(&self, path: &Path, alignment: usize) -> Result<(Vec<u8>, Vec<TensorInfo>)> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            if key.is_empty() || key.len() > LONGEST_KEY || !key.is_ascii() {
                let what = format!("is no ASCII text of 1 to {LONGEST_KEY} bytes");
                return Err(format_error(path, metadata_field(key), None, what));
            }
            put_string(&mut out, key);
            out.extend(value.kind().to_le_bytes());
            put_value(&mut out, value);
        }
        let tensors = self.place(path, alignment)?;
        for tensor in &tensors {
            put_string(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            for &n in tensor.shape.iter().rev() {
                out.extend((n as u64).to_le_bytes());
            }
            out.extend(tensor.ty.id().to_le_bytes());
            out.extend((tensor.start as u64).to_le_bytes());
        }
        Ok((out, tensors))
    }

    /// The tensors with their places, counted from the start of the data.
    fn place(&self, path: &Path, alignment: usize) -> Result<Vec<TensorInfo>> {
        let (mut names, mut tensors) = (BTreeSet::new(), Vec::new());
        let mut start = 0;
        for (name, ty, shape) in &self.tensors {
            let wrong = |what: String| Err(format_error(path, tensor_field(name), None, what));
            if !names.insert(name) {
                return wrong("occurs twice".to_owned());
            }
            if name.len() > LONGEST_NAME {
                return wrong(format!("the name has more than {LONGEST_NAME} bytes"));
            }
            let size = match parse::size_of_tensor(*ty, shape) {
                Ok(size) => size,
                Err(what) => return wrong(what),
            };
            let end =
                usize::checked_add(start, size).filter(|end| end.checked_add(alignment).is_some());
            let Some(end) = end else {
                return wrong("ends past what a file can hold".to_owned());
            };
            let (name, shape) = (name.clone(), shape.clone());
            tensors.push(TensorInfo {
                name,
                ty: *ty,
                shape,
                start,
                end,
            });
            start = end.next_multiple_of(alignment);
        }
        Ok(tensors)
    }
}

/// Writes the header and, padded, each tensor.
fn write_all(
    path: &Path,
    file: &mut BufWriter<File>,
    alignment: usize,
    header: &[u8],
    tensors: &[TensorInfo],
    fill: &mut dyn FnMut(&TensorInfo, &mut Sink<'_>) -> Result<()>,
) -> Result<()> {
    let mut sink = Sink {
        file,
        path,
        written: 0,
    };
    sink.write(header)?;
    let pad =
        |sink: &mut Sink<'_>, n: usize| sink.write(&vec![0; n.next_multiple_of(alignment) - n]);
    pad(&mut sink, header.len())?;
    for tensor in tensors {
        sink.written = 0;
        fill(tensor, &mut sink)?;
        let (given, size) = (sink.written, tensor.size());
        if given != size {
            let what = format!("has {size} bytes, but was given {given}");
            return Err(format_error(path, tensor_field(&tensor.name), None, what));
        }
        pad(&mut sink, size)?;
    }
    Ok(())
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(x) => out.push(*x),
        Value::I8(x) => out.extend(x.to_le_bytes()),
        Value::U16(x) => out.extend(x.to_le_bytes()),
        Value::I16(x) => out.extend(x.to_le_bytes()),
        Value::U32(x) => out.extend(x.to_le_bytes()),
        Value::I32(x) => out.extend(x.to_le_bytes()),
        Value::U64(x) => out.extend(x.to_le_bytes()),
        Value::I64(x) => out.extend(x.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Bool(x) => out.push(u8::from(*x)),
        Value::String(x) => put_string(out, x),
        Value::Array(x) => put_array(out, x),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend(array.kind().to_le_bytes());
    out.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(x) => out.extend(x),
        Array::I8(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::U16(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::I16(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::U32(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::I32(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::U64(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::I64(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::F32(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::F64(x) => out.extend(bytemuck::cast_slice::<_, u8>(x)),
        Array::Bool(x) => out.extend(x.iter().map(|&x| u8::from(x))),
        Array::String(x) => x.iter().for_each(|x| put_string(out, x)),
        Array::Array(x) => x.iter().for_each(|x| put_array(out, x)),
    }
}
