//! What all forms of display say about a node.

use rustc_hash::FxHashMap;

use crate::graph::dag::{Dag, NodeIndex, Operands};
use crate::graph::text;
use crate::op::{Op, TensorType};
use crate::shape::{Expr, View};

/// A graph's nodes in the order of a listing: topological, leaves directly before their first reader.
pub(super) struct Ordered<'a> {
    pub dag: &'a Dag,
    /// The nodes.
    pub order: Vec<NodeIndex>,
    /// Where a node stands in `order`.
    pub position: FxHashMap<NodeIndex, usize>,
    /// A node's number in the text form.
    pub number: FxHashMap<NodeIndex, usize>,
}

impl<'a> Ordered<'a> {
    pub fn new(dag: &'a Dag) -> Ordered<'a> {
        let topological = dag.topological().unwrap_or_else(|_| dag.ids().collect());
        let number = numbered(&topological);
        let mut order = Vec::with_capacity(topological.len());
        let mut placed = vec![false; dag.bound()];
        let mut place = |id: NodeIndex, order: &mut Vec<NodeIndex>| {
            if !std::mem::replace(&mut placed[id.index()], true) {
                order.push(id);
            }
        };
        for &id in topological.iter().filter(|&&id| !dag.node(id).op.is_leaf()) {
            for (operand, _) in dag.operands(id) {
                if dag.node(operand).op.is_leaf() {
                    place(operand, &mut order);
                }
            }
            place(id, &mut order);
        }
        // What is left are leaves that nothing reads.
        topological.iter().for_each(|&id| place(id, &mut order));
        let position = numbered(&order);
        Ordered {
            dag,
            order,
            position,
            number,
        }
    }

    /// A node's operands in order.
    pub fn operands(&self, at: usize) -> Operands<'a> {
        self.dag.operands(self.order[at])
    }

    /// `%3`, with its view unless that is the whole result as it is.
    pub fn seen(&self, node: NodeIndex, view: &View) -> String {
        match self.view_text(node, view) {
            Some(view) => format!("%{} {{{view}}}", self.number[&node]),
            None => format!("%{}", self.number[&node]),
        }
    }

    /// The view's text; `None` for the whole result as it is.
    pub fn view_text(&self, node: NodeIndex, view: &View) -> Option<String> {
        let ty = &self.dag.node(node).ty;
        let plain = self.dag.is_whole(node, view) && *view.dims() == ty.dims[..];
        (!plain).then(|| view.to_string())
    }

    /// `name<attributes>`; a kernel shows its own name.
    pub fn title(&self, at: usize) -> String {
        let op = &self.dag.node(self.order[at]).op;
        match text::attributes(op) {
            attributes if attributes.is_empty() => op.name().to_string(),
            attributes => format!("{}<{attributes}>", op.name()),
        }
    }

    /// `src/main.rs:7`, without control characters.
    pub fn location(&self, at: usize) -> String {
        let location = self.dag.node(self.order[at]).location;
        format!("{}:{}", location.file().escape_debug(), location.line())
    }

    /// The lines `out ..` and `assign ..` of the text form.
    pub fn kept(&self) -> Vec<String> {
        let seen = |value| {
            let source = self.dag.value(value).source.as_ref()?;
            Some(self.seen(source.node, &source.view))
        };
        let outputs = self.dag.outputs().iter();
        let outputs = outputs.filter_map(|&value| Some(format!("out {}", seen(value)?)));
        let assigns =
            self.dag.assigns().iter().filter_map(|&(state, new)| {
                Some(format!("assign {} = {}", seen(state)?, seen(new)?))
            });
        outputs.chain(assigns).collect()
    }

    /// `12 nodes, 3 inputs of 1.5 KiB, 2 kernels of 9 steps`.
    pub fn summary(&self) -> String {
        let (mut n_inputs, mut bytes) = (0, Expr::from(0));
        let (mut n_kernels, mut n_steps) = (0, 0);
        for &id in &self.order {
            let node = self.dag.node(id);
            match &node.op {
                Op::Input { .. } => {
                    n_inputs += 1;
                    bytes += size(&node.ty);
                }
                Op::Kernel(kernel) => {
                    n_kernels += 1;
                    n_steps += kernel.steps.len();
                }
                _ => {}
            }
        }
        let inputs = match n_inputs {
            0 => "no inputs".to_string(),
            n => format!("{} of {}", count(n, "input"), bytes_text(bytes)),
        };
        let kernels = match n_kernels {
            0 => "no kernels".to_string(),
            n => format!("{} of {}", count(n, "kernel"), count(n_steps, "step")),
        };
        format!("{}, {inputs}, {kernels}", count(self.order.len(), "node"))
    }
}

fn numbered(nodes: &[NodeIndex]) -> FxHashMap<NodeIndex, usize> {
    nodes.iter().enumerate().map(|(i, &id)| (id, i)).collect()
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes of a tensor.
pub(super) fn size(ty: &TensorType) -> Expr {
    ty.numel() * ty.dtype.size()
}

/// `24 B`, `1.5 KiB`, `4*s B`.
pub(super) fn bytes_text(bytes: Expr) -> String {
    let Some(n) = bytes.as_usize() else {
        return format!("{bytes} B");
    };
    let (mut value, mut unit) = (n as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value >= 1024.0 {
            (value, unit) = (value / 1024.0, next);
        }
    }
    match unit {
        "B" => format!("{n} B"),
        _ => format!("{value:.1} {unit}"),
    }
}

/// The steps of a kernel and what runs them, `4 steps, native code map_f32_v4`; `None` for other ops.
pub(super) fn kernel_text(op: &Op) -> Option<String> {
    let Op::Kernel(kernel) = op else {
        return None;
    };
    let steps = count(kernel.steps.len(), "step");
    Some(match kernel.code() {
        Some(code) => format!("{steps}, native code {}", code.name().escape_debug()),
        None => format!("{steps}, no native code"),
    })
}

/// Kinds of ops that are coloured alike.
pub(super) fn family(op: &Op) -> &'static str {
    match op {
        Op::Input { .. } => "input",
        Op::Constant(_) | Op::Iota { .. } | Op::Random { .. } => "leaf",
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) => "element",
        Op::Quantize(_) | Op::Dequantize(_) | Op::FakeQuantize(_) => "element",
        Op::PackSigns | Op::UnpackSigns(_) | Op::SignMatrix(..) => "element",
        Op::PackPlanes(_) | Op::UnpackPlanes(..) => "element",
        Op::Reduce(..) => "reduce",
        Op::Gather { .. } | Op::Scatter { .. } => "index",
        Op::Contiguous | Op::Detach | Op::StraightThrough | Op::KnownGradient(_) => "copy",
        Op::Custom(_) => "custom",
        Op::Kernel(_) => "kernel",
    }
}
