//! Where graphs are found by their number.
//!
//! A handle is two integers; the process-wide registry maps the first to the graph, which is behind a lock. So
//! handles are `Copy + Send + Sync`, moving a `Graph` changes nothing for them, and a handle to a dropped graph is a
//! clear panic. Alternatives rejected: raw pointers (undefined behaviour once the graph moves) and reference-counted
//! handles (not `Copy`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use rustc_hash::FxHashMap;

use super::dag::Dag;
use super::state::{Program, State, Stats};
use crate::error::{Error, Result};

/// What the lock of a graph guards.
pub(crate) struct Inner {
    pub(crate) dag: Dag,
    pub(crate) state: State,
    pub(crate) program: Option<Box<dyn Program>>,
    pub(crate) stages: Vec<(String, Dag)>,
}

type Shared = Arc<Mutex<Inner>>;

static NEXT: AtomicU32 = AtomicU32::new(0);
static GRAPHS: RwLock<Option<FxHashMap<u32, Weak<Mutex<Inner>>>>> = RwLock::new(None);

/// A recorded computation with its inputs' data.
///
/// Recording takes `&mut self` or goes through the handles; nothing is computed before [`Graph::execute`].
pub struct Graph {
    id: u32,
    inner: Shared,
}

impl Default for Graph {
    fn default() -> Self {
        Graph::new()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Graph {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let inner = Inner {
            dag: Dag::default(),
            state: State::default(),
            program: None,
            stages: Vec::new(),
        };
        let inner = Arc::new(Mutex::new(inner));
        let mut graphs = GRAPHS.write().unwrap_or_else(PoisonError::into_inner);
        graphs
            .get_or_insert_default()
            .insert(id, Arc::downgrade(&inner));
        Graph { id, inner }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    /// Gives a symbolic dimension its size; it holds until it is set again.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input('s', DType::F32);
    /// let y = (x * 2.0).retrieve();
    /// for n in [1, 3] {
    ///     x.set(vec![1.5; n]);
    ///     cx.set_dim('s', n);
    ///     cx.execute();
    ///     assert_eq!(y.data(), vec![3.0; n]);
    /// }
    /// ```
    pub fn set_dim(&mut self, symbol: char, size: usize) {
        // No memory holds as many elements as the largest number, so larger ones need not be told apart.
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.lock().state.symbols.set(symbol, size);
    }

    /// How many threads an execution may use. Results do not depend on it, not even in the last bit.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn set_threads(&mut self, n: usize) {
        assert!(n > 0, "at least one thread is needed");
        self.lock().state.n_threads = Some(n);
    }

    /// Number of nodes.
    pub fn n_nodes(&self) -> usize {
        self.lock().dag.len()
    }

    /// What the last execution did; zeros before the first.
    pub fn stats(&self) -> Stats {
        self.lock()
            .program
            .as_ref()
            .map(|program| program.stats())
            .unwrap_or_default()
    }

    /// Runs `f` on the graph's DAG, for inspection.
    pub fn inspect<R>(&self, f: impl FnOnce(&Dag) -> R) -> R {
        f(&self.lock().dag)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let mut graphs = GRAPHS.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(graphs) = graphs.as_mut() {
            graphs.remove(&self.id);
        }
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({} nodes)", self.n_nodes())
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Inner> {
    // A panic while recording leaves the DAG whole (nodes are added last), so the poison flag carries no news.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn find(id: u32) -> Result<Shared> {
    let graphs = GRAPHS.read().unwrap_or_else(PoisonError::into_inner);
    let found = graphs
        .as_ref()
        .and_then(|graphs| graphs.get(&id))
        .and_then(Weak::upgrade);
    found.ok_or_else(|| Error::msg("this tensor's graph was dropped: keep the `Graph` alive as long as its tensors are used"))
}

/// Runs `f` on the graph of this number.
///
/// # Errors
/// If the graph was dropped, or what `f` says.
pub(crate) fn with_graph<R>(id: u32, f: impl FnOnce(&mut Inner) -> Result<R>) -> Result<R> {
    let shared = find(id)?;
    let mut inner = lock(&shared);
    f(&mut inner)
}
