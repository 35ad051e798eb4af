//! The listing for terminals.

use std::fmt::Write;

use super::facts::{Ordered, bytes_text, family, kernel_text, size};
use super::fold::folds;
use crate::graph::dag::Dag;

/// Widest column of calls and of types; longer entries move what follows.
const MAX_COLUMN: usize = 48;

/// Ways to write a text; the numbers of ANSI's SGR sequences.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        match self.0 && !text.is_empty() {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_string(),
        }
    }

    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// The colour of a family of ops.
    fn op(self, family: &str, text: &str) -> String {
        let code = match family {
            "input" => "1;33",
            "leaf" => "33",
            "reduce" => "1;35",
            "index" => "35",
            "copy" => "31",
            "kernel" | "custom" => "1;32",
            _ => "1;36",
        };
        self.with(code, text)
    }
}

/// One node's cells.
struct Row {
    number: String,
    title: String,
    operands: String,
    ty: String,
    bytes: String,
    notes: String,
    location: String,
    family: &'static str,
}

impl Row {
    fn new(graph: &Ordered<'_>, at: usize) -> Row {
        let id = graph.order[at];
        let node = graph.dag.node(id);
        let operands: Vec<String> = graph
            .operands(at)
            .iter()
            .map(|(source, view)| graph.seen(*source, view))
            .collect();
        let operands = match operands.is_empty() {
            true => String::new(),
            false => format!("({})", operands.join(", ")),
        };
        let mut notes = Vec::new();
        notes.extend(node.name.as_ref().map(|name| format!("{name:?}")));
        notes.extend(kernel_text(&node.op));
        Row {
            number: format!("%{}", graph.number[&id]),
            title: graph.title(at),
            operands,
            ty: node.ty.to_string(),
            bytes: bytes_text(size(&node.ty)),
            notes: notes.join("  "),
            location: graph.location(at),
            family: family(&node.op),
        }
    }

    fn call_width(&self) -> usize {
        width(&self.title) + width(&self.operands)
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Widths of the columns: number, call, type, bytes.
fn columns<'a>(rows: impl Iterator<Item = &'a Row>) -> [usize; 4] {
    let mut columns = [0; 4];
    for row in rows {
        let cells = [
            width(&row.number),
            row.call_width(),
            width(&row.ty),
            width(&row.bytes),
        ];
        for (column, cell) in columns.iter_mut().zip(cells) {
            if cell <= MAX_COLUMN {
                *column = cell.max(*column);
            }
        }
    }
    columns
}

/// The listing: a line for each node, a repeated block once, then outputs and state updates, then a summary.
pub fn listing(dag: &Dag, color: bool) -> String {
    let graph = Ordered::new(dag);
    let paint = Paint(color);
    let rows: Vec<Row> = (0..graph.order.len())
        .map(|at| Row::new(&graph, at))
        .collect();
    let columns = columns(rows.iter());
    let (mut out, mut at) = (String::new(), 0);
    for fold in folds(&graph) {
        rows[at..fold.start]
            .iter()
            .for_each(|row| line(&mut out, row, "  ", columns, paint));
        let last = &rows[fold.end() - 1].number;
        let head = format!("× {}  ({} nodes each, to {last})", fold.copies, fold.period);
        let _ = writeln!(out, "  {} {}", paint.dim("┌"), paint.with("1", &head));
        let bar = format!("  {} ", paint.dim("│"));
        rows[fold.start..fold.start + fold.period]
            .iter()
            .for_each(|row| line(&mut out, row, &bar, columns, paint));
        let _ = writeln!(out, "  {}", paint.dim("└"));
        at = fold.end();
    }
    rows[at..]
        .iter()
        .for_each(|row| line(&mut out, row, "  ", columns, paint));
    for kept in graph.kept() {
        let _ = writeln!(out, "  {}", paint.with("1", &kept));
    }
    let _ = writeln!(out, "{}", graph.summary());
    out
}

fn line(out: &mut String, row: &Row, indent: &str, columns: [usize; 4], paint: Paint) {
    let pad = |have: usize, want: usize| " ".repeat(want.saturating_sub(have));
    let [number, call, ty, bytes] = columns;
    let cells = [
        format!(
            "{}{}",
            pad(width(&row.number), number),
            paint.dim(&row.number)
        ),
        format!(
            "{}{}{}",
            paint.op(row.family, &row.title),
            row.operands,
            pad(row.call_width(), call)
        ),
        format!("{}{}", paint.with("32", &row.ty), pad(width(&row.ty), ty)),
        format!("{}{}", pad(width(&row.bytes), bytes), row.bytes),
        paint.with("33", &row.notes),
        paint.dim(&row.location),
    ];
    let cells: Vec<&str> = cells
        .iter()
        .map(String::as_str)
        .filter(|cell| !cell.is_empty())
        .collect();
    let _ = writeln!(out, "{indent}{}", cells.join("  "));
}
