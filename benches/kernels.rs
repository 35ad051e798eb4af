//! Native code against the reference executor: the same graph, executed by both.
//!
//! `cargo bench --bench kernels` prints a pair for each graph; the ratio of their medians is what compiling brings.
//! Sizes are those that the reference, which writes every intermediate result to memory, can do in reasonable time.

use std::hint::black_box;

use brain_blitz::prelude::*;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Numbers in (-2, 2) without a pattern that any kernel could use.
fn numbers(n: usize) -> Vec<f32> {
    brain_blitz::op::random::uniform(7, 0, n)
        .into_iter()
        .map(|x| 4.0 * x - 2.0)
        .collect()
}

fn input(cx: &mut Graph, dims: [usize; 2]) -> GraphTensor {
    cx.input(dims, DType::F32).set(numbers(dims[0] * dims[1]))
}

/// Benchmarks the graph that `build` records, without and with `LlvmCpu`.
fn pair(
    c: &mut Criterion,
    name: &str,
    work: Throughput,
    build: impl Fn(&mut Graph) -> GraphTensor,
) {
    let mut group = c.benchmark_group(name);
    group.throughput(work).sample_size(10);
    for native in [false, true] {
        let mut cx = Graph::new();
        let out = build(&mut cx).retrieve();
        if native {
            cx.compile(<(Generic, LlvmCpu)>::default(), ());
        }
        cx.execute();
        let label = if native { "native" } else { "reference" };
        group.bench_function(label, |b| b.iter(|| cx.execute()));
        black_box(out.array());
    }
    group.finish();
}

fn matmul(c: &mut Criterion) {
    let n = 256;
    let work = Throughput::Elements(2 * (n * n * n) as u64);
    pair(c, "matmul 256 (flops)", work, |cx| {
        let (a, b) = (input(cx, [n, n]), input(cx, [n, n]));
        a.matmul(b)
    });
}

fn matvec(c: &mut Criterion) {
    let (rows, columns) = (4096, 1024);
    let work = Throughput::Bytes(4 * (rows * columns) as u64);
    pair(c, "matvec 4096 x 1024 (weight bytes)", work, |cx| {
        let (x, w) = (input(cx, [1, columns]), input(cx, [rows, columns]));
        x.matmul(w.transpose(0, 1))
    });
}

fn softmax(c: &mut Criterion) {
    let work = Throughput::Bytes(8 << 20);
    pair(c, "softmax 1024 x 1024 (one read, one write)", work, |cx| {
        input(cx, [1024, 1024]).softmax(1)
    });
}

fn gelu_chain(c: &mut Criterion) {
    let work = Throughput::Bytes(16 << 20);
    pair(
        c,
        "gelu(x * w + b) * sigmoid(z), 1 M (three reads, one write)",
        work,
        |cx| {
            let [x, w, z] = [0; 3].map(|_| input(cx, [1024, 1024]));
            (x * w + 0.5).gelu_tanh() * z.sigmoid()
        },
    );
}

fn small_mlp(c: &mut Criterion) {
    pair(
        c,
        "MLP 784-128-64-10, batch 1",
        Throughput::Elements(1),
        |cx| {
            let mut x = input(cx, [1, 784]);
            for (inner, outer) in [(784, 128), (128, 64), (64, 10)] {
                let w = input(cx, [outer, inner]);
                x = x.matmul(w.transpose(0, 1)).relu();
            }
            x
        },
    );
}

criterion_group!(benches, matmul, matvec, softmax, gelu_chain, small_mlp);
criterion_main!(benches);
