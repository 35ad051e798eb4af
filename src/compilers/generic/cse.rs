//! Common-subexpression elimination: equal ops on equal operands become one node.
//!
//! ```text
//! %1 = exp2(%0) : f32[2]           %1 = exp2(%0) : f32[2]
//! %2 = exp2(%0) : f32[2]      →    %2 = mul(%1, %1) : f32[2]
//! %3 = mul(%1, %2) : f32[2]
//! ```
//! Nodes are equal when their ops are (structurally: a [`CustomOp`](crate::op::CustomOp) through its `key`, a `Random`
//! through seed, step and shape) and they read the same nodes through the same views; the operands of a commutative
//! op in any order. Merging earlier nodes makes later ones equal within the same sweep. Of equal nodes the first in
//! topological order stays, with its name.
//!
//! What it deliberately does not do: it never merges inputs, which are equal only to themselves, nor nodes that are
//! [late](Turn::Late) on purpose, which would bring back what they are there to avoid; it compares views by
//! structure, so two ways of writing the same view that did not become the same normal form stay apart.
//!
//! Candidates are found by hash and then compared, so no keys are stored.

use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHasher};
use smallvec::SmallVec;

use super::sweep::{Operands, Seen, Sweep, sweep};
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch, Turn};
use crate::op::Op;
use crate::shape::View;

/// The pass `cse`; a hit is a node that was equal to an earlier one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cse;

/// Nodes by the hash of their structure; those in one place differ.
type Table = FxHashMap<u64, SmallVec<[NodeIndex; 1]>>;

impl Pass for Cse {
    fn name(&self) -> &str {
        "cse"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut table = Table::default();
        sweep(dag, |sweep, id| {
            merge(sweep, &mut table, id);
            Ok(())
        })
    }
}

fn merge(sweep: &mut Sweep, table: &mut Table, id: NodeIndex) {
    let op = &sweep.dag.node(id).op;
    if matches!(op, Op::Input { .. }) {
        return;
    }
    let operands = canonical(sweep, id);
    let late = late(sweep, id);
    let candidates = table.entry(hash((op, &operands))).or_default();
    let equal = |&&other: &&NodeIndex| {
        let same = self::late(sweep, other) == late && sweep.dag.node(other).op == *op;
        same && canonical(sweep, other) == operands
    };
    match candidates.iter().find(equal).copied() {
        Some(first) => {
            let view = View::contiguous(sweep.dag.node(first).ty.dims.clone());
            sweep.replace(id, (NodeRef::Old(first), view));
        }
        None => candidates.push(id),
    }
}

/// The number of a node that is computed late: it is equal only to nodes that came in its place.
fn late(sweep: &Sweep, id: NodeIndex) -> Option<u32> {
    match sweep.dag.node(id).turn {
        Turn::Late(number) => Some(number),
        Turn::Recorded(_) => None,
    }
}

/// The operands in an order that does not depend on how a commutative op was written.
fn canonical(sweep: &Sweep, id: NodeIndex) -> Operands {
    let mut operands = sweep.operands(NodeRef::Old(id));
    if sweep.dag.node(id).op.row().commutative && operands[0] != operands[1] {
        let rank = |(node, view): &Seen| (number(*node), hash(view));
        operands.sort_by_key(rank);
    }
    operands
}

fn number(node: NodeRef) -> (usize, usize) {
    match node {
        NodeRef::Old(id) => (0, id.index()),
        NodeRef::New(i) => (1, i),
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    value.hash(&mut hasher);
    hasher.finish()
}
