//! Whether a nest is well-formed and within what the lowering can do.
//!
//! Everything the emission relies on is checked here, so that a wrong nest is an
//! error that names the node, not a panic or invalid code. Dims of views that are
//! symbolic and differ in form from the nest's are taken on trust: whether they are
//! equal is known only when the symbols are.

use super::CannotLower;
use super::stages::reachable;
use crate::compilers::llvm_cpu::ir::{BinaryOp, Id, Nest, Scalar, UnaryOp};
use crate::dtype::DType;

/// An error about a node.
fn fail<T>(nest: &Nest, id: Id, why: &str) -> Result<T, CannotLower> {
    Err(CannotLower(format!(
        "node {id}, {:?}: {why}",
        nest.body[id]
    )))
}

/// Checks everything.
pub fn check(nest: &Nest) -> Result<(), CannotLower> {
    let roots = nest.stages.iter().map(|r| r.value).chain([nest.result]);
    if roots.clone().any(|id| id >= nest.body.len()) {
        return Err(CannotLower("the result is not in the body".into()));
    }
    if nest.stages.is_empty() && (nest.per_point || !nest.reduce.is_empty()) {
        return Err(CannotLower("reduced dims without a reduction".into()));
    }
    (0..nest.body.len()).try_for_each(|id| check_references(nest, id))?;
    (0..nest.loads.len()).try_for_each(|access| check_access(nest, access))?;
    let types = nest.dtypes();
    let roots: Vec<Id> = roots.collect();
    reachable(nest, &roots)
        .into_iter()
        .try_for_each(|id| check_types(nest, &types, id))?;
    if types[nest.result] != nest.dtype {
        return fail(nest, nest.result, "not of the nest's type");
    }
    check_phases(nest)
}

/// Operands come earlier; accesses and axes exist.
fn check_references(nest: &Nest, id: Id) -> Result<(), CannotLower> {
    let mut ordered = true;
    nest.body[id].for_each_operand(|operand| ordered &= operand < id);
    if !ordered {
        return fail(nest, id, "an operand is not earlier");
    }
    let rank = nest.space.len() + nest.reduce.len();
    match nest.body[id] {
        Scalar::Load(access) | Scalar::Valid(access) | Scalar::Position(access)
            if access >= nest.loads.len() =>
        {
            fail(nest, id, "no such access")
        }
        Scalar::Gather { access, axis, .. } => match nest.loads.get(access) {
            Some(load) if axis < load.view.dims().len() => Ok(()),
            _ => fail(nest, id, "no such access or axis"),
        },
        Scalar::Coord(axis) if axis >= rank => fail(nest, id, "no such axis"),
        Scalar::Reduced(stage) if nest.stages.get(stage).is_none_or(|s| s.value >= id) => {
            fail(nest, id, "no such stage before")
        }
        _ => Ok(()),
    }
}

/// Dims agree where both are constants; an access is gathered on one axis or none.
fn check_access(nest: &Nest, index: usize) -> Result<(), CannotLower> {
    let access = &nest.loads[index];
    let fail = |why: &str| {
        Err(CannotLower(format!(
            "access {index}, {}: {why}",
            access.view
        )))
    };
    let dims = access.view.dims();
    let rank = nest.space.len() + nest.reduce.len();
    if dims.len() != rank && dims.len() != nest.space.len() {
        return fail("its rank is not the nest's");
    }
    let reads = |node: &Scalar| match *node {
        Scalar::Load(access) | Scalar::Gather { access, .. } => access == index,
        _ => false,
    };
    if access.input >= nest.n_inputs && nest.body.iter().any(reads) {
        return fail("no such input");
    }
    let mut gathered = None;
    for node in &nest.body {
        let axis = match *node {
            Scalar::Gather { access, axis, .. } if access == index => Some(axis),
            Scalar::Load(access) | Scalar::Valid(access) | Scalar::Position(access)
                if access == index =>
            {
                None
            }
            _ => continue,
        };
        if *gathered.get_or_insert(axis) != axis {
            return fail("read in two ways");
        }
    }
    let gathered = gathered.flatten();
    let sizes = nest.space.iter().chain(&nest.reduce);
    for (axis, (have, want)) in dims.iter().zip(sizes).enumerate() {
        let differ = have
            .as_const()
            .zip(want.as_const())
            .is_some_and(|(a, b)| a != b);
        if differ && gathered != Some(axis) {
            return fail("its dims are not the nest's");
        }
    }
    Ok(())
}

/// Operand types are ones the operation is lowered for.
fn check_types(nest: &Nest, types: &[DType], id: Id) -> Result<(), CannotLower> {
    let good = match nest.body[id] {
        Scalar::Gather { index, .. } | Scalar::Random { index, .. } => types[index] == DType::I32,
        Scalar::Unary(UnaryOp::Sqrt | UnaryOp::Recip, a) => {
            !matches!(types[a], DType::I32 | DType::Bool)
        }
        Scalar::Unary(_, a) => matches!(types[a], DType::F32 | DType::F16 | DType::BF16),
        Scalar::Approx(_, a) => types[a] == DType::F32,
        Scalar::Binary(BinaryOp::Mod, a, b) => types[a] == types[b] && types[a] != DType::Bool,
        Scalar::Binary(_, a, b) => types[a] == types[b],
        Scalar::Select {
            cond,
            then,
            otherwise,
        } => types[cond] == DType::Bool && types[then] == types[otherwise],
        _ => true,
    };
    if good {
        Ok(())
    } else {
        fail(nest, id, "not lowered for these types")
    }
}

/// A stage uses the results of earlier ones only; a value per row uses nothing that depends on the reduced dims.
fn check_phases(nest: &Nest) -> Result<(), CannotLower> {
    let values = nest.stages.iter().map(|stage| stage.value);
    for (n_done, root) in values.chain([nest.result]).enumerate() {
        for id in reachable(nest, &[root]) {
            if matches!(nest.body[id], Scalar::Reduced(stage) if stage >= n_done) {
                return fail(nest, id, "used before the reduction");
            }
        }
    }
    if nest.stages.is_empty() || nest.per_point {
        return Ok(());
    }
    let kept = nest.space.len();
    for id in reachable(nest, &[nest.result]) {
        let wrong = match nest.body[id] {
            Scalar::Coord(axis) => axis >= kept,
            Scalar::Load(access)
            | Scalar::Valid(access)
            | Scalar::Position(access)
            | Scalar::Gather { access, .. } => nest.loads[access].view.dims().len() != kept,
            _ => false,
        };
        if wrong && !nest.reduce.is_empty() {
            return fail(nest, id, "depends on reduced dims after the reduction");
        }
    }
    Ok(())
}
