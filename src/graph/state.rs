//! What a graph has beside its ops: the inputs' data, the values of symbols, the program that executes it.

use rustc_hash::FxHashMap;

use super::dag::{Dag, NodeIndex};
use crate::array::Array;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Symbols;
use crate::storage::Storage;

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

/// Inputs, sizes and settings: everything an execution reads.
#[derive(Default, Debug)]
pub struct State {
    /// Data by input number.
    pub inputs: FxHashMap<u32, InputData>,
    /// Values of the symbolic dimensions.
    pub symbols: Symbols,
    /// How many threads may work; `None` means as many as the machine has cores.
    pub n_threads: Option<usize>,
    /// Number of executions so far.
    pub runs: i64,
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
        self.inputs.get(&id).ok_or_else(missing)
    }
}

/// What an execution did.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Steps of the schedule.
    pub steps: usize,
    /// Steps that ran native code.
    pub native_steps: usize,
    /// Bytes of working memory that intermediate results live in.
    pub arena_bytes: usize,
    /// Largest sum of the sizes of intermediate results that are needed at once.
    pub peak_live_bytes: usize,
    /// Bytes written by state updates.
    pub state_bytes_written: usize,
}

/// A graph made ready to run. The layer above provides it.
pub trait Program: Send {
    /// The graph version that it was made for.
    fn version(&self) -> u64;

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
    fn read(&self, dag: &Dag, state: &State, node: NodeIndex) -> Result<Array>;

    /// What the last execution did.
    fn stats(&self) -> Stats;
}
