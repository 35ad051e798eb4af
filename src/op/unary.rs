//! Ops that keep an operand's shape: the five functions, `Contiguous`, `Cast`, `Detach` and `StraightThrough`.
//!
//! `F16` and `BF16` are computed in `f32` and rounded once. `F64` uses the platform's functions; `F32` uses
//! [`super::math`], whose bits are the same everywhere.

use half::{bf16, f16};

use smallvec::smallvec;

use super::gradient::{self, GradientBuilder, Gradients, Rule};
use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{Op, TensorType, UnaryOp, math, samples};
use crate::array::{Array, Data};

pub(super) static LOG2: OpRow =
    OpRow::new("log2", Arity::Exact(1), infer_float, eval_float, || {
        samples::unary(UnaryOp::Log2)
    })
    .primitive()
    .gradient(gradient_of_function);
pub(super) static EXP2: OpRow =
    OpRow::new("exp2", Arity::Exact(1), infer_float, eval_float, || {
        samples::unary(UnaryOp::Exp2)
    })
    .primitive()
    .gradient(gradient_of_function);
pub(super) static SIN: OpRow = OpRow::new("sin", Arity::Exact(1), infer_float, eval_float, || {
    samples::unary(UnaryOp::Sin)
})
.primitive()
.gradient(gradient_of_function);
pub(super) static SQRT: OpRow =
    OpRow::new("sqrt", Arity::Exact(1), infer_float, eval_float, || {
        samples::unary(UnaryOp::Sqrt)
    })
    .primitive()
    .gradient(gradient_of_function);
pub(super) static RECIP: OpRow =
    OpRow::new("recip", Arity::Exact(1), infer_float, eval_float, || {
        samples::unary(UnaryOp::Recip)
    })
    .primitive()
    .gradient(gradient_of_function);
pub(super) static CONTIGUOUS: OpRow =
    OpRow::new("contiguous", Arity::Exact(1), infer_same, eval_same, || {
        samples::same(&Op::Contiguous)
    })
    .primitive()
    .gradient(gradient::pass);
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
)
.gradient(gradient_of_cast);
pub(super) static STRAIGHT_THROUGH: OpRow = OpRow::new(
    "straight_through",
    Arity::Exact(2),
    infer_straight_through,
    eval_same,
    samples::straight_through,
)
.gradient(|rule, _| Ok(smallvec![None, Some(rule.upstream)]));

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

fn infer_straight_through(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    if inputs[0] != inputs[1] {
        return Err(format!(
            "operands of different types, {} and {}",
            inputs[0], inputs[1]
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
        Data::I32(_) | Data::U8(_) | Data::Bool(_) => {
            return Err(format!(
                "needs a floating-point operand, not {}",
                inputs[0].dtype()
            ));
        }
    };
    Ok(Array::new(inputs[0].dims().to_vec(), data))
}

/// Derivatives times the upstream gradient: of log2, exp2 and sqrt and recip in terms of what is there already.
fn gradient_of_function(
    rule: &Rule<'_>,
    build: &mut dyn GradientBuilder,
) -> Result<Gradients, String> {
    let Op::Unary(function) = rule.op else {
        unreachable!("the rows of the five functions")
    };
    let (x, y, upstream) = (rule.operands[0], rule.result, rule.upstream);
    let derivative = match function {
        UnaryOp::Log2 => {
            let recip = build.recip(x)?;
            build.scale(recip, std::f64::consts::LOG2_E)?
        }
        UnaryOp::Exp2 => build.scale(y, std::f64::consts::LN_2)?,
        UnaryOp::Sin => cosine(x, build)?,
        UnaryOp::Sqrt => {
            let recip = build.recip(y)?;
            build.scale(recip, 0.5)?
        }
        UnaryOp::Recip => {
            let square = build.mul(y, y)?;
            build.scale(square, -1.0)?
        }
    };
    Ok(smallvec![Some(build.mul(upstream, derivative)?)])
}

/// `cos(x) = 1 - 2 sin(x / 2)^2`, which rounds no large argument.
fn cosine(x: gradient::Var, build: &mut dyn GradientBuilder) -> Result<gradient::Var, String> {
    let half = build.scale(x, 0.5)?;
    let sine = build.apply(Op::Unary(UnaryOp::Sin), &[half])?;
    let square = build.mul(sine, sine)?;
    let twice = build.scale(square, -2.0)?;
    let one = build.fill(x, 1.0)?;
    build.add(one, twice)
}

/// The upstream gradient in the operand's format; what has no fraction carries none.
fn gradient_of_cast(rule: &Rule<'_>, build: &mut dyn GradientBuilder) -> Result<Gradients, String> {
    let from = build.ty(rule.operands[0]).dtype;
    Ok(smallvec![rule.when(0, || build.cast(rule.upstream, from))?])
}
