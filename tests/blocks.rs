//! Products with weights in blocks: whole numbers multiplied by whole numbers, on every target.

#![cfg(feature = "llvm-backend")]

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::llvm_cpu::Target;
use brain_blitz::op::{ActivationScheme, Op};
use brain_blitz::prelude::*;

const TYPES: [BlockType; 2] = [BlockType::Q8_0, BlockType::Q4_0];

/// Numbers in (-1, 1) that look random.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let word = |i: u32| {
        (i ^ seed)
            .wrapping_mul(0x9e37_79b9)
            .rotate_left(15)
            .wrapping_mul(0x85eb_ca6b)
    };
    (0..n as u32)
        .map(|i| (word(i) >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
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
        let mut bytes = vec![0; self.ty.bytes_of(self.w.len()).unwrap()];
        self.ty.quantize(&self.w, &mut bytes).unwrap();
        bytes
    }

    /// The result with `s` rows, and how many kernels multiplied blocks.
    fn run(&self, target: Option<&str>, threads: usize) -> (Vec<f32>, usize) {
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
        if let Some(target) = target {
            cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
        }
        cx.execute();
        (y.data(), n_block_kernels(&cx))
    }
}

fn n_block_kernels(cx: &Graph) -> usize {
    cx.inspect(|dag| {
        let ops = dag.topological().unwrap().into_iter();
        let names = ops.filter_map(|id| match &dag.node(id).op {
            Op::Kernel(kernel) => kernel.code().map(|code| code.name().to_string()),
            _ => None,
        });
        names
            .filter(|name| TYPES.iter().any(|ty| name.starts_with(ty.name())))
            .count()
    })
}

fn targets() -> Vec<&'static str> {
    let all = [
        "native",
        "znver4",
        "x86-64-v4",
        "x86-64-v3",
        "x86-64",
        "scalar",
    ];
    all.into_iter()
        .filter(|name| Target::for_cpu(name).unwrap().can_run_here())
        .collect()
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
        for scheme in ActivationScheme::ALL {
            for sizes in sizes {
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
    for ty in TYPES {
        for sizes in [(1, 9, 64), (3, 9, 1024), (13, 33, 1024)] {
            let mut case = Case::new(ty, ActivationScheme::A8G32, sizes);
            let limit: f32 = if ty == BlockType::Q8_0 { 127.0 } else { -8.0 };
            let whole = |x: &mut Vec<f32>, most: f32, limit: f32| {
                x.iter_mut().for_each(|x| *x = (*x * most).round());
                x.chunks_mut(32).for_each(|block| block[5] = limit);
            };
            whole(&mut case.x, 127.0, -127.0);
            whole(&mut case.w, limit.abs() - 1.0, limit);
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

/// The largest magnitudes everywhere, of either sign: what would overflow first.
#[test]
fn extremes_do_not_overflow() {
    for ty in TYPES {
        for (x, w) in [(1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0)] {
            for m in [1, 12] {
                let sizes = (m, 17, 2048);
                let mut case = Case::new(ty, ActivationScheme::A8G32, sizes);
                case.x.fill(x * 127.0);
                case.w.fill(w * 127.0);
                let weight = {
                    let mut out = vec![0.0; case.w.len()];
                    ty.dequantize(&case.bytes(), &mut out).unwrap();
                    f64::from(out[0])
                };
                let expected = weight * f64::from(x) * 127.0 * 2048.0;
                for target in targets() {
                    for y in case.run(Some(target), 2).0 {
                        let off = (f64::from(y) / expected - 1.0).abs();
                        assert!(off < 1e-6, "{ty} on {target}: {y}, not {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn bits_depend_on_neither_target_nor_threads() {
    for ty in TYPES {
        for m in [1, 7, 29] {
            let case = Case::new(ty, ActivationScheme::A8G32, (m, 150, 320));
            let (expected, _) = case.run(Some("native"), 1);
            for target in targets() {
                for threads in [1, 2, 3] {
                    assert_eq!(
                        case.run(Some(target), threads).0,
                        expected,
                        "{ty} {m} {target} {threads}"
                    );
                }
            }
        }
    }
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
    let [a, b] = ActivationScheme::ALL.map(|scheme| x.fake_quantize(scheme).matmul(w).retrieve());
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
