//! From the losses back to the parameters.

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::build::Builder;
use super::transpose::transpose;
use crate::error::{Error, Result};
use crate::graph::{Dag, NodeIndex, NodeRef, Patch, Source, ValueId};
use crate::op::OpRow;
use crate::op::gradient::{GradientBuilder, Gradients, Rule, Var};

/// Gradients that reached a node so far, on different ways.
type Arrived = FxHashMap<NodeIndex, SmallVec<[Var; 2]>>;

/// A patch that exposes the gradient by each parameter.
pub(super) fn gradients(
    dag: &Dag,
    params: &[ValueId],
    losses: &[ValueId],
    weights: Option<&[ValueId]>,
) -> Result<Patch> {
    let params: Vec<&Source> = sources(dag, params)?;
    let losses = sources(dag, losses)?;
    if losses.is_empty() {
        return Err(Error::msg("there is no loss"));
    }
    for source in params.iter().chain(&losses) {
        require_float(dag, source)?;
    }
    let order = dag.topological()?;
    let leads = leads_to_params(dag, &order, &params);
    let mut build = Builder::new(dag, losses[0].node);
    let mut arrived = Arrived::default();
    let weights = weights.map(|values| sources(dag, values)).transpose()?;
    if let Some(weights) = weights.as_ref().filter(|w| w.len() != losses.len()) {
        let (n, m) = (weights.len(), losses.len());
        return Err(Error::msg(format!("Autograd: {n} weights for {m} losses")));
    }
    for (i, loss) in losses.iter().enumerate() {
        let weight = weights.as_ref().map(|weights| weights[i]);
        seed(&mut build, loss, weight, &mut arrived)
            .map_err(|what| failed(dag, loss.node, what))?;
    }
    let mut found: FxHashMap<NodeIndex, Var> = FxHashMap::default();
    let wanted: FxHashSet<NodeIndex> = params.iter().map(|source| source.node).collect();
    for &node in order.iter().rev().filter(|node| leads.contains(node)) {
        let Some(terms) = arrived.remove(&node) else {
            continue;
        };
        build.origin = node;
        let upstream = build.total(&terms).map_err(|e| failed(dag, node, e))?;
        let upstream = upstream.expect("an entry holds at least one term");
        if wanted.contains(&node) {
            found.insert(node, upstream);
        }
        step(&mut build, node, upstream, &leads, &mut arrived)
            .map_err(|what| failed(dag, node, what))?;
    }
    for source in params {
        expose(&mut build, source, &found).map_err(|e| failed(dag, source.node, e))?;
    }
    Ok(build.patch)
}

fn sources<'a>(dag: &'a Dag, values: &[ValueId]) -> Result<Vec<&'a Source>> {
    values.iter().map(|&value| dag.source(value)).collect()
}

fn failed(dag: &Dag, node: NodeIndex, what: String) -> Error {
    let what = format!("its gradient: {what}");
    Error::Node {
        node: dag.describe(node),
        what,
    }
}

fn require_float(dag: &Dag, source: &Source) -> Result<()> {
    let ty = &dag.node(source.node).ty;
    if ty.dtype.is_float() {
        return Ok(());
    }
    let what = format!("has no gradients: {ty} is no floating-point tensor");
    Err(Error::Node {
        node: dag.describe(source.node),
        what,
    })
}

/// The rule of a node through which gradients flow.
fn row(dag: &Dag, node: NodeIndex) -> Option<&'static OpRow> {
    let node = dag.node(node);
    let row = node.op.row();
    (node.ty.dtype.is_float() && row.gradient.is_some()).then_some(row)
}

/// Nodes that are parameters, or depend on one in a way that gradients flow through.
fn leads_to_params(dag: &Dag, order: &[NodeIndex], params: &[&Source]) -> FxHashSet<NodeIndex> {
    let mut leads: FxHashSet<NodeIndex> = params.iter().map(|source| source.node).collect();
    for &node in order {
        if row(dag, node).is_none() {
            continue;
        }
        let mut operands = dag.operands(node).into_iter();
        if operands.any(|(operand, _)| leads.contains(&operand)) {
            leads.insert(node);
        }
    }
    leads
}

/// The loss's gradient by itself: ones, or its weights.
fn seed(
    build: &mut Builder<'_>,
    loss: &Source,
    weight: Option<&Source>,
    arrived: &mut Arrived,
) -> Result<(), String> {
    build.origin = loss.node;
    let seen = build.var(NodeRef::Old(loss.node), loss.view.clone());
    let own = match weight {
        None => (build as &mut dyn GradientBuilder).fill(seen, 1.0)?,
        Some(weight) => {
            let own = build.var(NodeRef::Old(weight.node), weight.view.clone());
            let (weight, loss) = (build.ty(own), build.ty(seen));
            if weight != loss {
                return Err(format!("weights {weight} for a loss {loss}"));
            }
            own
        }
    };
    arrive(build, (loss.node, &loss.view), own, arrived)
}

/// A gradient by what is seen of a node comes to the node.
fn arrive(
    build: &mut Builder<'_>,
    (node, view): (NodeIndex, &crate::shape::View),
    gradient: Var,
    arrived: &mut Arrived,
) -> Result<(), String> {
    let own = transpose(build, gradient, view, &build.dag.node(node).ty.dims)?;
    arrived.entry(node).or_default().push(own);
    Ok(())
}

/// Applies a node's rule and sends the results on to its operands.
fn step(
    build: &mut Builder<'_>,
    node: NodeIndex,
    upstream: Var,
    leads: &FxHashSet<NodeIndex>,
    arrived: &mut Arrived,
) -> Result<(), String> {
    let dag = build.dag;
    let Some(rule) = row(dag, node).and_then(|row| row.gradient) else {
        return Ok(());
    };
    let edges = dag.operands(node);
    let wanted: SmallVec<[bool; 3]> = edges
        .iter()
        .map(|(operand, _)| leads.contains(operand) && dag.node(*operand).ty.dtype.is_float())
        .collect();
    if !wanted.contains(&true) {
        return Ok(());
    }
    let operands: SmallVec<[Var; 3]> = edges
        .iter()
        .map(|(operand, view)| build.var(NodeRef::Old(*operand), (*view).clone()))
        .collect();
    let rule_for = Rule {
        op: &dag.node(node).op,
        operands: &operands,
        result: build.whole(node),
        upstream,
        wanted: &wanted,
    };
    let gradients: Gradients = rule(&rule_for, build)?;
    for ((&(operand, view), gradient), wanted) in edges.iter().zip(gradients).zip(wanted) {
        if let (Some(gradient), true) = (gradient, wanted) {
            arrive(build, (operand, view), gradient, arrived)?;
        }
    }
    Ok(())
}

/// Makes the gradient by a parameter a value; zeros, if no loss depends on it.
fn expose(
    build: &mut Builder<'_>,
    param: &Source,
    found: &FxHashMap<NodeIndex, Var>,
) -> Result<(), String> {
    build.origin = param.node;
    let all = match found.get(&param.node) {
        Some(&gradient) => gradient,
        None => {
            let whole = build.whole(param.node);
            (build as &mut dyn GradientBuilder).fill(whole, 0.0)?
        }
    };
    let (node, view) = build.source(all);
    let (node, view) = (*node, view.compose(&param.view));
    build.patch.expose(node, view);
    Ok(())
}
