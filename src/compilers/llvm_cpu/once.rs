//! Code that many products share, compiled once per process.
//!
//! The object cache on disk ([`super::cache`]) saves compiling; this saves generating the IR that it is looked up by.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;

/// What is compiled once per process, by what it depends on.
#[derive(Debug)]
pub(super) struct OncePerProcess<K, V>(Mutex<Option<HashMap<K, Arc<V>>>>);

impl<K: Eq + Hash, V> OncePerProcess<K, V> {
    pub(super) const fn new() -> OncePerProcess<K, V> {
        OncePerProcess(Mutex::new(None))
    }

    /// What was made for `key`, or what `make` makes of it now; a failure is not kept.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) fn get_or_make(&self, key: K, make: impl FnOnce(&K) -> Result<V>) -> Result<Arc<V>> {
        // Whatever panicked left the map as it was.
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = made.get_or_insert_default();
        if let Some(known) = made.get(&key) {
            return Ok(known.clone());
        }
        let value = Arc::new(make(&key)?);
        made.insert(key, value.clone());
        Ok(value)
    }
}
