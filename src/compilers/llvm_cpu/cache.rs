//! Compiled objects on disk.
//!
//! One file per object, named by its [`Key`]. A file holds a header (magic, key, length,
//! checksum) and the object; a file that does not match in every respect is a miss, and is
//! replaced by the next [`ObjectCache::put`]. Files are written under a temporary name and
//! renamed, so readers see all of an object or none of it; a machine that loses power may leave part of one, which the
//! checksum finds, so nobody waits for the disk. Trouble with the file system is never an error: the cache only saves
//! time.
//!
//! An object is also kept in memory as long as the [`ObjectCache`] and its clones live: one compilation makes it once,
//! in whatever thread needs it first.
//!
//! The directory must belong to the user: what is in it is executed. A checksum protects against
//! accidents, not against somebody who can write there.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::knobs;

const MAGIC: [u8; 8] = *b"BBOBJ\0\0\x01";
const HEADER: usize = 8 + 16 + 8 + 8;

static HITS: AtomicUsize = AtomicUsize::new(0);

/// How many objects this process has found in caches.
pub fn hits() -> usize {
    HITS.load(Ordering::Relaxed)
}

/// 128 bits that name an object by everything it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u64; 2]);

impl Key {
    /// The key of a list of byte strings; where one ends and the next begins matters.
    pub fn of(parts: &[&[u8]]) -> Key {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(salt);
            for part in parts {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
            hasher.finish()
        };
        Key([half(1), half(2)])
    }

    /// The first half of it.
    pub fn short(self) -> u64 {
        self.0[0]
    }

    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0[0].to_le_bytes());
        bytes[8..].copy_from_slice(&self.0[1].to_le_bytes());
        bytes
    }

    fn file_name(self) -> String {
        format!("{self}.o")
    }
}

impl fmt::Display for Key {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

/// A directory of compiled objects, or nothing at all.
#[derive(Clone, Debug)]
pub struct ObjectCache {
    dir: Option<PathBuf>,
    known: Arc<Mutex<HashMap<Key, Slot>>>,
}

/// An object, once it is made; locked while it is.
type Slot = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

impl ObjectCache {
    /// The cache that `BB_CACHE` and `BB_CACHE_DIR` ask for.
    pub fn from_knobs() -> ObjectCache {
        ObjectCache::of(knobs::cache_folder())
    }

    /// A cache in `dir`, which is created when something is put into it.
    pub fn in_dir(dir: &Path) -> ObjectCache {
        ObjectCache::of(Some(dir.to_path_buf()))
    }

    /// A cache that keeps nothing on disk.
    pub fn disabled() -> ObjectCache {
        ObjectCache::of(None)
    }

    fn of(dir: Option<PathBuf>) -> ObjectCache {
        ObjectCache {
            dir,
            known: Arc::default(),
        }
    }

    /// The object of `key`: the one that is known, or stored and intact, or what `make` makes of it now, which is stored.
    /// Another thread that asks for it meanwhile waits; a failure is not kept.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get_or_make(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Vec<u8>>,
    ) -> Result<Arc<Vec<u8>>> {
        let slot = {
            // Whatever panicked left the map as it was.
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(key).or_default().clone()
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = &*slot {
            return Ok(object.clone());
        }
        let object = match self.get(key) {
            Some(object) => object,
            None => {
                let object = make()?;
                self.put(key, &object);
                object
            }
        };
        Ok(slot.insert(Arc::new(object)).clone())
    }

    /// The object stored under `key`, if there is one and it is intact.
    pub fn get(&self, key: Key) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.dir.as_ref()?.join(key.file_name())).ok()?;
        let object = bytes.get(HEADER..)?;
        if bytes[..HEADER] != header(key, object) {
            return None;
        }
        bytes.drain(..HEADER);
        HITS.fetch_add(1, Ordering::Relaxed);
        Some(bytes)
    }

    /// Stores `object` under `key`, or does nothing if it cannot.
    pub fn put(&self, key: Key, object: &[u8]) {
        let Some(dir) = &self.dir else { return };
        let temporary = dir.join(temporary_name());
        if write(dir, &temporary, &header(key, object), object).is_err()
            || fs::rename(&temporary, dir.join(key.file_name())).is_err()
        {
            let _ = fs::remove_file(&temporary);
        }
    }
}

fn write(dir: &Path, path: &Path, header: &[u8], object: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut file = fs::File::create_new(path)?;
    file.write_all(header)?;
    file.write_all(object)
}

/// A name no other thread or process uses now.
fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(
        "{}-{}.tmp",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

fn header(key: Key, object: &[u8]) -> [u8; HEADER] {
    let checksum = Key::of(&[object]).0[0];
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..24].copy_from_slice(&key.bytes());
    header[24..32].copy_from_slice(&(object.len() as u64).to_le_bytes());
    header[32..].copy_from_slice(&checksum.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> (tempfile::TempDir, ObjectCache, Key, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let cache = ObjectCache::in_dir(&dir.path().join("deep").join("down"));
        let key = Key::of(&[b"ir", b"cpu"]);
        cache.put(key, b"object bytes");
        let file = dir.path().join("deep/down").join(key.file_name());
        (dir, cache, key, file)
    }

    #[test]
    fn what_was_put_is_found_and_nothing_else_is_left() {
        let (_dir, cache, key, file) = stored();
        assert_eq!(cache.get(key).unwrap(), b"object bytes");
        assert_eq!(cache.get(Key::of(&[b"irc", b"pu"])), None);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn any_changed_missing_or_added_byte_is_a_miss() {
        let (_dir, cache, key, file) = stored();
        let good = fs::read(&file).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 0x10;
            fs::write(&file, &bad).unwrap();
            assert_eq!(cache.get(key), None, "byte {position} changed");
            fs::write(&file, &good[..position]).unwrap();
            assert_eq!(cache.get(key), None, "cut to {position} bytes");
        }
        fs::write(&file, [&good[..], b"x"].concat()).unwrap();
        assert_eq!(cache.get(key), None, "a byte added");
        cache.put(key, b"object bytes");
        assert_eq!(cache.get(key).unwrap(), b"object bytes");
    }

    #[test]
    fn a_disabled_or_unwritable_cache_is_silent() {
        let key = Key::of(&[b"x"]);
        ObjectCache::disabled().put(key, b"y");
        assert_eq!(ObjectCache::disabled().get(key), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        let cache = ObjectCache::in_dir(file.path());
        cache.put(key, b"y");
        assert_eq!(cache.get(key), None);
    }

    #[test]
    fn an_object_is_made_once_whoever_needs_it_and_a_failure_is_not_kept() {
        let (cache, key) = (ObjectCache::disabled(), Key::of(&[b"x"]));
        let failed = cache.get_or_make(key, || Err(crate::Error::msg("no")));
        assert!(failed.is_err());
        let n_made = AtomicUsize::new(0);
        let make = || {
            n_made.fetch_add(1, Ordering::Relaxed);
            Ok(vec![7])
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let cache = cache.clone();
                scope.spawn(move || assert_eq!(*cache.get_or_make(key, make).unwrap(), [7]));
            }
        });
        assert_eq!(n_made.load(Ordering::Relaxed), 1);
    }
}
