//! Which node is computed in which kernel.
//!
//! Nodes are visited readers first. When a node comes up, the kernels of all its readers are known, with the views
//! through which each sees the node from the kernel's own points. A node whose readers all are in one kernel joins it,
//! if it is not evaluated more often than it has elements there. So a value leaves a kernel only from its root, and
//! kernels cannot read each other in a circle.
//!
//! Kernels with reductions that need a pass over each row are *staged*; those that turn out not to fit (see
//! [`crate::compilers::llvm_cpu::lower::runs_by_rows`]) are found at the end, and the grouping is done again with their
//! reductions kept apart.

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::{SmallVec, smallvec};

use super::build::kernel_of;
use super::rules::{Work, can_be_step, finish, is_elementwise, is_free, works};
use crate::compilers::llvm_cpu::rows::Rows;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex};
use crate::op::{AxisSet, Kernel, Op};
use crate::shape::{Dims, Expr, View, numel};

/// The most steps that one kernel takes.
const MAX_STEPS: usize = 160;
/// The most buffers that one kernel reads.
const MAX_OPERANDS: usize = 32;
/// The most views through which one kernel sees one node.
const MAX_VIEWS: usize = 4;
/// How often a grouping is tried before all reductions are kept apart.
const ROUNDS: usize = 4;

/// How the points of a kernel see a node; each view is over the result's dims, or over kept and reduced dims.
type Views = SmallVec<[View; 1]>;

/// A node as one kernel sees it.
struct Use {
    root: NodeIndex,
    views: Views,
    /// Whether a value per row is wanted at every point.
    at_points: bool,
    /// Whether it is wanted through more views than are kept.
    scattered: bool,
}

/// A kernel that grows.
struct Group {
    steps: usize,
    /// Nodes outside that are read.
    reads: FxHashSet<NodeIndex>,
    rows: Option<Rows>,
    n_reductions: usize,
    /// Whether it must run row by row.
    staged: bool,
}

/// The decisions.
pub struct Plan<'a> {
    pub dag: &'a Dag,
    pub order: Vec<NodeIndex>,
    works: Vec<Work>,
    /// Nodes that finish a matrix product.
    finishes: Vec<bool>,
    is_kept: Vec<bool>,
    /// Nodes that may not be part of a staged kernel.
    denied: Vec<bool>,
    is_root: Vec<bool>,
    /// For each node, the kernels that compute it.
    places: Vec<SmallVec<[(NodeIndex, Views); 1]>>,
    groups: FxHashMap<NodeIndex, Group>,
}

impl<'a> Plan<'a> {
    /// Groups the nodes; `runs_by_rows` says whether a staged kernel has code.
    pub fn new(dag: &'a Dag, runs_by_rows: impl Fn(&Kernel) -> bool) -> Result<Plan<'a>> {
        let order = dag.topological()?;
        let mut is_kept = vec![false; dag.bound()];
        for node in dag.kept_nodes() {
            is_kept[node.index()] = true;
        }
        let mut plan = Plan {
            works: works(dag, &order, &is_kept)?,
            finishes: finish(dag, &order, &is_kept),
            dag,
            order,
            is_kept,
            denied: vec![false; dag.bound()],
            is_root: Vec::new(),
            places: Vec::new(),
            groups: FxHashMap::default(),
        };
        for round in 1.. {
            plan.group();
            let failed = plan.failed(&runs_by_rows);
            if failed.is_empty() {
                break;
            }
            plan.deny(&failed, round >= ROUNDS);
        }
        Ok(plan)
    }

    /// Whether a node's value is written to memory.
    pub fn is_root(&self, id: NodeIndex) -> bool {
        self.is_root[id.index()]
    }

    /// Whether the kernel of `root` computes `id`.
    pub fn is_in(&self, id: NodeIndex, root: NodeIndex) -> bool {
        self.places[id.index()].iter().any(|place| place.0 == root)
    }

    fn op(&self, id: NodeIndex) -> &'a Op {
        &self.dag.node(id).op
    }

    fn dims(&self, id: NodeIndex) -> &'a Dims {
        &self.dag.node(id).ty.dims
    }

    fn group(&mut self) {
        self.is_root = vec![false; self.dag.bound()];
        self.places = vec![SmallVec::new(); self.dag.bound()];
        self.groups.clear();
        for i in (0..self.order.len()).rev() {
            self.decide(self.order[i]);
        }
    }

    /// The staged kernels that cannot run row by row.
    fn failed(&self, runs_by_rows: &impl Fn(&Kernel) -> bool) -> FxHashSet<NodeIndex> {
        let staged = self.groups.iter().filter(|(_, group)| group.staged);
        let fails = |&(&root, group): &(&NodeIndex, &Group)| {
            group.n_reductions == 0 || !runs_by_rows(&kernel_of(self, root).0)
        };
        staged.filter(fails).map(|(&root, _)| root).collect()
    }

    /// Keeps what is reduced in these kernels, or in all, out of staged ones.
    fn deny(&mut self, failed: &FxHashSet<NodeIndex>, all: bool) {
        for &id in &self.order {
            let at = id.index();
            let concerned = self.places[at]
                .iter()
                .any(|place| failed.contains(&place.0));
            self.denied[at] |= all || (concerned && !is_free(self.op(id)));
        }
    }

    fn decide(&mut self, id: NodeIndex) {
        let (mut written, uses) = self.uses(id);
        if !written && uses.is_empty() {
            return;
        }
        let op = self.op(id);
        if is_free(op) {
            for used in uses {
                self.place(id, used);
            }
        } else if !written
            && let [used] = &uses[..]
            && self.joins(id, used)
        {
            let [used] = <[Use; 1]>::try_from(uses).unwrap_or_else(|_| unreachable!("it is one"));
            self.place(id, used);
        } else {
            let fits = uses.iter().all(|used| self.has_room(id, used));
            let work = &self.works[id.index()];
            if fits
                && !self.finishes[id.index()]
                && work.is_worth_repeating(op, uses.len(), written)
            {
                for used in uses {
                    self.place(id, used);
                }
            } else {
                written = true;
            }
        }
        if written {
            self.found(id);
        }
    }

    /// Whether a node must be in memory for some reader, and how kernels see it otherwise.
    fn uses(&self, id: NodeIndex) -> (bool, Vec<Use>) {
        let mut written = self.is_kept[id.index()];
        let mut uses: Vec<Use> = Vec::new();
        let mut number_of: FxHashMap<NodeIndex, usize> = FxHashMap::default();
        for (reader, slot, edge) in self.dag.readers(id) {
            let places = &self.places[reader.index()];
            if places.is_empty() {
                continue;
            }
            if !can_be_step(self.op(reader), slot, self.op(id), edge) {
                written = true;
                continue;
            }
            for (root, outer) in places {
                let at = *number_of.entry(*root).or_insert_with(|| {
                    uses.push(Use {
                        root: *root,
                        views: Views::new(),
                        at_points: false,
                        scattered: false,
                    });
                    uses.len() - 1
                });
                let rows = self.groups[root].rows.as_ref();
                match (self.op(reader), rows) {
                    (Op::Reduce(_, axes), Some(rows)) if !axes.is_empty() => {
                        uses[at].see(rows.points(edge, axes), Some(rows));
                    }
                    _ => outer
                        .iter()
                        .for_each(|outer| uses[at].see(Some(edge.compose(outer)), rows)),
                }
            }
        }
        (written, uses)
    }

    /// Makes `id` the root of a kernel of its own.
    fn found(&mut self, id: NodeIndex) {
        let node = self.dag.node(id);
        self.is_root[id.index()] = true;
        let operands = self.dag.operands(id);
        let rows = match &node.op {
            Op::Reduce(_, axes) if !axes.is_empty() => {
                Some(Rows::of_value(&node.ty.dims, operands[0].1.dims(), axes))
            }
            _ => None,
        };
        let reads = operands.iter().map(|operand| operand.0);
        let group = Group {
            steps: 1,
            reads: reads.filter(|&read| !is_free(self.op(read))).collect(),
            n_reductions: usize::from(rows.is_some()),
            rows,
            staged: false,
        };
        self.groups.insert(id, group);
        let whole = View::contiguous(node.ty.dims.clone());
        self.places[id.index()].push((id, smallvec![whole]));
    }

    /// Adds `id` to a kernel.
    fn place(&mut self, id: NodeIndex, used: Use) {
        let operands = self.dag.operands(id);
        let is_read = |id: &NodeIndex| !is_free(&self.dag.node(*id).op);
        let reads = operands.iter().map(|operand| operand.0).filter(is_read);
        let group = self
            .groups
            .get_mut(&used.root)
            .expect("a reader has a group");
        group.steps += used.views.len();
        group.reads.remove(&id);
        group.reads.extend(reads);
        self.places[id.index()].push((used.root, used.views));
    }

    /// Whether a kernel may grow by a node.
    fn has_room(&self, id: NodeIndex, used: &Use) -> bool {
        let group = &self.groups[&used.root];
        let operands = self.dag.operands(id);
        let is_new = |id: &NodeIndex| !is_free(self.op(*id)) && !group.reads.contains(id);
        let new = operands.iter().map(|operand| operand.0).filter(is_new);
        !used.scattered
            && group.steps + used.views.len() <= MAX_STEPS
            && group.reads.len() + new.count() <= MAX_OPERANDS + 1
    }

    /// Whether `id` becomes part of the only kernel that needs it. Notes what that makes of the kernel's rows.
    fn joins(&mut self, id: NodeIndex, used: &Use) -> bool {
        if !self.has_room(id, used) {
            return false;
        }
        match self.op(id) {
            Op::Reduce(_, axes) => self.joins_as_reduction(id, axes, used),
            Op::Gather { .. } => self.is_own(id, used),
            op => is_elementwise(op) && self.joins_as_step(id, used),
        }
    }

    /// Whether a kernel sees a node at the node's own points only.
    fn is_own(&self, id: NodeIndex, used: &Use) -> bool {
        let [view] = &used.views[..] else {
            return false;
        };
        let rows = self.groups[&used.root].rows.as_ref();
        let per_row = rows.filter(|rows| !used.at_points && rows.space == *self.dims(id));
        match per_row {
            Some(rows) => rows.reads_own_row(view),
            None => self.dag.is_whole(id, view) && *view.dims() == self.dims(id)[..],
        }
    }

    fn joins_as_reduction(&mut self, id: NodeIndex, axes: &AxisSet, used: &Use) -> bool {
        let [view] = &used.views[..] else {
            return false;
        };
        let edge = self.dag.operands(id)[0].1;
        let group = &self.groups[&used.root];
        let rows = group.rows.clone().or_else(|| {
            let value = Rows::of_value(view.dims(), edge.dims(), axes);
            let own = value.fits(edge.dims(), axes) && value.reads_own_row(view);
            own.then_some(value).or_else(|| Rows::of_broadcast(view))
        });
        let Some(rows) = rows else { return false };
        let staged = rows.per_point || group.n_reductions > 0;
        let fits = rows.fits(edge.dims(), axes)
            && rows.reads_own_row(view)
            && rows.points(edge, axes).is_some();
        if !fits || (staged && self.denied[id.index()]) {
            return false;
        }
        let group = self
            .groups
            .get_mut(&used.root)
            .expect("a reader has a group");
        group.rows = Some(rows);
        group.n_reductions += 1;
        group.staged |= staged;
        true
    }

    fn joins_as_step(&mut self, id: NodeIndex, used: &Use) -> bool {
        let group = &self.groups[&used.root];
        let size = self.dag.node(id).ty.numel();
        let per_row = |rows: &Rows| used.views.len() == 1 && rows.is_per_row(&used.views[0]);
        let rows = group.rows.clone().filter(|rows| per_row(rows));
        let points: Vec<Expr> = match &rows {
            Some(rows) => vec![numel(&rows.space)],
            None => used.views.iter().map(View::numel).collect(),
        };
        let hoisted = rows.is_some() && used.at_points;
        if is_at_most(&points, size) && !hoisted {
            return true;
        }
        let work = self.works[id.index()];
        if work.is_worth_repeating(self.op(id), 1, false) {
            return false;
        }
        // A value per row that is needed at every point of the row is computed before the loop over the points.
        let new = (group.rows.is_none() && used.views.len() == 1)
            .then(|| Rows::of_broadcast(&used.views[0]))
            .flatten();
        let Some(rows) = rows.or(new.filter(|_| work.reduced)) else {
            return false;
        };
        if self.denied[id.index()] || !is_at_most(&[numel(&rows.space)], size) {
            return false;
        }
        let group = self
            .groups
            .get_mut(&used.root)
            .expect("a reader has a group");
        group.rows = Some(rows);
        group.staged = true;
        true
    }
}

impl Use {
    /// Adds a view, which is over the result's dims or over kept and reduced dims.
    fn see(&mut self, view: Option<View>, rows: Option<&Rows>) {
        let lifted = match (view, rows) {
            (Some(view), Some(rows)) => {
                self.at_points |= view.rank() > rows.space.len();
                rows.lifted(&view)
            }
            (view, _) => view,
        };
        let Some(view) = lifted else {
            self.scattered = true;
            return;
        };
        if self.views.iter().any(|old| old.layers() == view.layers()) {
            return;
        }
        if self.views.len() == MAX_VIEWS {
            self.scattered = true;
            return;
        }
        self.views.push(view);
    }
}

/// Whether some numbers of points are together at most `size`.
fn is_at_most(points: &[Expr], size: Expr) -> bool {
    let total = points
        .iter()
        .fold(Expr::from(0), |total, &points| total + points);
    total == size || (size - total).is_nonnegative()
}
