//! Weights → bytes of blocks.

use std::cell::RefCell;
use std::sync::Arc;

use super::Choice;
use crate::compilers::Pass;
use crate::compilers::calibrate::weight_name;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::formats::Calibration;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{BinaryOp, Op, ReduceOp};
use crate::shape::{Expr, View, numel};

/// The pass; a hit is a weight that is stored in blocks.
pub struct WeightBlocks {
    plan: Choice,
    calibration: Arc<Calibration>,
    encodes: bool,
    notes: RefCell<Vec<String>>,
}

impl WeightBlocks {
    pub(super) fn new(plan: Choice, calibration: Arc<Calibration>, encodes: bool) -> WeightBlocks {
        WeightBlocks {
            plan,
            calibration,
            encodes,
            notes: RefCell::default(),
        }
    }
}

impl Pass for WeightBlocks {
    fn name(&self) -> &str {
        "weight-blocks"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        let mut notes = Vec::new();
        let kept = dag.kept_nodes();
        for id in dag.ids() {
            if kept.contains(&id) || !is_weight(dag, id) {
                continue;
            }
            let node = dag.node(id);
            let name = node.name.as_ref().map_or("", |name| name);
            let Some(ty) = (self.plan)(name) else {
                continue;
            };
            let row = node.ty.dims.last().and_then(|dim| dim.as_usize());
            if self.encodes && !ty.can_quantize() {
                notes.push(format!(
                    "{} stays: there is no encoder for {ty}",
                    dag.describe(id)
                ));
            } else if row.is_none_or(|row| !row.is_multiple_of(ty.block_len())) {
                let what = format!("its rows are no whole blocks of {} numbers", ty.block_len());
                notes.push(format!("{} stays: {what}", dag.describe(id)));
            } else {
                patch.store_blocks(id, ty);
                if let Some(stats) = self.calibration.get(&weight_name(dag, id)) {
                    check_columns(dag, id, stats.columns())?;
                    patch.calibrate(id, stats.clone());
                }
            }
        }
        if patch.is_empty() {
            notes.push("no weight was stored in blocks".into());
        }
        *self.notes.borrow_mut() = notes;
        Ok(patch)
    }

    fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }

    fn is_lossy(&self) -> bool {
        true
    }
}

/// The error that a weight has other columns than it was calibrated with.
pub(in crate::compilers) fn check_columns(dag: &Dag, id: NodeIndex, columns: usize) -> Result<()> {
    let row = dag.node(id).ty.dims.last().and_then(|dim| dim.as_usize());
    match row == Some(columns) {
        true => Ok(()),
        false => Err(Error::Node {
            node: dag.describe(id),
            what: format!("is calibrated with {columns} columns: was that another model?"),
        }),
    }
}

/// Whether an input is only multiplied by rows, or looked up by rows.
fn is_weight(dag: &Dag, id: NodeIndex) -> bool {
    let node = dag.node(id);
    let is_input = matches!(node.op, Op::Input { .. }) && node.ty.dtype.is_float();
    if !is_input
        || node.ty.dtype == DType::F64
        || node.ty.dims.len() != 2
        || node.ty.numel().as_usize().is_none()
    {
        return false;
    }
    let mut any = false;
    for (reader, slot, view) in dag.readers(id) {
        any = true;
        let fits = match &dag.node(reader).op {
            Op::Cast(DType::F32) if view.is_identity(node.ty.numel()) => {
                let mut readers = dag.readers(reader);
                readers.all(|(reader, slot, view)| is_by_rows(dag, reader, slot, view, id))
            }
            _ => is_by_rows(dag, reader, slot, view, id),
        };
        if !fits {
            return false;
        }
    }
    any
}

/// Whether an axis of a view runs along whole rows of that many columns of a matrix.
pub(in crate::compilers) fn walks_rows(view: &View, axis: usize, columns: Expr) -> bool {
    let layer = view.single();
    let along = layer.is_some_and(|l| l.strides[axis].is_one() && l.dims[axis] == columns);
    along && !view.is_masked()
}

/// Whether a node multiplies and adds up whole rows of what it reads, or looks rows up.
fn is_by_rows(dag: &Dag, reader: NodeIndex, slot: usize, view: &View, weight: NodeIndex) -> bool {
    match &dag.node(reader).op {
        Op::Gather { axis: 0 } => slot == 0 && view.is_identity(dag.node(weight).ty.numel()),
        Op::Binary(BinaryOp::Mul) => {
            let row = *dag.node(weight).ty.dims.last().expect("it has two");
            let mut sums = dag.readers(reader).peekable();
            sums.peek().is_some()
                && sums.all(|(sum, _, seen)| match &dag.node(sum).op {
                    Op::Reduce(ReduceOp::Sum, axes) => {
                        let whole = dag.is_whole(reader, seen);
                        whole && axes.len() == 1 && walks_rows(view, axes[0], row)
                    }
                    _ => false,
                })
        }
        _ => false,
    }
}

/// Numbers of blocks → the same without a detour through 16 bits, which the weight was stored in.
pub struct NarrowCasts;

impl Pass for NarrowCasts {
    fn name(&self) -> &str {
        "narrow-casts"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.ids() {
            if dag.node(id).op != Op::Cast(DType::F32) {
                continue;
            }
            let (narrow, outer) = dag.operands(id)[0];
            if !matches!(dag.node(narrow).op, Op::Cast(DType::BF16 | DType::F16)) {
                continue;
            }
            let (numbers, inner) = dag.operands(narrow)[0];
            if matches!(dag.node(numbers).op, Op::Dequantize(_)) {
                patch.replace(id, NodeRef::Old(numbers), inner.compose(outer));
            }
        }
        Ok(patch)
    }

    fn is_lossy(&self) -> bool {
        true
    }
}

/// `gather(dequantize(w), rows)` → `dequantize(gather(w, rows))`, also through a cast.
pub struct BlockRows;

impl Pass for BlockRows {
    fn name(&self) -> &str {
        "block-rows"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for id in dag.ids() {
            if let Op::Gather { axis: 0 } = dag.node(id).op {
                decoded_rows(&mut patch, dag, id)?;
            }
        }
        Ok(patch)
    }
}

fn decoded_rows(patch: &mut Patch, dag: &Dag, id: NodeIndex) -> Result<()> {
    let operands = dag.operands(id);
    let ((mut table, view), (index, index_view)) = (operands[0], operands[1]);
    if !view.is_identity(dag.node(table).ty.numel()) {
        return Ok(());
    }
    let mut narrow = None;
    if let Op::Cast(dtype) = dag.node(table).op {
        let (source, view) = dag.operands(table)[0];
        if !view.is_identity(dag.node(source).ty.numel()) {
            return Ok(());
        }
        (table, narrow) = (source, Some(dtype));
    }
    let Op::Dequantize(ty) = dag.node(table).op else {
        return Ok(());
    };
    let (bytes, whole) = dag.operands(table)[0];
    let last = index_view.rank() - 1;
    let stored = dag.node(bytes).ty.clone();
    if last == 0 || index_view.walks(last) || !whole.is_identity(numel(&stored.dims)) {
        return Ok(());
    }
    // One number of a row's index, for each byte of the row.
    let first = index_view
        .slice(last, 0, 1, 1)
        .and_then(|view| view.squeeze(last));
    let Ok(index_view) = first.and_then(|view| view.insert(last, stored.dims[last])) else {
        return Ok(());
    };
    let table = (NodeRef::Old(bytes), View::contiguous(stored.dims.clone()));
    let rows = vec![table, (NodeRef::Old(index), index_view)];
    let mut seen = patch.add(dag, Op::Gather { axis: 0 }, rows, id)?;
    let dims = patch.ty(dag, seen).dims.clone();
    seen = patch.add(
        dag,
        Op::Dequantize(ty),
        vec![(seen, View::contiguous(dims))],
        id,
    )?;
    if let Some(dtype) = narrow {
        let dims = patch.ty(dag, seen).dims.clone();
        seen = patch.add(
            dag,
            Op::Cast(dtype),
            vec![(seen, View::contiguous(dims))],
            id,
        )?;
    }
    patch.replace_with(dag, id, seen);
    Ok(())
}
