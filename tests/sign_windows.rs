//! Convolutions of signs: each pixel is packed once, and the results have the reference's bits on every target.

#![cfg(feature = "llvm-backend")]

#[path = "support/kernels.rs"]
mod support;

use brain_blitz::blocks::{SignFit, SignMatrix};
use brain_blitz::hl_ops::{Conv, Padding, Pool};
use brain_blitz::nn::{
    BatchNorm, BinaryConv2d, Layer, LowBit, MaxPool, Module, Sequential, SignInputs,
};
use brain_blitz::op::SignPart;
use brain_blitz::prelude::*;
use support::{kernels, noise, targets};

/// A convolution of images `[n, channels, 9, 7]`.
#[derive(Clone, Copy, Debug)]
struct Case {
    channels: usize,
    out: usize,
    kernel: [usize; 2],
    stride: usize,
    padding: usize,
    dilation: usize,
}

impl Case {
    fn same(channels: usize, out: usize) -> Case {
        Case {
            channels,
            out,
            kernel: [3, 3],
            stride: 1,
            padding: 1,
            dilation: 1,
        }
    }

    fn layer(&self, cx: &mut Graph, inputs: SignInputs, seed: u32) -> BinaryConv2d {
        let rule = Conv {
            stride: self.stride.into(),
            padding: Padding::By(self.padding.into()),
            dilation: self.dilation.into(),
            groups: 1,
        };
        let low_bit = LowBit {
            inputs,
            ..LowBit::w1a1()
        };
        let layer = BinaryConv2d::new(cx, self.channels, self.out, self.kernel, rule, low_bit);
        let columns = self.channels * self.kernel[0] * self.kernel[1];
        layer.weight.set(noise(self.out * columns, seed));
        layer
    }

    /// Runs it on three images, rounding in the graph on the reference executor, or stored and compiled for a target.
    fn run(&self, inputs: SignInputs, target: Option<(&str, usize)>) -> (Vec<f32>, Graph) {
        self.run_on(3, inputs, target)
    }

    fn run_on(
        &self,
        n: usize,
        inputs: SignInputs,
        target: Option<(&str, usize)>,
    ) -> (Vec<f32>, Graph) {
        let channels = self.channels;
        let mut cx = Graph::new();
        let x = cx.input(('b', channels, 9, 7), DType::F32);
        x.set(noise(n * channels * 63, 1));
        let layer = self.layer(&mut cx, inputs, 2);
        let layer = if target.is_some() {
            layer.latent()
        } else {
            layer
        };
        // Of an image that is computed, as one behind another layer is.
        let y = layer.forward(x + 0.01).retrieve();
        cx.set_dim('b', n);
        if let Some((target, threads)) = target {
            cx.set_threads(threads);
            let binarize = Binarize::w1a1().with_ends();
            cx.compile((Generic, binarize, LlvmCpu::for_cpu(target)), ());
        }
        cx.execute();
        (y.data(), cx)
    }
}

fn n_of(cx: &Graph, what: &str) -> usize {
    let names = kernels(cx);
    names.iter().filter(|name| name.starts_with(what)).count()
}

#[test]
fn windows_have_the_bits_of_the_reference() {
    let cases = [
        Case::same(8, 5),
        Case::same(32, 70),
        // Bits between a pixel's last channel and its last byte.
        Case::same(7, 9),
        Case::same(37, 64),
        Case::same(1, 4),
        Case {
            stride: 2,
            ..Case::same(12, 9)
        },
        Case {
            dilation: 2,
            padding: 2,
            ..Case::same(9, 3)
        },
        Case {
            padding: 0,
            kernel: [2, 4],
            ..Case::same(16, 6)
        },
        Case {
            padding: 0,
            kernel: [1, 1],
            ..Case::same(40, 6)
        },
        // A window as large as the image with what is around it, in one direction.
        Case {
            kernel: [3, 9],
            ..Case::same(16, 3)
        },
    ];
    for case in cases {
        let expected = case.run(SignInputs::Signs, None).0;
        for target in targets() {
            let (found, cx) = case.run(SignInputs::Signs, Some((target, 2)));
            assert_eq!(found, expected, "{case:?} on {target}");
            let names = kernels(&cx);
            assert_eq!(n_of(&cx, "signs_"), 1, "{names:?}");
            // Rows of a pixel's channels, whether there is something around the image or not.
            let packs = names.iter().filter(|name| name.starts_with("pack_"));
            let packs: Vec<_> = packs.collect();
            let row = format!("x{}_", case.channels);
            assert!(packs.len() == 1 && packs[0].contains(&row), "{names:?}");
            assert_eq!(n_of(&cx, "pack_pixels"), usize::from(case.padding > 0));
            assert_eq!(cx.stats().native_steps, cx.stats().steps, "{names:?}");
        }
    }
}

#[test]
fn an_empty_batch_is_nothing() {
    let (y, cx) = Case::same(12, 5).run_on(0, SignInputs::Signs, Some(("native", 2)));
    assert_eq!((y.len(), n_of(&cx, "pack_pixels")), (0, 1));
}

/// The image with what is around it, a bit for a number; never a window's numbers, or its bits, in memory.
#[test]
fn pixels_are_packed_once() {
    let case = Case::same(32, 16);
    let (_, cx) = case.run(SignInputs::Signs, Some(("native", 1)));
    let (image, bits, result) = (3 * 32 * 63 * 4, 3 * 11 * 9 * 4, 3 * 63 * 16 * 4);
    let all = [image, bits, result].map(|bytes: usize| bytes.next_multiple_of(64));
    let bytes = cx.stats().arena_bytes;
    assert!(bytes <= all.iter().sum(), "{bytes} of {all:?}");
    // The matrix was brought into the order of pixels, once.
    assert_eq!(cx.stats().packings, 1);
    let mut cx = cx;
    cx.execute();
    assert_eq!(cx.stats().packings, 0);
}

#[test]
fn threads_change_no_bit() {
    let case = Case::same(24, 130);
    let expected = case.run(SignInputs::Signs, Some(("native", 1))).0;
    for threads in [2, 3] {
        let found = case.run(SignInputs::Signs, Some(("native", threads))).0;
        assert_eq!(found, expected, "{threads}");
    }
}

/// Signs with a size for each window read the image otherwise too.
#[test]
fn sizes_of_windows_stay() {
    let case = Case::same(16, 10);
    let expected = case.run(SignInputs::ScaledSigns, None).0;
    let (found, cx) = case.run(SignInputs::ScaledSigns, Some(("native", 2)));
    for (found, expected) in found.iter().zip(&expected) {
        assert!(
            (found - expected).abs() <= 1e-5 * expected.abs(),
            "{found}, not {expected}"
        );
    }
    assert_eq!((n_of(&cx, "pack_pixels"), n_of(&cx, "signs_")), (1, 1));
}

/// Few channels, for many rows of the matrix: bytes that are mostly empty would cost more in each product.
#[test]
fn few_channels_of_wide_layers_are_packed_by_windows() {
    for (channels, out, pixels) in [(1, 64, 1), (1, 64 * 20, 0), (3, 64 * 30, 0), (8, 1280, 1)] {
        let case = Case::same(channels, out);
        let expected = case.run(SignInputs::Signs, None).0;
        let (found, cx) = case.run(SignInputs::Signs, Some(("native", 2)));
        assert_eq!(found, expected, "{case:?}");
        let names = kernels(&cx);
        assert_eq!(n_of(&cx, "signs_"), 1, "{names:?}");
        let packed = (n_of(&cx, "pack_pixels"), n_of(&cx, "pack_signs"));
        assert_eq!(packed, (pixels, 1 - pixels), "{case:?}: {names:?}");
    }
}

/// Two layers with a pool and a norm between them; the result, and what else is read.
fn network(target: Option<&str>, reads_image: bool) -> (Graph, [GraphTensor; 2]) {
    let mut cx = Graph::new();
    let x = cx.input((2, 5, 9, 7), DType::F32).set(noise(630, 1));
    let [first, second] = [Case::same(5, 40), Case::same(40, 11)];
    let first = first.layer(&mut cx, SignInputs::Signs, 2);
    let second = second.layer(&mut cx, SignInputs::Signs, 3);
    let norm = BatchNorm::new(&mut cx, 40);
    norm.init(1);
    norm.running_mean.set(noise(40, 4));
    norm.bias.set(noise(40, 5));
    let [first, second] = [first, second].map(|layer| match target {
        Some(_) => layer.latent(),
        None => layer,
    });
    let pool = MaxPool {
        rule: Pool::new([2, 2]),
    };
    let image = first.forward(x);
    let between = Sequential::new().then(pool).then(norm);
    let image = between.forward(image);
    let y = second.forward(image).retrieve();
    let other = match reads_image {
        true => (image * 2.0).retrieve(),
        false => y,
    };
    if let Some(target) = target {
        let binarize = Binarize::w1a1().with_ends();
        cx.compile((Generic, binarize, LlvmCpu::for_cpu(target)), ());
    }
    cx.execute();
    (cx, [y, other])
}

#[test]
fn what_pixels_are_made_of_has_channels_innermost() {
    for reads_image in [false, true] {
        let (_cx, [y, other]) = network(None, reads_image);
        let expected: [Vec<f32>; 2] = [y.data(), other.data()];
        for target in targets() {
            let (cx, [y, other]) = network(Some(target), reads_image);
            assert_eq!([y.data(), other.data()], expected, "{target}");
            let names = kernels(&cx);
            assert_eq!((n_of(&cx, "pack_pixels"), n_of(&cx, "signs_")), (2, 2));
            // The pool writes [2, 4, 3, 40], of which packing reads rows; or what somebody else reads, and its copy.
            let moved = names.iter().filter(|name| name.contains("2x4x3x40"));
            let first = names.iter().filter(|name| name.contains("2x40x4x3"));
            let counts = (moved.count(), first.count() > 0);
            assert_eq!(counts, (1, reads_image), "{names:?}");
        }
    }
}

/// A product of windows of signs as a graph may record it, with a matrix that is given as bytes.
#[test]
fn other_weights_are_ordered_again() {
    let (n, k) = (11, 9 * 12);
    let matrix = SignMatrix::new(n, k, 2).unwrap();
    let bytes = |seed: u32| {
        let mut bytes = vec![0; matrix.bytes()];
        matrix
            .encode(SignFit::default(), &noise(n * k, seed), &mut bytes)
            .unwrap();
        bytes
    };
    let record = |cx: &mut Graph, seed: u32| {
        let x = cx
            .input((2, 12, 9, 7), DType::F32)
            .set(noise(2 * 12 * 63, 1));
        let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
        w.set(bytes(seed));
        let windows = x.window_columns([3, 3], 1.into(), 1.into(), 1.into());
        let rows = windows.permute([0, 2, 1]).pack_signs().unpack_signs(k);
        let term = |base| {
            let signs = w.sign_matrix(matrix, SignPart::Signs(base));
            rows.matmul(signs.transpose(0, 1)) * w.sign_matrix(matrix, SignPart::Scales(base))
        };
        (w, (term(0) + term(1)).retrieve())
    };
    let expected = |seed| -> Vec<f32> {
        let mut cx = Graph::new();
        let (_, y) = record(&mut cx, seed);
        cx.execute();
        y.data()
    };
    for target in targets() {
        let mut cx = Graph::new();
        let (w, y) = record(&mut cx, 2);
        cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
        for (seed, packings) in [(2, 1), (2, 0), (3, 1)] {
            if packings == 1 {
                w.set(bytes(seed));
            }
            cx.execute();
            assert_eq!(cx.stats().packings, packings, "{seed}");
            assert_eq!(y.data(), expected(seed), "{seed} on {target}");
        }
        let names = (n_of(&cx, "pack_pixels"), n_of(&cx, "signs_"));
        assert_eq!(names, (1, 1), "{:?}", kernels(&cx));
    }
    assert_ne!(expected(2), expected(3));
}

/// Pixels that nobody packed may have anything behind their last channel; then windows are not read in them.
#[test]
fn bits_that_are_no_channels_do_not_count() {
    for (channels, is_read) in [(12, false), (16, true)] {
        let (n, k) = (5, 9 * channels);
        let matrix = SignMatrix::new(n, k, 1).unwrap();
        let mut signs = vec![0; matrix.bytes()];
        matrix
            .encode(SignFit::default(), &noise(n * k, 3), &mut signs)
            .unwrap();
        let pixels: Vec<u8> = (0..63 * 2)
            .map(|i| (i * 89) as u8 | (i as u8 % 2 * 0xf0))
            .collect();
        let run = |target: Option<&str>| {
            let mut cx = Graph::new();
            let x = cx.input((1, 9, 7, 2), DType::U8).set(pixels.clone());
            let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
            w.set(signs.clone());
            let x = x.unpack_signs(channels).permute([0, 3, 1, 2]);
            let windows = x.window_columns([3, 3], 1.into(), 0.into(), 1.into());
            let signs = w.sign_matrix(matrix, SignPart::Signs(0));
            let rows = windows.permute([0, 2, 1]);
            let y = rows.matmul(signs.transpose(0, 1)).retrieve();
            if let Some(target) = target {
                cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
            }
            cx.execute();
            (y.data(), n_of(&cx, "signs_"))
        };
        let (expected, _): (Vec<f32>, _) = run(None);
        for target in targets() {
            let found = run(Some(target));
            assert_eq!(found, (expected.clone(), usize::from(is_read)), "{target}");
        }
    }
}

/// Rows behind others that are not there, of which a symbol says how many are looked at; and rows that lie apart between such.
#[test]
fn rows_are_packed_through_any_view() {
    let (rows, k) = (5000, 20);
    let run = |target: Option<&str>, seen: i64, threads: usize| {
        let mut cx = Graph::new();
        let x = cx.input((4, k), DType::F32).set(noise(4 * k, 1));
        let behind = x.pad(0, 3, 0).slice_axis(0, 0, 's').pack_signs().retrieve();
        let wide = cx.input((rows, 2 * k), DType::F32);
        wide.set(noise(rows * 2 * k, 2));
        let apart = wide.slice_axis(1, 0, k as i64).pad(0, 1, 2);
        let apart = apart.pack_signs().retrieve();
        cx.set_dim('s', seen as usize);
        cx.set_threads(threads);
        if let Some(target) = target {
            cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
        }
        cx.execute();
        let bytes = |t: GraphTensor| t.try_array().unwrap().bytes().to_vec();
        ([bytes(behind), bytes(apart)], n_of(&cx, "pack_pixels"))
    };
    for seen in [0, 2, 3, 5, 7] {
        let (expected, _) = run(None, seen, 1);
        for target in targets() {
            for threads in [1, 3] {
                let found = run(Some(target), seen, threads);
                let is_same = [0, 1].map(|i| found.0[i] == expected[i]);
                assert_eq!(
                    (is_same, found.1),
                    ([true; 2], 2),
                    "{seen} rows on {target}"
                );
            }
        }
    }
}
