//! Operands that must lie in memory as they are → `Contiguous` of the view.
//!
//! Before: `scatter(%base, %index {view}, %updates {view})`; after: the views are written out first by a kernel, and
//! the scatter reads plain buffers. A base that is already plain stays untouched, so that a state is updated in place.
//!
//! Not touched: custom ops, which get their operands as arrays anyway.

use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeRef, Patch};
use crate::op::Op;
use crate::shape::View;

/// The pass.
pub struct Materialize;

impl Pass for Materialize {
    fn name(&self) -> &str {
        "materialize"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.topological()? {
            let node = dag.node(id);
            let operands = dag.operands(id);
            let plain = |(source, view): &(_, &View)| dag.is_whole(*source, view);
            if !matches!(node.op, Op::Scatter { .. }) || operands.iter().all(plain) {
                continue;
            }
            let mut new_operands = Vec::new();
            for operand in &operands {
                let (source, view) = (NodeRef::Old(operand.0), operand.1.clone());
                if plain(operand) {
                    new_operands.push((source, view));
                    continue;
                }
                let written = View::contiguous(view.dims());
                let copy = patch.add(dag, Op::Contiguous, vec![(source, view)], id)?;
                new_operands.push((copy, written));
            }
            let new = patch.add(dag, node.op.clone(), new_operands, id)?;
            patch.replace_with(dag, id, new);
        }
        Ok(patch)
    }
}
