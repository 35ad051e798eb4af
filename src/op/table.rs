//! The op table: one row per op, from which everything else about ops is read.
//!
//! A row holds the name, the number of operands, algebraic properties that passes use, the rule for the result's
//! shape and format, the reference `eval` (the definition of the op), how far native code may differ from it, and
//! samples that every pipeline is tested on. The rows stand in the family files beside this one.

use super::gradient::Gradient;
use super::{BinaryOp, ReduceOp, UnaryOp};
use super::{
    Op, Sample, TensorType, binary, indexing, known, leaf, low_bit, planes, reduce, signs, unary,
};
use crate::array::Array;
use crate::shape::Symbols;

/// What an evaluation knows beside its operands.
pub struct EvalContext<'a> {
    /// Sizes at this execution.
    pub symbols: &'a Symbols,
    /// Dimensions of the result.
    pub dims: Vec<usize>,
}

/// Number of operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arity {
    /// Exactly this many.
    Exact(usize),
    /// As many as the op itself says.
    Any,
}

/// Rule for the result's type.
pub type Infer = fn(&Op, &[TensorType]) -> Result<TensorType, String>;
/// Reference semantics: contiguous operands to a contiguous result.
pub type Eval = fn(&Op, &[Array], &EvalContext<'_>) -> Result<Array, String>;

/// One row of the table.
pub struct OpRow {
    /// Name, as in the text form.
    pub name: &'static str,
    /// Number of operands.
    pub arity: Arity,
    /// One of the twelve primitives.
    pub primitive: bool,
    /// `f(a, b) == f(b, a)` bit for bit.
    pub commutative: bool,
    /// A value that changes nothing: `f(x, identity) == x` bit for bit, for every x of every format.
    pub identity: Option<f64>,
    /// How many units in the last place native code may differ from `eval`, on samples; 0 means the same bits.
    pub ulps: u32,
    /// Rule for the result's type.
    pub infer: Infer,
    /// Reference semantics.
    pub eval: Eval,
    /// Gradients by the operands; `None`: the result carries no gradient.
    pub gradient: Option<Gradient>,
    /// Inputs that every pipeline is tested on.
    pub samples: fn() -> Vec<Sample>,
}

impl OpRow {
    /// A row with nothing special about it.
    pub(super) const fn new(
        name: &'static str,
        arity: Arity,
        infer: Infer,
        eval: Eval,
        samples: fn() -> Vec<Sample>,
    ) -> Self {
        OpRow {
            name,
            arity,
            primitive: false,
            commutative: false,
            identity: None,
            ulps: 0,
            gradient: None,
            infer,
            eval,
            samples,
        }
    }

    pub(super) const fn primitive(mut self) -> Self {
        self.primitive = true;
        self
    }

    pub(super) const fn commutative(mut self) -> Self {
        self.commutative = true;
        self
    }

    pub(super) const fn identity(mut self, value: f64) -> Self {
        self.identity = Some(value);
        self
    }

    pub(super) const fn gradient(mut self, rule: Gradient) -> Self {
        self.gradient = Some(rule);
        self
    }

    pub(super) const fn ulps(mut self, ulps: u32) -> Self {
        self.ulps = ulps;
        self
    }
}

/// All rows, in the order of the enum.
pub static ROWS: [&OpRow; 33] = [
    &leaf::INPUT,
    &leaf::CONSTANT,
    &leaf::IOTA,
    &leaf::RANDOM,
    &unary::LOG2,
    &unary::EXP2,
    &unary::SIN,
    &unary::SQRT,
    &unary::RECIP,
    &binary::ADD,
    &binary::MUL,
    &binary::MOD,
    &binary::LESS_THAN,
    &binary::SELECT,
    &reduce::SUM_REDUCE,
    &reduce::MAX_REDUCE,
    &unary::CONTIGUOUS,
    &indexing::GATHER,
    &indexing::SCATTER,
    &unary::CAST,
    &unary::DETACH,
    &unary::STRAIGHT_THROUGH,
    &known::KNOWN_GRADIENT,
    &low_bit::QUANTIZE,
    &low_bit::DEQUANTIZE,
    &low_bit::FAKE_QUANTIZE,
    &signs::PACK_SIGNS,
    &signs::UNPACK_SIGNS,
    &signs::SIGN_MATRIX,
    &planes::PACK_PLANES,
    &planes::UNPACK_PLANES,
    &leaf::CUSTOM,
    &leaf::KERNEL,
];

/// The row of an op.
pub fn row_of(op: &Op) -> &'static OpRow {
    match op {
        Op::Input { .. } => &leaf::INPUT,
        Op::Constant(_) => &leaf::CONSTANT,
        Op::Iota { .. } => &leaf::IOTA,
        Op::Random { .. } => &leaf::RANDOM,
        Op::Unary(UnaryOp::Log2) => &unary::LOG2,
        Op::Unary(UnaryOp::Exp2) => &unary::EXP2,
        Op::Unary(UnaryOp::Sin) => &unary::SIN,
        Op::Unary(UnaryOp::Sqrt) => &unary::SQRT,
        Op::Unary(UnaryOp::Recip) => &unary::RECIP,
        Op::Binary(BinaryOp::Add) => &binary::ADD,
        Op::Binary(BinaryOp::Mul) => &binary::MUL,
        Op::Binary(BinaryOp::Mod) => &binary::MOD,
        Op::Binary(BinaryOp::LessThan) => &binary::LESS_THAN,
        Op::Select => &binary::SELECT,
        Op::Reduce(ReduceOp::Sum, _) => &reduce::SUM_REDUCE,
        Op::Reduce(ReduceOp::Max, _) => &reduce::MAX_REDUCE,
        Op::Contiguous => &unary::CONTIGUOUS,
        Op::Gather { .. } => &indexing::GATHER,
        Op::Scatter { .. } => &indexing::SCATTER,
        Op::Cast(_) => &unary::CAST,
        Op::Detach => &unary::DETACH,
        Op::StraightThrough => &unary::STRAIGHT_THROUGH,
        Op::KnownGradient(_) => &known::KNOWN_GRADIENT,
        Op::Quantize(_) => &low_bit::QUANTIZE,
        Op::Dequantize(_) => &low_bit::DEQUANTIZE,
        Op::FakeQuantize(_) => &low_bit::FAKE_QUANTIZE,
        Op::PackSigns => &signs::PACK_SIGNS,
        Op::UnpackSigns(_) => &signs::UNPACK_SIGNS,
        Op::SignMatrix(..) => &signs::SIGN_MATRIX,
        Op::PackPlanes(_) => &planes::PACK_PLANES,
        Op::UnpackPlanes(..) => &planes::UNPACK_PLANES,
        Op::Custom(_) => &leaf::CUSTOM,
        Op::Kernel(_) => &leaf::KERNEL,
    }
}

/// Refuses a wrong number of operands, with a sentence.
pub(super) fn check_arity(op: &Op, inputs: &[TensorType]) -> Result<(), String> {
    match op.row().arity {
        Arity::Exact(n) if n != inputs.len() => {
            Err(format!("takes {n} operands, not {}", inputs.len()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_twelve_rows_are_primitive() {
        let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ROWS.len());
        assert_eq!(ROWS.iter().filter(|row| row.primitive).count(), 12);
    }

    #[test]
    fn every_sample_has_the_type_that_infer_says() {
        for row in ROWS {
            for sample in (row.samples)() {
                assert_eq!(sample.op.name(), row.name);
                let out = sample
                    .eval()
                    .unwrap_or_else(|e| panic!("{}: {e}", row.name));
                let ty = sample
                    .infer()
                    .unwrap_or_else(|e| panic!("{}: {e}", row.name));
                assert_eq!(ty.dtype, out.dtype(), "{}", row.name);
                let dims: Vec<_> = ty
                    .dims
                    .iter()
                    .map(|d| d.as_usize().expect("samples are static"))
                    .collect();
                assert_eq!(dims, out.dims(), "{}", row.name);
            }
        }
    }

    #[test]
    fn commutative_rows_commute_bit_for_bit() {
        for row in ROWS.iter().filter(|row| row.commutative) {
            for sample in (row.samples)() {
                let mut swapped = sample.clone();
                swapped.inputs.reverse();
                let (a, b) = (sample.eval().unwrap(), swapped.eval().unwrap());
                assert!(a.same_bits(&b), "{}", row.name);
            }
        }
    }

    #[test]
    fn identities_change_no_bit() {
        for row in ROWS {
            let Some(identity) = row.identity else {
                continue;
            };
            for mut sample in (row.samples)() {
                let x = sample.inputs[0].clone();
                let one = crate::op::Literal::new(x.dtype(), identity).to_array();
                let filled = vec![one.to_f64()[0]; x.len()];
                sample.inputs[1] =
                    Array::new(x.dims().to_vec(), crate::array::Data::F64(filled)).cast(x.dtype());
                let out = sample.eval().unwrap();
                assert!(x.same_bits(&out), "{} {:?}", row.name, x.dtype());
            }
        }
    }
}
