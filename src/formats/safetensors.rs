//! Checkpoints in the safetensors format: one file, or a folder with one file or several shards and their index.
//!
//! Files are memory-mapped, and a tensor is a region of its map, so opening a checkpoint reads headers only.
//!
//! Layout of a file: the header's length (8 bytes, little-endian), the header (a JSON object from tensor name to
//! `{"dtype", "shape", "data_offsets": [begin, end]}`, and optionally `"__metadata__"`), the data. Offsets count from
//! the start of the data. See <https://huggingface.co/docs/safetensors>.
//!
//! Invariants of an open [`Checkpoint`]: the tensors of a file tile its data exactly, without holes or overlaps; each
//! has the bytes that its type and shape ask for; names are unique over all shards; the index, if there is one, names
//! exactly the tensors that the shards hold.
//!
//! The `safetensors` crate has a reader too. It is the oracle of the tests and not used here: its errors name neither
//! the tensor nor the place, and it keeps the last of two tensors of one name silently.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::bytes::Bytes;
use super::suggest::did_you_mean;
use super::tensor::{StoredType, TensorView};
use super::{format_error, json, quote, tensor_field};
use crate::error::Result;

mod header;
mod write;

pub use write::{write, write_with_metadata};

/// The longest header that is read; the format's own limit.
const LONGEST_HEADER: u64 = 100_000_000;
/// The longest index that is read.
const LONGEST_INDEX: u64 = 100_000_000;
/// The header's entry that is not a tensor.
const METADATA: &str = "__metadata__";
/// The file of a folder that has only one.
const SINGLE_FILE: &str = "model.safetensors";
/// The index of a folder with shards.
const INDEX_FILE: &str = "model.safetensors.index.json";

/// An open checkpoint: the tensors of one file, or of all shards of a folder.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    source: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
struct Shard {
    file: PathBuf,
    bytes: Bytes,
}

/// Where a tensor is.
#[derive(Clone, Debug)]
struct Entry {
    shard: usize,
    dtype: StoredType,
    shape: Vec<usize>,
    /// Bytes of the file, not of its data.
    start: usize,
    end: usize,
}

impl Checkpoint {
    /// Opens a checkpoint: a `.safetensors` file, an `.index.json` file, or a folder with `model.safetensors` or
    /// `model.safetensors.index.json` (the former wins when both are there).
    ///
    /// The files must not be changed in place while the checkpoint or a tensor of it is alive; see [`super::bytes`].
    ///
    /// # Errors
    /// If a file cannot be opened, or any of the invariants in the module's header does not hold.
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        if path.is_dir() {
            let (single, index) = (path.join(SINGLE_FILE), path.join(INDEX_FILE));
            return match (single.exists(), index.exists()) {
                (true, _) => Checkpoint::open_file(&single),
                (false, true) => Checkpoint::open_sharded(&index),
                (false, false) => Err(format_error(
                    path,
                    "folder",
                    None,
                    format!("has neither {SINGLE_FILE} nor {INDEX_FILE}"),
                )),
            };
        }
        match path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            true => Checkpoint::open_sharded(path),
            false => Checkpoint::open_file(path),
        }
    }

    fn open_file(file: &Path) -> Result<Checkpoint> {
        Checkpoint::from_bytes(file, Bytes::map(file)?)
    }

    /// The checkpoint in `bytes`, the contents of a safetensors file; messages call it `file`.
    ///
    /// # Errors
    /// If the bytes are not a valid safetensors file.
    pub fn from_bytes(file: &Path, bytes: Bytes) -> Result<Checkpoint> {
        let mut checkpoint = Checkpoint::empty(file);
        checkpoint.add_shard(file.to_path_buf(), bytes)?;
        Ok(checkpoint)
    }

    fn empty(source: &Path) -> Checkpoint {
        Checkpoint {
            source: source.to_path_buf(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
        }
    }

    fn open_sharded(index: &Path) -> Result<Checkpoint> {
        let weight_map = read_index(index)?;
        let folder = index.parent().unwrap_or(Path::new(""));
        let mut checkpoint = Checkpoint::empty(index);
        let mut files: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, shard) in &weight_map {
            if files.contains_key(shard.as_str()) {
                continue;
            }
            let file = folder.join(shard);
            if !file.is_file() {
                let what = format!("is in shard {}, which does not exist", quote(shard));
                return Err(format_error(index, tensor_field(name), None, what));
            }
            files.insert(shard, checkpoint.shards.len());
            let bytes = Bytes::map(&file)?;
            checkpoint.add_shard(file, bytes)?;
        }
        for (name, shard) in &weight_map {
            let found = checkpoint.tensors.get(name).map(|entry| entry.shard);
            if found != files.get(shard.as_str()).copied() {
                let what = format!("is not in shard {}, where the index puts it", quote(shard));
                return Err(format_error(index, tensor_field(name), None, what));
            }
        }
        if let Some((name, entry)) = checkpoint
            .tensors
            .iter()
            .find(|(name, _)| !weight_map.contains_key(*name))
        {
            let shard = checkpoint.shards[entry.shard].file.display();
            let what = format!("is in {shard}, but not in the index");
            return Err(format_error(index, tensor_field(name), None, what));
        }
        Ok(checkpoint)
    }

    /// Reads a shard's header and takes over its tensors.
    fn add_shard(&mut self, file: PathBuf, bytes: Bytes) -> Result<()> {
        let header = header::parse(&file, &bytes)?;
        let shard = self.shards.len();
        for (name, slot) in header.tensors {
            if let Some(other) = self.tensors.get(&name) {
                let other = self.shards[other.shard].file.display();
                let what = format!("is in {other} too");
                return Err(format_error(&file, tensor_field(&name), None, what));
            }
            let entry = Entry {
                shard,
                dtype: slot.dtype,
                shape: slot.shape,
                start: slot.start,
                end: slot.end,
            };
            self.tensors.insert(name, entry);
        }
        self.metadata.extend(header.metadata);
        self.shards.push(Shard { file, bytes });
        Ok(())
    }

    /// The file that was opened: the safetensors file or the index.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The free-form strings of the header; of several shards, the last one's entry for a key.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The file that holds the tensor called `name`.
    pub fn file_of(&self, name: &str) -> Option<&Path> {
        let entry = self.tensors.get(name)?;
        Some(&self.shards[entry.shard].file)
    }

    /// The tensor called `name`, without copying it.
    ///
    /// # Errors
    /// If there is none; the message names the file and the nearest names that there are.
    pub fn get(&self, name: &str) -> Result<TensorView> {
        let Some(entry) = self.tensors.get(name) else {
            let near = did_you_mean(name, self.names());
            let what = format!("is not among the {} tensors{near}", self.len());
            return Err(format_error(&self.source, tensor_field(name), None, what));
        };
        Ok(TensorView {
            name: name.to_owned(),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
            bytes: self.shards[entry.shard].bytes.slice(entry.start..entry.end),
        })
    }
}

/// The map from tensor name to shard file of an index, with every shard's path checked to stay in the folder.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>> {
    let text = Bytes::read(index, LONGEST_INDEX)?;
    let mut map = json::parse_object(index, &text, 0)?;
    let Some(Value::Object(weight_map)) = map.remove("weight_map") else {
        let at = json::key_offset(&text, "weight_map");
        let what = "is missing or not an object";
        return Err(format_error(index, "weight_map", at, what));
    };
    let mut shards = BTreeMap::new();
    for (name, shard) in weight_map {
        let Value::String(shard) = shard else {
            let what = "the shard is not a string";
            return Err(format_error(index, tensor_field(&name), None, what));
        };
        let mut parts = Path::new(&shard).components().peekable();
        let stays = parts.peek().is_some()
            && parts.all(|part| matches!(part, Component::Normal(_)))
            && !shard.contains('\\');
        if !stays {
            let what = format!("shard {} is not a file inside the folder", quote(&shard));
            return Err(format_error(index, tensor_field(&name), None, what));
        }
        shards.insert(name, shard);
    }
    Ok(shards)
}
