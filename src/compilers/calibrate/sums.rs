//! Products with whole rows of a constant → sums over the columns of what it is multiplied by, as further results.

use std::cell::RefCell;

use super::{Calibrate, weight_name};
use crate::compilers::Pass;
use crate::compilers::generic::needed;
use crate::compilers::quantize::weights::walks_rows;
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex, NodeRef, Patch};
use crate::op::{BinaryOp, Op, ReduceOp};
use crate::shape::{Expr, View, numel};

/// The pass; a hit is a sum.
pub struct ColumnSums {
    calibrate: Calibrate,
    notes: RefCell<Vec<String>>,
}

impl ColumnSums {
    pub(super) fn new(calibrate: Calibrate) -> ColumnSums {
        ColumnSums {
            calibrate,
            notes: RefCell::default(),
        }
    }
}

/// A product of a constant's rows.
pub(super) struct Found {
    pub(super) name: String,
    pub(super) columns: usize,
    /// How many rows the other factor has.
    pub(super) rows: Expr,
    /// Whether products of pairs of columns are summed too.
    pub(super) with_products: bool,
    pub(super) mul: NodeIndex,
    /// The other factor, and its rows.
    x: (NodeIndex, View),
    /// The weight's rows as the product sees them, and how many there are.
    weight: (View, usize),
    /// What adds the product up, and along which axis.
    pub(super) sum: (NodeIndex, usize),
}

/// All products that a kept value needs, in order: earlier passes may have left others behind.
///
/// # Errors
/// A circle in the graph.
pub(super) fn find(dag: &Dag, calibrate: &Calibrate) -> Result<Vec<Found>> {
    let (_, needed) = needed(dag)?;
    let mut found = Vec::new();
    for input in dag.ids() {
        if !matches!(dag.node(input).op, Op::Input { .. }) {
            continue;
        }
        let mut at = vec![input];
        while let Some(from) = at.pop() {
            for (reader, slot, view) in dag.readers(from) {
                match &dag.node(reader).op {
                    Op::Cast(_) | Op::Dequantize(_) if dag.is_whole(from, view) => at.push(reader),
                    Op::Binary(BinaryOp::Mul) if needed[reader.index()] => {
                        for sum in sums_of(dag, reader) {
                            let product = (reader, slot, sum);
                            found.extend(site(dag, (input, from), (product, view), calibrate));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}

/// The sums of a product along one axis, one for each axis.
fn sums_of(dag: &Dag, mul: NodeIndex) -> Vec<(NodeIndex, usize)> {
    let sums = dag
        .readers(mul)
        .filter_map(|(sum, _, seen)| match &dag.node(sum).op {
            Op::Reduce(ReduceOp::Sum, axes) if axes.len() == 1 && dag.is_whole(mul, seen) => {
                Some((sum, axes[0]))
            }
            _ => None,
        });
    let mut sums: Vec<(NodeIndex, usize)> = sums.collect();
    sums.sort_by_key(|&(sum, axis)| (axis, sum));
    sums.dedup_by_key(|(_, axis)| *axis);
    sums
}

/// The product, if `weight`, which the input's numbers are, is a matrix whose rows it walks along the summed axis.
fn site(
    dag: &Dag,
    (input, weight): (NodeIndex, NodeIndex),
    ((mul, slot, sum), view): ((NodeIndex, usize, (NodeIndex, usize)), &View),
    calibrate: &Calibrate,
) -> Option<Found> {
    let ty = &dag.node(weight).ty;
    let [n_rows, columns] = ty.dims[..] else {
        return None;
    };
    let n = columns.as_usize().filter(|_| ty.dtype.is_float())?;
    let n_rows = n_rows.as_usize()?;
    let axis = sum.1;
    let by_rows = walks_rows(view, axis, columns);
    let (x, seen) = dag.operands(mul)[1 - slot];
    if !by_rows || !seen.walks(axis) || !dag.node(x).ty.dtype.is_float() {
        return None;
    }
    let mut kept: Vec<usize> = (0..seen.rank())
        .filter(|&at| at != axis && seen.walks(at))
        .collect();
    kept.push(axis);
    let (rows, _) = seen.written_out(&kept).ok()?;
    let dims = rows.dims();
    let name = weight_name(dag, input);
    Some(Found {
        with_products: calibrate.takes_products(&name, n),
        name,
        columns: n,
        rows: numel(&dims[..dims.len() - 1]),
        mul,
        x: (x, rows),
        weight: (view.clone(), n_rows),
        sum,
    })
}

impl Pass for ColumnSums {
    fn name(&self) -> &str {
        "column-sums"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new().appending();
        let found = find(dag, &self.calibrate)?;
        for found in &found {
            found.write(&mut patch, dag)?;
        }
        let mut notes: Vec<String> = found
            .iter()
            .filter(|found| (1..found.columns).contains(&self.calibrate.widest))
            .map(|found| format!("{}: mean squares only, it is wide", found.name))
            .collect();
        if found.is_empty() {
            notes.push("no constant is multiplied by whole rows".into());
        }
        *self.notes.borrow_mut() = notes;
        Ok(patch)
    }

    fn notes(&self) -> Vec<String> {
        self.notes.borrow().clone()
    }
}

impl Found {
    /// How many rows the weight has.
    pub(super) fn n_rows(&self) -> usize {
        self.weight.1
    }

    /// Which axis of the sum the weight's rows are; `None` if they are not one axis of it.
    pub(super) fn row_axis(&self) -> Option<usize> {
        let summed = self.sum.1;
        let (seen, n_rows) = &self.weight;
        let mut walked = (0..seen.rank()).filter(|&axis| axis != summed && seen.walks(axis));
        let axis = walked.next()?;
        let is_one = walked.next().is_none() && seen.dims()[axis].as_usize() == Some(*n_rows);
        is_one.then_some(axis - usize::from(axis > summed))
    }

    /// Adds the sums, and makes them values.
    fn write(&self, patch: &mut Patch, dag: &Dag) -> Result<()> {
        let (x, rows) = self.x.clone();
        let is_narrow = dag.node(x).ty.dtype != DType::F32;
        // Rows in order, so that any number of leading axes is one.
        let op = if is_narrow {
            Op::Cast(DType::F32)
        } else {
            Op::Contiguous
        };
        let x = patch.add(dag, op, vec![(NodeRef::Old(x), rows)], self.mul)?;
        let matrix = View::contiguous((self.rows, self.columns));
        let whole = |patch: &Patch, node| View::contiguous(patch.ty(dag, node).dims.clone());
        let sum = |patch: &mut Patch, factors: [View; 2]| -> Result<()> {
            let factors = factors.map(|view| (x, view)).to_vec();
            let mul = patch.add(dag, Op::Binary(BinaryOp::Mul), factors, self.mul)?;
            let op = Op::Reduce(ReduceOp::Sum, [0].into_iter().collect());
            let seen = whole(patch, mul);
            let sum = patch.add(dag, op, vec![(mul, seen)], self.mul)?;
            let seen = whole(patch, sum);
            patch.expose(sum, seen);
            Ok(())
        };
        sum(patch, [matrix.clone(), matrix.clone()])?;
        if self.with_products {
            let columns = Expr::from(self.columns);
            let across = matrix.insert(2, columns).expect("an axis behind the last");
            let along = matrix.insert(1, columns).expect("an axis before the last");
            sum(patch, [across, along])?;
        }
        Ok(())
    }
}
