//! Products with weights in blocks: whole numbers multiplied by whole numbers, on every target.

#![cfg(feature = "llvm-backend")]

#[path = "support/kernels.rs"]
mod support;

use brain_blitz::blocks::BlockType;
use brain_blitz::op::ActivationScheme;
use brain_blitz::prelude::*;
use half::f16;
use support::{kernels, noise, targets};

/// All types with kernels.
const TYPES: [BlockType; 15] = [
    BlockType::Q1_0,
    BlockType::Q2_0,
    BlockType::Q4_0,
    BlockType::Q4_1,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q8_0,
    BlockType::Q2_K,
    BlockType::Q3_K,
    BlockType::Q4_K,
    BlockType::Q5_K,
    BlockType::Q6_K,
    BlockType::TQ1_0,
    BlockType::TQ2_0,
    BlockType::IQ4_NL,
];

/// Blocks of a type, made of these bytes, whose numbers are at most 1.
fn blocks_of(ty: BlockType, n: usize, byte: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..n * ty.block_bytes()).map(byte).collect();
    let put = |bytes: &mut [u8], scale: f32| {
        for block in bytes.chunks_exact_mut(ty.block_bytes()) {
            for &at in ty.scale_offsets() {
                block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            }
        }
    };
    put(&mut bytes, 1.0);
    let mut numbers = vec![0.0; n * ty.block_len()];
    ty.dequantize(&bytes, &mut numbers).unwrap();
    let largest = numbers.iter().fold(0f32, |max, x| max.max(x.abs()));
    put(&mut bytes, 0.5f32.powf(largest.max(1.0).log2().ceil()));
    bytes
}

/// A length of rows in blocks of `ty`, for one in blocks of 32.
fn whole_rows(ty: BlockType, (m, n, k): (usize, usize, usize)) -> (usize, usize, usize) {
    (m, n, k / 32 * ty.block_len())
}

/// A product `[m, k] x [n, k]` of rounded activations and blocks of weights.
struct Case {
    ty: BlockType,
    scheme: ActivationScheme,
    sizes: (usize, usize, usize),
    x: Vec<f32>,
    w: Vec<f32>,
}

impl Case {
    fn new(ty: BlockType, scheme: ActivationScheme, sizes: (usize, usize, usize)) -> Case {
        let (m, n, k) = sizes;
        Case {
            ty,
            scheme,
            sizes,
            x: noise(m * k, 1),
            w: noise(n * k, 2),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        if !self.ty.can_quantize() {
            let n = self.w.len() / self.ty.block_len();
            return blocks_of(self.ty, n, |i| (i * 151 % 256) as u8 ^ (i / 256) as u8);
        }
        let mut bytes = vec![0; self.ty.bytes_of(self.w.len()).unwrap()];
        self.ty.quantize(&self.w, &mut bytes).unwrap();
        bytes
    }

    /// The result with `s` rows, and how many kernels multiplied blocks.
    fn run(&self, target: Option<&str>, threads: usize) -> (Vec<f32>, usize) {
        let (y, cx) = self.compiled(target.map(LlvmCpu::for_cpu), threads);
        (y, n_block_kernels(&cx))
    }

    /// The result with `s` rows, and the graph that was executed.
    fn compiled(&self, compiler: Option<LlvmCpu>, threads: usize) -> (Vec<f32>, Graph) {
        let (m, n, k) = self.sizes;
        let mut cx = Graph::new();
        let x = cx.input(('s', k), DType::F32);
        x.set(self.x.clone());
        let bytes = self.bytes();
        let w = cx.input((n, bytes.len() / n.max(1)), DType::U8);
        w.set(bytes);
        let w = w.dequantize(self.ty);
        let y = x
            .fake_quantize(self.scheme)
            .matmul(w.transpose(0, 1))
            .retrieve();
        cx.set_dim('s', m);
        cx.set_threads(threads);
        if let Some(compiler) = compiler {
            cx.compile((Generic, compiler), ());
        }
        cx.execute();
        (y.data(), cx)
    }
}

fn n_block_kernels(cx: &Graph) -> usize {
    let is_product = |name: &&String| TYPES.iter().any(|ty| name.starts_with(ty.name()));
    kernels(cx).iter().filter(is_product).count()
}

#[test]
fn every_target_agrees_with_the_reference() {
    let sizes = [
        (1, 2, 32),
        (1, 37, 96),
        (2, 5, 64),
        (3, 16, 32),
        (5, 70, 288),
        (9, 33, 64),
        (41, 18, 160),
    ];
    for ty in TYPES {
        let own = ActivationScheme::for_weights(ty);
        let others = ActivationScheme::BYTES.into_iter();
        for scheme in others.filter(|other| *other != own).chain([own]) {
            for sizes in sizes {
                let sizes = whole_rows(ty, sizes);
                let case = Case::new(ty, scheme, sizes);
                let expected = case.run(None, 1).0;
                for target in targets() {
                    let (found, n) = case.run(Some(target), 2);
                    assert_eq!(n, 1, "{ty} {sizes:?} on {target}: not lowered");
                    for (a, b) in expected.iter().zip(&found) {
                        let close = (a - b).abs() <= 2e-6 * sizes.2 as f32;
                        assert!(close, "{ty} {scheme:?} {sizes:?} on {target}: {a} {b}");
                    }
                }
            }
        }
    }
}

/// Scales that are powers of two, and sums below 2^24: then every order of additions gives the same bits, and any
/// wrong product shows.
#[test]
fn whole_numbers_are_multiplied_exactly() {
    let plain = ActivationScheme::A8G32;
    for (ty, scheme) in [
        (BlockType::Q8_0, plain),
        (BlockType::Q4_0, plain),
        (BlockType::Q8_0, ActivationScheme::A8G32Outlier),
    ] {
        for sizes in [(1, 9, 64), (3, 9, 1024), (13, 33, 1024)] {
            let mut case = Case::new(ty, scheme, sizes);
            let limit: f32 = if ty == BlockType::Q8_0 { 127.0 } else { -8.0 };
            let whole = |x: &mut Vec<f32>, most: f32, limit: f32| {
                x.iter_mut().for_each(|x| *x = (*x * most).round());
                x.chunks_mut(32).for_each(|block| block[5] = limit);
            };
            whole(&mut case.x, 127.0, -127.0);
            whole(&mut case.w, limit.abs() - 1.0, limit);
            if scheme == ActivationScheme::A8G32Outlier {
                // In one of the fours after that with -127, so that the scale stays 1.
                for (at, block) in case.x.chunks_mut(32).enumerate() {
                    block[(13 + 7 * at) % 24 / 4 * 4 + 8] = 2000.0 - 37.0 * (at % 32) as f32;
                }
            }
            let (m, n, k) = sizes;
            let exact = |at: usize| -> f32 {
                let (x, w) = (&case.x[at / n * k..][..k], &case.w[at % n * k..][..k]);
                x.iter().zip(w).map(|(x, w)| x * w).sum()
            };
            let expected: Vec<f32> = (0..m * n).map(exact).collect();
            for target in targets() {
                assert_eq!(
                    case.run(Some(target), 2).0,
                    expected,
                    "{ty} {sizes:?} on {target}"
                );
            }
        }
    }
}

/// The largest and the smallest codes everywhere, by activations of either sign: what would overflow first.
#[test]
fn extremes_do_not_overflow() {
    for ty in TYPES {
        for (x, byte) in [
            (1.0, 0xff),
            (-1.0, 0xff),
            (1.0, 0x80),
            (1.0, 0x7f),
            (-1.0, 0),
        ] {
            for m in [1, 12] {
                let (n, k) = (49, 2048);
                let bytes = blocks_of(ty, n * k / ty.block_len(), |_| byte);
                let mut weights = vec![0.0; k];
                let row = bytes.len() / n;
                ty.dequantize(&bytes[..row], &mut weights).unwrap();
                let expected: f64 = weights.iter().map(|w| f64::from(w * x) * 127.0).sum();
                for target in targets() {
                    for y in run_once(ty, (m, n), (vec![x * 127.0; m * k], bytes.clone()), target) {
                        let off = (f64::from(y) - expected).abs();
                        // Two additions for every 16 numbers at most, each rounded once.
                        let bound = (k / 8) as f64 * f64::from(f32::EPSILON) / 2.0;
                        let close = off <= bound * 127.0 * k as f64;
                        assert!(close, "{ty} {byte} on {target}: {y}, not {expected}");
                    }
                }
            }
        }
    }
}

/// `x [m, k]` rounded, by these blocks of `n` rows.
fn run_once(
    ty: BlockType,
    (m, n): (usize, usize),
    (x, bytes): (Vec<f32>, Vec<u8>),
    target: &str,
) -> Vec<f32> {
    let mut cx = Graph::new();
    let x = cx.input((m, x.len() / m), DType::F32).set(x);
    let w = cx.input((n, bytes.len() / n), DType::U8).set(bytes);
    let y = x
        .fake_quantize(ActivationScheme::for_weights(ty))
        .matmul(w.dequantize(ty).transpose(0, 1))
        .retrieve();
    cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
    cx.execute();
    assert_eq!(n_block_kernels(&cx), 1);
    y.data()
}

#[test]
fn bits_depend_on_neither_target_nor_threads() {
    for ty in TYPES {
        for m in [1, 2, 7, 29] {
            let sizes = whole_rows(ty, (m, 150, 96));
            for scheme in [ActivationScheme::A8G32, ActivationScheme::for_weights(ty)] {
                let case = Case::new(ty, scheme, sizes);
                let (expected, _) = case.run(Some("native"), 1);
                for target in targets() {
                    for threads in [1, 2, 3] {
                        assert_eq!(
                            case.run(Some(target), threads).0,
                            expected,
                            "{ty} {scheme:?} {m} {target} {threads}"
                        );
                    }
                }
            }
        }
    }
}

/// Work enough that threads share it: each has tables of its own where products are looked up, and rows of its own where there
/// are many. A single thread has more panels than stay in a cache, and long rows more tables.
#[test]
fn bits_of_large_products_do_not_depend_on_threads() {
    for ty in [BlockType::Q1_0, BlockType::Q4_0] {
        let sizes = [1, 2, 3, 29, 131].map(|m| (m, 2100, 256));
        for sizes in sizes.into_iter().chain([(9, 70, 9216)]) {
            let case = Case::new(ty, ActivationScheme::for_weights(ty), sizes);
            let (expected, _) = case.run(Some("scalar"), 1);
            for threads in [1, 2, 3, 5] {
                let (got, _) = case.run(Some("native"), threads);
                assert!(got == expected, "{ty} {sizes:?} {threads}");
            }
        }
    }
}

/// Products of the same activations are one kernel: a third of the roundings, the same bits, whatever the widths.
#[test]
fn products_that_share_activations_are_one_kernel() {
    for ty in TYPES {
        for (m, widths) in [(1, [37, 96, 16]), (2, [5, 2, 40]), (9, [64, 33, 7])] {
            let scheme = ActivationScheme::for_weights(ty);
            let cases = widths.map(|n| Case::new(ty, scheme, whole_rows(ty, (m, n, 96))));
            let apart = |case: &Case| case.run(Some("native"), 1).0;
            let expected = cases.each_ref().map(apart);
            for target in targets() {
                for threads in [1, 3] {
                    let (got, n_kernels) = together(&cases, target, threads);
                    assert_eq!(n_kernels, 1, "{ty} {target}");
                    assert!(got == expected, "{ty} {m} {target} {threads}");
                }
            }
        }
    }
}

/// Panels that were kept in files are mapped by the next graph, with the same bits; a single other weight is another file.
#[test]
fn panels_are_found_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = |case: &Case| {
        let compiler = LlvmCpu::native().packed_folder(folder.path());
        let (y, cx) = case.compiled(Some(compiler), 1);
        (y, cx.stats().packings, cx.stats().packings_read)
    };
    let mut case = Case::new(BlockType::Q4_0, ActivationScheme::A8G32, (3, 40, 64));
    let expected = case.run(Some("native"), 1).0;
    assert_eq!(run(&case), (expected.clone(), 1, 0), "packed");
    assert_eq!(run(&case), (expected.clone(), 1, 1), "read");
    case.w[70] += 1.0;
    let (other, _, n_read) = run(&case);
    assert_eq!(n_read, 0);
    assert_ne!(other, expected);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Of several matrices in one kernel, only the one that changed is laid out again, and results are of the current numbers.
#[test]
fn matrices_of_a_joint_product_change_one_by_one() {
    let (n, k, ty) = (40, 64, BlockType::Q4_0);
    let mut cx = Graph::new();
    let first = Case::new(ty, ActivationScheme::A8G32, (2, n, k));
    let x = cx.input((2, k), DType::F32).set(first.x.clone());
    let x = x.fake_quantize(first.scheme);
    let weights = [0, 1, 2].map(|_| cx.input((n, 36), DType::U8).set(first.bytes()));
    let results = weights.map(|w| x.matmul(w.dequantize(ty).transpose(0, 1)).retrieve());
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    assert_eq!(n_block_kernels(&cx), 1);
    cx.execute();
    assert_eq!(cx.stats().packings, 3);
    let before = results.map(|y| y.data());
    assert!(before.iter().all(|y| *y == first.run(Some("native"), 1).0));
    let mut other = Case::new(ty, first.scheme, first.sizes);
    other.w.reverse();
    weights[1].set(other.bytes());
    cx.execute();
    assert_eq!(cx.stats().packings, 1);
    let after = results.map(|y| y.data());
    assert_eq!(after[1], other.run(Some("native"), 1).0);
    assert_ne!(after[1], before[1]);
    assert_eq!([&after[0], &after[2]], [&before[0], &before[2]]);
}

/// Cases of the same activations in one graph: their results, and how many kernels there were.
fn together(cases: &[Case; 3], target: &str, threads: usize) -> ([Vec<f32>; 3], usize) {
    let (m, _, k) = cases[0].sizes;
    let mut cx = Graph::new();
    let x = cx.input(('s', k), DType::F32).set(cases[0].x.clone());
    let x = x.fake_quantize(cases[0].scheme);
    let results = cases.each_ref().map(|case| {
        let (n, bytes) = (case.sizes.1, case.bytes());
        let w = cx.input((n, bytes.len() / n), DType::U8).set(bytes);
        let w = w.dequantize(case.ty).transpose(0, 1);
        x.matmul(w).retrieve()
    });
    cx.set_dim('s', m);
    cx.set_threads(threads);
    let report = cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
    assert_eq!(report.hits("joint-products"), 3, "{report}");
    cx.execute();
    (results.map(|y| y.data()), n_block_kernels(&cx))
}

/// A graph with both ways of rounding, executed twice with other activations.
#[test]
fn schemes_live_side_by_side_and_results_are_of_the_current_numbers() {
    let (m, n, k) = (3, 9, 64);
    let case = Case::new(BlockType::Q8_0, ActivationScheme::A8G32, (m, n, k));
    let mut cx = Graph::new();
    let x = cx.input((m, k), DType::F32).set(case.x.clone());
    let bytes = case.bytes();
    let w = cx.input((n, bytes.len() / n), DType::U8).set(bytes);
    let w = w.dequantize(case.ty).transpose(0, 1);
    let schemes = [ActivationScheme::A8G32, ActivationScheme::A8Tok];
    let [a, b] = schemes.map(|scheme| x.fake_quantize(scheme).matmul(w).retrieve());
    cx.execute();
    let first = [a, b].map(|y| y.data());
    x.set(noise(m * k, 7));
    cx.execute();
    let second = [a, b].map(|y| y.data());
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    assert_eq!(n_block_kernels(&cx), 2);
    for (numbers, expected) in [(noise(m * k, 7), &second), (case.x, &first)] {
        x.set(numbers);
        cx.execute();
        for (y, expected) in [a, b].iter().zip(expected) {
            let close = |(a, b): (f32, &f32)| (a - b).abs() < 1e-4;
            assert!(y.data().into_iter().zip(expected).all(close));
        }
    }
    let differ = |a: &Vec<f32>, b: &Vec<f32>| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-2);
    assert!(differ(&first[0], &second[0]));
}

/// Constant weights are laid out once; when they change, once more; what a kernel has made is turned where it is needed.
#[test]
fn weights_are_packed_when_they_change() {
    let (n, k, ty) = (40, 64, BlockType::Q4_0);
    let mut case = Case::new(ty, ActivationScheme::A8G32, (2, n, k));
    let mut cx = Graph::new();
    let x = cx.input((2, k), DType::F32).set(case.x.clone());
    let x = x.fake_quantize(ActivationScheme::A8G32);
    let w = cx.input((n, 36), DType::U8).set(case.bytes());
    let once = x.matmul(w.dequantize(ty).transpose(0, 1)).retrieve();
    let turn: Vec<i32> = (0..n as i32).map(|i| (i + 3) % n as i32).collect();
    let made = w.index_select(0, cx.input(n, DType::I32).set(turn));
    let always = x.matmul(made.dequantize(ty).transpose(0, 1)).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    assert_eq!(n_block_kernels(&cx), 2);
    cx.execute();
    assert_eq!(cx.stats().packings, 1);
    let turned = |y: Vec<f32>| -> Vec<f32> {
        let rows = y.chunks(n).flat_map(|row| [&row[3..], &row[..3]].concat());
        rows.collect()
    };
    assert_eq!(always.data(), turned(once.data()));
    let first = once.data();
    cx.execute();
    assert_eq!((cx.stats().packings, once.data()), (0, first.clone()));
    case.w.reverse();
    w.set(case.bytes());
    cx.execute();
    assert_eq!(cx.stats().packings, 1);
    assert_ne!(once.data(), first);
    assert_eq!(always.data(), turned(once.data()));
}

#[test]
fn what_is_no_plain_product_is_not_taken() {
    let mut cx = Graph::new();
    let x = cx.input((3, 64), DType::F32).set(noise(192, 3));
    let w = cx.input((5, 68), DType::U8);
    let mut bytes = vec![0; 340];
    BlockType::Q8_0
        .quantize(&noise(320, 4), &mut bytes)
        .unwrap();
    w.set(bytes);
    let w = w.dequantize(BlockType::Q8_0);
    // Weights only; part of a row; a product that is not summed.
    let plain = x.matmul(w.transpose(0, 1)).retrieve();
    let rounded = x.fake_quantize(ActivationScheme::A8G32);
    let part = rounded
        .slice_axis(1, 0, 32)
        .matmul(w.slice_axis(1, 0, 32).transpose(0, 1))
        .retrieve();
    let outer = (rounded.slice_axis(0, 0, 1) * w.slice_axis(0, 0, 1)).retrieve();
    cx.execute();
    let expected = [plain, part, outer].map(|t| t.data());
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    assert_eq!(n_block_kernels(&cx), 0);
    for (old, new) in expected.iter().zip([plain, part, outer]) {
        let close = |(a, b): (&f32, f32)| (a - b).abs() < 1e-4;
        assert!(old.iter().zip(new.data()).all(close));
    }
}
