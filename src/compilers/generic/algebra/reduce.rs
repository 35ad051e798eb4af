//! Identities of the two reductions.

use smallvec::smallvec;

use super::super::sweep::{Operands, Seen, Sweep};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{NodeIndex, NodeRef};
use crate::op::{AxisSet, Op, ReduceOp};
use crate::shape::View;

/// Whether `f(f(start, a), b)` may be computed in any order: integers and booleans.
fn any_order(dtype: DType) -> bool {
    !dtype.is_float()
}

/// Axes of size 1 need no folding, except that a sum of floats starts at 0.0, to which adding -0.0 gives 0.0: so one
/// axis stays there.
pub(super) fn size_one_axes(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    let Op::Reduce(kind, axes) = &sweep.dag.node(id).op else {
        return Ok(None);
    };
    let (source, view) = &operands[0];
    let dtype = sweep.dag.node(id).ty.dtype;
    let mut drop: AxisSet = axes
        .iter()
        .copied()
        .filter(|&axis| view.dims()[axis].is_one())
        .collect();
    let folds_nothing = *kind == ReduceOp::Max || any_order(dtype);
    if drop.len() == axes.len() && !folds_nothing {
        drop.pop();
    }
    if drop.is_empty() && !(axes.is_empty() && folds_nothing) {
        return Ok(None);
    }
    let Some(squeezed) = squeeze(view, &drop) else {
        return Ok(None);
    };
    let rest: AxisSet = axes
        .iter()
        .filter(|axis| !drop.contains(axis))
        .map(|&axis| axis - drop.iter().filter(|&&dropped| dropped < axis).count())
        .collect();
    if rest.is_empty() {
        return Ok(Some((*source, squeezed)));
    }
    let op = Op::Reduce(*kind, rest);
    sweep.add(op, smallvec![(*source, squeezed)], id).map(Some)
}

/// The view without these axes of size 1, if that needs no more layers.
fn squeeze(view: &View, axes: &[usize]) -> Option<View> {
    let mut squeezed = view.clone();
    for &axis in axes.iter().rev() {
        squeezed = squeezed.squeeze(axis).ok()?;
    }
    (squeezed.layers().len() <= view.layers().len()).then_some(squeezed)
}

/// A reduction of the same reduction, which nothing else reads → one over both sets of axes.
///
/// The maximum of floats depends on the order of comparing in one case: of 0.0 and -0.0, the last wins. Row-major
/// order over both sets is that of the nested reductions when all outer axes stand before all inner ones.
pub(super) fn nested(
    sweep: &mut Sweep,
    id: NodeIndex,
    operands: &Operands,
) -> Result<Option<Seen>> {
    let Op::Reduce(kind, outer) = &sweep.dag.node(id).op else {
        return Ok(None);
    };
    let (NodeRef::Old(inner_id), view) = &operands[0] else {
        return Ok(None);
    };
    let inner_node = sweep.dag.node(*inner_id);
    let Op::Reduce(inner_kind, inner) = &inner_node.op else {
        return Ok(None);
    };
    let whole = view.is_identity(inner_node.ty.numel()) && *view.dims() == inner_node.ty.dims[..];
    let only_reader = sweep.dag.operands(id)[0].0 == *inner_id
        && sweep.dag.readers(*inner_id).nth(1).is_none()
        && !sweep.is_kept(*inner_id);
    if inner_kind != kind || !whole || !only_reader {
        return Ok(None);
    }
    let source = sweep.operands(NodeRef::Old(*inner_id)).remove(0);
    let left: AxisSet = (0..source.1.rank())
        .filter(|axis| !inner.contains(axis))
        .collect();
    let outer: AxisSet = outer.iter().map(|&axis| left[axis]).collect();
    let in_order = outer.last() < inner.first();
    let exact = any_order(inner_node.ty.dtype) || (*kind == ReduceOp::Max && in_order);
    if !exact {
        return Ok(None);
    }
    let mut axes: AxisSet = outer.into_iter().chain(inner.iter().copied()).collect();
    axes.sort_unstable();
    sweep
        .add(Op::Reduce(*kind, axes), smallvec![source], id)
        .map(Some)
}
