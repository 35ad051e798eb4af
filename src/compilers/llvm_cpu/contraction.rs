//! `SumReduce(Mul(a, b))` → one kernel, wherever it is a matrix product.
//!
//! A matrix product is recognised from index structure, not from names, ranks or axis numbers: of the dimensions of
//! the product, one that both operands walk and that stays is *batch*; one that only `a` walks is *m*, only `b`, *n*;
//! one that is summed is *k*. So products of any rank, transposed or broadcast operands, grouped-query attention,
//! convolution through an unfold view and all their gradients are the same kernel. Casts of the operands to `F32`
//! are taken into the kernel, and so is decoding one of them from blocks ([`Stored`]).
//!
//! Not taken: sums that keep no *m* or no *n* (a dot product, a row sum) and formats other than `F32`: those are
//! ordinary reductions, which [`super::fusion`] handles. Where *m* or *n* is symbolic, the kernel decides at run time.

use smallvec::SmallVec;

use super::gemm::ir::Contraction;
use super::gemm::stored::{BYTES, LEN, Stored};
use super::ir::Access;
use crate::blocks::BlockType;
use crate::compilers::Pass;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{AxisSet, BinaryOp, Kernel, KernelInput, KernelStep, Op, ReduceOp, TensorType};
use crate::shape::{Dims, View, numel};

/// The pass.
pub struct ContractionPass;

impl Pass for ContractionPass {
    fn name(&self) -> &str {
        "contraction"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.topological()? {
            // Where a factor's blocks cannot be read, its numbers can.
            let candidates = [block_candidate(dag, id), candidate(dag, id)];
            let mut products = candidates.into_iter().flatten();
            if let Some((kernel, operands)) = products.find(|(k, _)| contraction_of(k).is_some()) {
                replace(&mut patch, dag, id, kernel, operands)?;
            }
        }
        Ok(patch)
    }
}

/// Puts a kernel that reads the buffers of some nodes in the place of a node.
///
/// # Errors
/// If its type is not the node's.
pub(super) fn replace(
    patch: &mut Patch,
    dag: &Dag,
    id: NodeIndex,
    kernel: Kernel,
    operands: Vec<NodeIndex>,
) -> Result<()> {
    let plain = |node: NodeIndex| View::contiguous(dag.node(node).ty.dims.clone());
    let operands = operands.into_iter();
    let operands = operands.map(|node| (NodeRef::Old(node), plain(node)));
    let new = patch.add(dag, Op::Kernel(kernel.into()), operands.collect(), id)?;
    patch.replace_with(dag, id, new);
    Ok(())
}

/// A sum of products over factors of which some are written out first: `written` says what of a factor to write, and how the
/// factor is seen in that. Nothing changes where it says so of no factor.
///
/// # Errors
/// If such a view does not fit.
pub(super) fn write_factors(
    patch: &mut Patch,
    dag: &Dag,
    id: NodeIndex,
    written: impl Fn(NodeIndex, &View) -> Option<(View, View)>,
) -> Result<()> {
    let (product, seen) = dag.operands(id)[0];
    let (mut factors, mut n_written) = (Vec::new(), 0);
    for (factor, view) in dag.operands(product) {
        factors.push(match written(factor, view) {
            Some((write, back)) => {
                n_written += 1;
                let read = vec![(NodeRef::Old(factor), write)];
                (patch.add(dag, Op::Contiguous, read, product)?, back)
            }
            None => (NodeRef::Old(factor), view.clone()),
        });
    }
    if n_written == 0 {
        return Ok(());
    }
    let mul = patch.add(dag, dag.node(product).op.clone(), factors, product)?;
    let sum = patch.add(dag, dag.node(id).op.clone(), vec![(mul, seen.clone())], id)?;
    patch.replace_with(dag, id, sum);
    Ok(())
}

/// The steps of a sum of products rooted at `id`, with the nodes whose buffers they read.
pub(super) fn candidate(dag: &Dag, id: NodeIndex) -> Option<(Kernel, Vec<NodeIndex>)> {
    Some(steps_of(dag, id, product_of(dag, id)?, None))
}

/// The same where a factor is decoded from blocks, which the kernel reads then. Of two such factors the first stays decoded.
fn block_candidate(dag: &Dag, id: NodeIndex) -> Option<(Kernel, Vec<NodeIndex>)> {
    let product = product_of(dag, id)?;
    let in_blocks = dag.operands(product).iter().rposition(|&(factor, _)| {
        let op = &dag.node(factor).op;
        matches!(op, Op::Dequantize(BlockType::Q8_0))
    });
    Some(steps_of(dag, id, product, Some(in_blocks?)))
}

/// The product of `F32` that `id` sums.
fn product_of(dag: &Dag, id: NodeIndex) -> Option<NodeIndex> {
    let Op::Reduce(ReduceOp::Sum, _) = dag.node(id).op else {
        return None;
    };
    let (product, _) = dag.operands(id)[0];
    let node = dag.node(product);
    let is_product = node.op == Op::Binary(BinaryOp::Mul) && node.ty.dtype == DType::F32;
    is_product.then_some(product)
}

/// The steps of the sum `id` of `product`; the factor `in_blocks` is decoded by a step.
fn steps_of(
    dag: &Dag,
    id: NodeIndex,
    product: NodeIndex,
    in_blocks: Option<usize>,
) -> (Kernel, Vec<NodeIndex>) {
    let mut steps = Vec::new();
    let mut nodes: Vec<NodeIndex> = Vec::new();
    let mut inputs = Vec::new();
    for (at, (operand, view)) in dag.operands(product).into_iter().enumerate() {
        let input = match in_blocks == Some(at) {
            true => take_blocks(dag, operand, &mut steps, &mut nodes),
            false => take_casts(dag, operand, &mut steps, &mut nodes),
        };
        inputs.push((input, view.clone()));
    }
    steps.push(KernelStep {
        op: Op::Binary(BinaryOp::Mul),
        inputs,
        ty: dag.node(product).ty.clone(),
    });
    let (_, view) = dag.operands(id)[0];
    let reduced = (KernelInput::Step(steps.len() - 1), view.clone());
    let node = dag.node(id);
    steps.push(KernelStep {
        op: node.op.clone(),
        inputs: vec![reduced],
        ty: node.ty.clone(),
    });
    let operands = nodes
        .iter()
        .map(|&node| dag.node(node).ty.clone())
        .collect();
    (Kernel::new("contraction".into(), steps, operands), nodes)
}

/// Takes a node that decodes blocks as a step.
fn take_blocks(
    dag: &Dag,
    node: NodeIndex,
    steps: &mut Vec<KernelStep>,
    nodes: &mut Vec<NodeIndex>,
) -> KernelInput {
    let (source, view) = dag.operands(node)[0];
    let input = take_operand(source, nodes);
    steps.push(KernelStep {
        op: dag.node(node).op.clone(),
        inputs: vec![(input, view.clone())],
        ty: dag.node(node).ty.clone(),
    });
    KernelInput::Step(steps.len() - 1)
}

/// The operand that a buffer is.
fn take_operand(from: NodeIndex, nodes: &mut Vec<NodeIndex>) -> KernelInput {
    let known = nodes.iter().position(|&node| node == from);
    KernelInput::Operand(known.unwrap_or_else(|| {
        nodes.push(from);
        nodes.len() - 1
    }))
}

/// Follows casts to `F32` down to a buffer; each becomes a step.
fn take_casts(
    dag: &Dag,
    from: NodeIndex,
    steps: &mut Vec<KernelStep>,
    nodes: &mut Vec<NodeIndex>,
) -> KernelInput {
    let node = dag.node(from);
    if node.op == Op::Cast(DType::F32) {
        let (source, view) = dag.operands(from)[0];
        if matches!(dag.node(source).ty.dtype, DType::F16 | DType::BF16) {
            let inner = take_casts(dag, source, steps, nodes);
            steps.push(KernelStep {
                op: node.op.clone(),
                inputs: vec![(inner, view.clone())],
                ty: node.ty.clone(),
            });
            return KernelInput::Step(steps.len() - 1);
        }
    }
    take_operand(from, nodes)
}

/// What the kernel reads for one factor: an operand, through casts or a decoder.
fn factor(kernel: &Kernel, input: KernelInput, view: View) -> Option<Access> {
    match input {
        KernelInput::Operand(input) => Some(Access {
            input,
            dtype: kernel.operands[input].dtype,
            view,
        }),
        KernelInput::Step(step) => {
            let step = &kernel.steps[step];
            let (input, inner) = step.inputs.first()?;
            match step.op {
                Op::Cast(DType::F32) => factor(kernel, *input, inner.compose(&view)),
                Op::Dequantize(BlockType::Q8_0) => {
                    let numbers = inner.regrouped(BYTES, LEN)?;
                    factor(kernel, *input, numbers.compose(&view))
                }
                _ => None,
            }
        }
    }
}

/// Which dimensions of a product are what.
pub(super) struct Roles {
    pub(super) batch: AxisSet,
    pub(super) m: AxisSet,
    pub(super) n: AxisSet,
    pub(super) k: AxisSet,
}

/// Which dimensions of the product are what. Those that neither factor walks go with `m`.
pub(super) fn roles(lhs: &View, rhs: &View, reduced: &AxisSet) -> Roles {
    let mut roles = Roles {
        batch: AxisSet::new(),
        m: AxisSet::new(),
        n: AxisSet::new(),
        k: AxisSet::new(),
    };
    for axis in 0..lhs.rank() {
        let list = match (reduced.contains(&axis), lhs.walks(axis), rhs.walks(axis)) {
            (true, _, _) => &mut roles.k,
            (false, true, true) => &mut roles.batch,
            (false, false, true) => &mut roles.n,
            (false, _, false) => &mut roles.m,
        };
        list.push(axis);
    }
    roles
}

/// The matrix product that a kernel's steps are, if they are one.
pub fn contraction_of(kernel: &Kernel) -> Option<Contraction> {
    let reduce = kernel.steps.last()?;
    let Op::Reduce(ReduceOp::Sum, axes) = &reduce.op else {
        return None;
    };
    let (KernelInput::Step(product), seen) = &reduce.inputs[0] else {
        return None;
    };
    let product = &kernel.steps[*product];
    if product.op != Op::Binary(BinaryOp::Mul) || product.ty.dtype != DType::F32 || seen.is_masked()
    {
        return None;
    }
    let (left, right) = (&product.inputs[0], &product.inputs[1]);
    let lhs = factor(kernel, left.0, left.1.compose(seen))?;
    let rhs = factor(kernel, right.0, right.1.compose(seen))?;
    let roles = roles(&lhs.view, &rhs.view, axes);
    let dims_of = |axes: &AxisSet| axes.iter().map(|&axis| seen.dims()[axis]).collect::<Dims>();
    let (m, n) = (dims_of(&roles.m), dims_of(&roles.n));
    if numel(&m).is_one() || numel(&n).is_one() {
        return None;
    }
    let contraction = Contraction {
        batch: dims_of(&roles.batch),
        k: dims_of(&roles.k),
        lhs: reordered(lhs, &[&roles.batch, &roles.m, &roles.k], &roles.n)?,
        rhs: reordered(rhs, &[&roles.batch, &roles.n, &roles.k], &roles.m)?,
        out_strides: out_strides(
            &reduce.ty,
            axes,
            &[&roles.batch, &roles.m, &roles.n],
            seen.rank(),
        ),
        m,
        n,
        dtype: reduce.ty.dtype,
    };
    let contraction = match Stored::of(&contraction.lhs) {
        Stored::Q8_0 => contraction.swapped(),
        Stored::Number(_) => contraction,
    };
    contraction.check().is_ok().then_some(contraction)
}

/// The access with its axes in the order of `groups`; the axes in `dropped`, along which nothing changes, are gone.
pub(super) fn reordered(access: Access, groups: &[&AxisSet], dropped: &AxisSet) -> Option<Access> {
    let order: SmallVec<[usize; 8]> = groups
        .iter()
        .flat_map(|group| group.iter().copied())
        .collect();
    let all: SmallVec<[usize; 8]> = order.iter().chain(dropped.iter()).copied().collect();
    let mut view = access.view.permute(&all).ok()?;
    for axis in (order.len()..all.len()).rev() {
        view = view.slice(axis, 0, 1, 1).ok()?.squeeze(axis).ok()?;
    }
    Some(Access { view, ..access })
}

/// How far the result moves with each axis of `groups`, the result being contiguous over the axes that stay.
fn out_strides(ty: &TensorType, reduced: &AxisSet, groups: &[&AxisSet], rank: usize) -> Dims {
    let kept: SmallVec<[usize; 8]> = (0..rank).filter(|axis| !reduced.contains(axis)).collect();
    let stride = |axis: usize| {
        let at = kept
            .iter()
            .position(|&k| k == axis)
            .expect("batch, m and n axes stay");
        numel(&ty.dims[at + 1..])
    };
    groups
        .iter()
        .flat_map(|group| group.iter().map(|&axis| stride(axis)))
        .collect()
}
