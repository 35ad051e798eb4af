//! What a graph has beside its ops: the inputs' data, the values of symbols, the program that executes it.

use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::dag::{Dag, NodeIndex};
use super::quantized::{self, SignedTensor, StoredTensor};
use crate::array::Array;
use crate::blocks::{BlockType, ColumnStats, SignFit, SignMatrix};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Symbols;
use crate::storage::{AlignedBytes, Storage};

/// Elements that are converted at a time.
const CHUNK: usize = 1 << 16;

/// Data of one input.
#[derive(Debug)]
pub struct InputData {
    /// The sizes that the data has; `None` when only its length is known.
    pub dims: Option<Vec<usize>>,
    /// The bytes, contiguous.
    pub storage: Storage,
    /// Number of executions before it was set.
    pub since: i64,
}

/// The data of all inputs, by number.
///
/// A program keeps pointers to the data, so every change of where it lies goes through here and is counted.
#[derive(Default, Debug)]
pub struct Inputs {
    data: FxHashMap<u32, InputData>,
    moves: u64,
    /// For each input the number of its last change among all inputs' changes.
    versions: FxHashMap<u32, u64>,
    changes: u64,
}

impl Inputs {
    /// The data of an input, if it was set.
    pub fn get(&self, id: u32) -> Option<&InputData> {
        self.data.get(&id)
    }

    /// Whether no input was set.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Changes whenever the data of an input may lie elsewhere or have another size than before. What memory of
    /// another owner says of itself is not counted.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// The number of changes of all inputs so far. Writes of native code into states are not counted.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Changes whenever an input gets other data.
    pub fn version(&self, id: u32) -> u64 {
        self.versions.get(&id).copied().unwrap_or(0)
    }

    fn changed(&mut self, id: u32) {
        self.changes += 1;
        // `insert` would make room for an entry that is there already.
        match self.versions.get_mut(&id) {
            Some(version) => *version = self.changes,
            None => {
                self.versions.insert(id, self.changes);
            }
        }
    }

    /// Gives an input its data; returns what it had.
    pub fn insert(&mut self, id: u32, data: InputData) -> Option<InputData> {
        self.moves += 1;
        self.changed(id);
        self.data.insert(id, data)
    }

    /// Takes an input's data away.
    pub fn remove(&mut self, id: u32) -> Option<InputData> {
        self.moves += 1;
        self.changed(id);
        self.data.remove(&id)
    }

    /// Writes new data of the same size over an input's old one; `false` if it has none of its own, of these sizes.
    pub fn overwrite(&mut self, id: u32, dims: Option<&[usize]>, bytes: &[u8], since: i64) -> bool {
        let Some(data) = self.data.get_mut(&id) else {
            return false;
        };
        let Storage::Owned(old) = &mut data.storage else {
            return false;
        };
        if data.dims.as_deref() != dims || old.len() != bytes.len() {
            return false;
        }
        old.as_mut_slice().copy_from_slice(bytes);
        data.since = since;
        self.changed(id);
        true
    }

    /// The bytes of an input, to write; memory of another owner is copied first.
    ///
    /// # Errors
    /// If there is no memory for the copy.
    ///
    /// # Panics
    /// If the input has no data.
    pub fn bytes_mut(&mut self, id: u32) -> Result<&mut [u8]> {
        self.changed(id);
        let data = self.data.get_mut(&id).expect("the caller saw its data");
        if matches!(data.storage, Storage::Shared(_)) {
            self.moves += 1;
        }
        data.storage.bytes_mut()
    }
}

/// Inputs, sizes and settings: everything an execution reads.
#[derive(Default, Debug)]
pub struct State {
    /// The inputs' data.
    pub inputs: Inputs,
    /// Values of the symbolic dimensions.
    pub symbols: Symbols,
    /// How many threads may work; `None` means as many as the machine has cores.
    pub n_threads: Option<usize>,
    /// Number of executions so far.
    pub runs: i64,
    /// Notes the time of every step, if there is one.
    pub recorder: Option<Recorder>,
}

impl State {
    /// The data of an input node.
    ///
    /// # Errors
    /// If nothing was set.
    pub fn input(&self, dag: &Dag, node: NodeIndex) -> Result<&InputData> {
        let Op::Input { id, .. } = dag.node(node).op else {
            return Err(Error::Node {
                node: dag.describe(node),
                what: "is not an input".into(),
            });
        };
        let missing = || Error::Node {
            node: dag.describe(node),
            what: "has no data; call `.set(..)` before `execute`".into(),
        };
        self.inputs.get(id).ok_or_else(missing)
    }

    /// Converts an input's data, if it has any, to another floating-point format: rounded to nearest, ties to even.
    pub(crate) fn convert(&mut self, input: u32, from: DType, to: DType) {
        let Some(data) = self.inputs.remove(input) else {
            return;
        };
        let bytes = data.storage.bytes();
        let n = bytes.len() / from.size();
        let mut out = AlignedBytes::zeroed(n * to.size());
        // In pieces, since an array is a copy: a weight may fill a good part of the memory.
        let (old, new) = (CHUNK * from.size(), CHUNK * to.size());
        let pieces = out.as_mut_slice().chunks_mut(new);
        for (piece, wide) in pieces.zip(bytes.chunks(old)) {
            let array = Array::from_bytes(vec![wide.len() / from.size()], from, wide);
            piece.copy_from_slice(array.cast(to).bytes());
        }
        let storage = Storage::Owned(out);
        self.inputs.insert(input, InputData { storage, ..data });
    }
}

impl State {
    /// Gives an input that is stored in blocks numbers of a format.
    ///
    /// # Errors
    /// A number that blocks cannot hold; no memory.
    pub(crate) fn set_blocks(
        &mut self,
        input: u32,
        (bytes, from): (&[u8], DType),
        ty: BlockType,
    ) -> Result<()> {
        let (blocks, _) = quantized::encode((bytes, from), (ty, None), 1)?;
        self.insert_blocks(input, blocks, self.runs);
        Ok(())
    }

    /// Stores an input's data, if it has any, in blocks, on up to `n_threads` threads; with what its columns are
    /// multiplied by, of least error in such products.
    ///
    /// # Errors
    /// A number that blocks cannot hold, or other columns; no memory.
    pub(crate) fn quantize(
        &mut self,
        (input, name): (u32, String),
        from: DType,
        (ty, stats): (BlockType, Option<&ColumnStats>),
        n_threads: usize,
    ) -> Result<Option<StoredTensor>> {
        let Some(data) = self.inputs.get(input) else {
            return Ok(None);
        };
        let (numbers, since) = (data.storage.bytes(), data.since);
        let encoded = quantized::encode((numbers, from), (ty, stats), n_threads);
        let (blocks, squares) = encoded.map_err(|e| Error::msg(format!("{name}: {e}")))?;
        let n = numbers.len() / from.size();
        let stored = StoredTensor {
            name,
            ty,
            n,
            bytes_before: numbers.len(),
            bytes: blocks.len(),
            rmse: squares.rmse(n),
            snr_db: squares.snr_db(),
            output_error: stats.map(|_| squares.output_error()),
        };
        self.insert_blocks(input, blocks, since);
        Ok(Some(stored))
    }

    /// Stores an input's data, if it has any, as signs and scales, on up to `n_threads` threads; with what its columns are
    /// multiplied by, of least error in such products.
    ///
    /// # Errors
    /// A number that is not finite, or other columns; no memory.
    pub(crate) fn take_signs(
        &mut self,
        (input, name): (u32, String),
        from: DType,
        (matrix, fit, stats): (SignMatrix, SignFit, Option<&ColumnStats>),
        n_threads: usize,
    ) -> Result<Option<SignedTensor>> {
        let Some(data) = self.inputs.get(input) else {
            return Ok(None);
        };
        let (numbers, since) = (data.storage.bytes(), data.since);
        let encoded = quantized::signs((numbers, from), (matrix, fit, stats), n_threads);
        let (bytes, squares) = encoded.map_err(|e| Error::msg(format!("{name}: {e}")))?;
        let stored = SignedTensor {
            name,
            matrix,
            fit,
            bytes_before: numbers.len(),
            bytes: bytes.len(),
            rmse: squares.rmse(matrix.rows() * matrix.columns()),
            snr_db: squares.snr_db(),
            output_error: stats.map(|_| squares.output_error()),
        };
        self.insert_blocks(input, bytes, since);
        Ok(Some(stored))
    }

    fn insert_blocks(&mut self, input: u32, blocks: AlignedBytes, since: i64) {
        let data = InputData {
            dims: None,
            storage: Storage::Owned(blocks),
            since,
        };
        self.inputs.insert(input, data);
    }
}

/// What an execution did.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Steps of the schedule.
    pub steps: usize,
    /// Steps that ran native code.
    pub native_steps: usize,
    /// Calls of native code: fewer than steps where one function does several.
    pub native_calls: usize,
    /// Native calls whose parameters were evaluated first: all of them where buffers have other sizes or lie elsewhere than
    /// before, else those that depend on a symbol that changed.
    pub evaluated: usize,
    /// Bytes of working memory that intermediate results live in.
    pub arena_bytes: usize,
    /// Bytes of memory that kernels work in.
    pub scratch_bytes: usize,
    /// Largest sum of the sizes of intermediate results that are needed at once.
    pub peak_live_bytes: usize,
    /// Bytes that were written to update states, beside what steps computed in place: copies, and rows of scatters.
    pub state_bytes_written: usize,
    /// Operands that were packed, or read from a file of packed ones: those that native code keeps in an order of its
    /// own, and that changed since the last execution.
    pub packings: usize,
    /// How many of those came from a file.
    pub packings_read: usize,
    /// Operands that later executions pack, each a part of them; until then native code reads them as they are.
    pub packings_waiting: usize,
    /// Bytes of operands that are kept packed.
    pub packed_bytes: usize,
}

/// Notes when each step of an execution began and how long it took.
#[derive(Debug)]
pub struct Recorder {
    /// What steps' begin is counted from.
    pub since: Instant,
    /// Whether every execution tells standard error what it did.
    pub tells: bool,
    /// The symbols of each execution, with the number of steps before it.
    pub executions: Vec<(usize, Symbols)>,
    /// All steps, in order: what, when, how long.
    pub steps: Vec<(NodeIndex, Duration, Duration)>,
}

impl Recorder {
    /// A recorder that nothing was noted in.
    pub fn new(tells: bool) -> Recorder {
        Recorder {
            since: Instant::now(),
            tells,
            executions: Vec::new(),
            steps: Vec::new(),
        }
    }
}

/// A graph made ready to run. The layer above provides it.
pub trait Program: Send {
    /// The graph version that it was made for.
    fn version(&self) -> u64;

    /// Does what the first execution does before its first step: lays memory out, and packs constant operands that are not; with
    /// `all` also those that it leaves to later ones.
    ///
    /// # Errors
    /// As [`Program::run`].
    fn prepare(&mut self, dag: &Dag, state: &mut State, all: bool) -> Result<()>;

    /// Computes every output and updates every state.
    ///
    /// # Errors
    /// Missing data, an unset symbol, sizes that do not fit, an index out of range: naming the node.
    fn run(&mut self, dag: &Dag, state: &mut State) -> Result<()>;

    /// The values that symbols had in the last execution; `None` if there was none, or it failed.
    fn symbols(&self) -> Option<&Symbols>;

    /// The buffer of a node that was kept.
    ///
    /// # Errors
    /// If the node's buffer is not there.
    fn read<'a>(&'a self, dag: &Dag, state: &'a State, node: NodeIndex) -> Result<&'a [u8]>;

    /// What the last execution did.
    fn stats(&self) -> Stats;
}
