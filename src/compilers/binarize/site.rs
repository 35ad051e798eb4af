//! Nodes that are written in the place of another.

use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{BinaryOp, ConstantValue, Literal, Op, ReduceOp};
use crate::shape::{Dims, Expr, View};

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

    /// The mean magnitude of each row of so many columns.
    pub(super) fn mean_magnitude(
        &self,
        patch: &mut Patch,
        rows: Operand,
        columns: usize,
    ) -> Result<NodeRef> {
        let dims: Dims = rows.1.dims().iter().copied().collect();
        let zero = self.constant(patch, 0.0, &dims)?;
        let minus = self.constant(patch, -1.0, &dims)?;
        let less = Op::Binary(BinaryOp::LessThan);
        let below = self.add(patch, less, vec![rows.clone(), zero])?;
        let turned = vec![rows.clone(), minus];
        let turned = self.add(patch, Op::Binary(BinaryOp::Mul), turned)?;
        let choice = vec![self.whole(patch, below), self.whole(patch, turned), rows];
        let sizes = self.add(patch, Op::Select, choice)?;
        let sizes = self.whole(patch, sizes);
        let last = [dims.len() - 1].into_iter().collect();
        let sum = self.add(patch, Op::Reduce(ReduceOp::Sum, last), vec![sizes])?;
        let part = self.constant(patch, 1.0 / columns as f64, &dims[..dims.len() - 1])?;
        let sum = self.whole(patch, sum);
        self.add(patch, Op::Binary(BinaryOp::Mul), vec![sum, part])
    }
}
