//! Einstein sums: `"bij,bjk->bik"`.
//!
//! Every letter names an axis. Operands are multiplied where they share letters and summed over the letters that the
//! result lacks. A pair of operands becomes two views over the same axes (the letters that one of them lacks have
//! stride 0), one `Mul` and one `SumReduce` over the last axes, as in [`GraphTensor::matmul`]; letters that occur in
//! only one operand and not in the result are summed before, and a letter twice in one operand is its diagonal.
//! More than two operands are contracted from left to right.

use super::matmul::contract;
use super::movement::expand_view;
use super::operand::fail;
use crate::graph::GraphTensor;
use crate::op::ReduceOp;
use crate::shape::{Dims, Expr, same_size};

/// A tensor whose axes have names.
#[derive(Clone)]
struct Named {
    tensor: GraphTensor,
    labels: Vec<char>,
}

/// Stands for the axis that an ellipsis covers, counted from its right end.
const ELLIPSIS: u32 = 0xE000;

fn hidden_labels(n: usize) -> impl Iterator<Item = char> {
    let label = |back| char::from_u32(ELLIPSIS + back).expect("a private-use character");
    (0..n as u32).rev().map(label)
}

/// The labels of one operand or of the result, `hidden` of them for an ellipsis.
fn labels(part: &str, hidden: usize) -> Result<Vec<char>, String> {
    let (before, after) = part.split_once("...").unwrap_or((part, ""));
    let has_ellipsis = part.contains("...");
    if let Some(bad) = (before.chars().chain(after.chars())).find(|c| !c.is_ascii_alphabetic()) {
        return Err(format!("{bad:?} cannot name an axis: use a letter"));
    }
    let middle = hidden_labels(if has_ellipsis { hidden } else { 0 });
    Ok(before.chars().chain(middle).chain(after.chars()).collect())
}

/// The result's labels where the formula has none: those that occur once, in alphabetical order, an ellipsis first.
fn implied(operands: &[Named], hidden: usize) -> Vec<char> {
    let all: Vec<char> = operands.iter().flat_map(|x| x.labels.clone()).collect();
    let once =
        |&c: &char| c.is_ascii_alphabetic() && all.iter().filter(|&&other| other == c).count() == 1;
    let mut letters: Vec<char> = all.iter().copied().filter(once).collect();
    letters.sort_unstable();
    hidden_labels(hidden).chain(letters).collect()
}

/// Operands with names, and the names of the result.
fn parse(formula: &str, tensors: &[GraphTensor]) -> Result<(Vec<Named>, Vec<char>), String> {
    let formula: String = formula.split_whitespace().collect();
    let (left, right) = match formula.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (formula.as_str(), None),
    };
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != tensors.len() {
        return Err(format!(
            "{} operands for {} tensors",
            parts.len(),
            tensors.len()
        ));
    }
    let (mut operands, mut most) = (Vec::new(), 0);
    for (part, &tensor) in parts.iter().zip(tensors) {
        let rank = tensor.rank();
        let hidden = match part.contains("...") {
            true => rank.saturating_sub(part.len() - 3),
            false => 0,
        };
        let labels = labels(part, hidden)?;
        if labels.len() != rank {
            return Err(format!(
                "`{part}` does not name the axes of {}",
                tensor.ty()
            ));
        }
        most = most.max(hidden);
        operands.push(Named { tensor, labels });
    }
    let result = match right {
        Some(right) => labels(right, most)?,
        None => implied(&operands, most),
    };
    for (i, &label) in result.iter().enumerate() {
        if !operands.iter().any(|x| x.labels.contains(&label)) {
            return Err(format!("no operand has the result's axis {label:?}"));
        }
        if result[..i].contains(&label) {
            return Err(format!("the result has axis {label:?} twice"));
        }
    }
    Ok((operands, result))
}

impl Named {
    /// Repeated labels replaced by the diagonal.
    #[track_caller]
    fn without_repeats(mut self) -> Named {
        while let Some((first, second)) = repeated(&self.labels) {
            let dims = self.tensor.dims();
            if !same_size(dims[first], dims[second]) {
                let (label, ty) = (self.labels[first], self.tensor.ty());
                fail(
                    "einsum",
                    format!("axis {label:?} twice in {ty}: sizes differ"),
                );
            }
            self.tensor = self.tensor.diagonal(0, first, second);
            let label = self.labels.remove(second);
            self.labels.remove(first);
            self.labels.push(label);
        }
        self
    }

    /// Summed over the labels that do not pass.
    #[track_caller]
    fn keep(mut self, passes: impl Fn(char) -> bool) -> Named {
        let axes = (0..self.labels.len()).filter(|&axis| !passes(self.labels[axis]));
        self.tensor = self.tensor.fold(ReduceOp::Sum, &axes.collect());
        self.labels.retain(|&label| passes(label));
        self
    }

    /// The size under a label, if it has it.
    fn size(&self, label: char) -> Option<Expr> {
        let axis = self.labels.iter().position(|&other| other == label)?;
        Some(self.tensor.dims()[axis])
    }

    /// The tensor over these labels, in this order, with these sizes.
    #[track_caller]
    fn over(&self, order: &[char], sizes: &Dims) -> GraphTensor {
        let axis = |label: &char| self.labels.iter().position(|other| other == label);
        let own: Vec<usize> = order.iter().filter_map(axis).collect();
        self.tensor.look("einsum", |view| {
            let mut view = view.permute(&own)?;
            for (at, label) in order.iter().enumerate() {
                if !self.labels.contains(label) {
                    view = view.insert(at, 1i64)?;
                }
            }
            expand_view(&view, sizes)
        })
    }
}

/// The first label that occurs twice.
fn repeated(labels: &[char]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|second| {
        let first = labels[..second].iter().position(|&l| l == labels[second])?;
        Some((first, second))
    })
}

/// The size under a label in two operands: equal, or 1 in one of them.
#[track_caller]
fn joint_size(a: &Named, b: &Named, label: char) -> Expr {
    match (a.size(label), b.size(label)) {
        (Some(x), Some(y)) if same_size(x, y) || y.is_one() => x,
        (Some(x), Some(y)) if x.is_one() => y,
        (Some(x), None) | (None, Some(x)) => x,
        _ => {
            let (a, b) = (a.tensor.ty(), b.tensor.ty());
            fail("einsum", format!("axis {label:?} differs in {a} and {b}"))
        }
    }
}

/// Product of two operands over the labels in `result`, in this order; the others are summed.
#[track_caller]
fn contract_pair(a: Named, b: Named, result: &[char]) -> Named {
    let a_labels = a.labels.clone();
    let b_labels = b.labels.clone();
    let a = a.keep(|label| result.contains(&label) || b_labels.contains(&label));
    let b = b.keep(|label| result.contains(&label) || a_labels.contains(&label));
    let mut order = result.to_vec();
    for &label in &a.labels {
        if !order.contains(&label) {
            order.push(label);
        }
    }
    let mut sizes = Dims::new();
    for &label in &order {
        sizes.push(joint_size(&a, &b, label));
    }
    let summed = order.len() - result.len();
    let tensor = contract(a.over(&order, &sizes), b.over(&order, &sizes), summed);
    Named {
        tensor,
        labels: result.to_vec(),
    }
}

impl GraphTensor {
    /// Einstein sum of the operands, as in NumPy and PyTorch: `...` and a missing `->` are understood.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [3.0, 4.0]]).dynamic();
    /// let b = cx.tensor::<R1<2>>().set([1.0, 10.0]).dynamic();
    /// let y = GraphTensor::einsum("ij,j->i", &[a, b]).retrieve();
    /// let trace = GraphTensor::einsum("ii->", &[a]).retrieve();
    /// cx.execute();
    /// assert_eq!((y.data(), trace.data()), (vec![21.0, 43.0], vec![5.0]));
    /// ```
    ///
    /// # Panics
    /// If the formula cannot be read, does not fit the operands' ranks, or gives one letter two sizes.
    #[track_caller]
    pub fn einsum(formula: &str, operands: &[GraphTensor]) -> GraphTensor {
        let (named, result) = match parse(formula, operands) {
            Ok(parsed) => parsed,
            Err(what) => fail("einsum", format!("`{formula}`: {what}")),
        };
        let mut operands = Vec::new();
        for operand in named {
            operands.push(operand.without_repeats());
        }
        let mut done = operands.remove(0);
        while !operands.is_empty() {
            let next = operands.remove(0);
            if operands.is_empty() {
                return contract_pair(done, next, &result).tensor;
            }
            let later = |label| operands.iter().any(|x| x.labels.contains(label));
            let mut needed: Vec<char> = Vec::new();
            for label in done.labels.iter().chain(&next.labels) {
                if !needed.contains(label) && (result.contains(label) || later(label)) {
                    needed.push(*label);
                }
            }
            done = contract_pair(done, next, &needed);
        }
        let done = done.keep(|label| result.contains(&label));
        let order = result.iter().map(|label| {
            let axis = done.labels.iter().position(|other| other == label);
            axis.expect("every label of the result is in the only operand")
        });
        done.tensor.permute(order.collect::<Vec<usize>>())
    }
}
