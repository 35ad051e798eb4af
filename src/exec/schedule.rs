//! The order of steps, and where each node's result lives.
//!
//! Nodes that no kept value needs are not scheduled. A result lives in the arena, except that of a `Scatter` that updates a state in place: a scatter
//! whose base is an input that the scatter's value is assigned to, and that nothing reads afterwards. Then it writes
//! its rows into the input's own memory, and nothing is copied.

use rustc_hash::FxHashMap;

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

/// For every input that some scatter may update in place: that scatter.
fn in_place_updates(dag: &Dag, order: &[NodeIndex]) -> FxHashMap<NodeIndex, u32> {
    let position: FxHashMap<NodeIndex, usize> = order
        .iter()
        .enumerate()
        .map(|(i, &node)| (node, i))
        .collect();
    let mut updates = FxHashMap::default();
    for &(state, new) in dag.assigns() {
        let (Some(state), Some(new)) = (&dag.value(state).source, &dag.value(new).source) else {
            continue;
        };
        let Op::Input { id, .. } = dag.node(state.node).op else {
            continue;
        };
        if !matches!(dag.node(new.node).op, Op::Scatter { .. })
            || !dag.is_whole(new.node, &new.view)
        {
            continue;
        }
        let operands = dag.operands(new.node);
        let base_only = operands[0].0 == state.node
            && dag.is_whole(state.node, operands[0].1)
            && operands[1..].iter().all(|(node, _)| *node != state.node);
        // Another state that gets this one's old value reads it after all steps.
        let read_later = dag.assigns().iter().any(|&(_, other)| {
            let source = dag.value(other).source.as_ref();
            source.is_some_and(|source| source.node == state.node)
        });
        if read_later {
            continue;
        }
        let Some(&at) = position.get(&new.node) else {
            continue;
        };
        let mut others = dag
            .readers(state.node)
            .filter(|(reader, _, _)| *reader != new.node);
        if base_only && others.all(|(reader, _, _)| position.get(&reader).is_none_or(|&i| i < at)) {
            updates.insert(new.node, id);
        }
    }
    updates
}

impl Schedule {
    /// Orders the graph.
    ///
    /// # Errors
    /// If it has a cycle.
    pub fn new(dag: &Dag) -> Result<Schedule> {
        let order = needed(dag)?;
        let updates = in_place_updates(dag, &order);
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
