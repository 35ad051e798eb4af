//! The definition of a graph's meaning: every node evaluated by its op's `eval`, one after the other.
//!
//! Nothing is planned, shared or reused; the compiled program is tested against this.

use rustc_hash::FxHashMap;

use crate::array::Array;
use crate::error::{Error, Result};
use crate::graph::state::State;
use crate::graph::{Dag, NodeIndex, Source};
use crate::op::{EvalContext, Op};
use crate::shape::{Expr, Symbols};

/// The sizes that `dims` have at an execution.
///
/// # Errors
/// If a symbol has no value, or a size is negative; `user` names who needs it.
pub fn sizes(dims: &[Expr], symbols: &Symbols, user: &dyn Fn() -> String) -> Result<Vec<usize>> {
    let size = |dim: &Expr| {
        let n = dim.eval(symbols).map_err(|e| Error::UnsetSymbol {
            symbol: e.symbol,
            user: user(),
        })?;
        usize::try_from(n).map_err(|_| Error::Node {
            node: user(),
            what: format!("its size {dim} is {n}"),
        })
    };
    dims.iter().map(size).collect()
}

/// Evaluates one node on arrays that were already looked at through its edges' views.
///
/// # Errors
/// What the op's `eval` says, with the node's name.
pub fn eval_node(
    dag: &Dag,
    node: NodeIndex,
    operands: &[Array],
    symbols: &Symbols,
) -> Result<Array> {
    let entry = dag.node(node);
    let dims = sizes(&entry.ty.dims, symbols, &|| dag.describe(node))?;
    let context = EvalContext { symbols, dims };
    let out = (entry.op.row().eval)(&entry.op, operands, &context);
    out.map_err(|what| Error::Node {
        node: dag.describe(node),
        what,
    })
}

/// Values of all kept nodes, and of everything that they need.
///
/// # Errors
/// The first node that cannot be evaluated.
pub fn evaluate(dag: &Dag, state: &State) -> Result<FxHashMap<NodeIndex, Array>> {
    evaluate_while(dag, state, |_, _, _| true)
}

/// [`evaluate`], telling `watch` of every node, what it reads and its value, the inputs first. Once `watch` says no,
/// nothing more is computed.
///
/// # Errors
/// The first node that cannot be evaluated.
pub fn evaluate_while(
    dag: &Dag,
    state: &State,
    mut watch: impl FnMut(NodeIndex, &[Array], &Array) -> bool,
) -> Result<FxHashMap<NodeIndex, Array>> {
    let schedule = super::schedule::Schedule::new(dag)?;
    let mut values: FxHashMap<NodeIndex, Array> = FxHashMap::default();
    let is_input = |node: &NodeIndex| matches!(dag.node(*node).op, Op::Input { .. });
    let mut goes_on = true;
    for node in schedule.places.nodes().filter(is_input) {
        let array = input_array(dag, state, node)?;
        goes_on &= watch(node, &[], &array);
        values.insert(node, array);
    }
    for step in &schedule.steps {
        if !goes_on {
            break;
        }
        let mut operands = Vec::with_capacity(step.operands.len());
        for (operand, view) in dag.operands(step.node) {
            let view = view.resolve(&state.symbols);
            let view = view.map_err(|e| Error::Node {
                node: dag.describe(step.node),
                what: e.to_string(),
            })?;
            operands.push(values[&operand].look(&view));
        }
        let out = eval_node(dag, step.node, &operands, &state.symbols)?;
        goes_on = watch(step.node, &operands, &out);
        values.insert(step.node, out);
    }
    Ok(values)
}

/// An input's data as an array.
///
/// # Errors
/// If there is none, or its size is not what the type says.
pub fn input_array(dag: &Dag, state: &State, node: NodeIndex) -> Result<Array> {
    check_input(dag, state, node)?;
    let data = state.input(dag, node)?;
    let ty = &dag.node(node).ty;
    let dims = sizes(&ty.dims, &state.symbols, &|| dag.describe(node))?;
    Ok(Array::from_bytes(dims, ty.dtype, data.storage.bytes()))
}

/// Compares an input's data with its type at this execution; returns its length in bytes.
///
/// # Errors
/// If there is none, or its size is not what the type says.
pub fn check_input(dag: &Dag, state: &State, node: NodeIndex) -> Result<usize> {
    let data = state.input(dag, node)?;
    let ty = &dag.node(node).ty;
    let mut n: usize = 1;
    let mut same = data
        .dims
        .as_ref()
        .is_none_or(|dims| dims.len() == ty.dims.len());
    for (axis, dim) in ty.dims.iter().enumerate() {
        let size = dim.eval(&state.symbols).map_err(|e| Error::UnsetSymbol {
            symbol: e.symbol,
            user: dag.describe(node),
        })?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        n = n.saturating_mul(size);
        same &= data
            .dims
            .as_ref()
            .is_none_or(|dims| dims.get(axis) == Some(&size));
    }
    let have = data.storage.bytes().len();
    if same && n.checked_mul(ty.dtype.size()) == Some(have) {
        return Ok(have);
    }
    let given = data.dims.as_ref().map_or_else(
        || format!("{} numbers", have / ty.dtype.size()),
        |dims| format!("data of shape {dims:?}"),
    );
    let what = format!("was given {given}, but the sizes set with `set_dim` say {n} numbers");
    Err(Error::Node {
        node: dag.describe(node),
        what,
    })
}

/// A source's array, out of evaluated nodes.
///
/// # Errors
/// If a symbol has no value.
pub fn look(
    values: &FxHashMap<NodeIndex, Array>,
    source: &Source,
    symbols: &Symbols,
) -> Result<Array> {
    let view = source
        .view
        .resolve(symbols)
        .map_err(|e| Error::msg(e.to_string()))?;
    Ok(values[&source.node].look(&view))
}
