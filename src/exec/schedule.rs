//! The order of steps, and where each node's result lives.
//!
//! Nodes come in the order of their [`Turn`]s, as far as their operands allow: as they were recorded, gradients after
//! what they are gradients of, and what is computed late just before its first reader. So how long results are needed
//! is what the recording says, and not what numbers passes gave to new nodes.
//!
//! Nodes that no kept value needs are not scheduled. A result lives in the arena, except a state's new value that can be
//! written into the state's own memory (see the module `in_place`): then nothing is copied.

use rustc_hash::FxHashMap;

use super::in_place::InPlace;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, Turn};
use crate::op::Op;

/// Where a node's result lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the data of the input of this number.
    Input(u32),
    /// In the arena, as the buffer of this number.
    Arena(usize),
}

/// The places of nodes, by node number.
#[derive(Clone, Debug, Default)]
pub struct Places(Vec<Option<Place>>);

impl Places {
    /// Where a node's result lives; `None` if the node is not scheduled.
    pub fn get(&self, node: NodeIndex) -> Option<Place> {
        self.0.get(node.index()).copied().flatten()
    }

    /// All scheduled nodes, in the order of their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        let numbers = self.0.iter().enumerate();
        numbers.filter_map(|(i, place)| place.map(|_| NodeIndex::new(i)))
    }

    fn insert(&mut self, node: NodeIndex, place: Place) {
        let len = self.0.len().max(node.index() + 1);
        self.0.resize(len, None);
        self.0[node.index()] = Some(place);
    }
}

/// One step: a node to compute.
#[derive(Clone, Debug)]
pub struct Step {
    /// The node.
    pub node: NodeIndex,
    /// Its operands' nodes, in order.
    pub operands: Vec<NodeIndex>,
}

/// Steps and places.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// What to compute, in order.
    pub steps: Vec<Step>,
    /// Where every node's result lives.
    pub places: Places,
    /// For every arena buffer: its node, the step that writes it and the last step that reads it (`usize::MAX` for
    /// results that can be read after the execution).
    pub buffers: Vec<Lifetime>,
}

/// From which step to which a buffer is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Whose result it is.
    pub node: NodeIndex,
    /// The step that writes it.
    pub first: usize,
    /// The last step that reads it.
    pub last: usize,
}

/// The nodes that some kept value needs, in the order of their turns.
fn needed(dag: &Dag) -> Result<Vec<NodeIndex>> {
    let mut wanted = vec![false; dag.bound()];
    for node in dag.kept_nodes() {
        wanted[node.index()] = true;
    }
    let order = dag.topological()?;
    for &node in order.iter().rev() {
        if wanted[node.index()] {
            for (operand, _) in dag.operands(node) {
                wanted[operand.index()] = true;
            }
        }
    }
    let wanted = |node: &NodeIndex| wanted[node.index()];
    let mut needed: Vec<NodeIndex> = order.into_iter().filter(wanted).collect();
    let mut turns = vec![u32::MAX; dag.bound()];
    for &node in needed.iter().rev() {
        // Readers come later, so a late node has the first one's turn by now. Inputs are there from the start.
        match (&dag.node(node).op, dag.node(node).turn) {
            (Op::Input { .. }, _) => turns[node.index()] = 0,
            (_, Turn::Recorded(turn)) => turns[node.index()] = turn,
            (_, Turn::Late(_)) => {}
        }
        let turn = turns[node.index()];
        for (operand, _) in dag.operands(node) {
            if matches!(dag.node(operand).turn, Turn::Late(_)) {
                let first = &mut turns[operand.index()];
                *first = turn.min(*first);
            }
        }
    }
    needed.sort_by_key(|node| turns[node.index()]);
    Ok(needed)
}

impl Schedule {
    /// Orders the graph.
    ///
    /// # Errors
    /// If it has a cycle.
    pub fn new(dag: &Dag) -> Result<Schedule> {
        Schedule::of(dag, false)
    }

    /// The order of a graph whose kernels will all have machine code, which may not have it yet.
    ///
    /// # Errors
    /// If it has a cycle.
    pub fn as_compiled(dag: &Dag) -> Result<Schedule> {
        Schedule::of(dag, true)
    }

    fn of(dag: &Dag, as_compiled: bool) -> Result<Schedule> {
        let InPlace { order, updates } = InPlace::plan(dag, needed(dag)?, as_compiled);
        let mut schedule = Schedule::default();
        let mut last_use: FxHashMap<NodeIndex, usize> = FxHashMap::default();
        for &node in &order {
            if let Op::Input { id, .. } = dag.node(node).op {
                schedule.places.insert(node, Place::Input(id));
                continue;
            }
            let at = schedule.steps.len();
            let operands: Vec<NodeIndex> = dag
                .operands(node)
                .iter()
                .map(|(operand, _)| *operand)
                .collect();
            for &operand in &operands {
                last_use.insert(operand, at);
            }
            let place = match updates.get(&node) {
                Some(&id) => Place::Input(id),
                None => {
                    schedule.buffers.push(Lifetime {
                        node,
                        first: at,
                        last: at,
                    });
                    Place::Arena(schedule.buffers.len() - 1)
                }
            };
            schedule.places.insert(node, place);
            schedule.steps.push(Step { node, operands });
        }
        let kept = dag.kept_nodes();
        for buffer in &mut schedule.buffers {
            let used = last_use.get(&buffer.node).copied().unwrap_or(buffer.first);
            buffer.last = if kept.contains(&buffer.node) {
                usize::MAX
            } else {
                used
            };
        }
        Ok(schedule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{NodeRef, Patch};
    use crate::prelude::*;
    use crate::shape::View;

    /// The steps of a graph, by the names of their nodes.
    fn steps(cx: &Graph) -> Vec<String> {
        cx.inspect(|dag| {
            let schedule = Schedule::new(dag).expect("a recorded graph");
            let name = |step: &Step| dag.node(step.node).name.as_deref().map(String::from);
            schedule.steps.iter().filter_map(name).collect()
        })
    }

    #[test]
    fn steps_come_as_recorded_whatever_their_numbers() {
        let mut cx = Graph::new();
        let x = cx.input(4, DType::F32);
        x.exp().set_name("unread");
        let last = (0..3)
            .map(|i| x.sin().set_name(&format!("old {i}")))
            .fold(x, |a, b| a + b);
        last.retrieve();
        // The unread node's number is free for the first of the new ones.
        cx.compile(crate::compilers::Generic, ());
        let (a, b) = (x.sqrt().set_name("a"), x.recip().set_name("b"));
        (a + b).retrieve();
        assert_eq!(steps(&cx), ["old 0", "a", "b"]);
    }

    #[test]
    fn a_state_gets_its_new_value_as_soon_as_it_can() {
        let mut cx = Graph::new();
        let x = cx.input(4, DType::F32);
        let first = x.sin().set_name("first");
        let second = x.exp().set_name("second");
        second.sum(..).set_name("sum").retrieve();
        let state = cx.input(4, DType::F32);
        state.assign((state + first).set_name("update"));
        assert_eq!(steps(&cx), ["first", "update", "second", "sum"]);
    }

    #[test]
    fn what_is_late_comes_just_before_its_first_reader() {
        let mut cx = Graph::new();
        let x = cx.input(4, DType::F32);
        let first = x.sin().set_name("first");
        let second = (first * 2.0).set_name("second");
        let third = (second.exp() + first).set_name("third");
        third.retrieve();
        let repeat = |dag: &Dag, name: &str| {
            let id = dag
                .ids()
                .find(|&id| dag.node(id).name.as_deref() == Some(name));
            id.expect("it was named")
        };
        let mut guard = cx.lock();
        let (first, third) = (repeat(&guard.dag, "first"), repeat(&guard.dag, "third"));
        let mut patch = Patch::new();
        let operands = vec![(
            NodeRef::Old(guard.dag.operands(first)[0].0),
            View::contiguous(4),
        )];
        let op = guard.dag.node(first).op.clone();
        let late = patch.add_late(&guard.dag, op, operands, first);
        patch.reroute(third, 1, late.expect("it is what is there"));
        patch.apply(&mut guard.dag).expect("a right patch");
        drop(guard);
        assert_eq!(steps(&cx), ["first", "second", "first", "third"]);
    }
}
