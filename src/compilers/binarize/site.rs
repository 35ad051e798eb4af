//! Nodes that are written in the place of another.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{ConstantValue, Literal, Op};
use crate::shape::{Expr, View};

/// A node, seen through a view.
pub(super) type Operand = (NodeRef, View);

/// Where nodes are added.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) dag: &'a Dag,
    /// The node whose name and line new ones take.
    pub(super) at: NodeIndex,
}

impl Site<'_> {
    pub(super) fn add(&self, patch: &mut Patch, op: Op, operands: Vec<Operand>) -> Result<NodeRef> {
        patch.add(self.dag, op, operands, self.at)
    }

    /// All of a node.
    pub(super) fn whole(&self, patch: &Patch, node: NodeRef) -> Operand {
        let dims = patch.ty(self.dag, node).dims.clone();
        (node, View::contiguous(dims))
    }

    /// A number, repeated along these axes.
    pub(super) fn constant(&self, patch: &mut Patch, value: f64, dims: &[Expr]) -> Result<Operand> {
        let literal = Literal::new(DType::F32, value);
        let node = self.add(patch, Op::Constant(ConstantValue::Literal(literal)), vec![])?;
        let mut view = View::contiguous(());
        for (axis, dim) in dims.iter().enumerate() {
            view = view.insert(axis, *dim).expect("an axis of the result");
        }
        Ok((node, view))
    }
}
