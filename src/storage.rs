//! Bytes that tensors live in: aligned memory of our own, or read-only memory that somebody else holds (a mapped
//! file).

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

/// Alignment of owned memory, in bytes: a cache line and the widest vector.
pub const ALIGNMENT: usize = 64;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; ALIGNMENT]);

/// Growable memory aligned to [`ALIGNMENT`].
#[derive(Clone, Default)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// Zeroed memory.
    pub fn zeroed(len: usize) -> AlignedBytes {
        AlignedBytes {
            lines: vec![Line::zeroed(); len.div_ceil(ALIGNMENT)],
            len,
        }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> AlignedBytes {
        let mut out = AlignedBytes::zeroed(bytes.len());
        out.as_mut_slice().copy_from_slice(bytes);
        out
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `len` bytes; new ones are zero. Never shrinks, so that a steady state does not allocate.
    pub fn grow_to(&mut self, len: usize) {
        if len > self.len {
            self.lines.resize(len.div_ceil(ALIGNMENT), Line::zeroed());
            self.len = len;
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// Memory that somebody else keeps alive.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The bytes of one input tensor.
#[derive(Clone)]
pub enum Storage {
    /// Memory of our own.
    Owned(AlignedBytes),
    /// Read-only memory of another owner, used in place.
    Shared(SharedBytes),
}

impl Storage {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Storage::Owned(bytes) => bytes.as_slice(),
            Storage::Shared(bytes) => (**bytes).as_ref(),
        }
    }

    /// The bytes, to write; shared memory is copied first.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if let Storage::Shared(bytes) = self {
            *self = Storage::Owned(AlignedBytes::copy_of((**bytes).as_ref()));
        }
        match self {
            Storage::Owned(bytes) => bytes.as_mut_slice(),
            Storage::Shared(_) => unreachable!("made owned above"),
        }
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if matches!(self, Storage::Owned(_)) {
            "owned"
        } else {
            "shared"
        };
        write!(f, "Storage({kind}, {} bytes)", self.bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_memory_is_aligned_and_grows_with_zeros() {
        let mut bytes = AlignedBytes::copy_of(&[1, 2, 3]);
        assert_eq!(bytes.as_slice().as_ptr() as usize % ALIGNMENT, 0);
        bytes.grow_to(100);
        assert_eq!(&bytes.as_slice()[..4], &[1, 2, 3, 0]);
        bytes.grow_to(10);
        assert_eq!(bytes.len(), 100, "memory never shrinks");
    }

    #[test]
    fn writing_to_shared_memory_copies_it() {
        let shared: SharedBytes = Arc::new(vec![7u8; 4]);
        let mut storage = Storage::Shared(shared.clone());
        storage.bytes_mut()[0] = 1;
        assert_eq!(storage.bytes(), [1, 7, 7, 7]);
        assert_eq!((*shared).as_ref(), [7; 4]);
    }
}
