//! Memory that numbers do not lie in as they usually do.

use std::sync::Arc;

/// Bytes at an odd address.
pub struct Odd(Vec<u8>);

impl Odd {
    /// A copy of these.
    pub fn new(bytes: &[u8]) -> Arc<Odd> {
        let mut all = vec![0; bytes.len() + 64];
        let start = Odd::start(&all);
        all[start..start + bytes.len()].copy_from_slice(bytes);
        Arc::new(Odd(all))
    }

    fn start(all: &[u8]) -> usize {
        1 + all.as_ptr().align_offset(32)
    }
}

impl AsRef<[u8]> for Odd {
    fn as_ref(&self) -> &[u8] {
        let start = Odd::start(&self.0);
        &self.0[start..start + self.0.len() - 64]
    }
}
