//! `SumReduce` and `MaxReduce`: folding axes away.
//!
//! The reference adds in row-major order of the operand; `F16` and `BF16` are summed in `f32` and rounded once at the
//! end. Native code sums in another (fixed) order, so its sums differ by rounding; maxima are exact everywhere.
//! The maximum of anything with a NaN is NaN; of nothing it is -inf (`I32`: the smallest integer, `Bool`: false).

use half::{bf16, f16};

use smallvec::smallvec;

use super::binary::NO_ARITHMETIC;
use super::gradient::{GradientBuilder, Gradients, Rule};
use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{Op, ReduceOp, TensorType, samples};
use crate::array::{Array, Data};
use crate::dtype::DType;

pub(super) static SUM_REDUCE: OpRow =
    OpRow::new("sum_reduce", Arity::Exact(1), infer, eval, || {
        samples::reduce(ReduceOp::Sum)
    })
    .primitive()
    .ulps(16)
    .gradient(gradient_of_sum);
pub(super) static MAX_REDUCE: OpRow =
    OpRow::new("max_reduce", Arity::Exact(1), infer, eval, || {
        samples::reduce(ReduceOp::Max)
    })
    .primitive()
    .gradient(gradient_of_max);

fn infer(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::Reduce(_, axes) = op else {
        unreachable!("the rows of the two reductions")
    };
    if inputs[0].dtype == DType::U8 {
        return Err(NO_ARITHMETIC.into());
    }
    let rank = inputs[0].dims.len();
    if axes.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(format!("axes {axes:?} are not sorted and distinct"));
    }
    if let Some(axis) = axes.iter().find(|&&axis| axis >= rank) {
        return Err(format!(
            "axis {axis} of {}, which has {rank} dimensions",
            inputs[0]
        ));
    }
    let kept = inputs[0]
        .dims
        .iter()
        .enumerate()
        .filter(|(i, _)| !axes.contains(i))
        .map(|(_, d)| *d);
    Ok(TensorType {
        dims: kept.collect(),
        dtype: inputs[0].dtype,
    })
}

/// For each axis of the operand, how far the result's position moves with it (0 on reduced axes).
fn result_strides(dims: &[usize], axes: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; dims.len()];
    let mut stride = 1;
    for axis in (0..dims.len()).rev() {
        if !axes.contains(&axis) {
            strides[axis] = stride;
            stride *= dims[axis];
        }
    }
    strides
}

/// Folds the operand's elements, in row-major order, into the result's places.
fn fold<T: Copy, A: Copy>(
    v: &[T],
    dims: &[usize],
    axes: &[usize],
    start: A,
    f: impl Fn(A, T) -> A,
) -> Vec<A> {
    let kept: usize = dims
        .iter()
        .enumerate()
        .filter(|(i, _)| !axes.contains(i))
        .map(|(_, d)| d)
        .product();
    let strides = result_strides(dims, axes);
    let mut out = vec![start; kept];
    let mut at = vec![0usize; dims.len()];
    let mut place = 0;
    for &x in v {
        out[place] = f(out[place], x);
        for axis in (0..dims.len()).rev() {
            at[axis] += 1;
            place += strides[axis];
            if at[axis] < dims[axis] {
                break;
            }
            place -= strides[axis] * dims[axis];
            at[axis] = 0;
        }
    }
    out
}

/// The larger number; a NaN on either side stays. Of equal ones (zeros of both signs) the second.
pub(crate) fn larger<T: PartialOrd + Copy>(a: T, b: T) -> T {
    // Comparisons with NaN are false, so a NaN in `a` is named explicitly.
    #[allow(clippy::eq_op)]
    if a != a || b < a { a } else { b }
}

fn eval(op: &Op, inputs: &[Array], context: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Reduce(kind, axes) = op else {
        unreachable!("the rows of the two reductions")
    };
    let dims = inputs[0].dims();
    let data = match (kind, inputs[0].data()) {
        (ReduceOp::Sum, Data::F32(v)) => Data::F32(fold(v, dims, axes, 0.0, |a, x| a + x)),
        (ReduceOp::Sum, Data::F64(v)) => Data::F64(fold(v, dims, axes, 0.0, |a, x| a + x)),
        (ReduceOp::Sum, Data::F16(v)) => {
            let sums = fold(v, dims, axes, 0.0, |a, x| a + x.to_f32());
            Data::F16(sums.into_iter().map(f16::from_f32).collect())
        }
        (ReduceOp::Sum, Data::BF16(v)) => {
            let sums = fold(v, dims, axes, 0.0, |a, x| a + x.to_f32());
            Data::BF16(sums.into_iter().map(bf16::from_f32).collect())
        }
        (ReduceOp::Sum, Data::I32(v)) => {
            Data::I32(fold(v, dims, axes, 0, |a: i32, x| a.wrapping_add(x)))
        }
        (_, Data::U8(_)) => return Err(NO_ARITHMETIC.into()),
        (_, Data::Bool(v)) => Data::Bool(fold(v, dims, axes, 0, |a, x| a | x)),
        (ReduceOp::Max, Data::F32(v)) => Data::F32(fold(v, dims, axes, f32::NEG_INFINITY, larger)),
        (ReduceOp::Max, Data::F64(v)) => Data::F64(fold(v, dims, axes, f64::NEG_INFINITY, larger)),
        (ReduceOp::Max, Data::F16(v)) => Data::F16(fold(v, dims, axes, f16::NEG_INFINITY, larger)),
        (ReduceOp::Max, Data::BF16(v)) => {
            Data::BF16(fold(v, dims, axes, bf16::NEG_INFINITY, larger))
        }
        (ReduceOp::Max, Data::I32(v)) => Data::I32(fold(v, dims, axes, i32::MIN, larger)),
    };
    Ok(Array::new(context.dims.clone(), data))
}

fn gradient_of_sum(rule: &Rule<'_>, build: &mut dyn GradientBuilder) -> Result<Gradients, String> {
    let Op::Reduce(_, axes) = rule.op else {
        unreachable!("the rows of the two reductions")
    };
    let dims = build.ty(rule.operands[0]).dims;
    Ok(smallvec![Some(build.spread(rule.upstream, axes, &dims)?)])
}

/// In equal parts to all elements that are the largest.
fn gradient_of_max(rule: &Rule<'_>, build: &mut dyn GradientBuilder) -> Result<Gradients, String> {
    let Op::Reduce(_, axes) = rule.op else {
        unreachable!("the rows of the two reductions")
    };
    let x = rule.operands[0];
    let dims = build.ty(x).dims;
    let largest = build.spread(rule.result, axes, &dims)?;
    let is_less = build.less(x, largest)?;
    let one = build.fill(x, 1.0)?;
    let is_largest = build.zero_where(is_less, one)?;
    let count = build.sum(is_largest, axes.clone())?;
    let share = build.recip(count)?;
    let share = build.mul(rule.upstream, share)?;
    let share = build.spread(share, axes, &dims)?;
    Ok(smallvec![Some(build.zero_where(is_less, share)?)])
}
