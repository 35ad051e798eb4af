//! Pictures.

use std::fmt::Write;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::facts::{Ordered, bytes_text, family, kernel_text, size};
use super::layout::{HEIGHT, layout, path};
use crate::graph::dag::Dag;

/// Nodes up to which Graphviz lays out; larger graphs would take it minutes.
const MAX_DOT_NODES: usize = 300;
/// Characters of a line in a node; longer ones end in `…`.
const MAX_LINE: usize = 40;
/// Width of a character of the picture's font.
const CHARACTER: f64 = 6.4;

/// Fill and line colours of a family of ops.
pub(super) fn colors(family: &str) -> (&'static str, &'static str) {
    match family {
        "input" => ("#fff3c4", "#c99a00"),
        "leaf" => ("#f5f0e1", "#a89b6a"),
        "reduce" => ("#ecdcf9", "#8a4fc0"),
        "index" => ("#f9dcec", "#c04f8a"),
        "copy" => ("#f9e0d9", "#c0604f"),
        "kernel" | "custom" => ("#d9f2dc", "#3f8f4f"),
        _ => ("#d9ebf9", "#3f7fb5"),
    }
}

/// The picture, with Graphviz' layout if the program `dot` is installed and the graph is small, else
/// [`layered_svg`].
pub fn to_svg(dag: &Dag) -> String {
    let small = dag.len() <= MAX_DOT_NODES;
    let picture = small.then(|| graphviz(&super::to_dot(dag))).flatten();
    picture.unwrap_or_else(|| layered_svg(dag))
}

/// What `dot` makes of a graph; `None` if anything goes wrong.
fn graphviz(text: &str) -> Option<String> {
    let mut child = Command::new("dot")
        .arg("-Tsvg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let text = text.to_string();
    // The program may write before it has read everything, so somebody else feeds it.
    let feeder = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().ok()?;
    feeder.join().ok()?.ok()?;
    let svg = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && svg.contains("</svg>")).then_some(svg)
}

/// Text for XML; control characters, which it forbids, become their escapes' text.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') => {
                let _ = write!(out, "{}", c.escape_default());
            }
            c => out.push(c),
        }
    }
    out
}

/// The text, cut to the length of a line.
fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_LINE {
        return text.to_string();
    }
    text.chars().take(MAX_LINE - 1).chain(['…']).collect()
}

/// The two lines that stand in a node's box.
pub(super) fn lines(graph: &Ordered<'_>, at: usize) -> [String; 2] {
    let node = graph.dag.node(graph.order[at]);
    let title = match &node.name {
        Some(name) => format!("{} {name:?}", graph.title(at)),
        None => graph.title(at),
    };
    [cut(&title), cut(&node.ty.to_string())]
}

/// Width of a box with these lines.
pub(super) fn box_width(lines: &[String; 2]) -> f64 {
    let longest = lines.iter().map(|line| line.chars().count()).max();
    (longest.unwrap_or(0) as f64 * CHARACTER + 16.0).ceil()
}

/// All of what a tooltip says.
fn tooltip(graph: &Ordered<'_>, at: usize) -> String {
    let node = graph.dag.node(graph.order[at]);
    let operands: Vec<String> = graph
        .operands(at)
        .iter()
        .map(|(source, view)| graph.seen(*source, view))
        .collect();
    let mut lines = vec![
        format!("%{} = {}", graph.number[&graph.order[at]], graph.title(at)),
        operands.join(", "),
        format!("{}, {}", node.ty, bytes_text(size(&node.ty))),
    ];
    lines.extend(node.name.as_ref().map(|name| format!("{name:?}")));
    lines.extend(kernel_text(&node.op));
    lines.push(graph.location(at));
    lines.retain(|line| !line.is_empty());
    lines
        .iter()
        .map(|line| escaped(line))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The picture, the same on every machine.
pub fn layered_svg(dag: &Dag) -> String {
    let graph = Ordered::new(dag);
    let texts: Vec<[String; 2]> = (0..graph.order.len()).map(|at| lines(&graph, at)).collect();
    let widths: Vec<f64> = texts.iter().map(box_width).collect();
    let layout = layout(&graph, &widths);
    let (width, height) = layout.size;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" font-family=\"monospace\" font-size=\"10.5\" text-anchor=\"middle\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<g fill=\"none\" stroke=\"#9a9a9a\">\n"
    );
    for at in 0..graph.order.len() {
        let operands = graph.operands(at);
        for (slot, (source, _)) in operands.iter().enumerate() {
            let d = path(&layout, graph.position[source], at, slot, operands.len());
            let _ = writeln!(out, "<path d=\"{d}\"/>");
        }
    }
    out.push_str("</g>\n");
    for (at, text) in texts.iter().enumerate() {
        let (fill, line) = colors(family(&dag.node(graph.order[at]).op));
        let (x, y) = (layout.x[at], layout.y[at]);
        let _ = writeln!(
            out,
            "<g><title>{}</title><rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{HEIGHT}\" rx=\"5\" fill=\"{fill}\" stroke=\"{line}\"/><text x=\"{x}\" y=\"{}\" font-weight=\"bold\">{}</text><text x=\"{x}\" y=\"{}\">{}</text></g>",
            tooltip(&graph, at),
            x - widths[at] / 2.0,
            widths[at],
            y + 15.0,
            escaped(&text[0]),
            y + 29.0,
            escaped(&text[1]),
        );
    }
    out.push_str("</svg>\n");
    out
}
