//! Factors of products with blocks → the same rounded to 8 bits.

use crate::compilers::Pass;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{ActivationScheme, BinaryOp, Op, ReduceOp};
use crate::shape::View;

/// The pass; a hit is a product.
pub struct RoundActivations {
    /// If not that of the weights' type.
    scheme: Option<ActivationScheme>,
}

impl RoundActivations {
    pub(super) fn new(scheme: Option<ActivationScheme>) -> RoundActivations {
        RoundActivations { scheme }
    }
}

impl Pass for RoundActivations {
    fn name(&self) -> &str {
        "round-activations"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for sum in dag.topological()? {
            let Op::Reduce(ReduceOp::Sum, axes) = &dag.node(sum).op else {
                continue;
            };
            let (product, seen) = dag.operands(sum)[0];
            let is_product = dag.node(product).op == Op::Binary(BinaryOp::Mul);
            if is_product && axes.len() == 1 && dag.is_whole(product, seen) {
                self.product(&mut patch, dag, (product, sum), axes[0])?;
            }
        }
        Ok(patch)
    }

    fn is_lossy(&self) -> bool {
        true
    }
}

impl RoundActivations {
    /// A product of which one factor is made of blocks along `axis`.
    fn product(
        &self,
        patch: &mut Patch,
        dag: &Dag,
        (product, sum): (NodeIndex, NodeIndex),
        axis: usize,
    ) -> Result<()> {
        let factors = dag.operands(product);
        // Only an input's are weights: what attention multiplies by the blocks of a cache stays as it is.
        let blocks = |at: usize| match dag.node(factors[at].0).op {
            Op::Dequantize(ty) => {
                let (source, _) = dag.operands(factors[at].0)[0];
                matches!(dag.node(source).op, Op::Input { .. }).then_some(ty)
            }
            _ => None,
        };
        let (weights, ty) = match (blocks(0), blocks(1)) {
            (Some(ty), None) => (0, ty),
            (None, Some(ty)) => (1, ty),
            _ => return Ok(()),
        };
        let (x, view) = factors[1 - weights];
        if matches!(dag.node(x).op, Op::FakeQuantize(_)) || !view.walks(axis) {
            return Ok(());
        }
        let mut kept: Vec<usize> = (0..view.rank())
            .filter(|&at| at != axis && view.walks(at))
            .collect();
        kept.push(axis);
        let Ok((rows, back)) = view.written_out(&kept) else {
            return Ok(());
        };
        let scheme = self.scheme;
        let scheme = scheme.unwrap_or_else(|| ActivationScheme::for_weights(ty));
        let rounded = Op::FakeQuantize(scheme);
        let rounded = patch.add(dag, rounded, vec![(NodeRef::Old(x), rows)], product)?;
        let mut operands = vec![(rounded, back); 2];
        let (source, view) = factors[weights];
        operands[weights] = (NodeRef::Old(source), view.clone());
        let mul = patch.add(dag, dag.node(product).op.clone(), operands, product)?;
        let seen = View::contiguous(dag.node(product).ty.dims.clone());
        let new = patch.add(dag, dag.node(sum).op.clone(), vec![(mul, seen)], sum)?;
        patch.replace_with(dag, sum, new);
        Ok(())
    }
}
