//! The text to train on and the text to validate with.

use std::io::Read;
use std::path::{Path, PathBuf};

use brain_blitz::{Error, Result};
use flate2::read::GzDecoder;

/// Both texts.
pub struct Texts {
    pub train: String,
    pub val: String,
}

impl Texts {
    /// `train.txt` and `val.txt` of a folder, or the same with `.gz`.
    pub fn read(folder: Option<&Path>) -> Result<Texts> {
        let folder = match folder {
            Some(folder) => folder.to_path_buf(),
            None => default_folder()?,
        };
        Ok(Texts {
            train: read(&folder, "train.txt")?,
            val: read(&folder, "val.txt")?,
        })
    }
}

fn default_folder() -> Result<PathBuf> {
    let data = brain_blitz::knobs::data_dir().ok_or_else(|| {
        Error::msg("no text to train on: pass --data FOLDER with train.txt and val.txt in it")
    })?;
    Ok(data.join("shakespeare"))
}

fn read(folder: &Path, name: &str) -> Result<String> {
    let plain = folder.join(name);
    let packed = folder.join(format!("{name}.gz"));
    let path = if plain.exists() { plain } else { packed };
    let io = |source| Error::Io {
        path: path.clone(),
        source,
    };
    let file = std::fs::File::open(&path).map_err(io)?;
    let mut text = String::new();
    let is_packed = path.extension().is_some_and(|end| end == "gz");
    match is_packed {
        true => GzDecoder::new(file).read_to_string(&mut text),
        false => (&file).read_to_string(&mut text),
    }
    .map_err(io)?;
    Ok(text)
}
