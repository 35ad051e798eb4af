//! Products that share a kernel with what is made of them: how many kernels there are, that bits are those of separate
//! kernels whatever the sizes, machine and number of threads, and what must stay apart.

#![cfg(feature = "llvm-backend")]

#[path = "support/inputs.rs"]
mod inputs;

use brain_blitz::compilers::{Compiler, PassList, Report};
use brain_blitz::op::Op;
use brain_blitz::prelude::*;
use inputs::{input, numbers};

/// The pipeline without the pass.
struct Apart(&'static str);

impl Compiler for Apart {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        LlvmCpu::for_cpu(self.0).passes(list);
        list.retain(|pass| pass != "epilogue");
    }
}

/// `x wᵀ`, the weights stored by rows of outputs.
fn linear(cx: &mut Graph, x: GraphTensor, n: usize, k: usize, phase: usize) -> GraphTensor {
    x.matmul(input(cx, &[n, k], phase).transpose(0, 1))
}

fn n_kernels(cx: &Graph) -> usize {
    cx.inspect(|dag| {
        let is_kernel = |op: &Op| matches!(op, Op::Kernel(_));
        dag.ids().filter(|&id| is_kernel(&dag.node(id).op)).count()
    })
}

fn bits(data: &[f32]) -> Vec<u32> {
    data.iter().map(|x| x.to_bits()).collect()
}

/// How a graph is compiled and compared.
struct Case {
    cpus: &'static [&'static str],
    /// Whether the reference executor computes it too.
    reference: bool,
}

const ALL: Case = Case {
    cpus: &["native", "x86-64-v3", "scalar"],
    reference: true,
};
const LARGE: Case = Case {
    cpus: &["native", "x86-64-v3"],
    reference: false,
};

impl Case {
    /// Compiles what `build` records with and without the pass; gives the numbers of kernels.
    fn kernels(&self, build: impl Fn(&mut Graph) -> GraphTensor) -> (usize, usize) {
        let mut counts = None;
        let mut reference = None;
        for &cpu in self.cpus {
            let mut cx = Graph::new();
            let out = build(&mut cx).cast(DType::F32).retrieve();
            if self.reference && reference.is_none() {
                cx.execute();
                reference = Some(out.data());
            }
            cx.compile((Generic, Apart(cpu)), ());
            cx.execute();
            let (apart, wanted) = (n_kernels(&cx), out.data());

            let mut cx = Graph::new();
            let out = build(&mut cx).cast(DType::F32).retrieve();
            let report = cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
            for note in report.notes() {
                assert!(!note.contains("reference executor"), "{cpu}: {note}");
            }
            for threads in [1, 2, 3] {
                cx.set_threads(threads);
                cx.execute();
                let found = out.data();
                assert_eq!(bits(&found), bits(&wanted), "{cpu}, {threads} threads");
                if let Some(reference) = &reference {
                    for (&a, &b) in found.iter().zip(reference) {
                        let near = (a - b).abs() <= 2e-4 * b.abs().max(1.0);
                        assert!(near || a.to_bits() == b.to_bits(), "{cpu}: {a} {b}");
                    }
                }
            }
            let now = (n_kernels(&cx), apart);
            assert_eq!(*counts.get_or_insert(now), now, "{cpu}");
        }
        counts.expect("there are machines")
    }
}

fn kernels(build: impl Fn(&mut Graph) -> GraphTensor) -> (usize, usize) {
    ALL.kernels(build)
}

#[test]
fn bias_and_activation_at_all_sizes() {
    for m in [1, 2, 7, 33, 63, 129] {
        for (n, k) in [(1, 63), (7, 7), (63, 1), (129, 63), (5, 129)] {
            if m == 1 || n == 1 {
                continue;
            }
            let count = kernels(|cx| {
                let x = input(cx, &[m, k], 0);
                let y = linear(cx, x, n, k, 1) + input(cx, &[n], 2);
                y.relu()
            });
            assert_eq!(count, (1, 2), "{m} x {n} x {k}");
        }
    }
}

#[test]
fn rows_of_weights_or_columns() {
    for m in [2, 7, 63] {
        let count = kernels(|cx| {
            let x = input(cx, &[m, 33], 0);
            let y = x.matmul(input(cx, &[33, 63], 1));
            (y + input(cx, &[63], 2)).relu()
        });
        assert_eq!(count, (1, 2), "{m}");
    }
}

#[test]
fn activation_and_residual() {
    for (m, n, k) in [(3, 9, 40), (40, 63, 70), (70, 129, 33)] {
        let count = kernels(|cx| {
            let x = input(cx, &[m, k], 0);
            let y = linear(cx, x, n, k, 1) + input(cx, &[n], 2);
            y.gelu() + input(cx, &[m, n], 3)
        });
        assert_eq!(count, (1, 2), "{m} x {n} x {k}");
    }
}

#[test]
fn gated_pairs() {
    for (m, n, k) in [
        (2, 63, 33),
        (7, 64, 48),
        (33, 129, 63),
        (129, 7, 40),
        (63, 300, 129),
    ] {
        let count = kernels(|cx| {
            let x = input(cx, &[m, k], 0);
            let gate = linear(cx, x, n, k, 1).gelu();
            gate * linear(cx, x, n, k, 2)
        });
        assert_eq!(count, (1, 3), "{m} x {n} x {k}");
    }
}

#[test]
fn pairs_of_other_kinds() {
    // Weights by columns: the loop nest for a few rows cannot have both sums.
    for m in [3, 40] {
        let count = kernels(|cx| {
            let x = input(cx, &[m, 33], 0);
            let (a, b) = (input(cx, &[33, 63], 1), input(cx, &[33, 63], 2));
            x.matmul(a).sigmoid() * x.matmul(b)
        });
        assert_eq!(count, (1, 3), "one left operand, {m} rows");
        let count = kernels(|cx| {
            let (x, h) = (input(cx, &[m, 33], 0), input(cx, &[m, 33], 3));
            (linear(cx, x, 63, 33, 1) + linear(cx, h, 63, 33, 2)).tanh()
        });
        assert_eq!(count, (1, 3), "two left operands, {m} rows");
    }
    // Sums of other lengths are another product: it is computed before.
    let count = kernels(|cx| {
        let (x, h) = (input(cx, &[40, 33], 0), input(cx, &[40, 20], 3));
        (linear(cx, x, 63, 33, 1) + linear(cx, h, 63, 20, 2)).tanh()
    });
    assert_eq!(count, (2, 3));
}

#[test]
fn narrow_formats() {
    for dtype in [DType::BF16, DType::F16] {
        for m in [3, 16, 50] {
            let count = kernels(|cx| {
                let x = input(cx, &[m, 64], 0);
                let [gate, up] = [1, 2].map(|phase| {
                    let w = input(cx, &[96, 64], phase).cast(dtype).retrieve();
                    x.matmul(w.cast(DType::F32).transpose(0, 1))
                });
                (gate.gelu() * up).cast(dtype)
            });
            // The weights are made by two kernels, and the result is widened by what reads it.
            assert_eq!(count.1 - count.0, 2, "{dtype:?}, {m} rows");
        }
    }
}

#[test]
fn batches_and_heads() {
    for (b, s) in [(2, 3), (3, 17)] {
        let count = kernels(|cx| {
            let (x, w) = (input(cx, &[b, s, 20], 0), input(cx, &[b, 20, 24], 1));
            (x.matmul(w) + input(cx, &[b, 1, 24], 2)).relu()
        });
        assert_eq!(count, (1, 2), "a batch of products");
        let count = kernels(|cx| {
            let x = input(cx, &[b, s, 20], 0);
            let y = linear(cx, x, 24, 20, 1).reshape((b, s, 3, 8));
            y * input(cx, &[3, 8], 2) + input(cx, &[s, 1, 1], 3)
        });
        assert_eq!(count, (1, 2), "a value for each column of a head");
        let count = kernels(|cx| {
            let x = input(cx, &[b, s, 20], 0);
            let y = linear(cx, x, 24, 20, 1).reshape((b, s, 3, 8));
            y.permute([0, 2, 1, 3]) * input(cx, &[b, 3, s, 8], 2)
        });
        assert_eq!(count, (1, 2), "heads before positions");
    }
}

#[test]
fn long_sums_and_many_rows() {
    // Rows in several pieces, then sums too long for that.
    for (m, n, k) in [(1000, 1000, 3000), (600, 600, 4200), (60, 700, 9000)] {
        let count = LARGE.kernels(|cx| {
            let x = input(cx, &[m, k], 0);
            (linear(cx, x, n, k, 1) + input(cx, &[n], 2)).relu()
        });
        assert_eq!(count, (1, 2), "{m} x {n} x {k}");
        let count = LARGE.kernels(|cx| {
            let x = input(cx, &[m, k], 0);
            linear(cx, x, n, k, 1).relu() * linear(cx, x, n, k, 2)
        });
        assert_eq!(count, (1, 3), "{m} x {n} x {k}");
    }
}

#[test]
fn any_number_of_rows() {
    let build = |cx: &mut Graph| {
        let x = cx.input(('s', 48), DType::F32);
        let gate = linear(cx, x.dynamic(), 70, 48, 1).gelu();
        let y = gate * linear(cx, x.dynamic(), 70, 48, 2);
        let z = linear(cx, y, 33, 70, 3) + input(cx, &[33], 4);
        (x.dynamic(), z.relu().retrieve())
    };
    let (mut apart, mut fused) = (Graph::new(), Graph::new());
    let (x_apart, wanted) = build(&mut apart);
    let (x_fused, found) = build(&mut fused);
    apart.compile((Generic, Apart("native")), ());
    fused.compile(<(Generic, LlvmCpu)>::default(), ());
    assert_eq!((n_kernels(&fused), n_kernels(&apart)), (2, 5));
    for s in [1, 2, 5, 32, 33, 100, 0, 7] {
        for (cx, x) in [(&mut apart, x_apart), (&mut fused, x_fused)] {
            x.set(numbers(s * 48, s));
            cx.set_dim('s', s);
            cx.execute();
        }
        assert_eq!(bits(&found.data()), bits(&wanted.data()), "{s} rows");
    }
}

#[test]
fn products_are_not_in_memory() {
    let (m, n, k) = (256, 512, 64);
    let build = |cx: &mut Graph| {
        let x = input(cx, &[m, k], 0);
        let gate = linear(cx, x, n, k, 1).gelu();
        (gate * linear(cx, x, n, k, 2)).retrieve()
    };
    let bytes = |fuses: bool| {
        let mut cx = Graph::new();
        build(&mut cx);
        match fuses {
            true => cx.compile(<(Generic, LlvmCpu)>::default(), ()),
            false => cx.compile((Generic, Apart("native")), ()),
        };
        cx.execute();
        cx.stats().arena_bytes
    };
    assert_eq!(bytes(true), 4 * m * n);
    assert_eq!(bytes(false), 3 * 4 * m * n);
}

#[test]
fn a_residual_stream_is_written_in_place_of_the_product() {
    let count = kernels(|cx| {
        let (x, y) = (input(cx, &[20, 40], 0), input(cx, &[20, 30], 1));
        let stream = x + (linear(cx, y, 40, 30, 2) + input(cx, &[40], 3));
        let norm = stream.layer_norm(-1, None, None, 1e-5);
        stream + linear(cx, norm, 40, 40, 4)
    });
    // The stream, the norm, the stream after the second product.
    assert_eq!(count, (3, 5));
}

#[test]
fn a_small_graph_is_still_one_call() {
    let mut cx = Graph::new();
    let x = input(&mut cx, &[2, 8], 0);
    let y = (linear(&mut cx, x, 8, 8, 1) + input(&mut cx, &[8], 2)).relu();
    linear(&mut cx, y, 4, 8, 3).sigmoid().retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    let stats = cx.stats();
    assert_eq!((stats.native_steps, stats.native_calls), (2, 1));
}

#[test]
fn what_is_wanted_itself_stays_apart() {
    let count = kernels(|cx| {
        let x = input(cx, &[20, 30], 0);
        let y = linear(cx, x, 40, 30, 1).retrieve();
        y.relu()
    });
    assert_eq!(count, (2, 2));
}

#[test]
fn what_two_kernels_read_stays_apart() {
    let count = kernels(|cx| {
        let x = input(cx, &[20, 30], 0);
        let y = linear(cx, x, 40, 30, 1);
        // A sum over all of it is another kernel than the map.
        let scale = (y.gelu()).sum(1).sum(0);
        y.exp() + scale
    });
    assert_eq!(count.0, count.1);
}

#[test]
fn what_is_reduced_stays_apart() {
    let count = kernels(|cx| {
        let x = input(cx, &[20, 30], 0);
        (linear(cx, x, 40, 30, 1) + input(cx, &[40], 2)).layer_norm(-1, None, None, 1e-5)
    });
    assert_eq!(count, (2, 2));
}

#[test]
fn what_is_read_at_other_points_stays_apart() {
    let flipped = kernels(|cx| {
        let x = input(cx, &[20, 30], 0);
        let y = linear(cx, x, 40, 30, 1);
        y.flip(1) + input(cx, &[20, 40], 2)
    });
    assert_eq!(flipped, (2, 2), "in another order of columns");
    let part = kernels(|cx| {
        let x = input(cx, &[20, 30], 0);
        let y = linear(cx, x, 40, 30, 1);
        y.slice_axis(1, 0, 20) * y.slice_axis(1, 20, 40)
    });
    assert_eq!(part, (2, 2), "at two places");
    let columns = kernels(|cx| {
        let x = input(cx, &[20, 30], 0);
        linear(cx, x, 40, 30, 1).transpose(0, 1) + input(cx, &[40, 20], 2)
    });
    assert_eq!(columns, (2, 2), "by columns");
    let wide = kernels(|cx| {
        let x = input(cx, &[20, 30], 0);
        linear(cx, x, 40, 30, 1) + input(cx, &[3, 20, 40], 2)
    });
    assert_eq!(wide, (2, 2), "several times");
}

#[test]
fn few_columns_whose_steps_lie_apart() {
    let (n, k) = (7, 300);
    for m in [256, 255, 301] {
        let count = kernels(|cx| {
            let x = input(cx, &[m, k], 0);
            (x.matmul(input(cx, &[k, n], 1)) + input(cx, &[n], 2)).relu()
        });
        assert_eq!(count, (1, 2), "{m} rows");
        let count = kernels(|cx| {
            let x = input(cx, &[m, k], 0);
            let gate = x.matmul(input(cx, &[k, n], 1)).sigmoid();
            gate * x.matmul(input(cx, &[k, n], 2))
        });
        assert_eq!(count, (1, 3), "a pair, {m} rows");
    }
}

#[test]
fn written_out_columns_are_all_that_dot_products_need() {
    let scratch = |m: usize, n: usize, k: usize| {
        let mut cx = Graph::new();
        cx.set_threads(1);
        let x = input(&mut cx, &[m, k], 0);
        let y = x.matmul(input(&mut cx, &[k, n], 1)) + input(&mut cx, &[n], 2);
        y.relu().retrieve();
        cx.compile(<(Generic, LlvmCpu)>::default(), ());
        cx.execute();
        cx.stats().scratch_bytes
    };
    let (n, k) = (20usize, 700);
    let columns = (4 * n * k).next_multiple_of(64);
    assert_eq!(scratch(256, n, k), columns);
    assert!(scratch(255, n, k) > columns, "panels, for fewer rows");
    // Of up to 16 columns, vectors of them are all that rows are multiplied with where they are.
    assert!(scratch(256, 7, 300) <= 4 * 16 * 300 + 64);
    assert!(scratch(63, 7, 300) > 4 * 16 * 300 + 64, "panels");
}
