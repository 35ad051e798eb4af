//! Products with few rows: dot products of every size and pair of formats.

use brain_blitz::compilers::llvm_cpu::gemm::dot::{emit_dot, shapes, symbol};
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::prelude::*;

use crate::avx512::Emulator;
use crate::batch::{Arg, Batch, Place};
use crate::cases::spread;
use crate::{TARGETS, object};

const PAIRS: [[DType; 2]; 4] = [
    [DType::F32, DType::F32],
    [DType::F32, DType::BF16],
    [DType::BF16, DType::BF16],
    [DType::F32, DType::F16],
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
fn rows(batch: &mut Batch, [n, k]: [usize; 2], dtype: DType) -> (Vec<Place>, Vec<Vec<f32>>) {
    let x = spread(&[n, k], n + k, dtype);
    let (bytes, values) = (k * dtype.size(), x.to_f32());
    let row = |i: usize| values[i * k..(i + 1) * k].to_vec();
    let places = (0..n).map(|i| batch.input(&x.bytes()[i * bytes..(i + 1) * bytes]));
    (places.collect(), (0..n).map(row).collect())
}

/// Adds the call of a kernel; gives what it must compute, and where that will be.
fn add(
    batch: &mut Batch,
    symbol: &str,
    dtypes: [DType; 2],
    (few, many): (usize, usize),
    k: usize,
) -> (Vec<f32>, Place) {
    batch.label(format!("{symbol}, k = {k}"));
    let (few_places, a) = rows(batch, [few, k], dtypes[0]);
    let (many_places, b) = rows(batch, [many, k], dtypes[1]);
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
        for dtypes in PAIRS {
            for shape in shapes(&target) {
                let symbol = symbol(dtypes, shape, &target);
                let object = object(&target, |context, module| {
                    emit_dot(context, module, dtypes, shape, &target);
                });
                let Some(object) = object else {
                    assert!(dtypes.contains(&DType::F16), "{symbol} was left out");
                    continue;
                };
                batch.object(&symbol, &object);
                for k in [0, 1, 15, 16, 17, 53] {
                    let (want, place) = add(&mut batch, &symbol, dtypes, shape, k);
                    wanted.push((format!("{symbol}, k = {k}"), want, place));
                }
            }
        }
        assert!(wanted.len() >= 3 * 8 * 6, "{} calls", wanted.len());
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (label, want, place) in wanted {
            assert_eq!(after.floats(place)[..want.len()], want, "{label} on {name}");
        }
    }
}
