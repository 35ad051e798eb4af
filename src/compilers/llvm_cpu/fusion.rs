//! Chains of elementwise ops, with at most one reduction in them → one kernel.
//!
//! Before: `%1 = mul(%0, %0)`, `%2 = sum_reduce<1>(%1)`, `%3 = mul(%2, %c)`; after: one kernel node that reads `%0`.
//!
//! A node is taken into its reader's kernel (*inlined*) when
//! - it is elementwise, a constant or an iota, or a reduction that its only reader uses as it is (then the reader
//!   and what follows are the reduction's epilogue);
//! - the reader evaluates it at its own points: elementwise ops, the operand of a reduction, the index of a gather;
//! - computing it again for every reader, and for every point along which the reader repeats it, costs little.
//!
//! Every other node that is needed becomes the root of a kernel and is written to memory. Kernels hold the steps that
//! they replaced; [`super::codegen`] turns them into machine code.
//!
//! Not taken: inputs, scatters and custom ops.

use rustc_hash::FxHashMap;

use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{BinaryOp, Kernel, KernelInput, KernelStep, Op, ReduceOp, UnaryOp};
use crate::shape::{View, numel};

/// The most that an inlined tree may cost when it is computed more than once.
const CHEAP: usize = 2;
/// The most steps that one kernel takes.
const MAX_STEPS: usize = 48;

/// The pass.
pub struct Fusion;

impl Pass for Fusion {
    fn name(&self) -> &str {
        "fusion"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let plan = Plan::new(dag)?;
        let mut patch = Patch::new();
        let mut kernels: FxHashMap<NodeIndex, NodeRef> = FxHashMap::default();
        for &root in &plan.order {
            if !plan.is_root(root) || !becomes_kernel(&dag.node(root).op) {
                continue;
            }
            let (kernel, sources) = plan.kernel(root);
            let operands = sources.iter().map(|source| {
                let node = kernels
                    .get(source)
                    .copied()
                    .unwrap_or(NodeRef::Old(*source));
                (node, View::contiguous(dag.node(*source).ty.dims.clone()))
            });
            let new = patch.add(dag, Op::Kernel(kernel.into()), operands.collect(), root)?;
            kernels.insert(root, new);
            patch.replace_with(dag, root, new);
        }
        Ok(patch)
    }
}

/// Ops that compute one element of the result from one point.
fn is_elementwise(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) | Op::Detach
    )
}

fn becomes_kernel(op: &Op) -> bool {
    is_elementwise(op)
        || matches!(
            op,
            Op::Constant(_)
                | Op::Iota { .. }
                | Op::Random { .. }
                | Op::Reduce(..)
                | Op::Contiguous
                | Op::Gather { .. }
        )
}

/// What one evaluation of an op costs, in additions.
fn cost(op: &Op) -> usize {
    match op {
        Op::Unary(UnaryOp::Sqrt | UnaryOp::Recip) => 4,
        Op::Unary(_) | Op::Binary(BinaryOp::Mod) => 10,
        Op::Gather { .. } => 4,
        Op::Random { .. } => 40,
        Op::Binary(_) | Op::Select | Op::Cast(_) => 1,
        _ => 0,
    }
}

struct Plan<'a> {
    dag: &'a Dag,
    order: Vec<NodeIndex>,
    /// For each node: for each operand slot, whether it is inlined.
    inlined: FxHashMap<NodeIndex, Vec<bool>>,
    /// Nodes whose value must be in memory.
    roots: Vec<bool>,
    tree_cost: Vec<usize>,
    tree_steps: Vec<usize>,
    /// Whether a node's inlined tree holds a reduction, itself included.
    has_reduction: Vec<bool>,
    n_readers: Vec<usize>,
}

impl<'a> Plan<'a> {
    fn new(dag: &'a Dag) -> Result<Plan<'a>> {
        let order = dag.topological()?;
        let bound = dag.bound();
        let kept = dag.kept_nodes();
        let mut n_readers = vec![0; bound];
        for &id in &order {
            n_readers[id.index()] = dag.readers(id).count();
        }
        let mut plan = Plan {
            dag,
            order,
            inlined: FxHashMap::default(),
            roots: vec![false; bound],
            tree_cost: vec![0; bound],
            tree_steps: vec![1; bound],
            has_reduction: vec![false; bound],
            n_readers,
        };
        for node in kept {
            plan.roots[node.index()] = true;
        }
        for i in 0..plan.order.len() {
            plan.decide(plan.order[i]);
        }
        Ok(plan)
    }

    fn is_root(&self, id: NodeIndex) -> bool {
        self.roots[id.index()]
    }

    /// Decides which operands of `reader` are inlined.
    fn decide(&mut self, reader: NodeIndex) {
        let op = &self.dag.node(reader).op;
        let mut reduced = matches!(op, Op::Reduce(..));
        let (mut total, mut steps) = (cost(op), 1);
        let mut slots = Vec::new();
        for (slot, (operand, view)) in self.dag.operands(reader).into_iter().enumerate() {
            let at = operand.index();
            let fits =
                steps + self.tree_steps[at] <= MAX_STEPS && !(reduced && self.has_reduction[at]);
            let inline = fits && self.may_inline(reader, slot, operand, view);
            if inline {
                total += self.tree_cost[at];
                steps += self.tree_steps[at];
                reduced |= self.has_reduction[at];
            } else {
                self.roots[at] = true;
            }
            slots.push(inline);
        }
        self.tree_cost[reader.index()] = total;
        self.tree_steps[reader.index()] = steps;
        self.has_reduction[reader.index()] = reduced;
        self.inlined.insert(reader, slots);
    }

    fn may_inline(&self, reader: NodeIndex, slot: usize, operand: NodeIndex, view: &View) -> bool {
        let (reader_op, op) = (&self.dag.node(reader).op, &self.dag.node(operand).op);
        let same_points =
            self.dag.is_whole(operand, view) && *view.dims() == self.dag.node(operand).ty.dims[..];
        let evaluates = match reader_op {
            Op::Contiguous | Op::Reduce(..) => true,
            Op::Gather { .. } => slot == 1,
            other => is_elementwise(other),
        };
        if !evaluates {
            return false;
        }
        match op {
            Op::Constant(_) => true,
            Op::Iota { .. } => view.single().is_some(),
            Op::Gather { .. } => {
                same_points
                    && !matches!(reader_op, Op::Reduce(..))
                    && self.worth_repeating(operand, view)
            }
            Op::Reduce(ReduceOp::Sum | ReduceOp::Max, _) => {
                same_points
                    && is_elementwise(reader_op)
                    && self.n_readers[operand.index()] == 1
                    && !self.is_root(operand)
            }
            other if is_elementwise(other) && self.has_reduction[operand.index()] => {
                same_points
                    && is_elementwise(reader_op)
                    && self.n_readers[operand.index()] == 1
                    && !self.is_root(operand)
            }
            other => is_elementwise(other) && self.worth_repeating(operand, view),
        }
    }

    /// Whether evaluating `operand` inside its reader is no more work than writing it to memory once.
    fn worth_repeating(&self, operand: NodeIndex, view: &View) -> bool {
        let once = self.n_readers[operand.index()] == 1 && !self.is_root(operand);
        let repeats = numel(view.dims()) != self.dag.node(operand).ty.numel();
        (once && !repeats) || self.tree_cost[operand.index()] <= CHEAP
    }

    /// The kernel rooted at `root`, with the nodes whose buffers it reads.
    fn kernel(&self, root: NodeIndex) -> (Kernel, Vec<NodeIndex>) {
        let mut builder = Builder {
            plan: self,
            steps: Vec::new(),
            of: FxHashMap::default(),
            sources: Vec::new(),
        };
        builder.visit(root);
        let Builder { steps, sources, .. } = builder;
        let operands = sources
            .iter()
            .map(|&source| self.dag.node(source).ty.clone())
            .collect();
        (Kernel::new(name_of(&steps), steps, operands), sources)
    }
}

struct Builder<'p, 'a> {
    plan: &'p Plan<'a>,
    steps: Vec<KernelStep>,
    of: FxHashMap<NodeIndex, usize>,
    sources: Vec<NodeIndex>,
}

impl Builder<'_, '_> {
    /// Adds a node and what is inlined into it; returns its step. Depth is bounded by `MAX_STEPS`.
    fn visit(&mut self, id: NodeIndex) -> usize {
        if let Some(&step) = self.of.get(&id) {
            return step;
        }
        let dag = self.plan.dag;
        let slots = &self.plan.inlined[&id];
        let mut inputs = Vec::new();
        for (slot, (operand, view)) in dag.operands(id).into_iter().enumerate() {
            let input = if slots[slot] {
                KernelInput::Step(self.visit(operand))
            } else {
                self.operand(operand)
            };
            inputs.push((input, view.clone()));
        }
        let node = dag.node(id);
        self.steps.push(KernelStep {
            op: node.op.clone(),
            inputs,
            ty: node.ty.clone(),
        });
        self.of.insert(id, self.steps.len() - 1);
        self.steps.len() - 1
    }

    fn operand(&mut self, source: NodeIndex) -> KernelInput {
        let at = self
            .sources
            .iter()
            .position(|&node| node == source)
            .unwrap_or_else(|| {
                self.sources.push(source);
                self.sources.len() - 1
            });
        KernelInput::Operand(at)
    }
}

/// `sum_reduce_mul_4`: the reduction or else the last op, the first op, how many steps.
fn name_of(steps: &[KernelStep]) -> String {
    let reduction = steps.iter().find(|step| matches!(step.op, Op::Reduce(..)));
    let last = steps.last().expect("a kernel has steps");
    let lead = reduction.unwrap_or(last).op.name();
    let computing: Vec<&str> = steps
        .iter()
        .filter(|step| !step.op.is_leaf())
        .map(|step| step.op.name())
        .collect();
    match computing.len() {
        0 | 1 => lead.to_string(),
        n => format!(
            "{lead}_{}_{n}",
            computing[if reduction.is_some() { 0 } else { n - 2 }]
        ),
    }
}
