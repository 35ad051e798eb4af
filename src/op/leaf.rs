//! Ops without operands (`Input Constant Iota Random`) and the two that carry their own meaning (`Custom Kernel`).

use super::gradient::{GradientBuilder, Gradients, Rule};
use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{ConstantValue, Kernel, KernelInput, Op, TensorType, random, samples};
use crate::array::{Array, Data};
use crate::dtype::DType;
use crate::shape::{Dims, Expr, Symbols};

pub(super) static INPUT: OpRow = OpRow::new("input", Arity::Exact(0), infer, eval_input, Vec::new);
pub(super) static CONSTANT: OpRow = OpRow::new(
    "constant",
    Arity::Exact(0),
    infer,
    eval_constant,
    samples::constant,
);
pub(super) static IOTA: OpRow =
    OpRow::new("iota", Arity::Exact(0), infer, eval_iota, samples::iota);
pub(super) static RANDOM: OpRow = OpRow::new(
    "random",
    Arity::Exact(0),
    infer,
    eval_random,
    samples::random,
);
pub(super) static CUSTOM: OpRow =
    OpRow::new("custom", Arity::Any, infer_custom, eval_custom, Vec::new)
        .gradient(gradient_of_custom);
pub(super) static KERNEL: OpRow = OpRow::new(
    "kernel",
    Arity::Any,
    infer_kernel,
    eval_kernel,
    samples::kernel,
)
.gradient(|_, _| Err("is compiled already: `Autograd` comes before the back end".into()));

fn infer(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    Ok(match op {
        Op::Input { ty, .. } => ty.clone(),
        Op::Constant(ConstantValue::Literal(literal)) => {
            TensorType::new(Dims::new(), literal.dtype())
        }
        Op::Constant(ConstantValue::Size(_)) => TensorType::new(Dims::new(), DType::I32),
        Op::Iota { len } => TensorType::new([*len].into_iter().collect::<Dims>(), DType::I32),
        Op::Random { dims, .. } => TensorType::new(dims.clone(), DType::F32),
        _ => unreachable!("the rows of the leaves"),
    })
}

fn value(expr: Expr, symbols: &Symbols) -> Result<i64, String> {
    expr.eval(symbols).map_err(|e| e.to_string())
}

fn value_i32(expr: Expr, symbols: &Symbols) -> Result<i32, String> {
    let number = value(expr, symbols)?;
    i32::try_from(number).map_err(|_| format!("{expr} is {number}, which i32 cannot hold"))
}

fn eval_input(_: &Op, _: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    Err("has no data; call `.set(..)` before `execute`".into())
}

fn eval_constant(op: &Op, _: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    match op {
        Op::Constant(ConstantValue::Literal(literal)) => Ok(literal.to_array()),
        Op::Constant(ConstantValue::Size(expr)) => Ok(Array::new(
            Vec::new(),
            Data::I32(vec![value_i32(*expr, context.symbols)?]),
        )),
        _ => unreachable!("the row of constants"),
    }
}

fn eval_iota(op: &Op, _: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Iota { len } = op else {
        unreachable!("the row of iota")
    };
    let n = value_i32(*len, context.symbols)?.max(0);
    Ok(Array::new(vec![n as usize], Data::I32((0..n).collect())))
}

fn eval_random(op: &Op, _: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Random { seed, step, .. } = op else {
        unreachable!("the row of random")
    };
    let step = value(*step, context.symbols)? as u64;
    let n = context.dims.iter().product();
    Ok(Array::new(
        context.dims.clone(),
        Data::F32(random::uniform(*seed, step, n)),
    ))
}

fn infer_custom(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    let Op::Custom(custom) = op else {
        unreachable!("the row of custom ops")
    };
    custom
        .0
        .infer(inputs)
        .map_err(|e| format!("{}: {e}", custom.0.name()))
}

fn gradient_of_custom(
    rule: &Rule<'_>,
    build: &mut dyn GradientBuilder,
) -> Result<Gradients, String> {
    let Op::Custom(custom) = rule.op else {
        unreachable!("the row of custom ops")
    };
    let gradients = custom.0.gradient(rule, build);
    gradients.map_err(|e| format!("{}: {e}", custom.0.name()))
}

fn eval_custom(op: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Custom(custom) = op else {
        unreachable!("the row of custom ops")
    };
    let out = custom
        .0
        .eval(inputs)
        .map_err(|e| format!("{}: {e}", custom.0.name()))?;
    if out.dims() != context.dims {
        return Err(format!(
            "{} gave {:?} instead of {:?}",
            custom.0.name(),
            out.dims(),
            context.dims
        ));
    }
    Ok(out)
}

fn infer_kernel(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    let Op::Kernel(kernel) = op else {
        unreachable!("the row of kernels")
    };
    if inputs != kernel.operands {
        let list = |types: &[TensorType]| {
            types
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        return Err(format!(
            "{} takes ({}), not ({})",
            kernel.name,
            list(&kernel.operands),
            list(inputs)
        ));
    }
    Ok(kernel.ty().clone())
}

/// What one step of a kernel reads: its operands through their views.
fn step_operands(
    kernel: &Kernel,
    step: usize,
    inputs: &[Array],
    results: &[Array],
    symbols: &Symbols,
) -> Result<Vec<Array>, String> {
    let look = |(source, view): &(KernelInput, crate::shape::View)| {
        let array = match source {
            KernelInput::Operand(i) => &inputs[*i],
            KernelInput::Step(i) => &results[*i],
        };
        let view = view.resolve(symbols).map_err(|e| e.to_string())?;
        Ok(array.look(&view))
    };
    kernel.steps[step].inputs.iter().map(look).collect()
}

fn eval_kernel(op: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Kernel(kernel) = op else {
        unreachable!("the row of kernels")
    };
    let mut results: Vec<Array> = Vec::with_capacity(kernel.steps.len());
    for (i, step) in kernel.steps.iter().enumerate() {
        let operands = step_operands(kernel, i, inputs, &results, context.symbols)?;
        let dims: Result<Vec<usize>, String> = step
            .ty
            .dims
            .iter()
            .map(|d| value(*d, context.symbols).map(|n| n.max(0) as usize))
            .collect();
        let inner = EvalContext {
            symbols: context.symbols,
            dims: dims?,
        };
        results.push((step.op.row().eval)(&step.op, &operands, &inner)?);
    }
    results.pop().ok_or_else(|| "a kernel without steps".into())
}
