//! `BB_CHECK`: the reference executor's results before a pass against those after it.
//!
//! A graph is often compiled before its inputs are set. While a check runs, such inputs get sample data and such
//! symbols sample sizes, and get neither afterwards. A graph that cannot be evaluated even so is not compared, and
//! standard error says why. Native code is not run here: a kernel counts as the steps it replaced.

use crate::array::{Array, Data};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::reference;
use crate::graph::state::{InputData, State};
use crate::graph::{Dag, NodeIndex};
use crate::op::Op;
use crate::shape::Symbols;
use crate::storage::{AlignedBytes, Storage};

/// Relative difference that is allowed for floats: rewrites may reassociate sums.
const TOLERANCE: f64 = 1e-4;

/// The data and sizes that a graph had before samples took their places.
pub(super) struct Samples {
    inputs: Vec<(u32, Option<InputData>)>,
    symbols: Symbols,
}

impl Samples {
    /// Gives every symbol a size and every input data that fits it, where they have none.
    pub(super) fn put(dag: &Dag, state: &mut State) -> Samples {
        let mut samples = Samples {
            inputs: Vec::new(),
            symbols: state.symbols.clone(),
        };
        for (at, symbol) in ('a'..='z').chain('A'..='Z').enumerate() {
            if state.symbols.get(symbol).is_none() {
                state.symbols.set(symbol, 2 + at as i64 % 3);
            }
        }
        for node in dag.ids() {
            let Op::Input { id, .. } = dag.node(node).op else {
                continue;
            };
            if reference::check_input(dag, state, node).is_err()
                && let Ok(data) = sample(dag, state, node)
            {
                samples.inputs.push((id, state.inputs.insert(id, data)));
            }
        }
        samples
    }

    /// Puts back what was there.
    pub(super) fn remove(self, state: &mut State) {
        for (id, data) in self.inputs {
            match data {
                Some(data) => state.inputs.insert(id, data),
                None => state.inputs.remove(id),
            };
        }
        state.symbols = self.symbols;
    }
}

/// Data for one input: floats between -1 and 1, and the integers 0 and 1, which are indices almost everywhere.
fn sample(dag: &Dag, state: &State, node: NodeIndex) -> Result<InputData> {
    let ty = &dag.node(node).ty;
    let dims = reference::sizes(&ty.dims, &state.symbols, &|| dag.describe(node))?;
    let n: usize = dims.iter().product();
    // Golden-ratio steps: no two neighbours alike, no short period.
    let spread = |k: usize| (k + node.index()) as f32 * 0.618_034 % 1.0;
    let number = |k: usize| match ty.dtype.is_float() {
        true => 2.0 * spread(k) - 1.0,
        false => spread(k).round(),
    };
    let numbers = Array::new(vec![n], Data::F32((0..n).map(number).collect()));
    let bytes = AlignedBytes::copy_of(numbers.cast(ty.dtype).bytes());
    Ok(InputData {
        since: 0,
        dims: Some(dims),
        storage: Storage::Owned(bytes),
    })
}

/// The reference's values of everything that is kept; an error when inputs are missing.
pub(super) fn kept_arrays(dag: &Dag, state: &State) -> Result<Vec<Array>> {
    let values = reference::evaluate(dag, state)?;
    dag.kept_values()
        .filter_map(|value| dag.value(value).source.as_ref())
        .map(|source| reference::look(&values, source, &state.symbols))
        .collect()
}

/// Compares what is kept before and after a pass; `Ok(Some(why))` if neither graph could be evaluated.
///
/// # Errors
/// The first difference, or the error that only one of both graphs ran into.
pub(super) fn compare<'a>(
    before: &'a Result<Vec<Array>>,
    after: &Result<Vec<Array>>,
) -> Result<Option<&'a Error>> {
    let (before, after) = match (before, after) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(e), Err(_)) => return Ok(Some(e)),
        (Err(e), Ok(_)) => {
            return Err(Error::msg(format!(
                "made a failing graph run; it failed with: {e}"
            )));
        }
        (Ok(_), Err(e)) => return Err(Error::msg(format!("made the graph fail: {e}"))),
    };
    if before.len() != after.len() {
        let (before, after) = (before.len(), after.len());
        return Err(Error::msg(format!("{before} kept values became {after}")));
    }
    for (i, (a, b)) in before.iter().zip(after).enumerate() {
        if a.dims() != b.dims() || a.dtype() != b.dtype() {
            return Err(Error::msg(format!("kept value {i} changed its type")));
        }
        let tolerance = tolerance(a.dtype());
        for (k, (x, y)) in a.to_f64().into_iter().zip(b.to_f64()).enumerate() {
            let same = x == y
                || (x.is_nan() && y.is_nan())
                || (x - y).is_finite()
                    && (x - y).abs() <= tolerance * x.abs().max(y.abs()).max(1.0);
            if !same {
                return Err(Error::msg(format!(
                    "kept value {i} changed at element {k}: {x} became {y}"
                )));
            }
        }
    }
    Ok(None)
}

/// Integers and booleans have to be equal.
fn tolerance(dtype: DType) -> f64 {
    if dtype.is_float() { TOLERANCE } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: f64) -> Result<Vec<Array>> {
        Ok(vec![Array::new(vec![1], Data::F64(vec![value]))])
    }

    #[test]
    fn close_is_enough_for_floats_but_not_for_infinities() {
        assert!(compare(&one(1.0), &one(1.00001)).is_ok());
        assert!(compare(&one(f64::NAN), &one(f64::NAN)).is_ok());
        assert!(compare(&one(f64::INFINITY), &one(f64::INFINITY)).is_ok());
        for (before, after) in [
            (1.0, 1.001),
            (f64::INFINITY, 1.0),
            (f64::INFINITY, f64::NEG_INFINITY),
            (f64::NAN, 1.0),
        ] {
            assert!(
                compare(&one(before), &one(after)).is_err(),
                "{before} {after}"
            );
        }
    }

    #[test]
    fn integers_have_to_be_equal() {
        let number = |value| Ok(vec![Array::new(vec![1], Data::I32(vec![value]))]);
        assert!(compare(&number(1_000_000), &number(1_000_000)).is_ok());
        assert!(compare(&number(1_000_000), &number(1_000_001)).is_err());
    }

    #[test]
    fn two_failing_graphs_are_not_compared_and_one_is_an_error() {
        let failed = || Err(Error::msg("no data"));
        let why = compare(&failed(), &failed()).map(|why| why.map(Error::to_string));
        assert_eq!(why.expect("both fail").as_deref(), Some("no data"));
        assert!(compare(&one(1.0), &failed()).is_err());
        assert!(compare(&failed(), &one(1.0)).is_err());
    }
}
