//! Attention as one kernel: that it becomes one, where it must not, and that its numbers are those of the reference.

#![cfg(feature = "llvm-backend")]

use brain_blitz::nn::{Mask, ScoreRule};
use brain_blitz::op::Op;
use brain_blitz::prelude::*;

/// `[kv_heads, group, queries, keys, width, value width]`.
#[derive(Clone, Copy)]
struct Size {
    kv: usize,
    group: usize,
    s: usize,
    t: usize,
    d: usize,
    dv: usize,
}

const USUAL: Size = Size {
    kv: 2,
    group: 1,
    s: 70,
    t: 150,
    d: 16,
    dv: 24,
};

fn numbers(n: usize, phase: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 37 + phase * 29 + 5) % 83) as f32 / 40.0 - 1.0)
        .collect()
}

fn input(cx: &mut Graph, dims: [usize; 3], phase: usize) -> GraphTensor {
    cx.input(dims.map(Expr::from), DType::F32)
        .set(numbers(dims.iter().product(), phase))
}

/// Queries, keys and values.
fn operands(cx: &mut Graph, size: Size) -> [GraphTensor; 3] {
    let Size {
        kv,
        group,
        s,
        t,
        d,
        dv,
    } = size;
    [
        input(cx, [kv * group, s, d], 1),
        input(cx, [kv, t, d], 2),
        input(cx, [kv, t, dv], 3),
    ]
}

fn attention(cx: &mut Graph, size: Size, rule: ScoreRule) -> GraphTensor {
    let [q, k, v] = operands(cx, size);
    let start = size.t.saturating_sub(size.s);
    rule.attend(q, k, v, start)
}

fn kernel_names(cx: &Graph) -> Vec<String> {
    cx.inspect(|dag| {
        let kernels = dag.ids().filter_map(|id| match &dag.node(id).op {
            Op::Kernel(kernel) => Some(kernel.name().to_string()),
            _ => None,
        });
        kernels.collect()
    })
}

/// Largest difference relative to 1 or the number; NaN must be in the same places.
fn distance(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let pairs = found.iter().zip(wanted);
    pairs.fold(0.0, |worst, (a, b)| {
        assert_eq!(a.is_nan(), b.is_nan(), "{a} instead of {b}");
        if a.is_nan() {
            worst
        } else {
            ((a - b).abs() / b.abs().max(1.0)).max(worst)
        }
    })
}

/// Compiles what `build` makes for several machines and any number of threads, and compares with the reference;
/// returns the names of the kernels.
fn check(build: impl Fn(&mut Graph) -> GraphTensor) -> Vec<String> {
    let mut names = Vec::new();
    for cpu in ["native", "x86-64-v3", "scalar"] {
        let mut cx = Graph::new();
        let out = build(&mut cx).retrieve();
        cx.execute();
        let wanted = out.data();
        let report = cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
        for note in report.notes() {
            assert!(!note.contains("reference executor"), "{cpu}: {note}");
        }
        cx.set_threads(1);
        cx.execute();
        let one = out.data();
        assert!(
            distance(&one, &wanted) < 2e-6,
            "{cpu}: {}",
            distance(&one, &wanted)
        );
        for threads in [2, 3] {
            cx.set_threads(threads);
            cx.execute();
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&out.data()), bits(&one), "{cpu}, {threads} threads");
        }
        names = kernel_names(&cx);
    }
    names
}

fn rule(mask: Mask, soft_cap: Option<f64>) -> ScoreRule {
    ScoreRule {
        scale: 0.3,
        soft_cap,
        mask,
    }
}

#[test]
fn every_rule_is_one_kernel_with_the_numbers_of_the_reference() {
    for mask in [Mask::None, Mask::Causal, Mask::SlidingWindow(20)] {
        for soft_cap in [None, Some(5.0)] {
            let names = check(|cx| attention(cx, USUAL, rule(mask, soft_cap)));
            assert_eq!(names, ["attention"], "{mask:?} {soft_cap:?}");
        }
    }
}

#[test]
fn sizes_around_blocks_and_tiles() {
    for (s, t) in [
        (1, 1),
        (1, 300),
        (5, 5),
        (6, 128),
        (17, 129),
        (300, 300),
        (13, 257),
    ] {
        for (d, dv) in [(1, 1), (7, 33)] {
            let size = Size {
                s,
                t,
                d,
                dv,
                ..USUAL
            };
            check(|cx| attention(cx, size, rule(Mask::Causal, None)));
        }
    }
}

#[test]
fn query_heads_that_share_keys() {
    let size = Size {
        group: 3,
        s: 40,
        ..USUAL
    };
    let names = check(|cx| attention(cx, size, rule(Mask::Causal, Some(5.0))));
    assert_eq!(names, ["attention"]);
}

/// One query each of eight heads, of which two share keys; work enough for two threads.
const TOKEN: Size = Size {
    kv: 4,
    group: 2,
    s: 1,
    t: 300,
    d: 64,
    dv: 64,
};

/// How many jobs for two threads an execution of attention has.
fn jobs(size: Size) -> u64 {
    let mut cx = Graph::new();
    attention(&mut cx, size, rule(Mask::Causal, Some(5.0))).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    assert_eq!(kernel_names(&cx), ["attention"]);
    cx.set_threads(2);
    let before = brain_blitz::exec::pool::jobs();
    cx.execute();
    brain_blitz::exec::pool::jobs() - before
}

#[test]
fn threads_are_called_once_for_the_heads_of_a_token() {
    assert_eq!(jobs(TOKEN), 1);
    // Three heads do not come out even, and values of such a width are no whole blocks: there each part is a job, or is done
    // by one thread.
    assert!(
        jobs(Size {
            kv: 3,
            t: 900,
            ..TOKEN
        }) > 1
    );
    assert!(
        jobs(Size {
            dv: 40,
            t: 900,
            ..TOKEN
        }) > 1
    );
    // Less work than another thread is worth.
    assert_eq!(jobs(Size { t: 30, ..TOKEN }), 0);
}

#[test]
fn heads_of_a_token_have_the_bits_of_every_number_of_threads() {
    // With three threads the parts come one after the other.
    for size in [
        TOKEN,
        Size { t: 5, ..TOKEN },
        Size { t: 67, ..TOKEN },
        Size {
            group: 1,
            s: 3,
            t: 1000,
            ..TOKEN
        },
        Size {
            group: 3,
            s: 2,
            dv: 288,
            ..TOKEN
        },
        Size { kv: 1, ..TOKEN },
    ] {
        let names = check(|cx| attention(cx, size, rule(Mask::Causal, Some(5.0))));
        assert_eq!(names, ["attention"]);
    }
}

#[test]
fn masks_from_memory() {
    let mask = |cx: &mut Graph| {
        let numbers = input(cx, [1, USUAL.s, USUAL.t], 7);
        numbers.lt(0.3)
    };
    let names = check(|cx| {
        let mask = mask(cx);
        attention(cx, USUAL, rule(Mask::Given(mask), None))
    });
    assert_eq!(names, ["attention"]);
}

#[test]
fn rows_that_see_nothing_are_nan_as_in_the_reference() {
    // Queries stand before all keys of a window, in blocks that are skipped and in blocks that are not.
    let size = Size {
        s: 300,
        t: 300,
        ..USUAL
    };
    check(|cx| {
        let [q, k, v] = operands(cx, size);
        rule(Mask::Causal, None).attend(q, k, v, -5)
    });
    check(|cx| {
        let [q, k, v] = operands(cx, size);
        rule(Mask::SlidingWindow(10), None).attend(q, k, v, 200)
    });
}

#[test]
fn scores_are_never_all_in_memory() {
    let size = Size {
        kv: 2,
        group: 1,
        s: 1024,
        t: 1024,
        d: 16,
        dv: 16,
    };
    let mut cx = Graph::new();
    let out = attention(&mut cx, size, rule(Mask::Causal, None)).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.set_threads(2);
    cx.execute();
    let (scores, result) = (4 * 2 * 1024 * 1024, 4 * 2 * 1024 * 16);
    let stats = cx.stats();
    assert_eq!(stats.arena_bytes, result);
    assert!(stats.scratch_bytes < scores / 4, "{}", stats.scratch_bytes);
    assert_eq!(out.data().len(), 2 * 1024 * 16);
}

#[test]
fn narrow_values_and_few_keys_are_computed_in_blocks_too() {
    for (t, dv) in [(1024, 2), (8, 16), (3, 16)] {
        let size = Size {
            kv: 1,
            group: 1,
            s: 1024,
            t,
            d: 16,
            dv,
        };
        let names = check(|cx| attention(cx, size, rule(Mask::None, None)));
        assert_eq!(names, ["attention"]);
        let mut cx = Graph::new();
        attention(&mut cx, size, rule(Mask::None, None)).retrieve();
        cx.compile(<(Generic, LlvmCpu)>::default(), ());
        cx.set_threads(1);
        cx.execute();
        // A block has at most 8 tiles of 12 rows; packed operands and what a product works in come on top.
        let block = 4 * 2 * 96 * t.max(16);
        let most = block + 4 * 1024 * 64;
        assert!(
            cx.stats().scratch_bytes < most,
            "{}",
            cx.stats().scratch_bytes
        );
    }
}

#[test]
fn symbolic_sizes_and_one_more_query() {
    tokens_one_after_another(4, 8);
    // One row of scores for each head, and values in whole blocks: heads of a token are computed one by one.
    tokens_one_after_another(2, 32);
}

fn tokens_one_after_another(heads: usize, width: usize) {
    let mut cx = Graph::new();
    let (s, t) = (Expr::from('s'), Expr::from('s') + Expr::from('p'));
    let q = cx.input((heads, s, width), DType::F32);
    let k = cx.input((2, t, width), DType::F32);
    let v = cx.input((2, t, width), DType::F32);
    let out = rule(Mask::SlidingWindow(50), None)
        .attend(q, k, v, 'p')
        .retrieve();
    let fed = |cx: &mut Graph, s: usize, p: usize| {
        cx.set_dim('s', s);
        cx.set_dim('p', p);
        q.set(numbers(heads * s * width, 1));
        k.set(numbers(2 * (s + p) * width, 2));
        v.set(numbers(2 * (s + p) * width, 3));
        cx.execute();
        out.data()
    };
    let steps = [(200, 0), (1, 200), (1, 201), (30, 202), (2, 3)];
    let wanted: Vec<_> = steps.iter().map(|&(s, p)| fed(&mut cx, s, p)).collect();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    assert_eq!(kernel_names(&cx), ["attention"]);
    for ((s, p), wanted) in steps.into_iter().zip(wanted) {
        let error = distance(&fed(&mut cx, s, p), &wanted);
        assert!(error < 2e-6, "{s} after {p}: {error}");
    }
}

#[test]
fn what_is_wanted_itself_stays_apart() {
    let mut cx = Graph::new();
    let [q, k, v] = operands(&mut cx, USUAL);
    let weights = q.matmul(k.transpose(-1, -2)).softmax(-1).retrieve();
    let out = weights.matmul(v).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    assert!(!kernel_names(&cx).contains(&"attention".to_string()));
    let sums = weights.data();
    let first: f32 = sums[..USUAL.t].iter().sum();
    assert!((first - 1.0).abs() < 1e-5);
    assert_eq!(out.data().len(), 2 * 70 * 24);
}

#[test]
fn weights_along_the_queries_stay_apart() {
    let names = check(|cx| {
        let [q, k, v] = operands(cx, USUAL);
        q.matmul(k.transpose(-1, -2)).softmax(-2).matmul(v)
    });
    assert!(!names.contains(&"attention".to_string()), "{names:?}");
}

#[test]
fn weights_that_do_not_vanish_are_not_skipped() {
    // A hidden score counts as one here, so its value must be read.
    let size = Size {
        s: 300,
        t: 300,
        ..USUAL
    };
    check(|cx| {
        let [q, k, v] = operands(cx, size);
        let scores = q.matmul(k.transpose(-1, -2));
        let (rows, columns) = (cx.arange(300), cx.arange(300));
        let seen = columns.insert_axis(0, 300).lt(rows.insert_axis(1, 300) + 1);
        let hidden = seen.insert_axis(0, 2).where_(scores, f32::NEG_INFINITY);
        let weights = ((hidden - hidden.max_keepdim(-1)).exp() + 1.0) * (1.0 / 300.0);
        weights.matmul(v)
    });
}

/// Attention over keys and values in 16 bits, of which `read` makes what is multiplied.
fn over_16_bits(
    cx: &mut Graph,
    size: Size,
    dtype: DType,
    read: impl Fn(GraphTensor) -> GraphTensor,
) -> GraphTensor {
    let [q, k, v] = operands(cx, size);
    let [k, v] = [k, v].map(|x| {
        let numbers = x.data();
        let dims = x.dims();
        let stored = cx.input(dims, dtype).set(numbers);
        read(stored)
    });
    let start = size.t.saturating_sub(size.s);
    rule(Mask::Causal, Some(5.0)).attend(q, k, v, start)
}

#[test]
fn keys_and_values_in_16_bits_are_read_where_they_are() {
    for dtype in [DType::F16, DType::BF16] {
        for (s, group) in [(1, 3), (1, 8), (2, 1), (70, 2)] {
            let size = Size { s, group, ..USUAL };
            let widened = |x: GraphTensor| x.cast(DType::F32);
            let names = check(|cx| over_16_bits(cx, size, dtype, widened));
            assert_eq!(names, ["attention"], "{s} queries of {group} over {dtype}");
            let bytes = |read: fn(GraphTensor) -> GraphTensor| {
                let mut cx = Graph::new();
                over_16_bits(&mut cx, size, dtype, read).retrieve();
                cx.compile(<(Generic, LlvmCpu)>::default(), ());
                cx.execute();
                cx.stats().arena_bytes
            };
            let result = 4 * size.kv * group * s * size.dv;
            assert_eq!(bytes(widened), result);
            // What is computed from them is written out.
            let copies = 4 * size.kv * size.t * (size.d + size.dv);
            assert!(bytes(|x| x.cast(DType::F32) + 1.0) >= result + copies);
        }
    }
}
