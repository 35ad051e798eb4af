//! For what an executable was prepared, and what changed since.

use smallvec::SmallVec;

use super::calls::Table;
use super::sizes::same_but_run;
use crate::graph::state::State;
use crate::shape::{RUN, Symbols};
use crate::storage::Storage;

/// For what everything was prepared.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) is_done: bool,
    pub(super) symbols: Symbols,
    pub(super) n_threads: usize,
    /// [`Inputs::moves`](crate::graph::state::Inputs::moves) when it was.
    pub(super) moves: u64,
    /// Where inputs in memory of another owner lie, and how long they are.
    pub(super) shared: Vec<(u32, (usize, usize))>,
    /// Where every input's data starts, by its number.
    pub(super) starts: Table,
}

/// The address and length of memory, to compare.
fn extent(storage: &Storage) -> (usize, usize) {
    let (start, len) = storage.raw();
    (start.addr(), len)
}

impl Prepared {
    /// Whether nothing changed.
    pub(super) fn is_for(&self, state: &State, n_threads: usize) -> bool {
        same_but_run(&self.symbols, &state.symbols) && self.is_but_for_symbols(state, n_threads)
    }

    fn is_but_for_symbols(&self, state: &State, n_threads: usize) -> bool {
        self.is_done
            && self.n_threads == n_threads
            && self.moves == state.inputs.moves()
            && self.shared_is_where_it_was(state)
    }

    /// The symbols that have other values, in their order, if everything else is as it was.
    pub(super) fn changed(&self, state: &State, n_threads: usize) -> Option<SmallVec<[char; 4]>> {
        let (before, now) = (self.symbols.iter(), state.symbols.iter());
        let are_named_alike = before.map(|(name, _)| name).eq(now.map(|(name, _)| name));
        let is_same = are_named_alike && self.is_but_for_symbols(state, n_threads);
        let changed =
            |&(name, value): &(char, i64)| name != RUN && self.symbols.get(name) != Some(value);
        is_same.then(|| {
            let changed = state.symbols.iter().filter(changed);
            changed.map(|(name, _)| name).collect()
        })
    }

    pub(super) fn shared_is_where_it_was(&self, state: &State) -> bool {
        let is_there = |&(id, known): &(u32, (usize, usize))| {
            let data = state.inputs.get(id);
            data.is_some_and(|data| extent(&data.storage) == known)
        };
        self.shared.iter().all(is_there)
    }
}
