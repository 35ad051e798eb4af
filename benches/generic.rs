//! How long `Generic` takes for graphs of 1,000 to 100,000 nodes: the time per node should stay the same.

use brain_blitz::prelude::*;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// A chain of about `n` nodes in which each link has duplicates, constants to fold, identities and a dead branch.
fn chain(n: usize) -> Graph {
    let mut cx = Graph::new();
    let x = cx.tensor::<R2<4, 8>>();
    let mut y = x.dynamic();
    let mut number = cx.full((4, 8), 2.0, DType::F32);
    while cx.n_nodes() < n {
        let (a, b) = (y.sqrt(), y.sqrt());
        let turned = (a + b).permute([1, 0]) * 1.0;
        number = number.sqrt() + 1.0;
        y = turned.permute([1, 0]).contiguous() + number;
        y.recip();
    }
    y.retrieve();
    cx
}

fn generic(c: &mut Criterion) {
    let mut group = c.benchmark_group("generic");
    group.sample_size(10);
    for n in [1_000, 10_000, 100_000] {
        group.throughput(Throughput::Elements(n as u64));
        group.bench_with_input(BenchmarkId::new("compile", n), &n, |b, &n| {
            b.iter_batched_ref(
                || chain(n),
                |cx| cx.compile(Generic, ()),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, generic);
criterion_main!(benches);
