//! `SumReduce(Mul(FakeQuantize(x), Dequantize(w)))` → one kernel that multiplies whole numbers.
//!
//! ```text
//! %2 = fake_quantize<a8_g32>(%0) : f32[s, 64]            %2 = kernel "blocks"(%0, %1) : f32[s, 9]
//! %3 = dequantize<Q8_0>(%1) : f32[9, 64]              →
//! %4 = mul(%2 {..}, %3 {..}) : f32[s, 9, 64]
//! %5 = sum_reduce<2>(%4) : f32[s, 9]
//! ```
//! Of activations, 8-bit copies are made at every execution. Weights are laid out in panels of [`form::COLUMNS`] rows,
//! as small as their blocks, once if they are a constant input, which then is read for nothing else than looking rows up.
//! Products of the whole numbers of a group are exact (`i32`); each group's sum is scaled by both scales in `f32`, and these are
//! added in an order that depends neither on the target nor on the number of threads or rows ([`tile`]).
//!
//! - [`tile`]: rows of activations by a panel, with `strip` for many where registers are few;
//! - [`lookup`]: rows by panels of signs, whose sums come from tables;
//! - [`joint`]: products that share their activations become one.
//!
//! Not taken: weights-only rounding (there the factor is a product of `f32`), types without a [`form::Form`], weights
//! that are looked at through a view, products over part of a row. These read what `dequantize` gives.

use super::binary::rows::Pixels;
use super::contraction::replace;
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{BinaryOp, Kernel, KernelInput, KernelStep, Op, ReduceOp};
use crate::shape::{View, numel};

pub mod activations;
pub mod code;
pub mod compiled;
pub mod decode;
pub mod dot;
pub mod form;
pub mod ir;
pub mod joint;
pub mod lookup;
pub mod panel;
mod run;
mod strip;
pub mod tile;
pub mod turn;

use decode::BlockRows;
use ir::BlockProduct;

/// The pass.
pub struct BlockProducts;

impl Pass for BlockProducts {
    fn name(&self) -> &str {
        "block-products"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.topological()? {
            let Some((kernel, nodes)) = candidate(dag, id) else {
                continue;
            };
            if BlockProduct::of(&kernel).is_some() {
                replace(&mut patch, dag, id, kernel, nodes)?;
            }
        }
        Ok(patch)
    }
}

/// The four steps rooted at `id`, with the nodes whose buffers they read.
fn candidate(dag: &Dag, id: NodeIndex) -> Option<(Kernel, Vec<NodeIndex>)> {
    let node = dag.node(id);
    let Op::Reduce(ReduceOp::Sum, _) = node.op else {
        return None;
    };
    let (product, seen) = dag.operands(id)[0];
    if dag.node(product).op != Op::Binary(BinaryOp::Mul) {
        return None;
    }
    let factors = dag.operands(product);
    let find = |is: fn(&Op) -> bool| factors.iter().find(|(node, _)| is(&dag.node(*node).op));
    let rounded = find(|op| matches!(op, Op::FakeQuantize(_)))?;
    let weights = find(|op| matches!(op, Op::Dequantize(_)))?;
    let mut steps = Vec::new();
    let mut nodes = Vec::new();
    for (operand, (step, _)) in [rounded, weights].into_iter().enumerate() {
        let (source, view) = dag.operands(*step)[0];
        nodes.push(source);
        steps.push(KernelStep {
            op: dag.node(*step).op.clone(),
            inputs: vec![(KernelInput::Operand(operand), view.clone())],
            ty: dag.node(*step).ty.clone(),
        });
    }
    let views = [&rounded.1, &weights.1].into_iter().enumerate();
    steps.push(KernelStep {
        op: dag.node(product).op.clone(),
        inputs: views
            .map(|(step, view)| (KernelInput::Step(step), (*view).clone()))
            .collect(),
        ty: dag.node(product).ty.clone(),
    });
    steps.push(KernelStep {
        op: node.op.clone(),
        inputs: vec![(KernelInput::Step(2), seen.clone())],
        ty: node.ty.clone(),
    });
    let operands = nodes.iter().map(|&n| dag.node(n).ty.clone()).collect();
    Some((Kernel::new("blocks".into(), steps, operands), nodes))
}

/// Blocks, what they are made of and rounded activations that something else than a product reads → a kernel that makes
/// them.
pub struct DecodedRows;

impl Pass for DecodedRows {
    fn name(&self) -> &str {
        "decoded-rows"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.topological()? {
            let node = dag.node(id);
            let (Op::Dequantize(_) | Op::Quantize(_) | Op::FakeQuantize(_)) = node.op else {
                continue;
            };
            let (source, view) = dag.operands(id)[0];
            let step = KernelStep {
                op: node.op.clone(),
                inputs: vec![(KernelInput::Operand(0), view.clone())],
                ty: node.ty.clone(),
            };
            let operands = vec![dag.node(source).ty.clone()];
            let kernel = Kernel::new("decode".into(), vec![step], operands);
            if BlockRows::of(&kernel).is_some() {
                replace(&mut patch, dag, id, kernel, vec![source])?;
            }
        }
        Ok(patch)
    }
}

/// Numbers that are rounded or stored in blocks, signs or planes, through a view → written out first, for kernels read rows.
/// What packs signs reads pixels with padding around them too.
pub struct RoundedRows;

impl Pass for RoundedRows {
    fn name(&self) -> &str {
        "rounded-rows"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.topological()? {
            let op = &dag.node(id).op;
            let (Op::FakeQuantize(_) | Op::Quantize(_) | Op::PackSigns | Op::PackPlanes(_)) = op
            else {
                continue;
            };
            let (source, view) = dag.operands(id)[0];
            let is_plain = view.is_identity(numel(&dag.node(source).ty.dims));
            let is_pixels = || view.is_masked() && Pixels::of(view).is_some();
            if is_plain || (dag.node(id).op == Op::PackSigns && is_pixels()) {
                continue;
            }
            let read = vec![(NodeRef::Old(source), view.clone())];
            let rows = patch.add(dag, Op::Contiguous, read, id)?;
            let whole = View::contiguous(view.dims());
            let new = patch.add(dag, dag.node(id).op.clone(), vec![(rows, whole)], id)?;
            patch.replace_with(dag, id, new);
        }
        Ok(patch)
    }
}
