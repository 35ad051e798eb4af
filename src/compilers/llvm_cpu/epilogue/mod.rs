//! Matrix products and what is made of their values, point by point → one kernel.
//!
//! Before: `%3 = kernel "contraction"(x, w)`, `%4 = kernel "max_add_2"(%3, bias)`, where nothing else reads `%3`. After:
//! one kernel with the steps of both. Its code applies the second part to each block of the product while that is in a
//! cache, and the product is never in memory as a whole. Bias, activation, scale, residual: any elementwise kernel will
//! do, however many other operands it has.
//!
//! Several products of one form are taken together: `gelu(x·g) * (x·u)` is one kernel, which packs `x` once.
//!
//! What must hold (`parts`):
//! - nothing but the elementwise kernel reads the product;
//! - it reads the product at one place per point, and every place once; the order of dims may be another one, as long
//!   as the columns of the product stay neighbours;
//! - the product lies in memory as `[batch, m, n]`.
//!
//! Not taken: products that are wanted themselves or that two kernels read; products that are reduced (a norm, softmax:
//! [`super::attention`] takes some); products of windows ([`super::windows`]); gathers.
//!
//! Bits: those of the kernels one after the other, for any number of threads. Whether a product runs as a loop nest, as
//! dot products or packed depends on the same sizes, and each point is computed once, by the same code.

mod code;
mod parts;

use std::collections::BTreeSet;

pub use code::{EpilogueCode, TileCode};
pub use parts::{Parts, parts_of};

use super::attention::{is_contraction, kernel_at, merged};
use super::contraction::replace;
use super::fusion::has_reductions;
use super::gemm::tiled::MOST;
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, Patch};
use crate::op::Kernel;

/// The pass.
pub struct Epilogue;

impl Pass for Epilogue {
    fn name(&self) -> &str {
        "epilogue"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let kept = dag.kept_nodes();
        for id in dag.topological()? {
            if let Some((kernel, operands)) = candidate(dag, &kept, id) {
                replace(&mut patch, dag, id, kernel, operands)?;
            }
        }
        Ok(patch)
    }
}

/// The kernel at `id` together with products that it reads, and the nodes whose buffers that reads.
fn candidate(
    dag: &Dag,
    kept: &BTreeSet<NodeIndex>,
    id: NodeIndex,
) -> Option<(Kernel, Vec<NodeIndex>)> {
    let kernel = kernel_at(dag, id).filter(|kernel| !has_reductions(kernel))?;
    let is_own = |&node: &NodeIndex| {
        !kept.contains(&node)
            && kernel_at(dag, node).is_some_and(is_contraction)
            && dag.readers(node).all(|(reader, ..)| reader == id)
    };
    let operands = dag.operands(id).into_iter().map(|(node, _)| node);
    let products: Vec<NodeIndex> = operands.filter(is_own).collect();
    let together = |group: &[NodeIndex]| {
        let name = format!("contraction_{}", kernel.name());
        let nodes: Vec<NodeIndex> = group.iter().copied().chain([id]).collect();
        merged(dag, name, &nodes).filter(|(kernel, _)| parts_of(kernel).is_some())
    };
    products.iter().find_map(|&product| {
        let alike = |other: &&NodeIndex| kernel_at(dag, **other) == kernel_at(dag, product);
        let group: Vec<NodeIndex> = products.iter().filter(alike).copied().collect();
        let all = (1 < group.len() && group.len() <= MOST).then(|| together(&group));
        all.flatten().or_else(|| together(&[product]))
    })
}
