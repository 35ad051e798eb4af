//! What a product with block weights is, independent of how it is computed.

use std::fmt;

use smallvec::SmallVec;

use super::form::{COLUMNS, Form, GROUP};
use super::joint::concatenations;
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::contraction::{reordered, roles};
use crate::compilers::llvm_cpu::ir::Access;
use crate::op::{
    ActivationScheme, AxisSet, BinaryOp, Kernel, KernelInput, KernelStep, Op, ReduceOp,
};
use crate::shape::{Expr, View, numel};

/// `out[m, n] = Σ_k x[m, k] * w[n, k]`: `x` rounded to 8 bits, `w` in blocks along k; all of them contiguous, but rows of `w`
/// may be those of several matrices, one after the other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BlockProduct {
    /// How weights are stored.
    pub ty: BlockType,
    /// How activations are rounded.
    pub scheme: ActivationScheme,
    /// Rows of activations.
    pub m: Expr,
    /// Numbers in a row, whole blocks.
    pub k: usize,
    /// The kernel's operand that holds activations (`f32`).
    pub activations: usize,
    /// Where weights are: the columns of the result, in order.
    pub parts: SmallVec<[Part; 3]>,
}

/// A matrix of weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Part {
    /// The kernel's operand that holds it (`u8`).
    pub weights: usize,
    /// Its rows.
    pub n: usize,
}

/// Where a panel is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The part's number.
    pub number: usize,
    /// The part.
    pub part: Part,
    /// The panel's number in the part.
    pub at: usize,
    /// Panels of the part from this one on.
    pub left: usize,
    /// The column of the result that its first row gives.
    pub column: usize,
}

impl Place {
    /// Columns that so many panels from this one on give.
    pub fn columns(&self, n_panels: usize) -> usize {
        (n_panels * COLUMNS).min(self.part.n - self.at * COLUMNS)
    }
}

impl Part {
    /// Panels of its rows.
    pub fn n_panels(&self) -> usize {
        self.n.div_ceil(COLUMNS)
    }
}

impl BlockProduct {
    /// The product that a kernel's steps are, if they are one.
    pub fn of(kernel: &Kernel) -> Option<BlockProduct> {
        // A rounding, three steps for each matrix, what puts their products side by side.
        let n_parts = kernel.steps.len() / 4;
        let sums = kernel.steps.get(1..1 + 3 * n_parts)?.chunks_exact(3);
        let mut products = sums.enumerate().map(|(i, _)| part_of(kernel, 1 + 3 * i));
        let mut all: BlockProduct = products.next()??;
        let kind = |p: &BlockProduct| (p.ty, p.scheme, p.m, p.k, p.activations);
        for product in products {
            let product = product?;
            if kind(&product) != kind(&all) {
                return None;
            }
            all.parts.extend(product.parts);
        }
        let joins = concatenations(&kernel.steps[..1 + 3 * n_parts])?;
        (joins == kernel.steps[1 + 3 * n_parts..]).then_some(all)
    }

    /// Rows of all weights.
    pub fn n(&self) -> usize {
        self.parts.iter().map(|part| part.n).sum()
    }

    /// Blocks in a row.
    pub fn n_blocks(&self) -> usize {
        self.k / self.ty.block_len()
    }

    /// Groups of activations in a row.
    pub fn n_groups(&self) -> usize {
        self.k / GROUP
    }

    /// The part that a panel of all belongs to, and its place there.
    ///
    /// # Panics
    /// If there are not so many panels.
    pub fn place(&self, panel: usize) -> Place {
        let (mut at, mut column) = (panel, 0);
        for (number, part) in self.parts.iter().enumerate() {
            let n_panels = part.n_panels();
            if at < n_panels {
                return Place {
                    number,
                    part: *part,
                    at,
                    left: n_panels - at,
                    column: column + at * COLUMNS,
                };
            }
            at -= n_panels;
            column += part.n;
        }
        panic!("panel {panel} of {self}");
    }

    /// Bytes of a row of weights.
    pub fn row_bytes(&self) -> usize {
        self.n_blocks() * self.ty.block_bytes()
    }
}

/// The product that the first step and the three from `first` are, if they are one.
fn part_of(kernel: &Kernel, first: usize) -> Option<BlockProduct> {
    let [weights, product, sum] = kernel.steps.get(first..first + 3)? else {
        return None;
    };
    let rounded = &kernel.steps[0];
    let (Op::FakeQuantize(scheme), Op::Dequantize(ty)) = (&rounded.op, &weights.op) else {
        return None;
    };
    if scheme.planes().is_some() {
        return None;
    }
    let has_outliers = *scheme == ActivationScheme::A8G32Outlier;
    if has_outliers && !Form::of(*ty).is_some_and(|form| form.has_whole_fours()) {
        return None;
    }
    let (Op::Binary(BinaryOp::Mul), Op::Reduce(ReduceOp::Sum, axes)) = (&product.op, &sum.op)
    else {
        return None;
    };
    let [(KernelInput::Step(0), x), (KernelInput::Step(decoded), w)] = &product.inputs[..] else {
        return None;
    };
    let (KernelInput::Step(summed), seen) = &sum.inputs[0] else {
        return None;
    };
    let in_order = (*decoded, *summed) == (first, first + 1);
    if !in_order || Form::of(*ty).is_none() || seen.is_masked() {
        return None;
    }
    let (rows, k) = rows_of((rounded, x), (weights, w), seen, axes)?;
    let part = Part {
        weights: whole_operand(kernel, weights)?,
        n: rows[1].as_usize()?,
    };
    Some(BlockProduct {
        ty: *ty,
        scheme: *scheme,
        m: rows[0],
        k,
        activations: whole_operand(kernel, rounded)?,
        parts: [part].into_iter().collect(),
    })
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
        let rows: Vec<String> = self.parts.iter().map(|part| part.n.to_string()).collect();
        let (m, n, k) = (self.m, rows.join(" + "), self.k);
        write!(f, "{ty} x {scheme} [{m} | {n} | {k}]")
    }
}
