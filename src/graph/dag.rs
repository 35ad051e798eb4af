//! The graph itself: ops as nodes, operands as edges that carry views, and the map from values to nodes.
//!
//! Invariants (checked by [`super::verify`]):
//! - no cycles; a node's operand slots are `0..n` without gaps; parallel edges are allowed (`x * x`);
//! - an edge's view reads a buffer of its source's type, and a node's type is what its op infers from what it reads;
//! - a *value* is a node seen through a view. Values never move; compilers change which node they stand for, and a
//!   value whose node was optimized away stands for none.
//!
//! The DAG holds no data and computes nothing. A copy of it shares nodes, views and entries with it until one of them changes:
//! the driver keeps the graph of every stage.

use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::stable_graph::StableDiGraph;
use petgraph::visit::EdgeRef;
use smallvec::SmallVec;

pub use petgraph::stable_graph::NodeIndex;

use crate::error::{Error, Result};
use crate::op::{Op, TensorType};
use crate::shape::View;

/// When a node is computed, as far as its operands, its readers and the states leave a choice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Turn {
    /// In the order of these numbers: that of recording.
    Recorded(u32),
    /// Just before the first node that reads it. It is there so that its operands' memory need not be kept, or less of
    /// it, so passes must not replace it by an equal node that is computed earlier; the number is its own.
    Late(u32),
}

impl Turn {
    /// The turn of a node that others read in the place of one of turn `other` too.
    pub(super) fn earlier(self, other: Turn) -> Turn {
        match (self, other) {
            (Turn::Recorded(a), Turn::Recorded(b)) => Turn::Recorded(a.min(b)),
            _ => self,
        }
    }
}

/// One operation of the graph.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Type of its result, which is stored contiguously.
    pub ty: TensorType,
    /// The user's name for it.
    pub name: Option<Arc<str>>,
    /// The line that recorded it.
    pub location: &'static Location<'static>,
    /// When it is computed.
    pub turn: Turn,
}

/// One operand: which, and how its buffer is looked at.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Position among the operands.
    pub slot: usize,
    /// How the source's buffer is read.
    pub view: Arc<View>,
}

/// A node seen through a view.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// The node.
    pub node: NodeIndex,
    /// How its buffer is read.
    pub view: View,
}

/// Number of a value within its graph. Handles hold it; it is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// What the graph knows of a value.
#[derive(Clone, Debug)]
pub struct ValueEntry {
    /// Where it comes from today; `None` when a compiler removed it.
    pub source: Option<Source>,
    /// Its shape and format: these never change.
    pub ty: TensorType,
    /// The line that recorded it.
    pub location: &'static Location<'static>,
}

/// The graph that passes read and [`Patch`](super::Patch)es change.
#[derive(Clone, Default)]
pub struct Dag {
    pub(super) nodes: StableDiGraph<Arc<Node>, Edge>,
    pub(super) values: Vec<Arc<ValueEntry>>,
    pub(super) outputs: BTreeSet<ValueId>,
    pub(super) assigns: Vec<(ValueId, ValueId)>,
    pub(super) n_inputs: u32,
    pub(super) n_turns: u32,
    pub(super) is_foreign: bool,
    pub(super) version: u64,
}

/// A node's operands in order.
pub type Operands<'a> = SmallVec<[(NodeIndex, &'a View); 3]>;

impl Dag {
    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.node_count()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes with every change of the graph.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the views come from a text: those with symbols are compared with what they read when executed.
    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// The node.
    ///
    /// # Panics
    /// If it was removed.
    pub fn node(&self, id: NodeIndex) -> &Node {
        &self.nodes[id]
    }

    /// Whether the node exists.
    pub fn contains(&self, id: NodeIndex) -> bool {
        self.nodes.contains_node(id)
    }

    /// All nodes, in no useful order.
    pub fn ids(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.nodes.node_indices()
    }

    /// One more than the largest node number: the length of a table indexed by node.
    pub fn bound(&self) -> usize {
        self.nodes
            .node_indices()
            .next_back()
            .map_or(0, |id| id.index() + 1)
    }

    /// The operands in order.
    pub fn operands(&self, id: NodeIndex) -> Operands<'_> {
        let mut edges: SmallVec<[(usize, NodeIndex, &View); 3]> = self
            .nodes
            .edges_directed(id, Direction::Incoming)
            .map(|edge| (edge.weight().slot, edge.source(), &*edge.weight().view))
            .collect();
        edges.sort_unstable_by_key(|edge| edge.0);
        edges
            .into_iter()
            .map(|(_, node, view)| (node, view))
            .collect()
    }

    /// The nodes that read this one, with the view through which they do; a node that reads it twice comes twice.
    pub fn readers(&self, id: NodeIndex) -> impl Iterator<Item = (NodeIndex, usize, &View)> + '_ {
        let edges = self.nodes.edges_directed(id, Direction::Outgoing);
        edges.map(|edge| (edge.target(), edge.weight().slot, &*edge.weight().view))
    }

    /// Every node after its operands; among those that are free to come, the lowest number first.
    ///
    /// # Errors
    /// If there is a cycle.
    pub fn topological(&self) -> Result<Vec<NodeIndex>> {
        let mut waiting = vec![0usize; self.bound()];
        let mut ready = std::collections::BinaryHeap::new();
        for id in self.ids() {
            let n = self.nodes.edges_directed(id, Direction::Incoming).count();
            waiting[id.index()] = n;
            if n == 0 {
                ready.push(std::cmp::Reverse(id));
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some(std::cmp::Reverse(id)) = ready.pop() {
            order.push(id);
            for (reader, _, _) in self.readers(id) {
                waiting[reader.index()] -= 1;
                if waiting[reader.index()] == 0 {
                    ready.push(std::cmp::Reverse(reader));
                }
            }
        }
        if order.len() == self.len() {
            Ok(order)
        } else {
            Err(Error::msg("the graph has a cycle"))
        }
    }

    /// Whether `view` is the whole buffer of `node` in its order.
    pub fn is_whole(&self, node: NodeIndex, view: &View) -> bool {
        let ty = &self.node(node).ty;
        (*view.dims() == ty.dims[..] && view.is_contiguous()) || view.is_identity(ty.numel())
    }

    /// A value's entry.
    pub fn value(&self, id: ValueId) -> &ValueEntry {
        &self.values[id.0 as usize]
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = (ValueId, &ValueEntry)> {
        self.values
            .iter()
            .enumerate()
            .map(|(i, entry)| (ValueId(i as u32), &**entry))
    }

    /// The values that must survive compilation and can be read after an execution.
    pub fn outputs(&self) -> &BTreeSet<ValueId> {
        &self.outputs
    }

    /// Pairs (state, new value): after each execution the state's data becomes the new value.
    pub fn assigns(&self) -> &[(ValueId, ValueId)] {
        &self.assigns
    }

    /// Every value that must survive: outputs, states and what is assigned to them.
    pub fn kept_values(&self) -> impl Iterator<Item = ValueId> + '_ {
        let assigned = self.assigns.iter().flat_map(|&(state, new)| [state, new]);
        self.outputs.iter().copied().chain(assigned)
    }

    /// The nodes of [`Dag::kept_values`].
    pub fn kept_nodes(&self) -> BTreeSet<NodeIndex> {
        self.kept_values()
            .filter_map(|id| self.value(id).source.as_ref().map(|source| source.node))
            .collect()
    }

    /// `mul f32[2, 3] "name" (src/main.rs:7)`: a node as errors name it.
    pub fn describe(&self, id: NodeIndex) -> String {
        let Some(node) = self.nodes.node_weight(id) else {
            return format!("removed node {}", id.index());
        };
        let name = node
            .name
            .as_ref()
            .map(|name| format!(" \"{name}\""))
            .unwrap_or_default();
        format!(
            "{} {}{name} (recorded at {}:{})",
            node.op.name(),
            node.ty,
            node.location.file(),
            node.location.line()
        )
    }

    /// Adds a node; `operands` are read through their views.
    ///
    /// # Errors
    /// If the operands do not fit the op.
    pub(crate) fn push(
        &mut self,
        op: Op,
        operands: &[(NodeIndex, View)],
        location: &'static Location<'static>,
    ) -> Result<NodeIndex> {
        let types: SmallVec<[TensorType; 3]> = operands
            .iter()
            .map(|(node, view)| TensorType {
                dims: view.dims().iter().copied().collect(),
                dtype: self.nodes[*node].ty.dtype,
            })
            .collect();
        let ty = op.infer(&types).map_err(|what| Error::Shape {
            op: op.name().into(),
            what,
        })?;
        let turn = Turn::Recorded(self.next_turn());
        let id = self.add_node(Node {
            op,
            ty,
            name: None,
            location,
            turn,
        });
        for (slot, (node, view)) in operands.iter().enumerate() {
            let view = Arc::new(view.clone());
            self.nodes.add_edge(*node, id, Edge { slot, view });
        }
        self.version += 1;
        Ok(id)
    }

    /// Adds a value that stands for `source`.
    pub(crate) fn push_value(
        &mut self,
        source: Source,
        location: &'static Location<'static>,
    ) -> ValueId {
        let dims = source.view.dims().iter().copied().collect();
        let ty = TensorType {
            dims,
            dtype: self.nodes[source.node].ty.dtype,
        };
        self.values.push(Arc::new(ValueEntry {
            source: Some(source),
            ty,
            location,
        }));
        ValueId(self.values.len() as u32 - 1)
    }

    /// The value's source.
    ///
    /// # Errors
    /// If a compiler removed it.
    pub(crate) fn source(&self, id: ValueId) -> Result<&Source> {
        let entry = self.value(id);
        entry.source.as_ref().ok_or_else(|| {
            Error::msg(format!(
                "the value {} recorded at {}:{} was optimized away: pass it to `compile`, or call `.retrieve()` on it before",
                entry.ty,
                entry.location.file(),
                entry.location.line()
            ))
        })
    }

    pub(super) fn next_turn(&mut self) -> u32 {
        self.n_turns += 1;
        self.n_turns - 1
    }

    pub(crate) fn next_input(&mut self) -> u32 {
        self.n_inputs += 1;
        self.n_inputs - 1
    }

    pub(crate) fn add_output(&mut self, id: ValueId) {
        if self.outputs.insert(id) {
            self.version += 1;
        }
    }

    pub(crate) fn add_assign(&mut self, state: ValueId, new: ValueId) {
        // Several values may stand for one input (a reshaped one, say): it is one state, assigned to once.
        let node = |id: ValueId| {
            self.values[id.0 as usize]
                .source
                .as_ref()
                .map(|source| source.node)
        };
        let kept = self.assigns.iter().copied();
        let mut assigns: Vec<_> = kept.filter(|&(old, _)| node(old) != node(state)).collect();
        assigns.push((state, new));
        self.assigns = assigns;
        self.version += 1;
    }

    pub(crate) fn set_name(&mut self, node: NodeIndex, name: &str) {
        self.node_mut(node).name = Some(name.into());
    }

    pub(super) fn add_node(&mut self, node: Node) -> NodeIndex {
        self.nodes.add_node(Arc::new(node))
    }

    /// The node, to change; copies of the graph keep it as it is.
    pub(super) fn node_mut(&mut self, id: NodeIndex) -> &mut Node {
        Arc::make_mut(&mut self.nodes[id])
    }
}
