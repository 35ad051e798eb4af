//! The order of steps, and where each node's result lives.
//!
//! Nodes that no kept value needs are not scheduled. A result lives in the arena, except a state's new value that can be
//! written into the state's own memory (see the module `in_place`): then nothing is copied.

use rustc_hash::FxHashMap;

use super::in_place::InPlace;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex};
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

/// The nodes that some kept value needs, in an order that computes operands first.
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
    Ok(order
        .into_iter()
        .filter(|node| wanted[node.index()])
        .collect())
}

impl Schedule {
    /// Orders the graph.
    ///
    /// # Errors
    /// If it has a cycle.
    pub fn new(dag: &Dag) -> Result<Schedule> {
        let InPlace { order, updates } = InPlace::plan(dag, needed(dag)?);
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
