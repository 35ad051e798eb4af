//! Random graphs through every pipeline, against the reference.
//!
//! A case is a mode and a seed. In the exact modes all numbers are whole and small enough that every order of
//! evaluation gives the same, so results must be equal; in smooth mode they must be close. Seeds that failed once are
//! kept in `tests/data/seeds/` by the failing run and always replayed first.

mod build;
mod dice;
mod exact;
mod library;
mod movement;
mod smooth;

use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use brain_blitz::array::Array;
use brain_blitz::graph::text;
use brain_blitz::prelude::*;

use crate::pipelines::Pipeline;
use build::{Build, Built, Value};

/// What kind of graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whole numbers, static shapes.
    Exact,
    /// Whole numbers, symbolic shapes, several executions of one compiled graph.
    Symbolic,
    /// Whole numbers, inputs that change from one execution to the next.
    State,
    /// Real numbers.
    Smooth,
}

/// Steps of a graph: up to this many values beside the inputs.
const MAX_STEPS: usize = 21;

/// The results of all executions, and of a second pass over them with two threads.
type Results = Vec<Vec<Array>>;

fn seed_file(mode: Mode) -> PathBuf {
    let name = format!("{mode:?}").to_lowercase();
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/seeds")
        .join(format!("{name}.txt"))
}

fn kept_seeds(mode: Mode) -> Vec<u64> {
    let text = std::fs::read_to_string(seed_file(mode)).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.trim().parse().expect("one seed a line"))
        .collect()
}

fn keep_seed(mode: Mode, seed: u64) {
    if kept_seeds(mode).contains(&seed) {
        return;
    }
    let path = seed_file(mode);
    std::fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a folder");
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path);
    writeln!(file.expect("the seed file opens"), "{seed}").expect("the seed file is written");
}

/// Short and long graphs in turn.
fn n_steps(seed: u64) -> usize {
    2 + (seed as usize * 7) % (MAX_STEPS - 1)
}

/// Builds, compiles and executes a case.
fn run(mode: Mode, seed: u64, dropped: &[usize], pipeline: Pipeline, threads: usize) -> Results {
    let mut cx = Graph::new();
    let built = Build::run(&mut cx, mode, seed, n_steps(seed), dropped);
    cx.set_threads(threads);
    pipeline.compile(&mut cx);
    execute(&mut cx, &built)
}

fn execute(cx: &mut Graph, built: &Built) -> Results {
    (0..built.bindings.len())
        .map(|run| {
            built.set_inputs(cx, run);
            cx.execute();
            built.outputs.iter().map(|value| value.t.array()).collect()
        })
        .collect()
}

/// Whether numbers are equal, in smooth mode up to the values' errors.
fn agree(want: &Array, got: &Array, value: &Value, mode: Mode) -> bool {
    // Both sides are off by at most the error.
    let tolerance = match mode {
        Mode::Smooth => 2.0 * value.error / 16_777_216.0,
        _ => 0.0,
    };
    want.dims() == got.dims()
        && want.dtype() == got.dtype()
        && want
            .to_f64()
            .iter()
            .zip(got.to_f64())
            .all(|(&want, got)| want == got || (want - got).abs() <= tolerance)
}

/// The message of what went wrong, if something did.
fn failure(mode: Mode, seed: u64, dropped: &[usize], pipelines: &[Pipeline]) -> Option<String> {
    let attempt = |pipeline, threads| {
        catch_unwind(AssertUnwindSafe(|| {
            run(mode, seed, dropped, pipeline, threads)
        }))
        .map_err(|panic| message_of(&*panic))
    };
    let want = match attempt(Pipeline::Reference, 1) {
        Ok(want) => want,
        Err(message) => return Some(format!("panicked in Reference: {message}")),
    };
    let values = {
        let mut cx = Graph::new();
        Build::run(&mut cx, mode, seed, n_steps(seed), dropped).outputs
    };
    for &pipeline in pipelines {
        let results = [1, 2].map(|threads| attempt(pipeline, threads));
        let [one, two] = match results {
            [Ok(one), Ok(two)] => [one, two],
            [Err(message), _] | [_, Err(message)] => {
                return Some(format!("panicked in {pipeline:?}: {message}"));
            }
        };
        for (execution, (want, (one, two))) in want.iter().zip(one.iter().zip(&two)).enumerate() {
            for (output, value) in values.iter().enumerate() {
                let (want, one, two) = (&want[output], &one[output], &two[output]);
                let place = format!("{pipeline:?}, execution {execution}, output {output}");
                if !agree(want, one, value, mode) {
                    return Some(format!("{place}\nwant {want}\ngot  {one}"));
                }
                if !one.same_bits(two) {
                    return Some(format!(
                        "{place}: two threads differ from one\none {one}\ntwo {two}"
                    ));
                }
            }
        }
    }
    None
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without text")
        .to_string()
}

/// Leaves out every step that the failure does not need, and tells the rest.
fn shrink(mode: Mode, seed: u64, pipelines: &[Pipeline], first: String) -> String {
    let (mut dropped, mut message) = (Vec::new(), first);
    for step in (0..n_steps(seed)).rev() {
        dropped.push(step);
        match failure(mode, seed, &dropped, pipelines) {
            Some(smaller) => message = smaller,
            None => {
                dropped.pop();
            }
        }
    }
    let mut out = format!("{mode:?} seed {seed}, without steps {dropped:?}: {message}\n");
    let graph = catch_unwind(AssertUnwindSafe(|| {
        let mut cx = Graph::new();
        Build::run(&mut cx, mode, seed, n_steps(seed), &dropped);
        cx.inspect(text::print)
    }));
    let _ = write!(
        out,
        "{}",
        graph.unwrap_or_else(|_| "(the graph cannot be recorded)".into())
    );
    out
}

/// The pipelines for a case: all of them for kept seeds and in long runs, else `Generic`, the default target and one
/// of the others in turn.
fn pipelines_for(seed: u64, kept: bool, all: &[Pipeline]) -> Vec<Pipeline> {
    let compiled = &all[1..];
    if kept || compiled.len() <= 3 || brain_blitz::knobs::long_tests() {
        return compiled.to_vec();
    }
    let (first, others) = (&compiled[..1], &compiled[1..]);
    let last = others.len() - 1;
    let turn = others[seed as usize % last];
    [first, &[turn, others[last]]].concat()
}

fn check(mode: Mode, n_seeds: u64) {
    let all = Pipeline::all();
    let n_seeds = if brain_blitz::knobs::long_tests() {
        2_500
    } else {
        n_seeds
    };
    let kept = kept_seeds(mode).into_iter().map(|seed| (seed, true));
    let fresh = (0..n_seeds).map(|seed| (seed, false));
    let mut failures = Vec::new();
    for (seed, kept) in kept.chain(fresh) {
        let pipelines = pipelines_for(seed, kept, &all);
        if let Some(message) = failure(mode, seed, &[], &pipelines) {
            keep_seed(mode, seed);
            failures.push(shrink(mode, seed, &pipelines, message));
        }
        if failures.len() == 3 {
            break;
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn cases_are_neither_small_nor_zero() {
    let (mut n_values, mut n_numbers, mut n_nonzero) = (0, 0, 0);
    for seed in 0..100 {
        let mut cx = Graph::new();
        let built = Build::run(&mut cx, Mode::Exact, seed, n_steps(seed), &[]);
        n_values += built.n_values;
        let results = execute(&mut cx, &built);
        for number in results.iter().flatten().flat_map(Array::to_f64) {
            n_numbers += 1;
            n_nonzero += usize::from(number != 0.0);
        }
    }
    assert!(n_values > 900, "{n_values} values in 100 graphs");
    assert!(n_numbers > 30_000, "{n_numbers} numbers compared");
    assert!(
        n_nonzero * 2 > n_numbers,
        "{n_nonzero} of {n_numbers} numbers are not zero"
    );
}

#[test]
fn exact_graphs_give_equal_numbers() {
    check(Mode::Exact, 120);
}

#[test]
fn symbolic_graphs_give_equal_numbers_for_every_binding() {
    check(Mode::Symbolic, 80);
}

#[test]
fn graphs_with_state_give_equal_numbers_at_every_execution() {
    check(Mode::State, 60);
}

#[test]
fn smooth_graphs_give_close_numbers() {
    check(Mode::Smooth, 60);
}
