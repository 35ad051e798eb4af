//! The bytes of a GGUF file before its data: header, metadata, what the tensors are.
//!
//! Every length and count is compared with the bytes that are left before anything is allocated for it.

use std::collections::BTreeMap;
use std::path::Path;

use bytemuck::Pod;

use super::super::format_error;
use super::value::{Array, Value, kind};
use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, TensorInfo, metadata_field, tensor_field};
use crate::blocks::BlockType;
use crate::error::{Error, Result};

/// How deep arrays may lie in arrays.
const DEEPEST: usize = 4;
/// The most dimensions that ggml's tensors have.
const MOST_DIMS: u32 = 4;
/// The largest alignment that is believed.
pub(super) const LARGEST_ALIGNMENT: u64 = 1 << 20;
/// The least bytes of an entry of the metadata (length and name, type, value) and of a tensor (name, dimensions, type, offset).
const LEAST_ENTRY: usize = 8 + 4 + 1;
const LEAST_TENSOR: usize = 8 + 4 + 4 + 8;

/// What the file says before its data.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: usize,
    pub(super) metadata: BTreeMap<String, Value>,
    pub(super) tensors: Vec<TensorInfo>,
}

/// A tensor before its place in the file is known.
struct Claim {
    name: String,
    ty: BlockType,
    shape: Vec<usize>,
    size: usize,
    offset: u64,
    /// Where the file says the offset.
    at: usize,
}

/// Reads the header of the file whose contents are `bytes`.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Header> {
    let mut cursor = Cursor { file, bytes, at: 0 };
    let version = cursor.version()?;
    let n_tensors = cursor.count("tensor count", LEAST_TENSOR)?;
    let n_entries = cursor.count("metadata count", LEAST_ENTRY)?;
    let mut metadata = BTreeMap::new();
    for number in 0..n_entries {
        let start = cursor.at;
        let key = cursor.string(&format!("metadata key {number}"))?;
        let field = metadata_field(&key);
        let value = cursor.value(&field)?;
        if metadata.insert(key, value).is_some() {
            return Err(cursor.error(&field, start, "occurs twice"));
        }
    }
    let alignment = alignment(&cursor, &metadata)?;
    let mut claims = Vec::with_capacity(n_tensors);
    for number in 0..n_tensors {
        claims.push(cursor.claim(number)?);
    }
    let tensors = place(&cursor, claims, alignment)?;
    Ok(Header {
        version,
        alignment,
        metadata,
        tensors,
    })
}

fn alignment(cursor: &Cursor<'_>, metadata: &BTreeMap<String, Value>) -> Result<usize> {
    let Some(value) = metadata.get(ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let given = value
        .as_u64()
        .filter(|&n| n.is_power_of_two() && n <= LARGEST_ALIGNMENT);
    given.map(|n| n as usize).ok_or_else(|| {
        let what = format!("is no power of two up to {LARGEST_ALIGNMENT}");
        format_error(cursor.file, metadata_field(ALIGNMENT_KEY), None, what)
    })
}

/// Finds the tensors in the data, which starts at the next aligned byte, and checks that they lie inside it and apart.
fn place(cursor: &Cursor<'_>, claims: Vec<Claim>, alignment: usize) -> Result<Vec<TensorInfo>> {
    let data = cursor.at.next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(claims.len());
    let mut order = Vec::with_capacity(claims.len());
    for claim in claims {
        let wrong = |what: String| Err(cursor.error(&tensor_field(&claim.name), claim.at, what));
        let offset = claim.offset;
        if !offset.is_multiple_of(alignment as u64) {
            return wrong(format!("its offset {offset} is no multiple of {alignment}"));
        }
        let start = usize::try_from(offset)
            .ok()
            .and_then(|offset| data.checked_add(offset));
        let range = start.and_then(|start| Some((start, start.checked_add(claim.size)?)));
        let Some((start, end)) =
            range.filter(|range| range.1 <= cursor.bytes.len() || claim.size == 0)
        else {
            let (size, have) = (claim.size, cursor.bytes.len().saturating_sub(data));
            return wrong(format!(
                "{size} bytes at {offset} reach past the {have} bytes of data"
            ));
        };
        // An empty tensor may be said to lie anywhere; it lies nowhere.
        let (start, end) = if claim.size == 0 {
            (0, 0)
        } else {
            (start, end)
        };
        order.push((start, end, tensors.len(), claim.at));
        tensors.push(TensorInfo {
            name: claim.name,
            ty: claim.ty,
            shape: claim.shape,
            start,
            end,
        });
    }
    order.sort_unstable();
    for pair in order.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        if after.0 < before.1 {
            let what = format!("overlaps {}", tensor_field(&tensors[before.2].name));
            let field = tensor_field(&tensors[after.2].name);
            return Err(cursor.error(&field, after.3, what));
        }
    }
    Ok(tensors)
}

/// The file while it is read, and how far.
struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn error(&self, field: &str, at: usize, what: impl Into<String>) -> Error {
        format_error(self.file, field, Some(at as u64), what)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, n: usize, field: &str) -> Result<&'a [u8]> {
        if n > self.left() {
            let what = format!(
                "needs {n} bytes, {} are left: the file is cut off",
                self.left()
            );
            return Err(self.error(field, self.at, what));
        }
        let start = self.at;
        self.at += n;
        Ok(&self.bytes[start..self.at])
    }

    fn read<T: Pod>(&mut self, field: &str) -> Result<T> {
        Ok(bytemuck::pod_read_unaligned(
            self.take(size_of::<T>(), field)?,
        ))
    }

    fn version(&mut self) -> Result<u32> {
        if self.take(MAGIC.len(), "magic")? != MAGIC {
            let what = "the file does not start with \"GGUF\": not a GGUF file";
            return Err(self.error("magic", 0, what));
        }
        let at = self.at;
        let version: u32 = self.read("version")?;
        match version {
            2 | 3 => Ok(version),
            // A version in the wrong byte order has nothing in its low half.
            _ if version & 0xffff == 0 && version != 0 => Err(self.error(
                "version",
                at,
                "is big-endian; only little-endian files are read",
            )),
            _ => Err(self.error("version", at, format!("is {version}; 2 and 3 are read"))),
        }
    }

    /// A number of things that each take at least `least` bytes.
    fn count(&mut self, field: &str, least: usize) -> Result<usize> {
        let at = self.at;
        let n: u64 = self.read(field)?;
        let most = self.left() / least;
        usize::try_from(n)
            .ok()
            .filter(|&n| n <= most)
            .ok_or_else(|| {
                let what = format!(
                    "is {n}, but the {} bytes that follow hold {most} at most",
                    self.left()
                );
                self.error(field, at, what)
            })
    }

    fn string(&mut self, field: &str) -> Result<String> {
        let at = self.at;
        let n = self.count(field, 1)?;
        let text = std::str::from_utf8(self.take(n, field)?);
        let text = text.map_err(|_| self.error(field, at, "is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn value(&mut self, field: &str) -> Result<Value> {
        let at = self.at;
        Ok(match self.read(field)? {
            kind::U8 => Value::U8(self.read(field)?),
            kind::I8 => Value::I8(self.read(field)?),
            kind::U16 => Value::U16(self.read(field)?),
            kind::I16 => Value::I16(self.read(field)?),
            kind::U32 => Value::U32(self.read(field)?),
            kind::I32 => Value::I32(self.read(field)?),
            kind::U64 => Value::U64(self.read(field)?),
            kind::I64 => Value::I64(self.read(field)?),
            kind::F32 => Value::F32(self.read(field)?),
            kind::F64 => Value::F64(self.read(field)?),
            kind::BOOL => Value::Bool(self.bools(1, field)?[0]),
            kind::STRING => Value::String(self.string(field)?),
            kind::ARRAY => Value::Array(self.array(field, 1)?),
            other => return Err(self.error(field, at, format!("is of the unknown type {other}"))),
        })
    }

    fn array(&mut self, field: &str, depth: usize) -> Result<Array> {
        let at = self.at;
        if depth > DEEPEST {
            return Err(self.error(field, at, format!("has arrays more than {DEEPEST} deep")));
        }
        let kind: u32 = self.read(field)?;
        Ok(match kind {
            kind::U8 => Array::U8(self.numbers(field)?),
            kind::I8 => Array::I8(self.numbers(field)?),
            kind::U16 => Array::U16(self.numbers(field)?),
            kind::I16 => Array::I16(self.numbers(field)?),
            kind::U32 => Array::U32(self.numbers(field)?),
            kind::I32 => Array::I32(self.numbers(field)?),
            kind::U64 => Array::U64(self.numbers(field)?),
            kind::I64 => Array::I64(self.numbers(field)?),
            kind::F32 => Array::F32(self.numbers(field)?),
            kind::F64 => Array::F64(self.numbers(field)?),
            kind::BOOL => {
                let n = self.count(field, 1)?;
                Array::Bool(self.bools(n, field)?)
            }
            kind::STRING => {
                let n = self.count(field, size_of::<u64>())?;
                let strings = (0..n).map(|_| self.string(field));
                Array::String(strings.collect::<Result<_>>()?)
            }
            kind::ARRAY => {
                let n = self.count(field, size_of::<u32>() + size_of::<u64>())?;
                let arrays = (0..n).map(|_| self.array(field, depth + 1));
                Array::Array(arrays.collect::<Result<_>>()?)
            }
            other => {
                let what = format!("has elements of the unknown type {other}");
                return Err(self.error(field, at, what));
            }
        })
    }

    fn numbers<T: Pod>(&mut self, field: &str) -> Result<Vec<T>> {
        let n = self.count(field, size_of::<T>())?;
        let bytes = self.take(n * size_of::<T>(), field)?;
        Ok(bytemuck::pod_collect_to_vec(bytes))
    }

    fn bools(&mut self, n: usize, field: &str) -> Result<Vec<bool>> {
        let at = self.at;
        let bytes = self.take(n, field)?;
        if let Some(wrong) = bytes.iter().position(|&byte| byte > 1) {
            let what = format!("{} is neither 0 nor 1", bytes[wrong]);
            return Err(self.error(field, at + wrong, what));
        }
        Ok(bytes.iter().map(|&byte| byte == 1).collect())
    }

    fn claim(&mut self, number: usize) -> Result<Claim> {
        let start = self.at;
        let name = self.string(&format!("tensor name {number}"))?;
        let field = tensor_field(&name);
        let n_dims: u32 = self.read(&field)?;
        if n_dims > MOST_DIMS {
            let what = format!("has {n_dims} dimensions; {MOST_DIMS} are the most");
            return Err(self.error(&field, start, what));
        }
        let mut shape = Vec::new();
        for _ in 0..n_dims {
            let at = self.at;
            let n: u64 = self.read(&field)?;
            let n = usize::try_from(n)
                .map_err(|_| self.error(&field, at, format!("{n} elements overflow")))?;
            shape.push(n);
        }
        // A file names the dimension of neighbouring elements first.
        shape.reverse();
        let at = self.at;
        let id: u32 = self.read(&field)?;
        let Some(ty) = BlockType::from_id(id) else {
            return Err(self.error(&field, at, format!("is of the unknown type {id}")));
        };
        let size = size_of_tensor(ty, &shape).map_err(|what| self.error(&field, start, what))?;
        let at = self.at;
        let offset = self.read(&field)?;
        Ok(Claim {
            name,
            ty,
            shape,
            size,
            offset,
            at,
        })
    }
}

/// The bytes of a tensor, or what is wrong with such a shape.
pub(super) fn size_of_tensor(ty: BlockType, shape: &[usize]) -> Result<usize, String> {
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(ty.block_len()) {
        return Err(format!(
            "rows of {row} are no whole number of {ty} blocks of {}",
            ty.block_len()
        ));
    }
    let elements = shape
        .iter()
        .try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let size = elements.and_then(|n| ty.bytes_of(n));
    size.ok_or_else(|| format!("the size of {ty}{shape:?} overflows"))
}
