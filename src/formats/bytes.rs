//! `Bytes`: a region of memory that is shared, immutable and cheap to clone.
//!
//! A region is a range of either a memory-mapped file or a buffer of our own. Tensors of a model file are regions of
//! one map, so opening a checkpoint copies nothing, and the file stays mapped until the last tensor is dropped.
//!
//! Invariants: the range lies inside its storage; a buffer of our own starts on a 64-byte boundary, so that vector
//! loads of any width are aligned. A mapped file starts on a page boundary, but a range in it has the alignment
//! that the file gave it: [`Bytes::aligned`] copies when that is not enough.
//!
//! A mapped file must not be truncated or rewritten in place while it is mapped. Other programs that replace files
//! by renaming (as [`crate::atomic`] does) are safe: the map keeps the old file. [`Bytes::read`] takes a private copy
//! for the cases where that cannot be relied on.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use memmap2::Mmap;

use super::{format_error, io_error};
use crate::error::Result;
use crate::storage::SharedMemory;

/// The unit of our own buffers, there for its alignment.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Block([u8; 64]);

const BLOCK: usize = size_of::<Block>();

enum Storage {
    Mapped(Mmap),
    Owned(Vec<Block>),
}

impl Storage {
    fn as_slice(&self) -> &[u8] {
        match self {
            Storage::Mapped(map) => map,
            Storage::Owned(blocks) => bytemuck::cast_slice(blocks),
        }
    }
}

/// A shared, immutable region of bytes; clones and slices share the storage.
#[derive(Clone)]
pub struct Bytes {
    storage: Arc<Storage>,
    start: usize,
    len: usize,
}

impl Bytes {
    /// A zeroed buffer of `len` bytes on a 64-byte boundary, filled in by `fill` before it becomes immutable.
    pub fn build(len: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
        let mut blocks = vec![Block::zeroed(); len.div_ceil(BLOCK)];
        fill(&mut bytemuck::cast_slice_mut(&mut blocks)[..len]);
        Bytes {
            storage: Arc::new(Storage::Owned(blocks)),
            start: 0,
            len,
        }
    }

    /// A copy of `source` on a 64-byte boundary.
    pub fn copy_of(source: &[u8]) -> Bytes {
        Bytes::build(source.len(), |target| target.copy_from_slice(source))
    }

    /// Maps the whole file into memory, read-only. An empty file gives an empty region.
    ///
    /// # Errors
    /// If the file cannot be opened or mapped, or is not a regular file (a folder, a pipe).
    pub fn map(path: &Path) -> Result<Bytes> {
        let (file, len) = open_regular(path)?;
        if len == 0 {
            return Ok(Bytes::default());
        }
        // SAFETY: the map is read-only and private to this storage, which lives as long as any region of it. What the
        // type system cannot see is another process (or another handle in this one) that truncates the file or
        // writes to it in place while it is mapped: reads would then fault or see changing bytes. The module header
        // hands that obligation to whoever owns the file; our own writers replace files by renaming, which leaves
        // an existing map intact.
        let map = unsafe { Mmap::map(&file) }.map_err(|error| io_error(path, error))?;
        let len = map.len();
        Ok(Bytes {
            storage: Arc::new(Storage::Mapped(map)),
            start: 0,
            len,
        })
    }

    /// Reads the whole file into a buffer of our own.
    ///
    /// # Errors
    /// If the file cannot be read, is not a regular file, or is longer than `longest` bytes.
    pub fn read(path: &Path, longest: u64) -> Result<Bytes> {
        let (mut file, len) = open_regular(path)?;
        if len > longest {
            return Err(format_error(
                path,
                "file size",
                None,
                format!("{len} bytes are more than the {longest} that such a file may have"),
            ));
        }
        let mut text = Vec::new();
        Read::take(&mut file, longest)
            .read_to_end(&mut text)
            .map_err(|error| io_error(path, error))?;
        Ok(Bytes::copy_of(&text))
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.storage.as_slice()[self.start..self.start + self.len]
    }

    /// The part of this region at `range`, or `None` when that is not inside it. Nothing is copied.
    pub fn get(&self, range: Range<usize>) -> Option<Bytes> {
        (range.start <= range.end && range.end <= self.len).then(|| Bytes {
            storage: Arc::clone(&self.storage),
            start: self.start + range.start,
            len: range.end - range.start,
        })
    }

    /// The part of this region at `range`. Nothing is copied.
    ///
    /// # Panics
    /// If `range` is not inside the region.
    #[track_caller]
    pub fn slice(&self, range: Range<usize>) -> Bytes {
        match self.get(range.clone()) {
            Some(part) => part,
            None => panic!("range {range:?} is outside a region of {} bytes", self.len),
        }
    }

    /// This region, or a copy of it, so that the first byte's address is a multiple of `align` (at most 64).
    ///
    /// # Panics
    /// If `align` is not a power of two, or is larger than 64.
    #[track_caller]
    pub fn aligned(&self, align: usize) -> Bytes {
        assert!(
            align.is_power_of_two() && align <= BLOCK,
            "alignment {align} is not a power of two up to {BLOCK}"
        );
        if self.as_ptr().addr().is_multiple_of(align) {
            self.clone()
        } else {
            Bytes::copy_of(self)
        }
    }

    /// The bytes as elements of type `T`, or `None` when the length or the alignment does not allow it
    /// (see [`Bytes::aligned`]).
    pub fn cast<T: Pod>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self.as_slice()).ok()
    }
}

/// Opens `path` if it is a regular file, and gives its length. Pipes are refused before they can block.
fn open_regular(path: &Path) -> Result<(File, u64)> {
    let metadata = fs::metadata(path).map_err(|error| io_error(path, error))?;
    if !metadata.is_file() {
        return Err(format_error(path, "file", None, "is not a regular file"));
    }
    let file = File::open(path).map_err(|error| io_error(path, error))?;
    Ok((file, metadata.len()))
}

impl SharedMemory for Bytes {
    fn bytes(&self) -> &[u8] {
        self.as_slice()
    }

    /// Pages of a mapped file leave this process; reading them again maps them again.
    fn rest(&self) {
        #[cfg(unix)]
        if let Storage::Mapped(map) = &*self.storage {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the map is of a file and shared with it, so pages that are dropped come back with the same bytes.
            // Refusal is harmless.
            let _ = unsafe { map.unchecked_advise_range(advice, self.start, self.len) };
        }
    }
}

impl Default for Bytes {
    /// The empty region.
    fn default() -> Bytes {
        Bytes::build(0, |_| {})
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    /// The length and the kind of storage, not the bytes: a model has too many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match *self.storage {
            Storage::Mapped(_) => "mapped",
            Storage::Owned(_) => "owned",
        };
        write!(f, "Bytes({} {kind})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_and_owned_buffers_are_aligned() {
        let bytes = Bytes::copy_of(&[1, 2, 3, 4, 5]);
        assert!(bytes.as_ptr().addr().is_multiple_of(64));
        let tail = bytes.slice(2..5);
        assert_eq!(tail.as_slice(), [3, 4, 5]);
        assert_eq!(tail.as_ptr(), bytes[2..].as_ptr());
        assert_eq!(tail.slice(1..2).as_slice(), [4]);
        assert!(tail.get(1..4).is_none());
        assert!(tail.get(3..3).is_some());
    }

    #[test]
    fn aligned_copies_only_when_it_must() {
        let bytes = Bytes::copy_of(&[0; 64]);
        let odd = bytes.slice(1..9);
        assert_eq!(bytes.aligned(64).as_ptr(), bytes.as_ptr());
        assert!(odd.cast::<f32>().is_none());
        assert_ne!(odd.aligned(4).as_ptr(), odd.as_ptr());
        assert_eq!(odd.aligned(4).cast::<f32>(), Some(&[0.0, 0.0][..]));
    }

    #[test]
    #[should_panic(expected = "range 2..9 is outside a region of 3 bytes")]
    fn slice_outside_panics() {
        Bytes::copy_of(&[1, 2, 3]).slice(2..9);
    }

    #[test]
    fn is_send_and_sync() {
        fn check<T: Send + Sync + Clone>() {}
        check::<Bytes>();
    }
}
