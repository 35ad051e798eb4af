//! The driver: runs a flat, named list of passes over a graph.
//!
//! It, not the passes, applies patches, verifies the graph after each, measures time, counts hits, prints
//! (`BB_DEBUG`), dumps (`BB_DUMP_DIR`), stops (`BB_STOP_AT`) and compares the reference executor's results before
//! and after (`BB_CHECK`, see the module `check`). Passes of a fixpoint group repeat until none of them changes anything.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashMap;

use super::check::{Samples, compare, kept_arrays};
use super::report::Report;
use super::{Compiler, Pass};
use crate::array::Array;
use crate::blocks::ColumnStats;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::exec::pool;
use crate::graph::state::State;
use crate::graph::{Dag, GraphTensor, Inner, NodeIndex, StoredAs, text, verify};
use crate::knobs;
use crate::op::Op;

/// Rounds after which a fixpoint group that still changes something is an error: two passes undo each other.
const MAX_ROUNDS: usize = 64;

/// How often a group of passes runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Once, in order.
    Once,
    /// In order, again and again until none changes anything.
    Fixpoint,
}

/// The pipeline: named passes in groups.
#[derive(Default)]
pub struct PassList {
    groups: Vec<(Group, Vec<Box<dyn Pass>>)>,
}

impl PassList {
    /// Appends a pass that runs once.
    pub fn push(&mut self, pass: impl Pass + 'static) {
        self.group(Group::Once, vec![Box::new(pass)]);
    }

    /// Appends a group.
    pub fn group(&mut self, kind: Group, passes: Vec<Box<dyn Pass>>) {
        self.groups.push((kind, passes));
    }

    /// The passes of a compiler.
    pub fn of(compiler: &impl Compiler) -> PassList {
        let mut list = PassList::default();
        compiler.passes(&mut list);
        list
    }

    /// Leaves out the passes of which `keep` says no, by name: to compare a pipeline with itself without a pass.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        for (_, passes) in &mut self.groups {
            passes.retain(|pass| keep(pass.name()));
        }
        self.groups.retain(|(_, passes)| !passes.is_empty());
    }

    /// The passes, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn Pass> {
        self.groups
            .iter()
            .flat_map(|(_, passes)| passes)
            .map(|pass| &**pass)
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Names of all passes, in order.
    pub fn names(&self) -> Vec<String> {
        self.groups
            .iter()
            .flat_map(|(_, passes)| passes.iter().map(|pass| pass.name().to_string()))
            .collect()
    }
}

/// What the environment asks of a run.
struct Session {
    /// Number of the graph.
    graph: u32,
    debug: u32,
    dump: Option<std::path::PathBuf>,
    stop_at: Option<String>,
    check: bool,
    /// What the graph computes, as far as a check has found out: the next pass has to keep it.
    values: Option<Result<Vec<Array>>>,
    n_runs: usize,
    stopped: bool,
}

impl Session {
    fn from_knobs(graph: u32) -> Session {
        Session {
            graph,
            debug: knobs::debug_level(),
            dump: knobs::dump_dir(),
            stop_at: knobs::stop_at(),
            check: knobs::check(),
            values: None,
            n_runs: 0,
            stopped: false,
        }
    }

    /// Whether the pass that just ran is the last one.
    fn stops_after(&self, pass: &str) -> bool {
        self.stop_at
            .as_deref()
            .is_some_and(|stop| stop == pass || stop.parse() == Ok(self.n_runs))
    }
}

/// Runs a pipeline.
pub(crate) fn run(list: &PassList, graph: u32, inner: &mut Inner) -> Result<Report> {
    run_as(list, inner, Session::from_knobs(graph))
}

fn run_as(list: &PassList, inner: &mut Inner, mut session: Session) -> Result<Report> {
    let mut report = Report {
        nodes_before: inner.dag.len(),
        ..Report::default()
    };
    let samples = session
        .check
        .then(|| Samples::put(&inner.dag, &mut inner.state));
    let result = run_groups(list, inner, &mut session, &mut report);
    if let Some(samples) = samples {
        samples.remove(&mut inner.state);
    }
    report.nodes_after = inner.dag.len();
    result?;
    if let (Some(stop), false) = (&session.stop_at, session.stopped) {
        let names = list.names().join(", ");
        eprintln!(
            "note: BB_STOP_AT={stop} stopped nothing: {} passes ran, named {names}",
            session.n_runs
        );
    }
    if session.debug >= 2 {
        eprint!("{report}");
    }
    if session.debug == 3 {
        eprint!("{}", text::print(&inner.dag));
    }
    Ok(report)
}

fn run_groups(
    list: &PassList,
    inner: &mut Inner,
    session: &mut Session,
    report: &mut Report,
) -> Result<()> {
    verify(&inner.dag)?;
    let n_groups = list.groups.len();
    for (i, (kind, passes)) in list.groups.iter().enumerate() {
        for round in 1.. {
            let mut changed = false;
            for pass in passes {
                changed |= run_pass(&**pass, &mut inner.dag, &mut inner.state, session, report)?;
                if session.stops_after(pass.name()) {
                    session.stopped = true;
                    return Ok(());
                }
            }
            if *kind == Group::Once || !changed {
                break;
            }
            if round == MAX_ROUNDS {
                let names: Vec<&str> = passes.iter().map(|pass| pass.name()).collect();
                return Err(Error::msg(format!(
                    "passes {names:?} still change the graph after {MAX_ROUNDS} rounds"
                )));
            }
        }
        if i + 1 < n_groups {
            // Nobody could keep a value that comes up here, before the next passes find it unread.
            report
                .values
                .iter()
                .for_each(|handle| inner.dag.add_output(handle.value));
        }
        let stage = passes
            .last()
            .map_or_else(String::new, |pass| pass.name().to_string());
        inner.stages.retain(|(name, _)| *name != stage);
        inner.stages.push((stage, inner.dag.clone()));
    }
    Ok(())
}

fn run_pass(
    pass: &dyn Pass,
    dag: &mut Dag,
    state: &mut State,
    session: &mut Session,
    report: &mut Report,
) -> Result<bool> {
    let named = |e: Error| Error::Pass {
        pass: pass.name().to_string(),
        what: e.to_string(),
    };
    if session.check && session.values.is_none() {
        session.values = Some(kept_arrays(dag, state));
    }
    let n_before = dag.len();
    let start = Instant::now();
    let patch = pass.run_sized(dag, &state.symbols).map_err(named)?;
    let hits = patch.len();
    let (stored, calibrated) = (patch.stored(dag), patch.calibrated(dag));
    let values = patch.apply(dag).map_err(named)?;
    convert((stored, calibrated), dag, state, report).map_err(named)?;
    let time = start.elapsed();
    session.n_runs += 1;
    let handles = values.into_iter();
    let handles = handles.map(|value| GraphTensor::from_parts(session.graph, value));
    report.values.extend(handles);
    let entry = report.entry(pass.name());
    entry.runs += 1;
    entry.hits += hits;
    entry.time += time;
    entry.notes.extend(pass.notes());
    if hits > 0 {
        verify(dag).map_err(named)?;
        if pass.is_lossy() {
            session.values = None;
        } else if let Some(before) = session.values.take() {
            let after = kept_arrays(dag, state);
            if let Some(why) = compare(&before, &after).map_err(named)? {
                eprintln!(
                    "note: BB_CHECK compared nothing at `{}`: {why}",
                    pass.name()
                );
            }
            session.values = Some(after);
        }
    }
    if session.debug >= 1 {
        eprintln!(
            "{:>3} {:<24} {hits:>6} hits {n_before:>7} -> {:<7} nodes {time:>10.3?}",
            session.n_runs,
            pass.name(),
            dag.len()
        );
    }
    show(pass, dag, session, hits)?;
    Ok(hits > 0)
}

/// Inputs by number, with the formats that they had and have.
type Stored = Vec<(u32, DType, StoredAs)>;
/// What is known about inputs' columns.
type Calibrated = FxHashMap<u32, Arc<ColumnStats>>;

/// Converts the data of inputs that are stored otherwise now.
fn convert(
    (stored, calibrated): (Stored, Calibrated),
    dag: &Dag,
    state: &mut State,
    report: &mut Report,
) -> Result<()> {
    for (input, from, to) in stored {
        let stats = calibrated.get(&input).map(|stats| &**stats);
        match to {
            StoredAs::Format(to) => state.convert(input, from, to),
            StoredAs::Blocks(ty) => {
                let name = (input, name_of(dag, input));
                let n_threads = state.n_threads.unwrap_or_else(pool::default_threads);
                let stored = state.quantize(name, from, (ty, stats), n_threads)?;
                report.stored.extend(stored);
            }
            StoredAs::Signs(matrix, fit) => {
                let name = (input, name_of(dag, input));
                let n_threads = state.n_threads.unwrap_or_else(pool::default_threads);
                let signed = state.take_signs(name, from, (matrix, fit, stats), n_threads)?;
                report.signed.extend(signed);
            }
        }
    }
    Ok(())
}

/// What an input is called.
fn name_of(dag: &Dag, input: u32) -> String {
    let is_it = |id: &NodeIndex| matches!(dag.node(*id).op, Op::Input { id, .. } if id == input);
    let name = dag
        .ids()
        .find(is_it)
        .and_then(|id| dag.node(id).name.clone());
    name.map_or_else(|| format!("input {input}"), |name| name.to_string())
}

/// Prints and dumps what the debug level asks for.
fn show(pass: &dyn Pass, dag: &Dag, session: &Session, hits: usize) -> Result<()> {
    let mut listing = String::new();
    if session.debug >= 4 && hits > 0 {
        let _ = writeln!(listing, "# after {}\n{}", pass.name(), text::print(dag));
    }
    let ir = if session.debug >= 5 {
        pass.code(false)
    } else {
        None
    };
    let asm = if session.debug >= 6 {
        pass.code(true)
    } else {
        None
    };
    for code in [&ir, &asm].into_iter().flatten() {
        listing.push_str(code);
    }
    eprint!("{listing}");
    let Some(dir) = &session.dump else {
        return Ok(());
    };
    let io = |path: &std::path::Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let files = [("txt", Some(text::print(dag))), ("ll", ir), ("s", asm)];
    for (extension, content) in files {
        if let Some(content) = content {
            let path = dir.join(format!("{:03}-{}.{extension}", session.n_runs, pass.name()));
            std::fs::write(&path, content).map_err(io(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{NodeRef, Patch};
    use crate::prelude::*;

    /// Replaces every `sqrt` by its operand, which is wrong.
    struct DropSqrt;

    impl Pass for DropSqrt {
        fn name(&self) -> &str {
            "drop-sqrt"
        }

        fn run(&self, dag: &Dag) -> Result<Patch> {
            let mut patch = Patch::new();
            for id in dag.ids().filter(|&id| dag.node(id).op.name() == "sqrt") {
                patch.replace_with(dag, id, NodeRef::Old(dag.operands(id)[0].0));
            }
            Ok(patch)
        }
    }

    /// A pass that never has enough.
    struct Restless;

    impl Pass for Restless {
        fn name(&self) -> &str {
            "restless"
        }

        fn run(&self, dag: &Dag) -> Result<Patch> {
            let mut patch = Patch::new();
            if let Some(id) = dag.kept_nodes().into_iter().next() {
                let node = dag.node(id);
                let operands = dag.operands(id).into_iter();
                let operands = operands.map(|(source, view)| (NodeRef::Old(source), view.clone()));
                let new = patch.add(dag, node.op.clone(), operands.collect(), id)?;
                patch.replace_with(dag, id, new);
            }
            Ok(patch)
        }
    }

    fn graph() -> Graph {
        let mut cx = Graph::new();
        let x = cx.tensor::<R1<3>>().set([4.0, 9.0, f32::NAN]);
        ((x.sqrt() * 1.0) + x.sqrt()).retrieve();
        cx
    }

    fn checked(cx: &Graph, list: &PassList) -> Result<Report> {
        let session = Session {
            graph: cx.id(),
            debug: 0,
            dump: None,
            stop_at: None,
            check: true,
            values: None,
            n_runs: 0,
            stopped: false,
        };
        run_as(list, &mut cx.lock(), session)
    }

    #[test]
    fn check_accepts_generic() {
        let report = checked(&graph(), &PassList::of(&Generic)).expect("Generic is exact");
        assert!(report.hits("cse") > 0 && report.hits("algebra") > 0);
    }

    #[test]
    fn check_does_not_compare_what_may_change_results() {
        let rounding = || {
            let mut cx = Graph::new();
            let a = cx.tensor::<R2<1, 2>>().set([[4.0, 9.001]]).sqrt();
            let b = cx.tensor::<R2<2, 2>>().set([[0.1, 0.2], [0.3, 0.4]]);
            (a.matmul(b) + 1.0).retrieve();
            cx
        };
        let (plain, rounded) = (rounding(), rounding());
        let list = PassList::of(&(Generic, Precision::bf16()));
        let report = checked(&rounded, &list).expect("lossy, and says so");
        assert!(report.hits("mixed-precision") > 0);
        let values = |cx: &Graph| {
            let inner = cx.lock();
            kept_arrays(&inner.dag, &inner.state).expect("all is set")
        };
        let (before, after) = (Ok(values(&plain)), Ok(values(&rounded)));
        assert!(
            compare(&before, &after).is_err(),
            "it would have been refused"
        );
    }

    #[test]
    fn check_names_the_pass_that_changes_a_result() {
        let mut list = PassList::of(&Generic);
        list.push(DropSqrt);
        let error = checked(&graph(), &list)
            .expect_err("sqrt is gone")
            .to_string();
        assert!(error.contains("`drop-sqrt`"), "{error}");
        assert!(error.contains("4 became 8"), "{error}");
    }

    #[test]
    fn check_fills_in_what_is_not_set_yet() {
        let mut cx = Graph::new();
        let x = cx.input(('s', 2), DType::F32);
        (x.sqrt() * 1.0).retrieve();
        checked(&cx, &PassList::of(&Generic)).expect("Generic is exact");
        let mut list = PassList::default();
        list.push(DropSqrt);
        let error = checked(&cx, &list).expect_err("sqrt is gone").to_string();
        assert!(error.contains("changed at element"), "{error}");

        let inner = cx.lock();
        assert!(inner.state.inputs.is_empty(), "samples do not stay");
        assert_eq!(inner.state.symbols.get('s'), None);
    }

    #[test]
    fn a_group_that_never_settles_is_an_error() {
        let mut list = PassList::default();
        list.group(Group::Fixpoint, vec![Box::new(Restless)]);
        let error = checked(&graph(), &list).expect_err("no end").to_string();
        assert!(error.contains("restless"), "{error}");
    }
}
