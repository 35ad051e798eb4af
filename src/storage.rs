//! Bytes that tensors live in: aligned memory of our own, or read-only memory that somebody else holds (a mapped
//! file).
//!
//! Owned memory of [`LARGE`] bytes and more is mapped by itself, aligned to the processor's large pages, and the
//! system is asked for such pages: reading weights from them misses the page tables' cache less often. Smaller memory comes
//! from the allocator. Pages that are never touched take no memory, so a cache takes as much as was written to it.
//!
//! Memory keeps one root pointer for as long as it lives ([`AlignedBytes::start`]), and slices are made from it when
//! asked for, so that machine code may keep pointers while nobody uses a slice.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use crate::error::{Error, Result};

/// Alignment of owned memory, in bytes: a cache line and the widest vector.
pub const ALIGNMENT: usize = 64;

/// Alignment that allocators give without being asked.
const ALLOCATED: usize = 16;

/// Size of a large page.
const PAGE: usize = 2 << 20;

/// Size from which memory is mapped in large pages.
pub const LARGE: usize = 2 * PAGE;

/// What the least memory is aligned like.
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "only its alignment counts")] u8);

/// Who frees the memory.
enum Owner {
    /// Nobody: there is none.
    Nobody,
    /// Memory from this address on.
    Allocator(NonNull<u8>, Layout),
    Mapping(#[expect(dead_code, reason = "unmaps when dropped")] MmapMut),
}

/// Growable memory aligned to [`ALIGNMENT`].
pub struct AlignedBytes {
    start: NonNull<u8>,
    len: usize,
    capacity: usize,
    owner: Owner,
}

// SAFETY: the memory belongs to this value alone; shared references only read it.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

impl Default for AlignedBytes {
    fn default() -> Self {
        AlignedBytes {
            start: NonNull::<Line>::dangling().cast(),
            len: 0,
            capacity: 0,
            owner: Owner::Nobody,
        }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if let Owner::Allocator(base, layout) = self.owner {
            // SAFETY: the memory was allocated with this layout, and its owner is gone after this.
            unsafe { std::alloc::dealloc(base.as_ptr(), layout) };
        }
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        AlignedBytes::copy_of(self.as_slice())
    }
}

impl AlignedBytes {
    /// Zeroed memory.
    ///
    /// # Errors
    /// If there is not as much memory.
    pub fn try_zeroed(len: usize) -> Result<AlignedBytes> {
        if len == 0 {
            return Ok(AlignedBytes::default());
        }
        let made = match len {
            LARGE.. => map(len),
            _ => allocate(len),
        };
        let failed = || Error::msg(format!("{len} bytes of memory cannot be had"));
        let (start, capacity, owner) = made.ok_or_else(failed)?;
        Ok(AlignedBytes {
            start,
            len,
            capacity,
            owner,
        })
    }

    /// Zeroed memory.
    ///
    /// # Panics
    /// If there is not as much memory.
    pub fn zeroed(len: usize) -> AlignedBytes {
        AlignedBytes::try_zeroed(len).unwrap_or_else(|e| panic!("{e}"))
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// If there is not as much memory.
    pub fn try_copy_of(bytes: &[u8]) -> Result<AlignedBytes> {
        let mut out = AlignedBytes::try_zeroed(bytes.len())?;
        out.as_mut_slice().copy_from_slice(bytes);
        Ok(out)
    }

    /// A copy of `bytes`.
    ///
    /// # Panics
    /// If there is not as much memory.
    pub fn copy_of(bytes: &[u8]) -> AlignedBytes {
        AlignedBytes::try_copy_of(bytes).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for `len` bytes; new ones are zero. Never shrinks, and grows by a half at least, so that a steady
    /// state does not allocate.
    ///
    /// # Errors
    /// If there is not as much memory; nothing changes then.
    pub fn try_grow_to(&mut self, len: usize) -> Result<()> {
        if len > self.capacity {
            let mut larger = AlignedBytes::try_zeroed(len.max(self.capacity / 2 * 3))?;
            larger.as_mut_slice()[..self.len].copy_from_slice(self.as_slice());
            *self = larger;
        }
        self.len = self.len.max(len);
        Ok(())
    }

    /// The address of the first byte. It stays until the memory grows or is dropped, and may be written through while
    /// no slice of it is in use.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` bytes are initialized and belong to this value, which is borrowed as long as the slice.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Zeroed memory from the allocator, which is not told of the alignment: it would write zeros to what the system has just
/// cleared, and so touch every page.
fn allocate(len: usize) -> Option<(NonNull<u8>, usize, Owner)> {
    let capacity = len.checked_next_multiple_of(ALIGNMENT)?;
    let bytes = capacity.checked_add(ALIGNMENT - ALLOCATED)?;
    let layout = Layout::from_size_align(bytes, ALLOCATED).ok()?;
    // SAFETY: the layout is not empty.
    let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })?;
    let skipped = base.as_ptr().align_offset(ALIGNMENT);
    // SAFETY: less is skipped than was added.
    let start = unsafe { base.add(skipped) };
    Some((start, capacity, Owner::Allocator(base, layout)))
}

/// Zeroed memory of its own pages, large ones where the system has them.
fn map(len: usize) -> Option<(NonNull<u8>, usize, Owner)> {
    let capacity = len.checked_next_multiple_of(PAGE)?;
    // The system aligns mappings to small pages.
    let mut map = MmapMut::map_anon(capacity.checked_add(PAGE)?).ok()?;
    let skipped = map.as_ptr().align_offset(PAGE);
    // A system without large pages refuses; small ones do as well. Miri knows none.
    #[cfg(all(target_os = "linux", not(miri)))]
    let _ = map.advise_range(memmap2::Advice::HugePage, skipped, capacity);
    let start = NonNull::new(map.as_mut_ptr())?;
    // SAFETY: less than a page is skipped, and one was mapped in addition to `capacity`.
    Some((unsafe { start.add(skipped) }, capacity, Owner::Mapping(map)))
}

/// Read-only memory of another owner; anything that is bytes.
pub trait SharedMemory: Send + Sync {
    /// The bytes, always the same ones.
    fn bytes(&self) -> &[u8];

    /// Told that most of the bytes will not be read again soon: what can be had again need not stay in memory.
    fn rest(&self) {}
}

impl<T: AsRef<[u8]> + Send + Sync> SharedMemory for T {
    fn bytes(&self) -> &[u8] {
        self.as_ref()
    }
}

/// Memory that somebody else keeps alive.
pub type SharedBytes = Arc<dyn SharedMemory>;

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
            Storage::Shared(bytes) => bytes.bytes(),
        }
    }

    /// The address and number of the bytes. Owned memory may be written through the pointer while no slice of it is
    /// in use, shared memory may not.
    pub fn raw(&self) -> (*mut u8, usize) {
        match self {
            Storage::Owned(bytes) => (bytes.start(), bytes.len()),
            Storage::Shared(bytes) => {
                let bytes = bytes.bytes();
                (bytes.as_ptr().cast_mut(), bytes.len())
            }
        }
    }

    /// Tells another owner that most of the bytes will not be read again soon.
    pub fn rest(&self) {
        if let Storage::Shared(bytes) = self {
            bytes.rest();
        }
    }

    /// The bytes, to write; shared memory is copied first.
    ///
    /// # Errors
    /// If there is no memory for the copy.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        if let Storage::Shared(bytes) = self {
            *self = Storage::Owned(AlignedBytes::try_copy_of(bytes.bytes())?);
        }
        match self {
            Storage::Owned(bytes) => Ok(bytes.as_mut_slice()),
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

    /// Bytes of this process that are in memory.
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages = pages.split(' ').nth(1).unwrap();
        pages.parse::<usize>().unwrap() * 4096
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    fn what_is_never_touched_is_not_in_memory() {
        let before = resident();
        // Less than is mapped by itself, more than comes from the heap.
        let all: Vec<_> = (0..400)
            .map(|_| AlignedBytes::zeroed(LARGE - 4096))
            .collect();
        let grown = resident().saturating_sub(before);
        assert!(grown < 800 << 20, "{grown} of {} bytes", all.len() * LARGE);
    }

    #[test]
    fn owned_memory_is_aligned_and_grows_with_zeros() {
        let mut bytes = AlignedBytes::copy_of(&[1, 2, 3]);
        assert_eq!(bytes.start() as usize % ALIGNMENT, 0);
        bytes.try_grow_to(100).unwrap();
        assert_eq!(&bytes.as_slice()[..4], &[1, 2, 3, 0]);
        bytes.try_grow_to(10).unwrap();
        assert_eq!(bytes.len(), 100, "memory never shrinks");
        let start = bytes.start();
        bytes.try_grow_to(128).unwrap();
        assert_eq!(bytes.start(), start, "there was room");
    }

    #[test]
    fn large_memory_lies_in_large_pages() {
        for len in [LARGE - 1, LARGE, LARGE + 12345] {
            let mut bytes = AlignedBytes::zeroed(len);
            assert_eq!(bytes.len(), len);
            let is_mapped = matches!(bytes.owner, Owner::Mapping(_));
            assert_eq!(is_mapped, len >= LARGE, "{len}");
            if is_mapped {
                assert_eq!(bytes.start() as usize % PAGE, 0);
                assert_eq!(bytes.capacity % PAGE, 0);
            }
            // Miri would take minutes to look at every byte.
            let step = if cfg!(miri) { PAGE / 16 } else { 1 };
            let mut some = bytes.as_slice().iter().step_by(step);
            assert!(some.all(|&byte| byte == 0));
            bytes.as_mut_slice()[len - 1] = 7;
            bytes.try_grow_to(3 * LARGE).unwrap();
            assert_eq!(&bytes.as_slice()[len - 1..=len], &[7, 0]);
            assert_eq!(bytes.clone().as_slice(), bytes.as_slice());
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri gives up itself")]
    fn memory_that_cannot_be_had_is_an_error() {
        for len in [usize::MAX, isize::MAX as usize, 1 << 62] {
            assert!(AlignedBytes::try_zeroed(len).is_err());
            let mut bytes = AlignedBytes::copy_of(&[5]);
            assert!(bytes.try_grow_to(len).is_err());
            assert_eq!(bytes.as_slice(), [5]);
        }
    }

    #[test]
    fn writing_to_shared_memory_copies_it() {
        let shared: SharedBytes = Arc::new(vec![7u8; 4]);
        let mut storage = Storage::Shared(shared.clone());
        storage.bytes_mut().unwrap()[0] = 1;
        assert_eq!(storage.bytes(), [1, 7, 7, 7]);
        assert_eq!(shared.bytes(), [7; 4]);
    }
}
