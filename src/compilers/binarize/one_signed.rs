//! Which values cannot be negative.
//!
//! Known from the ops alone, without data: powers of two, roots, squares, sums and products of such, choices like
//! `where(0 < x, x, ..)`. A value of which that is not known counts as signed; NaN counts as not negative. What padding adds
//! is 0.

use rustc_hash::FxHashSet;

use crate::error::Result;
use crate::graph::{Dag, NodeIndex};
use crate::op::{BinaryOp, ConstantValue, Op, UnaryOp};
use crate::shape::View;

/// The nodes without negative numbers.
pub(super) fn one_signed(dag: &Dag) -> Result<FxHashSet<NodeIndex>> {
    let mut known = FxHashSet::default();
    for id in dag.topological()? {
        if is_one_signed(dag, id, &known) {
            known.insert(id);
        }
    }
    Ok(known)
}

fn is_one_signed(dag: &Dag, id: NodeIndex, known: &FxHashSet<NodeIndex>) -> bool {
    let operands = dag.operands(id);
    let is = |at: usize| known.contains(&operands[at].0);
    match &dag.node(id).op {
        Op::Unary(UnaryOp::Exp2 | UnaryOp::Sqrt) => true,
        Op::Iota { .. } | Op::Random { .. } => true,
        Op::Constant(ConstantValue::Literal(literal)) => {
            let value = literal.to_array().to_f64()[0];
            value >= 0.0 || value.is_nan()
        }
        Op::Unary(UnaryOp::Recip)
        | Op::Reduce(..)
        | Op::Contiguous
        | Op::Cast(_)
        | Op::FakeQuantize(_) => is(0),
        op if op.only_matters_to_gradients() => is(0),
        Op::Binary(BinaryOp::Mul) => operands[0] == operands[1] || (is(0) && is(1)),
        Op::Binary(BinaryOp::Add) => is(0) && is(1),
        Op::Select => {
            let [condition, yes, no] = [0, 1, 2].map(|at| operands[at]);
            let yes_is = is(1) || tells(dag, condition, yes, true, known);
            yes_is && (is(2) || tells(dag, condition, no, false, known))
        }
        _ => false,
    }
}

/// Whether a condition that is `holds` says that a value is not negative.
fn tells(
    dag: &Dag,
    (condition, seen): (NodeIndex, &View),
    value: (NodeIndex, &View),
    holds: bool,
    known: &FxHashSet<NodeIndex>,
) -> bool {
    if dag.node(condition).op != Op::Binary(BinaryOp::LessThan) || !dag.is_whole(condition, seen) {
        return false;
    }
    let operands = dag.operands(condition);
    // `limit < value` holds, or `value < limit` does not.
    let (limit, other) = if holds { (0, 1) } else { (1, 0) };
    operands[other] == value && known.contains(&operands[limit].0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    fn is_known(make: impl Fn(GraphTensor) -> GraphTensor) -> bool {
        let mut cx = Graph::new();
        let x = cx.input((2, 3), DType::F32);
        let y = make(x).retrieve();
        cx.compile(Generic, ());
        cx.inspect(|dag| {
            let source = dag.source(y.value).expect("it is kept");
            one_signed(dag).expect("no circle").contains(&source.node)
        })
    }

    #[test]
    fn activations_without_negative_numbers_are_known() {
        assert!(is_known(|x| x.relu()));
        assert!(is_known(|x| x.sigmoid()));
        assert!(is_known(|x| x.softmax(-1)));
        assert!(is_known(|x| x * x));
        assert!(is_known(|x| x.relu() * x.exp() + 1.0));
    }

    #[test]
    fn others_are_not() {
        assert!(!is_known(|x| x));
        assert!(!is_known(|x| x.tanh()));
        assert!(!is_known(|x| x.silu()));
        assert!(!is_known(|x| x.relu() - 1.0));
        assert!(!is_known(|x| x.leaky_relu(0.1)));
        assert!(!is_known(|x| x.lt(0.0).where_(x, x * x)));
        assert!(!is_known(|x| x.gt(-1.0).where_(x, x.relu())));
    }
}
