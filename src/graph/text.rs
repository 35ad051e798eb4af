//! The graph as text.
//!
//! One node a line, operands by number, a view in braces where it is not plain:
//! ```text
//! %0 = input<0> : f32[2, 3] "x"
//! %1 = mul(%0, %0) : f32[2, 3]
//! %2 = sum_reduce<1>(%1) : f32[2]
//! out %2 {…}
//! assign %0 = %1
//! ```
//! A kernel prints the steps that it replaced, indented, `$` being its operands:
//! ```text
//! %1 = kernel<"map_2x3">(%0) : f32[2, 3] {
//!   @0 = exp2($0) : f32[2, 3]
//! }
//! ```
//! [`super::parse`] reads it back; a custom op prints but does not parse.

use std::fmt::Write;

use rustc_hash::FxHashMap;

use super::dag::{Dag, NodeIndex, Source};
use crate::op::{ConstantValue, Kernel, KernelInput, Op, ScatterMode};
use crate::shape::View;

/// The whole graph.
pub fn print(dag: &Dag) -> String {
    let order = dag.topological().unwrap_or_else(|_| dag.ids().collect());
    let numbers: FxHashMap<NodeIndex, usize> =
        order.iter().enumerate().map(|(i, &id)| (id, i)).collect();
    let mut out = String::new();
    for (i, &id) in order.iter().enumerate() {
        let node = dag.node(id);
        let operands: Vec<String> = dag
            .operands(id)
            .iter()
            .map(|(source, view)| seen(dag, &numbers, *source, view))
            .collect();
        let name = node
            .name
            .as_ref()
            .map(|name| format!(" {name:?}"))
            .unwrap_or_default();
        let _ = write!(out, "%{i} = {}", call(&node.op, &operands));
        let _ = write!(out, " : {}{name}", node.ty);
        if let Op::Kernel(kernel) = &node.op {
            out.push_str(&steps(kernel));
        }
        out.push('\n');
    }
    print_kept(dag, &numbers, &mut out);
    out
}

fn print_kept(dag: &Dag, numbers: &FxHashMap<NodeIndex, usize>, out: &mut String) {
    let source = |source: &Source| seen(dag, numbers, source.node, &source.view);
    for &value in dag.outputs() {
        if let Some(at) = &dag.value(value).source {
            let _ = writeln!(out, "out {}", source(at));
        }
    }
    for &(state, new) in dag.assigns() {
        if let (Some(state), Some(new)) = (&dag.value(state).source, &dag.value(new).source) {
            let _ = writeln!(out, "assign {} = {}", source(state), source(new));
        }
    }
}

/// A node by number, with its view unless that is the whole result as it is.
fn seen(dag: &Dag, numbers: &FxHashMap<NodeIndex, usize>, node: NodeIndex, view: &View) -> String {
    let (number, ty) = (numbers[&node], &dag.node(node).ty);
    if view.is_identity(ty.numel()) && *view.dims() == ty.dims[..] {
        format!("%{number}")
    } else {
        format!("%{number} {{{view}}}")
    }
}

/// `name<attributes>(operands)`.
fn call(op: &Op, operands: &[String]) -> String {
    let attributes = attributes(op);
    let attributes = if attributes.is_empty() {
        String::new()
    } else {
        format!("<{attributes}>")
    };
    if operands.is_empty() {
        format!("{}{attributes}", op.name())
    } else {
        format!("{}{attributes}({})", op.name(), operands.join(", "))
    }
}

/// What an op has beside its name and operands, as text.
pub fn attributes(op: &Op) -> String {
    match op {
        Op::Input { id, .. } => id.to_string(),
        Op::Constant(ConstantValue::Literal(literal)) => format!("{literal}"),
        Op::Constant(ConstantValue::Size(expr)) => format!("size {expr}"),
        Op::Iota { len } => len.to_string(),
        Op::Random { seed, step, .. } => format!("{seed}, {step}"),
        Op::Reduce(_, axes) => axes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        Op::Gather { axis } => axis.to_string(),
        Op::Scatter { axis, mode } => format!("{axis}, {}", mode.name()),
        Op::Cast(dtype) => dtype.to_string(),
        Op::Quantize(ty) | Op::Dequantize(ty) => ty.to_string(),
        Op::FakeQuantize(scheme) => scheme.name().into(),
        Op::KnownGradient(function) => function.to_string(),
        Op::UnpackSigns(k) => k.to_string(),
        Op::PackPlanes(planes) => planes.n().to_string(),
        Op::UnpackPlanes(k, planes, part) => format!("{k}, {}, {}", planes.n(), part.name()),
        Op::SignMatrix(matrix, part) => format!("{matrix}, {part}"),
        Op::Custom(custom) => format!("{:?}", format!("{} {}", custom.0.name(), custom.0.key())),
        Op::Kernel(kernel) => format!("{:?}", kernel.name),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::PackSigns
        | Op::Select
        | Op::Contiguous
        | Op::Detach
        | Op::StraightThrough => String::new(),
    }
}

impl ScatterMode {
    /// `set`, `add` or `max`.
    pub fn name(self) -> &'static str {
        match self {
            ScatterMode::Set => "set",
            ScatterMode::Add => "add",
            ScatterMode::Max => "max",
        }
    }
}

/// The steps of a kernel in braces.
fn steps(kernel: &Kernel) -> String {
    format!(" {{\n{}}}", step_lines(kernel))
}

/// The steps of a kernel, a line each.
pub(super) fn step_lines(kernel: &Kernel) -> String {
    let mut out = String::new();
    for (i, step) in kernel.steps.iter().enumerate() {
        let operands: Vec<String> = step
            .inputs
            .iter()
            .map(|(source, view)| match source {
                KernelInput::Operand(i) => format!("${i} {{{view}}}"),
                KernelInput::Step(i) => format!("@{i} {{{view}}}"),
            })
            .collect();
        let _ = writeln!(out, "  @{i} = {} : {}", call(&step.op, &operands), step.ty);
    }
    out
}
