//! The model that ships with the repository.

use std::path::{Path, PathBuf};

/// The model beside the sources, or below the current folder when those are gone.
pub fn default_model() -> PathBuf {
    let name = "models/gemma2-shakespeare";
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if beside.exists() { beside } else { name.into() }
}
