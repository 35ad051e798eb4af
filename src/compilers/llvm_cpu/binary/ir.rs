//! What a product of signs is, independent of how it is computed.

use std::fmt;

use smallvec::SmallVec;

use super::windows::Windows;
use crate::blocks::{PANEL_ROWS, SignMatrix};
use crate::compilers::llvm_cpu::contraction::{reordered, roles};
use crate::compilers::llvm_cpu::ir::Access;
use crate::dtype::DType;
use crate::op::{
    ActivationScheme, AxisSet, BinaryOp, Kernel, KernelInput, KernelStep, Op, PlanePart, Planes,
    ReduceOp, SignPart,
};
use crate::shape::{Expr, View, numel};

/// The most columns: as many ones as 16 bits count.
pub const MOST_COLUMNS: usize = u16::MAX as usize;

/// What rows of the matrix are multiplied by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Factor {
    /// Rows of bits.
    Signs,
    /// Rows of `f32` that are rounded to 8 bits with a scale each.
    Bytes,
    /// Rows of levels as planes of bits.
    Planes {
        /// Their planes.
        planes: Planes,
        /// Whether results are multiplied by their scales.
        scaled: bool,
    },
}

/// `out[m, n] = (Σ_b scale[b, n] * Σ_k x[m, k] * sign[b, n, k]) * size[m]`, or what columns' numbers make of it, or the signs of
/// that: all of them contiguous.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SignProduct {
    /// The matrix of signs.
    pub matrix: SignMatrix,
    /// What its rows are multiplied by.
    pub factor: Factor,
    /// Rows of that.
    pub m: Expr,
    /// How rows of bits lie, if not one after the other.
    pub windows: Option<Box<Windows>>,
    /// The bases, in the order of additions.
    pub bases: SmallVec<[usize; 4]>,
    /// Whether there are scales; if not there is one base.
    pub scaled: bool,
    /// The kernel's operand with the sizes of rows (`f32`), if there are any.
    pub sizes: Option<usize>,
    /// What is done to the result then: numbers for its columns (`f32`, an operand) that it is multiplied by, or that are
    /// added.
    pub after: SmallVec<[(BinaryOp, usize); 2]>,
    /// Whether of all that only the signs are stored, as bits.
    pub packed: bool,
    /// The kernel's operand that holds x.
    pub x: usize,
    /// The kernel's operand that holds the matrix (`u8`).
    pub signs: usize,
}

impl SignProduct {
    /// Bytes of a row of bits, and of those of a row of the matrix.
    pub fn row_bytes(&self) -> usize {
        let plain = || self.matrix.row_bytes();
        let windows = self.windows.as_deref();
        windows.map_or_else(plain, Windows::row_bytes)
    }

    /// How many bits of these count: of what is behind them rows may hold anything.
    pub fn row_bits(&self) -> usize {
        match &self.windows {
            Some(windows) => 8 * windows.row_bytes(),
            None => self.matrix.columns(),
        }
    }

    /// Bytes of the scales and bits of one base of a panel, as kernels read them.
    pub fn base_bytes(&self) -> usize {
        PANEL_ROWS * (4 + self.row_bytes())
    }

    /// Bytes of the matrix, as kernels read it.
    pub fn matrix_bytes(&self) -> usize {
        self.matrix.panels() * self.matrix.bases() * self.base_bytes()
    }

    /// The product that a kernel's steps are, if they are one.
    pub fn of(kernel: &Kernel) -> Option<SignProduct> {
        let last = kernel.steps.len().checked_sub(1)?;
        value(kernel, last)
    }

    /// Whether results of rows are multiplied by something.
    pub fn has_sizes(&self) -> bool {
        self.sizes.is_some() || matches!(self.factor, Factor::Planes { scaled: true, .. })
    }
}

/// What a step computes.
fn value(kernel: &Kernel, at: usize) -> Option<SignProduct> {
    let step = &kernel.steps[at];
    match &step.op {
        Op::Reduce(ReduceOp::Sum, axes) => sum(kernel, step, axes),
        Op::Binary(BinaryOp::Mul) => {
            let (product, other) = match inner(kernel, step, 0) {
                Some(product) => (product, 1),
                None => (inner(kernel, step, 1)?, 0),
            };
            times(kernel, product, step, other)
        }
        Op::PackSigns => {
            let product = inner(kernel, step, 0)?;
            Some(SignProduct {
                packed: true,
                ..product
            })
        }
        Op::Binary(BinaryOp::Add) => {
            let (mut all, more) = match (inner(kernel, step, 0), inner(kernel, step, 1)) {
                (Some(all), Some(more)) => (all, more),
                (Some(product), None) => return by_columns(kernel, product, step, 1),
                (None, Some(product)) => return by_columns(kernel, product, step, 0),
                (None, None) => return None,
            };
            let is_plain = |p: &SignProduct| p.scaled && !p.has_sizes() && p.after.is_empty();
            let fits = is_plain(&all) && is_plain(&more) && more.bases.len() == 1;
            all.bases.extend(more.bases.iter().copied());
            let same = SignProduct {
                bases: all.bases.clone(),
                ..more
            };
            (fits && all == same && all.bases.len() <= all.matrix.bases()).then_some(all)
        }
        _ => None,
    }
}

/// What an input of a step is, if that is all of a product.
fn inner(kernel: &Kernel, step: &KernelStep, slot: usize) -> Option<SignProduct> {
    let (KernelInput::Step(at), view) = &step.inputs[slot] else {
        return None;
    };
    let whole = view.is_identity(kernel.steps[*at].ty.numel());
    value(kernel, *at).filter(|product| whole && !product.packed)
}

/// A product times scales, or times sizes of rows.
fn times(
    kernel: &Kernel,
    product: SignProduct,
    step: &KernelStep,
    slot: usize,
) -> Option<SignProduct> {
    let (input, view) = &step.inputs[slot];
    let last = step.ty.dims.len() - 1;
    match *input {
        KernelInput::Step(at) if matches!(kernel.steps[at].op, Op::UnpackPlanes(..)) => {
            by_scales(kernel, product, (&kernel.steps[at], view))
        }
        KernelInput::Step(at) => {
            let Op::SignMatrix(matrix, SignPart::Scales(base)) = kernel.steps[at].op else {
                return None;
            };
            let repeated = (0..last).all(|axis| !view.walks(axis));
            let (walk, _) = view.written_out(&[last]).ok()?;
            let whole = walk.is_identity(matrix.rows().into()) && repeated;
            let same = matrix == product.matrix && product.bases[..] == [base];
            let signs = whole_operand(kernel, &kernel.steps[at])?;
            let first = !product.scaled && !product.has_sizes() && product.after.is_empty();
            let fits = whole && same && signs == product.signs && first;
            fits.then_some(SignProduct {
                scaled: true,
                ..product
            })
        }
        KernelInput::Operand(at) => {
            let others: Vec<usize> = (0..last).collect();
            let (walk, _) = view.written_out(&others).ok()?;
            let operand = &kernel.operands[at];
            if view.walks(last) {
                return by_columns(kernel, product, step, slot);
            }
            let whole = walk.is_identity(operand.numel()) && product.after.is_empty();
            let fits = whole && !product.has_sizes() && operand.dtype == DType::F32;
            fits.then_some(SignProduct {
                sizes: Some(at),
                ..product
            })
        }
    }
}

/// A product of levels times the scales of their rows.
fn by_scales(
    kernel: &Kernel,
    product: SignProduct,
    (step, view): (&KernelStep, &View),
) -> Option<SignProduct> {
    let (Op::UnpackPlanes(k, of, PlanePart::Scales), Factor::Planes { planes, .. }) =
        (&step.op, product.factor)
    else {
        return None;
    };
    let last = view.rank().checked_sub(1)?;
    let others: Vec<usize> = (0..last).collect();
    let (walk, _) = view.written_out(&others).ok()?;
    let whole = walk.is_identity(step.ty.numel()) && !view.walks(last);
    let same = *of == planes && *k == product.matrix.columns();
    let same = same && whole_operand(kernel, step)? == product.x;
    let first = !product.has_sizes() && product.after.is_empty();
    let scaled = Factor::Planes {
        planes,
        scaled: true,
    };
    (whole && same && first).then_some(SignProduct {
        factor: scaled,
        ..product
    })
}

/// A product with numbers for its columns multiplied or added.
fn by_columns(
    kernel: &Kernel,
    mut product: SignProduct,
    step: &KernelStep,
    slot: usize,
) -> Option<SignProduct> {
    let ((KernelInput::Operand(at), view), Op::Binary(op)) = (&step.inputs[slot], &step.op) else {
        return None;
    };
    let last = step.ty.dims.len() - 1;
    let repeated = (0..last).all(|axis| !view.walks(axis));
    let (walk, _) = view.written_out(&[last]).ok()?;
    let (n, operand) = (product.matrix.rows(), &kernel.operands[*at]);
    let whole = walk.is_identity(operand.numel()) && walk.numel().as_usize() == Some(n);
    let is_f32 = operand.dtype == DType::F32 && step.ty.dtype == DType::F32;
    product.after.push((*op, *at));
    (whole && repeated && is_f32).then_some(product)
}

/// A sum of products.
fn sum(kernel: &Kernel, step: &KernelStep, axes: &AxisSet) -> Option<SignProduct> {
    let (KernelInput::Step(product), seen) = &step.inputs[0] else {
        return None;
    };
    let product = &kernel.steps[*product];
    if product.op != Op::Binary(BinaryOp::Mul) || seen.is_masked() {
        return None;
    }
    let is_signs = |slot: &usize| match product.inputs[*slot].0 {
        KernelInput::Step(at) => {
            matches!(kernel.steps[at].op, Op::SignMatrix(_, SignPart::Signs(_)))
        }
        KernelInput::Operand(_) => false,
    };
    let slot = (0..2).find(is_signs)?;
    let factor = |slot: usize| match &product.inputs[slot] {
        (KernelInput::Step(at), view) => Some((&kernel.steps[*at], view)),
        _ => None,
    };
    let ((signs, w), (other, x)) = (factor(slot)?, factor(1 - slot)?);
    let Op::SignMatrix(matrix, SignPart::Signs(base)) = signs.op else {
        return None;
    };
    let kind = match other.op {
        Op::UnpackSigns(_) => Factor::Signs,
        Op::FakeQuantize(ActivationScheme::A8Tok) => Factor::Bytes,
        Op::UnpackPlanes(_, planes, PlanePart::Levels) => Factor::Planes {
            planes,
            scaled: false,
        },
        _ => return None,
    };
    let (m, windows) = rows_of((other, x), (signs, w), seen, axes)?;
    let fits = matrix.columns() <= MOST_COLUMNS && matrix.columns() > 0;
    Some(SignProduct {
        matrix,
        factor: kind,
        m,
        windows,
        bases: [base].into_iter().collect(),
        scaled: false,
        sizes: None,
        after: SmallVec::new(),
        packed: false,
        x: whole_operand(kernel, other)?,
        signs: whole_operand(kernel, signs)?,
    })
    .filter(|_| fits)
}

/// The operand that a step reads, if it reads all of it as it is.
fn whole_operand(kernel: &Kernel, step: &KernelStep) -> Option<usize> {
    let (KernelInput::Operand(operand), view) = &step.inputs[0] else {
        return None;
    };
    let size = numel(&kernel.operands[*operand].dims);
    view.is_identity(size).then_some(*operand)
}

/// Rows of x, if the product is of whole rows of both factors, or of windows and whole rows, and its result has their order.
fn rows_of(
    (other, x): (&KernelStep, &View),
    (signs, w): (&KernelStep, &View),
    seen: &View,
    axes: &AxisSet,
) -> Option<(Expr, Option<Box<Windows>>)> {
    let access = |view: &View| Access {
        input: 0,
        dtype: DType::F32,
        view: view.compose(seen),
    };
    let (lhs, rhs) = (access(x), access(w));
    let roles = roles(&lhs.view, &rhs.view, axes);
    let in_order = roles.m.iter().max() < roles.n.iter().min();
    let single = roles.batch.is_empty() && roles.n.len() == 1 && roles.k.len() == 1;
    let rank = roles.m.len();
    if !in_order || !single {
        return None;
    }
    let lhs = reordered(lhs, &[&roles.m, &roles.k], &roles.n)?.view;
    let rhs = reordered(rhs, &[&roles.n, &roles.k], &roles.m)?.view;
    let row = |step: &KernelStep| step.ty.dims.last().copied();
    let whole = |view: &View, step: &KernelStep| {
        view.is_identity(numel(&step.ty.dims)) && row(step) == view.dims().last().copied()
    };
    if !whole(&rhs, signs) {
        return None;
    }
    if whole(&lhs, other) {
        return Some((numel(&lhs.dims()[..rank]), None));
    }
    let Op::UnpackSigns(channels) = other.op else {
        return None;
    };
    let windows = Windows::of(&lhs, rank, channels)?;
    Some((windows.m(), Some(windows.into())))
}

impl fmt::Display for SignProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, columns) = (self.matrix.rows(), self.matrix.columns());
        let by = match self.factor {
            Factor::Signs => "signs",
            Factor::Bytes => "bytes",
            Factor::Planes { planes, .. } => match planes {
                Planes::Two => "2 planes",
                Planes::Four => "4 planes",
            },
        };
        let bases = self.bases.len();
        write!(f, "{bases} signs x {by} [{} | {rows} | {columns}]", self.m)
    }
}
