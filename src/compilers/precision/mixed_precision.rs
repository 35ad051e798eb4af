//! Values that a back end writes to memory → the same rounded to 16 bits.
//!
//! ```text
//! %3 = mul(%1 {..}, %2 {..}) : f32[4, 3, 2]         %3 = cast<bf16>(%1) : bf16[4, 3]
//! %4 = sum_reduce<1>(%3) : f32[4, 2]             →  %4 = cast<f32>(%3) : f32[4, 3]
//!                                                   %5 = mul(%4 {..}, %2 {..}) : f32[4, 3, 2]
//!                                                   %6 = sum_reduce<1>(%5) : f32[4, 2]
//!                                                   %7 = cast<bf16>(%6) : bf16[4, 2]
//!                                                   %8 = cast<f32>(%7) : f32[4, 2]
//! ```
//! Rounded are, if they are `F32`:
//! 1. what a *product* reads (a sum of products of which one factor does not walk all that stays: a matrix or vector
//!    product, a convolution), if it was computed;
//! 2. a product's result;
//! 3. a result of `Add`, `Mul`, `Select` and copies that several nodes read, if products and inputs alone led to it.
//!
//! Not rounded are results of reductions, exponentials, logarithms, roots and reciprocals, and what is computed from
//! them (norms, softmax), until a product reads it: then only the product sees the rounded number. Neither are inputs,
//! states and kept values, which have the format that they were given.
//!
//! What it deliberately does not do: touch what is inside of a kernel, round numbers that stay in registers.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::is_narrow;
use crate::compilers::Pass;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{AxisSet, BinaryOp, Op, ReduceOp};
use crate::shape::View;

/// The pass; a hit is a product or another value that was rounded or reads something rounded.
pub struct MixedPrecision {
    dtype: DType,
}

impl MixedPrecision {
    pub(super) fn new(dtype: DType) -> MixedPrecision {
        debug_assert!(is_narrow(dtype));
        MixedPrecision { dtype }
    }
}

impl Pass for MixedPrecision {
    fn name(&self) -> &str {
        "mixed-precision"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let kept = dag.kept_nodes();
        let mut rounding = Rounding {
            dag,
            dtype: self.dtype,
            kept: &kept,
            patch: Patch::new(),
            rounded: BTreeSet::new(),
            copies: FxHashMap::default(),
            kinds: FxHashMap::default(),
        };
        for id in dag.topological()? {
            rounding.visit(id)?;
        }
        Ok(rounding.patch)
    }

    fn is_lossy(&self) -> bool {
        true
    }
}

/// What led to a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Inputs and numbers only.
    Given,
    /// Products, and what else bears rounding.
    Narrow,
    /// Something that does not.
    Wide,
}

struct Rounding<'a> {
    dag: &'a Dag,
    dtype: DType,
    kept: &'a BTreeSet<NodeIndex>,
    patch: Patch,
    /// Nodes whose readers all see a rounded value.
    rounded: BTreeSet<NodeIndex>,
    /// Rounded copies of the others, which products read.
    copies: FxHashMap<NodeIndex, NodeRef>,
    kinds: FxHashMap<NodeIndex, Kind>,
}

impl Rounding<'_> {
    fn visit(&mut self, id: NodeIndex) -> Result<()> {
        let product = product_of(self.dag, id);
        let kind = match product {
            Some(_) => Kind::Narrow,
            None => self.kind(id),
        };
        self.kinds.insert(id, kind);
        match product {
            Some(product) => self.product(id, product),
            None if kind == Kind::Narrow && self.is_shared(id) => self.shared(id),
            None => Ok(()),
        }
    }

    fn kind(&self, id: NodeIndex) -> Kind {
        let dag = self.dag;
        let of = |source: NodeIndex| match dag.node(source).ty.dtype {
            DType::F32 => self.kinds[&source],
            _ => Kind::Given,
        };
        let worst = |nodes: &[NodeIndex]| nodes.iter().copied().map(of).max();
        let operands: Vec<NodeIndex> = dag.operands(id).iter().map(|(node, _)| *node).collect();
        match &dag.node(id).op {
            Op::Input { .. } | Op::Constant(_) | Op::Iota { .. } | Op::Random { .. } => Kind::Given,
            Op::Binary(BinaryOp::Add | BinaryOp::Mul)
            | Op::Select
            | Op::Contiguous
            | Op::Detach
            | Op::StraightThrough
            | Op::Gather { .. } => worst(&operands).unwrap_or(Kind::Given),
            // What is computed is the value alone.
            Op::KnownGradient(_) => of(operands[0]),
            Op::Cast(_) if !dag.node(operands[0]).ty.dtype.is_float() => Kind::Given,
            _ => Kind::Wide,
        }
    }

    /// Whether rounding this value saves memory: several read it, and it is not stored in another format anyway.
    fn is_shared(&self, id: NodeIndex) -> bool {
        let readers: BTreeSet<NodeIndex> =
            self.dag.readers(id).map(|(reader, _, _)| reader).collect();
        readers.len() > 1 && self.may_round(id)
    }

    fn may_round(&self, id: NodeIndex) -> bool {
        let node = self.dag.node(id);
        let narrows = |op: &Op| matches!(op, Op::Cast(to) if is_narrow(*to));
        let computed = !node.op.is_leaf() && !matches!(node.op, Op::Scatter { .. });
        let widened = matches!(node.op, Op::Cast(_))
            && is_narrow(self.dag.node(self.dag.operands(id)[0].0).ty.dtype);
        let stored = self
            .dag
            .readers(id)
            .all(|(reader, _, _)| narrows(&self.dag.node(reader).op));
        node.ty.dtype == DType::F32 && computed && !widened && !stored && !self.kept.contains(&id)
    }

    /// `node`, rounded and widened again.
    fn round(&mut self, node: NodeRef, origin: NodeIndex) -> Result<NodeRef> {
        let mut at = node;
        for dtype in [self.dtype, DType::F32] {
            let view = View::contiguous(self.patch.ty(self.dag, at).dims.clone());
            at = self
                .patch
                .add(self.dag, Op::Cast(dtype), vec![(at, view)], origin)?;
        }
        Ok(at)
    }

    /// The same op on the same operands, for readers of `id` will read something else.
    fn again(&mut self, id: NodeIndex) -> Result<NodeRef> {
        let operands = self.dag.operands(id).into_iter();
        let operands = operands.map(|(node, view)| (NodeRef::Old(node), view.clone()));
        let op = self.dag.node(id).op.clone();
        self.patch.add(self.dag, op, operands.collect(), id)
    }

    fn shared(&mut self, id: NodeIndex) -> Result<()> {
        let same = self.again(id)?;
        let rounded = self.round(same, id)?;
        self.patch.replace_with(self.dag, id, rounded);
        self.rounded.insert(id);
        Ok(())
    }

    fn product(&mut self, id: NodeIndex, product: NodeIndex) -> Result<()> {
        let mut operands = Vec::with_capacity(2);
        let mut n_copies = 0;
        for (source, view) in self.dag.operands(product) {
            let read = match self.may_round(source) && !self.rounded.contains(&source) {
                true => self.copy(source)?,
                false => NodeRef::Old(source),
            };
            n_copies += usize::from(read != NodeRef::Old(source));
            operands.push((read, view.clone()));
        }
        let rounds_result = self.may_round(id);
        if n_copies == 0 && !rounds_result {
            return Ok(());
        }
        let mul = Op::Binary(BinaryOp::Mul);
        let mul = self.patch.add(self.dag, mul, operands, product)?;
        let view = self.dag.operands(id)[0].1.clone();
        let op = self.dag.node(id).op.clone();
        let mut sum = self.patch.add(self.dag, op, vec![(mul, view)], id)?;
        if rounds_result {
            sum = self.round(sum, id)?;
            self.rounded.insert(id);
        }
        self.patch.replace_with(self.dag, id, sum);
        Ok(())
    }

    fn copy(&mut self, source: NodeIndex) -> Result<NodeRef> {
        if let Some(&copy) = self.copies.get(&source) {
            return Ok(copy);
        }
        let copy = self.round(NodeRef::Old(source), source)?;
        self.copies.insert(source, copy);
        Ok(copy)
    }
}

/// The multiplication of a sum of products at `id`, if that is one, and nothing else reads it.
fn product_of(dag: &Dag, id: NodeIndex) -> Option<NodeIndex> {
    let node = dag.node(id);
    let Op::Reduce(ReduceOp::Sum, reduced) = &node.op else {
        return None;
    };
    let (product, seen) = dag.operands(id)[0];
    let is_mul = dag.node(product).op == Op::Binary(BinaryOp::Mul);
    if !is_mul || node.ty.dtype != DType::F32 || dag.readers(product).count() > 1 {
        return None;
    }
    let operands = dag.operands(product);
    let [lhs, rhs] = [0, 1].map(|slot| operands[slot].1.compose(seen));
    is_product(&lhs, &rhs, reduced).then_some(product)
}

/// Whether both factors walk a summed axis, and one of them alone walks an axis that stays. So a sum of squares is no
/// product.
fn is_product(lhs: &View, rhs: &View, reduced: &AxisSet) -> bool {
    let axes = || (0..lhs.rank()).filter(|&axis| !lhs.dims()[axis].is_one());
    let both = |axis: usize| lhs.walks(axis) && rhs.walks(axis);
    let one = |axis: usize| lhs.walks(axis) != rhs.walks(axis);
    axes().any(|axis| reduced.contains(&axis) && both(axis))
        && axes().any(|axis| !reduced.contains(&axis) && one(axis))
}
