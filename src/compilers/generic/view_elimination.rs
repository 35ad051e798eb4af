//! View elimination: copies that no reader needs become views.
//!
//! ```text
//! %1 = contiguous(%0 {[3, 2] * (1, 3)}) : f32[3, 2]         %1 = exp2(%0 {[3, 2] * (1, 3)}) : f32[3, 2]
//! %2 = exp2(%1) : f32[3, 2]                            →
//! ```
//! Every op reads its operands through views, so a copy is never needed for its meaning, only for its speed. The rule
//! for `contiguous(x through V)`, where a reader looks at the copy through `W`:
//! 1. `V` is all of `x` in order: the copy goes, whoever reads it.
//! 2. `V` is affine (one layer without padding): it goes if no reader's view gets more layers than `W` has. Strides
//!    cost a back end nothing that it would not pay for the copy.
//! 3. `V` pads or has several layers: every read of an element costs a division or a comparison, so the copy may be
//!    there on purpose (an unfolded image that a contraction reads again and again). It goes only if there is one
//!    reader, whose view repeats no element and becomes no deeper than `V`.
//!
//! In cases 2 and 3 it stays if its value is kept (the user asked for that buffer) or a `scatter` reads it (which
//! updates buffers in place only where it sees all of them in order), and in case 3 also under `gather` and a user's
//! own op, of which it is not known how often they read an element.
//!
//! What it deliberately does not do: it adds no `contiguous` where one would pay; that is a back end's business.

use super::sweep::{Seen, Sweep, sweep};
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::Op;
use crate::shape::View;

/// The pass `view-elimination`; a hit is a `contiguous` that its readers look through.
#[derive(Clone, Copy, Debug, Default)]
pub struct ViewElimination;

impl Pass for ViewElimination {
    fn name(&self) -> &str {
        "view-elimination"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        sweep(dag, |sweep, id| {
            if dag.node(id).op == Op::Contiguous && !sweep.is_pinned(id) {
                let target = sweep.operands(NodeRef::Old(id)).remove(0);
                if is_needless(sweep, id, &target) {
                    sweep.replace(id, target);
                }
            }
            Ok(())
        })
    }
}

fn is_needless(sweep: &Sweep, id: NodeIndex, (source, view): &Seen) -> bool {
    if view.is_identity(sweep.ty(*source).numel()) {
        return true;
    }
    if sweep.is_kept(id) {
        return false;
    }
    let affine = view.single().is_some() && !view.is_masked();
    let mut readers = sweep.dag.readers(id);
    if affine {
        readers.all(|(reader, _, through)| {
            let composed = view.compose(through);
            !matches!(sweep.dag.node(reader).op, Op::Scatter { .. })
                && composed.layers().len() <= through.layers().len()
        })
    } else {
        let (Some((reader, _, through)), None) = (readers.next(), readers.next()) else {
            return false;
        };
        let op = &sweep.dag.node(reader).op;
        let opaque = matches!(
            op,
            Op::Scatter { .. } | Op::Gather { .. } | Op::Custom(_) | Op::Kernel(_)
        );
        !opaque
            && reads_once(through)
            && view.compose(through).layers().len() <= view.layers().len()
    }
}

/// Whether no element of the buffer is read twice, as far as a single layer's strides tell: each axis steps over all
/// that the axes with smaller strides reach.
fn reads_once(view: &View) -> bool {
    let Some(layer) = view.single() else {
        return false;
    };
    if layer.is_contiguous() {
        return true;
    }
    let sizes = layer.dims.iter().map(|dim| dim.as_usize());
    let strides = layer.strides.iter().map(|stride| stride.as_const());
    let mut axes = Vec::new();
    for (size, stride) in sizes.zip(strides) {
        match (size, stride) {
            (Some(0 | 1), _) => {}
            (Some(size), Some(stride)) => axes.push((stride.unsigned_abs(), size as u64)),
            _ => return false,
        }
    }
    axes.sort_unstable();
    let mut reach = 0u64;
    for (stride, size) in axes {
        if stride <= reach {
            return false;
        }
        reach = reach.saturating_add(stride.saturating_mul(size - 1));
    }
    true
}
