//! Which keys a block of queries can see at all.
//!
//! The rows of an attention kernel start with a maximum over `select(visible, score, -inf)`, where `visible` compares
//! positions. Evaluated on intervals of positions instead of single ones, it says of a whole block of scores that none
//! of them counts: then their products need not be computed.
//!
//! That is so only if a hidden score changes nothing: it must be read through the mask alone, and its weight, worked out
//! from -inf, must be zero.
//!
//! Intervals only ever say *none* when that is so; what they cannot follow (a mask from memory, a floating-point
//! comparison) counts as visible.

use smallvec::SmallVec;

use super::parts::Parts;
use crate::compilers::llvm_cpu::approx::Function;
use crate::compilers::llvm_cpu::ir::{BinaryOp, Id, Nest, ReduceOp, Scalar, UnaryOp};
use crate::dtype::DType;
use crate::shape::Expr;

/// From the lowest to the highest value, both possible; booleans are 0 and 1.
type Interval = (i64, i64);

/// What cannot be followed.
const ANYTHING: Interval = (i64::MIN >> 2, i64::MAX >> 2);

/// A node of the condition; operands are earlier nodes.
#[derive(Clone, Copy, Debug)]
enum Node {
    /// An offset, and a stride per dim of the coordinates, from this one of the numbers on.
    Affine(usize),
    Add(usize, usize),
    Mul(usize, usize),
    Less(usize, usize),
    And(usize, usize),
    Or(usize, usize),
    Anything,
}

/// The condition under which a score counts.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    nodes: Vec<Node>,
    numbers: Vec<Expr>,
}

impl Reach {
    /// The condition in a nest, if it has the form that this module knows; coordinates are those of the nest's space,
    /// then the key.
    pub fn of(parts: &Parts) -> Option<Reach> {
        let nest = &parts.nest;
        let masked = masked_score(nest)?;
        let Scalar::Select { cond, .. } = nest.body[masked] else {
            unreachable!("a masked score is a select")
        };
        let known = nest.reduce.len() == 1 && nest.per_point;
        (known && vanishes(nest, parts.score_input, masked)).then(|| {
            let dtypes = nest.dtypes();
            let mut reach = Reach::default();
            (0..=cond).for_each(|id| reach.push(nest, &dtypes, id));
            reach
        })
    }

    /// The expressions whose values [`Reach::may_count`] needs.
    pub fn numbers(&self) -> &[Expr] {
        &self.numbers
    }

    /// Whether some score with coordinates in these intervals, one per dim, may count.
    pub fn may_count(&self, numbers: &[i64], coordinates: &[Interval]) -> bool {
        let mut values: SmallVec<[Interval; 16]> = SmallVec::new();
        for node in &self.nodes {
            values.push(evaluate(node, numbers, &values, coordinates));
        }
        values.last().is_none_or(|&(_, highest)| highest != 0)
    }

    fn affine(&mut self, offset: Expr, strides: impl Iterator<Item = Expr>) -> Node {
        let first = self.numbers.len();
        self.numbers.push(offset);
        self.numbers.extend(strides);
        Node::Affine(first)
    }

    fn push(&mut self, nest: &Nest, dtypes: &[DType], id: Id) {
        let rank = nest.space.len() + nest.reduce.len();
        let zeros = || (0..rank).map(|_| Expr::from(0));
        let node = match nest.body[id] {
            Scalar::Const(c) if c.dtype() == DType::I32 => {
                self.affine(Expr::from(c.as_f64() as i64), zeros())
            }
            Scalar::Const(c) if c.dtype() == DType::Bool => {
                self.affine(Expr::from(i64::from(c.as_f64() != 0.0)), zeros())
            }
            Scalar::Size(expr) => self.affine(expr, zeros()),
            Scalar::Coord(axis) => {
                let one = |at| Expr::from(i64::from(at == axis));
                self.affine(Expr::from(0), (0..rank).map(one))
            }
            Scalar::Position(access) => {
                let view = &nest.loads[access].view;
                match view
                    .single()
                    .filter(|layer| !view.is_masked() && layer.dims.len() == rank)
                {
                    Some(layer) => self.affine(layer.offset, layer.strides.iter().copied()),
                    None => Node::Anything,
                }
            }
            Scalar::Binary(op, a, b) => match (op, dtypes[a]) {
                (BinaryOp::Add, DType::I32) => Node::Add(a, b),
                (BinaryOp::Mul, DType::I32) => Node::Mul(a, b),
                (BinaryOp::LessThan, DType::I32) => Node::Less(a, b),
                (BinaryOp::Mul, DType::Bool) => Node::And(a, b),
                (BinaryOp::Add, DType::Bool) => Node::Or(a, b),
                _ => Node::Anything,
            },
            _ => Node::Anything,
        };
        self.nodes.push(node);
    }
}

fn evaluate(
    node: &Node,
    numbers: &[i64],
    values: &[Interval],
    coordinates: &[Interval],
) -> Interval {
    let pair = |a: usize, b: usize| (values[a], values[b]);
    match *node {
        Node::Affine(first) => {
            let strides = &numbers[first + 1..first + 1 + coordinates.len()];
            affine(numbers[first], strides, coordinates)
        }
        Node::Add(a, b) => {
            let (a, b) = pair(a, b);
            in_32_bits(a.0.checked_add(b.0), a.1.checked_add(b.1))
        }
        Node::Mul(a, b) => {
            let (a, b) = pair(a, b);
            let corners = [(a.0, b.0), (a.0, b.1), (a.1, b.0), (a.1, b.1)];
            let products = corners.map(|(x, y)| x.checked_mul(y));
            match products.iter().all(Option::is_some) {
                true => in_32_bits(
                    products.into_iter().min().flatten(),
                    products.into_iter().max().flatten(),
                ),
                false => ANYTHING,
            }
        }
        Node::Less(a, b) => {
            let (a, b) = pair(a, b);
            (i64::from(a.1 < b.0), i64::from(a.0 < b.1))
        }
        Node::And(a, b) => {
            let (a, b) = pair(a, b);
            (a.0.min(b.0), a.1.min(b.1))
        }
        Node::Or(a, b) => {
            let (a, b) = pair(a, b);
            (a.0.max(b.0), a.1.max(b.1))
        }
        Node::Anything => ANYTHING,
    }
}

/// What leaves 32 bits wraps around, so nothing is known about it.
fn in_32_bits(low: Option<i64>, high: Option<i64>) -> Interval {
    let fits = |x: &i64| i32::try_from(*x).is_ok();
    match (low.filter(fits), high.filter(fits)) {
        (Some(low), Some(high)) => (low, high),
        _ => ANYTHING,
    }
}

fn affine(offset: i64, strides: &[i64], coordinates: &[Interval]) -> Interval {
    let (mut low, mut high) = (Some(offset), Some(offset));
    for (&(first, last), &stride) in coordinates.iter().zip(strides) {
        let ends = first.checked_mul(stride).zip(last.checked_mul(stride));
        low = low
            .zip(ends)
            .and_then(|(x, (a, b))| x.checked_add(a.min(b)));
        high = high
            .zip(ends)
            .and_then(|(x, (a, b))| x.checked_add(a.max(b)));
    }
    in_32_bits(low, high)
}

/// `select(visible, ..., -inf)`, if a stage of the nest is its maximum.
fn masked_score(nest: &Nest) -> Option<Id> {
    let largest = nest
        .stages
        .iter()
        .filter(|stage| stage.kind == ReduceOp::Max);
    largest.map(|stage| stage.value).find(|&value| {
        let Scalar::Select { otherwise, .. } = nest.body[value] else {
            return false;
        };
        matches!(nest.body[otherwise], Scalar::Const(c) if c.as_f64() == f64::NEG_INFINITY)
    })
}

/// What is known of a node where the score is hidden.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hidden {
    /// It comes from the score behind the mask.
    Tainted,
    NegativeInfinity,
    Zero,
    /// A number that is greater than zero.
    Positive,
    /// Any finite number.
    Finite,
    Unknown,
}

/// Whether a hidden score is read through the mask only, and its weight is zero.
fn vanishes(nest: &Nest, score_input: usize, masked: Id) -> bool {
    let mut known: Vec<Hidden> = Vec::with_capacity(nest.body.len());
    for (id, node) in nest.body.iter().enumerate() {
        let state = match id == masked {
            true => Hidden::NegativeInfinity,
            false => hidden(nest, score_input, node, &known),
        };
        known.push(state);
    }
    let taints = |id: Id| known[id] == Hidden::Tainted;
    known[nest.result] == Hidden::Zero && !nest.stages.iter().any(|stage| taints(stage.value))
}

fn hidden(nest: &Nest, score_input: usize, node: &Scalar, known: &[Hidden]) -> Hidden {
    use Hidden::{Finite, NegativeInfinity, Positive, Tainted, Unknown, Zero};
    let mut tainted = false;
    node.for_each_operand(|id| tainted |= known[id] == Tainted);
    let plain = |state: Hidden| matches!(state, Finite | Positive | Zero);
    match *node {
        Scalar::Load(load) if nest.loads[load].input == score_input => Tainted,
        _ if tainted => Tainted,
        Scalar::Const(c) => match c.as_f64() {
            0.0 => Zero,
            x if x > 0.0 && x.is_finite() => Positive,
            x if x.is_finite() => Finite,
            f64::NEG_INFINITY => NegativeInfinity,
            _ => Unknown,
        },
        // Of the keys that are seen; without any the result is NaN whatever is skipped.
        Scalar::Reduced(_) | Scalar::Load(_) => Finite,
        Scalar::Cast(_, a) => known[a],
        Scalar::Unary(UnaryOp::Exp2, a) => match known[a] {
            NegativeInfinity => Zero,
            state if plain(state) => Finite,
            _ => Unknown,
        },
        Scalar::Approx(approximation, a) => match known[a] {
            NegativeInfinity if approximation.function == Function::Exp => Zero,
            state if plain(state) => Finite,
            _ => Unknown,
        },
        Scalar::Unary(UnaryOp::Recip, a) if plain(known[a]) => Finite,
        Scalar::Binary(BinaryOp::Add, a, b) => match (known[a], known[b]) {
            (NegativeInfinity, x) | (x, NegativeInfinity) if plain(x) || x == NegativeInfinity => {
                NegativeInfinity
            }
            (Zero, Zero) => Zero,
            (a, b) if plain(a) && plain(b) => Finite,
            _ => Unknown,
        },
        Scalar::Binary(BinaryOp::Mul, a, b) => match (known[a], known[b]) {
            (NegativeInfinity, Positive) | (Positive, NegativeInfinity) => NegativeInfinity,
            (Zero, x) | (x, Zero) if plain(x) => Zero,
            (a, b) if plain(a) && plain(b) => Finite,
            _ => Unknown,
        },
        _ => Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `key < query + 1 & query < key + window` over `[query, key]`.
    fn window(size: i64) -> Reach {
        let mut reach = Reach::default();
        let number = |x: i64| Expr::from(x);
        let nodes = [
            reach.affine(number(0), [0, 1].map(number).into_iter()),
            reach.affine(number(1), [1, 0].map(number).into_iter()),
            Node::Less(0, 1),
            reach.affine(number(0), [1, 0].map(number).into_iter()),
            reach.affine(number(size), [0, 1].map(number).into_iter()),
            Node::Less(3, 4),
            Node::And(2, 5),
        ];
        reach.nodes = nodes.to_vec();
        reach
    }

    fn numbers(reach: &Reach) -> Vec<i64> {
        let numbers = reach.numbers().iter();
        numbers.map(|number| number.as_const().unwrap()).collect()
    }

    #[test]
    fn blocks_are_hidden_exactly_where_all_their_points_are() {
        let reach = window(5);
        let numbers = numbers(&reach);
        for (query, key) in (0..20).flat_map(|q| (0..20).map(move |k| (q, k))) {
            for length in 1..4 {
                let block = [(query, query + length - 1), (key, key + length - 1)];
                let points = (query..query + length).flat_map(|q| {
                    let keys = key..key + length;
                    keys.map(move |k| k < q + 1 && q < k + 5)
                });
                let some = points.into_iter().any(|seen| seen);
                let may = reach.may_count(&numbers, &block);
                assert!(may || !some, "{block:?} counts");
                assert!(length > 1 || may == some, "{block:?} is one point");
                // A block beyond the diagonal or the window as a whole is found.
                let beyond = key > query + length - 1 || query >= key + length - 1 + 5;
                assert!(!(beyond && may), "{block:?} is hidden");
            }
        }
    }

    #[test]
    fn what_may_wrap_around_is_not_followed() {
        let mut reach = window(5);
        reach.nodes[2] = Node::Mul(0, 1);
        reach.nodes[5] = Node::Less(2, 3);
        reach.nodes[6] = Node::Or(5, 5);
        let numbers = numbers(&reach);
        let far = i64::from(i32::MAX);
        assert!(!reach.may_count(&numbers, &[(0, 0), (far, far)]));
        assert!(reach.may_count(&numbers, &[(2, 2), (far, far)]));
        assert!(!reach.may_count(&numbers, &[(3, 3), (7, 7)]));
    }
}
