//! Elementary functions in a nest → approximations, as [`Math`] says.
//!
//! Before: `exp2(x * log2(e))`, and the dozen operations that make a sigmoid, a tanh or a gelu. After: one node
//! [`Scalar::Approx`], for which [`emit`] has a table or a polynomial. The bounds of their errors are in
//! [`crate::compilers::math`].
//!
//! What the functions look like is not written down here: each is recorded from the tensor's method, and a nest is
//! searched for the same operations, the largest functions first. So a change of a method's formula is a change of what
//! is recognised.
//!
//! Invariants:
//! - Nothing is replaced under [`Math::Exact`]; a node of another type than `F32` never is.
//! - An approximation is a fixed list of IEEE-754 operations, fused multiply-adds, selects, bit operations and looks
//!   into constant tables: the same bits on every target.
//! - `exp` of minus infinity is zero, on which skipping masked keys relies.
//!
//! Deliberately absent: approximations in graphs. The steps of a kernel stay what was recorded, so that it prints, is
//! checked and runs on the reference executor as before.

pub mod emit;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use super::ir::{Id, Nest, Scalar};
use crate::compilers::math::Math;
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, NodeIndex};
use crate::op::{BinaryOp, ConstantValue, Op};

/// A function that has approximations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Function {
    /// `gelu(x)` in its form with tanh.
    GeluTanh,
    /// `gelu(x)`.
    Gelu,
    /// `tanh(x)`.
    Tanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `1 / sqrt(x)`.
    Rsqrt,
    /// `e^x`.
    Exp,
}

impl Function {
    /// All of them; none is part of a later one.
    pub const ALL: [Function; 6] = [
        Function::GeluTanh,
        Function::Gelu,
        Function::Tanh,
        Function::Sigmoid,
        Function::Rsqrt,
        Function::Exp,
    ];

    /// The function as tensors have it.
    pub fn of(self, x: GraphTensor) -> GraphTensor {
        match self {
            Function::GeluTanh => x.gelu_tanh(),
            Function::Gelu => x.gelu(),
            Function::Tanh => x.tanh(),
            Function::Sigmoid => x.sigmoid(),
            Function::Rsqrt => x.rsqrt(),
            Function::Exp => x.exp(),
        }
    }
}

/// A function and how it is approximated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Approximation {
    /// What.
    pub function: Function,
    /// How; not exactly.
    pub math: Math,
}

/// The operations of a function; `Load(0)` is its operand.
struct Pattern {
    function: Function,
    body: Vec<Scalar>,
    /// The node of the result.
    root: Id,
}

/// The functions' patterns, in the order in which they are looked for.
fn patterns() -> &'static [Pattern] {
    static PATTERNS: OnceLock<Vec<Pattern>> = OnceLock::new();
    PATTERNS.get_or_init(|| Function::ALL.into_iter().map(Pattern::of).collect())
}

impl Pattern {
    fn of(function: Function) -> Pattern {
        let mut cx = Graph::new();
        let x = cx.input(1, DType::F32);
        function.of(x).retrieve();
        cx.inspect(|dag| {
            let mut order = dag.topological().expect("a recorded graph has no cycle");
            let is_operand = |id: NodeIndex| dag.node(id).op.only_matters_to_gradients();
            order.retain(|&id| !is_operand(id));
            let number = |mut id| {
                while is_operand(id) {
                    id = dag.operands(id)[0].0;
                }
                order.iter().position(|&other| other == id)
            };
            let scalar = |&id: &_| {
                let operands: Vec<Id> = dag
                    .operands(id)
                    .into_iter()
                    .map(|(source, _)| number(source).expect("operands are in the graph"))
                    .collect();
                match &dag.node(id).op {
                    Op::Unary(op) => Scalar::Unary(*op, operands[0]),
                    Op::Binary(op) => Scalar::Binary(*op, operands[0], operands[1]),
                    Op::Select => Scalar::Select {
                        cond: operands[0],
                        then: operands[1],
                        otherwise: operands[2],
                    },
                    Op::Constant(ConstantValue::Literal(literal)) => Scalar::Const(*literal),
                    Op::Input { .. } => Scalar::Load(0),
                    other => unreachable!("`{}` in a function of one element", other.name()),
                }
            };
            let result = dag.kept_nodes().into_iter().next();
            Pattern {
                function,
                body: order.iter().map(scalar).collect(),
                root: result.and_then(number).expect("the result is kept"),
            }
        })
    }

    /// What the function is applied to, if `root` is this function of something.
    fn operand(&self, body: &[Scalar], root: Id) -> Option<Id> {
        let mut bound = vec![None; self.body.len()];
        self.matches(body, self.root, root, &mut bound)
            .then_some(())?;
        let is_operand = |node: &Scalar| matches!(node, Scalar::Load(_));
        bound[self.body.iter().position(is_operand)?]
    }

    /// Whether node `have` of `body` is node `want` of the pattern, given what is `bound` already.
    fn matches(&self, body: &[Scalar], want: Id, have: Id, bound: &mut Vec<Option<Id>>) -> bool {
        if let Some(known) = bound[want] {
            return known == have;
        }
        let before = bound.clone();
        let mut all = |pairs: &[(Id, Id)]| {
            let found = pairs
                .iter()
                .all(|&(want, have)| self.matches(body, want, have, bound));
            if !found {
                bound.clone_from(&before);
            }
            found
        };
        let found = match (&self.body[want], &body[have]) {
            (Scalar::Load(_), _) => true,
            (Scalar::Const(a), Scalar::Const(b)) => a == b,
            (Scalar::Unary(op, a), Scalar::Unary(other, b)) => op == other && all(&[(*a, *b)]),
            (Scalar::Binary(op, a, b), Scalar::Binary(other, c, d)) if op == other => {
                let commutes = matches!(op, BinaryOp::Add | BinaryOp::Mul);
                all(&[(*a, *c), (*b, *d)]) || (commutes && all(&[(*a, *d), (*b, *c)]))
            }
            (
                Scalar::Select {
                    cond,
                    then,
                    otherwise,
                },
                Scalar::Select {
                    cond: c,
                    then: t,
                    otherwise: o,
                },
            ) => all(&[(*cond, *c), (*then, *t), (*otherwise, *o)]),
            _ => false,
        };
        if found {
            bound[want] = Some(have);
        }
        found
    }
}

/// Replaces functions by approximations; gives their number.
pub fn approximate(nest: &mut Nest, math: Math) -> usize {
    if math == Math::Exact {
        return 0;
    }
    let types = nest.dtypes();
    let mut n_replaced = 0;
    for pattern in patterns() {
        // From the last on: what a function is made of is gone when it would be looked at.
        let mut needed = needed(nest);
        for root in (0..nest.body.len()).rev() {
            if !needed[root] || types[root] != DType::F32 {
                continue;
            }
            if let Some(x) = pattern.operand(&nest.body, root)
                && types[x] == DType::F32
            {
                let function = pattern.function;
                nest.body[root] = Scalar::Approx(Approximation { function, math }, x);
                n_replaced += 1;
                needed = self::needed(nest);
            }
        }
    }
    if n_replaced > 0 {
        drop_unused(nest);
    }
    n_replaced
}

/// Which nodes the results depend on.
fn needed(nest: &Nest) -> Vec<bool> {
    let stages = nest.stages.iter().map(|stage| stage.value);
    nest.needed(stages.chain([nest.result]), None)
}

/// Removes nodes that nothing needs.
fn drop_unused(nest: &mut Nest) {
    let needed = needed(nest);
    let mut moved = vec![0; needed.len()];
    let mut body = Vec::new();
    for (id, mut node) in std::mem::take(&mut nest.body).into_iter().enumerate() {
        if needed[id] {
            node.for_each_operand_mut(|operand| *operand = moved[*operand]);
            moved[id] = body.len();
            body.push(node);
        }
    }
    nest.body = body;
    nest.result = moved[nest.result];
    for stage in &mut nest.stages {
        stage.value = moved[stage.value];
    }
}
