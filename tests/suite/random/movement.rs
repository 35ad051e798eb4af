//! Steps that look at a value differently: no arithmetic, so they are the same in every mode.

use brain_blitz::prelude::*;

use super::build::{Build, MAX_RANK, Value, exact_limit};
use super::dice::Dice;

/// A movement of some value; `None` if the drawn one does not fit.
pub fn step(build: &mut Build) -> Option<Value> {
    let value = build.any()?;
    if value.t.rank() == 0 {
        return (value.t.rank() < MAX_RANK).then(|| Value {
            t: value.t.insert_axis(0, build.dice.between(1, 5)),
            ..value
        });
    }
    match build.dice.below(20) {
        0 => join(build, value),
        1 => pad_with(build, value),
        2..=6 => cut(build, value),
        7..=11 => reorder(build, value),
        12..=14 => windows(build, value),
        _ => grow(build, value),
    }
}

fn of(value: Value, t: GraphTensor) -> Option<Value> {
    Some(Value { t, ..value })
}

fn axis_of(dice: &mut Dice, value: Value) -> usize {
    dice.below(value.t.rank())
}

fn cut(build: &mut Build, value: Value) -> Option<Value> {
    let t = value.t;
    let axis = axis_of(&mut build.dice, value);
    let dim = t.dims()[axis];
    let smallest = build.smallest(dim);
    let dice = &mut build.dice;
    let (before, after) = (
        dice.between(0, smallest.min(3)),
        dice.between(0, smallest.min(3)),
    );
    if before + after > smallest || (before + after == smallest && !dice.one_in(8)) {
        return None;
    }
    let (start, end) = (Expr::from(before), dim - after);
    match dice.below(4) {
        0 | 1 => of(value, t.slice_axis(axis, start, end)),
        2 => of(value, t.slice_step(axis, start, end, dice.between(2, 3))),
        _ => {
            let step = -dice.between(1, 3);
            of(value, t.slice_step(axis, end - 1, start - 1, step))
        }
    }
}

fn reorder(build: &mut Build, value: Value) -> Option<Value> {
    let t = value.t;
    let (rank, dims) = (t.rank(), t.dims());
    let axis = axis_of(&mut build.dice, value);
    let dice = &mut build.dice;
    match dice.below(8) {
        0 => of(value, t.flip(axis)),
        1 => {
            let mut order: Vec<usize> = (0..rank).collect();
            dice.shuffle(&mut order);
            of(value, t.permute(order))
        }
        2 => of(value, t.transpose(0, axis)),
        3 => {
            let shift = dice.between(-3, 3);
            if build.smallest(dims[axis]) == 0 {
                return None;
            }
            of(value, t.roll(shift, axis))
        }
        4 => of(value, t.contiguous()),
        5 if axis + 1 < rank => of(value, t.flatten(axis, axis + 1)),
        6 => of(value, t.flatten(0, rank - 1)),
        _ => split(dice, value, axis),
    }
}

/// An axis of `n` as `[n / part, part]`.
fn split(dice: &mut Dice, value: Value, axis: usize) -> Option<Value> {
    let mut dims: Vec<Expr> = value.t.dims().to_vec();
    let part = dice.between(2, 4);
    if !dims[axis].rem(part).is_zero() || dims.len() == MAX_RANK {
        return None;
    }
    let outer = dims[axis].floor_div(part);
    let pair = if dice.one_in(2) {
        [outer, part.into()]
    } else {
        [part.into(), outer]
    };
    dims.splice(axis..=axis, pair);
    of(value, value.t.reshape(dims))
}

fn windows(build: &mut Build, value: Value) -> Option<Value> {
    let t = value.t;
    let (rank, dims) = (t.rank(), t.dims());
    let axis = axis_of(&mut build.dice, value);
    let smallest = build.smallest(dims[axis]);
    let dice = &mut build.dice;
    let (size, step, dilation) = (dice.between(1, 4), dice.between(1, 3), dice.between(1, 2));
    match dice.below(4) {
        0 | 1 if rank < MAX_RANK && smallest > dilation * (size - 1) => {
            of(value, t.unfold_dilated(axis, size, step, dilation))
        }
        2 if rank >= 2 && smallest > 0 => {
            let other = (axis + 1) % rank;
            let offset = dice.between(-1, 1);
            let least = build.smallest(dims[axis]).min(build.smallest(dims[other]));
            (least > 1).then(|| Value {
                t: t.diagonal(offset, axis, other),
                ..value
            })
        }
        3 if rank >= 2 => {
            let offset = dice.between(-2, 2);
            if dice.one_in(2) {
                of(value, t.tril(offset))
            } else {
                of(value, t.triu(offset))
            }
        }
        _ => None,
    }
}

fn grow(build: &mut Build, value: Value) -> Option<Value> {
    let t = value.t;
    let (rank, mut dims) = (t.rank(), t.dims().to_vec());
    let axis = axis_of(&mut build.dice, value);
    let dice = &mut build.dice;
    match dice.below(6) {
        0 | 1 => of(value, t.pad(axis, dice.between(0, 3), dice.between(0, 3))),
        2 if rank < MAX_RANK => {
            let at = dice.below(rank + 1);
            of(value, t.insert_axis(at, dice.between(1, 4)))
        }
        3 => {
            let one = dims.iter().position(|dim| dim.is_one())?;
            dims[one] = Expr::from(dice.between(2, 5));
            of(value, t.expand(dims))
        }
        4 => {
            let times: Vec<i64> = (0..rank).map(|_| dice.between(1, 2)).collect();
            of(value, t.repeat(times))
        }
        _ => of(value, t.repeat_interleave(dice.between(1, 3), axis)),
    }
}

fn pad_with(build: &mut Build, value: Value) -> Option<Value> {
    let axis = axis_of(&mut build.dice, value);
    let dice = &mut build.dice;
    let (before, after) = (dice.between(0, 3), dice.between(0, 3));
    let filling = match value.t.dtype() {
        DType::Bool => 1.0,
        dtype => 7f64.min(exact_limit(dtype)),
    };
    Some(Value {
        t: value.t.pad_with(axis, before, after, filling),
        magnitude: value.magnitude.max(filling),
        ..value
    })
}

/// Two values of one format next to each other.
fn join(build: &mut Build, value: Value) -> Option<Value> {
    let axis = axis_of(&mut build.dice, value);
    let (dims, dtype) = (value.t.dims(), value.t.dtype());
    let fitting: Vec<Value> = build
        .pool
        .iter()
        .filter(|other| {
            let other_dims = other.t.dims();
            let same = |at: usize| at == axis || dims[at] == other_dims[at];
            other.t.dtype() == dtype && other_dims.len() == dims.len() && (0..dims.len()).all(same)
        })
        .copied()
        .collect();
    let other = build.dice.pick(&fitting);
    let stacks = other.t.dims() == dims && dims.len() < MAX_RANK && build.dice.one_in(3);
    let pair = [value.t, other.t];
    Some(Value {
        t: if stacks {
            GraphTensor::stack(&pair, axis)
        } else {
            GraphTensor::concat(&pair, axis)
        },
        magnitude: value.magnitude.max(other.magnitude),
        error: value.error.max(other.error),
    })
}
