//! What it costs to start kernels: on one thread, and on two.
//!
//! `cargo bench --bench dispatch` prints the time of an execution of 1,000 kernels that compute next to nothing, of
//! starting and joining a job, of a kernel that is just large enough for a second thread, and of a small
//! perceptron with and without the cost of giving it its input and reading its result.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use brain_blitz::exec::pool;
use brain_blitz::prelude::*;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn numbers(n: usize) -> Vec<f32> {
    let uniform = brain_blitz::op::random::uniform(7, 0, n).into_iter();
    uniform.map(|x| 0.2 * x - 0.1).collect()
}

fn compiled(threads: usize, record: impl Fn(&mut Graph)) -> Graph {
    let mut cx = Graph::new();
    cx.set_threads(threads);
    record(&mut cx);
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    cx
}

fn tiny_kernels(c: &mut Criterion) {
    const KERNELS: usize = 1000;
    let mut group = c.benchmark_group("1,000 kernels of 16 x 16 multiply-adds");
    group.throughput(Throughput::Elements(KERNELS as u64));
    for symbolic in [false, true] {
        let mut cx = Graph::new();
        cx.set_threads(1);
        let rows = if symbolic { Expr::from('s') } else { 1.into() };
        let w = cx.input((16, 16), DType::F32).set(numbers(256));
        let mut y = cx.input((rows, 16), DType::F32).set(numbers(16));
        for _ in 0..KERNELS {
            y = y.matmul(w);
        }
        y.retrieve();
        cx.set_dim('s', 1);
        cx.compile(<(Generic, LlvmCpu)>::default(), ());
        cx.execute();
        assert_eq!(cx.stats().native_steps, KERNELS);
        let name = if symbolic { "symbolic" } else { "constant" };
        group.bench_function(name, |b| b.iter(|| cx.execute()));
    }
    group.finish();
}

fn start_and_join(c: &mut Criterion) {
    let mut group = c.benchmark_group("start a job, and join both threads");
    for threads in [1, 2] {
        group.bench_function(format!("{threads} threads"), |b| {
            b.iter(|| {
                let came = AtomicBool::new(false);
                pool::broadcast(threads, &|number, n| {
                    came.fetch_or(number + 1 == n, Ordering::Relaxed);
                    while !came.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
        });
    }
    group.finish();
}

fn threshold(c: &mut Criterion) {
    let mut group = c.benchmark_group("sums of 512 rows");
    for columns in [256, 512, 1024, 2048] {
        for threads in [1, 2] {
            let mut cx = compiled(threads, |cx| {
                let x = cx.input((512, columns), DType::F32);
                x.set(numbers(512 * columns)).sum(1).retrieve();
            });
            let name = format!("{columns} columns, {threads} threads");
            group.bench_function(name, |b| b.iter(|| cx.execute()));
        }
    }
    group.finish();
}

fn perceptron(c: &mut Criterion) {
    let mut group = c.benchmark_group("MLP 784-128-64-10, batch 1");
    for threads in [1, 2] {
        let mut cx = Graph::new();
        cx.set_threads(threads);
        let input = cx.input((1, 784), DType::F32).set(numbers(784));
        let mut x = input;
        for (inner, outer) in [(784, 128), (128, 64), (64, 10)] {
            let w = cx.input((inner, outer), DType::F32);
            let b = cx.input(outer, DType::F32).set(numbers(outer));
            x = x.matmul(w.set(numbers(inner * outer))) + b.expand((1, outer));
            if outer > 10 {
                x = x.relu();
            }
        }
        let y = x.retrieve();
        cx.compile(<(Generic, LlvmCpu)>::default(), ());
        cx.execute();
        let name = |what: &str| format!("{what}, {threads} threads");
        group.bench_function(name("execute"), |b| b.iter(|| cx.execute()));
        let data = numbers(784);
        group.bench_function(name("set, execute, read"), |b| {
            b.iter(|| {
                input.set(&data[..]);
                cx.execute();
                black_box(y.data())
            })
        });
    }
    group.finish();
}

criterion_group!(benches, tiny_kernels, start_and_join, threshold, perceptron);
criterion_main!(benches);
