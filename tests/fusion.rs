//! Which ops become one kernel: counts of kernels and buffers, each with a case that must stay apart.

#![cfg(feature = "llvm-backend")]

#[path = "support/inputs.rs"]
mod inputs;

use brain_blitz::op::Op;
use brain_blitz::prelude::*;
use inputs::input;

/// A graph that was compiled and run, and what it was before.
struct Compiled {
    /// Kernels that run.
    kernels: usize,
    /// How many of them write a result that another reads.
    between: usize,
    /// Largest difference from the reference executor's result, relative to 1 or the number.
    error: f64,
}

/// Compiles what `build` records, for each of several machines, and compares with the reference.
fn compiled(build: impl Fn(&mut Graph) -> Vec<GraphTensor>) -> Compiled {
    let mut found: Option<Compiled> = None;
    for cpu in ["native", "x86-64-v3", "scalar"] {
        let mut cx = Graph::new();
        let outs: Vec<GraphTensor> = build(&mut cx).into_iter().map(|x| x.retrieve()).collect();
        cx.execute();
        let wanted: Vec<Vec<f32>> = outs.iter().map(|out| out.data()).collect();
        let report = cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
        for note in report.notes() {
            assert!(!note.contains("reference executor"), "{cpu}: {note}");
        }
        cx.execute();
        let error = outs
            .iter()
            .zip(&wanted)
            .map(|(out, wanted)| distance(&out.data(), wanted))
            .fold(0.0, f64::max);
        let (kernels, between) = cx.inspect(|dag| {
            let is_kernel = |op: &Op| matches!(op, Op::Kernel(_));
            let kernels = || dag.ids().filter(|&id| is_kernel(&dag.node(id).op));
            let is_read = |id: &_| dag.readers(*id).any(|(r, ..)| is_kernel(&dag.node(r).op));
            (kernels().count(), kernels().filter(is_read).count())
        });
        let now = Compiled {
            kernels,
            between,
            error,
        };
        if let Some(before) = &found {
            assert_eq!(before.kernels, now.kernels, "{cpu}");
        }
        assert!(now.error < 1e-5, "{cpu}: {}", now.error);
        found = Some(now);
    }
    found.expect("there are machines")
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let each = a.iter().zip(b).map(|(&a, &b)| {
        if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) {
            return 0.0;
        }
        f64::from(a - b).abs() / f64::from(b).abs().max(1.0)
    });
    each.fold(0.0, f64::max)
}

fn kernels(build: impl Fn(&mut Graph) -> Vec<GraphTensor>) -> usize {
    compiled(build).kernels
}

#[test]
fn a_gated_chain_is_one_kernel() {
    let forms: [fn(GraphTensor) -> GraphTensor; 3] =
        [|x| x.gelu_tanh(), |x| x.gelu(), |x| x * x.sigmoid()];
    for form in forms {
        for small in [&[6, 40][..], &[40]] {
            let n = kernels(|cx| {
                let [x, z] = [0, 3].map(|i| input(cx, &[6, 40], i));
                let [w, b] = [1, 2].map(|i| input(cx, small, i));
                vec![form(x * w + b) * z.sigmoid()]
            });
            assert_eq!(n, 1);
        }
    }
}

#[test]
fn a_value_that_two_kernels_need_is_written_once() {
    // The exponential is kept apart from its readers, which cannot be one kernel.
    let found = compiled(|cx| {
        let e = input(cx, &[50], 0).exp();
        vec![(e + 1.0).sin(), (e * 2.0).sin()]
    });
    assert_eq!((found.kernels, found.between), (3, 1));
    // A sum of two is computed in each.
    let found = compiled(|cx| {
        let s = input(cx, &[50], 0) + 1.0;
        vec![s.sin(), s.exp()]
    });
    assert_eq!((found.kernels, found.between), (2, 0));
}

#[test]
fn a_value_is_not_computed_more_often_than_it_has_elements() {
    // Each exponential would be computed for every row.
    let n = kernels(|cx| {
        let e = input(cx, &[30], 0).exp();
        vec![e.expand([20, 30]) * input(cx, &[20, 30], 1)]
    });
    assert_eq!(n, 2);
    // The halves together are the whole.
    let n = kernels(|cx| {
        let e = input(cx, &[20, 30], 0).exp();
        vec![e.slice((.., ..15)) * e.slice((.., 15..)).sigmoid()]
    });
    assert_eq!(n, 1);
    // It and its transpose are twice as much.
    let n = kernels(|cx| {
        let e = input(cx, &[20, 20], 0).exp();
        vec![e * e.transpose(0, 1)]
    });
    assert_eq!(n, 2);
}

#[test]
fn readers_up_and_downstream_of_another_kernel_stay_apart() {
    // `e` is needed by the sum and after it: one kernel would have to read its own result.
    let found = compiled(|cx| {
        let e = input(cx, &[40, 20], 0).exp();
        let columns = e.mean(0).exp();
        vec![e * columns.expand([40, 20])]
    });
    assert_eq!((found.kernels, found.between), (3, 2));
}

#[test]
fn long_chains_are_cut() {
    let n = kernels(|cx| {
        let mut x = input(cx, &[17], 0);
        for _ in 0..300 {
            x = (x * x + 0.25).sin();
        }
        vec![x]
    });
    assert!((2..20).contains(&n), "{n}");
}

#[test]
fn a_kernel_reads_a_bounded_number_of_buffers() {
    let n = kernels(|cx| {
        let terms: Vec<GraphTensor> = (0..100).map(|i| input(cx, &[33], i)).collect();
        vec![
            terms
                .into_iter()
                .reduce(|a, b| (a + b).sin())
                .expect("a hundred"),
        ]
    });
    assert!((4..20).contains(&n), "{n}");
}

#[test]
fn normalisations_are_one_kernel_each() {
    type Form = fn(GraphTensor, GraphTensor) -> GraphTensor;
    let forms: [(&str, Form); 9] = [
        ("softmax", |x, _| x.softmax(-1)),
        ("log_softmax", |x, _| x.log_softmax(-1)),
        ("layer_norm", |x, w| {
            x.layer_norm(-1, Some(w), Some(w), 1e-5)
        }),
        ("rms_norm", |x, w| x.rms_norm(-1, Some(w), 1e-6)),
        ("logsumexp", |x, _| x.logsumexp(-1) * 2.0),
        ("softmax with a chain before and after", |x, w| {
            (x.tanh() * w).softmax(-1) * x
        }),
        ("sums of its own", |x, _| x / (x * x).sum_keepdim(-1).sqrt()),
        ("distance from the largest", |x, _| x.max_keepdim(-1) - x),
        ("two that do not need each other", |x, _| {
            (x * x).sum(-1) + x.max(-1)
        }),
    ];
    for (name, form) in forms {
        for dims in [&[6, 40][..], &[3, 2, 33], &[1, 5], &[7, 1], &[4, 300]] {
            let n = kernels(|cx| {
                let width = dims[dims.len() - 1];
                let (x, w) = (input(cx, dims, 0), input(cx, &[width], 1));
                vec![form(x, w)]
            });
            assert_eq!(n, 1, "{name} of {dims:?}");
        }
    }
}

#[test]
fn rows_of_several_dims_and_of_other_formats() {
    let n = kernels(|cx| {
        let x = input(cx, &[4, 5, 6], 0);
        let w = input(cx, &[5, 6], 1);
        vec![x.layer_norm([1, 2], Some(w), None, 1e-5)]
    });
    assert_eq!(n, 1);
    for dtype in [DType::F16, DType::BF16] {
        let n = kernels(|cx| {
            let x = input(cx, &[6, 40], 0).cast(dtype);
            vec![x.softmax(-1).cast(DType::F32)]
        });
        assert_eq!(n, 1, "{dtype}");
    }
}

#[test]
fn reductions_over_other_rows_stay_apart() {
    // Over columns: they do not lie in memory one after the other.
    assert_eq!(kernels(|cx| vec![input(cx, &[40, 30], 0).softmax(0)]), 4);
    // Over columns, of what was reduced over rows. The column sums take the last product of the softmax.
    let n = kernels(|cx| {
        let x = input(cx, &[40, 30], 0);
        vec![x.softmax(1).sum(0)]
    });
    assert_eq!(n, 3);
    // Of the transpose.
    let n = kernels(|cx| vec![input(cx, &[40, 30], 0).transpose(0, 1).softmax(1)]);
    assert_eq!(n, 4);
    // The sum is needed elsewhere too.
    let n = kernels(|cx| {
        let x = input(cx, &[40, 30], 0);
        let sum = x.exp().sum_keepdim(1);
        vec![x.exp() / sum, sum.log()]
    });
    assert!(n >= 3, "{n}");
}

#[test]
fn capped_and_masked_attention_weights_are_one_kernel() {
    let n = kernels(|cx| {
        let scores = input(cx, &[2, 3, 10, 10], 0);
        let mask = input(cx, &[10, 10], 1).lt(1.0);
        let capped = (scores * (1.0 / 5.0)).tanh() * 5.0;
        vec![mask.where_(capped, -1e4).softmax(-1)]
    });
    assert!(n <= 2, "one and perhaps the mask: {n}");
}
