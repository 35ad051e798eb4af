//! Products with what is made of them, in one kernel and in separate ones, and with weights that are packed once.
//!
//! `cargo bench --bench epilogue` prints a line for each graph: its kernels, the median time of an execution and the
//! memory of intermediate results, apart and together; then the median with packed weights, and the shortest times of the
//! three. All are executed in turns. Arguments choose graphs by a part of their name.

use std::time::{Duration, Instant};

use brain_blitz::compilers::{Compiler, PassList, Report};
use brain_blitz::op::Op;
use brain_blitz::prelude::*;

/// The pipeline without the pass.
struct Apart;

impl Compiler for Apart {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        LlvmCpu::native().passes(list);
        list.retain(|pass| pass != "epilogue");
    }
}

/// How long each graph is measured.
const TIME: Duration = Duration::from_secs(2);

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 101) as f32 / 5000.0 - 0.01).collect()
}

fn input(cx: &mut Graph, dims: &[usize], dtype: DType) -> GraphTensor {
    let exprs: Vec<Expr> = dims.iter().map(|&dim| Expr::from(dim)).collect();
    cx.input(exprs, dtype).set(numbers(dims.iter().product()))
}

/// `x wᵀ` with weights of a format.
fn linear(cx: &mut Graph, x: GraphTensor, [n, k]: [usize; 2], dtype: DType) -> GraphTensor {
    let w = input(cx, &[n, k], dtype);
    x.matmul(w.cast(DType::F32).transpose(0, 1))
}

fn mlp(cx: &mut Graph, m: usize) -> GraphTensor {
    let mut x = input(cx, &[m, 784], DType::F32);
    for (k, n) in [(784, 512), (512, 512), (512, 10)] {
        let y = linear(cx, x, [n, k], DType::F32) + input(cx, &[n], DType::F32);
        x = if n == 10 { y } else { y.relu() };
    }
    x
}

fn residual(cx: &mut Graph, m: usize) -> GraphTensor {
    let x = input(cx, &[m, 1024], DType::F32);
    let y = linear(cx, x, [1024, 1024], DType::F32) + input(cx, &[1024], DType::F32);
    x + y.gelu()
}

fn gated(cx: &mut Graph, m: usize) -> GraphTensor {
    let x = input(cx, &[m, 2304], DType::F32);
    let gate = linear(cx, x, [9216, 2304], DType::BF16).gelu();
    gate * linear(cx, x, [9216, 2304], DType::BF16)
}

/// Records a graph for some rows.
type Record = fn(&mut Graph, usize) -> GraphTensor;

/// What a graph is called, what records it, and for how many rows.
type Case = (&'static str, Record, usize);

fn cases() -> Vec<Case> {
    let graphs: [(&'static str, Record, &[usize]); 3] = [
        ("MLP 784-512-512-10", mlp, &[1, 32, 256]),
        ("bias, gelu, residual 1024", residual, &[16, 512]),
        ("gated pair 2304-9216 bf16", gated, &[1, 8, 64, 512]),
    ];
    let mut all = Vec::new();
    for (name, record, rows) in graphs {
        all.extend(rows.iter().map(|&m| (name, record, m)));
    }
    all
}

/// A compiled graph with the number of its kernels.
fn compiled((_, record, m): Case, compiler: impl Compiler) -> (Graph, usize) {
    let mut cx = Graph::new();
    record(&mut cx, m).retrieve();
    cx.compile((Generic, compiler), ());
    cx.execute();
    let count = cx.inspect(|dag| {
        let is_kernel = |op: &Op| matches!(op, Op::Kernel(_));
        dag.ids().filter(|&id| is_kernel(&dag.node(id).op)).count()
    });
    (cx, count)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    println!(
        "kernels  apart ms  MiB    kernels  together ms  MiB    ratio  packed ms  shortest of the three   graph"
    );
    for case in cases() {
        let name = format!("{}, {} rows", case.0, case.2);
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        let native = LlvmCpu::native;
        let mut graphs = [
            compiled(case, Apart),
            compiled(case, native().pack_weights(false)),
            compiled(case, native().pack_weights(true)),
        ];
        let mut times = [vec![], vec![], vec![]];
        let start = Instant::now();
        while start.elapsed() < TIME {
            for ((cx, _), times) in graphs.iter_mut().zip(&mut times) {
                let start = Instant::now();
                cx.execute();
                times.push(1e3 * start.elapsed().as_secs_f64());
            }
        }
        let [apart, together, packed] = times.each_mut().map(|times| median(times));
        let [best_apart, best, best_packed] = times.each_ref().map(|times| times[0]);
        let counts = graphs.each_ref().map(|graph| graph.1);
        let bytes = graphs.each_ref().map(|(cx, _)| {
            let stats = cx.stats();
            (stats.arena_bytes + stats.scratch_bytes) as f64 / f64::from(1 << 20)
        });
        println!(
            "{:>7} {apart:>9.3} {:>5.1} {:>9} {together:>12.3} {:>5.1} {:>7.2} {packed:>9.3} {best_apart:>9.3} {best:>9.3} \
             {best_packed:>9.3}  {name}",
            counts[0],
            bytes[0],
            counts[1],
            bytes[1],
            together / apart,
        );
    }
}
