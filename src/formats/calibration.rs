//! What the weights of a model are multiplied by on sample data, by name, and a file of it.
//!
//! The file is a safetensors file. A weight `w [rows, columns]` has the tensors
//!
//! | name | type | what |
//! |---|---|---|
//! | `w.mean_square` | F32 `[columns]` | the mean square of what each column is multiplied by |
//! | `w.rows` | U64 `[1]` | over how many rows of data |
//! | `w.products` | F32 `[columns, columns]` | the mean product of each pair, where it was taken |
//!
//! and the metadata `format` is `brain-blitz calibration`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::bytes::Bytes;
use super::safetensors::{Checkpoint, write_with_metadata};
use super::tensor::{StoredType, TensorView};
use super::{format_error, tensor_field};
use crate::blocks::ColumnStats;
use crate::dtype::DType;
use crate::error::Result;

const FORMAT_KEY: &str = "format";
const FORMAT: &str = "brain-blitz calibration";
const MEAN_SQUARE: &str = ".mean_square";
const ROWS: &str = ".rows";
const PRODUCTS: &str = ".products";

/// Statistics of the columns of weights, by the weights' names.
///
/// ```
/// use brain_blitz::blocks::ColumnStats;
/// use brain_blitz::formats::Calibration;
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("x.calibration");
/// let mut calibration = Calibration::default();
/// calibration.insert("up.weight", ColumnStats::new(100, vec![0.5, 2.0], None)?);
/// calibration.save(&path)?;
/// let opened = Calibration::open(&path)?;
/// assert_eq!(opened, calibration);
/// assert_eq!(opened.get("up.weight").unwrap().mean_squares(), [0.5, 2.0]);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Calibration {
    stats: BTreeMap<String, Arc<ColumnStats>>,
}

impl Calibration {
    /// Adds a weight's statistics, in the place of earlier ones.
    pub fn insert(&mut self, name: impl Into<String>, stats: ColumnStats) {
        self.stats.insert(name.into(), Arc::new(stats));
    }

    /// The statistics of a weight.
    pub fn get(&self, name: &str) -> Option<&Arc<ColumnStats>> {
        self.stats.get(name)
    }

    /// All weights, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Arc<ColumnStats>)> {
        self.stats.iter().map(|(name, stats)| (&**name, stats))
    }

    /// How many weights there are.
    pub fn len(&self) -> usize {
        self.stats.len()
    }

    /// Whether there is no weight.
    pub fn is_empty(&self) -> bool {
        self.stats.is_empty()
    }

    /// Replaces the file at `path` by one with all of this.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors = Vec::new();
        for (name, stats) in &self.stats {
            let columns = stats.columns();
            let mut add = |suffix: &str, dtype, shape: Vec<usize>, bytes: &[u8]| {
                tensors.push(TensorView {
                    name: format!("{name}{suffix}"),
                    dtype,
                    shape,
                    bytes: Bytes::copy_of(bytes),
                });
            };
            let squares = bytemuck::cast_slice(stats.mean_squares());
            add(MEAN_SQUARE, StoredType::F32, vec![columns], squares);
            add(ROWS, StoredType::U64, vec![1], &stats.rows().to_le_bytes());
            if let Some(products) = stats.products() {
                let products = bytemuck::cast_slice(products);
                add(PRODUCTS, StoredType::F32, vec![columns, columns], products);
            }
        }
        let metadata = BTreeMap::from([(FORMAT_KEY.to_owned(), FORMAT.to_owned())]);
        write_with_metadata(path, &tensors, &metadata)
    }

    /// Reads a file that [`Calibration::save`] wrote.
    ///
    /// # Errors
    /// If it cannot be read, or is no such file.
    pub fn open(path: impl AsRef<Path>) -> Result<Calibration> {
        let path = path.as_ref();
        let file = Checkpoint::open(path)?;
        if file.metadata().get(FORMAT_KEY).map(String::as_str) != Some(FORMAT) {
            let what = format!("is not {FORMAT:?}: this is no file of `convert --save-importance`");
            return Err(format_error(path, "format", None, what));
        }
        let mut calibration = Calibration::default();
        for stored in file.names() {
            let Some(name) = stored.strip_suffix(MEAN_SQUARE) else {
                let base = [ROWS, PRODUCTS]
                    .iter()
                    .find_map(|end| stored.strip_suffix(end));
                let squares = base.map(|base| format!("{base}{MEAN_SQUARE}"));
                if squares.is_none_or(|squares| !file.contains(&squares)) {
                    let what = "belongs to no weight";
                    return Err(format_error(path, tensor_field(stored), None, what));
                }
                continue;
            };
            let wrong = |what: String| format_error(path, tensor_field(stored), None, what);
            let stats = read(&file, name).map_err(|e| wrong(e.to_string()))?;
            calibration.insert(name, stats);
        }
        Ok(calibration)
    }
}

/// The statistics of a weight in a file.
fn read(file: &Checkpoint, name: &str) -> Result<ColumnStats> {
    let tensor = |end: &str, dtype: StoredType, rank: usize| {
        let tensor = file.get(&format!("{name}{end}"))?;
        match tensor.dtype == dtype && tensor.shape.len() == rank {
            true => Ok(tensor),
            false => {
                let what = format!("is not of the type {} and rank {rank}", dtype.name());
                Err(format_error(
                    file.source(),
                    tensor_field(&tensor.name),
                    None,
                    what,
                ))
            }
        }
    };
    let floats = |tensor: TensorView| -> Result<Vec<f32>> {
        let aligned = tensor.convert_to(DType::F32)?;
        Ok(bytemuck::cast_slice(&aligned).to_vec())
    };
    let rows = tensor(ROWS, StoredType::U64, 1)?;
    let rows = rows
        .bytes
        .as_chunks::<8>()
        .0
        .first()
        .map_or(0, |word| u64::from_le_bytes(*word));
    let products = match file.contains(&format!("{name}{PRODUCTS}")) {
        true => Some(floats(tensor(PRODUCTS, StoredType::F32, 2)?)?),
        false => None,
    };
    ColumnStats::new(
        rows,
        floats(tensor(MEAN_SQUARE, StoredType::F32, 1)?)?,
        products,
    )
}
