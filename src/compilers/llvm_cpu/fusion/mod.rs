//! Connected elementwise ops, with the reductions among them → one kernel.
//!
//! Before: `%1 = mul(%0, %0)`, `%2 = sum_reduce<1>(%1)`, `%3 = mul(%2, %c)`; after: one kernel node that reads `%0`.
//!
//! A node is computed inside a kernel when
//! - it is elementwise, a constant or an iota, a gather or a reduction;
//! - all of its readers are in that kernel and evaluate it there no more often than it has elements, however many they
//!   are: `x * sigmoid(x)` evaluates `x` once. Else it must cost so little that evaluating it in every reader's kernel
//!   is less work than writing it to memory. What finishes a matrix product, such as adding a bias, is written in the
//!   product's place (see [`super::epilogue`]);
//! - as a reduction: it is read as it is, and the reader and what follows are its epilogue. Several reductions over the
//!   same rows, and a result that has the rows' points, are one kernel if that can run row by row.
//!
//! Every other node that is needed becomes the root of a kernel and is written to memory. Kernels hold the steps that
//! they replaced; [`super::codegen`] turns them into machine code. The pass takes time linear in the graph, as kernels
//! have a bounded number of steps.
//!
//! Not taken: inputs, scatters, custom ops and random numbers.
//!
//! Inside: `rules` knows single nodes, `groups` decides, `build` makes the kernels.

mod build;
mod groups;
mod rules;

use rustc_hash::FxHashMap;

use self::build::kernel_of;
use self::groups::Plan;
use self::rules::becomes_kernel;
pub(super) use self::rules::reduces;
use super::lower;
use super::nest::nest_of;
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{Kernel, Op};
use crate::shape::View;

/// Whether something is reduced in a kernel.
pub(super) fn has_reductions(kernel: &Kernel) -> bool {
    kernel.steps.iter().any(|step| reduces(&step.op))
}

/// The pass.
pub struct Fusion;

impl Pass for Fusion {
    fn name(&self) -> &str {
        "fusion"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let runs_by_rows =
            |kernel: &Kernel| nest_of(kernel).is_ok_and(|nest| lower::runs_by_rows(&nest));
        let plan = Plan::new(dag, runs_by_rows)?;
        let mut patch = Patch::new();
        let mut kernels: FxHashMap<NodeIndex, NodeRef> = FxHashMap::default();
        for &root in &plan.order {
            if !plan.is_root(root) || !becomes_kernel(&dag.node(root).op) {
                continue;
            }
            let (kernel, sources) = kernel_of(&plan, root);
            let operands = sources.iter().map(|source| {
                let node = kernels
                    .get(source)
                    .copied()
                    .unwrap_or(NodeRef::Old(*source));
                (node, View::contiguous(dag.node(*source).ty.dims.clone()))
            });
            let new = patch.add(dag, Op::Kernel(kernel.into()), operands.collect(), root)?;
            kernels.insert(root, new);
            patch.replace_with(dag, root, new);
        }
        Ok(patch)
    }
}
