//! Where an execution's time goes.
//!
//! A [`Recorder`] of the graph's state notes when each step began and how long it took. [`Graph::profile`] gives what was noted together
//! with what each step had to do: bytes that it touched at the sizes of that execution, and floating-point operations.
//! Without a recorder an execution looks once at each step whether there is one, and does nothing else.
//!
//! Bytes are those of the operands' elements that the step's views reach, each counted once, and of the result: what
//! has to move at least. An operation on a number counts as one, an exponential too; a product of matrices has two for
//! each multiply-add. A profiled graph runs step by step, also where it would otherwise be one function.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::graph::state::{Recorder, State};
use crate::graph::{Dag, Graph, NodeIndex};
use crate::op::{Kernel, KernelInput, Op, TensorType};
use crate::shape::{Symbols, View, numel};

/// One step of one execution.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What was computed.
    pub node: NodeIndex,
    /// When it began, since the recorder was made.
    pub start: Duration,
    /// How long it took.
    pub time: Duration,
    /// What it had to do.
    pub work: Work,
}

/// What a step has to do.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Work {
    /// Bytes read and written.
    pub bytes: f64,
    /// Floating-point (and integer) operations.
    pub flop: f64,
}

/// A kernel's executions in sum.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// Its name with the sizes that it last had.
    pub name: String,
    /// One of the nodes that have this code.
    pub node: NodeIndex,
    /// How often it ran.
    pub calls: usize,
    /// Seconds in all.
    pub seconds: f64,
    /// What it did in all.
    pub work: Work,
}

/// The steps of executions, and what they add up to.
#[derive(Clone, Default, Debug)]
pub struct Profile {
    /// Every step in order.
    pub events: Vec<Event>,
    /// Equal kernels together, the longest time first.
    pub lines: Vec<Line>,
}

/// What a machine can do at best, in a second.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read from memory.
    pub read_bytes: f64,
}

impl Line {
    /// Which part of the machine's limits it reaches: of the one that it is nearer to. More than 1 means that its
    /// operands were in a cache.
    pub fn part_of(&self, limits: &Limits) -> f64 {
        let bytes = self.work.bytes / limits.read_bytes;
        let flop = self.work.flop / limits.flops;
        bytes.max(flop) / self.seconds.max(1e-12)
    }
}

impl Profile {
    fn new(dag: &Dag, recorder: &mut Recorder) -> Profile {
        let steps = std::mem::take(&mut recorder.steps);
        let executions = std::mem::take(&mut recorder.executions);
        let mut events = Vec::with_capacity(steps.len());
        for (i, (from, symbols)) in executions.iter().enumerate() {
            let to = executions.get(i + 1).map_or(steps.len(), |next| next.0);
            let there = steps[*from..to].iter();
            events.extend(
                there
                    .filter(|step| dag.contains(step.0))
                    .map(|&(node, start, time)| Event {
                        node,
                        start,
                        time,
                        work: work_of(dag, symbols, node),
                    }),
            );
        }
        let mut groups: BTreeMap<String, Line> = BTreeMap::new();
        for event in &events {
            let line = groups
                .entry(identity(dag, event.node))
                .or_insert_with(|| Line {
                    name: name_of(dag, event.node),
                    node: event.node,
                    calls: 0,
                    seconds: 0.0,
                    work: Work::default(),
                });
            line.calls += 1;
            line.seconds += event.time.as_secs_f64();
            line.work.bytes += event.work.bytes;
            line.work.flop += event.work.flop;
        }
        let mut lines: Vec<Line> = groups.into_values().collect();
        lines.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Profile { events, lines }
    }

    /// Seconds of all steps.
    pub fn seconds(&self) -> f64 {
        self.lines.iter().map(|line| line.seconds).sum()
    }

    /// The lines for a reader, with parts of the machine's limits where those are known.
    pub fn table(&self, limits: Option<&Limits>) -> String {
        let all = self.seconds().max(1e-12);
        let mut out = format!(
            "{:>6} {:>6} {:>11} {:>9} {:>9} {:>6}  kernel\n",
            "part", "calls", "ms", "GB/s", "GFLOP/s", "limit"
        );
        for line in &self.lines {
            let seconds = line.seconds.max(1e-12);
            let part = limits.map(|limits| format!("{:.0} %", 100.0 * line.part_of(limits)));
            let _ = writeln!(
                out,
                "{:>5.1}% {:>6} {:>11.3} {:>9.2} {:>9.2} {:>6}  {}",
                100.0 * line.seconds / all,
                line.calls,
                1e3 * line.seconds,
                line.work.bytes / seconds / 1e9,
                line.work.flop / seconds / 1e9,
                part.unwrap_or_else(|| "-".into()),
                line.name
            );
        }
        out
    }
}

impl Graph {
    /// Begins or ends to note the steps of executions; what was noted is forgotten.
    pub fn set_profiling(&mut self, on: bool) {
        self.lock().state.recorder = on.then(|| Recorder::new(false));
    }

    /// What was noted since the last call; `None` while nothing is noted.
    ///
    /// ```
    /// use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<8, 8>>().set([[0.5; 8]; 8]);
    /// let y = x.matmul(x).retrieve();
    /// cx.compile(<(Generic, LlvmCpu)>::default(), ());
    /// cx.set_profiling(true);
    /// cx.execute();
    /// let profile = cx.profile().unwrap();
    /// let flop: f64 = profile.lines.iter().map(|line| line.work.flop).sum();
    /// assert_eq!(flop, 2.0 * 8.0 * 8.0 * 8.0);
    /// println!("{}", profile.table(None));
    /// ```
    pub fn profile(&mut self) -> Option<Profile> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let recorder = inner.state.recorder.as_mut()?;
        Some(Profile::new(&inner.dag, recorder))
    }
}

/// Writes what an execution did to standard error, where `BB_DEBUG` asks for it.
pub(super) fn tell(dag: &Dag, state: &mut State) {
    if let Some(recorder) = state.recorder.as_mut().filter(|recorder| recorder.tells) {
        eprint!("{}", Profile::new(dag, recorder).table(None));
    }
}

/// Nodes that run the same code have the same text here.
fn identity(dag: &Dag, node: NodeIndex) -> String {
    match &dag.node(node).op {
        Op::Kernel(kernel) => match kernel.code() {
            Some(code) => format!("{:p}", std::sync::Arc::as_ptr(code).cast::<u8>()),
            None => format!("{} {}", kernel.name(), node.index()),
        },
        op => format!("{} {}", op.name(), dag.node(node).ty),
    }
}

fn name_of(dag: &Dag, node: NodeIndex) -> String {
    let entry = dag.node(node);
    match &entry.op {
        Op::Kernel(kernel) => {
            let ops = kernel.steps().iter().map(|step| step.op.name());
            let mut text: Vec<&str> = ops.collect();
            text.dedup();
            let more = text.len().saturating_sub(6);
            text.truncate(6);
            let dots = if more > 0 { " .." } else { "" };
            format!("{} {} [{}{dots}]", kernel.name(), entry.ty, text.join(" "))
        }
        op => format!("{} {}", op.name(), entry.ty),
    }
}

/// What a node has to do at these sizes.
fn work_of(dag: &Dag, symbols: &Symbols, node: NodeIndex) -> Work {
    let entry = dag.node(node);
    let operands = dag.operands(node);
    if let Op::Kernel(kernel) = &entry.op {
        return kernel_work(kernel, symbols);
    }
    let types: Vec<&TensorType> = operands.iter().map(|(id, _)| &dag.node(*id).ty).collect();
    let mut work = Work::default();
    for (slot, (_, view)) in operands.iter().enumerate() {
        work.bytes += reads(&entry.op, slot, view, types[slot], &entry.ty, symbols);
    }
    let dims = operands.first().map(|(_, view)| *view);
    work.flop = flop(&entry.op, dims, &entry.ty, symbols);
    // An update in place writes its rows only.
    let written = match &entry.op {
        Op::Scatter { .. } => size(operands[2].1.dims(), symbols) * entry.ty.dtype.size() as f64,
        _ => bytes_of(&entry.ty, symbols),
    };
    work.bytes += written;
    work
}

fn kernel_work(kernel: &Kernel, symbols: &Symbols) -> Work {
    let mut work = Work::default();
    let mut read = vec![0.0; kernel.operands().len()];
    for step in kernel.steps() {
        for (slot, (input, view)) in step.inputs.iter().enumerate() {
            if let KernelInput::Operand(at) = *input {
                let ty = &kernel.operands()[at];
                read[at] += reads(&step.op, slot, view, ty, &step.ty, symbols);
            }
        }
        let dims = step.inputs.first().map(|(_, view)| view);
        work.flop += flop(&step.op, dims, &step.ty, symbols);
    }
    for (read, ty) in read.iter().zip(kernel.operands()) {
        work.bytes += read.min(bytes_of(ty, symbols));
    }
    work.bytes += bytes_of(kernel.ty(), symbols);
    work
}

/// Bytes of an operand of type `ty` that an op reaches through a view.
fn reads(
    op: &Op,
    slot: usize,
    view: &View,
    ty: &TensorType,
    result: &TensorType,
    symbols: &Symbols,
) -> f64 {
    let elements = match op {
        // Of a table, the rows that are asked for.
        Op::Gather { .. } if slot == 0 => size(&result.dims, symbols),
        // What is updated in place is not read.
        Op::Scatter { .. } if slot == 0 => 0.0,
        _ => reached(view, symbols),
    };
    elements.min(size(&ty.dims, symbols)) * ty.dtype.size() as f64
}

/// How many different elements a view shows, at most.
fn reached(view: &View, symbols: &Symbols) -> f64 {
    let layers = view.layers();
    let top = &layers[layers.len() - 1];
    let walked = top.dims.iter().zip(&top.strides);
    walked
        .filter(|(_, stride)| !stride.is_zero())
        .map(|(dim, _)| dim.eval(symbols).unwrap_or(0) as f64)
        .product()
}

fn flop(op: &Op, operand: Option<&View>, result: &TensorType, symbols: &Symbols) -> f64 {
    match op {
        Op::Unary(_) | Op::Binary(_) | Op::Select => size(&result.dims, symbols),
        Op::Reduce(..) => operand.map_or(0.0, |view| size(view.dims(), symbols)),
        _ => 0.0,
    }
}

fn size(dims: &[crate::shape::Expr], symbols: &Symbols) -> f64 {
    numel(dims).eval(symbols).unwrap_or(0) as f64
}

fn bytes_of(ty: &TensorType, symbols: &Symbols) -> f64 {
    size(&ty.dims, symbols) * ty.dtype.size() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    /// The lines of one execution of a graph, compiled by `compiler`.
    fn lines(cx: &mut Graph, compiler: impl Compiler) -> Vec<Line> {
        cx.compile(compiler, ());
        cx.set_profiling(true);
        cx.execute();
        cx.profile().expect("profiling is on").lines
    }

    fn one(cx: &mut Graph, name: &str) -> Work {
        let all = lines(cx, Generic);
        let found = all.iter().find(|line| line.name.starts_with(name));
        found
            .unwrap_or_else(|| panic!("no {name} in {all:#?}"))
            .work
    }

    #[test]
    fn only_what_a_view_reaches_counts() {
        let mut cx = Graph::new();
        let x = cx.input(('s', 8), DType::F32).set(vec![1.0; 80]);
        let bias = cx.input(8, DType::F32).set(vec![1.0; 8]);
        cx.set_dim('s', 10);
        (x.slice_axis(0, 2, 6) + bias.expand((4, 8))).retrieve();
        let work = one(&mut cx, "add");
        assert_eq!(work.flop, 32.0);
        assert_eq!(work.bytes, 4.0 * (32.0 + 8.0 + 32.0));
    }

    #[test]
    fn tables_and_states_count_by_their_rows() {
        let mut cx = Graph::new();
        let table = cx.input((100, 8), DType::BF16).set_zeros();
        let index = cx.input((3, 8), DType::I32).set_zeros();
        let rows = table.gather(0, index);
        rows.retrieve();
        let state = cx.input((50, 8), DType::BF16).set_zeros();
        state.assign(state.scatter(0, index, rows));
        let all = lines(&mut cx, Generic);
        let bytes = |name: &str| {
            let found = all.iter().find(|line| line.name.starts_with(name));
            found.expect("it was executed").work.bytes
        };
        assert_eq!(bytes("gather"), 24.0 * (4.0 + 2.0 + 2.0));
        assert_eq!(bytes("scatter"), 24.0 * (4.0 + 2.0 + 2.0));
    }

    #[test]
    fn executions_add_up_at_the_sizes_that_each_had() {
        let mut cx = Graph::new();
        let x = cx.input('s', DType::F32);
        (x * x).retrieve();
        assert!(cx.profile().is_none(), "nothing is noted unless asked for");
        cx.set_profiling(true);
        for n in [10, 20] {
            x.set(vec![1.0; n]);
            cx.set_dim('s', n);
            cx.execute();
        }
        let profile = cx.profile().expect("profiling is on");
        assert_eq!(profile.lines.len(), 1);
        assert_eq!((profile.lines[0].calls, profile.events.len()), (2, 2));
        assert_eq!(profile.lines[0].work.flop, 30.0);
        assert!(profile.events[1].start >= profile.events[0].start + profile.events[0].time);
        assert_eq!(cx.profile().expect("still on").events.len(), 0);
        cx.set_profiling(false);
        assert!(cx.profile().is_none());
    }

    #[test]
    fn the_nearer_limit_counts() {
        let line = Line {
            name: String::new(),
            node: NodeIndex::new(0),
            calls: 1,
            seconds: 2.0,
            work: Work {
                bytes: 10.0,
                flop: 300.0,
            },
        };
        let part = |flops, read_bytes| line.part_of(&Limits { flops, read_bytes });
        assert_eq!(part(300.0, 10.0), 0.5);
        assert_eq!(part(1000.0, 10.0), 0.5);
        assert_eq!(part(300.0, 1000.0), 0.5);
        assert_eq!(part(150.0, 10.0), 1.0);
    }

    #[cfg(feature = "llvm-backend")]
    #[test]
    fn kernels_with_the_same_code_are_one_line_and_small_graphs_run_step_by_step() {
        let mut cx = Graph::new();
        let x = cx.input((4, 64), DType::F32).set(vec![0.5; 256]);
        let w = cx.input((64, 64), DType::F32).set(vec![0.5; 64 * 64]);
        x.matmul(w).matmul(w).matmul(w).retrieve();
        let all = lines(&mut cx, <(Generic, LlvmCpu)>::default());
        let product = &all[0];
        assert_eq!((all.len(), product.calls), (1, 3), "{all:#?}");
        assert_eq!(product.work.flop, 3.0 * 2.0 * (4 * 64 * 64) as f64);
        assert_eq!(product.work.bytes, 3.0 * 4.0 * (256 + 4096 + 256) as f64);
        assert_eq!(cx.stats().native_calls, 3);
        cx.set_profiling(false);
        cx.execute();
        assert!(cx.stats().native_calls <= 3);
    }
}
