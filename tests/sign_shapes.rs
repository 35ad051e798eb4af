//! Products of signs, bytes and planes of bits of every shape: the bits of the reference on every target.

#![cfg(feature = "llvm-backend")]

#[path = "support/sign_cases.rs"]
mod sign_cases;
#[path = "support/kernels.rs"]
mod support;

use std::process::Command;

use brain_blitz::blocks::{SignFit, SignMatrix};
use brain_blitz::op::{PlanePart, Planes, SignPart};
use brain_blitz::prelude::*;
use sign_cases::{Case, FACTORS, n_products};
use support::{kernels, noise, targets};

/// No rows, one row, one column, no columns; rows that are no whole panel, no whole block, and columns that are no whole byte,
/// word or step.
const SIZES: [(usize, usize, usize); 16] = [
    (0, 65, 33),
    (1, 1, 40),
    (5, 1, 7),
    (3, 9, 0),
    (0, 9, 0),
    (1, 2, 1),
    (1, 64, 7),
    (2, 65, 8),
    (1, 130, 31),
    (3, 63, 32),
    (9, 2, 33),
    (4, 128, 63),
    (17, 3, 127),
    (33, 66, 249),
    (20, 64, 300),
    (65, 5, 16),
];

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn every_shape_has_the_bits_of_the_reference() {
    for sizes in SIZES {
        // A matrix of one row makes dot products, and one without columns nothing at all.
        let fires = usize::from(sizes.1 > 1 && sizes.2 > 0);
        for factor in FACTORS {
            for bases in [0, 1, 2] {
                let case = Case::new(factor, bases, sizes);
                let expected = case.run(None, 1).0;
                assert_eq!(expected.len(), sizes.0 * sizes.1);
                for target in targets() {
                    let (found, names) = case.run(Some(target), 2);
                    let label = format!("{factor:?} {bases} {sizes:?} on {target}");
                    assert_eq!(n_products(&names), fires, "{label}: {names:?}");
                    match fires {
                        0 => assert_eq!(found, expected, "{label}"),
                        _ => assert_eq!(bits(&found), bits(&expected), "{label}"),
                    }
                }
            }
        }
    }
}

/// This test program with another way of counting, where all shapes are computed again.
#[test]
fn other_ways_of_counting_have_the_same_bits() {
    let program = std::env::current_exe().unwrap();
    for way in ["popcount", "table"] {
        let mut command = Command::new(&program);
        command.env("BB_SIGNS", way);
        command.args(["--exact", "every_shape_has_the_bits_of_the_reference"]);
        command.args(["kernels_are_named_by_their_way", "--nocapture"]);
        let done = command.output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        let is_told = text.contains(&format!("AVX2 counts by {way}"));
        let passed = done.status.success() && text.contains("2 passed");
        assert!(passed && is_told, "{way}: {text}");
    }
}

/// The kernels' names say how they count, so that what the switch does shows.
#[test]
fn kernels_are_named_by_their_way() {
    use brain_blitz::compilers::llvm_cpu::binary::code::assembly;
    use brain_blitz::compilers::llvm_cpu::target::Target;
    let text = assembly(&Target::for_cpu("x86-64-v3").unwrap()).unwrap();
    let has = |way: &&str| text.contains(&format!("signs_1_numbers_{way}_x86_64_v3"));
    let ways: Vec<&str> = ["table", "popcount"].into_iter().filter(has).collect();
    println!("AVX2 counts by {}", ways.join(" and "));
    assert_eq!(ways.len(), 1);
}

/// Rows of planes whose bits are all set, or none, by signs that are all the same, over as many columns as are counted at all:
/// 15 * 65535 is the largest sum there is.
#[test]
fn sums_of_levels_are_as_large_as_they_get() {
    let (m, n, k) = (5, 2, 65535);
    let matrix = SignMatrix::new(n, k, 1).unwrap();
    for planes in Planes::ALL {
        let most = (planes.levels() - 1) as f32;
        for (byte, sign) in [(0xffu8, 1.0), (0xff, -1.0), (0, 1.0), (0, -1.0)] {
            let mut bytes = vec![0; matrix.bytes()];
            matrix
                .encode(SignFit::default(), &vec![sign; n * k], &mut bytes)
                .unwrap();
            let row_bytes = planes.row_bytes(k);
            let mut rows = vec![byte; m * row_bytes];
            for row in rows.chunks_mut(row_bytes) {
                row[..4].copy_from_slice(&0.5f32.to_le_bytes());
            }
            let level = if byte == 0 { -most } else { most };
            for target in targets() {
                let mut cx = Graph::new();
                let rows = cx.input((m, row_bytes), DType::U8).set(rows.clone());
                let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
                w.set(bytes.clone());
                let signs = w.sign_matrix(matrix, SignPart::Signs(0));
                let levels = rows.unpack_planes(k, planes, PlanePart::Levels);
                let scales = rows.unpack_planes(k, planes, PlanePart::Scales);
                let y = levels.matmul(signs.transpose(0, 1)) * scales.unsqueeze(-1);
                let y = y.retrieve();
                cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
                cx.execute();
                assert_eq!(n_products(&kernels(&cx)), 1);
                assert_eq!(
                    y.data(),
                    vec![level * sign * k as f32 * 0.5; m * n],
                    "{target}"
                );
            }
        }
    }
}

/// Packing is a step, and the product: levels, scales and numbers are never in memory. What something else reads is made too.
#[test]
fn planes_are_what_lies_in_memory() {
    let (m, n, k) = (64, 64, 1024);
    let run = |is_read: bool, target: Option<&str>| {
        let matrix = SignMatrix::new(n, k, 1).unwrap();
        let mut cx = Graph::new();
        let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
        let mut bytes = vec![0; matrix.bytes()];
        matrix
            .encode(SignFit::default(), &noise(n * k, 2), &mut bytes)
            .unwrap();
        w.set(bytes);
        let x = cx.input((m, k), DType::F32).set(noise(m * k, 1));
        let rows = x.pack_planes(Planes::Four);
        let levels = rows.unpack_planes(k, Planes::Four, PlanePart::Levels);
        let scales = rows.unpack_planes(k, Planes::Four, PlanePart::Scales);
        let signs = w.sign_matrix(matrix, SignPart::Signs(0));
        let y = levels.matmul(signs.transpose(0, 1)) * scales.unsqueeze(-1);
        let y = y.retrieve();
        let sum = is_read.then(|| levels.sum(-1).retrieve());
        if let Some(target) = target {
            cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
        }
        cx.execute();
        let (stats, names) = (cx.stats(), kernels(&cx));
        (y.data(), sum.map(|sum| sum.data()), stats, names)
    };
    for is_read in [false, true] {
        let expected = run(is_read, None);
        for target in targets() {
            let (y, sum, stats, names) = run(is_read, Some(target));
            assert_eq!((&y, &sum), (&expected.0, &expected.1), "{target}");
            assert_eq!(stats.steps, stats.native_steps, "{names:?}");
            assert_eq!(n_products(&names), 1, "{names:?}");
            if !is_read {
                assert_eq!(stats.steps, 2, "{names:?}");
                let row = Planes::Four.row_bytes(k);
                assert_eq!(stats.arena_bytes, m * row + m * n * 4, "{names:?}");
            }
        }
    }
}

/// Where the scale of a row is multiplied before it is added, or that of another row, the numbers are not those of the kernel.
#[test]
fn scales_of_other_rows_are_no_part_of_the_kernel() {
    let (m, n, k) = (4, 6, 40);
    let run = |target: Option<&str>| {
        let matrix = SignMatrix::new(n, k, 1).unwrap();
        let mut cx = Graph::new();
        let mut bytes = vec![0; matrix.bytes()];
        matrix
            .encode(SignFit::default(), &noise(n * k, 2), &mut bytes)
            .unwrap();
        let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
        let w = w.set(bytes);
        let pack = |cx: &mut Graph, seed| {
            let x = cx.input((m, k), DType::F32).set(noise(m * k, seed));
            x.pack_planes(Planes::Two)
        };
        let (rows, others) = (pack(&mut cx, 1), pack(&mut cx, 7));
        let levels = rows.unpack_planes(k, Planes::Two, PlanePart::Levels);
        let scales = others.unpack_planes(k, Planes::Two, PlanePart::Scales);
        let signs = w.sign_matrix(matrix, SignPart::Signs(0));
        let sums = levels.matmul(signs.transpose(0, 1));
        let y = (sums * scales.unsqueeze(-1)).retrieve();
        if let Some(target) = target {
            cx.compile((Generic, LlvmCpu::for_cpu(target)), ());
        }
        cx.execute();
        (y.data(), cx.stats().steps, kernels(&cx))
    };
    let expected = run(None).0;
    for target in targets() {
        let (found, steps, names) = run(Some(target));
        assert_eq!(found, expected, "{target}");
        // Two rows are packed, and the scales of one of them stand alone.
        assert!(n_products(&names) == 1 && steps >= 4, "{names:?}");
    }
}
