//! The rows of `rows/mod.rs`, and compiling Gemma 2 2B, measured with criterion.
//!
//! `cargo bench --bench table` shows rates: operations, bytes or executions a second.

#[allow(dead_code, reason = "tests use the rest")]
#[path = "rows/mod.rs"]
mod rows;

use std::hint::black_box;

use brain_blitz::generation::{Options, Session, synthetic};
use brain_blitz::prelude::*;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rows::{ROWS, Scale, Work};

fn rows(c: &mut Criterion) {
    for row in ROWS {
        let mut cx = Graph::new();
        let out = (row.build)(&mut cx, Scale::Full).retrieve();
        cx.compile(<(Generic, LlvmCpu)>::default(), ());
        cx.execute();
        let mut group = c.benchmark_group("rows");
        group.sample_size(10);
        match (row.work)(Scale::Full) {
            Work::Flop(n) => group.throughput(Throughput::Elements(n as u64)),
            Work::Bytes(n) => group.throughput(Throughput::Bytes(n as u64)),
            Work::Latency => group.throughput(Throughput::Elements(1)),
        };
        group.bench_function(row.name, |b| b.iter(|| cx.execute()));
        group.finish();
        black_box(out.array());
    }
}

/// Recording and compiling, with kernels that are in the cache after the first time.
fn compile(c: &mut Criterion) {
    let config = synthetic::config("gemma2-2b").expect("a known shape");
    let options = Options::default();
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    group.bench_function("gemma2-2b", |b| {
        b.iter(|| {
            let quiet = &mut |_: brain_blitz::generation::Progress<'_>| ();
            Session::without_weights(config.clone(), DType::BF16, &options, quiet)
                .expect("a known shape compiles")
        })
    });
    group.finish();
}

criterion_group!(benches, rows, compile);
criterion_main!(benches);
