//! A group of nodes → the kernel that computes its root.

use rustc_hash::FxHashMap;

use super::groups::Plan;
use super::rules::{can_be_step, reduces};
use crate::graph::NodeIndex;
use crate::op::{Kernel, KernelInput, KernelStep};

/// The kernel rooted at `root`, with the nodes whose buffers it reads.
pub fn kernel_of(plan: &Plan<'_>, root: NodeIndex) -> (Kernel, Vec<NodeIndex>) {
    let mut builder = Builder {
        plan,
        root,
        steps: Vec::new(),
        of: FxHashMap::default(),
        sources: Vec::new(),
        number_of: FxHashMap::default(),
    };
    builder.visit(root);
    let Builder { steps, sources, .. } = builder;
    let operands = sources
        .iter()
        .map(|&source| plan.dag.node(source).ty.clone())
        .collect();
    (Kernel::new(name_of(&steps), steps, operands), sources)
}

struct Builder<'p, 'a> {
    plan: &'p Plan<'a>,
    root: NodeIndex,
    steps: Vec<KernelStep>,
    of: FxHashMap<NodeIndex, usize>,
    sources: Vec<NodeIndex>,
    number_of: FxHashMap<NodeIndex, usize>,
}

impl Builder<'_, '_> {
    /// Adds a node and what is computed with it; returns its step. Depth is bounded by the number of steps.
    fn visit(&mut self, id: NodeIndex) -> usize {
        if let Some(&step) = self.of.get(&id) {
            return step;
        }
        let dag = self.plan.dag;
        let node = dag.node(id);
        let mut inputs = Vec::new();
        for (slot, (operand, view)) in dag.operands(id).into_iter().enumerate() {
            let inside = self.plan.is_in(operand, self.root)
                && can_be_step(&node.op, slot, &dag.node(operand).op, view);
            let input = if inside {
                KernelInput::Step(self.visit(operand))
            } else {
                self.operand(operand)
            };
            inputs.push((input, view.clone()));
        }
        self.steps.push(KernelStep {
            op: node.op.clone(),
            inputs,
            ty: node.ty.clone(),
        });
        self.of.insert(id, self.steps.len() - 1);
        self.steps.len() - 1
    }

    fn operand(&mut self, source: NodeIndex) -> KernelInput {
        let number = *self.number_of.entry(source).or_insert_with(|| {
            self.sources.push(source);
            self.sources.len() - 1
        });
        KernelInput::Operand(number)
    }
}

/// `sum_reduce_mul_4`: the reductions, the first op that is none, how many steps. Without reductions the last two ops.
fn name_of(steps: &[KernelStep]) -> String {
    let mut reductions = Vec::new();
    let mut others = Vec::new();
    for step in steps.iter().filter(|step| !step.op.is_leaf()) {
        let list = if reduces(&step.op) {
            &mut reductions
        } else {
            &mut others
        };
        list.push(step.op.name());
    }
    let n = reductions.len() + others.len();
    reductions.dedup();
    let lead = reductions.join("_");
    match (&others[..], lead.is_empty()) {
        ([], true) => steps.last().expect("a kernel has steps").op.name().into(),
        ([], false) => lead,
        ([only], true) => only.to_string(),
        ([.., before, last], true) => format!("{last}_{before}_{n}"),
        ([first, ..], false) => format!("{lead}_{first}_{n}"),
    }
}
