//! Ops of one operand that keep its shape: the five functions, `Contiguous`, `Cast` and `Detach`.
//!
//! `F16` and `BF16` are computed in `f32` and rounded once. `F64` uses the platform's functions; `F32` uses
//! [`super::math`], whose bits are the same everywhere.

use half::{bf16, f16};

use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{Op, TensorType, UnaryOp, math, samples};
use crate::array::{Array, Data};

pub(super) static LOG2: OpRow =
    OpRow::new("log2", Arity::Exact(1), infer_float, eval_float, || {
        samples::unary(UnaryOp::Log2)
    })
    .primitive();
pub(super) static EXP2: OpRow =
    OpRow::new("exp2", Arity::Exact(1), infer_float, eval_float, || {
        samples::unary(UnaryOp::Exp2)
    })
    .primitive();
pub(super) static SIN: OpRow = OpRow::new("sin", Arity::Exact(1), infer_float, eval_float, || {
    samples::unary(UnaryOp::Sin)
})
.primitive();
pub(super) static SQRT: OpRow =
    OpRow::new("sqrt", Arity::Exact(1), infer_float, eval_float, || {
        samples::unary(UnaryOp::Sqrt)
    })
    .primitive();
pub(super) static RECIP: OpRow =
    OpRow::new("recip", Arity::Exact(1), infer_float, eval_float, || {
        samples::unary(UnaryOp::Recip)
    })
    .primitive();
pub(super) static CONTIGUOUS: OpRow =
    OpRow::new("contiguous", Arity::Exact(1), infer_same, eval_same, || {
        samples::same(&Op::Contiguous)
    })
    .primitive();
pub(super) static DETACH: OpRow =
    OpRow::new("detach", Arity::Exact(1), infer_same, eval_same, || {
        samples::same(&Op::Detach)
    });
pub(super) static CAST: OpRow = OpRow::new(
    "cast",
    Arity::Exact(1),
    infer_cast,
    eval_cast,
    samples::cast,
);

fn infer_same(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    Ok(inputs[0].clone())
}

fn infer_float(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    if !inputs[0].dtype.is_float() {
        return Err(format!(
            "needs a floating-point operand, not {}; use `.cast(DType::F32)` first",
            inputs[0]
        ));
    }
    Ok(inputs[0].clone())
}

fn infer_cast(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::Cast(dtype) = op else {
        unreachable!("the row of cast")
    };
    Ok(TensorType {
        dims: inputs[0].dims.clone(),
        dtype: *dtype,
    })
}

fn eval_same(_: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    Ok(inputs[0].clone())
}

fn eval_cast(op: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Cast(dtype) = op else {
        unreachable!("the row of cast")
    };
    Ok(inputs[0].cast(*dtype))
}

impl UnaryOp {
    /// The function on `f32`: the bits that every pipeline gives.
    pub fn f32(self, x: f32) -> f32 {
        match self {
            UnaryOp::Log2 => math::log2(x),
            UnaryOp::Exp2 => math::exp2(x),
            UnaryOp::Sin => math::sin(x),
            UnaryOp::Sqrt => x.sqrt(),
            UnaryOp::Recip => 1.0 / x,
        }
    }

    /// The function on `f64`.
    pub fn f64(self, x: f64) -> f64 {
        match self {
            UnaryOp::Log2 => x.log2(),
            UnaryOp::Exp2 => x.exp2(),
            UnaryOp::Sin => x.sin(),
            UnaryOp::Sqrt => x.sqrt(),
            UnaryOp::Recip => 1.0 / x,
        }
    }
}

fn eval_float(op: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Unary(function) = op else {
        unreachable!("the rows of the five functions")
    };
    let data = match inputs[0].data() {
        Data::F32(v) => Data::F32(v.iter().map(|&x| function.f32(x)).collect()),
        Data::F64(v) => Data::F64(v.iter().map(|&x| function.f64(x)).collect()),
        Data::F16(v) => Data::F16(
            v.iter()
                .map(|x| f16::from_f32(function.f32(x.to_f32())))
                .collect(),
        ),
        Data::BF16(v) => Data::BF16(
            v.iter()
                .map(|x| bf16::from_f32(function.f32(x.to_f32())))
                .collect(),
        ),
        Data::I32(_) | Data::Bool(_) => {
            return Err(format!(
                "needs a floating-point operand, not {}",
                inputs[0].dtype()
            ));
        }
    };
    Ok(Array::new(inputs[0].dims().to_vec(), data))
}
