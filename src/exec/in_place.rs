//! Which states are written in place, and the order of steps that allows it.
//!
//! ```text
//! %2 = add(%state, %1)     state.assign(%2)     →  %2 lies where %state lies
//! ```
//! The new value of a state may be written over the old one if nothing reads the old one afterwards. So the step that
//! makes the new value waits for all other readers of the state. Then it comes before all other steps that are free to
//! come, as it needs no memory of its own and what it reads may be needed no longer; among those, the one that is first in
//! the given order. Where readers wait for each other (each of two states becomes a function of both), one
//! of them is written to the arena and copied after all steps.
//!
//! While it runs, the step itself may only read from the state what it is about to overwrite: a scatter its base, a
//! kernel of elementwise ops the element of the point that it computes ([`Kernel::is_pointwise_in`]). What the reference
//! executor computes is complete before it is written.
//!
//! What it deliberately does not do: a state whose old value another state gets, and a value that two states get, are
//! copied.
//!
//! [`Kernel::is_pointwise_in`]: crate::op::Kernel::is_pointwise_in

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use rustc_hash::FxHashMap;

use crate::graph::{Dag, NodeIndex};
use crate::op::Op;

/// An order of steps, and the nodes in it that write a state in place, with the state's number.
pub(super) struct InPlace {
    pub(super) order: Vec<NodeIndex>,
    pub(super) updates: FxHashMap<NodeIndex, u32>,
}

/// A node whose result may lie where a state lies.
struct Candidate {
    node: NodeIndex,
    /// The state's node and number.
    state: NodeIndex,
    id: u32,
}

/// Nodes that make the whole new value of one state and read nothing of it that they overwrite too early.
fn candidates(dag: &Dag, as_compiled: bool) -> Vec<Candidate> {
    let source = |value| dag.value(value).source.as_ref();
    let mut n_states: FxHashMap<NodeIndex, usize> = FxHashMap::default();
    for &(_, new) in dag.assigns() {
        if let Some(new) = source(new) {
            *n_states.entry(new.node).or_default() += 1;
        }
    }
    let candidate = |&(state, new): &(_, _)| {
        let (state, new) = (source(state)?, source(new)?);
        let Op::Input { id, .. } = dag.node(state.node).op else {
            return None;
        };
        // What several states get, or an input: another state's old value, which is read after all steps.
        let is_alone = n_states[&new.node] == 1 && !n_states.contains_key(&state.node);
        let fits = is_alone
            && dag.is_whole(new.node, &new.view)
            && reads_what_it_writes(dag, new.node, state.node, as_compiled);
        fits.then_some(Candidate {
            node: new.node,
            state: state.node,
            id,
        })
    };
    dag.assigns().iter().filter_map(candidate).collect()
}

/// Whether `node` can write its result over the buffer of `state` while it reads that.
fn reads_what_it_writes(dag: &Dag, node: NodeIndex, state: NodeIndex, as_compiled: bool) -> bool {
    let operands = dag.operands(node);
    let mut reads = operands.iter().enumerate().filter(|(_, o)| o.0 == state);
    match &dag.node(node).op {
        Op::Input { .. } => false,
        Op::Scatter { .. } => {
            let is_base = |(slot, operand): (usize, &(NodeIndex, _))| {
                slot == 0 && dag.is_whole(state, operand.1)
            };
            operands[0].0 == state && reads.all(is_base)
        }
        Op::Kernel(kernel) if as_compiled || kernel.code().is_some() => {
            reads.all(|(slot, _)| kernel.is_pointwise_in(slot))
        }
        _ => true,
    }
}

/// What waits for what, by position in the given order.
struct Waiting {
    /// How many operands are not computed yet.
    operands: Vec<usize>,
    /// For a candidate, how many other readers of the state that it writes are not done yet.
    state_readers: Vec<Option<usize>>,
    /// Who waits for a node's result.
    feeds: Vec<Vec<usize>>,
    /// Which candidates wait until a node has read their state.
    frees: Vec<Vec<usize>>,
}

impl Waiting {
    fn new(dag: &Dag, order: &[NodeIndex], candidates: &[Candidate]) -> Waiting {
        let n = order.len();
        let mut position = vec![None; dag.bound()];
        for (i, node) in order.iter().enumerate() {
            position[node.index()] = Some(i);
        }
        let mut waiting = Waiting {
            operands: vec![0; n],
            state_readers: vec![None; n],
            feeds: vec![Vec::new(); n],
            frees: vec![Vec::new(); n],
        };
        for (i, &node) in order.iter().enumerate() {
            for (operand, _) in dag.operands(node) {
                let operand =
                    position[operand.index()].expect("operands of needed nodes are needed");
                waiting.feeds[operand].push(i);
                waiting.operands[i] += 1;
            }
        }
        for candidate in candidates {
            let Some(i) = position[candidate.node.index()] else {
                continue;
            };
            let readers = dag.readers(candidate.state).map(|reader| reader.0);
            let readers = readers.filter(|&reader| reader != candidate.node);
            let mut n_readers = 0;
            for reader in readers.filter_map(|reader| position[reader.index()]) {
                waiting.frees[reader].push(i);
                n_readers += 1;
            }
            waiting.state_readers[i] = Some(n_readers);
        }
        waiting
    }
}

/// Nodes whose operands are computed.
#[derive(Default)]
struct Queue {
    /// Those that can come now; the first in the given order is next.
    ready: BinaryHeap<Reverse<usize>>,
    /// Those among them that write a state in place: they come before.
    free: BinaryHeap<Reverse<usize>>,
    /// Candidates that still wait for readers of their state.
    held: BTreeSet<usize>,
}

impl Queue {
    fn add(&mut self, node: usize, waiting: &Waiting) {
        match waiting.state_readers[node] {
            None => self.ready.push(Reverse(node)),
            Some(0) => self.free.push(Reverse(node)),
            Some(_) => _ = self.held.insert(node),
        }
    }

    fn pop(&mut self) -> Option<usize> {
        let Reverse(node) = self.free.pop().or_else(|| self.ready.pop())?;
        Some(node)
    }
}

impl InPlace {
    /// Orders the needed nodes: as they are given, but each after its operands. With `as_compiled`, as if every kernel
    /// had machine code.
    pub(super) fn plan(dag: &Dag, needed: Vec<NodeIndex>, as_compiled: bool) -> InPlace {
        let candidates = candidates(dag, as_compiled);
        let mut waiting = Waiting::new(dag, &needed, &candidates);
        let mut queue = Queue::default();
        let free = (0..needed.len()).filter(|&i| waiting.operands[i] == 0);
        free.for_each(|i| queue.add(i, &waiting));
        let mut copied = BTreeSet::new();
        let mut order = Vec::with_capacity(needed.len());
        loop {
            let Some(i) = queue.pop() else {
                // Everything else waits for a candidate that waits for one of its own readers.
                let Some(first) = queue.held.pop_first() else {
                    break;
                };
                copied.insert(needed[first]);
                queue.ready.push(Reverse(first));
                continue;
            };
            order.push(needed[i]);
            for reader in std::mem::take(&mut waiting.feeds[i]) {
                waiting.operands[reader] -= 1;
                if waiting.operands[reader] == 0 {
                    queue.add(reader, &waiting);
                }
            }
            for candidate in std::mem::take(&mut waiting.frees[i]) {
                let readers = &mut waiting.state_readers[candidate];
                *readers = readers.map(|n| n - 1);
                if *readers == Some(0) && queue.held.remove(&candidate) {
                    queue.free.push(Reverse(candidate));
                }
            }
        }
        let kept = candidates.iter().filter(|c| !copied.contains(&c.node));
        InPlace {
            updates: kept.map(|c| (c.node, c.id)).collect(),
            order,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::prelude::*;

    fn states(cx: &mut Graph) -> [GraphTensor; 2] {
        [1.0, 10.0].map(|x| cx.input(3, DType::F32).set(vec![x, x + 1.0, x + 2.0]))
    }

    #[test]
    fn a_new_value_waits_for_readers_of_the_old_one() {
        let mut cx = Graph::new();
        let [a, b] = states(&mut cx);
        a.assign(a * 2.0);
        // Recorded later, computed earlier.
        let old = (a * b + a.flip(0)).retrieve();
        cx.execute();
        assert_eq!(cx.stats().state_bytes_written, 0);
        assert_eq!(a.data(), [2.0, 4.0, 6.0]);
        assert_eq!(old.data(), [13.0, 24.0, 37.0]);
    }

    #[test]
    fn of_two_states_that_need_each_other_one_is_copied() {
        let mut cx = Graph::new();
        let [a, b] = states(&mut cx);
        a.assign(a + b);
        b.assign(b * a);
        cx.execute();
        assert_eq!(cx.stats().state_bytes_written, 12);
        assert_eq!(
            (a.data(), b.data()),
            (vec![11.0, 13.0, 15.0], vec![10.0, 22.0, 36.0])
        );
    }

    #[test]
    fn states_that_change_places_are_copied() {
        let mut cx = Graph::new();
        let [a, b] = states(&mut cx);
        a.assign(b);
        b.assign(a);
        cx.execute();
        assert_eq!(cx.stats().state_bytes_written, 24);
        assert_eq!((a.data()[0], b.data()[0]), (10.0, 1.0));
    }

    #[test]
    fn a_value_for_two_states_is_copied_to_both() {
        let mut cx = Graph::new();
        let [a, b] = states(&mut cx);
        let new = a * b;
        a.assign(new);
        b.assign(new);
        cx.execute();
        assert_eq!(cx.stats().state_bytes_written, 24);
        assert_eq!((a.data(), b.data()), (vec![10.0, 22.0, 36.0], a.data()));
    }

    #[test]
    fn a_compiled_kernel_may_not_overwrite_what_it_reads_later() {
        type Change = fn(GraphTensor) -> GraphTensor;
        let changes: [(Change, usize); 4] = [
            (|x| x * 3.0 + 1.0, 0),
            (|x| x.flip(0) * 3.0, 12),
            (|x| x + x.sum(0).expand(3), 12),
            (|x| x.exp() * x.reshape((3, 1)).reshape(3), 0),
        ];
        for (i, (change, copied)) in changes.into_iter().enumerate() {
            let run = |compiled: bool| {
                let mut cx = Graph::new();
                let [a, _] = states(&mut cx);
                a.assign(change(a));
                if compiled {
                    cx.compile(<(Generic, LlvmCpu)>::default(), ());
                }
                cx.execute();
                cx.execute();
                (a.data(), cx.stats())
            };
            let ((found, stats), (wanted, _)) = (run(true), run(false));
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5 * b.abs();
            assert!(found.iter().zip(&wanted).all(close), "{found:?} {wanted:?}");
            if stats.native_steps > 0 {
                assert_eq!(stats.state_bytes_written, copied, "change {i}");
                assert_eq!(stats.arena_bytes == 0, copied == 0, "change {i}");
            }
        }
    }
}
