//! Any files of golden numbers against this framework: how many cases pass, how many fail, how many need what is not here.
//!
//! `BB_GOLDEN_DIR=dir cargo test --release --test torch_golden -- --nocapture` reads `dir/ops.json` and
//! `dir/ops.safetensors`, in the form that `tests/data/torch/README.md` describes; without the variable those of that
//! folder. An op without a mapping, an argument that its mapping does not know, and a format that does not exist here
//! are *unsupported*, listed by op with the reason; they are no failures. The test fails if a case differs or panics.
//!
//! The mapping is that of `tests/golden`, whose own lists of left-out cases do not count here: they go by the names of the
//! bundled cases, which mean something else in other files. `GOLDEN=abs` runs only ids that contain `abs`.

#[path = "golden/call.rs"]
mod call;
#[path = "golden/case.rs"]
mod case;
#[path = "golden/families/mod.rs"]
mod families;
#[path = "golden/outcome.rs"]
mod outcome;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use brain_blitz::array::{Array, Data};
use brain_blitz::compilers::Autograd;
use brain_blitz::prelude::*;
use case::{Case, read_cases};
use outcome::{Build, Finish, Out, PIPELINES, Trouble, compare, judged, run_case};

/// What is not here, and why.
const ABSENT: &[(&[&str], &str)] = &[
    (
        &["masked_select", "nonzero", "unique"],
        "the size of the result depends on the data, and a graph's sizes do not",
    ),
    (
        &["linalg.eigh", "linalg.svd"],
        "it iterates until it converges, and a graph has no such loops",
    ),
    (
        &["nn.functional.multi_head_attention_forward"],
        "torch's random numbers",
    ),
];

/// What became of all cases.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    /// By op and reason.
    unsupported: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Tally {
    fn count(&mut self, case: &Case, outcome: Result<(), Trouble>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(Trouble::Wrong(why)) => self.failed.push(format!("{}: {why}", case.id)),
            Err(Trouble::Unsupported(why)) => {
                let reasons = self.unsupported.entry(case.op.clone()).or_default();
                *reasons.entry(why).or_default() += 1;
            }
        }
    }

    fn n_unsupported(&self) -> usize {
        self.unsupported.values().flat_map(|r| r.values()).sum()
    }

    fn print(&self, what: &str) {
        let (failed, unsupported) = (self.failed.len(), self.n_unsupported());
        for (op, reasons) in &self.unsupported {
            for (why, n) in reasons {
                println!("  unsupported {op}: {n} ({why})");
            }
        }
        for line in &self.failed {
            println!("  failed {line}");
        }
        println!(
            "{what}: {} passed, {failed} failed, {unsupported} unsupported",
            self.passed
        );
    }
}

/// Relative and absolute tolerance of gradients.
const GRADIENT_RTOL: f64 = 1e-4;
const GRADIENT_ATOL: f64 = 1e-5;

/// Runs a case on all pipelines.
fn on_all_pipelines(
    case: &Case,
    run: impl Fn(Build, Finish, f64) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let Some((family, build)) = families::find(&case.family, &case.op) else {
        let known = ABSENT.iter().find(|(ops, _)| ops.contains(&&*case.op));
        let why = known.map_or("no mapping", |row| row.1);
        return Err(Trouble::Unsupported(why.into()));
    };
    for (pipeline, finish) in PIPELINES {
        run(build, *finish, family.rtol).map_err(|trouble| match trouble {
            Trouble::Wrong(why) => Trouble::Wrong(format!("on {pipeline}: {why}")),
            other => other,
        })?;
    }
    Ok(())
}

/// What an output is multiplied with before it is summed: from 0.5 to 1.5 in equal steps.
fn cotangent(like: &Array) -> Array {
    let n = like.len();
    let step = 1.0 / (n.max(2) - 1) as f64;
    let numbers = (0..n).map(|i| (0.5 + step * i as f64) as f32).collect();
    Array::new(like.dims().to_vec(), Data::F32(numbers)).cast(like.dtype())
}

/// The gradients of a case on one pipeline.
fn gradients(case: &Case, build: Build, finish: Finish) -> Result<(), Trouble> {
    judged(|unread| {
        let mut cx = Graph::new();
        let mut call = case.call(&mut cx);
        let Out(outputs) = build(&mut call);
        *unread = call.unread();
        let params = std::mem::take(&mut call.wanted);
        let (mut losses, mut weights) = (Vec::new(), Vec::new());
        let expected = case.expected();
        for ((output, value), counts) in outputs.iter().zip(expected).zip(case.differentiable()) {
            if counts {
                losses.push(*output);
                let weight = cotangent(value);
                weights.push(cx.input(weight.dims(), weight.dtype()).set(weight));
            }
        }
        let found = cx.compile(Autograd::new(params, losses).weighted(weights), ());
        let mut found: Vec<GraphTensor> = found.iter().map(|grad| grad.retrieve()).collect();
        finish(&mut cx, &mut found);
        cx.try_execute().map_err(|e| e.to_string())?;
        let wanted = case.expected_gradients();
        if found.len() != wanted.len() {
            return Err(format!("{} gradients, not {}", found.len(), wanted.len()));
        }
        for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            let found = found.try_array().map_err(|e| e.to_string())?;
            // Where torch has no gradient, nothing depends on the input.
            let nothing = Array::new(found.dims().to_vec(), Data::F32(vec![0.0; found.len()]));
            let wanted = wanted.unwrap_or(&nothing);
            compare(&found, wanted, GRADIENT_RTOL, GRADIENT_ATOL)
                .map_err(|why| format!("gradient {i}: {why}"))?;
        }
        Ok(())
    })
}

/// Bundled cases in whose gradients torch is wrong by more than the tolerance.
const INEXACT: &[(&str, &str)] = &[
    ("logcumsumexp#0", TEN_THOUSAND),
    ("logcumsumexp#1", TEN_THOUSAND),
];

const TEN_THOUSAND: &str = "torch subtracts results near 10000 in F32 before it takes their exponential: it has 4.51684 for \
    0.5 + 0.701613 + 0.903226 + 1.104839 + 1.306452 = 4.51613";

/// A case's values, and its gradients if torch has some.
fn outcomes(case: &Case) -> [Option<Result<(), Trouble>>; 2] {
    let values = on_all_pipelines(case, |build, finish, rtol| {
        run_case(case, build, finish, rtol)
    });
    let has_gradients = case.has_gradients() && !is_inexact(case);
    let gradients = has_gradients
        .then(|| on_all_pipelines(case, |build, finish, _| gradients(case, build, finish)));
    [Some(values), gradients]
}

/// Whether torch's gradients of a case are known to be off. Ids of other files mean other cases, unless these have the same
/// numbers.
fn is_inexact(case: &Case) -> bool {
    let Some((id, why)) = INEXACT.iter().find(|(id, _)| *id == case.id) else {
        return false;
    };
    let numbers = |case: &Case| -> Vec<Vec<f64>> {
        let gradients = case.expected_gradients().into_iter().flatten();
        let all = case.expected().into_iter().chain(gradients);
        all.map(Array::to_f64).collect()
    };
    let known = read_cases(&bundled(), "ops").into_iter();
    let is_known = known
        .filter(|known| known.id == *id)
        .any(|known| known.op == case.op && numbers(&known) == numbers(case));
    if is_known {
        println!("  left out the gradients of {id}: {why}");
    }
    is_known
}

/// The outcomes of all cases, in their order, computed by as many threads as there are cores.
fn all_outcomes(cases: &[Case]) -> Vec<[Option<Result<(), Trouble>>; 2]> {
    let n = std::thread::available_parallelism().map_or(1, |n| n.get());
    let part = cases.len().div_ceil(n);
    std::thread::scope(|scope| {
        let start = |part: &'_ [Case]| part.iter().map(outcomes).collect::<Vec<_>>();
        let threads: Vec<_> = cases
            .chunks(part)
            .map(|part| scope.spawn(move || start(part)))
            .collect();
        let joined = threads.into_iter().flat_map(|thread| thread.join());
        joined.flatten().collect()
    })
}

/// The folder of the bundled files.
fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch")
}

fn dir() -> PathBuf {
    let given = std::env::var_os("BB_GOLDEN_DIR").map(PathBuf::from);
    given.unwrap_or_else(bundled)
}

#[test]
fn every_supported_case_is_right() {
    let mut cases = read_cases(&dir(), "ops");
    if let Ok(part) = std::env::var("GOLDEN") {
        cases.retain(|case| case.id.contains(&part));
    }
    assert!(!cases.is_empty(), "{}: no cases", dir().display());
    // Panics are caught and counted, not printed as they come.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let [mut values, mut gradients] = [Tally::default(), Tally::default()];
    for (case, [value, gradient]) in cases.iter().zip(all_outcomes(&cases)) {
        for (tally, outcome) in [(&mut values, value), (&mut gradients, gradient)] {
            if let Some(outcome) = outcome {
                tally.count(case, outcome);
            }
        }
    }
    std::panic::set_hook(hook);
    values.print("values");
    gradients.print("gradients");
    let failed = values.failed.len() + gradients.failed.len();
    assert_eq!(failed, 0, "cases fail");
    assert!(values.passed > 0, "no case is supported");
}
