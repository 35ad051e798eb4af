//! The rows that are measured: each a graph at the size that is compared with others, and at a small one for tests.
//!
//! `benches/table.rs` measures them with criterion, `benches/row_times.rs` prints their times for
//! `benches/peers/run.sh`, and `tests/rows.rs` checks that each computes what the reference executor does, in as few
//! kernels as it should.

use brain_blitz::nn::attention::{Mask, ScoreRule};
use brain_blitz::prelude::*;

/// How large a row's tensors are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// As measured.
    Full,
    /// For tests.
    Small,
}

impl Scale {
    fn of(self, full: usize, small: usize) -> usize {
        match self {
            Scale::Full => full,
            Scale::Small => small,
        }
    }
}

/// What a row is measured by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Work {
    /// Floating-point operations.
    Flop(f64),
    /// Bytes that have to be read and written.
    Bytes(f64),
    /// Nothing but time.
    Latency,
}

/// A graph that is measured.
pub struct Row {
    /// Also the name that other programs know it by.
    pub name: &'static str,
    /// What it does, at a scale.
    pub work: fn(Scale) -> Work,
    /// Records it with its data.
    pub build: fn(&mut Graph, Scale) -> GraphTensor,
    /// How many kernels it may be at most.
    pub kernels: usize,
}

macro_rules! matmul {
    ($name:literal, $n:literal) => {
        Row {
            name: $name,
            work: |scale| Work::Flop(2.0 * (scale.of($n, matmul_small($n)) as f64).powi(3)),
            build: |cx, scale| {
                let n = scale.of($n, matmul_small($n));
                input(cx, [n, n]).matmul(input(cx, [n, n]))
            },
            kernels: 1,
        }
    };
}

macro_rules! matvec {
    ($name:literal, $dtype:expr) => {
        Row {
            name: $name,
            work: |scale| {
                let (rows, columns) = matvec_size(scale);
                Work::Bytes((rows * columns * $dtype.size()) as f64)
            },
            build: |cx, scale| {
                let (rows, columns) = matvec_size(scale);
                let w = cx.input((rows, columns), $dtype);
                let w = w.set(numbers(rows * columns)).cast(DType::F32);
                input(cx, [1, columns]).matmul(w.transpose(0, 1))
            },
            kernels: 1,
        }
    };
}

macro_rules! rows_of {
    ($name:literal, $kernels:literal, $op:expr) => {
        Row {
            name: $name,
            work: |scale| Work::Bytes(8.0 * (scale.of(4096, 96) as f64).powi(2)),
            build: |cx, scale| {
                let n = scale.of(4096, 96);
                let x = input(cx, [n, n]);
                let op: fn(&mut Graph, GraphTensor, usize) -> GraphTensor = $op;
                op(cx, x, n)
            },
            kernels: $kernels,
        }
    };
}

macro_rules! attention {
    ($name:literal, $kernels:literal, $mask:expr, $soft_cap:expr) => {
        Row {
            name: $name,
            work: |scale| {
                let (heads, seq, width) = attention_size(scale);
                Work::Flop((4 * heads * seq * seq * width) as f64)
            },
            build: |cx, scale| attention(cx, scale, $mask, $soft_cap),
            kernels: $kernels,
        }
    };
}

/// All rows.
pub const ROWS: &[Row] = &[
    matmul!("matmul_512", 512),
    matmul!("matmul_1024", 1024),
    matmul!("matmul_2048", 2048),
    matmul!("matmul_7", 7),
    matmul!("matmul_17", 17),
    matmul!("matmul_63", 63),
    matmul!("matmul_129", 129),
    matmul!("matmul_1000", 1000),
    matvec!("matvec_f32", DType::F32),
    matvec!("matvec_bf16", DType::BF16),
    Row {
        name: "gelu_chain",
        work: |scale| Work::Bytes(16.0 * chain_size(scale) as f64),
        build: |cx, scale| {
            let n = chain_size(scale);
            let [x, w, b, z] = [0; 4].map(|_| vector(cx, n));
            (x * w + b).gelu_tanh() * z.sigmoid()
        },
        kernels: 1,
    },
    Row {
        name: "gelu_chain_rows",
        work: |scale| Work::Bytes(12.0 * chain_size(scale) as f64),
        build: |cx, scale| {
            let n = scale.of(4096, 40);
            let [x, z] = [0; 2].map(|_| input(cx, [n, n]));
            let [w, b] = [0; 2].map(|_| vector(cx, n).expand((n, n)));
            (x * w + b).gelu_tanh() * z.sigmoid()
        },
        kernels: 1,
    },
    rows_of!("softmax", 5, |_, x, _| x.softmax(1)),
    rows_of!("layer_norm", 5, |cx, x, n| {
        let [w, b] = [0; 2].map(|_| vector(cx, n));
        x.layer_norm(-1, Some(w), Some(b), 1e-5)
    }),
    rows_of!("rms_norm", 3, |cx, x, n| {
        let w = vector(cx, n);
        x.rms_norm(-1, Some(w), 1e-6)
    }),
    attention!("attention", 7, Mask::None, None),
    attention!("attention_soft_cap", 7, Mask::None, Some(50.0)),
    attention!("attention_causal", 8, Mask::Causal, None),
    // No longer than the context: nothing more is hidden, so the difference is what the window costs.
    attention!("attention_window", 8, Mask::SlidingWindow(1024), None),
    Row {
        name: "mlp",
        work: |_| Work::Latency,
        build: |cx, _| {
            let mut x = input(cx, [1, 784]);
            for (inner, outer) in [(784, 128), (128, 64), (64, 10)] {
                let small = numbers(outer * inner).into_iter().map(|x| 0.05 * x);
                let w = cx.input((outer, inner), DType::F32);
                let w = w.set(small.collect::<Vec<f32>>());
                let b = vector(cx, outer);
                x = x.matmul(w.transpose(0, 1)) + b.expand((1, outer));
                if outer > 10 {
                    x = x.relu();
                }
            }
            x
        },
        kernels: 5,
    },
];

/// The size of a product in tests: smaller than any that is measured.
fn matmul_small(n: usize) -> usize {
    48.min(n / 2)
}

fn matvec_size(scale: Scale) -> (usize, usize) {
    (scale.of(73_728, 70), scale.of(2304, 50))
}

fn chain_size(scale: Scale) -> usize {
    scale.of(16 << 20, 1600)
}

/// Heads, positions, width of a head.
fn attention_size(scale: Scale) -> (usize, usize, usize) {
    (scale.of(8, 2), scale.of(1024, 20), scale.of(64, 8))
}

fn attention(cx: &mut Graph, scale: Scale, mask: Mask, soft_cap: Option<f64>) -> GraphTensor {
    let (heads, seq, width) = attention_size(scale);
    let [q, k, v] = [0; 3].map(|_| {
        let x = cx.input((heads, seq, width), DType::F32);
        x.set(numbers(heads * seq * width))
    });
    let mut rule = ScoreRule::scaled(width);
    (rule.mask, rule.soft_cap) = (mask, soft_cap);
    rule.attend(q, k, v, 0)
}

/// Numbers in (-2, 2) without a pattern that any kernel could use.
pub fn numbers(n: usize) -> Vec<f32> {
    let step = |i: usize| (i as u32).wrapping_mul(0x9e37_79b9).rotate_left(7);
    let unit = |bits: u32| (bits.wrapping_mul(0x85eb_ca6b) >> 8) as f32 / 16_777_216.0;
    (0..n).map(|i| 4.0 * unit(step(i + 1)) - 2.0).collect()
}

fn input(cx: &mut Graph, dims: [usize; 2]) -> GraphTensor {
    cx.input(dims, DType::F32).set(numbers(dims[0] * dims[1]))
}

fn vector(cx: &mut Graph, n: usize) -> GraphTensor {
    cx.input(n, DType::F32).set(numbers(n))
}
