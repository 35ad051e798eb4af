//! The patch that gradients are built into.

use crate::error::Error;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::gradient::{GradientBuilder, Var};
use crate::op::{AxisSet, Op, TensorType};
use crate::shape::{Expr, ShapeError, View};

/// Implements [`GradientBuilder`] over a patch.
pub(super) struct Builder<'a> {
    pub dag: &'a Dag,
    pub patch: Patch,
    /// The node that new nodes take their name and line from.
    pub origin: NodeIndex,
    /// A [`Var`] is a number in this list.
    vars: Vec<(NodeRef, View)>,
}

impl<'a> Builder<'a> {
    pub fn new(dag: &'a Dag, origin: NodeIndex) -> Builder<'a> {
        Builder {
            dag,
            patch: Patch::new().appending(),
            origin,
            vars: Vec::new(),
        }
    }

    /// A node seen through a view, as a value.
    pub fn var(&mut self, node: NodeRef, view: View) -> Var {
        self.vars.push((node, view));
        Var(self.vars.len() - 1)
    }

    /// All of a node that is there.
    pub fn whole(&mut self, node: NodeIndex) -> Var {
        let view = View::contiguous(self.dag.node(node).ty.dims.clone());
        self.var(NodeRef::Old(node), view)
    }

    /// What a value is.
    pub fn source(&self, x: Var) -> &(NodeRef, View) {
        &self.vars[x.0]
    }

    /// The value looked at differently.
    pub fn look(
        &mut self,
        x: Var,
        f: impl FnOnce(&View) -> Result<View, ShapeError>,
    ) -> Result<Var, String> {
        let (node, view) = &self.vars[x.0];
        let (node, view) = (*node, f(view).map_err(|e| e.to_string())?);
        Ok(self.var(node, view))
    }

    /// Sum over axes, which disappear.
    pub fn sum(&mut self, x: Var, axes: AxisSet) -> Result<Var, String> {
        (self as &mut dyn GradientBuilder).sum(x, axes)
    }

    /// A sum of values of the same shape, from the first to the last.
    pub fn total(&mut self, terms: &[Var]) -> Result<Option<Var>, String> {
        let Some((&first, rest)) = terms.split_first() else {
            return Ok(None);
        };
        let build = self as &mut dyn GradientBuilder;
        let total = rest.iter().try_fold(first, |sum, &x| build.add(sum, x))?;
        Ok(Some(total))
    }
}

impl GradientBuilder for Builder<'_> {
    fn ty(&self, x: Var) -> TensorType {
        let (node, view) = self.source(x);
        TensorType {
            dims: view.dims().into(),
            dtype: self.patch.ty(self.dag, *node).dtype,
        }
    }

    fn apply(&mut self, op: Op, operands: &[Var]) -> Result<Var, String> {
        let operands = operands.iter().map(|&x| self.source(x).clone()).collect();
        let node = self.patch.add(self.dag, op, operands, self.origin);
        let node = node.map_err(|e: Error| e.to_string())?;
        let view = View::contiguous(self.patch.ty(self.dag, node).dims.clone());
        Ok(self.var(node, view))
    }

    fn insert(&mut self, x: Var, axis: usize, size: Expr) -> Result<Var, String> {
        self.look(x, |view| view.insert(axis, size))
    }

    fn reshape(&mut self, x: Var, dims: &[Expr]) -> Result<Var, String> {
        self.look(x, |view| view.reshape(dims))
    }
}
