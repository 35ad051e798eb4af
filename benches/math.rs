//! What the modes of `Math` cost per element: each function exactly, by tables and by polynomials, for vectors of 8 and
//! of 16 lanes, on one thread.
//!
//! `cargo bench --bench math -- 'tanh|softmax'` prints a line for each mode and target. Data stays in the second cache.

use std::time::Duration;

use brain_blitz::compilers::llvm_cpu::Target;
use brain_blitz::prelude::*;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Elements of a row and rows.
const DIMS: (usize, usize) = (64, 1024);

type Function = fn(GraphTensor) -> GraphTensor;

const FUNCTIONS: [(&str, Function); 8] = [
    ("exp", |x| x.exp()),
    ("sigmoid", |x| x.sigmoid()),
    ("silu", |x| x.silu()),
    ("tanh", |x| x.tanh()),
    ("gelu", |x| x.gelu()),
    ("gelu_tanh", |x| x.gelu_tanh()),
    ("rsqrt", |x| x.rsqrt()),
    ("softmax", |x| x.softmax(-1)),
];

fn functions(c: &mut Criterion) {
    let n = DIMS.0 * DIMS.1;
    let runs_here = |name: &&str| Target::for_cpu(name).is_ok_and(|target| target.can_run_here());
    let targets: Vec<&str> = ["x86-64-v3", "native"]
        .into_iter()
        .filter(runs_here)
        .collect();
    for (name, function) in FUNCTIONS {
        let mut group = c.benchmark_group(name);
        group
            .throughput(Throughput::Elements(n as u64))
            .warm_up_time(Duration::from_millis(50))
            .measurement_time(Duration::from_millis(250))
            .sample_size(10);
        for target in &targets {
            for math in Math::ALL {
                let mut cx = Graph::new();
                cx.set_threads(1);
                let numbers = brain_blitz::op::random::uniform(7, 0, n).into_iter();
                let numbers: Vec<f32> = numbers.map(|x| 6.0 * x + 0.01).collect();
                function(cx.input(DIMS, DType::F32).set(numbers)).retrieve();
                cx.compile((Generic, LlvmCpu::for_cpu(*target).math(math)), ());
                cx.execute();
                group.bench_function(format!("{target} {math}"), |b| b.iter(|| cx.execute()));
            }
        }
        group.finish();
    }
}

criterion_group!(benches, functions);
criterion_main!(benches);
