//! What a case comes to: right, wrong, or nothing that this framework has.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use brain_blitz::array::Array;
use brain_blitz::prelude::*;

use crate::call::Call;
use crate::case::Case;

/// What a call gives: one tensor or several.
pub struct Out(pub Vec<GraphTensor>);

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
    /// Ids of cases of the bundled files that are left out, and why. An id that ends in `*` stands for all that begin so.
    #[allow(
        dead_code,
        reason = "not every test that includes this one runs the bundled files"
    )]
    pub excluded: &'static [(&'static str, &'static str)],
    /// How many cases of the bundled files are run: cases of mapped ops that are not excluded.
    #[allow(
        dead_code,
        reason = "not every test that includes this one runs the bundled files"
    )]
    pub n_cases: usize,
    /// Relative tolerance.
    pub rtol: f64,
}

impl Family {
    pub fn build(&self, op: &str) -> Option<Build> {
        let row = self.ops.iter().find(|(name, _)| *name == op);
        row.map(|(_, build)| *build)
    }
}

/// What happens between recording and execution. It may rewrite the graph as long as `outputs` survive.
pub type Finish = fn(cx: &mut Graph, outputs: &mut Vec<GraphTensor>);

/// The pipelines that every case runs on.
pub const PIPELINES: &[(&str, Finish)] = &[
    ("reference", |_, _| ()),
    ("compiled", |cx, outputs| {
        cx.compile(<(Generic, LlvmCpu)>::default(), outputs);
    }),
];

const ATOL: f64 = 1e-6;
/// Relative tolerance of cases that state an absolute one.
const OWN_RTOL: f64 = 1e-5;

/// Why a case was not right.
#[derive(Debug)]
pub enum Trouble {
    /// It differs, or something panicked.
    Wrong(String),
    /// It needs something that its mapping, or this framework, does not have.
    Unsupported(String),
}

/// What [`unsupported`] panics with.
struct Refused(String);

/// Ends a case: what it needs does not exist here.
pub fn unsupported(why: impl Into<String>) -> ! {
    panic_any(Refused(why.into()))
}

/// Runs `f`, which may panic.
pub fn caught(f: impl FnOnce() -> Result<(), String>) -> Result<(), Trouble> {
    let panic = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(done) => return done.map_err(Trouble::Wrong),
        Err(panic) => panic,
    };
    Err(match panic.downcast::<Refused>() {
        Ok(refused) => Trouble::Unsupported(refused.0),
        Err(panic) => Trouble::Wrong(panic_text(&*panic)),
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("?"))
}

/// Computes a case on one pipeline and compares its values.
pub fn run_case(case: &Case, build: Build, finish: Finish, rtol: f64) -> Result<(), Trouble> {
    judged(|unread| {
        let mut cx = Graph::new();
        let mut call = case.call(&mut cx);
        let Out(mut outputs) = build(&mut call);
        *unread = call.unread();
        for output in &mut outputs {
            output.retrieve();
        }
        finish(&mut cx, &mut outputs);
        cx.try_execute().map_err(|e| e.to_string())?;
        compare_values(case, &outputs, rtol)
    })
}

/// Runs `f`, which notes the arguments that were not read. What differs while there are some is unsupported.
pub fn judged(f: impl FnOnce(&mut Vec<String>) -> Result<(), String>) -> Result<(), Trouble> {
    let mut unread = Vec::new();
    match caught(|| f(&mut unread)) {
        Err(Trouble::Wrong(_)) if !unread.is_empty() => {
            let what = format!("{} is not known", unread.join(", "));
            Err(Trouble::Unsupported(what))
        }
        other => other,
    }
}

fn compare_values(case: &Case, outputs: &[GraphTensor], rtol: f64) -> Result<(), String> {
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
pub fn compare(got: &Array, want: &Array, rtol: f64, atol: f64) -> Result<(), String> {
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

    #[test]
    fn what_is_refused_is_told_from_what_panics() {
        let refused = caught(|| unsupported("no such thing"));
        assert!(matches!(refused, Err(Trouble::Unsupported(why)) if why == "no such thing"));
        assert!(matches!(caught(|| panic!("oh")), Err(Trouble::Wrong(why)) if why.contains("oh")));
        assert!(matches!(caught(|| Err("far".into())), Err(Trouble::Wrong(why)) if why == "far"));
    }
}
