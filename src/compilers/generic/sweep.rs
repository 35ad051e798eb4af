//! One pass over the needed nodes, operands first, that remembers what it has replaced so far.
//!
//! [`Sweep::operands`] gives a node's operands as they will be once the patch is applied, so a rewrite sees the
//! results of earlier ones and a chain of a hundred thousand foldable nodes folds in one run. The rules that hold for
//! every pass ([`super`]: kept values and inputs, kernels' operands) are upheld here.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{ConstantValue, Literal, Op, TensorType};
use crate::shape::{Expr, View};

/// A node, old or new, seen through a view.
pub(super) type Seen = (NodeRef, View);

/// The operands of one node.
pub(super) type Operands = SmallVec<[Seen; 3]>;

/// The state of a sweep.
pub(super) struct Sweep<'a> {
    /// The graph as it was before.
    pub dag: &'a Dag,
    patch: Patch,
    kept: Vec<bool>,
    pinned: Vec<bool>,
    target: Vec<Option<Seen>>,
    constants: FxHashMap<Literal, NodeRef>,
}

/// The nodes that some kept value needs, operands first; a table of them.
pub(in crate::compilers) fn needed(dag: &Dag) -> Result<(Vec<NodeIndex>, Vec<bool>)> {
    let mut wanted = vec![false; dag.bound()];
    for id in dag.kept_nodes() {
        wanted[id.index()] = true;
    }
    let mut order = dag.topological()?;
    for &id in order.iter().rev() {
        if wanted[id.index()] {
            for (operand, _) in dag.operands(id) {
                wanted[operand.index()] = true;
            }
        }
    }
    order.retain(|id| wanted[id.index()]);
    Ok((order, wanted))
}

/// Calls `visit` on every needed node, operands first, and returns the patch that came out.
///
/// # Errors
/// If the graph has a cycle, or what `visit` says.
pub(super) fn sweep(
    dag: &Dag,
    mut visit: impl FnMut(&mut Sweep, NodeIndex) -> Result<()>,
) -> Result<Patch> {
    let (order, _) = needed(dag)?;
    let mut sweep = Sweep::new(dag, &order);
    for id in order {
        visit(&mut sweep, id)?;
    }
    Ok(sweep.patch)
}

impl<'a> Sweep<'a> {
    fn new(dag: &'a Dag, order: &[NodeIndex]) -> Sweep<'a> {
        let bound = dag.bound();
        let mut kept = vec![false; bound];
        for id in dag.kept_nodes() {
            kept[id.index()] = true;
        }
        let mut pinned = vec![false; bound];
        let mut constants = FxHashMap::default();
        for &id in order {
            match &dag.node(id).op {
                Op::Constant(ConstantValue::Literal(literal)) => {
                    constants.entry(*literal).or_insert(NodeRef::Old(id));
                }
                Op::Kernel(_) => {
                    for (operand, _) in dag.operands(id) {
                        pinned[operand.index()] = true;
                    }
                }
                _ => {}
            }
        }
        Sweep {
            dag,
            patch: Patch::new(),
            kept,
            pinned,
            target: vec![None; bound],
            constants,
        }
    }

    /// Whether a value of this node must survive.
    pub fn is_kept(&self, id: NodeIndex) -> bool {
        self.kept[id.index()]
    }

    /// Whether a kernel reads the node's buffer, so that nothing but an equal buffer may take its place.
    pub fn is_pinned(&self, id: NodeIndex) -> bool {
        self.pinned[id.index()]
    }

    /// The op of a node, old or new.
    pub fn op(&self, node: NodeRef) -> &Op {
        self.patch.op(self.dag, node)
    }

    /// The type of a node, old or new.
    pub fn ty(&self, node: NodeRef) -> &TensorType {
        self.patch.ty(self.dag, node)
    }

    /// A node's operands, with everything replaced that was replaced so far.
    pub fn operands(&self, node: NodeRef) -> Operands {
        match node {
            NodeRef::Old(id) => {
                let operands = self.dag.operands(id);
                operands
                    .into_iter()
                    .map(|(source, view)| self.resolve(source, view))
                    .collect()
            }
            NodeRef::New(i) => self.patch.new_operands(i).iter().cloned().collect(),
        }
    }

    /// What reading `source` through `view` will read.
    pub fn resolve(&self, source: NodeIndex, view: &View) -> Seen {
        match &self.target[source.index()] {
            None => (NodeRef::Old(source), view.clone()),
            Some((target, through)) if through.is_identity(self.ty(*target).numel()) => {
                (*target, view.clone())
            }
            Some((target, through)) => (*target, through.compose(view)),
        }
    }

    /// All readers of `id` shall read `target` instead. Nothing happens where that would turn a kept value into a
    /// view of an input; a caller that adds nodes must not aim at inputs, and must leave pinned nodes alone.
    pub fn replace(&mut self, id: NodeIndex, target: Seen) {
        let to_input = matches!(self.op(target.0), Op::Input { .. });
        if to_input && self.is_kept(id) {
            return;
        }
        self.patch.replace(id, target.0, target.1.clone());
        self.target[id.index()] = Some(target);
    }

    /// Adds a node in the place of `origin`.
    ///
    /// # Errors
    /// If the operands do not fit the op.
    pub fn add(&mut self, op: Op, operands: Operands, origin: NodeIndex) -> Result<Seen> {
        let node = self.patch.add(self.dag, op, operands.into_vec(), origin)?;
        Ok((node, View::contiguous(self.ty(node).dims.clone())))
    }

    /// A constant repeated to the shape of `origin`, whose place it takes.
    ///
    /// # Errors
    /// None in practice: a constant fits without operands.
    pub fn constant(&mut self, literal: Literal, origin: NodeIndex) -> Result<Seen> {
        let node = match self.constants.get(&literal) {
            Some(&node) => node,
            None => {
                let op = Op::Constant(ConstantValue::Literal(literal));
                let (node, _) = self.add(op, Operands::new(), origin)?;
                self.constants.insert(literal, node);
                node
            }
        };
        Ok((node, repeated(&self.dag.node(origin).ty.dims)))
    }

    /// The number that all elements are, if that is known: a constant without padding around it, or a zero.
    pub fn uniform(&self, seen: &Seen) -> Option<Literal> {
        let Op::Constant(ConstantValue::Literal(literal)) = *self.op(seen.0) else {
            return None;
        };
        (!seen.1.is_masked() || literal.bits() == 0).then_some(literal)
    }

    /// Whether all elements are known to be `value`, bit for bit.
    pub fn is_all(&self, seen: &Seen, value: f64) -> bool {
        self.uniform(seen)
            .is_some_and(|literal| literal == Literal::new(literal.dtype(), value))
    }

    /// For an elementwise node seen through a view: its operands as seen through that view. `None` if the view pads
    /// (zeros come in that the op did not make) or the views together are more complicated than each.
    pub fn operands_through(&self, seen: &Seen) -> Option<Operands> {
        if seen.1.is_masked() {
            return None;
        }
        let through = |(node, view): Seen| {
            let composed = view.compose(&seen.1);
            let deepest = view.layers().len().max(seen.1.layers().len());
            (composed.layers().len() <= deepest).then_some((node, composed))
        };
        self.operands(seen.0).into_iter().map(through).collect()
    }
}

/// The view that repeats a single number to these dimensions.
fn repeated(dims: &[Expr]) -> View {
    let mut view = View::contiguous(());
    for (axis, &dim) in dims.iter().enumerate() {
        view = view
            .insert(axis, dim)
            .expect("the axes before exist, and a node's sizes are not negative");
    }
    view
}
