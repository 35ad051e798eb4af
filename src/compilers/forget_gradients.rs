//! `Detach`, `StraightThrough` and `KnownGradient` → their (first) operand: what only matters to gradients
//! ([`Op::only_matters_to_gradients`](crate::op::Op::only_matters_to_gradients)).
//!
//! Before: `%1 = detach(%0)`, `%2 = straight_through(%1, %0)`; after: readers of both read `%0`. `Autograd` has run, or
//! never will, when a graph becomes native code; a copy of a whole tensor is saved, and what only a straight-through
//! gradient needed is dead.

use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeRef, Patch};

/// The pass.
pub struct ForgetGradients;

impl Pass for ForgetGradients {
    fn name(&self) -> &str {
        "forget-gradients"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.ids() {
            if dag.node(id).op.only_matters_to_gradients() {
                let (value, view) = dag.operands(id)[0];
                patch.replace(id, NodeRef::Old(value), view.clone());
            }
        }
        Ok(patch)
    }
}
