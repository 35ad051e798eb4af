//! What a product with block weights is, independent of how it is computed.

use std::fmt;

use super::form::{Form, GROUP};
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::contraction::{reordered, roles};
use crate::compilers::llvm_cpu::ir::Access;
use crate::op::{
    ActivationScheme, AxisSet, BinaryOp, Kernel, KernelInput, KernelStep, Op, ReduceOp,
};
use crate::shape::{Expr, View, numel};

/// `out[m, n] = Σ_k x[m, k] * w[n, k]`: `x` rounded to 8 bits, `w` in blocks along k; all of them contiguous.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BlockProduct {
    /// How weights are stored.
    pub ty: BlockType,
    /// How activations are rounded.
    pub scheme: ActivationScheme,
    /// Rows of activations.
    pub m: Expr,
    /// Rows of weights.
    pub n: usize,
    /// Numbers in a row, whole blocks.
    pub k: usize,
    /// The kernel's operand that holds activations (`f32`).
    pub activations: usize,
    /// The kernel's operand that holds weights (`u8`).
    pub weights: usize,
}

impl BlockProduct {
    /// The product that a kernel's steps are, if they are one.
    pub fn of(kernel: &Kernel) -> Option<BlockProduct> {
        let [rounded, weights, product, sum] = &kernel.steps[..] else {
            return None;
        };
        let (Op::FakeQuantize(scheme), Op::Dequantize(ty)) = (&rounded.op, &weights.op) else {
            return None;
        };
        if scheme.planes().is_some() {
            return None;
        }
        let (Op::Binary(BinaryOp::Mul), Op::Reduce(ReduceOp::Sum, axes)) = (&product.op, &sum.op)
        else {
            return None;
        };
        let [(KernelInput::Step(0), x), (KernelInput::Step(1), w)] = &product.inputs[..] else {
            return None;
        };
        let (KernelInput::Step(2), seen) = &sum.inputs[0] else {
            return None;
        };
        if Form::of(*ty).is_none() || seen.is_masked() {
            return None;
        }
        let (rows, k) = rows_of((rounded, x), (weights, w), seen, axes)?;
        Some(BlockProduct {
            ty: *ty,
            scheme: *scheme,
            m: rows[0],
            n: rows[1].as_usize()?,
            k,
            activations: whole_operand(kernel, rounded)?,
            weights: whole_operand(kernel, weights)?,
        })
    }

    /// Blocks in a row.
    pub fn n_blocks(&self) -> usize {
        self.k / self.ty.block_len()
    }

    /// Groups of activations in a row.
    pub fn n_groups(&self) -> usize {
        self.k / GROUP
    }

    /// Bytes of a row of weights.
    pub fn row_bytes(&self) -> usize {
        self.n_blocks() * self.ty.block_bytes()
    }
}

/// The operand that a step reads, if it reads all of it as it is.
fn whole_operand(kernel: &Kernel, step: &KernelStep) -> Option<usize> {
    let (KernelInput::Operand(operand), view) = &step.inputs[0] else {
        return None;
    };
    let size = numel(&kernel.operands[*operand].dims);
    view.is_identity(size).then_some(*operand)
}

/// Rows of both factors and their length, if the product is of whole rows and its result has the order of both.
fn rows_of(
    (rounded, x): (&KernelStep, &View),
    (weights, w): (&KernelStep, &View),
    seen: &View,
    axes: &AxisSet,
) -> Option<([Expr; 2], usize)> {
    let access = |view: &View| Access {
        input: 0,
        dtype: rounded.ty.dtype,
        view: view.compose(seen),
    };
    let (lhs, rhs) = (access(x), access(w));
    let roles = roles(&lhs.view, &rhs.view, axes);
    // Rows of the result are those of activations, and its columns those of weights.
    let in_order = roles.m.iter().max() < roles.n.iter().min();
    let single = roles.batch.is_empty() && roles.n.len() == 1 && roles.k.len() == 1;
    if !in_order || !single {
        return None;
    }
    let lhs = reordered(lhs, &[&roles.m, &roles.k], &roles.n)?.view;
    let rhs = reordered(rhs, &[&roles.n, &roles.k], &roles.m)?.view;
    let k = rhs.dims()[1].as_usize()?;
    let whole = |view: &View, step: &KernelStep| {
        let row = step.ty.dims.last().and_then(|dim| dim.as_usize());
        view.is_identity(numel(&step.ty.dims)) && row == Some(k)
    };
    let fits = whole(&lhs, rounded) && whole(&rhs, weights);
    let rows = [numel(&lhs.dims()[..roles.m.len()]), rhs.dims()[0]];
    (fits && k > 0 && k.is_multiple_of(GROUP)).then_some((rows, k))
}

impl fmt::Display for BlockProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ty, scheme) = (self.ty, self.scheme.name());
        write!(f, "{ty} x {scheme} [{} | {} | {}]", self.m, self.n, self.k)
    }
}
