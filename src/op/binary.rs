//! Elementwise ops of two and three operands of one shape: `Add Mul Mod LessThan` and `Select`.
//!
//! Broadcasting is a view's business: the operands' shapes are equal here.

use half::{bf16, f16};

use smallvec::smallvec;

use super::gradient::{GradientBuilder, Gradients, Rule};
use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{BinaryOp, Op, TensorType, samples};
use crate::array::{Array, Data};
use crate::dtype::DType;

pub(super) static ADD: OpRow = OpRow::new("add", Arity::Exact(2), infer, eval, || {
    samples::binary(BinaryOp::Add)
})
.primitive()
.commutative()
.identity(-0.0)
.gradient(|rule, _| Ok(smallvec![Some(rule.upstream), Some(rule.upstream)]));
pub(super) static MUL: OpRow = OpRow::new("mul", Arity::Exact(2), infer, eval, || {
    samples::binary(BinaryOp::Mul)
})
.primitive()
.commutative()
.identity(1.0)
.gradient(gradient_of_mul);
pub(super) static MOD: OpRow = OpRow::new("mod", Arity::Exact(2), infer, eval, || {
    samples::binary(BinaryOp::Mod)
})
.primitive()
.gradient(gradient_of_mod);
pub(super) static LESS_THAN: OpRow = OpRow::new("less_than", Arity::Exact(2), infer, eval, || {
    samples::binary(BinaryOp::LessThan)
})
.primitive();
pub(super) static SELECT: OpRow = OpRow::new(
    "select",
    Arity::Exact(3),
    infer_select,
    eval_select,
    samples::select,
)
.gradient(gradient_of_select);

/// What ops on numbers say of bytes.
pub(super) const NO_ARITHMETIC: &str = "bytes have no arithmetic; use `.cast(DType::I32)`";

fn same_dims(a: &TensorType, b: &TensorType) -> Result<(), String> {
    if a.dims == b.dims {
        Ok(())
    } else {
        Err(format!("operands of different shapes, {a} and {b}"))
    }
}

fn infer(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let (a, b) = (&inputs[0], &inputs[1]);
    same_dims(a, b)?;
    if a.dtype != b.dtype {
        return Err(format!(
            "operands of different formats, {a} and {b}; use `.cast(..)` on one of them"
        ));
    }
    if a.dtype == DType::U8 {
        return Err(NO_ARITHMETIC.into());
    }
    let Op::Binary(function) = op else {
        unreachable!("the rows of the four functions")
    };
    match function {
        BinaryOp::LessThan => Ok(TensorType {
            dims: a.dims.clone(),
            dtype: DType::Bool,
        }),
        BinaryOp::Mod if a.dtype == DType::Bool => Err("booleans have no remainder".into()),
        _ => Ok(a.clone()),
    }
}

fn infer_select(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let (condition, a, b) = (&inputs[0], &inputs[1], &inputs[2]);
    same_dims(condition, a)?;
    same_dims(a, b)?;
    if condition.dtype != DType::Bool {
        return Err(format!("the condition must be bool, not {condition}"));
    }
    if a.dtype != b.dtype {
        return Err(format!(
            "operands of different formats, {a} and {b}; use `.cast(..)` on one of them"
        ));
    }
    Ok(a.clone())
}

impl BinaryOp {
    /// The function on `f32`, except `LessThan`.
    pub fn f32(self, a: f32, b: f32) -> f32 {
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Mul => a * b,
            BinaryOp::Mod => a % b,
            BinaryOp::LessThan => f32::from(u8::from(a < b)),
        }
    }

    fn f64(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryOp::Add => a + b,
            BinaryOp::Mul => a * b,
            BinaryOp::Mod => a % b,
            BinaryOp::LessThan => f64::from(u8::from(a < b)),
        }
    }

    fn i32(self, a: i32, b: i32) -> i32 {
        match self {
            BinaryOp::Add => a.wrapping_add(b),
            BinaryOp::Mul => a.wrapping_mul(b),
            BinaryOp::Mod => a.checked_rem(b).unwrap_or(0),
            BinaryOp::LessThan => i32::from(a < b),
        }
    }

    fn bool(self, a: u8, b: u8) -> u8 {
        match self {
            BinaryOp::Add => a | b,
            BinaryOp::Mul | BinaryOp::Mod => a & b,
            BinaryOp::LessThan => u8::from(a < b),
        }
    }
}

fn zip<T: Copy, U>(a: &[T], b: &[T], f: impl Fn(T, T) -> U) -> Vec<U> {
    a.iter().zip(b).map(|(&x, &y)| f(x, y)).collect()
}

fn less_than(a: &Data, b: &Data) -> Option<Vec<u8>> {
    Some(match (a, b) {
        (Data::F32(a), Data::F32(b)) => zip(a, b, |x, y| u8::from(x < y)),
        (Data::F64(a), Data::F64(b)) => zip(a, b, |x, y| u8::from(x < y)),
        (Data::F16(a), Data::F16(b)) => zip(a, b, |x, y| u8::from(x < y)),
        (Data::BF16(a), Data::BF16(b)) => zip(a, b, |x, y| u8::from(x < y)),
        (Data::I32(a), Data::I32(b)) => zip(a, b, |x, y| u8::from(x < y)),
        (Data::Bool(a), Data::Bool(b)) => zip(a, b, |x, y| u8::from(x < y)),
        _ => return None,
    })
}

fn eval(op: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Binary(function) = *op else {
        unreachable!("the rows of the four functions")
    };
    let (a, b) = (inputs[0].data(), inputs[1].data());
    let data = if function == BinaryOp::LessThan {
        less_than(a, b).map(Data::Bool)
    } else {
        match (a, b) {
            (Data::F32(a), Data::F32(b)) => Some(Data::F32(zip(a, b, |x, y| function.f32(x, y)))),
            (Data::F64(a), Data::F64(b)) => Some(Data::F64(zip(a, b, |x, y| function.f64(x, y)))),
            (Data::F16(a), Data::F16(b)) => Some(Data::F16(zip(a, b, |x, y| {
                f16::from_f32(function.f32(x.to_f32(), y.to_f32()))
            }))),
            (Data::BF16(a), Data::BF16(b)) => Some(Data::BF16(zip(a, b, |x, y| {
                bf16::from_f32(function.f32(x.to_f32(), y.to_f32()))
            }))),
            (Data::I32(a), Data::I32(b)) => Some(Data::I32(zip(a, b, |x, y| function.i32(x, y)))),
            (Data::Bool(a), Data::Bool(b)) => {
                Some(Data::Bool(zip(a, b, |x, y| function.bool(x, y))))
            }
            _ => None,
        }
    };
    let data = data.ok_or_else(|| {
        format!(
            "operands of {} and {}",
            inputs[0].dtype(),
            inputs[1].dtype()
        )
    })?;
    Ok(Array::new(inputs[0].dims().to_vec(), data))
}

fn pick<T: Copy>(condition: &[u8], a: &[T], b: &[T]) -> Vec<T> {
    condition
        .iter()
        .zip(a.iter().zip(b))
        .map(|(&c, (&x, &y))| if c != 0 { x } else { y })
        .collect()
}

fn eval_select(_: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    let Data::Bool(condition) = inputs[0].data() else {
        return Err(format!(
            "the condition must be bool, not {}",
            inputs[0].dtype()
        ));
    };
    let data = match (inputs[1].data(), inputs[2].data()) {
        (Data::F32(a), Data::F32(b)) => Data::F32(pick(condition, a, b)),
        (Data::F64(a), Data::F64(b)) => Data::F64(pick(condition, a, b)),
        (Data::F16(a), Data::F16(b)) => Data::F16(pick(condition, a, b)),
        (Data::BF16(a), Data::BF16(b)) => Data::BF16(pick(condition, a, b)),
        (Data::I32(a), Data::I32(b)) => Data::I32(pick(condition, a, b)),
        (Data::U8(a), Data::U8(b)) => Data::U8(pick(condition, a, b)),
        (Data::Bool(a), Data::Bool(b)) => Data::Bool(pick(condition, a, b)),
        _ => {
            return Err(format!(
                "operands of {} and {}",
                inputs[1].dtype(),
                inputs[2].dtype()
            ));
        }
    };
    Ok(Array::new(inputs[0].dims().to_vec(), data))
}

fn gradient_of_mul(rule: &Rule<'_>, build: &mut dyn GradientBuilder) -> Result<Gradients, String> {
    let (a, b) = (rule.operands[0], rule.operands[1]);
    Ok(smallvec![
        rule.when(0, || build.mul(rule.upstream, b))?,
        rule.when(1, || build.mul(rule.upstream, a))?,
    ])
}

/// `a - n * b` with the whole number `n = trunc(a / b)`, a constant almost everywhere.
fn gradient_of_mod(rule: &Rule<'_>, build: &mut dyn GradientBuilder) -> Result<Gradients, String> {
    let (a, b) = (rule.operands[0], rule.operands[1]);
    let by_b = rule.when(1, || {
        let negative = build.sub(rule.result, a)?;
        let recip = build.recip(b)?;
        let n = build.mul(negative, recip)?;
        build.mul(rule.upstream, n)
    })?;
    Ok(smallvec![Some(rule.upstream), by_b])
}

fn gradient_of_select(
    rule: &Rule<'_>,
    build: &mut dyn GradientBuilder,
) -> Result<Gradients, String> {
    let (condition, upstream) = (rule.operands[0], rule.upstream);
    let zero = build.fill(upstream, 0.0)?;
    Ok(smallvec![
        None,
        rule.when(1, || build.select(condition, upstream, zero))?,
        rule.when(2, || build.select(condition, zero, upstream))?,
    ])
}
