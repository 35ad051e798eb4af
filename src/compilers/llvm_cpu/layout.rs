//! Factors of matrix products whose summed steps lie apart → the same written out in rows.
//!
//! ```text
//! %2 = mul(%0 {[s, 9, 8] as heads}, %1 {..})       %2 = contiguous(%0 {[s, 8] as heads}) : f32[s, 8]
//! %3 = sum_reduce<2>(%2)                        →  %3 = mul(%2 {[s, 9, 8] * (8, 0, 1)}, %1 {..})
//!                                                  %4 = sum_reduce<2>(%3)
//! ```
//! Heads that are joined are the common case: the steps of a row come from as many places as there are heads. Kernels
//! of products read whole vectors along the steps or along the rows; reading single elements costs more, at every use,
//! than writing the operand once.
//!
//! Not touched: inputs and constants (weights would be written at every execution), views that repeat elements or pad
//! (windows of a convolution would multiply), factors of other formats than `F32`.

use super::contraction::{candidate, contraction_of, write_factors};
use super::gemm::ir::collapse;
use crate::compilers::Pass;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, Patch};
use crate::op::{AxisSet, Op};
use crate::shape::{Expr, View};

/// The pass.
pub struct Layout;

impl Pass for Layout {
    fn name(&self) -> &str {
        "layout"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.topological()? {
            let Op::Reduce(_, axes) = &dag.node(id).op else {
                continue;
            };
            let (product, seen) = dag.operands(id)[0];
            let is_product = candidate(dag, id).is_some_and(|(k, _)| contraction_of(&k).is_some());
            // Seen with other axes, the summed ones are not the product's.
            let same_axes = *seen == View::contiguous(dag.node(product).ty.dims.clone());
            let alone = same_axes && dag.readers(product).count() == 1;
            if !is_product || !alone {
                continue;
            }
            write_factors(&mut patch, dag, id, |factor, view| {
                rows_of(dag, factor, view, axes)
            })?;
        }
        Ok(patch)
    }
}

/// For a factor that is better written out: the view to write, kept dims before summed ones, and the view of what was
/// written that stands for the factor.
fn rows_of(dag: &Dag, factor: NodeIndex, view: &View, axes: &AxisSet) -> Option<(View, View)> {
    let node = dag.node(factor);
    let computed = !node.op.is_leaf() && !matches!(node.op, Op::Scatter { .. });
    if !computed || node.ty.dtype != DType::F32 {
        return None;
    }
    let all = 0..view.rank();
    let walked = |axis: &usize| view.walks(*axis);
    let kept: Vec<usize> = all
        .clone()
        .filter(|a| !axes.contains(a) && walked(a))
        .collect();
    let summed: Vec<usize> = all.filter(|a| axes.contains(a) && walked(a)).collect();
    if !lies_apart(view, &kept, &summed) {
        return None;
    }
    let (rows, back) = view.written_out(&[kept, summed].concat()).ok()?;
    let whole = rows.numel() == node.ty.numel() && !rows.is_masked();
    whole.then_some((rows, back))
}

/// Whether no axis of `kept` leads to neighbouring elements, and `summed`, taken as one axis, does not either.
fn lies_apart(view: &View, kept: &[usize], summed: &[usize]) -> bool {
    let Some(layer) = view.single() else {
        return true;
    };
    let dims: Vec<Expr> = summed.iter().map(|&axis| layer.dims[axis]).collect();
    let strides: Vec<Expr> = summed.iter().map(|&axis| layer.strides[axis]).collect();
    let neighbours = match collapse(&dims, &strides)[..] {
        [] => true,
        [(_, stride)] => stride.is_one(),
        _ => false,
    };
    !neighbours && !kept.iter().any(|&axis| layer.strides[axis].is_one())
}
