//! Products with whole rows of a constant → the same, times a factor for each row; inputs → other values.

use std::collections::BTreeSet;

use super::{Calibrate, sums};
use crate::compilers::{Compiler, Pass, PassList, Report};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::graph::{Dag, Graph, GraphTensor, NodeIndex, NodeRef, Patch, ValueId};
use crate::op::{BinaryOp, Op, ReduceOp};
use crate::shape::View;

/// Multiplies what products with weights give by a factor for each row of the weight, which training can find.
///
/// ```
/// use brain_blitz::compilers::RowFactors;
/// use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// let x = cx.input((1, 2), DType::F32).set([[3.0, 4.0]]);
/// let w = cx.input((2, 2), DType::F32).set_name("w.weight").set([[1.0, 1.0], [1.0, 0.0]]);
/// let y = x.matmul(w.transpose(0, 1)).retrieve();
/// let factors = RowFactors::add_to(&mut cx, ["w.weight"])?;
/// assert_eq!(factors[0].0, "w.weight");
/// let gradient = cx.compile(Autograd::new(factors[0].1, y.sum(..)), ())[0].retrieve();
/// factors[0].1.set([1.0, 2.0]);
/// cx.execute();
/// assert_eq!((y.data(), gradient.data()), (vec![7.0, 6.0], vec![7.0, 3.0]));
/// # Ok::<(), brain_blitz::Error>(())
/// ```
pub struct RowFactors {
    sites: Vec<Site>,
}

/// A product, and its factors.
#[derive(Clone)]
struct Site {
    mul: NodeIndex,
    /// What adds it up, and along which axis.
    sum: (NodeIndex, usize),
    /// Which axis of the result the weight's rows are.
    rows: usize,
    factors: ValueId,
}

impl RowFactors {
    /// Writes them into a recorded graph, for weights of these names that are multiplied once, in `F32`, and have more than one
    /// row; gives the name and the factors of each, an input `[rows]` that is set to ones. To be called before `Autograd`, and with
    /// results retrieved: products that none of them needs are left alone.
    ///
    /// # Errors
    /// A circle in the graph.
    pub fn add_to<'a>(
        cx: &mut Graph,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<(String, GraphTensor)>> {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let all = cx.inspect(|dag| {
            let is_f32 = |found: &sums::Found| dag.node(found.sum.0).ty.dtype == DType::F32;
            let all = sums::find(dag, &Calibrate::default())?;
            Ok::<Vec<_>, Error>(all.into_iter().filter(is_f32).collect())
        })?;
        let (mut sites, mut factors) = (Vec::new(), Vec::new());
        for found in &all {
            let same = all.iter().filter(|other| other.name == found.name);
            let is_wanted = names.contains(&*found.name) && same.count() == 1;
            let Some(rows) = found.row_axis().filter(|_| is_wanted) else {
                continue;
            };
            let n = found.n_rows();
            let factor = cx.input(n, DType::F32).set(vec![1.0; n]);
            factor.set_name(&format!("{}.row_factors", found.name));
            sites.push(Site {
                mul: found.mul,
                sum: found.sum,
                rows,
                factors: factor.value,
            });
            factors.push((found.name.clone(), factor));
        }
        cx.try_compile(RowFactors { sites }, ())?;
        Ok(factors)
    }
}

impl Compiler for RowFactors {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        let sites = self.sites.clone();
        list.push(RowFactors { sites });
    }
}

impl Pass for RowFactors {
    fn name(&self) -> &str {
        "row-factors"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for site in &self.sites {
            let (sum, axis) = site.sum;
            let whole = |node| View::contiguous(dag.node(node).ty.dims.clone());
            let added = Op::Reduce(ReduceOp::Sum, [axis].into_iter().collect());
            let products = vec![(NodeRef::Old(site.mul), whole(site.mul))];
            let again = patch.add(dag, added, products, sum)?;
            let dims = &dag.node(sum).ty.dims;
            let mut seen = View::contiguous([dims[site.rows]]);
            for (at, dim) in dims.iter().enumerate().filter(|(at, _)| *at != site.rows) {
                seen = seen.insert(at, *dim).expect("an axis of the result");
            }
            let factors = NodeRef::Old(dag.source(site.factors)?.node);
            let operands = vec![(again, whole(sum)), (factors, seen)];
            let scaled = patch.add(dag, Op::Binary(BinaryOp::Mul), operands, sum)?;
            patch.replace_with(dag, sum, scaled);
        }
        Ok(patch)
    }

    fn is_lossy(&self) -> bool {
        true
    }
}

/// Whoever reads an input reads another value instead: a pass of one use.
pub(crate) struct Instead(pub(crate) Vec<(ValueId, ValueId)>);

impl Compiler for Instead {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        list.push(Instead(self.0.clone()));
    }
}

impl Pass for Instead {
    fn name(&self) -> &str {
        "instead"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new();
        for &(input, other) in &self.0 {
            let (input, other) = (dag.source(input)?.node, dag.source(other)?.node);
            for (reader, slot, _) in dag.readers(input) {
                patch.reroute(reader, slot, NodeRef::Old(other));
            }
        }
        Ok(patch)
    }

    fn is_lossy(&self) -> bool {
        true
    }
}
