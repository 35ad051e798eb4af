//! The executable: a schedule with its buffers.
//!
//! One arena holds the intermediate results. Its plan follows the symbols' values and is made again when they change.
//! Once every table has grown to its largest size, an execution of a compiled graph allocates nothing.
//!
//! Native code gets raw pointers into the arena and the inputs; everything else goes through slices.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::memory::MemoryPlan;
use super::pool;
use super::reference::{check_input, eval_node};
use super::scatter::scatter;
use super::schedule::{Place, Schedule, Step};
use super::sizes::{
    check_views, depends_on_run, elements_of, requirements, same_but_run, scatter_shape,
};
use crate::array::Array;
use crate::error::{Error, Result};
use crate::graph::state::{Program, State, Stats};
use crate::graph::{Dag, NodeIndex};
use crate::op::{Kernel, KernelCall, Op};
use crate::shape::{Expr, RUN, Symbols};
use crate::storage::{ALIGNMENT, AlignedBytes};

/// A graph made ready to run.
pub struct Executable {
    version: u64,
    schedule: Schedule,
    inputs: Vec<NodeIndex>,
    /// For each step: whether it reads whole buffers, as native code and updates in place do.
    plain: Vec<bool>,
    /// Length of each input's data at this execution, in bytes.
    input_bytes: FxHashMap<u32, usize>,
    /// What views assume of the symbols, with a node that needs it.
    requirements: Vec<(Expr, NodeIndex)>,
    /// Whether sizes change with every execution.
    depends_on_run: bool,
    plan: MemoryPlan,
    /// Bytes of each arena buffer, at the planned sizes.
    sizes: Vec<usize>,
    /// Symbols and number of threads when the plan was made; `None` before the first.
    planned_for: Option<(Symbols, usize)>,
    /// Symbols of the last execution; `None` if there was none, or it failed.
    executed_for: Option<Symbols>,
    arena: AlignedBytes,
    scratch: AlignedBytes,
    stats: Stats,
}

impl Executable {
    /// Prepares a graph.
    ///
    /// # Errors
    /// If the graph has a cycle.
    pub fn new(dag: &Dag) -> Result<Executable> {
        let schedule = Schedule::new(dag)?;
        let mut inputs: Vec<NodeIndex> = schedule
            .places
            .keys()
            .copied()
            .filter(|&node| matches!(dag.node(node).op, Op::Input { .. }))
            .collect();
        inputs.sort_unstable();
        let mut nodes: Vec<NodeIndex> = schedule.places.keys().copied().collect();
        nodes.sort_unstable();
        let requirements = requirements(dag, &nodes);
        let is_plain = |step: &Step| {
            let operands = dag.operands(step.node);
            operands
                .iter()
                .all(|(node, view)| dag.is_whole(*node, view))
        };
        Ok(Executable {
            version: dag.version(),
            plain: schedule.steps.iter().map(is_plain).collect(),
            schedule,
            inputs,
            input_bytes: FxHashMap::default(),
            depends_on_run: depends_on_run(dag, &nodes, &requirements),
            requirements,
            plan: MemoryPlan::default(),
            sizes: Vec::new(),
            planned_for: None,
            executed_for: None,
            arena: AlignedBytes::default(),
            scratch: AlignedBytes::default(),
            stats: Stats::default(),
        })
    }

    fn check_requirements(&self, dag: &Dag, symbols: &Symbols) -> Result<()> {
        for &(expr, node) in &self.requirements {
            let value = expr.eval(symbols).map_err(|e| Error::UnsetSymbol {
                symbol: e.symbol,
                user: dag.describe(node),
            })?;
            if value < 0 {
                let what = format!(
                    "the sizes are impossible: `{expr}` must not be negative, but is {value}"
                );
                return Err(Error::Node {
                    node: dag.describe(node),
                    what,
                });
            }
        }
        Ok(())
    }

    /// Evaluates every size and lays the buffers out, unless nothing changed.
    fn plan(&mut self, dag: &Dag, state: &State, n_threads: usize) -> Result<()> {
        let is_current = |(old, threads): &(Symbols, usize)| {
            *threads == n_threads && !self.depends_on_run && same_but_run(old, &state.symbols)
        };
        if self.planned_for.as_ref().is_some_and(is_current) {
            return Ok(());
        }
        self.planned_for = None;
        self.check_requirements(dag, &state.symbols)?;
        if dag.is_foreign() {
            check_views(dag, self.schedule.places.keys().copied(), &state.symbols)?;
        }
        self.sizes.clear();
        for buffer in &self.schedule.buffers {
            let ty = &dag.node(buffer.node).ty;
            self.sizes
                .push(elements_of(dag, buffer.node, &ty.dims, &state.symbols)? * ty.dtype.size());
        }
        let total = self.sizes.iter().try_fold(0usize, |total, &size| {
            total.checked_add(size.checked_next_multiple_of(ALIGNMENT)?)
        });
        if total.is_none_or(|total| total > isize::MAX as usize) {
            return Err(Error::msg("the results need more memory than there can be"));
        }
        self.plan.plan(&self.schedule.buffers, &self.sizes);
        self.arena.grow_to(self.plan.arena_bytes);
        let mut scratch = 0;
        for step in &self.schedule.steps {
            if let Op::Kernel(kernel) = &dag.node(step.node).op
                && let Some(code) = kernel.code()
            {
                scratch = scratch.max(code.scratch_bytes(&state.symbols, n_threads)?);
            }
        }
        self.scratch.grow_to(scratch);
        self.planned_for = Some((state.symbols.clone(), n_threads));
        Ok(())
    }

    fn range(&self, buffer: usize) -> std::ops::Range<usize> {
        self.plan.offsets[buffer]..self.plan.offsets[buffer] + self.sizes[buffer]
    }

    /// The bytes of a node's result.
    fn bytes<'a>(&'a self, state: &'a State, node: NodeIndex) -> &'a [u8] {
        match self.schedule.places[&node] {
            Place::Input(id) => state.inputs[&id].storage.bytes(),
            Place::Arena(buffer) => &self.arena.as_slice()[self.range(buffer)],
        }
    }

    fn bytes_mut<'a>(&'a mut self, state: &'a mut State, node: NodeIndex) -> &'a mut [u8] {
        match self.schedule.places[&node] {
            Place::Input(id) => state
                .inputs
                .get_mut(&id)
                .expect("inputs were checked to have data")
                .storage
                .bytes_mut(),
            Place::Arena(buffer) => {
                let range = self.range(buffer);
                &mut self.arena.as_mut_slice()[range]
            }
        }
    }

    fn run_step(
        &mut self,
        dag: &Dag,
        state: &mut State,
        step: usize,
        n_threads: usize,
    ) -> Result<()> {
        let Step { node, .. } = self.schedule.steps[step];
        match &dag.node(node).op {
            Op::Kernel(kernel) if kernel.code().is_some() && self.plain[step] => {
                self.run_native(dag, state, step, kernel, n_threads)
            }
            Op::Scatter { .. } if self.plain[step] => self.run_scatter(dag, state, step),
            _ => self.run_reference(dag, state, node),
        }
    }

    /// The start of an input's data, of the length that was checked when the execution began.
    fn input_start(&self, state: &State, id: u32) -> Result<*const u8> {
        let bytes = state.inputs[&id].storage.bytes();
        if self.input_bytes.get(&id) == Some(&bytes.len()) {
            return Ok(bytes.as_ptr());
        }
        Err(Error::msg("shared memory of an input changed its length"))
    }

    fn run_native(
        &mut self,
        dag: &Dag,
        state: &mut State,
        step: usize,
        kernel: &Kernel,
        n_threads: usize,
    ) -> Result<()> {
        let Step { node, ref operands } = self.schedule.steps[step];
        let Place::Arena(output) = self.schedule.places[&node] else {
            unreachable!("only inputs and scatters live outside of the arena")
        };
        let scratch = self.scratch.as_mut_slice().as_mut_ptr();
        // All pointers into the arena come from one borrow, so that making one does not invalidate another.
        let arena = self.arena.as_mut_slice().as_mut_ptr();
        let start = |buffer: usize| arena.wrapping_add(self.plan.offsets[buffer]);
        let output = start(output);
        let mut inputs: SmallVec<[*const u8; 40]> = SmallVec::new();
        for operand in operands {
            inputs.push(match self.schedule.places[operand] {
                Place::Arena(buffer) => start(buffer).cast_const(),
                Place::Input(id) => self.input_start(state, id)?,
            });
        }
        let call = KernelCall {
            inputs: &inputs,
            output,
            scratch,
            symbols: &state.symbols,
            n_threads,
        };
        let code = kernel.code().expect("checked by the caller");
        // SAFETY: every buffer has the size that its node's type says under the current symbols: arena buffers were
        // planned with them, the lengths of inputs were checked by `check_input` and `input_start`. The plan keeps the result apart from the operands,
        // which are needed at the same step; scratch memory is a separate allocation of the size that the code asked for.
        let result = unsafe { code.run(&call) };
        self.stats.native_steps += 1;
        result.map_err(|e| Error::Node {
            node: dag.describe(node),
            what: e.to_string(),
        })
    }

    fn run_scatter(&mut self, dag: &Dag, state: &mut State, step: usize) -> Result<()> {
        let Step { node, ref operands } = self.schedule.steps[step];
        let (base, index, updates) = (operands[0], operands[1], operands[2]);
        let shape = scatter_shape(dag, node, index, &state.symbols)?;
        let (Op::Scatter { mode, .. }, dtype) = (&dag.node(node).op, dag.node(node).ty.dtype)
        else {
            unreachable!("only scatters come here")
        };
        let result = match self.schedule.places[&node] {
            Place::Input(id) => {
                // The state is taken out while rows are written, so that operands can be borrowed beside it.
                let mut data = state
                    .inputs
                    .remove(&id)
                    .expect("inputs were checked to have data");
                let (index, updates) = (self.bytes(state, index), self.bytes(state, updates));
                let result = scatter(
                    shape,
                    dtype,
                    *mode,
                    data.storage.bytes_mut(),
                    index,
                    updates,
                );
                state.inputs.insert(id, data);
                if let Ok(written) = result {
                    self.stats.state_bytes_written += written;
                }
                result
            }
            Place::Arena(buffer) => {
                let mut out = self.bytes(state, base).to_vec();
                let (index, updates) = (self.bytes(state, index), self.bytes(state, updates));
                let result = scatter(shape, dtype, *mode, &mut out, index, updates);
                let range = self.range(buffer);
                self.arena.as_mut_slice()[range].copy_from_slice(&out);
                result
            }
        };
        result.map(|_| ()).map_err(|what| Error::Node {
            node: dag.describe(node),
            what,
        })
    }

    fn run_reference(&mut self, dag: &Dag, state: &mut State, node: NodeIndex) -> Result<()> {
        let mut arrays = Vec::new();
        for (operand, view) in dag.operands(node) {
            let view = view.resolve(&state.symbols).map_err(|e| Error::Node {
                node: dag.describe(node),
                what: e.to_string(),
            })?;
            let dtype = dag.node(operand).ty.dtype;
            let bytes = self.bytes(state, operand);
            arrays.push(
                Array::from_bytes(vec![bytes.len() / dtype.size()], dtype, bytes).look(&view),
            );
        }
        let out = eval_node(dag, node, &arrays, &state.symbols)?;
        self.bytes_mut(state, node).copy_from_slice(out.bytes());
        Ok(())
    }

    /// Copies new values into the states that are not updated in place.
    fn update_states(&mut self, dag: &Dag, state: &mut State) -> Result<()> {
        // All new values are read before any state is written: one state's new value may be another's old one.
        let mut pending: SmallVec<[(u32, Array); 4]> = SmallVec::new();
        for &(target, new) in dag.assigns() {
            let (target, new) = (dag.source(target)?, dag.source(new)?);
            let Op::Input { id, .. } = dag.node(target.node).op else {
                continue;
            };
            if self.schedule.places.get(&new.node) == Some(&Place::Input(id)) {
                continue;
            }
            let view = new
                .view
                .resolve(&state.symbols)
                .map_err(|e| Error::msg(e.to_string()))?;
            let dtype = dag.node(new.node).ty.dtype;
            let bytes = self.bytes(state, new.node);
            pending.push((
                id,
                Array::from_bytes(vec![bytes.len() / dtype.size()], dtype, bytes).look(&view),
            ));
        }
        for (id, array) in pending {
            let storage = &mut state
                .inputs
                .get_mut(&id)
                .expect("inputs were checked to have data")
                .storage;
            storage.bytes_mut().copy_from_slice(array.bytes());
            self.stats.state_bytes_written += array.bytes().len();
        }
        Ok(())
    }
}

impl Program for Executable {
    fn version(&self) -> u64 {
        self.version
    }

    fn run(&mut self, dag: &Dag, state: &mut State) -> Result<()> {
        let n_threads = state.n_threads.unwrap_or_else(pool::default_threads);
        state.symbols.set(RUN, state.runs);
        state.runs += 1;
        self.executed_for = None;
        for &node in &self.inputs {
            let bytes = check_input(dag, state, node)?;
            if let Op::Input { id, .. } = dag.node(node).op {
                // `insert` makes room before it finds that there is an entry.
                match self.input_bytes.get_mut(&id) {
                    Some(known) => *known = bytes,
                    None => drop(self.input_bytes.insert(id, bytes)),
                }
            }
        }
        self.plan(dag, state, n_threads)?;
        self.stats = Stats {
            steps: self.schedule.steps.len(),
            arena_bytes: self.plan.arena_bytes,
            peak_live_bytes: self.plan.peak_live_bytes,
            ..Stats::default()
        };
        for step in 0..self.schedule.steps.len() {
            self.run_step(dag, state, step, n_threads)?;
        }
        self.update_states(dag, state)?;
        self.executed_for = Some(state.symbols.clone());
        Ok(())
    }

    fn symbols(&self) -> Option<&Symbols> {
        self.executed_for.as_ref()
    }

    fn read(&self, dag: &Dag, state: &State, node: NodeIndex) -> Result<Array> {
        let unknown = || Error::Node {
            node: dag.describe(node),
            what: "its value was not kept: call `.retrieve()` on it before executing".into(),
        };
        let readable = match self.schedule.places.get(&node) {
            Some(Place::Input(id)) if state.inputs[id].since >= state.runs => {
                return Err(Error::Node {
                    node: dag.describe(node),
                    what: "it was written into a state that was set since: call `execute` again"
                        .into(),
                });
            }
            Some(Place::Input(_)) => true,
            Some(Place::Arena(buffer)) => self.schedule.buffers[*buffer].last == usize::MAX,
            None => false,
        };
        if !readable || self.executed_for.is_none() {
            return Err(unknown());
        }
        let dtype = dag.node(node).ty.dtype;
        let bytes = self.bytes(state, node);
        Ok(Array::from_bytes(
            vec![bytes.len() / dtype.size()],
            dtype,
            bytes,
        ))
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}
