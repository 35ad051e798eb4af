//! Products with few rows: dot products of every size and pair of formats.

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::llvm_cpu::gemm::dot::{emit_dot, shapes, symbol};
use brain_blitz::compilers::llvm_cpu::gemm::stored::Stored;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::prelude::*;

use crate::avx512::Emulator;
use crate::batch::{Arg, Batch, Place};
use crate::cases::spread;
use crate::{TARGETS, object};

const PAIRS: [[Stored; 2]; 5] = [
    [Stored::Number(DType::F32), Stored::Number(DType::F32)],
    [Stored::Number(DType::F32), Stored::Number(DType::BF16)],
    [Stored::Number(DType::BF16), Stored::Number(DType::BF16)],
    [Stored::Number(DType::F32), Stored::Number(DType::F16)],
    [Stored::Number(DType::F32), Stored::Q8_0],
];

/// Sixteen partial sums, added up pairwise: the documented order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for (k, (x, y)) in a.iter().zip(b).enumerate() {
        sums[k % 16] = x.mul_add(*y, sums[k % 16]);
    }
    for half in [8, 4, 2, 1] {
        (0..half).for_each(|i| sums[i] += sums[i + half]);
    }
    sums[0]
}

/// Rows as they lie in memory, and their values.
fn rows(batch: &mut Batch, [n, k]: [usize; 2], stored: Stored) -> (Vec<Place>, Vec<Vec<f32>>) {
    let row = |i: usize| match stored {
        Stored::Number(dtype) => {
            let x = spread(&[k], n + k + i, dtype);
            (x.bytes().to_vec(), x.to_f32())
        }
        Stored::Q8_0 => {
            let (mut x, ty) = (
                spread(&[k], n + k + i, DType::F32).to_f32(),
                BlockType::Q8_0,
            );
            x.resize(k.next_multiple_of(ty.block_len()), 1.0);
            let mut bytes = vec![0; x.len() / ty.block_len() * ty.block_bytes()];
            ty.quantize(&x, &mut bytes).expect("finite numbers");
            ty.dequantize(&bytes, &mut x).expect("it has a decoder");
            x.truncate(k);
            (bytes, x)
        }
    };
    let (bytes, values): (Vec<_>, Vec<_>) = (0..n).map(row).unzip();
    (bytes.iter().map(|row| batch.input(row)).collect(), values)
}

/// Adds the call of a kernel; gives what it must compute, and where that will be.
fn add(
    batch: &mut Batch,
    symbol: &str,
    stored: [Stored; 2],
    (few, many): (usize, usize),
    k: usize,
) -> (Vec<f32>, Place) {
    batch.label(format!("{symbol}, k = {k}"));
    let (few_places, a) = rows(batch, [few, k], stored[0]);
    let (many_places, b) = rows(batch, [many, k], stored[1]);
    let next = many_places[0];
    let out = batch.output(4 * (few * many).next_multiple_of(16));
    let args = [
        Arg::Int(k as i64),
        Arg::Table(few_places),
        Arg::Table(many_places),
        Arg::Pointer(out),
        Arg::Pointer(next),
    ];
    batch.call(symbol, &args);
    let want = a.iter().flat_map(|a| b.iter().map(move |b| dot(a, b)));
    (want.collect(), out)
}

#[test]
fn dot_products_of_every_size() {
    let Some(emulator) = Emulator::for_test("dot_products_of_every_size") else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        for stored in PAIRS {
            for shape in shapes(stored, &target) {
                let symbol = symbol(stored, shape, &target);
                let object = object(&target, |context, module| {
                    emit_dot(context, module, stored, shape, &target);
                });
                let Some(object) = object else {
                    let fp16 = name == "sapphirerapids";
                    let has_halves = stored[1] == Stored::Number(DType::F16)
                        || stored[1] == Stored::Q8_0 && fp16;
                    assert!(has_halves, "{symbol} was left out");
                    continue;
                };
                batch.object(&symbol, &object);
                for k in [0, 1, 15, 16, 17, 53, 64] {
                    let (want, place) = add(&mut batch, &symbol, stored, shape, k);
                    wanted.push((format!("{symbol}, k = {k}"), want, place));
                }
            }
        }
        assert!(wanted.len() >= 3 * 8 * 7, "{} calls", wanted.len());
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (label, want, place) in wanted {
            assert_eq!(after.floats(place)[..want.len()], want, "{label} on {name}");
        }
    }
}
