//! Scores, weights and values → one kernel that never has all scores in memory.
//!
//! Before: `%3 = kernel "contraction"(q, k)`, `%4 = kernel "rows"(%3)`, `%5 = kernel "contraction"(%4, v)`, where
//! nothing else reads `%3` and `%4`. After: one kernel with the steps of all three. Its code computes a block of rows at
//! a time: their scores, from these the weights, from these the rows of the result; scores and weights of a block lie
//! in the scratch memory of its thread.
//!
//! The middle part may be any kernel that works on rows and needs their maximum (`parts`): scaling, a soft cap, masks,
//! softmax. So the pass knows attention by what it needs, not by name. Where a mask hides whole blocks of keys, their
//! products are skipped (`reach`).
//!
//! Not taken: weights that are wanted themselves, or that are read twice (a dropout mask makes no difference, it is part
//! of the rows); scores reduced along the queries; norms between two projections.
//!
//! Bits: every element is computed from the same operands in the same order as by the three kernels, except that
//! products with hidden keys are left out, whose weight is zero. So a NaN or an infinity in the value of a hidden key
//! does not reach the result, and does with three kernels.

mod code;
mod parts;
mod reach;
mod run;

use std::collections::BTreeSet;

pub use code::AttentionCode;
pub use parts::{From, Part, Parts, parts_of};
pub(super) use parts::{extract, is_row_major, sum_of_products};
pub use reach::Reach;

use super::contraction::{contraction_of, replace};
use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, Patch};
use crate::op::{Kernel, KernelInput, KernelStep, Op};

/// The pass.
pub struct Attention;

impl Pass for Attention {
    fn name(&self) -> &str {
        "attention"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let kept = dag.kept_nodes();
        for id in dag.topological()? {
            let Some((kernel, operands)) = candidate(dag, &kept, id) else {
                continue;
            };
            if parts_of(&kernel).is_none() {
                continue;
            }
            replace(&mut patch, dag, id, kernel, operands)?;
        }
        Ok(patch)
    }
}

/// The kernel at a node.
pub(super) fn kernel_at(dag: &Dag, id: NodeIndex) -> Option<&Kernel> {
    match &dag.node(id).op {
        Op::Kernel(kernel) => Some(kernel),
        _ => None,
    }
}

/// The operand of `id` that is a kernel whose result nothing else needs and whose own operand is another such kernel:
/// both, the inner one first.
fn chain(dag: &Dag, kept: &BTreeSet<NodeIndex>, id: NodeIndex) -> Option<[NodeIndex; 2]> {
    let inner = |reader: NodeIndex| {
        let operands = dag.operands(reader).into_iter();
        operands
            .map(|(node, _)| node)
            .filter(|&node| kernel_at(dag, node).is_some() && !kept.contains(&node))
            .filter(|&node| dag.readers(node).all(|(other, ..)| other == reader))
            .collect::<Vec<_>>()
    };
    inner(id).into_iter().find_map(|rows| {
        let mut scores = inner(rows).into_iter();
        let product = |&node: &NodeIndex| kernel_at(dag, node).is_some_and(is_contraction);
        scores.find(product).map(|scores| [scores, rows])
    })
}

pub(super) fn is_contraction(kernel: &Kernel) -> bool {
    contraction_of(kernel).is_some()
}

/// The three kernels that end in `id` as one, with the nodes whose buffers it reads.
fn candidate(
    dag: &Dag,
    kept: &BTreeSet<NodeIndex>,
    id: NodeIndex,
) -> Option<(Kernel, Vec<NodeIndex>)> {
    if !kernel_at(dag, id).is_some_and(is_contraction) {
        return None;
    }
    let [scores, rows] = chain(dag, kept, id)?;
    merged(dag, "attention".into(), &[scores, rows, id])
}

/// Some kernels as one, whose result is the last one's, with the nodes whose buffers it reads. Each may read results of
/// those before it.
pub(super) fn merged(
    dag: &Dag,
    name: String,
    nodes: &[NodeIndex],
) -> Option<(Kernel, Vec<NodeIndex>)> {
    let mut merged = Merged::default();
    for &node in nodes {
        merged.take(dag, node)?;
    }
    let types = merged.sources.iter().map(|&node| dag.node(node).ty.clone());
    let kernel = Kernel::new(name, merged.steps, types.collect());
    Some((kernel, merged.sources))
}

/// Kernels put behind one another.
#[derive(Default)]
struct Merged {
    steps: Vec<KernelStep>,
    sources: Vec<NodeIndex>,
    /// The last step of each kernel taken.
    results: Vec<(NodeIndex, usize)>,
}

impl Merged {
    fn take(&mut self, dag: &Dag, id: NodeIndex) -> Option<()> {
        let kernel = kernel_at(dag, id)?;
        let operands: Vec<KernelInput> = dag
            .operands(id)
            .into_iter()
            .map(|(node, _)| self.operand(node))
            .collect();
        let first = self.steps.len();
        for step in &kernel.steps {
            let moved = |input: &KernelInput| match *input {
                KernelInput::Operand(i) => operands[i],
                KernelInput::Step(i) => KernelInput::Step(first + i),
            };
            let inputs = step.inputs.iter();
            self.steps.push(KernelStep {
                op: step.op.clone(),
                inputs: inputs
                    .map(|(input, view)| (moved(input), view.clone()))
                    .collect(),
                ty: step.ty.clone(),
            });
        }
        self.results.push((id, self.steps.len() - 1));
        Some(())
    }

    fn operand(&mut self, node: NodeIndex) -> KernelInput {
        if let Some(&(_, step)) = self.results.iter().find(|(taken, _)| *taken == node) {
            return KernelInput::Step(step);
        }
        let at = self.sources.iter().position(|&source| source == node);
        KernelInput::Operand(at.unwrap_or_else(|| {
            self.sources.push(node);
            self.sources.len() - 1
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compilers::llvm_cpu::lower;
    use crate::nn::{Mask, ScoreRule};
    use crate::prelude::*;

    /// The parts of attention over 256 queries and keys with a rule, or with weights made by `weights`.
    fn parts(weights: impl Fn(&mut Graph, GraphTensor) -> GraphTensor) -> Parts {
        let mut cx = Graph::new();
        let [q, k, v] = [0; 3].map(|_| cx.input((2, 256, 8), DType::F32));
        let scores = q.matmul(k.transpose(-1, -2));
        weights(&mut cx, scores).matmul(v).retrieve();
        of_graph(cx)
    }

    fn of_rule(mask: Mask, soft_cap: Option<f64>) -> Parts {
        let mut cx = Graph::new();
        let [q, k, v] = [0; 3].map(|_| cx.input((2, 256, 8), DType::F32));
        let rule = ScoreRule {
            scale: 0.5,
            soft_cap,
            mask,
        };
        rule.attend(q, k, v, 0).retrieve();
        of_graph(cx)
    }

    fn of_graph(mut cx: Graph) -> Parts {
        cx.compile(<(Generic, LlvmCpu)>::default(), ());
        let found = cx.inspect(|dag| {
            let kernels = dag.ids().filter_map(|id| kernel_at(dag, id));
            kernels.filter_map(parts_of).next()
        });
        found.expect("an attention kernel")
    }

    /// The blocks of 64 keys that rows 64..128 of a head may see.
    fn seen(parts: &Parts) -> Option<Vec<i64>> {
        let reach = Reach::of(parts)?;
        let numbers: Vec<i64> = reach
            .numbers()
            .iter()
            .map(|number| number.as_const().expect("static sizes"))
            .collect();
        let mut at = vec![(0, 0); parts.nest.space.len() + 1];
        let key = at.len() - 1;
        at[key - 1] = (64, 127);
        let blocks = (0..4).filter(|block| {
            at[key] = (64 * block, 64 * block + 63);
            reach.may_count(&numbers, &at)
        });
        Some(blocks.collect())
    }

    #[test]
    fn keys_that_a_mask_hides_are_skipped() {
        for soft_cap in [None, Some(3.0)] {
            let causal = of_rule(Mask::Causal, soft_cap);
            assert_eq!(seen(&causal), Some(vec![0, 1]), "{soft_cap:?}");
            let window = of_rule(Mask::SlidingWindow(1), soft_cap);
            assert_eq!(seen(&window), Some(vec![1]), "{soft_cap:?}");
        }
    }

    #[test]
    fn a_soft_cap_is_computed_once_per_score() {
        let target = crate::compilers::llvm_cpu::Target::for_cpu("x86-64-v4").unwrap();
        let divisions = |mask: Mask, soft_cap: Option<f64>| {
            let text = lower::ir_text(&of_rule(mask, soft_cap).nest, &target).unwrap();
            text.matches("fdiv <16 x float>").count()
        };
        for mask in [Mask::None, Mask::Causal, Mask::SlidingWindow(7)] {
            assert_eq!(divisions(mask, Some(3.0)), 1, "{mask:?}");
            assert_eq!(divisions(mask, None), 0, "{mask:?}");
        }
    }

    #[test]
    fn nothing_is_skipped_without_a_mask_or_where_hidden_keys_count() {
        assert_eq!(seen(&of_rule(Mask::None, None)), None);
        let masked = |cx: &mut Graph, scores: GraphTensor| {
            let key = cx.arange(256);
            let visible = key.lt(key.unsqueeze(1) + 1);
            visible.where_(scores, f32::NEG_INFINITY)
        };
        let exp = |x: GraphTensor| (x - x.max_keepdim(-1)).exp();
        assert!(seen(&parts(|cx, scores| exp(masked(cx, scores)))).is_some());
        // The weight of a hidden key is one.
        let one = parts(|cx, scores| exp(masked(cx, scores)) + 1.0);
        assert_eq!(seen(&one), None);
        // The score itself is read beside the mask.
        let beside = parts(|cx, scores| exp(masked(cx, scores)) * scores);
        assert_eq!(seen(&beside), None);
    }
}
