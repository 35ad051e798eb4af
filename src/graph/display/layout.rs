//! Places for nodes: rows by distance from the leaves, and in each row an order that keeps edges short.
//!
//! Every node is in a lower row than its operands; leaves are in the row above their first reader. Rows are swept
//! down and up a fixed number of times: each node wants to be at the mean of its neighbours, and the row gives it the
//! nearest place that leaves room for the others. Time is linear in nodes and edges but for sorting rows. The same
//! graph always gives the same layout.

use super::facts::Ordered;
use crate::graph::dag::NodeIndex;

/// Height of a node.
pub(super) const HEIGHT: f64 = 36.0;
/// Distance between rows.
const ROW: f64 = 72.0;
/// Distance between neighbours in a row.
const GAP: f64 = 18.0;
/// Room around the picture.
const MARGIN: f64 = 24.0;
/// Sweeps over all rows.
const SWEEPS: usize = 16;

/// Places of all nodes.
pub(super) struct Layout {
    /// Centres, by position in the listing.
    pub x: Vec<f64>,
    /// Upper edges.
    pub y: Vec<f64>,
    /// Width and height of the whole.
    pub size: (f64, f64),
}

/// How much a leaf pulls at its readers and its neighbours, compared with other nodes: leaves come to their readers
/// and make room, so that a chain of ops with a weight each goes straight down.
const LEAF_PULL: f64 = 0.01;

/// What nodes are to their row.
struct Nodes<'a> {
    widths: &'a [f64],
    pulls: Vec<f64>,
}

/// Neighbours of each node with a weight that falls with their distance.
struct Links(Vec<Vec<(usize, f64)>>);

impl Links {
    /// Where the neighbours of a node are in the mean; `None` for a node without any.
    fn mean(&self, at: usize, x: &[f64]) -> Option<f64> {
        let weight: f64 = self.0[at].iter().map(|link| link.1).sum();
        let sum: f64 = self.0[at].iter().map(|&(to, weight)| x[to] * weight).sum();
        (weight > 0.0).then(|| sum / weight)
    }
}

/// Lays out nodes of these widths.
pub(super) fn layout(graph: &Ordered<'_>, widths: &[f64]) -> Layout {
    let n = graph.order.len();
    let rows_of = rows(graph);
    let n_rows = rows_of.iter().max().map_or(0, |&last| last + 1);
    let mut rows = vec![Vec::new(); n_rows];
    (0..n).for_each(|at| rows[rows_of[at]].push(at));
    let is_leaf = |id: &NodeIndex| graph.dag.node(*id).op.is_leaf();
    let pull = |id| if is_leaf(id) { LEAF_PULL } else { 1.0 };
    let nodes = Nodes {
        widths,
        pulls: graph.order.iter().map(pull).collect(),
    };
    let (up, down) = links(graph, &rows_of, &nodes.pulls);
    let mut x = vec![0.0; n];
    for row in &mut rows {
        place(row, &mut x, &nodes, None);
    }
    for sweep in 0..SWEEPS {
        if sweep % 2 == 0 {
            for row in &mut rows {
                place(row, &mut x, &nodes, Some(&up));
            }
        } else {
            for row in rows.iter_mut().rev() {
                place(row, &mut x, &nodes, Some(&down));
            }
        }
    }
    let left = (0..n).map(|at| x[at] - widths[at] / 2.0);
    let left = left.fold(f64::INFINITY, f64::min);
    x.iter_mut().for_each(|x| *x = (*x - left + MARGIN).round());
    let right = (0..n).map(|at| x[at] + widths[at] / 2.0);
    let width = right.fold(0.0, f64::max) + MARGIN;
    let height = n_rows as f64 * ROW + 2.0 * MARGIN - (ROW - HEIGHT).min(n_rows as f64 * ROW);
    let y = rows_of.iter().map(|&row| row as f64 * ROW + MARGIN);
    Layout {
        x,
        y: y.collect(),
        size: (width.ceil(), height.ceil()),
    }
}

/// The row of each node.
fn rows(graph: &Ordered<'_>) -> Vec<usize> {
    let n = graph.order.len();
    let operands = |at: usize| {
        let operands = graph.operands(at);
        operands.into_iter().map(|(id, _)| graph.position[&id])
    };
    let is_leaf = |at: usize| graph.dag.node(graph.order[at]).op.is_leaf();
    let mut rows: Vec<usize> = Vec::with_capacity(n);
    for at in 0..n {
        let below = |from: usize| rows.get(from).map_or(0, |row| row + 1);
        rows.push(operands(at).map(below).max().unwrap_or(0));
    }
    let mut first_reader = vec![usize::MAX; n];
    for (at, &row) in rows.iter().enumerate() {
        for from in operands(at) {
            first_reader[from] = first_reader[from].min(row);
        }
    }
    for at in (0..n).filter(|&at| is_leaf(at) && first_reader[at] != usize::MAX) {
        rows[at] = first_reader[at].saturating_sub(1);
    }
    rows
}

/// Links of each node to its operands and to its readers.
fn links(graph: &Ordered<'_>, rows: &[usize], pulls: &[f64]) -> (Links, Links) {
    let n = graph.order.len();
    let (mut up, mut down) = (vec![Vec::new(); n], vec![Vec::new(); n]);
    for at in 0..n {
        for (id, _) in graph.operands(at) {
            let from = graph.position[&id];
            let weight = 1.0 / rows[at].saturating_sub(rows[from]).max(1) as f64;
            up[at].push((from, weight * pulls[from]));
            down[from].push((at, weight));
        }
    }
    (Links(up), Links(down))
}

/// Orders a row by where its nodes want to be, and puts each as near to that as the others allow.
fn place(row: &mut [usize], x: &mut [f64], nodes: &Nodes<'_>, links: Option<&Links>) {
    let mut wishes: Vec<(f64, usize)> = row
        .iter()
        .map(|&at| {
            let mean = links.and_then(|links| links.mean(at, x));
            (mean.unwrap_or(x[at]), at)
        })
        .collect();
    wishes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    // Where a node would be if all before it in the row had no width: wishes and places are then only to be in order.
    let mut shift = 0.0;
    let mut shifts = Vec::with_capacity(row.len());
    for (i, &(_, at)) in wishes.iter().enumerate() {
        shift += if i > 0 { GAP } else { 0.0 } + nodes.widths[at] / 2.0;
        shifts.push(shift);
        shift += nodes.widths[at] / 2.0;
    }
    // Blocks of nodes that touch, as (place, pull, number of nodes); a block that wants to be left of the one before
    // it joins it.
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for (&(wish, at), shift) in wishes.iter().zip(&shifts) {
        let (mut place, mut pull, mut n) = (wish - shift, nodes.pulls[at], 1);
        while let Some(before) = blocks.pop_if(|before| before.0 >= place) {
            place = (place * pull + before.0 * before.1) / (pull + before.1);
            pull += before.1;
            n += before.2;
        }
        blocks.push((place, pull, n));
    }
    let places = blocks
        .iter()
        .flat_map(|&(place, _, n)| std::iter::repeat_n(place, n));
    for (i, place) in places.enumerate() {
        row[i] = wishes[i].1;
        x[row[i]] = place + shifts[i];
    }
}

/// An edge as an SVG path, from the bottom of one node to the top of another. One that passes rows bends around them.
pub(super) fn path(layout: &Layout, from: usize, to: usize, slot: usize, n_slots: usize) -> String {
    let spread = (slot as f64 + 0.5) / n_slots.max(1) as f64 - 0.5;
    let (x1, y1) = (layout.x[from], layout.y[from] + HEIGHT);
    let (x2, y2) = (layout.x[to] + (spread * 40.0).round(), layout.y[to]);
    let rows = ((y2 - y1) / ROW).floor().max(0.0);
    let bend = match rows {
        0.0 => 0.0,
        _ => 60.0 + 6.0 * rows.min(20.0),
    };
    let side = if x2 >= x1 { 1.0 } else { -1.0 };
    let pull = if rows == 0.0 { (y2 - y1) / 2.0 } else { ROW };
    format!(
        "M{x1} {y1}C{} {},{} {},{x2} {y2}",
        x1 + side * bend,
        y1 + pull,
        x2 + side * bend,
        y2 - pull
    )
}
