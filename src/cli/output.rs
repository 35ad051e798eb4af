//! Standard output: every write is flushed, so that text appears as it comes, and a closed pipe is told apart from
//! an error. Also what can be known beforehand about a file that is to be written.

use std::io::{self, Write};
use std::path::Path;

use brain_blitz::Error;

use super::failure::{Failure, Outcome};

/// Writes `text` to standard output.
///
/// # Errors
/// [`Failure::OutputClosed`] when nobody reads any more, otherwise what the system says.
pub fn write(text: &str) -> Outcome {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    written.map_err(|source| match source.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::from(Error::Io {
            path: "standard output".into(),
            source,
        }),
    })
}

/// Writes `value` as one line of JSON.
///
/// # Errors
/// As [`write`].
pub fn write_json(value: &impl serde::Serialize) -> Outcome {
    let line = serde_json::to_string(value).map_err(|error| Failure::new(error.to_string()))?;
    write(&(line + "\n"))
}

/// Finds out early, before a model is loaded, that a file cannot be written.
///
/// # Errors
/// If `path` is a folder, or its folder does not exist.
pub fn check_file(path: &Path) -> Outcome {
    if path.is_dir() {
        return Err(Failure::new(format!("{}: is a folder", path.display())));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => return Ok(()),
    };
    match folder.metadata() {
        Ok(_) => Ok(()),
        Err(source) => Err(Failure::from(Error::Io {
            path: folder.to_path_buf(),
            source,
        })
        .hint("the folder that the file is to lie in must exist")),
    }
}
