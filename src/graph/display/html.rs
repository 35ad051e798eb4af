//! The interactive page.
//!
//! One file, no link to anywhere: `page.html` with `page.css`, `page.js` and the graphs as JSON put in. Places are
//! computed here; the script draws, moves, searches and tells. It makes all text with `textContent`, the JSON cannot
//! end its element (no `<` in it), and a policy in the page forbids every connection.

use serde_json::{Value, json};

use super::Stage;
use super::facts::{Ordered, bytes_text, family, kernel_text, size};
use super::layout::{HEIGHT, Layout, layout, path};
use super::svg::{box_width, lines};
use crate::graph::dag::Dag;
use crate::graph::text;
use crate::op::Op;

/// The page with these stages; of neighbours with the same graph only the last is shown, under both names.
pub fn to_html(stages: &[Stage]) -> String {
    let mut shown: Vec<(Vec<&str>, &Dag)> = Vec::new();
    for stage in stages {
        match shown.last_mut() {
            Some((names, dag)) if dag.version() == stage.dag.version() => names.push(&stage.name),
            _ => shown.push((vec![&stage.name], &stage.dag)),
        }
    }
    let stages: Vec<Value> = shown
        .into_iter()
        .map(|(names, dag)| stage_json(&names.join(" = "), dag))
        .collect();
    let data = json!({ "height": HEIGHT, "stages": stages });
    let data = data
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    let page = include_str!("page.html");
    let (head, rest) = page.split_once("/*STYLE*/").expect("the page has a style");
    let (middle, rest) = rest.split_once("/*DATA*/").expect("the page has data");
    let (before, after) = rest
        .split_once("/*SCRIPT*/")
        .expect("the page has a script");
    [
        head,
        include_str!("page.css"),
        middle,
        &data,
        before,
        include_str!("page.js"),
        after,
    ]
    .concat()
}

fn stage_json(name: &str, dag: &Dag) -> Value {
    let graph = Ordered::new(dag);
    let n = graph.order.len();
    let texts: Vec<[String; 2]> = (0..n).map(|at| lines(&graph, at)).collect();
    let widths: Vec<f64> = texts.iter().map(box_width).collect();
    let layout = layout(&graph, &widths);
    let nodes: Vec<Value> = (0..n)
        .map(|at| {
            let mut node = node_json(&graph, at);
            node["x"] = json!(layout.x[at]);
            node["y"] = json!(layout.y[at]);
            node["w"] = json!(widths[at]);
            node["lines"] = json!(texts[at]);
            node["in"] = edges_json(&graph, &layout, at);
            node
        })
        .collect();
    json!({
        "name": name,
        "summary": graph.summary(),
        "kept": graph.kept(),
        "width": layout.size.0,
        "height": layout.size.1,
        "nodes": nodes,
    })
}

/// The edges to a node.
fn edges_json(graph: &Ordered<'_>, layout: &Layout, at: usize) -> Value {
    let operands = graph.operands(at);
    let mut edges = Vec::with_capacity(operands.len());
    for (slot, &(source, view)) in operands.iter().enumerate() {
        let from = graph.position[&source];
        edges.push(json!({
            "from": from,
            "view": graph.view_text(source, view),
            "d": path(layout, from, at, slot, operands.len()),
        }));
    }
    Value::Array(edges)
}

/// What the details of a node say.
fn node_json(graph: &Ordered<'_>, at: usize) -> Value {
    let id = graph.order[at];
    let node = graph.dag.node(id);
    let steps = match &node.op {
        Op::Kernel(kernel) => Some(text::step_lines(kernel)),
        _ => None,
    };
    json!({
        "number": graph.number[&id],
        "op": node.op.name(),
        "attributes": text::attributes(&node.op),
        "type": node.ty.to_string(),
        "bytes": bytes_text(size(&node.ty)),
        "name": node.name.as_deref(),
        "location": graph.location(at),
        "family": family(&node.op),
        "kernel": kernel_text(&node.op),
        "steps": steps,
    })
}
