//! Products with block weights that share their activations → one kernel.
//!
//! ```text
//! %3 = kernel "blocks"(%0, %1) : f32[s, 9]            %3 = kernel "blocks"(%0, %1, %2) : f32[s, 14]
//! %4 = kernel "blocks"(%0, %2) : f32[s, 5]         →  %4 is read as %3 {[s, 5] * (14, 1) + 9}
//! ```
//! Queries, keys and values of attention are such, and a gate with what it lets through. Of a row, a product with a few million
//! weights takes little longer than starting the threads, rounding and the first wait for memory, which are done once then.
//!
//! Not taken: products of other types, rounded in other ways (what is rounded once must be the same for all), or with weights
//! that are computed, which might need a result of the others.

use super::ir::{BlockProduct, Part};
use crate::compilers::Pass;
use crate::error::{Error, Result};
use crate::graph::{Dag, NodeIndex, NodeRef, Patch, Turn};
use crate::op::{BinaryOp, Kernel, KernelInput, KernelStep, Op, TensorType};
use crate::shape::{Expr, View};

/// The pass.
#[derive(Clone, Copy)]
pub struct JointProducts;

/// A product in the graph.
struct Found {
    id: NodeIndex,
    product: BlockProduct,
    part: Part,
    activations: NodeIndex,
}

impl Pass for JointProducts {
    fn name(&self) -> &str {
        "joint-products"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut groups: Vec<Vec<Found>> = Vec::new();
        for id in dag.topological()? {
            let Some(found) = found(dag, id) else {
                continue;
            };
            match groups
                .iter_mut()
                .find(|group| share(dag, &group[0], &found))
            {
                Some(group) => group.push(found),
                None => groups.push(vec![found]),
            }
        }
        let mut patch = Patch::new();
        for group in groups.iter().filter(|group| group.len() > 1) {
            join(&mut patch, dag, group)?;
        }
        Ok(patch)
    }
}

/// The product of constant weights that a node is.
fn found(dag: &Dag, id: NodeIndex) -> Option<Found> {
    let Op::Kernel(kernel) = &dag.node(id).op else {
        return None;
    };
    let product = BlockProduct::of(kernel)?;
    let operands = dag.operands(id);
    let [part] = product.parts[..] else {
        return None;
    };
    let is_leaf = dag.node(operands[part.weights].0).op.is_leaf();
    is_leaf.then_some(Found {
        id,
        activations: operands[product.activations].0,
        product,
        part,
    })
}

/// Whether two products round the same numbers in the same way, for rows that lie alike. One that is computed again when its
/// result is needed is no other's match: see [`Turn::Late`].
fn share(dag: &Dag, a: &Found, b: &Found) -> bool {
    let rows = |found: &Found| {
        let dims = &dag.node(found.id).ty.dims;
        dims[..dims.len() - 1].to_vec()
    };
    let kind = |product: &BlockProduct| (product.ty, product.scheme, product.m, product.k);
    let is_late = |found: &Found| matches!(dag.node(found.id).turn, Turn::Late(_));
    let same = a.activations == b.activations && kind(&a.product) == kind(&b.product);
    same && rows(a) == rows(b) && !is_late(a) && !is_late(b)
}

/// Puts one kernel in the place of some.
fn join(patch: &mut Patch, dag: &Dag, group: &[Found]) -> Result<()> {
    let (mut steps, mut nodes) = (Vec::new(), Vec::new());
    for found in group {
        let Op::Kernel(kernel) = &dag.node(found.id).op else {
            unreachable!("products are kernels");
        };
        let operands: Vec<usize> = (dag.operands(found.id).into_iter())
            .map(|(node, _)| take(&mut nodes, node))
            .collect();
        // Of the first product the rounding stays for all.
        let before = steps.len().saturating_sub(1);
        for step in &kernel.steps()[usize::from(before > 0)..] {
            let mut step = step.clone();
            for (input, _) in &mut step.inputs {
                *input = match *input {
                    KernelInput::Operand(operand) => KernelInput::Operand(operands[operand]),
                    KernelInput::Step(0) => KernelInput::Step(0),
                    KernelInput::Step(step) => KernelInput::Step(step + before),
                };
            }
            steps.push(step);
        }
    }
    let Some(joins) = concatenations(&steps) else {
        return Ok(());
    };
    steps.extend(joins);
    let operands = nodes
        .iter()
        .map(|&node| dag.node(node).ty.clone())
        .collect();
    let kernel = Kernel::new("blocks".into(), steps, operands);
    let plain = |&node: &NodeIndex| {
        let dims = dag.node(node).ty.dims.clone();
        (NodeRef::Old(node), View::contiguous(dims))
    };
    let whole = kernel.ty().dims.clone();
    let read = nodes.iter().map(plain).collect();
    let new = patch.add(dag, Op::Kernel(kernel.into()), read, group[0].id)?;
    let (axis, mut from) = (whole.len() - 1, 0);
    for found in group {
        let to = from + found.part.n;
        let view = View::contiguous(whole.clone()).slice(axis, from, to, 1);
        let view = view.map_err(|e| Error::msg(e.to_string()))?;
        patch.replace(found.id, new, view);
        from = to;
    }
    Ok(())
}

/// The operand that a node is.
fn take(nodes: &mut Vec<NodeIndex>, node: NodeIndex) -> usize {
    let known = nodes.iter().position(|&other| other == node);
    known.unwrap_or_else(|| {
        nodes.push(node);
        nodes.len() - 1
    })
}

/// The steps that put the sums of a kernel side by side, on their last axis: of a rounding and three steps for each product, every
/// third. Each is padded with zeros to the width of all, and they are added up; the reference's sums are never -0, which
/// adding a zero would change.
pub(super) fn concatenations(steps: &[KernelStep]) -> Option<Vec<KernelStep>> {
    let sums: Vec<(usize, &TensorType)> = (steps.iter().enumerate())
        .filter(|(at, _)| *at > 0 && at.is_multiple_of(3))
        .map(|(at, step)| (at, &step.ty))
        .collect();
    let width = |ty: &TensorType| ty.dims.last().copied();
    let all = (sums.iter()).try_fold(Expr::from(0), |all, (_, ty)| Some(all + width(ty)?))?;
    let mut ty = sums.first()?.1.clone();
    *ty.dims.last_mut()? = all;
    let axis = ty.dims.len() - 1;
    let mut joins: Vec<KernelStep> = Vec::new();
    let mut before = Expr::from(0);
    let mut last: Option<(KernelInput, View)> = None;
    for (at, sum) in sums {
        let after = all - before - width(sum)?;
        let view = View::contiguous(sum.dims.clone())
            .pad(axis, before, after)
            .ok()?;
        let here = (KernelInput::Step(at), view);
        last = Some(match last {
            None => here,
            Some(last) => {
                joins.push(KernelStep {
                    op: Op::Binary(BinaryOp::Add),
                    inputs: vec![last, here],
                    ty: ty.clone(),
                });
                let step = KernelInput::Step(steps.len() + joins.len() - 1);
                (step, View::contiguous(ty.dims.clone()))
            }
        });
        before += width(sum)?;
    }
    Some(joins)
}
