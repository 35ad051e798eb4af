//! The only way a pass changes the graph.
//!
//! A [`Patch`] lists new nodes and replacements `old -> new through a view`. It is checked as a whole (types must
//! agree, nothing may refer to a node that is not there) and then applied as a whole, or not at all. Readers of a
//! replaced node read the new one through the composition of both views; values move along. A patch does not delete
//! what became unused: dead-code elimination does, through [`Patch::remove`]. [`Patch::store`] changes an input itself,
//! for its number and its handles have to stay. [`Patch::reroute`] changes one operand of one node.
//!
//! New nodes are computed when the node was whose place they take ([`Turn`]), unless the patch
//! [appends](Patch::appending) them or adds them to be [late](Patch::add_late).

use std::sync::Arc;

use petgraph::Direction;
use petgraph::visit::EdgeRef;
use rustc_hash::{FxHashMap, FxHashSet};

use super::dag::{Dag, Edge, Node, NodeIndex, Source, Turn, ValueId};
use super::stored::StoredAs;
use crate::blocks::{BlockType, ColumnStats, SignFit, SignMatrix};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Op, TensorType};
use crate::shape::View;

/// A node of the graph or one that the patch adds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NodeRef {
    /// A node that is there.
    Old(NodeIndex),
    /// The patch's new node of this number.
    New(usize),
}

struct NewNode {
    op: Op,
    operands: Vec<(NodeRef, View)>,
    ty: TensorType,
    origin: NodeIndex,
    is_late: bool,
}

/// A set of changes, applied at once.
#[derive(Default)]
pub struct Patch {
    new: Vec<NewNode>,
    replace: Vec<(NodeIndex, NodeRef, View)>,
    remove: Vec<NodeIndex>,
    store: Vec<(NodeIndex, StoredAs)>,
    calibrated: Vec<(NodeIndex, Arc<ColumnStats>)>,
    expose: Vec<(NodeRef, View)>,
    reroute: Vec<(NodeIndex, usize, NodeRef)>,
    appends: bool,
}

impl Patch {
    /// A patch that changes nothing.
    pub fn new() -> Patch {
        Patch::default()
    }

    /// The same patch, whose new nodes come after all that are there instead of in the place of others.
    pub fn appending(mut self) -> Patch {
        self.appends = true;
        self
    }

    /// Number of replacements, removals, changed inputs, new values and changed operands.
    pub fn len(&self) -> usize {
        let changes = self.replace.len() + self.remove.len() + self.store.len();
        changes + self.expose.len() + self.reroute.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a node that takes its name and line from `origin`.
    ///
    /// # Errors
    /// If the operands do not fit the op.
    pub fn add(
        &mut self,
        dag: &Dag,
        op: Op,
        operands: Vec<(NodeRef, View)>,
        origin: NodeIndex,
    ) -> Result<NodeRef> {
        let types: Vec<TensorType> = operands
            .iter()
            .map(|(source, view)| TensorType {
                dims: view.dims().iter().copied().collect(),
                dtype: self.ty(dag, *source).dtype,
            })
            .collect();
        let ty = op.infer(&types).map_err(|what| Error::Node {
            node: dag.describe(origin),
            what: format!("{}: {what}", op.name()),
        })?;
        self.new.push(NewNode {
            op,
            operands,
            ty,
            origin,
            is_late: false,
        });
        Ok(NodeRef::New(self.new.len() - 1))
    }

    /// Adds a node that is computed just before its first reader, and never taken for another one: see
    /// [`Turn::Late`].
    ///
    /// # Errors
    /// If the operands do not fit the op.
    pub fn add_late(
        &mut self,
        dag: &Dag,
        op: Op,
        operands: Vec<(NodeRef, View)>,
        origin: NodeIndex,
    ) -> Result<NodeRef> {
        let node = self.add(dag, op, operands, origin)?;
        self.new.last_mut().expect("it was just added").is_late = true;
        Ok(node)
    }

    /// Type of a node, old or new.
    pub fn ty<'a>(&'a self, dag: &'a Dag, node: NodeRef) -> &'a TensorType {
        match node {
            NodeRef::Old(id) => &dag.node(id).ty,
            NodeRef::New(i) => &self.new[i].ty,
        }
    }

    /// Op of a node, old or new.
    pub fn op<'a>(&'a self, dag: &'a Dag, node: NodeRef) -> &'a Op {
        match node {
            NodeRef::Old(id) => &dag.node(id).op,
            NodeRef::New(i) => &self.new[i].op,
        }
    }

    /// Operands of the patch's new node of this number.
    pub fn new_operands(&self, i: usize) -> &[(NodeRef, View)] {
        &self.new[i].operands
    }

    /// Everything that read `old` shall read `new` through `view`, whose dimensions are those of `old`.
    pub fn replace(&mut self, old: NodeIndex, new: NodeRef, view: View) {
        self.replace.push((old, new, view));
    }

    /// Everything that read `old` shall read `new`, which has the same dimensions.
    pub fn replace_with(&mut self, dag: &Dag, old: NodeIndex, new: NodeRef) {
        let view = View::contiguous(self.ty(dag, new).dims.clone());
        self.replace(old, new, view);
    }

    /// Deletes a node that nothing reads once the patch is applied.
    pub fn remove(&mut self, node: NodeIndex) {
        self.remove.push(node);
    }

    /// Stores a floating-point input in another floating-point format. Its readers get a cast back to the old one;
    /// its handles go on standing for it.
    pub fn store(&mut self, input: NodeIndex, dtype: DType) {
        self.store.push((input, StoredAs::Format(dtype)));
    }

    /// Stores a floating-point input, whose last axis is a known number of whole blocks, as blocks of a low-bit type.
    /// Its readers and its handles get what these stand for, in the format that the input had.
    pub fn store_blocks(&mut self, input: NodeIndex, ty: BlockType) {
        self.store.push((input, StoredAs::Blocks(ty)));
    }

    /// Stores a floating-point input, a matrix of these sizes, as signs and scales. Its readers and its handles get what
    /// these stand for, in the format that the input had.
    pub fn store_signs(&mut self, input: NodeIndex, matrix: SignMatrix, fit: SignFit) {
        self.store.push((input, StoredAs::Signs(matrix, fit)));
    }

    /// Tells what the columns of an input that is stored in blocks or as signs are multiplied by: scales and signs are then
    /// those of least error in such products.
    pub fn calibrate(&mut self, input: NodeIndex, stats: Arc<ColumnStats>) {
        self.calibrated.push((input, stats));
    }

    /// Makes a node, seen through a view, a value that handles can stand for.
    pub fn expose(&mut self, node: NodeRef, view: View) {
        self.expose.push((node, view));
    }

    /// Operand `slot` of `reader` shall be `node`, of the same type as the old one, seen through the same view.
    pub fn reroute(&mut self, reader: NodeIndex, slot: usize, node: NodeRef) {
        self.reroute.push((reader, slot, node));
    }

    /// What is known about the columns of inputs, by number.
    pub(crate) fn calibrated(&self, dag: &Dag) -> FxHashMap<u32, Arc<ColumnStats>> {
        let inputs = self.calibrated.iter().filter_map(|(node, stats)| {
            let is_there = dag.contains(*node);
            match is_there.then(|| &dag.node(*node).op) {
                Some(Op::Input { id, .. }) => Some((*id, stats.clone())),
                _ => None,
            }
        });
        inputs.collect()
    }

    /// The inputs whose format changes: number, old format, new one.
    pub(crate) fn stored(&self, dag: &Dag) -> Vec<(u32, DType, StoredAs)> {
        let inputs = self.store.iter().filter(|(node, _)| dag.contains(*node));
        inputs
            .filter_map(|&(node, to)| match &dag.node(node).op {
                Op::Input { id, ty } => Some((*id, ty.dtype, to)),
                _ => None,
            })
            .collect()
    }

    fn check(&self, dag: &Dag) -> Result<()> {
        for &(input, stored) in &self.store {
            let dtype = match stored {
                StoredAs::Format(dtype) => dtype,
                StoredAs::Blocks(_) | StoredAs::Signs(..) => DType::F32,
            };
            let is_float = |id| dag.contains(id) && dag.node(id).ty.dtype.is_float();
            if !is_float(input)
                || !dtype.is_float()
                || !matches!(dag.node(input).op, Op::Input { .. })
            {
                return Err(Error::msg(format!(
                    "a patch stores {} as {dtype}; only floating-point inputs can be, in such a format",
                    dag.describe(input)
                )));
            }
        }
        for (old, new, view) in &self.replace {
            if !dag.contains(*old) {
                return Err(Error::msg(format!(
                    "a patch replaces node {}, which is not there",
                    old.index()
                )));
            }
            let (was, is) = (&dag.node(*old).ty, self.ty(dag, *new));
            if was.dims[..] != *view.dims() || was.dtype != is.dtype {
                let what = format!("a patch replaces it by {is} seen as {view}");
                return Err(Error::Node {
                    node: dag.describe(*old),
                    what,
                });
            }
        }
        for &(reader, slot, node) in &self.reroute {
            let old = dag
                .contains(reader)
                .then(|| dag.operands(reader).get(slot).map(|operand| operand.0))
                .flatten();
            if old.is_none_or(|old| dag.node(old).ty != *self.ty(dag, node)) {
                return Err(Error::msg(format!(
                    "a patch gives {} another operand {slot}, of another type or where there is none",
                    dag.describe(reader)
                )));
            }
        }
        Ok(())
    }

    /// Applies the patch; gives the values that it [exposes](Patch::expose), in order.
    ///
    /// # Errors
    /// If a replacement has another type than what it replaces, nodes are replaced twice or in a circle, or a removed
    /// node is not there or still read. The driver gives
    /// up on the first error, so a graph is never used after a failed patch.
    pub fn apply(self, dag: &mut Dag) -> Result<Vec<ValueId>> {
        Ok(self.apply_numbered(dag)?.0)
    }

    /// Applies the patch; gives the values that it exposes and its new nodes, each in order.
    pub(crate) fn apply_numbered(self, dag: &mut Dag) -> Result<(Vec<ValueId>, Vec<NodeIndex>)> {
        self.check(dag)?;
        if self.is_empty() {
            return Ok(Default::default());
        }
        // First, so that a program made for the graph as it was is not used after a failure either.
        dag.version += 1;
        let ids = self.add_nodes(dag);
        let resolve = |node: NodeRef| match node {
            NodeRef::Old(id) => id,
            NodeRef::New(i) => ids[i],
        };
        let mut moved: FxHashMap<NodeIndex, Source> = FxHashMap::default();
        for (old, new, view) in self.replace {
            let node = resolve(new);
            if moved.insert(old, Source { node, view }).is_some() {
                return Err(Error::Node {
                    node: dag.describe(old),
                    what: "a patch replaces it twice".into(),
                });
            }
        }
        for &(reader, slot, node) in &self.reroute {
            let edge = dag
                .nodes
                .edges_directed(reader, Direction::Incoming)
                .find(|edge| edge.weight().slot == slot)
                .map(|edge| edge.id());
            let weight = edge.and_then(|edge| dag.nodes.remove_edge(edge));
            let weight = weight.expect("the operand was looked at before");
            dag.nodes.add_edge(resolve(node), reader, weight);
        }
        let targets = follow_all(dag, &moved)?;
        for (old, target) in &targets {
            redirect(dag, *old, target);
            let (old, turn) = (dag.node(*old).turn, dag.node(target.node).turn);
            let earlier = turn.earlier(old);
            if earlier != turn {
                dag.node_mut(target.node).turn = earlier;
            }
        }
        move_values(dag, &targets);
        for (input, stored) in self.store {
            stored.store(dag, input)?;
        }
        let exposed = self.expose.into_iter().map(|(node, view)| {
            let node = resolve(node);
            let location = dag.node(node).location;
            dag.push_value(Source { node, view }, location)
        });
        let exposed = exposed.collect();
        remove_nodes(dag, &self.remove)?;
        Ok((exposed, ids))
    }

    fn add_nodes(&self, dag: &mut Dag) -> Vec<NodeIndex> {
        let mut ids = Vec::with_capacity(self.new.len());
        for new in &self.new {
            let Node {
                name,
                location,
                turn,
                ..
            } = dag.node(new.origin);
            let (name, location, turn) = (name.clone(), *location, *turn);
            let turn = match (new.is_late, self.appends) {
                (true, _) => Turn::Late(dag.next_turn()),
                (false, true) => Turn::Recorded(dag.next_turn()),
                (false, false) => turn,
            };
            let id = dag.add_node(Node {
                op: new.op.clone(),
                ty: new.ty.clone(),
                name,
                location,
                turn,
            });
            for (slot, (source, view)) in new.operands.iter().enumerate() {
                let source = match source {
                    NodeRef::Old(id) => *id,
                    NodeRef::New(i) => ids[*i],
                };
                let view = Arc::new(view.clone());
                dag.nodes.add_edge(source, id, Edge { slot, view });
            }
            ids.push(id);
        }
        ids
    }
}

/// Where each replaced node ends, through chains of replacements. Each link is followed once.
fn follow_all(dag: &Dag, moved: &FxHashMap<NodeIndex, Source>) -> Result<Vec<(NodeIndex, Source)>> {
    let mut ends: FxHashMap<NodeIndex, Source> = FxHashMap::default();
    let mut path: Vec<NodeIndex> = Vec::new();
    for &start in moved.keys() {
        let mut at = start;
        while moved.contains_key(&at) && !ends.contains_key(&at) {
            if path.len() == moved.len() {
                return Err(Error::Node {
                    node: dag.describe(at),
                    what: "a patch replaces it in a circle".into(),
                });
            }
            path.push(at);
            at = moved[&at].node;
        }
        while let Some(old) = path.pop() {
            let link = &moved[&old];
            let end = match ends.get(&link.node) {
                None => link.clone(),
                Some(end) => Source {
                    node: end.node,
                    view: end.view.compose(&link.view),
                },
            };
            ends.insert(old, end);
        }
    }
    let mut targets: Vec<(NodeIndex, Source)> = ends.into_iter().collect();
    targets.sort_unstable_by_key(|(old, _)| *old);
    Ok(targets)
}

/// Moves every reader of `old` to `target`.
pub(super) fn redirect(dag: &mut Dag, old: NodeIndex, target: &Source) {
    let edges: Vec<_> = dag
        .nodes
        .edges_directed(old, Direction::Outgoing)
        .map(|e| (e.id(), e.target()))
        .collect();
    let identity = target.view.is_identity(dag.node(target.node).ty.numel());
    for (edge, reader) in edges {
        let Some(Edge { slot, view }) = dag.nodes.remove_edge(edge) else {
            continue;
        };
        let view = if identity {
            view
        } else {
            Arc::new(target.view.compose(&view))
        };
        dag.nodes.add_edge(target.node, reader, Edge { slot, view });
    }
}

pub(super) fn move_values(dag: &mut Dag, targets: &[(NodeIndex, Source)]) {
    let targets: FxHashMap<NodeIndex, &Source> =
        targets.iter().map(|(old, target)| (*old, target)).collect();
    for entry in &mut dag.values {
        let Some(source) = &entry.source else {
            continue;
        };
        if let Some(target) = targets.get(&source.node) {
            let source = Source {
                node: target.node,
                view: target.view.compose(&source.view),
            };
            Arc::make_mut(entry).source = Some(source);
        }
    }
}

fn remove_nodes(dag: &mut Dag, remove: &[NodeIndex]) -> Result<()> {
    let removed: FxHashSet<NodeIndex> = remove.iter().copied().collect();
    for &id in remove {
        if !dag.contains(id) {
            return Err(Error::msg(format!(
                "a patch removes node {}, which is not there",
                id.index()
            )));
        }
        let reader = dag
            .readers(id)
            .map(|(reader, _, _)| reader)
            .find(|reader| !removed.contains(reader));
        if let Some(reader) = reader {
            let what = format!("a patch removes it, but {} reads it", dag.describe(reader));
            return Err(Error::Node {
                node: dag.describe(id),
                what,
            });
        }
    }
    if !remove.is_empty() {
        // All at once: taking one node out of the graph costs as many steps as its operands have readers.
        let nodes = std::mem::take(&mut dag.nodes);
        dag.nodes = nodes.filter_map_owned(
            |id, node| (!removed.contains(&id)).then_some(node),
            |_, edge| Some(edge),
        );
        for entry in &mut dag.values {
            if entry
                .source
                .as_ref()
                .is_some_and(|source| !dag.nodes.contains_node(source.node))
            {
                Arc::make_mut(entry).source = None;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
