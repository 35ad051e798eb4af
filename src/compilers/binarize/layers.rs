//! Where a graph multiplies by rows of a constant.

use rustc_hash::{FxHashMap, FxHashSet};

use super::one_signed::one_signed;
use super::products::rounded;
use super::{Layer, SignActivations};
use crate::dtype::DType;
use crate::error::Result;
use crate::graph::{Dag, NodeIndex};
use crate::op::{BinaryOp, Op, ReduceOp};
use crate::shape::View;

/// `sum(x * w)` along the last axis of `w [rows, columns]`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) sum: NodeIndex,
    pub(super) mul: NodeIndex,
    /// Which operand of `mul` the weight is.
    pub(super) weight: usize,
    /// The axis of `mul` that walks rows of the weight.
    pub(super) n: usize,
    /// The axis of `mul` that is summed.
    pub(super) k: usize,
}

impl Product {
    /// The products that a node which reads a weight of these sizes makes; `None` if it makes something else of it.
    pub(super) fn all_of(
        dag: &Dag,
        mul: NodeIndex,
        (weight, view): (usize, &View),
        (rows, columns): (usize, usize),
    ) -> Option<Vec<Product>> {
        let node = dag.node(mul);
        if node.op != Op::Binary(BinaryOp::Mul) || node.ty.dtype != DType::F32 || view.is_masked() {
            return None;
        }
        let sums = dag.readers(mul);
        let products = sums.map(|(sum, _, seen)| {
            let Op::Reduce(ReduceOp::Sum, axes) = &dag.node(sum).op else {
                return None;
            };
            let [k] = axes[..] else {
                return None;
            };
            let n = last_walked(view, k)?;
            let (walk, _) = view.written_out(&[n, k]).ok()?;
            let others = (0..view.rank()).filter(|&axis| axis != n && axis != k);
            let is_matrix = others.into_iter().all(|axis| !view.walks(axis))
                && walk.is_identity((rows * columns).into())
                && walk.dims()[..] == View::contiguous((rows, columns)).dims()[..];
            // The other factor has rows of its own in front of the weight's.
            let (_, x) = dag.operands(mul)[1 - weight];
            let fits = x.walks(k) && !x.walks(n) && last_walked(x, k).is_none_or(|m| m < n);
            let fits = is_matrix && fits && dag.is_whole(mul, seen);
            fits.then_some(Product {
                sum,
                mul,
                weight,
                n,
                k,
            })
        });
        let products: Option<Vec<Product>> = products.collect();
        products.filter(|products| !products.is_empty())
    }
}

/// The last axis but `k` that a view walks. One of size 1 is walked by nobody: there it is the last axis.
fn last_walked(view: &View, k: usize) -> Option<usize> {
    (0..view.rank()).rfind(|&axis| axis != k && view.walks(axis))
}

/// A constant that some product multiplies by.
pub(super) struct Found {
    pub(super) weight: NodeIndex,
    pub(super) layer: Layer,
    /// Why it cannot be stored as signs.
    pub(super) obstacle: Option<&'static str>,
}

/// All such constants, in order.
///
/// # Errors
/// A circle in the graph.
pub(super) fn find(dag: &Dag) -> Result<Vec<Found>> {
    let kept = dag.kept_nodes();
    let mut found = Vec::new();
    for id in dag.ids() {
        let node = dag.node(id);
        let dims: Vec<_> = node.ty.dims.iter().map(|dim| dim.as_usize()).collect();
        let (Op::Input { .. }, [Some(rows), Some(columns)]) = (&node.op, &dims[..]) else {
            continue;
        };
        let sizes = (*rows, *columns);
        let is_float = node.ty.dtype.is_float() && node.ty.dtype != DType::F64;
        let (products, uses) = uses(dag, id, sizes);
        if products.is_empty() || !is_float || rows * columns == 0 {
            continue;
        }
        let obstacle = if kept.contains(&id) {
            Some("it is kept or written to")
        } else {
            uses
        };
        found.push((id, products, obstacle));
    }
    describe(dag, found)
}

/// The products of an input, and what else is done with it.
fn uses(dag: &Dag, id: NodeIndex, sizes: (usize, usize)) -> (Vec<Product>, Option<&'static str>) {
    let (mut products, mut other) = (Vec::new(), None);
    let whole = dag.node(id).ty.numel();
    let mut at = vec![id];
    while let Some(from) = at.pop() {
        for (reader, slot, view) in dag.readers(from) {
            match &dag.node(reader).op {
                Op::Cast(DType::F32) if view.is_identity(whole) => at.push(reader),
                Op::Gather { .. } => other = Some("rows of it are looked up"),
                _ => match Product::all_of(dag, reader, (slot, view), sizes) {
                    Some(found) => products.extend(found),
                    None => other = Some("it is used otherwise too"),
                },
            }
        }
    }
    (products, other)
}

fn describe(
    dag: &Dag,
    found: Vec<(NodeIndex, Vec<Product>, Option<&'static str>)>,
) -> Result<Vec<Found>> {
    let sums = found.iter().flat_map(|(_, products, _)| products);
    let sums: FxHashSet<NodeIndex> = sums.map(|product| product.sum).collect();
    let order = dag.topological()?;
    let mut before: FxHashMap<NodeIndex, bool> = FxHashMap::default();
    for &id in &order {
        let mut operands = dag.operands(id).into_iter();
        let any = operands.any(|(from, _)| sums.contains(&from) || before[&from]);
        before.insert(id, any);
    }
    let mut after: FxHashMap<NodeIndex, bool> = FxHashMap::default();
    for &id in order.iter().rev() {
        let any = dag
            .readers(id)
            .any(|(to, ..)| sums.contains(&to) || after[&to]);
        after.insert(id, any);
    }
    let one_signed = one_signed(dag)?;
    let is_behind = |id: NodeIndex| sums.contains(&id) || before[&id];
    let layers = found.into_iter().map(|(weight, products, obstacle)| {
        let node = dag.node(weight);
        let size = |at: usize| node.ty.dims[at].as_usize().expect("it was found so");
        let factors = |product: &Product| dag.operands(product.mul)[1 - product.weight].0;
        let layer = Layer {
            name: node
                .name
                .as_ref()
                .map_or(String::new(), |name| name.to_string()),
            rows: size(0),
            columns: size(1),
            is_first: products.iter().any(|product| !is_behind(factors(product))),
            is_last: products.iter().any(|product| !after[&product.sum]),
            is_one_signed: products
                .iter()
                .any(|product| one_signed.contains(&factors(product))),
            rounded: same_of_all(
                products
                    .iter()
                    .map(|product| rounded(dag, factors(product))),
            ),
        };
        Found {
            weight,
            layer,
            obstacle,
        }
    });
    Ok(layers.collect())
}

/// What all are.
fn same_of_all(all: impl Iterator<Item = Option<SignActivations>>) -> Option<SignActivations> {
    let mut all = all;
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)?
}
