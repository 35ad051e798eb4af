//! Products of signs → one kernel that counts bits.
//!
//! ```text
//! %2 = unpack_signs<64>(%0) : f32[s, 64]              %2 = kernel "signs"(%0, %1) : f32[s, 9]
//! %3 = sign_matrix<9, 64, 1, signs 0>(%1) : f32[9, 64]
//! %4 = mul(%2 {..}, %3 {..}); %5 = sum_reduce<2>(%4)   →
//! %6 = sign_matrix<9, 64, 1, scales 0>(%1) : f32[9]
//! %7 = mul(%5, %6 {..}) : f32[s, 9]
//! ```
//! For a and b of ones, +1 or -1, `dot(a, b) = k - 2 popcount(a ^ b)`: the kernel computes exactly the whole number that the
//! graph's sum of ones is, in whatever order, and then multiplies by scales and adds bases in the graph's order. So its
//! result has the bits of the reference executor's, on every target and for any number of threads.
//!
//! Numbers for columns that are multiplied or added then (a bias, a norm of known statistics) are part of the kernel, and so is
//! `pack_signs`: then the result is bits, which the next product reads, and the numbers are never in memory.
//!
//! The other factor may also be `fake_quantize<a8_tok>(x)`: then sums of the 8-bit whole numbers are exact, and are scaled by
//! the row's scale afterwards, where the graph scales before adding: equal up to the rounding of these additions.
//!
//! It may be levels too, `unpack_planes<K, 4, levels>(x)`: each of their planes is signs, and the sums of products with planes are
//! added as heavy as they are. The scales of rows, `unpack_planes<K, 4, scales>(x)`, are part of the kernel, which reads them in x.
//!
//! - [`counts`]: signs by signs, and planes by signs; [`finish`]: what is computed of results by columns; [`after`]: which counts
//!   give which sign of that;
//! - [`lookups`]: a row of bytes; [`sums`], [`turned`]: many rows of bytes at once;
//! - [`rows`]: packing signs and [`planes`], and what stands alone; [`pixels`]: signs of windows, packed once; [`windows`]: these as
//!   rows.
//!
//! Not taken: a matrix of one row (a dot product), more than 65535 columns, weights that are looked at through a view, rows of bits that are neither all
//! of a buffer nor its windows. These
//! read what the ops give.

use rustc_hash::FxHashSet;

use super::contraction::replace;
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, Patch};
use crate::op::{
    ActivationScheme, BinaryOp, Kernel, KernelInput, KernelStep, Op, ReduceOp, SignPart,
};

pub mod after;
mod by_rows;
pub mod code;
pub mod counts;
pub mod finish;
pub mod ir;
mod lanes;
pub mod lookups;
pub(super) mod nibbles;
pub mod pixels;
pub mod planes;
pub mod rows;
mod run;
mod serial;
pub mod sums;
pub mod tables;
pub mod turned;
pub mod windows;

use ir::SignProduct;
use rows::SignRows;

/// The pass.
pub struct SignProducts;

impl Pass for SignProducts {
    fn name(&self) -> &str {
        "sign-products"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let kept = dag.kept_nodes();
        // Nodes that are products, each perhaps part of a later one.
        let mut values = FxHashSet::default();
        let mut inner = FxHashSet::default();
        let order = dag.topological()?;
        for &id in &order {
            let Some((kernel, nodes)) = candidate(dag, id, &values) else {
                continue;
            };
            let Some(product) = SignProduct::of(&kernel) else {
                continue;
            };
            // Bits behind a pixel's last channel count too: only packing makes them 0.
            let windows = product.windows.as_ref();
            let is_packed = dag.node(nodes[product.x]).op == Op::PackSigns;
            if windows.is_some_and(|windows| !windows.fills_bytes()) && !is_packed {
                continue;
            }
            let parts = dag.operands(id).into_iter().map(|(part, _)| part);
            inner.extend(parts.filter(|part| values.contains(part)));
            let mut readers = dag.readers(id);
            let is_read_once = readers.next().is_some() && readers.next().is_none();
            if is_read_once && !kept.contains(&id) {
                values.insert(id);
            } else {
                write(&mut patch, dag, id, &values)?;
            }
        }
        for &id in order.iter().filter(|id| values.contains(id)) {
            if !inner.contains(&id) {
                write(&mut patch, dag, id, &values)?;
            }
        }
        Ok(patch)
    }
}

fn write(patch: &mut Patch, dag: &Dag, id: NodeIndex, values: &FxHashSet<NodeIndex>) -> Result<()> {
    let (kernel, nodes) = candidate(dag, id, values).expect("it was one before");
    replace(patch, dag, id, kernel, nodes)
}

/// The steps of a product rooted at `id`, into which those in `values` are taken, and the nodes whose buffers they read.
fn candidate(
    dag: &Dag,
    id: NodeIndex,
    values: &FxHashSet<NodeIndex>,
) -> Option<(Kernel, Vec<NodeIndex>)> {
    let operands = dag.operands(id);
    let fits = match &dag.node(id).op {
        Op::Reduce(ReduceOp::Sum, _) => dag.node(operands[0].0).op == Op::Binary(BinaryOp::Mul),
        Op::Binary(BinaryOp::Mul) => operands.iter().any(|(node, _)| values.contains(node)),
        Op::Binary(BinaryOp::Add) => operands.iter().any(|(node, _)| values.contains(node)),
        Op::PackSigns => values.contains(&operands[0].0),
        _ => false,
    };
    let mut steps = Steps {
        dag,
        values,
        steps: Vec::new(),
        nodes: Vec::new(),
    };
    if !fits {
        return None;
    }
    steps.step(id);
    let types = steps.nodes.iter().map(|&node| dag.node(node).ty.clone());
    let kernel = Kernel::new("signs".into(), steps.steps, types.collect());
    Some((kernel, steps.nodes))
}

/// A kernel's steps, being collected.
struct Steps<'a> {
    dag: &'a Dag,
    values: &'a FxHashSet<NodeIndex>,
    steps: Vec<KernelStep>,
    nodes: Vec<NodeIndex>,
}

impl Steps<'_> {
    fn step(&mut self, id: NodeIndex) -> KernelInput {
        let node = self.dag.node(id);
        let inputs = self.dag.operands(id).into_iter();
        let inputs = inputs
            .map(|(source, view)| {
                let input = match self.is_inside(&node.op, source) {
                    true => self.step(source),
                    false => self.operand(source),
                };
                (input, view.clone())
            })
            .collect();
        self.steps.push(KernelStep {
            op: node.op.clone(),
            inputs,
            ty: node.ty.clone(),
        });
        KernelInput::Step(self.steps.len() - 1)
    }

    /// Whether a node that a step of this op reads becomes a step too.
    fn is_inside(&self, reader: &Op, source: NodeIndex) -> bool {
        match (reader, &self.dag.node(source).op) {
            (Op::Reduce(..), Op::Binary(BinaryOp::Mul)) => true,
            (Op::Binary(BinaryOp::Mul), Op::SignMatrix(_, part)) => *part != SignPart::Numbers,
            (Op::Binary(BinaryOp::Mul), Op::UnpackSigns(_) | Op::UnpackPlanes(..)) => true,
            (Op::Binary(BinaryOp::Mul), Op::FakeQuantize(ActivationScheme::A8Tok)) => true,
            (Op::Binary(_) | Op::PackSigns, _) => self.values.contains(&source),
            _ => false,
        }
    }

    fn operand(&mut self, node: NodeIndex) -> KernelInput {
        let known = self.nodes.iter().position(|&known| known == node);
        KernelInput::Operand(known.unwrap_or_else(|| {
            self.nodes.push(node);
            self.nodes.len() - 1
        }))
    }
}

/// Signs or planes that are packed, or read by something else than a product → a kernel that makes them.
pub struct SignRowsPass;

impl Pass for SignRowsPass {
    fn name(&self) -> &str {
        "sign-rows"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.topological()? {
            let node = dag.node(id);
            if !matches!(
                node.op,
                Op::PackSigns
                    | Op::UnpackSigns(_)
                    | Op::SignMatrix(..)
                    | Op::PackPlanes(_)
                    | Op::UnpackPlanes(..)
            ) {
                continue;
            }
            let (source, view) = dag.operands(id)[0];
            let step = KernelStep {
                op: node.op.clone(),
                inputs: vec![(KernelInput::Operand(0), view.clone())],
                ty: node.ty.clone(),
            };
            let operands = vec![dag.node(source).ty.clone()];
            let kernel = Kernel::new("sign_rows".into(), vec![step], operands);
            if SignRows::of(&kernel).is_some() {
                replace(&mut patch, dag, id, kernel, vec![source])?;
            }
        }
        Ok(patch)
    }
}
