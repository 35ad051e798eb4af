//! The loop IR: what one generated kernel computes, before any decision about
//! vectors, blocks or threads.
//!
//! A [`Nest`] evaluates a scalar expression DAG for every point of an iteration
//! space, optionally reduces it, and stores the result contiguously. [`super::nest`]
//! builds nests from kernels; [`super::lower`] turns them into machine code.
//!
//! The points of a nest with reductions are rows: `space` numbers the rows, `reduce` the
//! points of one. Its *stages* are reductions over the row, each of which may use the
//! results of those before it; last comes the result, a value per row or a map over the
//! row. A softmax is two stages, the largest and the sum, and a map:
//! ```text
//! stage 0: max of x        stage 1: sum of exp(x - reduced 0)
//! result per point: exp(x - reduced 0) * recip(reduced 1)
//! ```
//!
//! Invariants:
//! - `body` is in SSA form: a node refers to earlier nodes only, by index.
//! - The operands of `Binary` and the branches of `Select` have equal types.
//! - Dims and strides may be symbolic; the same nest serves every binding.
//! - An access is read either directly (`Load`, `Valid`, `Position`) or by `Gather`, not both.
//!
//! Types of values follow from the nodes ([`Nest::dtypes`]); there is no implicit
//! conversion. The meaning of each operation is that of the reference executor:
//! - `F32` and `F64` arithmetic is IEEE and never contracted, except that a `Sum` of a
//!   product used nowhere else in the nest is accumulated with fused multiply-adds.
//! - `F16` and `BF16` operations compute in `F32` and round to nearest even. A sum of
//!   them accumulates in `F32` and rounds once.
//! - `I32` wraps; `x % 0` is 0. On `Bool`, `Add` is or, `Mul` is and.
//! - `Exp2(x * LOG2_E)` on `F32` is computed as an accurate `e^x`.
//! - `Approx` is what [`super::approx`] puts in the place of functions, if asked to.
//!
//! Effects, calls and data-dependent control flow are deliberately absent.

use super::approx::Approximation;
use crate::dtype::DType;
pub use crate::op::{BinaryOp, Literal, ReduceOp, UnaryOp};
use crate::shape::{Dims, Expr, View};

/// Index of a node in [`Nest::body`].
pub type Id = usize;

/// One reduction of a nest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reduction {
    /// The operation.
    pub kind: ReduceOp,
    /// What is reduced.
    pub value: Id,
}

/// One buffer as the nest reads it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Which input.
    pub input: usize,
    /// The type of the buffer's elements.
    pub dtype: DType,
    /// Its dims are `space ++ reduce`, or `space` for what is read after the
    /// reductions; a gathered access differs on the gathered axis.
    pub view: View,
}

/// One node of the expression DAG.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// The element of an access at this point; zero if it is padding.
    Load(usize),
    /// The element of an access whose coordinate on `axis` is `index` instead of the
    /// iteration's. Outside of the axis, element 0 is read (zero if the axis is empty)
    /// and the index is reported in the error slot.
    Gather {
        /// Which access.
        access: usize,
        /// The axis of its view.
        axis: usize,
        /// An `I32` value.
        index: Id,
    },
    /// A constant.
    Const(Literal),
    /// The `I32` coordinate on an axis of `space ++ reduce`.
    Coord(usize),
    /// The `I32` value of an expression.
    Size(Expr),
    /// A uniform `F32` in `[0, 1)`, see [`crate::op::random`].
    Random {
        /// Which stream.
        seed: u64,
        /// Which execution.
        step: Expr,
        /// `I32` number of the element.
        index: Id,
    },
    /// An operation of one operand.
    Unary(UnaryOp, Id),
    /// An operation of two operands.
    Binary(BinaryOp, Id, Id),
    /// `then` where `cond` (a `Bool`) holds, else `otherwise`.
    Select {
        /// A `Bool`.
        cond: Id,
        /// The value where it holds.
        then: Id,
        /// The value where it does not.
        otherwise: Id,
    },
    /// Conversion, with the meaning of Rust's `as`; to `Bool`, `x != 0`.
    Cast(DType, Id),
    /// `Bool`: whether this point is not padding in an access.
    Valid(usize),
    /// The `I32` element number that an access reads at this point, zero for padding:
    /// an iota seen through its view. The input is not read.
    Position(usize),
    /// The result of a stage, for what is computed after it.
    Reduced(usize),
    /// An approximation of a function of an `F32` value, see [`super::approx`].
    Approx(Approximation, Id),
}

/// A loop nest: for every point of `space` (and, inside, of `reduce`) evaluate `body`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Nest {
    /// Dims of the rows, or of a map. The result is stored contiguous, row-major.
    pub space: Dims,
    /// Reduced dims; empty for a map.
    pub reduce: Dims,
    /// What is read.
    pub loads: Vec<Access>,
    /// The expression DAG.
    pub body: Vec<Scalar>,
    /// How `reduce` is combined; none for a map.
    pub stages: Vec<Reduction>,
    /// Whether the output's dims are `space ++ reduce` instead of `space`.
    pub per_point: bool,
    /// The node that is stored.
    pub result: Id,
    /// Its type.
    pub dtype: DType,
    /// Inputs in the pointer table; the output follows them.
    pub n_inputs: usize,
}

impl Scalar {
    /// Calls `f` with each operand.
    pub fn for_each_operand(&self, mut f: impl FnMut(Id)) {
        self.clone().for_each_operand_mut(|id| f(*id));
    }

    /// Calls `f` with each operand, which it may change.
    pub fn for_each_operand_mut(&mut self, mut f: impl FnMut(&mut Id)) {
        match self {
            Scalar::Gather { index, .. } | Scalar::Random { index, .. } => f(index),
            Scalar::Unary(_, a) | Scalar::Cast(_, a) | Scalar::Approx(_, a) => f(a),
            Scalar::Binary(_, a, b) => {
                f(a);
                f(b);
            }
            Scalar::Select {
                cond,
                then,
                otherwise,
            } => {
                f(cond);
                f(then);
                f(otherwise);
            }
            Scalar::Load(_)
            | Scalar::Const(_)
            | Scalar::Coord(_)
            | Scalar::Size(_)
            | Scalar::Valid(_)
            | Scalar::Position(_)
            | Scalar::Reduced(_) => {}
        }
    }
}

impl Nest {
    /// The output's dims.
    pub fn output(&self) -> Dims {
        let reduce = self.reduce.iter().filter(|_| self.per_point);
        self.space.iter().chain(reduce).copied().collect()
    }

    /// Which nodes `roots` need, nothing that only `known` needs among them.
    pub fn needed(&self, roots: impl IntoIterator<Item = Id>, known: Option<Id>) -> Vec<bool> {
        let mut needed = vec![false; self.body.len()];
        roots.into_iter().for_each(|id| needed[id] = true);
        for id in (0..needed.len()).rev() {
            if needed[id] && known != Some(id) {
                self.body[id].for_each_operand(|operand| needed[operand] = true);
            }
        }
        needed
    }

    /// The type of every node.
    ///
    /// # Panics
    /// If a node or a stage refers to itself or a later one, or to an access that is not there.
    pub fn dtypes(&self) -> Vec<DType> {
        let mut types: Vec<DType> = Vec::with_capacity(self.body.len());
        for node in &self.body {
            let dtype = match node {
                Scalar::Load(access) | Scalar::Gather { access, .. } => self.loads[*access].dtype,
                Scalar::Const(literal) => literal.dtype(),
                Scalar::Coord(_) | Scalar::Size(_) | Scalar::Position(_) => DType::I32,
                Scalar::Random { .. } => DType::F32,
                Scalar::Unary(_, a) | Scalar::Approx(_, a) => types[*a],
                Scalar::Binary(BinaryOp::LessThan, ..) | Scalar::Valid(_) => DType::Bool,
                Scalar::Binary(_, a, _) => types[*a],
                Scalar::Select { then, .. } => types[*then],
                Scalar::Cast(dtype, _) => *dtype,
                Scalar::Reduced(stage) => {
                    let stage = self.stages.get(*stage);
                    stage.map_or(self.dtype, |stage| types[stage.value])
                }
            };
            types.push(dtype);
        }
        types
    }
}
