//! The executable: a schedule with its buffers.
//!
//! One arena holds the intermediate results. What follows from the symbols, the inputs' memory and the number of
//! threads (sizes, the arena's plan, the tables of native calls) is prepared when one of them changes; otherwise an execution only
//! makes the calls. Once every table has grown to its largest size, an execution of a compiled
//! graph allocates nothing.
//!
//! Native code gets raw pointers into the arena and the inputs; everything else goes through slices.

use std::ops::Range;
use std::time::Instant;

use smallvec::SmallVec;

use super::affected::Uses;
use super::calls::Calls;
use super::memory::MemoryPlan;
use super::packed::Source;
use super::packed_wait::Extent;
use super::pool;
use super::prepared::Prepared;
use super::reference::{check_input, eval_node};
use super::scatter::{ScatterShape, Updates};
use super::schedule::{Place, Schedule, Step};
use super::sizes::{
    buffer_sizes, check_requirements, check_views, depends_on_run, requirements, scatter_shape,
};
use super::updates::{Update, updates};
use crate::array::Array;
use crate::error::{Error, Result};
use crate::graph::state::{Program, State, Stats};
use crate::graph::{Dag, NodeIndex};
use crate::op::Op;
use crate::shape::{Expr, RUN, Symbols};
use crate::storage::{AlignedBytes, Storage};

/// How a step is done.
#[derive(Clone, Copy)]
enum Way {
    /// The native call of this number.
    Native(usize),
    /// A scatter into a whole buffer, of this shape.
    Scatter(ScatterShape),
    Reference,
}

/// A graph made ready to run.
pub struct Executable {
    version: u64,
    schedule: Schedule,
    inputs: Vec<NodeIndex>,
    ways: Vec<Way>,
    calls: Calls,
    /// States that are not written in place.
    updates: Vec<Update>,
    /// All states.
    states: Vec<u32>,
    /// What views assume of the symbols, with a node that needs it.
    requirements: Vec<(Expr, NodeIndex)>,
    /// Whether sizes change with every execution.
    depends_on_run: bool,
    plan: MemoryPlan,
    /// Bytes of each arena buffer, at the planned sizes.
    sizes: Vec<usize>,
    arena: AlignedBytes,
    scratch: AlignedBytes,
    prepared: Prepared,
    /// What each symbol is used for.
    uses: Uses,
    /// Whether the last execution came to its end.
    executed: bool,
    /// Symbols of the last execution.
    symbols: Symbols,
    stats: Stats,
}

impl Executable {
    /// Prepares a graph.
    ///
    /// # Errors
    /// If the graph has a cycle, or what is assigned to a state was optimized away.
    pub fn new(dag: &Dag) -> Result<Executable> {
        let schedule = Schedule::new(dag)?;
        let nodes: Vec<NodeIndex> = schedule.places.nodes().collect();
        let is_input = |node: &NodeIndex| matches!(dag.node(*node).op, Op::Input { .. });
        let requirements = requirements(dag, &nodes);
        let is_plain = |step: &Step| {
            let operands = dag.operands(step.node);
            operands
                .iter()
                .all(|(node, view)| dag.is_whole(*node, view))
        };
        let plain: Vec<bool> = schedule.steps.iter().map(is_plain).collect();
        let (states, updates) = updates(dag, &schedule)?;
        let (calls, of_step) = Calls::new(dag, &schedule, &plain, &states);
        let way = |(i, step): (usize, &Step)| match (of_step[i], &dag.node(step.node).op) {
            (Some(call), _) => Way::Native(call),
            (None, Op::Scatter { .. }) if plain[i] => Way::Scatter(ScatterShape::default()),
            _ => Way::Reference,
        };
        let ways = schedule.steps.iter().enumerate().map(way).collect();
        Ok(Executable {
            version: dag.version(),
            inputs: nodes.iter().copied().filter(is_input).collect(),
            ways,
            depends_on_run: depends_on_run(dag, &nodes, &requirements),
            calls,
            updates,
            states,
            schedule,
            requirements,
            plan: MemoryPlan::default(),
            sizes: Vec::new(),
            arena: AlignedBytes::default(),
            scratch: AlignedBytes::default(),
            prepared: Prepared::default(),
            uses: Uses::default(),
            executed: false,
            symbols: Symbols::new(),
            stats: Stats::default(),
        })
    }

    /// Makes everything that does not change between executions, unless it is there; the number of calls evaluated for
    /// that.
    fn lay_out(&mut self, dag: &Dag, state: &mut State, n_threads: usize) -> Result<usize> {
        if !self.depends_on_run && self.prepared.is_for(state, n_threads) {
            if self.calls.depends_on_run() {
                self.calls.evaluate(dag, &state.symbols, n_threads)?;
                return Ok(self.calls.len());
            }
            return Ok(0);
        }
        if let Some(evaluated) = self.follow(dag, state, n_threads)? {
            return Ok(evaluated);
        }
        self.prepared.is_done = false;
        // Results of an execution before lie elsewhere from here on.
        self.executed = false;
        for &node in &self.inputs {
            check_input(dag, state, node)?;
        }
        check_requirements(dag, &self.requirements, &state.symbols)?;
        if dag.is_foreign() {
            check_views(dag, self.schedule.places.nodes(), &state.symbols)?;
        }
        self.plan(dag, &state.symbols)?;
        for (step, way) in self.schedule.steps.iter().zip(&mut self.ways) {
            if let Way::Scatter(shape) = way {
                *shape = scatter_shape(dag, step.node, step.operands[1], &state.symbols)?;
            }
        }
        let scratch = self.calls.evaluate(dag, &state.symbols, n_threads)?;
        self.scratch.try_grow_to(scratch)?;
        for &id in &self.states {
            // Memory of another owner is replaced now, so that addresses stay while steps run.
            state.inputs.bytes_mut(id)?;
        }
        self.fill(dag, state)?;
        let graph = (&self.schedule, &self.requirements[..]);
        self.uses.find(dag, graph, &self.calls, &state.symbols);
        self.prepared.symbols.clone_from(&state.symbols);
        self.prepared.n_threads = n_threads;
        self.prepared.moves = state.inputs.moves();
        self.prepared.is_done = true;
        Ok(self.calls.len())
    }

    /// Evaluates what depends on the symbols that changed, if nothing else did and all buffers stay where they are; then
    /// the number of calls among it.
    fn follow(&mut self, dag: &Dag, state: &State, n_threads: usize) -> Result<Option<usize>> {
        if self.depends_on_run || dag.is_foreign() {
            return Ok(None);
        }
        let Some(changed) = self.prepared.changed(state, n_threads) else {
            return Ok(None);
        };
        if !self.uses.keep_buffers(&changed) {
            return Ok(None);
        }
        self.prepared.is_done = false;
        let symbols = (&changed[..], &state.symbols);
        let again = (self.uses).evaluate(dag, symbols, n_threads, &mut self.calls)?;
        self.scratch.try_grow_to(again.scratch)?;
        self.prepared.symbols.clone_from(&state.symbols);
        self.prepared.is_done = true;
        Ok(Some(again.calls))
    }

    /// Evaluates every size and lays the buffers out.
    fn plan(&mut self, dag: &Dag, symbols: &Symbols) -> Result<()> {
        buffer_sizes(dag, &self.schedule, symbols, &mut self.sizes)?;
        self.plan.plan(&self.schedule.buffers, &self.sizes);
        self.arena.try_grow_to(self.plan.arena_bytes)
    }

    /// Gives native calls the addresses of their buffers.
    fn fill(&mut self, dag: &Dag, state: &State) -> Result<()> {
        let Prepared { shared, starts, .. } = &mut self.prepared;
        shared.clear();
        for &node in &self.inputs {
            let Some(Place::Input(id)) = self.schedule.places.get(node) else {
                unreachable!("an input lives in its data")
            };
            let expected = check_input(dag, state, node)?;
            let storage = &state.inputs.get(id).expect("it was just checked").storage;
            // Another owner is asked once more and may say something else: only this answer is used.
            let (start, len) = storage.raw();
            if len != expected {
                return Err(changed());
            }
            if matches!(storage, Storage::Shared(_)) {
                shared.push((id, (start.addr(), len)));
            }
            let needed = starts.0.len().max(id as usize + 1);
            starts.0.resize(needed, std::ptr::null_mut());
            starts.0[id as usize] = start;
        }
        let (places, plan, arena) = (&self.schedule.places, &self.plan, self.arena.start());
        self.calls
            .fill(&self.schedule, |node| match places.get(node) {
                Some(Place::Input(id)) => starts.0[id as usize],
                Some(Place::Arena(buffer)) => arena.wrapping_add(plan.offsets[buffer]),
                None => unreachable!("operands of scheduled nodes are scheduled"),
            });
        Ok(())
    }

    fn range(&self, buffer: usize) -> Range<usize> {
        self.plan.offsets[buffer]..self.plan.offsets[buffer] + self.sizes[buffer]
    }

    /// The bytes of a node's result.
    fn bytes<'a>(&'a self, state: &'a State, node: NodeIndex) -> &'a [u8] {
        match self.schedule.places.get(node) {
            Some(Place::Input(id)) => {
                let data = state.inputs.get(id);
                data.expect("inputs were checked to have data")
                    .storage
                    .bytes()
            }
            Some(Place::Arena(buffer)) => &self.arena.as_slice()[self.range(buffer)],
            None => unreachable!("operands of scheduled nodes are scheduled"),
        }
    }

    /// Packs the operands that native code takes packed, as far as they changed and as many as are asked for.
    fn pack(&mut self, extent: Extent, state: &State, n_threads: usize) -> Result<()> {
        let packed = self.calls.packed();
        if packed.is_empty() {
            return Ok(());
        }
        let Prepared { shared, starts, .. } = &self.prepared;
        let source = |id: u32| {
            let data = state.inputs.get(id);
            let data = data.expect("inputs were checked to have data");
            Source {
                start: starts.0[id as usize],
                len: match &data.storage {
                    Storage::Owned(bytes) => bytes.len(),
                    Storage::Shared(_) => {
                        let found = shared.iter().find(|(known, _)| *known == id);
                        found.expect("`fill` has asked every owner").1.1
                    }
                },
                storage: &data.storage,
            }
        };
        // SAFETY: `lay_out` has just filled the tables and compared the inputs' memory; nothing runs yet.
        unsafe { self.calls.pack(extent, &state.inputs, n_threads, source)? };
        self.stats.packed_bytes = self.calls.packed().bytes();
        Ok(())
    }

    fn run_steps(&mut self, dag: &Dag, state: &mut State) -> Result<()> {
        if let Some(recorder) = &mut state.recorder {
            let n_steps = recorder.steps.len();
            recorder.executions.push((n_steps, state.symbols.clone()));
        } else if self.calls.runs_as_sequence() {
            (self.stats.native_calls, self.stats.native_steps) = (1, self.ways.len());
            // SAFETY: `lay_out` has just seen to it that the tables are those of the buffers: the arena's were planned with the
            // sizes of this execution, those of inputs were compared with them. A plan keeps results apart from the
            // operands that are needed at the same step; a state is only written over by what is pointwise in it.
            return unsafe { self.calls.run_sequence(dag) };
        }
        let _session = self.calls.uses_threads().then(pool::Session::begin);
        for step in 0..self.ways.len() {
            let start = state.recorder.as_ref().map(|_| Instant::now());
            match self.ways[step] {
                Way::Native(call) => {
                    self.stats.native_steps += 1;
                    self.stats.native_calls += 1;
                    // SAFETY: as above; scratch memory is a separate allocation of the size that was asked for.
                    unsafe { self.calls.run(dag, call, self.scratch.start())? }
                }
                Way::Scatter(shape) => self.run_scatter(dag, state, step, shape)?,
                Way::Reference => self.run_reference(dag, state, step)?,
            }
            if let (Some(start), Some(recorder)) = (start, &mut state.recorder) {
                let (node, since) = (self.schedule.steps[step].node, recorder.since);
                let begin = start.duration_since(since);
                recorder.steps.push((node, begin, start.elapsed()));
            }
        }
        Ok(())
    }

    fn run_scatter(
        &mut self,
        dag: &Dag,
        state: &mut State,
        step: usize,
        shape: ScatterShape,
    ) -> Result<()> {
        let Step { node, ref operands } = self.schedule.steps[step];
        let (base, index, updates) = (operands[0], operands[1], operands[2]);
        let (Op::Scatter { mode, .. }, dtype) = (&dag.node(node).op, dag.node(node).ty.dtype)
        else {
            unreachable!("only scatters come here")
        };
        let (index, updates) = (self.bytes(state, index), self.bytes(state, updates));
        let (start, len, in_place) = match self.schedule.places.get(node) {
            Some(Place::Input(id)) => {
                let len = self.bytes(state, base).len();
                (self.prepared.starts.0[id as usize], len, true)
            }
            Some(Place::Arena(buffer)) => {
                let range = self.range(buffer);
                (
                    self.arena.start().wrapping_add(range.start),
                    range.len(),
                    false,
                )
            }
            None => unreachable!("steps are scheduled"),
        };
        // SAFETY: a buffer of the arena, apart from those of the operands, or a state in memory of its own, which neither the index nor
        // the updates are read from.
        let out = unsafe { std::slice::from_raw_parts_mut(start, len) };
        if !in_place {
            out.copy_from_slice(self.bytes(state, base));
        }
        let updates = Updates {
            shape,
            dtype,
            mode: *mode,
            index,
            updates,
        };
        let written = updates.apply(out, self.prepared.n_threads);
        let written = written.map_err(|what| Error::Node {
            node: dag.describe(node),
            what,
        })?;
        if in_place {
            self.stats.state_bytes_written += written;
        }
        Ok(())
    }

    fn run_reference(&mut self, dag: &Dag, state: &mut State, step: usize) -> Result<()> {
        let node = self.schedule.steps[step].node;
        let mut arrays = Vec::new();
        for (operand, view) in dag.operands(node) {
            let view = view.resolve(&state.symbols).map_err(|e| Error::Node {
                node: dag.describe(node),
                what: e.to_string(),
            })?;
            let dtype = dag.node(operand).ty.dtype;
            arrays.push(Array::look_at(self.bytes(state, operand), dtype, &view));
        }
        let out = eval_node(dag, node, &arrays, &state.symbols)?;
        match self.schedule.places.get(node) {
            Some(Place::Input(id)) => state.inputs.bytes_mut(id)?.copy_from_slice(out.bytes()),
            Some(Place::Arena(buffer)) => {
                let range = self.range(buffer);
                self.arena.as_mut_slice()[range].copy_from_slice(out.bytes());
            }
            None => unreachable!("steps are scheduled"),
        }
        // The op may be a user's, and do anything to memory that the user shares.
        match self.prepared.shared_is_where_it_was(state) {
            true => Ok(()),
            false => Err(changed()),
        }
    }

    /// Copies new values into the states that are not updated in place.
    fn update_states(&mut self, dag: &Dag, state: &mut State) -> Result<()> {
        // What may be another state's old value, or is seen through a view, is read before any state is written.
        let mut pending: SmallVec<[(u32, Array); 4]> = SmallVec::new();
        for update in self.updates.iter().filter(|update| !update.is_plain) {
            let view = update.view.resolve(&state.symbols);
            let view = view.map_err(|e| Error::msg(e.to_string()))?;
            let dtype = dag.node(update.node).ty.dtype;
            let array = Array::look_at(self.bytes(state, update.node), dtype, &view);
            pending.push((update.id, array));
        }
        for update in self.updates.iter().filter(|update| update.is_plain) {
            let Some(Place::Arena(buffer)) = self.schedule.places.get(update.node) else {
                unreachable!("plain updates come from the arena")
            };
            let new = &self.arena.as_slice()[self.range(buffer)];
            state.inputs.bytes_mut(update.id)?.copy_from_slice(new);
            self.stats.state_bytes_written += new.len();
        }
        for (id, array) in pending {
            state.inputs.bytes_mut(id)?.copy_from_slice(array.bytes());
            self.stats.state_bytes_written += array.bytes().len();
        }
        Ok(())
    }
}

/// Memory of an input that belongs to another owner is not what it was.
fn changed() -> Error {
    Error::msg("shared memory of an input changed its length")
}

impl Program for Executable {
    fn version(&self) -> u64 {
        self.version
    }

    fn prepare(&mut self, dag: &Dag, state: &mut State, all: bool) -> Result<()> {
        let n_threads = state.n_threads.unwrap_or_else(pool::default_threads);
        // Of the execution that comes next.
        state.symbols.set(RUN, state.runs);
        self.lay_out(dag, state, n_threads)?;
        let extent = if all { Extent::All } else { Extent::First };
        self.pack(extent, state, n_threads)
    }

    fn run(&mut self, dag: &Dag, state: &mut State) -> Result<()> {
        let n_threads = state.n_threads.unwrap_or_else(pool::default_threads);
        state.symbols.set(RUN, state.runs);
        state.runs += 1;
        self.executed = false;
        let evaluated = self.lay_out(dag, state, n_threads)?;
        self.stats = Stats {
            evaluated,
            steps: self.schedule.steps.len(),
            arena_bytes: self.plan.arena_bytes,
            scratch_bytes: self.scratch.len(),
            peak_live_bytes: self.plan.peak_live_bytes,
            ..Stats::default()
        };
        self.pack(Extent::Execution, state, n_threads)?;
        self.run_steps(dag, state)?;
        let counts = std::mem::take(&mut self.calls.packed().counts);
        self.stats.packings = counts.packed + counts.read;
        self.stats.packings_read = counts.read;
        self.stats.packings_waiting = counts.waiting;
        self.update_states(dag, state)?;
        self.symbols.clone_from(&state.symbols);
        self.executed = true;
        Ok(())
    }

    fn symbols(&self) -> Option<&Symbols> {
        self.executed.then_some(&self.symbols)
    }

    fn read<'a>(&'a self, dag: &Dag, state: &'a State, node: NodeIndex) -> Result<&'a [u8]> {
        let readable = match self.schedule.places.get(node) {
            Some(Place::Input(id)) => {
                let data = state.inputs.get(id);
                if data.is_some_and(|data| data.since >= state.runs) {
                    return Err(Error::Node {
                        node: dag.describe(node),
                        what:
                            "it was written into a state that was set since: call `execute` again"
                                .into(),
                    });
                }
                data.is_some()
            }
            Some(Place::Arena(buffer)) => self.schedule.buffers[buffer].last == usize::MAX,
            None => false,
        };
        if !readable || !self.executed {
            return Err(Error::Node {
                node: dag.describe(node),
                what: "its value was not kept: call `.retrieve()` on it before executing".into(),
            });
        }
        Ok(self.bytes(state, node))
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}
