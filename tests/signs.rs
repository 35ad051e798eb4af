//! Products of signs: counting bits gives the reference's bits, on every target.

#![cfg(feature = "llvm-backend")]

#[path = "support/odd.rs"]
mod odd;
#[path = "support/sign_cases.rs"]
mod sign_cases;
#[path = "support/kernels.rs"]
mod support;

use brain_blitz::blocks::{SignFit, SignMatrix};
use brain_blitz::op::{ActivationScheme, SignPart};
use brain_blitz::prelude::*;
use odd::Odd;
use sign_cases::{Case, FACTORS, Factor, n_products};
use support::{kernels, noise, targets};

/// Bits behind the last column count for nothing, in rows and in matrices that are given as bytes, wherever these lie.
#[test]
fn bits_that_are_no_columns_do_not_count() {
    let (m, n, k) = (3, 70, 37);
    let matrix = SignMatrix::new(n, k, 1).unwrap();
    let mut bytes = vec![0; matrix.bytes()];
    matrix
        .encode(SignFit::default(), &noise(n * k, 5), &mut bytes)
        .unwrap();
    for panel in bytes.chunks_mut(matrix.panel_bytes()) {
        let last = panel.len() - 64;
        panel[last..].iter_mut().for_each(|byte| *byte |= 0xe0);
    }
    let x: Vec<u8> = (0..m * 5).map(|i| (i * 89) as u8 | 0xe0).collect();
    let bias: Vec<u8> = noise(n, 6).iter().flat_map(|x| x.to_le_bytes()).collect();
    let run = |target: Option<&str>| {
        let mut cx = Graph::new();
        let bits = cx.input((m, 5), DType::U8);
        bits.try_set_shared(Odd::new(&x)).unwrap();
        let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
        w.try_set_shared(Odd::new(&bytes)).unwrap();
        let b = cx.input(n, DType::F32);
        b.try_set_shared(Odd::new(&bias)).unwrap();
        let signs = w.sign_matrix(matrix, SignPart::Signs(0));
        let scales = w.sign_matrix(matrix, SignPart::Scales(0));
        let sums = bits.unpack_signs(k).matmul(signs.transpose(0, 1));
        let y = (sums * scales + b).retrieve();
        if let Some(target) = target {
            cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
        }
        cx.execute();
        assert_eq!(n_products(&kernels(&cx)), usize::from(target.is_some()));
        y.data()
    };
    let expected: Vec<f32> = run(None);
    for target in targets() {
        assert_eq!(run(Some(target)), expected, "{target}");
    }
}

#[test]
fn every_target_has_the_bits_of_the_reference() {
    let sizes = [
        (1, 2, 1),
        (1, 37, 31),
        (2, 64, 64),
        (3, 65, 257),
        (11, 130, 249),
        (70, 66, 100),
        // Rows of bytes as lanes: with a rest, with a block that is not full, more than are turned at once.
        (52, 600, 66),
        (41, 65, 513),
        (290, 3, 300),
    ];
    for factor in FACTORS {
        for bases in [0, 1, 3] {
            for sizes in sizes {
                let case = Case::new(factor, bases, sizes);
                let expected = case.run(None, 1).0;
                for target in targets() {
                    let (found, names) = case.run(Some(target), 2);
                    let label = format!("{factor:?} {bases} {sizes:?} on {target}");
                    assert_eq!(n_products(&names), 1, "{label}: {names:?}");
                    assert_eq!(found, expected, "{label}");
                }
            }
        }
    }
}

/// All bits differ, and all are the same, over as many columns as are counted at all: every counter is as full as it gets
/// before it is emptied.
#[test]
fn counters_hold_the_most_that_comes() {
    for (m, k) in [
        (3, 248),
        (3, 249),
        (3, 496),
        (3, 4096),
        (3, 4104),
        (3, 65535),
        // Rows of bytes as lanes.
        (32, 256),
        (32, 264),
        (32, 65535),
    ] {
        for (x, w) in [(1.0, -1.0), (-1.0, -1.0), (1.0, 1.0)] {
            for factor in [Factor::Signs, Factor::Bytes] {
                let case = Case {
                    factor,
                    bases: 0,
                    sizes: (m, 2, k),
                    x: vec![127.0 * x; m * k],
                    w: vec![w; 2 * k],
                };
                let size = if factor == Factor::Bytes { 127.0 } else { 1.0 };
                for target in targets() {
                    let (found, names) = case.run(Some(target), 1);
                    assert_eq!(n_products(&names), 1, "{k} on {target}");
                    assert_eq!(
                        found,
                        vec![x * w * size * k as f32; 2 * m],
                        "{factor:?} {k} on {target}"
                    );
                }
            }
        }
    }
}

#[test]
fn threads_change_no_bit() {
    for factor in FACTORS {
        let case = Case::new(factor, 2, (150, 200, 300));
        let expected = case.run(Some("native"), 1).0;
        for threads in [2, 3] {
            assert_eq!(case.run(Some("native"), threads).0, expected, "{factor:?}");
        }
    }
}

#[test]
fn what_is_no_such_product_is_computed_otherwise() {
    // A dot product, and more columns than counters count.
    for sizes in [(3, 1, 40), (2, 2, 65544)] {
        let case = Case::new(Factor::Signs, 1, sizes);
        let expected = case.run(None, 1).0;
        let (found, names) = case.run(Some("native"), 1);
        assert_eq!((n_products(&names), found), (0, expected), "{names:?}");
    }
    // Columns that are read in another order.
    let mut cx = Graph::new();
    let matrix = SignMatrix::new(8, 8, 1).unwrap();
    let mut bytes = vec![0; matrix.bytes()];
    matrix
        .encode(SignFit::default(), &noise(64, 2), &mut bytes)
        .unwrap();
    let w = cx
        .input((matrix.panels(), matrix.panel_bytes()), DType::U8)
        .set(bytes);
    let x = cx.input((3, 8), DType::F32).set(noise(24, 1));
    let signs = w.sign_matrix(matrix, SignPart::Signs(0));
    let y = x.pack_signs().unpack_signs(8).matmul(signs).retrieve();
    cx.execute();
    let expected = y.data();
    cx.compile((Generic, LlvmCpu::native()), ());
    cx.execute();
    assert_eq!((n_products(&kernels(&cx)), y.data()), (0, expected));
}

#[test]
fn a_value_that_is_read_twice_ends_a_kernel() {
    let mut cx = Graph::new();
    let matrix = SignMatrix::new(70, 24, 1).unwrap();
    let mut bytes = vec![0; matrix.bytes()];
    matrix
        .encode(SignFit::default(), &noise(70 * 24, 2), &mut bytes)
        .unwrap();
    let w = cx
        .input((matrix.panels(), matrix.panel_bytes()), DType::U8)
        .set(bytes);
    let x = cx.input((3, 24), DType::F32).set(noise(72, 1));
    let signs = w.sign_matrix(matrix, SignPart::Signs(0));
    let whole = x
        .pack_signs()
        .unpack_signs(24)
        .matmul(signs.transpose(0, 1));
    let y = (whole * w.sign_matrix(matrix, SignPart::Scales(0))).retrieve();
    let z = (whole + 1.0).retrieve();
    cx.execute();
    let expected = [y.data(), z.data()];
    cx.compile((Generic, LlvmCpu::native()), ());
    cx.execute();
    assert_eq!(n_products(&kernels(&cx)), 1);
    assert_eq!([y.data(), z.data()], expected);
    assert_eq!(cx.stats().steps, cx.stats().native_steps);
}

#[test]
fn bits_are_what_lies_in_memory() {
    let case = Case::new(Factor::Signs, 1, (64, 64, 1024));
    let mut cx = Graph::new();
    let matrix = SignMatrix::new(64, 1024, 1).unwrap();
    let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
    w.set(vec![0; matrix.bytes()]);
    let x = cx.input((64, 1024), DType::F32).set(case.x.clone());
    let signs = w.sign_matrix(matrix, SignPart::Signs(0));
    let bits = x.pack_signs();
    bits.unpack_signs(1024)
        .matmul(signs.transpose(0, 1))
        .retrieve();
    let report = cx.compile((Generic, LlvmCpu::native()), ());
    cx.execute();
    let stats = cx.stats();
    assert_eq!((stats.steps, stats.native_steps), (2, 2), "{report}");
    // The bits and the result.
    assert_eq!(stats.arena_bytes, 64 * 128 + 64 * 64 * 4, "{report}");
    assert_eq!(matrix.bytes(), 64 * (4 + 128));
}

/// How many kernels tell signs of results from counts.
fn n_limits(names: &[String]) -> usize {
    let limits = names.iter().filter(|name| name.contains("signs_limits"));
    limits.count()
}

/// Two layers with a norm of known statistics between them, of which only signs go on: `[m, 24]` to `[m, 70]` to `[m, 9]`.
/// A number of each vector of the norm is as told.
fn packed_layers(m: usize, target: Option<&str>, odd: Option<f32>) -> (Vec<f32>, Graph) {
    let mut cx = Graph::new();
    let layer = |cx: &mut Graph, x: GraphTensor, (n, k): (usize, usize), seed| {
        let matrix = SignMatrix::new(n, k, 1).unwrap();
        let mut bytes = vec![0; matrix.bytes()];
        matrix
            .encode(SignFit::default(), &noise(n * k, seed), &mut bytes)
            .unwrap();
        let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
        let w = w.set(bytes);
        let signs = w.sign_matrix(matrix, SignPart::Signs(0));
        let whole = x.unpack_signs(k).matmul(signs.transpose(0, 1));
        whole * w.sign_matrix(matrix, SignPart::Scales(0))
    };
    let x = cx.input(('s', 24), DType::F32).set(noise(24 * m, 1));
    let x = layer(&mut cx, x.pack_signs(), (70, 24), 2);
    // Zeros of both signs, gains that turn results round, and sums that cancel.
    let vector = |cx: &mut Graph, seed: u32| {
        let mut numbers = noise(70, seed);
        let of_all = [0.0, -0.0, -0.5, 0.5, 1.0];
        let first = numbers.iter_mut().skip(seed as usize);
        first.zip(of_all).for_each(|(x, y)| *x = y);
        if let Some(odd) = odd {
            numbers[20 * (seed as usize - 2)] = odd;
        }
        cx.input(70, DType::F32).set(numbers)
    };
    let [shift, gain, bias] = [3, 4, 5].map(|seed| vector(&mut cx, seed));
    let x = (x + shift) * gain + bias;
    let y = layer(&mut cx, x.pack_signs(), (9, 70), 6).retrieve();
    cx.set_dim('s', m);
    if let Some(target) = target {
        cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
    }
    cx.execute();
    (y.data(), cx)
}

#[test]
fn activations_stay_bits_between_layers() {
    for m in [1, 5, 130] {
        let expected = packed_layers(m, None, None).0;
        for target in targets() {
            let (found, cx) = packed_layers(m, Some(target), None);
            assert_eq!(found, expected, "{m} on {target}");
            let stats = cx.stats();
            // Packing, and two products: there is no step for the norm.
            assert_eq!(
                (stats.steps, stats.native_steps),
                (3, 3),
                "{:?}",
                kernels(&cx)
            );
            // The second product's result is numbers.
            let names = kernels(&cx);
            assert_eq!((n_products(&names), n_limits(&names)), (2, 1), "{names:?}");
            // Never the 70 numbers of a row: bits of 24 and of 70, and 9 results.
            let buffers = [m * 3, m * 9, m * 36].map(|bytes: usize| bytes.next_multiple_of(64));
            assert!(
                stats.arena_bytes <= buffers.iter().sum(),
                "{} bytes",
                stats.arena_bytes
            );
        }
    }
}

/// Gains and biases that are not finite have no limits: then numbers are computed, and have the signs of the reference.
#[test]
fn signs_of_what_is_not_finite_are_those_of_the_reference() {
    for odd in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX] {
        for m in [1, 40] {
            let expected = packed_layers(m, None, Some(odd)).0;
            for target in targets() {
                let found = packed_layers(m, Some(target), Some(odd)).0;
                assert_eq!(found, expected, "{odd} {m} on {target}");
            }
        }
    }
}

/// Limits belong to signs by signs of one base, whose results go on as bits: not to those with sizes, to sums of bases, to
/// bytes, or to more columns than a count can be one more than.
#[test]
fn other_signs_are_packed_from_numbers() {
    let run = |(factor, bases, k): (Factor, usize, usize), target: Option<&str>| {
        let (m, n) = (33, 66);
        let case = Case::new(factor, bases, (m, n, k));
        let mut cx = Graph::new();
        let x = cx.input((m, k), DType::F32).set(case.x.clone());
        let matrix = SignMatrix::new(n, k, bases).unwrap();
        let mut bytes = vec![0; matrix.bytes()];
        matrix
            .encode(SignFit::default(), &case.w, &mut bytes)
            .unwrap();
        let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
        let w = w.set(bytes);
        let rows = match factor {
            Factor::Bytes => x.fake_quantize(ActivationScheme::A8Tok),
            _ => x.pack_signs().unpack_signs(k),
        };
        let term = |base| {
            let signs = w.sign_matrix(matrix, SignPart::Signs(base));
            rows.matmul(signs.transpose(0, 1)) * w.sign_matrix(matrix, SignPart::Scales(base))
        };
        let mut y = (1..bases).fold(term(0), |sum, base| sum + term(base));
        if factor == Factor::SizedSigns {
            y *= cx.input(m, DType::F32).set(noise(m, 5)).unsqueeze(-1);
        }
        let bias = cx.input(n, DType::F32).set(noise(n, 6));
        let bits = (y + bias).pack_signs().retrieve();
        if let Some(target) = target {
            cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
        }
        cx.execute();
        (bits.array().bytes().to_vec(), kernels(&cx))
    };
    let cases = [
        ((Factor::Signs, 1, 100), 1),
        ((Factor::Signs, 2, 100), 0),
        ((Factor::SizedSigns, 1, 100), 0),
        ((Factor::Bytes, 1, 100), 0),
        ((Factor::Signs, 1, 65534), 1),
        ((Factor::Signs, 1, 65535), 0),
    ];
    for (case, limits) in cases {
        let expected = run(case, None).0;
        for target in targets() {
            let (found, names) = run(case, Some(target));
            assert_eq!(
                (n_products(&names), n_limits(&names)),
                (1, limits),
                "{case:?}"
            );
            assert_eq!(found, expected, "{case:?} on {target}");
        }
    }
}

/// Layers of one bit with norms between them: of what a product gives only its signs go on, told from counts, and there is no
/// step that writes numbers or signs of numbers. Where something else reads the numbers, there are no limits.
#[test]
fn norms_between_binary_layers_become_limits() {
    use brain_blitz::nn::{BatchNorm, BinaryLinear, LowBit, Module};
    let run = |stored: bool, is_read: bool| {
        let mut cx = Graph::new();
        let mut y = cx.input((24, 96), DType::F32).set(noise(24 * 96, 1));
        let mut kept = None;
        for (layer, (n, k)) in [(80, 96), (72, 80), (9, 72)].into_iter().enumerate() {
            let linear = BinaryLinear::new(&mut cx, k, n, LowBit::w1a1());
            linear.weight.set(noise(n * k, 7 + layer as u32));
            let linear = if stored { linear.latent() } else { linear };
            let norm = BatchNorm::new(&mut cx, n);
            norm.init(1);
            norm.running_mean.set(noise(n, 20));
            norm.bias.set(noise(n, 30));
            y = norm.forward(linear.forward(y));
            if layer == 1 && is_read {
                kept = Some((y * 2.0).retrieve());
            }
        }
        let y = y.retrieve();
        if stored {
            cx.compile((Generic, Binarize::w1a1(), LlvmCpu::native()), ());
        }
        cx.execute();
        (y.data(), kept.map(|kept| kept.data()), kernels(&cx))
    };
    for (is_read, limits) in [(false, 2), (true, 1)] {
        let (expected, also, _) = run(false, is_read);
        let (found, kept, names) = run(true, is_read);
        assert_eq!(
            (n_products(&names), n_limits(&names)),
            (3, limits),
            "{names:?}"
        );
        assert_eq!((found, kept), (expected, also));
        let packs = names.iter().filter(|name| name.contains("pack_signs"));
        assert_eq!(
            packs.count(),
            3 - limits,
            "of the input, and of what is read: {names:?}"
        );
    }
}
