//! Weighted sums of rows, in blocks and of `f32`: kernels of every size.

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::llvm_cpu::gemm::stored::Stored;
use brain_blitz::compilers::llvm_cpu::gemm::sums_code::{emit_sums, shapes, symbol};
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::prelude::*;

use crate::avx512::Emulator;
use crate::batch::{Arg, Batch, Place};
use crate::cases::spread;
use crate::{TARGETS, object};

fn floats(n: usize, phase: usize) -> Vec<f32> {
    spread(&[n], phase, DType::F32).to_f32()
}

fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Adds the call of a kernel to sums that are there; gives what these must be, and where.
fn add(
    batch: &mut Batch,
    symbol: &str,
    (stored, (rows, blocks)): (Stored, (usize, usize)),
    k: usize,
) -> (Vec<f32>, Place) {
    batch.label(format!("{symbol}, k = {k}"));
    let (width, ty) = (blocks * BlockType::Q8_0.block_len(), BlockType::Q8_0);
    // A block behind each row that is not read, and columns behind each row of sums.
    let (stride, distance) = (width + ty.block_len(), width + 3);
    let mut x = floats(k * stride, k);
    let mut kept = vec![0; x.len() / ty.block_len() * ty.block_bytes()];
    match stored {
        Stored::Number(_) => kept = bytes(&x),
        Stored::Q8_0 => {
            ty.quantize(&x, &mut kept).expect("finite numbers");
            ty.dequantize(&kept, &mut x).expect("it has a decoder");
        }
    }
    let weights: Vec<Vec<f32>> = (0..rows).map(|row| floats(k, row + 1)).collect();
    let mut sums = floats(rows * distance, 7);
    let from = batch.input(&kept);
    let tables = weights.iter().map(|row| batch.input(&bytes(row))).collect();
    let out = batch.state(&bytes(&sums));
    let bytes_apart = stored.row_bytes(stride);
    let args = [
        Arg::Int(k as i64),
        Arg::Pointer(from),
        Arg::Int(bytes_apart as i64),
        Arg::Table(tables),
        Arg::Pointer(out),
        Arg::Int(distance as i64),
        Arg::Pointer(from),
        Arg::Int(bytes_apart as i64),
    ];
    batch.call(symbol, &args);
    for (row, weights) in weights.iter().enumerate() {
        for column in 0..width {
            let sum = &mut sums[row * distance + column];
            let values = (0..k).map(|k| x[k * stride + column]);
            *sum = weights
                .iter()
                .zip(values)
                .fold(*sum, |s, (w, x)| w.mul_add(x, s));
        }
    }
    (sums, out)
}

#[test]
fn weighted_sums_of_every_size() {
    let Some(emulator) = Emulator::for_test("weighted_sums_of_every_size") else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        let kinds = [Stored::Q8_0, Stored::Number(DType::F32)];
        for (stored, shape) in kinds
            .iter()
            .flat_map(|&kind| shapes(&target).map(move |shape| (kind, shape)))
        {
            let symbol = symbol(stored, shape, &target);
            let object = object(&target, |context, module| {
                emit_sums(context, module, stored, shape, &target);
            });
            // Scales are widened by FP16 instructions there, which the emulator lacks.
            let Some(object) = object else {
                let known = name == "sapphirerapids" && stored == Stored::Q8_0;
                assert!(known, "{symbol} was left out");
                continue;
            };
            batch.object(&symbol, &object);
            for k in [0, 1, 5] {
                let (want, place) = add(&mut batch, &symbol, (stored, shape), k);
                wanted.push((format!("{symbol}, k = {k}"), want, place));
            }
        }
        let kinds = if name == "sapphirerapids" { 1 } else { 2 };
        assert_eq!(wanted.len(), kinds * 11 * 3, "calls on {name}");
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (label, want, place) in wanted {
            assert_eq!(after.floats(place), want, "{label} on {name}");
        }
    }
}
