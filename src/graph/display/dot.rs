//! Graphviz' language.

use std::fmt::Write;

use super::facts::{Ordered, bytes_text, family, kernel_text, size};
use super::svg::colors;
use crate::graph::dag::Dag;

/// A string of the language, quoted. Control characters become their escapes' text.
fn quoted(lines: &[String]) -> String {
    let mut out = String::from("\"");
    for (i, line) in lines.iter().enumerate() {
        out.push_str(if i > 0 { "\\n" } else { "" });
        for c in line.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => {
                    let _ = write!(
                        out,
                        "{}",
                        c.escape_default().to_string().replace('\\', "\\\\")
                    );
                }
                c => out.push(c),
            }
        }
    }
    out.push('"');
    out
}

/// The graph in Graphviz' language: a box for each node, an edge for each operand, labelled with its view.
pub fn to_dot(dag: &Dag) -> String {
    let graph = Ordered::new(dag);
    let mut out = String::from(
        "digraph brain_blitz {\n  rankdir=TB;\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\", fontsize=10];\n  edge [fontname=\"sans-serif\", fontsize=8, color=\"#888888\"];\n",
    );
    for (at, id) in graph.order.iter().enumerate() {
        let node = dag.node(*id);
        let number = graph.number[id];
        let mut label = vec![
            format!("%{number} {}", graph.title(at)),
            format!("{}  {}", node.ty, bytes_text(size(&node.ty))),
        ];
        label.extend(kernel_text(&node.op));
        label.extend(node.name.as_ref().map(|name| format!("{name:?}")));
        label.push(graph.location(at));
        let (fill, line) = colors(family(&node.op));
        let _ = writeln!(
            out,
            "  n{number} [label={}, fillcolor=\"{fill}\", color=\"{line}\"];",
            quoted(&label)
        );
        for (source, view) in graph.operands(at) {
            let from = graph.number[&source];
            let label = graph.view_text(source, view);
            let label = label.map(|view| format!(" [label={}]", quoted(&[view])));
            let _ = writeln!(out, "  n{from} -> n{number}{};", label.unwrap_or_default());
        }
    }
    for (i, kept) in graph.kept().iter().enumerate() {
        let _ = writeln!(
            out,
            "  kept{i} [label={}, shape=plaintext, style=\"\"];",
            quoted(std::slice::from_ref(kept))
        );
    }
    for (i, id) in kept_sources(dag).into_iter().enumerate() {
        let _ = writeln!(out, "  n{} -> kept{i} [style=dashed];", graph.number[&id]);
    }
    out.push_str("}\n");
    out
}

/// The nodes that the lines of [`Ordered::kept`] end with.
fn kept_sources(dag: &Dag) -> Vec<crate::graph::NodeIndex> {
    let node = |value| dag.value(value).source.as_ref().map(|source| source.node);
    let outputs = dag.outputs().iter().filter_map(|&value| node(value));
    let assigns = dag
        .assigns()
        .iter()
        .filter_map(|&(state, new)| node(state).and_then(|_| node(new)));
    outputs.chain(assigns).collect()
}
