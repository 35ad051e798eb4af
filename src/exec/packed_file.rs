//! Packed operands in files.
//!
//! One file per operand, named by what was packed (a hash of the bytes) and how (the layout). A file holds a header
//! (magic, length, a hash of the rest) and from [`START`] on the packed bytes, which are mapped. A file that does not
//! match in every respect is a miss, and is replaced. Files are written whole or not at all ([`crate::atomic`]). Trouble
//! with the file system is never an error: files only save time and memory.
//!
//! The hash finds accidents. It does not protect against somebody who can write to the folder, which therefore has to
//! belong to the user.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::atomic;

/// Where the packed bytes begin: aligned to vectors and cache lines.
const START: usize = 64;

const MAGIC: [u8; 8] = *b"BBPACK\0\x01";

/// What a file is named by.
pub(super) struct Contents {
    name: String,
    len: usize,
}

/// The packed bytes of a file.
pub(super) struct Mapped {
    map: Mmap,
}

impl Mapped {
    /// The packed bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map[START..]
    }
}

impl Contents {
    /// What `source` becomes in a layout, where it takes `len` bytes.
    pub(super) fn of(source: &[u8], layout: u64, len: usize) -> Contents {
        let [a, b] = hash(source);
        Contents {
            name: format!("{a:016x}{b:016x}-{layout:016x}.packed"),
            len,
        }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.name)
    }

    /// The file, if there is one and it is intact.
    pub(super) fn find(&self, folder: &Path) -> Option<Mapped> {
        let file = File::open(self.path(folder)).ok()?;
        // SAFETY: files in this folder are replaced, never changed.
        let map = unsafe { Mmap::map(&file) }.ok()?;
        let packed = map.get(START..)?;
        let is_intact = packed.len() == self.len && map[..START] == header(packed);
        is_intact.then_some(Mapped { map })
    }

    /// Writes the file and maps it; nothing if that fails.
    pub(super) fn keep(&self, folder: &Path, packed: &[u8]) -> Option<Mapped> {
        let packed = &packed[..self.len];
        fs::create_dir_all(folder).ok()?;
        let written = atomic::write(&self.path(folder), |file| {
            file.write_all(&header(packed))?;
            file.write_all(packed)
        });
        written.ok().and_then(|()| self.find(folder))
    }
}

fn header(packed: &[u8]) -> [u8; START] {
    let [a, b] = hash(packed);
    let mut header = [0; START];
    let words = [
        MAGIC,
        (packed.len() as u64).to_le_bytes(),
        a.to_le_bytes(),
        b.to_le_bytes(),
    ];
    header[..32].copy_from_slice(&words.concat());
    header
}

/// 128 bits that depend on every byte and its place: four lanes of multiplications, so that memory is the limit.
fn hash(bytes: &[u8]) -> [u64; 2] {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut lanes = [1u64, 2, 3, 4].map(|lane| FACTOR.wrapping_mul(lane));
    let mut chunks = bytes.chunks_exact(32);
    for chunk in &mut chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk.chunks_exact(8)) {
            let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
            *lane = (*lane ^ word).wrapping_mul(FACTOR).rotate_left(29);
        }
    }
    let mut rest = [0; 32];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    for (lane, word) in lanes.iter_mut().zip(rest.chunks_exact(8)) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        *lane = (*lane ^ word).wrapping_mul(FACTOR).rotate_left(29);
    }
    let mix = |seed: u64| {
        let lanes = lanes.iter().chain([&seed]);
        lanes.fold(bytes.len() as u64 ^ seed, |sum, lane| {
            let sum = (sum ^ lane).wrapping_mul(FACTOR);
            sum ^ (sum >> 31)
        })
    };
    [mix(5), mix(11)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed() -> Vec<u8> {
        (0..1000).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn a_file_is_found_again_and_only_by_the_same_contents() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::of(b"weights", 7, 1000);
        assert!(contents.find(folder.path()).is_none());
        let kept = contents.keep(folder.path(), &packed()).unwrap();
        assert_eq!(kept.bytes(), packed());
        assert_eq!(kept.bytes().as_ptr() as usize % 64, 0);
        assert_eq!(contents.find(folder.path()).unwrap().bytes(), packed());
        for other in [
            Contents::of(b"weightt", 7, 1000),
            Contents::of(b"weights", 8, 1000),
            Contents::of(b"weights", 7, 999),
        ] {
            assert!(other.find(folder.path()).is_none());
        }
    }

    #[test]
    fn a_damaged_file_is_a_miss_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let contents = Contents::of(b"weights", 7, 1000);
        drop(contents.keep(folder.path(), &packed()).unwrap());
        let path = contents.path(folder.path());
        let good = fs::read(&path).unwrap();
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let damaged = [
            flipped(0),
            flipped(9),
            flipped(START),
            flipped(good.len() - 1),
            good[..good.len() - 1].to_vec(),
            good[..10].to_vec(),
            vec![],
        ];
        for bytes in damaged {
            fs::write(&path, bytes).unwrap();
            assert!(contents.find(folder.path()).is_none());
        }
        assert!(contents.keep(folder.path(), &packed()).is_some());
        assert_eq!(fs::read(&path).unwrap(), good);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_only_a_miss() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let contents = Contents::of(b"weights", 7, 1000);
        assert!(contents.keep(file.path(), &packed()).is_none());
    }

    #[test]
    fn the_hash_depends_on_every_byte() {
        for len in [0, 1, 31, 32, 33, 100] {
            let bytes: Vec<u8> = packed()[..len].to_vec();
            let whole = hash(&bytes);
            for at in 0..len {
                let mut other = bytes.clone();
                other[at] ^= 0x80;
                assert!(hash(&other).iter().zip(&whole).all(|(a, b)| a != b));
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_ne!(hash(&longer), whole, "{len}");
        }
    }
}
