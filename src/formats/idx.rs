//! IDX files: one array each, the format of MNIST and of what imitates it. Plain, or packed by gzip.
//!
//! Layout: two zero bytes, the element type, the number of dimensions, each dimension (4 bytes, big-endian), the data
//! (big-endian, row-major). See <https://yann.lecun.com/exdb/mnist/>, "The IDX file format".
//!
//! A packed file is known by gzip's magic number, not by its name; offsets in errors count unpacked bytes. Unpacking
//! stops one byte after what the header asks for, so memory grows with what the file holds and never beyond what it
//! claims. What comes out is little-endian; plain files of bytes are a region of the map.

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

use super::bytes::Bytes;
use super::tensor::{StoredType, TensorView};
use super::{format_error, quote};
use crate::error::Result;

/// The first bytes of a gzip file (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Bytes before the dimensions.
const PREFIX: usize = 4;
/// A header with the most dimensions that its one byte can say.
const LONGEST_HEADER: usize = PREFIX + 4 * u8::MAX as usize;

/// The element types and their codes.
const TYPES: [(u8, StoredType); 6] = [
    (0x08, StoredType::U8),
    (0x09, StoredType::I8),
    (0x0b, StoredType::I16),
    (0x0c, StoredType::I32),
    (0x0d, StoredType::F32),
    (0x0e, StoredType::F64),
];

/// Reads the array at `path`; its name is the file's, without `.gz`.
///
/// The file must not be changed in place while the array is alive; see [`super::bytes`].
///
/// # Errors
/// If the file cannot be opened, or is not a valid IDX file, plain or packed.
pub fn read(path: impl AsRef<Path>) -> Result<TensorView> {
    let path = path.as_ref();
    from_bytes(path, &Bytes::map(path)?)
}

/// The array in `bytes`, the contents of an IDX file, plain or packed; messages call it `file`.
///
/// # Errors
/// As [`read`].
pub fn from_bytes(file: &Path, bytes: &Bytes) -> Result<TensorView> {
    let bytes = unpack(file, bytes)?;
    let header = Header::parse(file, &bytes)?;
    let found = bytes.len() - header.start;
    if found != header.size {
        let (dtype, shape) = (header.dtype.name(), &header.shape);
        let what = format!(
            "{dtype}{shape:?} needs {} bytes, {} follow the header",
            header.size,
            // Unpacking stops at the first byte that is too many.
            if found > header.size { "more" } else { "fewer" },
        );
        return Err(format_error(file, "dimensions", Some(PREFIX as u64), what));
    }
    let data = bytes.slice(header.start..bytes.len());
    let name = file.file_name().map(|name| name.to_string_lossy());
    Ok(TensorView {
        name: name.unwrap_or_default().trim_end_matches(".gz").to_owned(),
        dtype: header.dtype,
        shape: header.shape,
        bytes: little_endian(data, header.dtype.bits() / 8),
    })
}

/// The plain form of `bytes`, the contents of an IDX file: the same when they are not packed.
///
/// # Errors
/// If the file is packed, and is damaged or has no valid header. The data's length is left to [`from_bytes`].
pub fn unpack(file: &Path, bytes: &Bytes) -> Result<Bytes> {
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes.clone());
    }
    let mut decoder = MultiGzDecoder::new(bytes.as_slice());
    let mut plain = Vec::new();
    let mut more = |plain: &mut Vec<u8>, longest: usize| {
        let wanted = longest.saturating_sub(plain.len()) as u64;
        let read = decoder.by_ref().take(wanted).read_to_end(plain);
        read.map_err(|error| {
            let at = Some(plain.len() as u64);
            format_error(file, "gzip data", at, error.to_string())
        })
    };
    more(&mut plain, LONGEST_HEADER)?;
    let header = Header::parse(file, &plain)?;
    more(&mut plain, (header.start + header.size).saturating_add(1))?;
    Ok(Bytes::copy_of(&plain))
}

struct Header {
    dtype: StoredType,
    shape: Vec<usize>,
    /// Where the data starts.
    start: usize,
    /// The bytes that type and shape ask for.
    size: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`, of which only a part has to be there.
    fn parse(file: &Path, bytes: &[u8]) -> Result<Header> {
        let wrong = |field: &str, at: usize, what: String| {
            Err(format_error(file, field, Some(at as u64), what))
        };
        let Some((&[zero, zero_too, code, rank], rest)) = bytes.split_first_chunk::<PREFIX>()
        else {
            let what = format!("needs {PREFIX} bytes; the file has {}", bytes.len());
            return wrong("magic number", 0, what);
        };
        if (zero, zero_too) != (0, 0) {
            let start = quote(&String::from_utf8_lossy(&bytes[..PREFIX]));
            let what = format!("starts with {start}, not with two zeros: not an IDX file");
            return wrong("magic number", 0, what);
        }
        let Some(&(_, dtype)) = TYPES.iter().find(|row| row.0 == code) else {
            return wrong("element type", 2, format!("{code:#04x} is not a type"));
        };
        let rank = usize::from(rank);
        let Some(dims) = rest.get(..4 * rank) else {
            let what = format!("{rank} need {} bytes, {} follow", 4 * rank, rest.len());
            return wrong("dimensions", PREFIX, what);
        };
        let (dims, _) = dims.as_chunks::<4>();
        let shape: Vec<usize> = dims
            .iter()
            .map(|&dim| usize::try_from(u32::from_be_bytes(dim)).expect("at least 32 bits"))
            .collect();
        let start = PREFIX + 4 * rank;
        match dtype.bytes_of(&shape) {
            Ok(size) if size <= usize::MAX - start => Ok(Header {
                dtype,
                shape,
                start,
                size,
            }),
            Ok(_) => wrong("dimensions", PREFIX, "the size overflows".to_owned()),
            Err(what) => wrong("dimensions", PREFIX, what),
        }
    }
}

/// Turns the bytes of every element around.
fn little_endian(data: Bytes, element: usize) -> Bytes {
    if element == 1 {
        return data;
    }
    Bytes::build(data.len(), |target| {
        target.copy_from_slice(&data);
        target.chunks_exact_mut(element).for_each(<[u8]>::reverse);
    })
}
