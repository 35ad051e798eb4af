//! A folder for targets whose input is a file in one.

use std::path::PathBuf;
use std::sync::LazyLock;

/// The folder, one for each process.
pub static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("brain-blitz-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder for temporary files can be written");
    folder
});
