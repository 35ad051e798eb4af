//! What a nest evaluates when: once per stage and once for the result.
//!
//! Before: a nest's stages and result. After: a [`Turn`] for each, with the nodes that it evaluates.
//!
//! A costly value that a stage computes and a later turn needs again (the exponentials of a softmax) is kept and read
//! back: in a row on the stack if the row's length is known and not great, else in the output row, until the result
//! overwrites it, where its type is the output's. Other values are computed again, since the row's inputs are in a cache
//! by then. All of this depends on the structure of the nest only.

use super::plan::Plan;
use crate::compilers::llvm_cpu::ir::{BinaryOp, Id, Nest, ReduceOp, Reduction, Scalar, UnaryOp};
use crate::dtype::DType;

/// Which nodes are evaluated, in order.
pub type Phase = Vec<Id>;

/// One walk over a row, or the evaluation of a value per row.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// What is evaluated.
    pub nodes: Phase,
    /// The factors of the reduced value, if it is accumulated by multiply-add.
    pub factors: Option<(Id, Id)>,
    /// The node whose values were kept by an earlier turn.
    pub reads: Option<Id>,
    /// The node whose values are kept.
    pub writes: Option<Id>,
    /// Whether the next row is asked for on the way.
    pub fetches: bool,
}

/// What storing a value and reading it back costs, in additions.
const STORE: usize = 6;

/// The turns of the stages, then that of the result.
pub fn turns(nest: &Nest, types: &[DType]) -> Vec<Turn> {
    let stages = nest.stages.iter().map(|&stage| {
        let factors = factors(nest, types, stage);
        let roots = factors.map_or(vec![stage.value], |(a, b)| vec![a, b]);
        Turn {
            nodes: reachable(nest, &roots),
            factors,
            ..Turn::default()
        }
    });
    let result = Turn {
        nodes: reachable(nest, &[nest.result]),
        ..Turn::default()
    };
    stages.chain([result]).collect()
}

/// The factors of a sum that is accumulated by multiply-add.
fn factors(nest: &Nest, types: &[DType], stage: Reduction) -> Option<(Id, Id)> {
    let Scalar::Binary(BinaryOp::Mul, a, b) = nest.body[stage.value] else {
        return None;
    };
    let float = matches!(types[stage.value], DType::F32 | DType::F64);
    let mut uses = 0;
    for node in &nest.body {
        node.for_each_operand(|id| uses += usize::from(id == stage.value));
    }
    let only = uses == 0 && nest.result != stage.value;
    (stage.kind == ReduceOp::Sum && float && only).then_some((a, b))
}

/// All nodes that `roots` need, in evaluation order.
pub fn reachable(nest: &Nest, roots: &[Id]) -> Phase {
    reachable_past(nest, roots, None)
}

/// [`reachable`], but nothing that only `known` needs.
fn reachable_past(nest: &Nest, roots: &[Id], known: Option<Id>) -> Phase {
    let needed = nest.needed(roots.iter().copied(), known);
    (0..needed.len()).filter(|&id| needed[id]).collect()
}

/// About what one evaluation costs, in additions.
fn cost(node: &Scalar) -> usize {
    match node {
        Scalar::Unary(UnaryOp::Exp2 | UnaryOp::Log2 | UnaryOp::Sin, _) => 20,
        Scalar::Approx(..) => 12,
        Scalar::Unary(..) | Scalar::Binary(BinaryOp::Mod, ..) => 8,
        Scalar::Random { .. } => 40,
        Scalar::Gather { .. } => 8,
        Scalar::Const(_) | Scalar::Size(_) | Scalar::Reduced(_) | Scalar::Coord(_) => 0,
        _ => 1,
    }
}

/// Whether a node's value is the result of an operation.
fn computes(node: &Scalar) -> bool {
    matches!(
        node,
        Scalar::Unary(..)
            | Scalar::Binary(..)
            | Scalar::Select { .. }
            | Scalar::Cast(..)
            | Scalar::Approx(..)
    )
}

/// Decides what the turns of a nest that runs row by row keep for later ones.
pub fn keep_costly_values(plan: &mut Plan<'_>) {
    let nest = plan.nest;
    let varies = plan.varying(Some(plan.rank() - 1));
    let roots: Vec<Vec<Id>> = plan
        .turns
        .iter()
        .enumerate()
        .map(|(turn, t)| match (t.factors, nest.stages.get(turn)) {
            (Some((a, b)), _) => vec![a, b],
            (None, Some(stage)) => vec![stage.value],
            (None, None) => vec![nest.result],
        })
        .collect();
    let phase = |turn: usize, known| reachable_past(nest, &roots[turn], known);
    let price = |turn: usize, known: Option<Id>| {
        let priced = |id: &&Id| varies[**id] && known != Some(**id);
        phase(turn, known)
            .iter()
            .filter(priced)
            .map(|&id| cost(&nest.body[id]))
            .sum::<usize>()
    };
    let mut known = None;
    for turn in 0..plan.turns.len() {
        let nodes = phase(turn, known);
        plan.turns[turn].reads = known.filter(|id| nodes.contains(id));
        let later = |known| {
            (turn + 1..roots.len())
                .map(|next| price(next, known))
                .sum::<usize>()
        };
        let fits = |id: &Id| {
            let size = |id: Id| plan.types[id].size();
            // A row that is read and written in one walk has elements of one size.
            let same = known.is_none_or(|known| size(known) == size(*id));
            let place =
                plan.kept_bytes().is_some() || (nest.per_point && plan.types[*id] == nest.dtype);
            computes(&nest.body[*id]) && varies[*id] && place && same && known != Some(*id)
        };
        let candidates = nodes.iter().copied().filter(fits);
        let best = candidates.min_by_key(|&id| (later(Some(id)), id));
        if turn + 1 < roots.len()
            && let Some(best) = best.filter(|&best| later(Some(best)) + STORE < later(known))
        {
            plan.turns[turn].writes = Some(best);
            known = Some(best);
        }
        plan.turns[turn].nodes = nodes;
    }
    // The first walk waits for memory and the last one writes to it; one in between leaves it idle.
    let last = plan.turns.len() - 1;
    plan.turns[last.min(1)].fetches = true;
}
