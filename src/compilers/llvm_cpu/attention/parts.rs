//! The three parts of an attention kernel: scores, weights, values.
//!
//! A kernel's steps are a flat list. [`parts_of`] finds, in the steps of `softmax(rule(q k^T)) v` or anything of that
//! form, the product that gives the scores, the product at the end, and what lies between, and makes a kernel of each.
//!
//! What must hold, so that a block of rows can be computed without the rest:
//! - both products are contractions with the same number of batches and rows;
//! - scores and weights lie in memory as `[batch, row, key]`;
//! - the part between reads the scores of its own row only.
//!
//! Of softmax only one thing is asked: that the largest score of a row matters. Any other part that works on rows would
//! do, but a norm between two projections is better left alone, since there the right operands are large and the rows
//! short.

use rustc_hash::FxHashMap;

use crate::compilers::llvm_cpu::contraction::contraction_of;
use crate::compilers::llvm_cpu::gemm::ir::Contraction;
use crate::compilers::llvm_cpu::ir::{Nest, Scalar};
use crate::compilers::llvm_cpu::nest::nest_of;
use crate::op::{Kernel, KernelInput, KernelStep, Op, ReduceOp, TensorType};
use crate::shape::{Expr, numel};

/// Where a part's operand comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum From {
    /// The kernel's operand of this number.
    Operand(usize),
    /// The result of the part before, or of one of them.
    Part,
}

/// A part as a kernel of its own.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it computes.
    pub kernel: Kernel,
    /// One entry per operand of `kernel`.
    pub operands: Vec<From>,
}

impl Part {
    /// The kernel's operand that a product of operands reads as its own `input`.
    ///
    /// # Panics
    /// If that is the result of another part.
    pub fn operand(&self, input: usize) -> usize {
        match self.operands[input] {
            From::Operand(operand) => operand,
            From::Part => unreachable!("products read operands"),
        }
    }
}

/// An attention kernel, taken apart.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Queries times keys.
    pub scores: Part,
    /// From scores to weights, row by row.
    pub rows: Part,
    /// Weights times values.
    pub values: Part,
    /// `scores` as a matrix product: m are query rows, n keys.
    pub scores_product: Contraction,
    /// `values` as a matrix product: m are query rows, k keys; its left operand is `rows`.
    pub values_product: Contraction,
    /// `rows` as loops.
    pub nest: Nest,
    /// Which input of `nest` the scores are.
    pub score_input: usize,
}

/// Takes a kernel apart; `None` if it is no attention.
pub fn parts_of(kernel: &Kernel) -> Option<Parts> {
    let last = kernel.steps.len() - 1;
    let product = sum_of_products(kernel, last)?;
    kernel.steps[product].inputs.iter().find_map(|(input, _)| {
        let KernelInput::Step(weights) = *input else {
            return None;
        };
        (0..weights)
            .rev()
            .filter(|&step| sum_of_products(kernel, step).is_some())
            .find_map(|scores| split(kernel, scores, weights))
    })
}

/// The product that step `at` sums, if it does.
pub(in crate::compilers::llvm_cpu) fn sum_of_products(kernel: &Kernel, at: usize) -> Option<usize> {
    let step = &kernel.steps[at];
    match (&step.op, step.inputs.first()) {
        (Op::Reduce(ReduceOp::Sum, _), Some((KernelInput::Step(product), _))) => Some(*product),
        _ => None,
    }
}

fn split(kernel: &Kernel, scores: usize, weights: usize) -> Option<Parts> {
    let last = kernel.steps.len() - 1;
    let parts = [(scores, &[][..]), (weights, &[scores]), (last, &[weights])];
    let [scores, rows, values] = parts.map(|(root, cuts)| extract(kernel, root, cuts));
    let from_part = |part: &Part| part.operands.iter().position(|from| *from == From::Part);
    let (score_input, weight_input) = (from_part(&rows)?, from_part(&values)?);
    let scores_product = contraction_of(&scores.kernel)?;
    let values_product = contraction_of(&values.kernel)?;
    let values_product = match values_product.lhs.input == weight_input {
        true => values_product,
        false => values_product.swapped(),
    };
    let nest = nest_of(&rows.kernel).ok()?;
    let points = numel(&rows.kernel.ty().dims);
    let fits = is_row_major(&scores_product)
        && numel(&scores_product.batch) == numel(&values_product.batch)
        && numel(&scores_product.m) == numel(&values_product.m)
        && numel(&scores_product.n) == numel(&values_product.k)
        && values_product.lhs.input == weight_input
        && values_product.rhs.input != weight_input
        && values_product
            .lhs
            .view
            .is_identity(numel(&rows.kernel.ty().dims))
        && nest.stages.iter().any(|stage| stage.kind == ReduceOp::Max)
        && reads_own_row(&nest, score_input, points);
    fits.then_some(Parts {
        scores,
        rows,
        values,
        scores_product,
        values_product,
        nest,
        score_input,
    })
}

/// Whether input number `input` is only read at the point that is computed.
fn reads_own_row(nest: &Nest, input: usize, points: Expr) -> bool {
    nest.body.iter().all(|node| match *node {
        Scalar::Gather { access, .. } => nest.loads[access].input != input,
        Scalar::Load(load) if nest.loads[load].input == input => {
            let view = &nest.loads[load].view;
            view.is_identity(points) && view.numel() == points
        }
        _ => true,
    })
}

/// Whether the result lies in memory as `[batch, m, n]`.
pub(in crate::compilers::llvm_cpu) fn is_row_major(product: &Contraction) -> bool {
    let dims = product.batch.iter().chain(&product.m).chain(&product.n);
    let mut stride = Expr::from(1);
    let mut steps: Vec<_> = dims.zip(&product.out_strides).collect();
    steps.reverse();
    steps.into_iter().all(|(&dim, &is)| {
        let fits = is == stride || dim.is_one();
        stride *= dim;
        fits
    })
}

/// The steps that `root` needs, down to operands and to the steps `cuts`, which become operands, in their order.
pub(in crate::compilers::llvm_cpu) fn extract(
    kernel: &Kernel,
    root: usize,
    cuts: &[usize],
) -> Part {
    let mut needed = vec![false; root + 1];
    needed[root] = true;
    for at in (0..=root).rev().filter(|at| !cuts.contains(at)) {
        let wanted = needed[at];
        for (input, _) in &kernel.steps[at].inputs {
            if let KernelInput::Step(step) = input {
                needed[*step] |= wanted;
            }
        }
    }
    let mut steps: Vec<KernelStep> = Vec::new();
    let mut operands: Vec<(From, TensorType)> = Vec::new();
    let mut moved: FxHashMap<KernelInput, KernelInput> = FxHashMap::default();
    for at in (0..=root).filter(|&at| needed[at]) {
        let step = &kernel.steps[at];
        if cuts.contains(&at) {
            operands.push((From::Part, step.ty.clone()));
            let input = KernelInput::Operand(operands.len() - 1);
            moved.insert(KernelInput::Step(at), input);
            continue;
        }
        for (input, _) in &step.inputs {
            if let KernelInput::Operand(i) = input {
                moved.entry(*input).or_insert_with(|| {
                    operands.push((From::Operand(*i), kernel.operands[*i].clone()));
                    KernelInput::Operand(operands.len() - 1)
                });
            }
        }
        let inputs = step.inputs.iter();
        steps.push(KernelStep {
            op: step.op.clone(),
            inputs: inputs
                .map(|(input, view)| (moved[input], view.clone()))
                .collect(),
            ty: step.ty.clone(),
        });
        let input = KernelInput::Step(steps.len() - 1);
        moved.insert(KernelInput::Step(at), input);
    }
    let (from, types) = operands.into_iter().unzip();
    Part {
        kernel: Kernel::new(String::new(), steps, types),
        operands: from,
    }
}
