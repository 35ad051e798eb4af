//! Constant folding: ops on constants become constants.
//!
//! ```text
//! %0 = constant<2.0> : f32[]
//! %1 = constant<3.0> : f32[]                                     %0 = constant<5.0> : f32[]
//! %2 = add(%0 {[4] * (0)}, %1 {[4] * (0)}) : f32[4]    →    … readers see %0 repeated to [4]
//! ```
//! An operand counts as constant when all its elements are one literal: a constant repeated by a view, or a zero that
//! a view pads. The op's own reference `eval` computes the result on one element, so folded bits are executed bits.
//! The result is one number under a view that repeats it, whatever the size; equal results share one node.
//!
//! Also: the size of a dimension that is no symbol → literal; `iota` of length 1 → `0`; a reduction of equal numbers
//! over axes of known size, by `eval` on as many numbers as are reduced.
//!
//! What it deliberately does not do:
//! - it folds no input's data, for inputs change between executions;
//! - it materialises nothing: `iota + 1` stays, and a reduction over more than [`MAX_REDUCED`] elements too;
//! - it does not fold `gather` and `scatter`, whose error for a bad index would get lost, `random`, a user's own ops
//!   (which may look at more than one element) and kernels.

use super::sweep::{Sweep, sweep};
use crate::array::Array;
use crate::compilers::Pass;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{ConstantValue, EvalContext, Literal, Op};
use crate::shape::{ConcreteView, Expr, Symbols, View};

/// The largest number of elements that folding a reduction may add up.
pub const MAX_REDUCED: usize = 4096;

/// The pass `constant-folding`; a hit is a node that became a constant.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConstantFolding;

impl Pass for ConstantFolding {
    fn name(&self) -> &str {
        "constant-folding"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        sweep(dag, |sweep, id| {
            if sweep.is_pinned(id) {
                return Ok(());
            }
            let Some(literal) = fold(sweep, id) else {
                return Ok(());
            };
            let target = sweep.constant(literal, id)?;
            sweep.replace(id, target);
            Ok(())
        })
    }
}

/// The number that all elements of the node are, when it is no literal already.
fn fold(sweep: &Sweep, id: NodeIndex) -> Option<Literal> {
    let op = &sweep.dag.node(id).op;
    match op {
        Op::Constant(ConstantValue::Size(size)) => {
            let size = i32::try_from(size.as_const()?).ok()?;
            Some(Literal::from_bits(DType::I32, u64::from(size as u32)))
        }
        Op::Iota { len } if len.is_one() => Some(Literal::new(DType::I32, 0.0)),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Select
        | Op::Cast(_)
        | Op::Contiguous
        | Op::Reduce(..) => evaluate(sweep, id, op),
        op if op.only_matters_to_gradients() => evaluate(sweep, id, op),
        _ => None,
    }
}

fn evaluate(sweep: &Sweep, id: NodeIndex, op: &Op) -> Option<Literal> {
    let operands = sweep.operands(NodeRef::Old(id));
    let literals: Option<Vec<Literal>> = operands.iter().map(|seen| sweep.uniform(seen)).collect();
    let dims = sample_dims(op, operands[0].1.dims())?;
    let view = one_number_as(&dims);
    let arrays: Vec<Array> = literals?
        .into_iter()
        .map(|literal| literal.to_array().look(&view))
        .collect();
    let symbols = Symbols::new();
    let result = dims
        .iter()
        .enumerate()
        .filter(|(axis, _)| !reduces(op, *axis));
    let context = EvalContext {
        symbols: &symbols,
        dims: result.map(|(_, &dim)| dim).collect(),
    };
    let value = (op.row().eval)(op, &arrays, &context).ok()?;
    Literal::from_array(&value)
}

/// The smallest operand that has the result's number as its only result: 1 on each axis, and the whole axis where it
/// is folded away.
fn sample_dims(op: &Op, dims: &[Expr]) -> Option<Vec<usize>> {
    let size = |(axis, dim): (usize, &Expr)| match reduces(op, axis) {
        true => dim.as_usize(),
        false => Some(1),
    };
    let sizes: Vec<usize> = dims.iter().enumerate().map(size).collect::<Option<_>>()?;
    let n = sizes
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size))?;
    (n <= MAX_REDUCED).then_some(sizes)
}

fn reduces(op: &Op, axis: usize) -> bool {
    matches!(op, Op::Reduce(_, axes) if axes.contains(&axis))
}

fn one_number_as(dims: &[usize]) -> ConcreteView {
    let mut view = View::contiguous(());
    for (axis, &dim) in dims.iter().enumerate() {
        view = view.insert(axis, dim).expect("the axes before exist");
    }
    view.resolve(&Symbols::new())
        .expect("there is no symbol in it")
}
