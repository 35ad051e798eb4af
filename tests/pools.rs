//! Pools and their gradients: the reference's bits, also where elements are equal, and no gathers.

#![cfg(feature = "llvm-backend")]

use brain_blitz::compilers::llvm_cpu::{Target, codegen};
use brain_blitz::hl_ops::{Divisor, Pool};
use brain_blitz::op::Op;
use brain_blitz::prelude::*;

/// Few different numbers, so that windows have several largest elements, some below 0.
fn numbers(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * i * 7 + i * 3) % 5) as f32 - 2.0)
        .collect()
}

fn input(cx: &mut Graph, dims: [usize; 4]) -> GraphTensor {
    let n = dims.iter().product();
    cx.input(dims.map(Expr::from), DType::F32).set(numbers(n))
}

type Pooled = fn(GraphTensor, &Pool) -> GraphTensor;

/// The pool of what is left of an image by a rectifier, and the gradient by the image; natively on a machine, if it is
/// given.
fn run(pool: Pooled, rule: &Pool, dims: [usize; 4], cpu: Option<&str>) -> (Graph, [Vec<f32>; 2]) {
    let mut cx = Graph::new();
    let x = input(&mut cx, dims);
    let out = pool(x.relu(), rule).retrieve();
    let loss = (out * out + out).sum(..);
    let dx = cx.compile(Autograd::new(x, loss), ())[0].retrieve();
    if let Some(cpu) = cpu {
        cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
    }
    cx.execute();
    let values = [out.data(), dx.data()];
    (cx, values)
}

/// How many kernels of a graph gather.
fn n_gathers(cx: &Graph, cpu: &str) -> usize {
    let target = Target::for_cpu(cpu).unwrap();
    cx.inspect(|dag| {
        let kernels = dag.ids().filter_map(|id| match &dag.node(id).op {
            Op::Kernel(kernel) => Some(codegen::text(kernel, &target, false)),
            _ => None,
        });
        let texts: Vec<String> = kernels.collect();
        assert!(!texts.is_empty());
        texts.iter().filter(|t| t.contains("masked.gather")).count()
    })
}

const MAX: Pooled = |x, rule| x.max_pool(rule);
const MEAN: Pooled = |x, rule| x.avg_pool(rule, Divisor::Padded);

#[test]
fn windows_side_by_side_gather_nothing_forwards_and_backwards() {
    for dims in [[2, 3, 28, 28], [2, 2, 10, 10], [1, 2, 32, 16]] {
        for pool in [MAX, MEAN] {
            let rule = Pool::new([2, 2]);
            let (_, expected) = run(pool, &rule, dims, None);
            for cpu in ["native", "x86-64-v3", "x86-64-v2"] {
                let (cx, found) = run(pool, &rule, dims, Some(cpu));
                assert_eq!(found, expected, "{dims:?} on {cpu}");
                assert_eq!(cx.stats().native_steps, cx.stats().steps);
                assert_eq!(n_gathers(&cx, cpu), 0, "{dims:?} on {cpu}");
            }
        }
    }
}

#[test]
fn windows_that_overlap_have_the_reference_s_bits() {
    let rule = Pool {
        stride: Some(2.into()),
        ..Pool::new([3, 3])
    };
    let dims = [2, 2, 19, 25];
    let (_, expected) = run(MAX, &rule, dims, None);
    for cpu in ["native", "x86-64-v3"] {
        assert_eq!(run(MAX, &rule, dims, Some(cpu)).1, expected, "{cpu}");
    }
}
