//! Finds repeated layers: blocks of equal structure, one after the other.
//!
//! Two blocks are equal when their nodes agree one by one in op and type (numbers of inputs and names do not count)
//! and in their operands: at the same distance, or the same node from before the first block. The search takes the
//! repetition that saves most lines, then goes on before and after it.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::facts::Ordered;
use crate::op::Op;

/// Longest block that is looked for.
const MAX_PERIOD: usize = 4096;
/// Lines that a fold must save to be worth it.
const MIN_SAVED: usize = 8;

/// `copies` blocks of `period` nodes, from `start`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fold {
    pub start: usize,
    pub period: usize,
    pub copies: usize,
}

impl Fold {
    /// One past the last node.
    pub fn end(self) -> usize {
        self.start + self.period * self.copies
    }

    fn saved(self) -> usize {
        self.period * (self.copies - 1)
    }
}

/// A node as the search sees it.
struct Shape {
    /// Hash of op, type and views.
    kind: u64,
    /// Positions of the operands.
    operands: Vec<usize>,
}

/// All repetitions, in order and apart from each other.
pub(super) fn folds(graph: &Ordered<'_>) -> Vec<Fold> {
    let shapes: Vec<Shape> = (0..graph.order.len()).map(|at| shape(graph, at)).collect();
    let mut found = Vec::new();
    let mut open = vec![(0, shapes.len())];
    while let Some((from, to)) = open.pop() {
        if let Some(fold) = best(&shapes, from, to) {
            open.push((from, fold.start));
            open.push((fold.end(), to));
            found.push(fold);
        }
    }
    found.sort_by_key(|fold| fold.start);
    found
}

fn shape(graph: &Ordered<'_>, at: usize) -> Shape {
    let node = graph.dag.node(graph.order[at]);
    let mut hasher = FxHasher::default();
    match &node.op {
        // All inputs are different ops; here only their types count.
        Op::Input { .. } => "input".hash(&mut hasher),
        op => op.hash(&mut hasher),
    }
    node.ty.hash(&mut hasher);
    let mut operands = Vec::new();
    for (operand, view) in graph.operands(at) {
        view.hash(&mut hasher);
        operands.push(graph.position[&operand]);
    }
    Shape {
        kind: hasher.finish(),
        operands,
    }
}

/// The repetition between two positions that saves most, the first and shortest of those.
fn best(shapes: &[Shape], from: usize, to: usize) -> Option<Fold> {
    let mut best: Option<Fold> = None;
    for period in 1..=((to - from) / 2).min(MAX_PERIOD) {
        let mut start = from;
        while start + 2 * period <= to {
            let run = run(shapes, start, period, to);
            let fold = Fold {
                start,
                period,
                copies: run / period + 1,
            };
            if fold.saved() >= MIN_SAVED && best.is_none_or(|best| fold.saved() > best.saved()) {
                best = Some(fold);
            }
            start += run + 1;
        }
    }
    best
}

/// How many nodes from `start` on are like those one period later.
fn run(shapes: &[Shape], start: usize, period: usize, to: usize) -> usize {
    let same = |&at: &usize| {
        let (a, b) = (&shapes[at], &shapes[at + period]);
        // From the second copy on, an operand has to go on as it did before: along, or staying.
        let before = (at >= start + period).then(|| &shapes[at - period]);
        let follows = |slot: usize| {
            let (x, y) = (a.operands[slot], b.operands[slot]);
            let moved = x + period == y;
            let stayed = x == y && x < start;
            let did = before.map(|before| before.operands[slot] != x);
            (moved || stayed) && did.is_none_or(|did| did == moved)
        };
        a.kind == b.kind
            && a.operands.len() == b.operands.len()
            && (0..a.operands.len()).all(follows)
    };
    (start..to - period).take_while(same).count()
}
