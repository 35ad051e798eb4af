//! What may be computed inside another node's kernel, and what that costs.
//!
//! These are facts about single nodes and edges; [`super::groups`] decides with them.

use crate::compilers::llvm_cpu::contraction::contraction_of;
use crate::compilers::llvm_cpu::windows::Windows;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex};
use crate::op::{BinaryOp, Op, UnaryOp};
use crate::shape::{View, numel};

/// The most that a tree may cost, in additions, to be computed once for every reader.
const CHEAP: usize = 2;
/// The same for one that reads no memory, such as a mask that compares positions.
const COMPUTED: usize = 8;

/// Ops that compute one element of the result from one point.
pub fn is_elementwise(op: &Op) -> bool {
    let computes = matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_));
    computes || op.only_matters_to_gradients()
}

/// Ops that read nothing and cost nothing.
pub fn is_free(op: &Op) -> bool {
    matches!(op, Op::Constant(_) | Op::Iota { .. })
}

/// A reduction that is not the identity.
pub fn reduces(op: &Op) -> bool {
    matches!(op, Op::Reduce(_, axes) if !axes.is_empty())
}

/// Whether a root of this kind is compiled by this pass.
pub fn becomes_kernel(op: &Op) -> bool {
    is_elementwise(op)
        || is_free(op)
        || matches!(
            op,
            Op::Random { .. } | Op::Reduce(..) | Op::Contiguous | Op::Gather { .. }
        )
}

/// Whether a kernel with `reader` in it can evaluate its operand number `slot` at the points that `reader` needs.
fn evaluates(reader: &Op, slot: usize) -> bool {
    match reader {
        Op::Contiguous | Op::Reduce(..) => true,
        Op::Gather { .. } => slot == 1,
        other => is_elementwise(other),
    }
}

/// Whether `op`, read through `view` as operand number `slot` of `reader`, can be a step of the reader's kernel.
pub fn can_be_step(reader: &Op, slot: usize, op: &Op, view: &View) -> bool {
    let known = match op {
        Op::Iota { .. } => view.single().is_some(),
        Op::Constant(_) | Op::Gather { .. } => true,
        other => is_elementwise(other) || reduces(other),
    };
    known && evaluates(reader, slot)
}

/// What one evaluation of an op costs, in additions.
fn cost(op: &Op) -> usize {
    match op {
        Op::Unary(UnaryOp::Sqrt | UnaryOp::Recip) => 4,
        Op::Unary(_) | Op::Binary(BinaryOp::Mod) => 10,
        Op::Gather { .. } => 4,
        Op::Random { .. } => 40,
        Op::Binary(_) | Op::Select | Op::Cast(_) => 1,
        _ => 0,
    }
}

/// What computing a node again takes, if it is not read from memory.
#[derive(Clone, Copy, Default, Debug)]
pub struct Work {
    /// Additions per element.
    cost: usize,
    /// Buffers of its own size that are read.
    loads: usize,
    /// Whether anything is read.
    reads: bool,
    /// Whether a reduction of as many elements is among its steps.
    pub reduced: bool,
}

/// Which nodes finish a matrix product, by number: elementwise ones that alone read a product, or what finishes one, at
/// their own points. Such a node is computed in the product's kernel if it is written to memory, and then it is written
/// in the product's place.
pub fn finish(dag: &Dag, order: &[NodeIndex], is_kept: &[bool]) -> Vec<bool> {
    let mut finishes = vec![false; dag.bound()];
    let is_product = |op: &Op| match op {
        Op::Kernel(kernel) => contraction_of(kernel).is_some_and(|c| Windows::ready(&c).is_none()),
        _ => false,
    };
    for &id in order.iter().filter(|&&id| is_elementwise(&dag.node(id).op)) {
        let is_own = |&(operand, view): &(NodeIndex, &View)| {
            let node = dag.node(operand);
            (finishes[operand.index()] || is_product(&node.op))
                && !is_kept[operand.index()]
                && dag.is_whole(operand, view)
                && dag.readers(operand).all(|(reader, ..)| reader == id)
        };
        finishes[id.index()] = dag.operands(id).iter().any(is_own);
    }
    finishes
}

/// The work of every node, by number.
pub fn works(dag: &Dag, order: &[NodeIndex], is_kept: &[bool]) -> Result<Vec<Work>> {
    let mut works = vec![Work::default(); dag.bound()];
    for &id in order {
        let op = &dag.node(id).op;
        let size = dag.node(id).ty.numel();
        let mut work = Work {
            cost: cost(op),
            loads: 0,
            reads: op.is_leaf() && !is_free(op),
            reduced: reduces(op),
        };
        for (slot, (operand, view)) in dag.operands(id).into_iter().enumerate() {
            let of = &dag.node(operand).op;
            if is_free(of) {
                continue;
            }
            let below = works[operand.index()];
            let same = numel(view.dims()) == dag.node(operand).ty.numel();
            work.reduced |= is_elementwise(op) && same && below.reduced;
            let once = dag.readers(operand).count() == 1 && !is_kept[operand.index()];
            let inside = is_elementwise(of) && can_be_step(op, slot, of, view);
            work.reads |= below.reads || !inside;
            if inside && ((once && same) || below.is_cheap()) {
                work.cost = work.cost.saturating_add(below.cost);
                work.loads = work.loads.saturating_add(below.loads);
            } else if dag.node(operand).ty.numel() == size {
                work.loads += 1;
            }
        }
        works[id.index()] = work;
    }
    Ok(works)
}

impl Work {
    fn is_cheap(&self) -> bool {
        self.cost <= if self.reads { CHEAP } else { COMPUTED }
    }

    /// Whether computing the node in each of `n_kernels` that read it is less than writing it once and reading it in
    /// each; if it `is_written` anyway, than only reading it.
    pub fn is_worth_repeating(&self, op: &Op, n_kernels: usize, is_written: bool) -> bool {
        let again = n_kernels * self.loads;
        let shared = if is_written {
            n_kernels
        } else {
            1 + self.loads + n_kernels
        };
        is_elementwise(op) && self.is_cheap() && again <= shared
    }
}
