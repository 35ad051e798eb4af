//! Checkpoints of a training run: everything that it needs to go on, in one folder a checkpoint.
//!
//! ```text
//! runs/a/000001-step-500/model.safetensors     weights by name; a model's loader reads it as it is
//!                        state.safetensors     other arrays by name: an optimizer's moments, say
//!                        checkpoint.json       step, the caller's metadata, length and SHA-256 of the files above
//! runs/a/000002-step-1000/...
//! ```
//!
//! Invariants:
//! - A folder of such a name is whole. It is filled under another name, synced and renamed, so whatever kills the
//!   process leaves all of a checkpoint or none of it; what was left half done is removed by the next save.
//! - Nothing is overwritten. Every save takes a new number, and the highest number is the latest, also when a run went
//!   back to an earlier step. The oldest go once the new one is safe.
//! - Loading checks every byte of the arrays against its hash. [`Store::load_latest`] passes over a damaged checkpoint to the one
//!   before it, and says so.
//!
//! One process at a time may save to a store. What is in a checkpoint is the caller's business: arrays by name, and one
//! serde type for the rest (step of the schedule, seeds, a loader's [`Position`](super::data::Position)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::array::Array;
use crate::atomic;
use crate::error::{Error, Result};
use crate::formats::{
    self, Bytes, StoredType, TensorView, digest, format_error, io_error, safetensors,
};
use crate::graph::GraphTensor;

/// The file with the weights; the name is that of a model's file, so that a checkpoint can be opened as a model.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The file with all other arrays.
pub const STATE_FILE: &str = "state.safetensors";
/// The file with the metadata and the hashes.
pub const MANIFEST_FILE: &str = "checkpoint.json";

/// What [`MANIFEST_FILE`] says it is.
const VERSION: u32 = 1;
/// The longest metadata that are read.
const LONGEST_MANIFEST: u64 = 100_000_000;
/// What names begin with that are no checkpoints: one that is being written or removed.
const UNFINISHED: &str = ".unfinished-";

/// Arrays by name.
pub type Arrays = BTreeMap<String, Array>;

/// Everything that a run needs to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint<M> {
    /// How many steps are behind.
    pub step: u64,
    /// The model's parameters.
    pub weights: Arrays,
    /// All other arrays.
    pub state: Arrays,
    /// All else. A float in it must be finite, since JSON has no other.
    pub meta: M,
}

/// A checkpoint that was loaded, and what was passed over.
#[derive(Debug)]
pub struct Loaded<M> {
    /// The latest checkpoint that is whole.
    pub checkpoint: Checkpoint<M>,
    /// Its folder.
    pub folder: PathBuf,
    /// Why later ones could not be loaded, the latest first; usually there are none.
    pub skipped: Vec<Error>,
}

/// What [`MANIFEST_FILE`] holds.
#[derive(Serialize, Deserialize)]
struct Manifest<M> {
    version: u32,
    step: u64,
    files: BTreeMap<String, FileFacts>,
    meta: M,
}

/// How a file can be told from a damaged one.
#[derive(Serialize, Deserialize)]
struct FileFacts {
    bytes: u64,
    sha256: String,
}

/// The checkpoints of a run, in one folder.
///
/// ```
/// use brain_blitz::array::{Array, Data};
/// use brain_blitz::train::checkpoint::{Checkpoint, Store};
/// use brain_blitz::train::data::Position;
///
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let folder = folder.path();
/// let store = Store::new(folder).keep(2);
/// for step in 1..=3 {
///     let weight = Array::new(vec![2], Data::F32(vec![step as f32; 2]));
///     store.save(&Checkpoint {
///         step,
///         weights: [("weight".to_owned(), weight)].into(),
///         state: Default::default(),
///         meta: Position { epoch: 0, batch: step as usize },
///     })?;
/// }
/// let latest = store.load_latest::<Position>()?.expect("there is one").checkpoint;
/// assert_eq!((latest.step, latest.meta.batch), (3, 3));
/// assert_eq!(latest.weights["weight"].to_f32(), [3.0, 3.0]);
/// assert_eq!(store.list()?.len(), 2);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    keep: usize,
}

/// A checkpoint's folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The number of the save, from 1.
    pub number: u64,
    /// The step at which it was made.
    pub step: u64,
    /// Where it is.
    pub folder: PathBuf,
}

impl Store {
    /// The checkpoints in `folder`, all of which are kept. The first save creates the folder.
    pub fn new(folder: impl Into<PathBuf>) -> Store {
        Store {
            folder: folder.into(),
            keep: usize::MAX,
        }
    }

    /// A save removes all but the latest `n`.
    ///
    /// # Panics
    /// If `n` is 0.
    #[track_caller]
    pub fn keep(self, n: usize) -> Store {
        assert!(n > 0, "a store keeps at least one checkpoint");
        Store { keep: n, ..self }
    }

    /// The checkpoints that are there, the oldest first; whether they are damaged is not looked at.
    ///
    /// # Errors
    /// If the folder is there and cannot be listed.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = self.names()?.iter().filter_map(|n| self.entry(n)).collect();
        entries.sort_by_key(|entry| entry.number);
        Ok(entries)
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| io_error(&self.folder, error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| io_error(&self.folder, error))?;
            // A name that is no text is none of ours.
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        let (number, step) = name.split_once("-step-")?;
        Some(Entry {
            number: number.parse().ok()?,
            step: step.parse().ok()?,
            folder: self.folder.join(name),
        })
    }

    /// Saves a checkpoint as the latest, and gives its folder.
    ///
    /// # Errors
    /// If a file cannot be written, two arrays of a group cannot be told apart, or the metadata would not be the same
    /// when read again. The checkpoints that are there stay as they are.
    pub fn save<M>(&self, checkpoint: &Checkpoint<M>) -> Result<PathBuf>
    where
        M: Serialize + DeserializeOwned,
    {
        fs::create_dir_all(&self.folder).map_err(|error| io_error(&self.folder, error))?;
        for name in self.names()?.iter().filter(|n| n.starts_with(UNFINISHED)) {
            remove(&self.folder.join(name))?;
        }
        let entries = self.list()?;
        let number = entries.last().map_or(0, |entry| entry.number) + 1;
        let name = format!("{number:06}-step-{}", checkpoint.step);
        let unfinished = self.folder.join(format!("{UNFINISHED}{name}"));
        let folder = self.folder.join(name);
        fs::create_dir(&unfinished).map_err(|error| io_error(&unfinished, error))?;
        if let Err(error) = fill(&unfinished, checkpoint) {
            // The first error is the one to tell; the next save tries again to remove the folder.
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        self.rename(&unfinished, &folder)?;
        let old = (entries.len() + 1).saturating_sub(self.keep);
        for entry in &entries[..old] {
            let name = entry.folder.file_name().unwrap_or_default();
            let leaving = format!("{UNFINISHED}{}", name.to_string_lossy());
            let leaving = self.folder.join(leaving);
            self.rename(&entry.folder, &leaving)?;
            remove(&leaving)?;
        }
        Ok(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|error| io_error(to, error))?;
        atomic::sync_folder(&self.folder).map_err(|error| io_error(&self.folder, error))
    }

    /// Loads the latest checkpoint that is whole; `None` when there is none at all.
    ///
    /// # Errors
    /// If the folder cannot be listed, or there are checkpoints and none of them can be loaded: what is wrong with the
    /// latest.
    pub fn load_latest<M: DeserializeOwned>(&self) -> Result<Option<Loaded<M>>> {
        let mut skipped = Vec::new();
        for Entry { folder, .. } in self.list()?.into_iter().rev() {
            match load(&folder) {
                Err(error) => skipped.push(error),
                Ok(checkpoint) => {
                    return Ok(Some(Loaded {
                        checkpoint,
                        folder,
                        skipped,
                    }));
                }
            }
        }
        match skipped.into_iter().next() {
            None => Ok(None),
            Some(error) => Err(error),
        }
    }
}

/// Loads the checkpoint in this folder.
///
/// # Errors
/// If a file is missing or is not the one that was saved, or the metadata are of another type. The message names the
/// file.
pub fn load<M: DeserializeOwned>(folder: &Path) -> Result<Checkpoint<M>> {
    let manifest: Manifest<M> = read_manifest(&folder.join(MANIFEST_FILE))?;
    let arrays = |name: &str| {
        let file = folder.join(name);
        let Some(facts) = manifest.files.get(name) else {
            let field = format!("files.{name}");
            return Err(format_error(
                &folder.join(MANIFEST_FILE),
                &field,
                None,
                "is missing",
            ));
        };
        read_arrays(&file, facts)
    };
    Ok(Checkpoint {
        step: manifest.step,
        weights: arrays(WEIGHTS_FILE)?,
        state: arrays(STATE_FILE)?,
        meta: manifest.meta,
    })
}

fn read_manifest<M: DeserializeOwned>(file: &Path) -> Result<Manifest<M>> {
    let text = Bytes::read(file, LONGEST_MANIFEST)?;
    let manifest: Manifest<M> = serde_json::from_slice(&text)
        .map_err(|error| format_error(file, "json", None, error.to_string()))?;
    match manifest.version {
        VERSION => Ok(manifest),
        other => {
            let what = format!("is {other}; this program reads {VERSION}");
            Err(format_error(file, "version", None, what))
        }
    }
}

fn read_arrays(file: &Path, facts: &FileFacts) -> Result<Arrays> {
    let bytes = Bytes::map(file)?;
    if bytes.len() as u64 != facts.bytes {
        let what = format!("has {} bytes, {} were saved", bytes.len(), facts.bytes);
        return Err(format_error(file, "file size", None, what));
    }
    digest::check(file, &bytes, &facts.sha256)?;
    let tensors = formats::Checkpoint::from_bytes(file, bytes)?;
    let mut arrays = Arrays::new();
    for name in tensors.names() {
        let tensor = tensors.get(name)?;
        let Some(dtype) = tensor.dtype.to_dtype() else {
            let what = format!("is {}, which is no array's type", tensor.dtype.name());
            return Err(format_error(file, format!("tensor {name:?}"), None, what));
        };
        let data = tensor.convert_to(dtype)?;
        arrays.insert(
            name.to_owned(),
            Array::from_bytes(tensor.shape, dtype, &data),
        );
    }
    Ok(arrays)
}

/// Writes all files of a checkpoint, each synced.
fn fill<M: Serialize + DeserializeOwned>(folder: &Path, checkpoint: &Checkpoint<M>) -> Result<()> {
    let mut files = BTreeMap::new();
    for (name, arrays) in [
        (WEIGHTS_FILE, &checkpoint.weights),
        (STATE_FILE, &checkpoint.state),
    ] {
        files.insert(name.to_owned(), write_arrays(&folder.join(name), arrays)?);
    }
    let file = folder.join(MANIFEST_FILE);
    let manifest = Manifest {
        version: VERSION,
        step: checkpoint.step,
        files,
        meta: &checkpoint.meta,
    };
    let json = |error: serde_json::Error| format_error(&file, "meta", None, error.to_string());
    let text = serde_json::to_string_pretty(&manifest).map_err(json)?;
    // What cannot be read again, a NaN for one, is found now and not when the run is to go on.
    let read: Manifest<M> = serde_json::from_str(&text).map_err(json)?;
    let again = serde_json::to_value(&read.meta).map_err(json)?;
    if again != serde_json::to_value(&checkpoint.meta).map_err(json)? {
        let what = "is not the same when it is read again";
        return Err(format_error(&file, "meta", None, what));
    }
    atomic::write_bytes(&file, text.as_bytes())
}

fn write_arrays(file: &Path, arrays: &Arrays) -> Result<FileFacts> {
    let tensor = |(name, array): (&String, &Array)| TensorView {
        name: name.clone(),
        dtype: StoredType::from(array.dtype()),
        shape: array.dims().to_vec(),
        bytes: Bytes::copy_of(array.bytes()),
    };
    let tensors: Vec<TensorView> = arrays.iter().map(tensor).collect();
    safetensors::write(file, &tensors)?;
    let bytes = Bytes::map(file)?;
    Ok(FileFacts {
        bytes: bytes.len() as u64,
        sha256: digest::sha256(&bytes),
    })
}

/// The current data of tensors with names: a model's parameters, its state, an optimizer's states, or several of these
/// in a chain.
///
/// ```
/// use brain_blitz::nn::{BatchNorm, Module};
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::checkpoint::{parameter_arrays, set_parameters};
/// let mut cx = Graph::new();
/// let norm = BatchNorm::new(&mut cx, 3);
/// norm.init(1);
/// let weights = parameter_arrays(&norm.parameters())?;
/// // Running statistics are no parameters, but without them training does not go on as it would have.
/// let state = parameter_arrays(&norm.state())?;
/// assert!(state.keys().eq(["running_mean", "running_var"]));
/// set_parameters(&norm.parameters(), &weights)?;
/// set_parameters(&norm.state(), &state)?;
/// # Ok::<(), brain_blitz::Error>(())
/// ```
///
/// # Errors
/// If one has no data, or two have the same name.
pub fn parameter_arrays<'a>(
    tensors: impl IntoIterator<Item = (&'a str, GraphTensor)>,
) -> Result<Arrays> {
    let mut arrays = Arrays::new();
    for (name, tensor) in tensors {
        if arrays
            .insert(name.to_owned(), tensor.try_array()?)
            .is_some()
        {
            return Err(Error::msg(format!("two tensors are called {name:?}")));
        }
    }
    Ok(arrays)
}

/// Gives tensors their data, by name.
///
/// # Errors
/// If a tensor is not among the arrays, an array is none of the tensors', or one does not fit; no tensor is changed by
/// the first two.
pub fn set_parameters<'a>(
    tensors: impl IntoIterator<Item = (&'a str, GraphTensor)>,
    arrays: &Arrays,
) -> Result<()> {
    let mut both = Vec::new();
    for (name, tensor) in tensors {
        let array = arrays.get(name);
        let missing = || Error::msg(format!("the checkpoint has no {name:?}"));
        both.push((name, tensor, array.ok_or_else(missing)?));
    }
    let names: BTreeSet<&str> = both.iter().map(|row| row.0).collect();
    if let Some(name) = arrays.keys().find(|name| !names.contains(name.as_str())) {
        return Err(Error::msg(format!(
            "the checkpoint has {name:?}, which the model has not"
        )));
    }
    let mut both = both.into_iter();
    both.try_for_each(|(_, tensor, array)| tensor.try_set(array.clone()).map(drop))
}

fn remove(folder: &Path) -> Result<()> {
    fs::remove_dir_all(folder).map_err(|error| io_error(folder, error))
}
