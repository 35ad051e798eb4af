//! The invariants of the graph, as a check that runs between passes.
//!
//! 1. no cycles;
//! 2. a node's operand slots are `0..n`, `n` fitting its op;
//! 3. an edge's view stays inside its source's buffer;
//! 4. a node's type is what its op infers from what it reads;
//! 5. a value's source exists, and seen through the value's view has the value's type; only an input may be stored in
//!    another floating-point format than its values have;
//! 6. values that must survive have a source;
//! 7. only `Input` nodes are states;
//! 8. a kernel reads whole buffers: its views are inside, and its steps obey 3 and 4.

use petgraph::Direction;

use super::dag::{Dag, NodeIndex};
use crate::error::{Error, Result};
use crate::op::{Kernel, KernelInput, Op, TensorType};
use crate::shape::{Symbols, View};

/// Checks every invariant.
///
/// # Errors
/// The first violation, naming the node and where it was recorded.
pub fn verify(dag: &Dag) -> Result<()> {
    dag.topological()?;
    for id in dag.ids() {
        verify_node(dag, id)?;
    }
    for (value, entry) in dag.values() {
        let Some(source) = &entry.source else {
            continue;
        };
        if !dag.contains(source.node) {
            return Err(Error::msg(format!(
                "value {} stands for a removed node",
                value.0
            )));
        }
        let node = dag.node(source.node);
        let (dtype, wanted) = (node.ty.dtype, entry.ty.dtype);
        let stored = matches!(node.op, Op::Input { .. }) && dtype.is_float() && wanted.is_float();
        if source.view.dims() != &entry.ty.dims[..] || (dtype != wanted && !stored) {
            let what = format!(
                "value {} of type {} stands for it as {} {dtype}",
                value.0, entry.ty, source.view
            );
            return Err(Error::Node {
                node: dag.describe(source.node),
                what,
            });
        }
    }
    verify_kept(dag)
}

fn verify_node(dag: &Dag, id: NodeIndex) -> Result<()> {
    let fail = |what: String| {
        Err(Error::Node {
            node: dag.describe(id),
            what,
        })
    };
    let node = dag.node(id);
    let mut slots: Vec<usize> = dag
        .nodes
        .edges_directed(id, Direction::Incoming)
        .map(|e| e.weight().slot)
        .collect();
    slots.sort_unstable();
    if slots.iter().enumerate().any(|(i, &slot)| i != slot) {
        return fail(format!("has operand slots {slots:?}"));
    }
    let mut types = Vec::with_capacity(slots.len());
    for (source, view) in dag.operands(id) {
        let ty = &dag.node(source).ty;
        if !fits_buffer(view, ty) {
            return fail(format!(
                "reads {} through a view of a larger buffer, {view}",
                dag.describe(source)
            ));
        }
        if matches!(node.op, Op::Kernel(_)) && !dag.is_whole(source, view) {
            return fail(format!(
                "is a kernel, but reads {view} instead of a whole buffer"
            ));
        }
        types.push(TensorType {
            dims: view.dims().iter().copied().collect(),
            dtype: ty.dtype,
        });
    }
    if let Op::Kernel(kernel) = &node.op
        && let Err(what) = verify_steps(kernel)
    {
        return fail(what);
    }
    match node.op.infer(&types) {
        Ok(ty) if ty == node.ty => Ok(()),
        Ok(ty) => fail(format!("should have type {ty}")),
        Err(what) => fail(what),
    }
}

/// A kernel's steps obey the rules for nodes: machine code is made of them and relies on it.
fn verify_steps(kernel: &Kernel) -> Result<(), String> {
    for (i, step) in kernel.steps.iter().enumerate() {
        let mut types = Vec::with_capacity(step.inputs.len());
        for (source, view) in &step.inputs {
            let ty = match *source {
                KernelInput::Operand(k) => kernel.operands.get(k),
                KernelInput::Step(k) => kernel.steps[..i].get(k).map(|step| &step.ty),
            };
            let ty = ty.ok_or_else(|| format!("has a step {i} that reads {source:?}"))?;
            if !fits_buffer(view, ty) {
                let what = format!("reads {source:?} through a view of a larger buffer, {view}");
                return Err(format!("has a step {i} that {what}"));
            }
            types.push(TensorType {
                dims: view.dims().iter().copied().collect(),
                dtype: ty.dtype,
            });
        }
        let ty = step.op.infer(&types)?;
        if ty != step.ty {
            return Err(format!("has a step {i} that should have type {ty}"));
        }
    }
    Ok(())
}

/// Whether a view stays inside a buffer of this type. With symbols this is checked when executed.
fn fits_buffer(view: &View, ty: &TensorType) -> bool {
    // Almost all views are of this kind, and the number of elements is not needed to see it.
    if *view.dims() == ty.dims[..] && view.is_contiguous() {
        return true;
    }
    let numel = ty.numel();
    if view.is_identity(numel) {
        return true;
    }
    match (numel.as_usize(), view.resolve(&Symbols::new())) {
        (Some(n), Ok(view)) => view.fits(n),
        _ => true,
    }
}

fn verify_kept(dag: &Dag) -> Result<()> {
    for value in dag.kept_values() {
        let entry = dag.value(value);
        if entry.source.is_none() {
            let at = format!("{}:{}", entry.location.file(), entry.location.line());
            return Err(Error::msg(format!(
                "the value {} recorded at {at} must survive, but was removed",
                entry.ty
            )));
        }
    }
    for &(state, new) in dag.assigns() {
        let source = dag.source(state)?;
        if !matches!(dag.node(source.node).op, Op::Input { .. }) {
            return Err(Error::Node {
                node: dag.describe(source.node),
                what: "is assigned to, but is no input".into(),
            });
        }
        if dag.value(state).ty != dag.value(new).ty {
            let what = format!("is assigned a {}", dag.value(new).ty);
            return Err(Error::Node {
                node: dag.describe(source.node),
                what,
            });
        }
    }
    Ok(())
}
