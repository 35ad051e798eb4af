//! Files that are replaced in one step: write a temporary file beside the target, sync it, rename it over the target.
//!
//! Whatever kills the process, the target is the old file or the new one, whole. A failed write removes its temporary
//! file; a killed one leaves it (its name starts with a dot and ends in `.tmp`).
//!
//! A target that is a symbolic link is replaced by a file; the file that it pointed to stays as it was.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Replaces the file at `path` by what `fill` writes.
///
/// # Errors
/// If `path` has no file name, its folder does not exist, or writing, syncing or renaming fails. The old file, if any,
/// is then untouched.
pub fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    replace(path, fill).map_err(|source| Error::Io {
        path: path.to_path_buf(),
        source,
    })
}

/// Removes the temporary file unless it was renamed.
struct Temporary {
    path: PathBuf,
    renamed: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // A second failure would only hide the first one, which the caller is about to see.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn replace(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let (file, mut temporary) = create_beside(path)?;
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    fill(&mut writer)?;
    let file = writer
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary.path, path)?;
    temporary.renamed = true;
    sync_folder(folder_of(path))
}

/// The folder that `path` is in; a bare file name is in the current one.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn create_beside(path: &Path) -> io::Result<(File, Temporary)> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    loop {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{count}.tmp", std::process::id()));
        let path = folder_of(path).join(hidden);
        match options.open(&path) {
            // A killed process with our id left it; the next count is free.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => {
                let renamed = false;
                return Ok((file, Temporary { path, renamed }));
            }
        }
    }
}

/// Makes a rename inside the folder durable, where folders can be synced.
#[cfg(unix)]
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync_folder(_folder: &Path) -> io::Result<()> {
    Ok(())
}

/// Replaces the file at `path` by `contents`.
///
/// # Errors
/// As [`write()`].
pub fn write_bytes(path: &Path, contents: &[u8]) -> Result<()> {
    write(path, |file| file.write_all(contents))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }

    #[test]
    fn replaces_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        write_bytes(&path, b"old").unwrap();
        write_bytes(&path, b"new, and longer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new, and longer");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        write_bytes(&path, b"old").unwrap();
        let error = write(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("disk on fire"))
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{}: disk on fire", path.display())
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_path_without_a_name_is_an_error() {
        let error = write_bytes(Path::new("/"), b"").unwrap_err().to_string();
        assert_eq!(error, "/: the path has no file name");
    }
}
