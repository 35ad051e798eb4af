//! `Gather` and `Scatter`: coordinates that are data.
//!
//! Both walk one axis. The index operand is `I32`; a number outside `0..n` is an error when executed, in every
//! pipeline. `Scatter` takes `(base, index, updates)`, and updates are applied in row-major order.

use super::binary::NO_ARITHMETIC;
use super::reduce::larger;
use smallvec::smallvec;

use super::gradient::{GradientBuilder, Gradients, Rule, Var};
use super::table::{Arity, EvalContext, OpRow, check_arity};
use super::{Op, ScatterMode, TensorType, samples};
use crate::array::{Array, Data};
use crate::dtype::DType;

pub(super) static GATHER: OpRow = OpRow::new(
    "gather",
    Arity::Exact(2),
    infer_gather,
    eval_gather,
    samples::gather,
)
.gradient(gradient_of_gather);
pub(super) static SCATTER: OpRow = OpRow::new(
    "scatter",
    Arity::Exact(3),
    infer_scatter,
    eval_scatter,
    samples::scatter,
)
.gradient(gradient_of_scatter);

/// `index` fits `data`: same rank, same sizes except on `axis`, `I32`.
fn check_index(data: &TensorType, index: &TensorType, axis: usize) -> Result<(), String> {
    if index.dtype != DType::I32 {
        return Err(format!("the index must be i32, not {index}"));
    }
    if axis >= data.dims.len() || index.dims.len() != data.dims.len() {
        return Err(format!(
            "an index {index} over axis {axis} of {data}: ranks must be equal and hold the axis"
        ));
    }
    let differs = (0..data.dims.len()).find(|&i| i != axis && data.dims[i] != index.dims[i]);
    match differs {
        Some(i) => Err(format!("index {index} and data {data} differ on axis {i}")),
        None => Ok(()),
    }
}

fn infer_gather(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::Gather { axis } = op else {
        unreachable!("the row of gather")
    };
    check_index(&inputs[0], &inputs[1], *axis)?;
    Ok(TensorType {
        dims: inputs[1].dims.clone(),
        dtype: inputs[0].dtype,
    })
}

fn infer_scatter(op: &Op, inputs: &[TensorType]) -> Result<TensorType, String> {
    check_arity(op, inputs)?;
    let Op::Scatter { axis, mode } = op else {
        unreachable!("the row of scatter")
    };
    if *mode != ScatterMode::Set && inputs[0].dtype == DType::U8 {
        return Err(NO_ARITHMETIC.into());
    }
    let (base, index, updates) = (&inputs[0], &inputs[1], &inputs[2]);
    check_index(base, index, *axis)?;
    if updates.dims != index.dims || updates.dtype != base.dtype {
        return Err(format!(
            "updates {updates} do not fit index {index} and base {base}"
        ));
    }
    Ok(base.clone())
}

/// For every element of `index`, in row-major order, the linear position in `data` that it names.
///
/// # Errors
/// If an index is outside the axis.
pub fn positions(
    data_dims: &[usize],
    index_dims: &[usize],
    index: &[i32],
    axis: usize,
) -> Result<Vec<usize>, String> {
    let inner: usize = data_dims[axis + 1..].iter().product();
    let index_inner: usize = index_dims[axis..].iter().product();
    let n = data_dims[axis];
    let place = |(i, &at): (usize, &i32)| {
        let row = usize::try_from(at).ok().filter(|&row| row < n);
        let row =
            row.ok_or_else(|| format!("index {at} is out of range for axis {axis} of size {n}"))?;
        let (outer, within) = (i / index_inner, i % inner);
        Ok((outer * n + row) * inner + within)
    };
    index.iter().enumerate().map(place).collect()
}

fn index_of(array: &Array) -> Result<&[i32], String> {
    match array.data() {
        Data::I32(v) => Ok(v),
        _ => Err(format!("the index must be i32, not {}", array.dtype())),
    }
}

fn eval_gather(op: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Gather { axis } = op else {
        unreachable!("the row of gather")
    };
    let places = positions(
        inputs[0].dims(),
        inputs[1].dims(),
        index_of(&inputs[1])?,
        *axis,
    )?;
    let data = crate::map_dtype!(inputs[0].data(), v => places.iter().map(|&i| v[i]).collect());
    Ok(Array::new(inputs[1].dims().to_vec(), data))
}

fn write<T: Copy>(base: &[T], places: &[usize], updates: &[T], f: impl Fn(T, T) -> T) -> Vec<T> {
    let mut out = base.to_vec();
    for (&place, &update) in places.iter().zip(updates) {
        out[place] = f(out[place], update);
    }
    out
}

macro_rules! scatter_as {
    ($mode:expr, $base:expr, $places:expr, $updates:expr, $add:expr) => {
        match $mode {
            ScatterMode::Set => write($base, $places, $updates, |_, new| new),
            ScatterMode::Add => write($base, $places, $updates, $add),
            ScatterMode::Max => write($base, $places, $updates, larger),
        }
    };
}

fn eval_scatter(op: &Op, inputs: &[Array], _: &EvalContext<'_>) -> Result<Array, String> {
    let Op::Scatter { axis, mode } = op else {
        unreachable!("the row of scatter")
    };
    let places = &positions(
        inputs[0].dims(),
        inputs[1].dims(),
        index_of(&inputs[1])?,
        *axis,
    )?;
    let data = match (inputs[0].data(), inputs[2].data()) {
        (Data::F32(b), Data::F32(u)) => Data::F32(scatter_as!(mode, b, places, u, |a, x| a + x)),
        (Data::F64(b), Data::F64(u)) => Data::F64(scatter_as!(mode, b, places, u, |a, x| a + x)),
        (Data::F16(b), Data::F16(u)) => Data::F16(scatter_as!(mode, b, places, u, |a, x| a + x)),
        (Data::BF16(b), Data::BF16(u)) => Data::BF16(scatter_as!(mode, b, places, u, |a, x| a + x)),
        (Data::I32(b), Data::I32(u)) => {
            Data::I32(scatter_as!(mode, b, places, u, |a: i32, x| a.wrapping_add(x)))
        }
        (Data::U8(b), Data::U8(u)) => Data::U8(write(b, places, u, |_, new| new)),
        (Data::Bool(b), Data::Bool(u)) => Data::Bool(scatter_as!(mode, b, places, u, |a, x| a | x)),
        _ => {
            return Err(format!(
                "base of {} and updates of {}",
                inputs[0].dtype(),
                inputs[2].dtype()
            ));
        }
    };
    Ok(Array::new(inputs[0].dims().to_vec(), data))
}

/// What was read more than once adds up. With one index for each line along the axis that is a comparison, which
/// fuses with what is around it; otherwise it is a scatter.
fn gradient_of_gather(
    rule: &Rule<'_>,
    build: &mut dyn GradientBuilder,
) -> Result<Gradients, String> {
    let &Op::Gather { axis } = rule.op else {
        unreachable!("the row of gather")
    };
    let index = build.ty(rule.operands[1]);
    if index.dims[axis].is_one() {
        return Ok(smallvec![Some(one_place(rule, axis, build)?), None]);
    }
    let zeros = build.fill(rule.operands[0], 0.0)?;
    let add = Op::Scatter {
        axis,
        mode: ScatterMode::Add,
    };
    let sums = build.apply(add, &[zeros, rule.operands[1], rule.upstream])?;
    Ok(smallvec![Some(sums), None])
}

/// The upstream gradient where the coordinate on `axis` is the index, 0 elsewhere.
fn one_place(rule: &Rule<'_>, axis: usize, build: &mut dyn GradientBuilder) -> Result<Var, String> {
    let dims = build.ty(rule.operands[0]).dims;
    let len = dims[axis];
    let others = |i: &usize| *i != axis;
    let kept: Vec<_> = (0..dims.len()).filter(others).collect();
    let along = |build: &mut dyn GradientBuilder, x: Var| {
        let without: Vec<_> = kept.iter().map(|&i| dims[i]).collect();
        let x = build.reshape(x, &without)?;
        build.insert(x, axis, len)
    };
    let index = along(build, rule.operands[1])?;
    let upstream = along(build, rule.upstream)?;
    let line = build.apply(Op::Iota { len }, &[])?;
    let mut positions = line;
    for &i in &kept {
        positions = build.insert(positions, i, dims[i])?;
    }
    let (before, after) = (build.less(positions, index)?, build.less(index, positions)?);
    let rest = build.zero_where(before, upstream)?;
    build.zero_where(after, rest)
}

fn gradient_of_scatter(
    rule: &Rule<'_>,
    build: &mut dyn GradientBuilder,
) -> Result<Gradients, String> {
    let &Op::Scatter { axis, mode } = rule.op else {
        unreachable!("the row of scatter")
    };
    let (index, upstream) = (rule.operands[1], rule.upstream);
    let read = |build: &mut dyn GradientBuilder, x| build.apply(Op::Gather { axis }, &[x, index]);
    match mode {
        ScatterMode::Add => Ok(smallvec![
            Some(upstream),
            None,
            rule.when(2, || read(build, upstream))?
        ]),
        ScatterMode::Set => {
            let by_base = rule.when(0, || {
                let zeros = build.fill(rule.operands[2], 0.0)?;
                build.apply(rule.op.clone(), &[upstream, index, zeros])
            })?;
            let by_updates = rule.when(2, || {
                let overwritten = overwritten(rule, axis, build)?;
                let read = read(build, upstream)?;
                build.zero_where(overwritten, read)
            })?;
            Ok(smallvec![by_base, None, by_updates])
        }
        ScatterMode::Max => gradient_of_scatter_max(rule, axis, build),
    }
}

/// Whether a later update went to the same place.
fn overwritten(
    rule: &Rule<'_>,
    axis: usize,
    build: &mut dyn GradientBuilder,
) -> Result<Var, String> {
    let (base, index) = (rule.operands[0], rule.operands[1]);
    let own = build.positions(&build.ty(index).dims)?;
    let nobody = build.fill_as(&TensorType::new(build.ty(base).dims, DType::I32), 0.0)?;
    let last = build.apply(rule.op.clone(), &[nobody, index, own])?;
    let last = build.apply(Op::Gather { axis }, &[last, index])?;
    build.less(own, last)
}

/// In equal parts to the old value and all updates that are the largest.
fn gradient_of_scatter_max(
    rule: &Rule<'_>,
    axis: usize,
    build: &mut dyn GradientBuilder,
) -> Result<Gradients, String> {
    let &[base, index, updates] = rule.operands else {
        unreachable!("a scatter has three operands")
    };
    let read = Op::Gather { axis };
    let base_less = build.less(base, rule.result)?;
    let there = build.apply(read.clone(), &[rule.result, index])?;
    let update_less = build.less(updates, there)?;
    let ones = [build.fill(base, 1.0)?, build.fill(updates, 1.0)?];
    let base_wins = build.zero_where(base_less, ones[0])?;
    let update_wins = build.zero_where(update_less, ones[1])?;
    let add = Op::Scatter {
        axis,
        mode: ScatterMode::Add,
    };
    let count = build.apply(add, &[base_wins, index, update_wins])?;
    let share = build.recip(count)?;
    let share = build.mul(rule.upstream, share)?;
    let by_updates = build.apply(read, &[share, index])?;
    Ok(smallvec![
        Some(build.zero_where(base_less, share)?),
        None,
        Some(build.zero_where(update_less, by_updates)?),
    ])
}
