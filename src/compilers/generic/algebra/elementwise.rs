//! Identities of `add`, `mul`, `less_than`, `select` and `detach`.

use smallvec::smallvec;

use super::super::sweep::{Operands, Seen, Sweep};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::NodeIndex;
use crate::op::{BinaryOp, Literal, Op};

/// `f(x, identity)` → `x`, and for commutative ops the other way round.
pub(super) fn identity(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    let row = sweep.dag.node(id).op.row();
    let Some(value) = row.identity else {
        return Ok(None);
    };
    if sweep.is_all(&operands[1], value) {
        return Ok(Some(operands[0].clone()));
    }
    if row.commutative && sweep.is_all(&operands[0], value) {
        return Ok(Some(operands[1].clone()));
    }
    Ok(None)
}

/// `x * 0` → `0` for integers, `x and false` → `false`, `x or true` → `true`.
pub(super) fn absorbing(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    let node = sweep.dag.node(id);
    let value = match (&node.op, node.ty.dtype) {
        (Op::Binary(BinaryOp::Mul), DType::I32 | DType::Bool) => 0.0,
        (Op::Binary(BinaryOp::Add), DType::Bool) => 1.0,
        _ => return Ok(None),
    };
    if !operands.iter().any(|seen| sweep.is_all(seen, value)) {
        return Ok(None);
    }
    sweep
        .constant(Literal::new(node.ty.dtype, value), id)
        .map(Some)
}

/// Both operands are the same: `x and x`, `x or x` → `x`, `x < x` → `false`.
pub(super) fn repeated(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    let node = sweep.dag.node(id);
    let Op::Binary(function) = node.op else {
        return Ok(None);
    };
    if operands[0] != operands[1] {
        return Ok(None);
    }
    match function {
        BinaryOp::Add | BinaryOp::Mul if node.ty.dtype == DType::Bool => {
            Ok(Some(operands[0].clone()))
        }
        BinaryOp::LessThan => sweep.constant(Literal::new(DType::Bool, 0.0), id).map(Some),
        _ => Ok(None),
    }
}

/// The operand of `x * -1`, either way round.
fn negated(sweep: &Sweep, op: &Op, operands: &Operands) -> Option<Seen> {
    if *op != Op::Binary(BinaryOp::Mul) {
        return None;
    }
    let at = operands.iter().position(|seen| sweep.is_all(seen, -1.0))?;
    let is_bool = sweep.ty(operands[at].0).dtype == DType::Bool;
    (!is_bool).then(|| operands[1 - at].clone())
}

/// The operand of `not x`, which is `x < true`.
fn inverted(sweep: &Sweep, op: &Op, operands: &Operands) -> Option<Seen> {
    let is_not = *op == Op::Binary(BinaryOp::LessThan)
        && sweep.ty(operands[0].0).dtype == DType::Bool
        && sweep.is_all(&operands[1], 1.0);
    is_not.then(|| operands[0].clone())
}

/// `(x * -1) * -1` and `not not x` → `x`. Both only flip one bit (or negate an integer, which wraps), twice.
pub(super) fn undone(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    let flipped = |sweep: &Sweep, op: &Op, operands: &Operands| {
        negated(sweep, op, operands).or_else(|| inverted(sweep, op, operands))
    };
    let Some(inner) = flipped(sweep, &sweep.dag.node(id).op, operands) else {
        return Ok(None);
    };
    if *sweep.op(inner.0) != sweep.dag.node(id).op {
        return Ok(None);
    }
    let below = sweep.operands_through(&inner);
    Ok(below.and_then(|below| flipped(sweep, sweep.op(inner.0), &below)))
}

/// `where` with a known condition, with equal branches, or with an inverted condition.
pub(super) fn select(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    if sweep.dag.node(id).op != Op::Select {
        return Ok(None);
    }
    if operands[1] == operands[2] || sweep.is_all(&operands[0], 1.0) {
        return Ok(Some(operands[1].clone()));
    }
    if sweep.is_all(&operands[0], 0.0) {
        return Ok(Some(operands[2].clone()));
    }
    let Some(below) = sweep.operands_through(&operands[0]) else {
        return Ok(None);
    };
    let Some(condition) = inverted(sweep, sweep.op(operands[0].0), &below) else {
        return Ok(None);
    };
    let swapped: Operands = smallvec![condition, operands[2].clone(), operands[1].clone()];
    sweep.add(Op::Select, swapped, id).map(Some)
}

/// `detach` of what carries no gradient: another `detach`, or a format that is not floating.
pub(super) fn detach(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    let node = sweep.dag.node(id);
    if node.op != Op::Detach {
        return Ok(None);
    }
    let needless = !node.ty.dtype.is_float() || *sweep.op(operands[0].0) == Op::Detach;
    Ok(needless.then(|| operands[0].clone()))
}
