//! SHA-256 of files, as data sets and checkpoints are told apart by it.

use std::fmt::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::format_error;
use crate::error::Result;

/// The SHA-256 (FIPS 180-4) of `bytes`, in lower-case hexadecimal.
///
/// ```
/// use brain_blitz::formats::digest::sha256;
/// assert!(sha256(b"abc").starts_with("ba7816bf8f01cfea"));
/// ```
pub fn sha256(bytes: &[u8]) -> String {
    let mut hash = Running::default();
    hash.update(bytes);
    hash.finish()
}

/// A SHA-256 of bytes that come in pieces.
#[derive(Clone, Default)]
pub struct Running(Sha256);

impl Running {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything that was added, in lower-case hexadecimal.
    pub fn finish(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0.finalize() {
            write!(text, "{byte:02x}").expect("a string can be written to");
        }
        text
    }
}

/// Checks that `bytes`, the contents of `file`, have this SHA-256.
///
/// # Errors
/// If they do not; the message names both hashes.
pub fn check(file: &Path, bytes: &[u8], expected: &str) -> Result<()> {
    let found = sha256(bytes);
    match found == expected {
        true => Ok(()),
        false => {
            let what = format!("is {found}, not {expected}: the file is damaged or another one");
            Err(format_error(file, "SHA-256", None, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_standards() {
        // The examples of FIPS 180-4: one block, two blocks, nothing.
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            sha256(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(
            Running::default().finish(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_difference_names_the_file() {
        let wrong = check(Path::new("a.bin"), b"abd", &sha256(b"abc")).unwrap_err();
        assert!(
            wrong.to_string().starts_with("a.bin: SHA-256: is "),
            "{wrong}"
        );
        assert!(check(Path::new("a.bin"), b"abc", &sha256(b"abc")).is_ok());
    }
}
