//! What an execution's symbols mean for a graph: sizes, and what must hold for its views.

use super::scatter::ScatterShape;
use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::graph::{Dag, Node, NodeIndex};
use crate::op::{KernelInput, Op, TensorType};
use crate::shape::{Expr, RUN, Symbols, View};
use crate::storage::ALIGNMENT;

/// Everything that the views of these nodes, and of the kernels among them, assume of the symbols.
pub(super) fn requirements(dag: &Dag, nodes: &[NodeIndex]) -> Vec<(Expr, NodeIndex)> {
    let mut out: Vec<(Expr, NodeIndex)> = Vec::new();
    for &node in nodes {
        for (_, view) in dag.operands(node) {
            out.extend(view.requirements().iter().map(|&expr| (expr, node)));
        }
        if let Op::Kernel(kernel) = &dag.node(node).op {
            let views = kernel
                .steps
                .iter()
                .flat_map(|step| step.inputs.iter().map(|(_, view)| view));
            out.extend(views.flat_map(|view| view.requirements().iter().map(|&expr| (expr, node))));
        }
    }
    out.sort_unstable_by_key(|&(expr, node)| (expr, node));
    out.dedup_by_key(|&mut (expr, _)| expr);
    out
}

/// Compares what views assume with an execution's symbols.
///
/// # Errors
/// The first assumption that does not hold, with a node that makes it.
pub(super) fn check_requirements(
    dag: &Dag,
    requirements: &[(Expr, NodeIndex)],
    symbols: &Symbols,
) -> Result<()> {
    for &(expr, node) in requirements {
        let value = expr.eval(symbols).map_err(|e| Error::UnsetSymbol {
            symbol: e.symbol,
            user: dag.describe(node),
        })?;
        if value < 0 {
            let what =
                format!("the sizes are impossible: `{expr}` must not be negative, but is {value}");
            return Err(Error::Node {
                node: dag.describe(node),
                what,
            });
        }
    }
    Ok(())
}

/// Whether some size of the graph, or what its views assume, changes with every execution.
pub(super) fn depends_on_run(
    dag: &Dag,
    nodes: &[NodeIndex],
    requirements: &[(Expr, NodeIndex)],
) -> bool {
    let uses_run = |expr: &Expr| expr.symbols().contains(&RUN);
    let of_node = |&node: &NodeIndex| {
        let Node { op, ty, .. } = dag.node(node);
        let inside = match op {
            Op::Kernel(kernel) => kernel.steps.as_slice(),
            _ => &[],
        };
        let views = dag.operands(node);
        let mut views = views.iter().map(|(_, view)| *view).chain(
            inside
                .iter()
                .flat_map(|step| step.inputs.iter().map(|(_, view)| view)),
        );
        ty.dims.iter().any(uses_run)
            || inside.iter().any(|step| step.ty.dims.iter().any(uses_run))
            || views.any(|view| view.dims().iter().any(uses_run))
    };
    nodes.iter().any(of_node) || requirements.iter().any(|(expr, _)| uses_run(expr))
}

/// Whether two sets of symbols are equal but for the number of the execution.
pub(super) fn same_but_run(a: &Symbols, b: &Symbols) -> bool {
    let without_run =
        |symbols: &Symbols| symbols.iter().filter(|(symbol, _)| *symbol != RUN).count();
    without_run(a) == without_run(b)
        && a.iter()
            .filter(|(symbol, _)| *symbol != RUN)
            .all(|(symbol, n)| b.get(symbol) == Some(n))
}

/// The size of a node's result in elements, refusing negative and overflowing sizes.
pub(super) fn elements_of(
    dag: &Dag,
    node: NodeIndex,
    dims: &[Expr],
    symbols: &Symbols,
) -> Result<usize> {
    let mut n: usize = 1;
    for dim in dims {
        let size = dim.eval(symbols).map_err(|e| Error::UnsetSymbol {
            symbol: e.symbol,
            user: dag.describe(node),
        })?;
        let impossible = || Error::Node {
            node: dag.describe(node),
            what: format!("its size {dim} is {size}"),
        };
        let size = usize::try_from(size).map_err(|_| impossible())?;
        n = n
            .checked_mul(size)
            .filter(|&n| n < isize::MAX as usize / 16)
            .ok_or_else(impossible)?;
    }
    Ok(n)
}

/// The bytes of each arena buffer of a schedule.
///
/// # Errors
/// As [`elements_of`]; more bytes together than an address can have.
pub(super) fn buffer_sizes(
    dag: &Dag,
    schedule: &Schedule,
    symbols: &Symbols,
    out: &mut Vec<usize>,
) -> Result<()> {
    out.clear();
    for buffer in &schedule.buffers {
        let ty = &dag.node(buffer.node).ty;
        let elements = elements_of(dag, buffer.node, &ty.dims, symbols)?;
        out.push(elements * ty.dtype.size());
    }
    let total = out.iter().try_fold(0usize, |total, &size| {
        total.checked_add(size.checked_next_multiple_of(ALIGNMENT)?)
    });
    if total.is_none_or(|total| total > isize::MAX as usize) {
        return Err(Error::msg("the results need more memory than there can be"));
    }
    Ok(())
}

pub(super) fn scatter_shape(
    dag: &Dag,
    node: NodeIndex,
    index: NodeIndex,
    symbols: &Symbols,
) -> Result<ScatterShape> {
    let Op::Scatter { axis, .. } = dag.node(node).op else {
        unreachable!("only scatters come here")
    };
    let dims = &dag.node(node).ty.dims;
    let size = |dim: Expr| {
        let n = dim.eval(symbols).map_err(|e| Error::UnsetSymbol {
            symbol: e.symbol,
            user: dag.describe(node),
        })?;
        Ok::<usize, Error>(n as usize)
    };
    let product = |dims: &[Expr]| {
        dims.iter()
            .try_fold(1, |n, &dim| Ok::<usize, Error>(n * size(dim)?))
    };
    let (outer, inner) = (product(&dims[..axis])?, product(&dims[axis + 1..])?);
    let elements = elements_of(dag, index, &dag.node(index).ty.dims, symbols)?;
    let rows = elements.checked_div(outer * inner).unwrap_or(0);
    Ok(ScatterShape {
        outer,
        axis: size(dims[axis])?,
        rows,
        inner,
    })
}

/// Compares every view with what it reads, at the sizes of an execution.
///
/// # Errors
/// The first view that reaches outside, with its node.
pub(super) fn check_views(
    dag: &Dag,
    nodes: impl Iterator<Item = NodeIndex>,
    symbols: &Symbols,
) -> Result<()> {
    for id in nodes {
        for (source, view) in dag.operands(id) {
            check_view(dag, id, &dag.node(source).ty, view, symbols)?;
        }
        let Op::Kernel(kernel) = &dag.node(id).op else {
            continue;
        };
        for (source, view) in kernel.steps.iter().flat_map(|step| &step.inputs) {
            let ty = match source {
                KernelInput::Operand(i) => &kernel.operands[*i],
                KernelInput::Step(i) => &kernel.steps[*i].ty,
            };
            check_view(dag, id, ty, view, symbols)?;
        }
    }
    Ok(())
}

fn check_view(
    dag: &Dag,
    reader: NodeIndex,
    ty: &TensorType,
    view: &View,
    symbols: &Symbols,
) -> Result<()> {
    let fail = |what: String| Error::Node {
        node: dag.describe(reader),
        what,
    };
    let n = elements_of(dag, reader, &ty.dims, symbols)?;
    let concrete = view.resolve(symbols).map_err(|e| fail(e.to_string()))?;
    if concrete.fits(n) {
        return Ok(());
    }
    Err(fail(format!(
        "reads {n} elements through a view of more, {view}"
    )))
}
