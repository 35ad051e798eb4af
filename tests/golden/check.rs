//! Runs the cases of a family and compares.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use brain_blitz::array::Array;
use brain_blitz::prelude::*;

use crate::case::{Call, Case, cases};
use crate::{Finish, PIPELINES};

/// What a call gives: one tensor or several.
pub struct Out(Vec<GraphTensor>);

impl From<GraphTensor> for Out {
    fn from(tensor: GraphTensor) -> Out {
        Out(vec![tensor])
    }
}

impl From<Vec<GraphTensor>> for Out {
    fn from(tensors: Vec<GraphTensor>) -> Out {
        Out(tensors)
    }
}

/// The methods that stand for one op of torch.
pub type Build = fn(&mut Call<'_>) -> Out;

/// A family's table.
pub struct Family {
    /// Torch's op and what it is called here.
    pub ops: &'static [(&'static str, Build)],
    /// Ids of cases that are left out, and why. An id that ends in `*` stands for all that begin so.
    pub excluded: &'static [(&'static str, &'static str)],
    /// How many cases are run: cases of mapped ops that are not excluded.
    pub n_cases: usize,
    /// Relative tolerance.
    pub rtol: f64,
}

const ATOL: f64 = 1e-6;
/// Relative tolerance of cases that state an absolute one.
const OWN_RTOL: f64 = 1e-5;

/// Runs all cases of a family on all pipelines.
///
/// # Panics
/// If one differs, or their number is not the family's.
pub fn run(name: &str, family: &Family) {
    let filter = std::env::var("GOLDEN").ok();
    let mut missing = BTreeSet::new();
    let (mut n_cases, mut failures) = (0, Vec::new());
    let mut unused: BTreeSet<&str> = family.excluded.iter().map(|(id, _)| *id).collect();
    for case in cases().iter().filter(|case| case.family == name) {
        let Some((_, build)) = family.ops.iter().find(|(op, _)| *op == case.op) else {
            missing.insert(case.op.as_str());
            continue;
        };
        if let Some((pattern, reason)) = exclusion(family, &case.id) {
            unused.remove(pattern);
            println!("left out {}: {reason}", case.id);
            continue;
        }
        if filter.as_ref().is_some_and(|part| !case.id.contains(part)) {
            continue;
        }
        n_cases += 1;
        for (pipeline, finish) in PIPELINES {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                run_case(case, *build, *finish, family.rtol)
            }));
            let why = match outcome {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why,
                Err(panic) => panic_text(&*panic),
            };
            failures.push(format!("{} on {pipeline}: {why}", case.id));
        }
    }
    println!("{name}: {n_cases} cases; ops without a mapping: {missing:?}");
    let list = failures.join("\n");
    assert!(
        failures.is_empty(),
        "{} of {n_cases} cases differ:\n{list}",
        failures.len()
    );
    assert!(
        unused.is_empty(),
        "exclusions that match no case: {unused:?}"
    );
    if filter.is_none() {
        assert_eq!(
            n_cases, family.n_cases,
            "number of cases of {name} that are run"
        );
    }
}

fn exclusion(family: &Family, id: &str) -> Option<(&'static str, &'static str)> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == pattern,
    };
    family
        .excluded
        .iter()
        .copied()
        .find(|(pattern, _)| matches(pattern))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("?"))
}

fn run_case(case: &Case, build: Build, finish: Finish, rtol: f64) -> Result<(), String> {
    let mut cx = Graph::new();
    let Out(mut outputs) = build(&mut case.call(&mut cx));
    for output in &mut outputs {
        output.retrieve();
    }
    finish(&mut cx, &mut outputs);
    cx.try_execute().map_err(|e| e.to_string())?;
    let expected = case.expected();
    if outputs.len() != expected.len() {
        return Err(format!("{} results, not {}", outputs.len(), expected.len()));
    }
    let rtol = case.atol.map_or(rtol, |_| OWN_RTOL);
    let atol = case.atol.unwrap_or(ATOL);
    for (output, expected) in outputs.iter().zip(expected) {
        let got = output.try_array().map_err(|e| e.to_string())?;
        compare(&got, expected, rtol, atol)?;
    }
    Ok(())
}

/// Same shape, same format, same numbers: integers and booleans exactly, floats within the tolerances.
fn compare(got: &Array, want: &Array, rtol: f64, atol: f64) -> Result<(), String> {
    if got.dims() != want.dims() || got.dtype() != want.dtype() {
        let (g, w) = (got.dtype(), want.dtype());
        return Err(format!("{g}{:?}, not {w}{:?}", got.dims(), want.dims()));
    }
    let exact = !want.dtype().is_float();
    for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        let close = !exact && w.is_finite() && (g - w).abs() <= atol + rtol * w.abs();
        if !(g == w || (g.is_nan() && w.is_nan()) || close) {
            return Err(format!("element {i} is {g:?}, not {w:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use brain_blitz::array::Data;

    fn differ(got: f32, want: f32) -> bool {
        let array = |x| Array::new(vec![], Data::F32(vec![x]));
        compare(&array(got), &array(want), 1e-5, 1e-6).is_err()
    }

    #[test]
    fn the_comparison_tells_wrong_numbers() {
        assert!(!differ(1.0, 1.000_009) && differ(1.0, 1.000_02));
        assert!(!differ(f32::NAN, f32::NAN) && differ(f32::NAN, 1.0) && differ(1.0, f32::NAN));
        assert!(!differ(f32::INFINITY, f32::INFINITY) && differ(f32::MAX, f32::INFINITY));
        assert!(differ(f32::NEG_INFINITY, f32::INFINITY) && differ(f32::INFINITY, f32::MAX));
    }
}
