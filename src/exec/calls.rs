//! The native calls of a schedule, evaluated as far as they are the same at every execution.
//!
//! Before: kernels with symbolic sizes, and nodes that lie somewhere. After: for each native step the function, a
//! table of addresses, the values of its parameters and how much work there is; an execution only runs down this
//! list. The tables are filled again when a symbol, the number of threads, the arena or an input's memory changes,
//! within the memory that they have.
//!
//! Where all of several steps are single functions and their work is so little that one thread does it all, they are
//! linked to one function, and an execution is one call.
//!
//! Where code also takes operands packed, the table has the packed ones' addresses too ([`super::packed`]).
//!
//! Invariant: while a call runs, every address in its table is that of a buffer as large as its type says, and that of
//! the result overlaps no other, unless it is that of an operand in which the kernel is pointwise. [`Calls::fill`]'s
//! caller provides them, and fills again before they change.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use super::packed::{PackedOperands, Source};
use super::packed_wait::Extent;
use super::schedule::{Place, Schedule};
use crate::error::{Error, Result};
use crate::graph::state::Inputs;
use crate::graph::{Dag, NodeIndex};
use crate::op::{KernelCall, NativeCode, NativeSequence, Op, SequenceCall, SequencePart, Work};
use crate::shape::{RUN, Symbols};

/// The cost, in additions, up to which a graph is one function.
const SEQUENCE_COST: usize = 1 << 19;

/// One native step.
struct Call {
    node: NodeIndex,
    /// Number of its step.
    step: usize,
    code: Arc<dyn NativeCode>,
    /// Whose addresses the table has, in order: the operands, the node itself, packed operands.
    buffers: Range<usize>,
    params: Range<usize>,
    work: Work,
    /// Operands that the code also takes packed.
    packed: SmallVec<[PackedOperand; 1]>,
}

/// An operand that is packed.
#[derive(Clone, Copy)]
struct PackedOperand {
    /// Where in the table the operand is.
    from: usize,
    /// Where in the table the packed one is.
    to: usize,
    /// Which one it is.
    entry: usize,
}

/// Addresses in the arena and the inputs.
#[derive(Default)]
pub(super) struct Table(pub(super) Vec<*mut u8>);

// SAFETY: an address is only used in a call, while the caller has the memory that it points into for itself.
unsafe impl Send for Table {}

/// See the module's description.
#[derive(Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    packed: PackedOperands,
    table: Table,
    params: Vec<i64>,
    /// Those of a call that is evaluated again.
    fresh: Vec<i64>,
    units: Vec<i64>,
    errors: Vec<i64>,
    /// Whether some parameters change with every execution.
    depends_on_run: bool,
    /// Whether these calls are all that the schedule does, and each is one function.
    can_be_sequence: bool,
    /// The linked function, once it was needed; `None` inside if it could not be linked.
    linked: Option<Option<Arc<dyn NativeSequence>>>,
    runs_as_sequence: bool,
}

impl Calls {
    /// The calls of the native steps of a schedule, and for each step the number of its call.
    pub(super) fn new(
        dag: &Dag,
        schedule: &Schedule,
        plain: &[bool],
        states: &[u32],
    ) -> (Calls, Vec<Option<usize>>) {
        let mut calls = Calls::default();
        let mut of_step = Vec::with_capacity(schedule.steps.len());
        let mut n_buffers = 0;
        for (number, (step, &plain)) in schedule.steps.iter().zip(plain).enumerate() {
            let code = match &dag.node(step.node).op {
                Op::Kernel(kernel) if plain => kernel.code(),
                _ => None,
            };
            let Some(code) = code else {
                of_step.push(None);
                continue;
            };
            of_step.push(Some(calls.calls.len()));
            let start = n_buffers;
            let packings = code.packings();
            n_buffers += step.operands.len() + 1 + packings.len();
            calls.depends_on_run |= code.depends_on(RUN);
            let packed = packings.iter().enumerate().filter_map(|(number, packing)| {
                let node = step.operands[packing.operand];
                let input = match (&dag.node(node).op, schedule.places.get(node)) {
                    (Op::Input { .. }, Some(Place::Input(id))) => Some(id),
                    _ => None,
                };
                let constant = input.filter(|id| !states.contains(id));
                // What changes with every call is not packed for each, where code can do without: its address stays null.
                let is_packed = constant.is_some() || !packing.can_wait;
                is_packed.then(|| PackedOperand {
                    from: start + packing.operand,
                    to: start + step.operands.len() + 1 + number,
                    entry: calls.packed.entry((code, number), constant),
                })
            });
            let packed = packed.collect();
            calls.calls.push(Call {
                node: step.node,
                step: number,
                code: code.clone(),
                buffers: start..n_buffers,
                params: 0..0,
                work: Work::default(),
                packed,
            });
        }
        let is_function = |call: &Call| call.code.symbol().is_some();
        calls.can_be_sequence = of_step.len() > 1
            && of_step.iter().all(Option::is_some)
            && calls.calls.iter().all(is_function);
        calls.table.0.resize(n_buffers, std::ptr::null_mut());
        (calls, of_step)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether [`Calls::evaluate`] is needed for every execution.
    pub(super) fn depends_on_run(&self) -> bool {
        self.depends_on_run
    }

    /// Evaluates parameters and work for these sizes; returns the largest working memory of a call.
    pub(super) fn evaluate(
        &mut self,
        dag: &Dag,
        symbols: &Symbols,
        n_threads: usize,
    ) -> Result<usize> {
        self.params.clear();
        self.units.clear();
        for call in &mut self.calls {
            let start = self.params.len();
            call.work = call
                .code
                .prepare(symbols, n_threads, &mut self.params)
                .map_err(|e| failed(dag, call.node, &e))?;
            call.params = start..self.params.len();
            self.units.push(call.work.units as i64);
        }
        let longest = self.calls.iter().map(|call| call.params.len()).max();
        self.fresh.clear();
        self.fresh.reserve(longest.unwrap_or(0));
        Ok(self.choose())
    }

    /// The calls whose code is one of those asked for, by number.
    pub(super) fn that_depend_on(&self, depends: impl Fn(&dyn NativeCode) -> bool) -> Vec<usize> {
        let calls = self.calls.iter().enumerate();
        calls
            .filter_map(|(number, call)| depends(&*call.code).then_some(number))
            .collect()
    }

    /// As [`Calls::evaluate`], of some calls only, where the others' parameters and work are as they were.
    pub(super) fn evaluate_again(
        &mut self,
        dag: &Dag,
        symbols: &Symbols,
        n_threads: usize,
        which: &[usize],
    ) -> Result<usize> {
        for &number in which {
            let call = &mut self.calls[number];
            self.fresh.clear();
            call.work = call
                .code
                .prepare(symbols, n_threads, &mut self.fresh)
                .map_err(|e| failed(dag, call.node, &e))?;
            // There are always equally many.
            self.params[call.params.clone()].copy_from_slice(&self.fresh);
            self.units[number] = call.work.units as i64;
        }
        Ok(self.choose())
    }

    /// Chooses between calls and a sequence; the largest working memory of a call.
    fn choose(&mut self) -> usize {
        let works = self.calls.iter().map(|call| call.work);
        let cost = works.clone().map(|work| work.cost);
        let cost = cost.fold(0, usize::saturating_add);
        let scratch = works.map(|work| work.scratch_bytes).max();
        self.runs_as_sequence = self.can_be_sequence && cost <= SEQUENCE_COST && self.link();
        scratch.unwrap_or(0)
    }

    /// Links the sequence unless that was tried before; whether there is one.
    fn link(&mut self) -> bool {
        let Calls {
            calls,
            errors,
            linked,
            ..
        } = self;
        let linked = linked.get_or_insert_with(|| {
            let parts: Option<Vec<SequencePart<'_>>> = calls
                .iter()
                .map(|call| {
                    Some(SequencePart {
                        symbol: call.code.symbol()?,
                        n_buffers: call.buffers.len(),
                        n_params: call.params.len(),
                    })
                })
                .collect();
            errors.resize(calls.len(), 0);
            // What cannot be linked, such as functions of two compilations, is called one by one.
            calls.first()?.code.link(&parts?).ok()
        });
        linked.is_some()
    }

    /// Writes the addresses of all buffers, which `address` gives for a node.
    pub(super) fn fill(&mut self, schedule: &Schedule, address: impl Fn(NodeIndex) -> *mut u8) {
        for call in &self.calls {
            let operands = &schedule.steps[call.step].operands;
            let table = &mut self.table.0[call.buffers.clone()];
            for (entry, &node) in table.iter_mut().zip(operands) {
                *entry = address(node);
            }
            table[operands.len()] = address(call.node);
            for packed in &call.packed {
                self.table.0[packed.to] = self.packed.start(packed.entry);
            }
        }
    }

    /// Packs what has to be, and gives its place to the calls. `source` is where an input's bytes are.
    ///
    /// # Errors
    /// If there is no memory.
    ///
    /// # Safety
    /// The tables are filled, and the invariant in the header holds.
    pub(super) unsafe fn pack<'a>(
        &mut self,
        extent: Extent,
        inputs: &Inputs,
        n_threads: usize,
        source: impl Fn(u32) -> Source<'a>,
    ) -> Result<()> {
        let version = |id| inputs.version(id);
        // SAFETY: the caller's promise.
        let moved = unsafe {
            self.packed
                .refresh(extent, inputs.changes(), n_threads, version, source)?
        };
        if moved {
            for packed in self.calls.iter().flat_map(|call| &call.packed) {
                self.table.0[packed.to] = self.packed.start(packed.entry);
            }
        }
        Ok(())
    }

    /// The operands that are kept packed.
    pub(super) fn packed(&mut self) -> &mut PackedOperands {
        &mut self.packed
    }

    /// Whether some call uses several threads.
    pub(super) fn uses_threads(&self) -> bool {
        self.calls.iter().any(|call| call.work.n_threads > 1)
    }

    /// Whether [`Calls::run_sequence`] does everything.
    pub(super) fn runs_as_sequence(&self) -> bool {
        self.runs_as_sequence
    }

    /// Runs one call.
    ///
    /// # Errors
    /// What the code reports, naming the node.
    ///
    /// # Safety
    /// The invariant in the header holds for its buffers, and `scratch` has as many bytes as [`Calls::evaluate`] said.
    pub(super) unsafe fn run(&mut self, dag: &Dag, call: usize, scratch: *mut u8) -> Result<()> {
        let call = &self.calls[call];
        for packed in &call.packed {
            let (from, threads) = (self.table.0[packed.from], call.work.n_threads);
            // SAFETY: the operand's buffer; `pack` was called before.
            unsafe { self.packed.pack_now(packed.entry, from, threads) };
        }
        let arguments = KernelCall {
            buffers: &self.table.0[call.buffers.clone()],
            scratch,
            params: &self.params[call.params.clone()],
            work: call.work,
        };
        // SAFETY: the caller vouches for the buffers and the scratch memory; the parameters are those of `prepare`.
        let result = unsafe { call.code.run(&arguments) };
        result.map_err(|e| failed(dag, call.node, &e))
    }

    /// Runs all calls in one.
    ///
    /// # Errors
    /// What the first failing part reports, naming the node.
    ///
    /// # Safety
    /// The invariant in the header holds for all buffers.
    pub(super) unsafe fn run_sequence(&mut self, dag: &Dag) -> Result<()> {
        let sequence = self.linked.as_ref().and_then(Option::as_ref);
        let sequence = sequence.expect("linked when it was chosen");
        let call = SequenceCall {
            buffers: &self.table.0,
            params: &self.params,
            units: &self.units,
            errors: &mut self.errors,
        };
        // SAFETY: the caller vouches for the buffers; parameters and units are those of `prepare`.
        let result = unsafe { sequence.run(call) };
        result.map_err(|(part, e)| failed(dag, self.calls[part].node, &e))
    }
}

fn failed(dag: &Dag, node: NodeIndex, why: &Error) -> Error {
    Error::Node {
        node: dag.describe(node),
        what: why.to_string(),
    }
}
