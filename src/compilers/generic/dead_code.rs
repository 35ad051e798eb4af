//! Dead-code elimination: nodes that no kept value needs go away.
//!
//! ```text
//! %0 = input<0> : f32[2]           %0 = input<0> : f32[2]
//! %1 = exp2(%0) : f32[2]      →    %1 = sin(%0) : f32[2]
//! %2 = sin(%0) : f32[2]            out %1
//! out %2
//! ```
//! Kept are the outputs (`compile`'s second argument, `retrieve`), the states and what is assigned to them. A handle
//! to a value that went away says so when it is used.
//!
//! What it deliberately does not do: it leaves every `Input`, so that handles to inputs can be set whether or not
//! anything reads them; an unread input needs no data. It looks at whole nodes, not at elements that no view reads.

use super::sweep::needed;
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, Patch};
use crate::op::Op;

/// The pass `dead-code`; a hit is a removed node.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadCode;

impl Pass for DeadCode {
    fn name(&self) -> &str {
        "dead-code"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let (_, wanted) = needed(dag)?;
        let mut patch = Patch::new();
        for id in dag.ids() {
            if !wanted[id.index()] && !matches!(dag.node(id).op, Op::Input { .. }) {
                patch.remove(id);
            }
        }
        Ok(patch)
    }
}
