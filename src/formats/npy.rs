//! NumPy's `.npy` files: one array each.
//!
//! Layout: the magic `\x93NUMPY`, the version (major, minor), the header's length (2 bytes in version 1, 4 in versions
//! 2 and 3, little-endian), the header (a Python dict: `descr`, `fortran_order`, `shape`), the data. See NumPy's
//! `numpy.lib.format`.
//!
//! Little-endian booleans, integers and floats are read. Column-major arrays are reordered, so what comes out is always
//! row-major; other arrays are a region of the mapped file. Structured, big-endian and object arrays are errors.

use std::io::Write;
use std::path::Path;

use super::bytes::Bytes;
use super::tensor::{StoredType, TensorView};
use super::{format_error, quote};
use crate::atomic;
use crate::error::Result;

mod header;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// The data starts at a multiple of this in what we write, as in what NumPy writes.
const ALIGNMENT: usize = 64;

/// The array types and their names in a header.
const DESCRS: [(&str, StoredType); 12] = [
    ("|b1", StoredType::BOOL),
    ("|i1", StoredType::I8),
    ("|u1", StoredType::U8),
    ("<i2", StoredType::I16),
    ("<u2", StoredType::U16),
    ("<i4", StoredType::I32),
    ("<u4", StoredType::U32),
    ("<i8", StoredType::I64),
    ("<u8", StoredType::U64),
    ("<f2", StoredType::F16),
    ("<f4", StoredType::F32),
    ("<f8", StoredType::F64),
];

/// Reads the array at `path`; its name is the file's, without `.npy`.
///
/// The file must not be changed in place while the array is alive; see [`super::bytes`].
///
/// # Errors
/// If the file cannot be opened, or is not a valid npy file of a type in this module's header.
pub fn read(path: impl AsRef<Path>) -> Result<TensorView> {
    let path = path.as_ref();
    from_bytes(path, &Bytes::map(path)?)
}

/// The array in `bytes`, the contents of an npy file; messages call it `file`.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(file: &Path, bytes: &Bytes) -> Result<TensorView> {
    let (header_start, data_start) = split(file, bytes)?;
    let wrong = |field: &str, at: usize, what: String| {
        Err(format_error(
            file,
            field,
            Some((header_start + at) as u64),
            what,
        ))
    };
    let header = match header::parse(&bytes[header_start..data_start]) {
        Ok(header) => header,
        Err(error) => return wrong(error.field, error.at, error.what),
    };
    let (descr, at) = &header.descr;
    let dtype = match stored_type(descr) {
        Ok(dtype) => dtype,
        Err(what) => return wrong("descr", *at, what),
    };
    let (shape, at) = header.shape;
    let size = match dtype.bytes_of(&shape) {
        Ok(size) => size,
        Err(what) => return wrong("shape", at, what),
    };
    let found = bytes.len() - data_start;
    if size != found {
        let what = format!(
            "{}{shape:?} needs {size} bytes, {found} follow the header",
            dtype.name()
        );
        return wrong("shape", at, what);
    }
    let mut data = bytes.slice(data_start..bytes.len());
    if header.fortran_order {
        data = row_major(&data, &shape, dtype.bits() / 8);
    }
    let name = file
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned());
    Ok(TensorView {
        name: name.unwrap_or_default(),
        dtype,
        shape,
        bytes: data,
    })
}

/// Where the header and the data start.
fn split(file: &Path, bytes: &[u8]) -> Result<(usize, usize)> {
    let wrong = |field: &str, at: usize, what: String| {
        Err(format_error(file, field, Some(at as u64), what))
    };
    if !bytes.starts_with(MAGIC) {
        return wrong("magic", 0, "is not \\x93NUMPY: not an npy file".to_owned());
    }
    let width = match bytes.get(6..8) {
        None => return wrong("version", 6, "is cut off".to_owned()),
        Some([1, _]) => 2,
        Some([2 | 3, _]) => 4,
        Some(version) => {
            let what = format!("{}.{} is not one of 1, 2 and 3", version[0], version[1]);
            return wrong("version", 6, what);
        }
    };
    let Some(length) = bytes.get(8..8 + width) else {
        return wrong("header length", 8, "is cut off".to_owned());
    };
    let mut padded = [0; 8];
    padded[..width].copy_from_slice(length);
    let length = u64::from_le_bytes(padded);
    let start = 8 + width;
    let left = bytes.len() - start;
    match usize::try_from(length) {
        Ok(length) if length <= left => Ok((start, start + length)),
        _ => {
            let what = format!("is {length}, but only {left} bytes follow: the file is cut off");
            wrong("header length", 8, what)
        }
    }
}

fn stored_type(descr: &str) -> Result<StoredType, String> {
    // A byte order says nothing about single bytes, and writers differ in what they put there.
    let known = |name: &str| name == descr || (name.starts_with('|') && name[1..] == descr[1..]);
    let ordered = descr.starts_with(['<', '|', '>', '=']);
    if let Some(row) = DESCRS.iter().find(|row| ordered && known(row.0)) {
        return Ok(row.1);
    }
    Err(match descr.starts_with('>') {
        true => format!("{} is big-endian; save it as little-endian", quote(descr)),
        false => format!("{} is not a type that is read", quote(descr)),
    })
}

/// Reorders column-major `data` to row-major.
fn row_major(data: &[u8], shape: &[usize], element: usize) -> Bytes {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = element;
    for &dim in shape {
        strides.push(stride);
        stride *= dim;
    }
    let mut index = vec![0; shape.len()];
    let mut from = 0;
    Bytes::build(data.len(), |target| {
        for to in target.chunks_exact_mut(element) {
            to.copy_from_slice(&data[from..from + element]);
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                from += strides[axis];
                if index[axis] < shape[axis] {
                    break;
                }
                from -= strides[axis] * shape[axis];
                index[axis] = 0;
            }
        }
    })
}

/// Replaces the file at `path` by an npy file with this array, in one step (see [`atomic`]). The name is not stored.
///
/// # Errors
/// If npy has no such type, the bytes are not what type and shape ask for, or writing fails.
pub fn write(path: impl AsRef<Path>, tensor: &TensorView) -> Result<()> {
    let path = path.as_ref();
    let Some((descr, _)) = DESCRS.iter().find(|row| row.1 == tensor.dtype) else {
        let what = format!("npy has no type for {}", tensor.dtype.name());
        return Err(format_error(path, "descr", None, what));
    };
    let size = tensor.dtype.bytes_of(&tensor.shape);
    if size.as_ref() != Ok(&tensor.bytes.len()) {
        let (dtype, shape) = (tensor.dtype.name(), &tensor.shape);
        let what = format!(
            "{} bytes are not the data of {dtype}{shape:?}",
            tensor.bytes.len()
        );
        return Err(format_error(path, "shape", None, what));
    }
    let preamble = preamble(descr, &tensor.shape);
    atomic::write(path, |file| {
        file.write_all(&preamble)?;
        file.write_all(&tensor.bytes)
    })
}

/// Everything before the data: version 1 when the header is short enough for it, else version 2.
fn preamble(descr: &str, shape: &[usize]) -> Vec<u8> {
    let dims: String = shape.iter().map(|dim| format!("{dim}, ")).collect();
    let dims = if shape.len() == 1 {
        dims.trim_end()
    } else {
        dims.trim_end_matches(", ")
    };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    // The 10 or 12 bytes before the header and the newline after it are part of what is aligned.
    let long = header.len() + 11 + ALIGNMENT > usize::from(u16::MAX);
    let fixed = if long { 12 } else { 10 };
    let total = (fixed + header.len() + 1).next_multiple_of(ALIGNMENT);
    header.extend(std::iter::repeat_n(' ', total - fixed - header.len() - 1));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([if long { 2 } else { 1 }, 0]);
    let length =
        u32::try_from(header.len()).expect("a shape that fits in memory has a short header");
    bytes.extend(&length.to_le_bytes()[..fixed - 8]);
    bytes.extend(header.as_bytes());
    bytes
}
