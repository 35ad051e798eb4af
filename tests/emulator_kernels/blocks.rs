//! Products with weights in blocks: activations rounded by one kernel, multiplied by panels of every form by others.
//!
//! Activations are whole numbers with a scale of 1, and weights small whole numbers times a power of two, so every order of
//! additions gives the same bits, and any wrong product shows.

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::llvm_cpu::blocks::activations::{RowForm, emit_round, record_bytes};
use brain_blitz::compilers::llvm_cpu::blocks::form::{COLUMNS, Dots, Factors, Form, GROUP};
use brain_blitz::compilers::llvm_cpu::blocks::panel::pack;
use brain_blitz::compilers::llvm_cpu::blocks::tile::{emit_tile, heights};
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::op::ActivationScheme;
use half::f16;

use crate::avx512::Emulator;
use crate::batch::{Arg, Batch, Place};
use crate::{TARGETS, object};

/// Blocks in a row of weights.
const BLOCKS: usize = 2;

/// Rows of weights, and the numbers that they are: whole ones times 2^-6.
fn weights(ty: BlockType) -> (Vec<u8>, Vec<f32>) {
    let n = COLUMNS * BLOCKS;
    let mut bytes: Vec<u8> = (0..n * ty.block_bytes())
        .map(|i| (i * 151 % 256) as u8 ^ (i / 256) as u8)
        .collect();
    for block in bytes.chunks_exact_mut(ty.block_bytes()) {
        for &at in ty.scale_offsets() {
            block[at..at + 2].copy_from_slice(&f16::from_f32(1.0 / 64.0).to_le_bytes());
        }
    }
    let mut numbers = vec![0.0; n * ty.block_len()];
    ty.dequantize(&bytes, &mut numbers)
        .expect("a type with a decoder");
    (bytes, numbers)
}

/// A row of whole numbers up to 127, which every group reaches.
fn activations(k: usize, phase: usize) -> Vec<f32> {
    let mut x: Vec<f32> = (0..k)
        .map(|i| ((i * 73 + phase * 31) % 255) as f32 - 127.0)
        .collect();
    x.iter_mut().step_by(GROUP).for_each(|x| *x = -127.0);
    x
}

/// Adds the calls that multiply some rows by a panel; gives what they must compute, and where that will be.
fn add(
    batch: &mut Batch,
    ty: BlockType,
    (round, tile): (&str, &str),
    (dots, rows): (Dots, usize),
) -> (Vec<f32>, Place) {
    let form = Form::of(ty).expect("a type with kernels");
    let (bytes, w) = weights(ty);
    let k = BLOCKS * ty.block_len();
    let mut panel = form.panel_bytes(BLOCKS).map(|bytes| vec![0; bytes]);
    let regions = panel.each_mut().map(|region| &mut region[..]);
    pack(ty, dots.is_signed(&form), &bytes, BLOCKS, regions);
    batch.label(format!("{tile} of {ty}"));
    let x: Vec<Vec<f32>> = (0..rows).map(|row| activations(k, row)).collect();
    let mut records = Vec::new();
    for x in &x {
        let from = batch.input(bytemuck::cast_slice(x));
        let record = batch.output(record_bytes(k / GROUP));
        let args = [
            Arg::Int((k / GROUP) as i64),
            Arg::Pointer(from),
            Arg::Pointer(record),
        ];
        batch.call(round, &args);
        records.push(record);
    }
    let [numbers, factors, scales] = panel.map(|region| batch.input(&region));
    let out = batch.output(4 * rows * COLUMNS);
    let args = [
        Arg::Int(BLOCKS as i64),
        Arg::Pointer(numbers),
        Arg::Pointer(factors),
        Arg::Pointer(scales),
        Arg::Table(records),
        Arg::Pointer(out),
    ];
    batch.call(tile, &args);
    let dot = |x: &[f32], w: &[f32]| -> f32 {
        let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
        terms.sum::<f64>() as f32
    };
    let want = x.iter().flat_map(|x| w.chunks(k).map(move |w| dot(x, w)));
    (want.collect(), out)
}

#[test]
fn products_with_blocks_of_every_type() {
    let Some(emulator) = Emulator::for_test("products_with_blocks_of_every_type") else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let dots = Dots::of(&target);
        let (mut batch, mut wanted, mut left_out) = (Batch::default(), Vec::new(), 0);
        for ty in BlockType::all() {
            let Some(form) = Form::of(ty) else { continue };
            let row = RowForm {
                factor: -dots.offset(&form),
                halves: form.factors == Factors::Halves,
            };
            let round = format!("round_{ty}");
            let scheme = ActivationScheme::A8G32;
            let rounding = object(&target, |context, module| {
                emit_round(context, module, &round, scheme, row);
            });
            batch.object(
                &round,
                &rounding.expect("rounding takes no special instructions"),
            );
            for &rows in heights(&target) {
                let tile = format!("tile_{ty}_{rows}");
                let form = (form, dots, target.lanes());
                let kernel = object(&target, |context, module| {
                    emit_tile(context, module, &tile, form, rows);
                });
                let Some(kernel) = kernel else {
                    left_out += 1;
                    continue;
                };
                batch.object(&tile, &kernel);
                let (want, place) = add(&mut batch, ty, (&round, &tile), (dots, rows));
                wanted.push((format!("{tile} on {name}"), want, place));
            }
        }
        // It would convert scales by an instruction for half precision; its other ones are those of `znver4`.
        let all = 15 * heights(&target).len();
        let counts = if name == "sapphirerapids" {
            (all, 0)
        } else {
            (0, all)
        };
        assert_eq!((left_out, wanted.len()), counts, "{name}");
        if wanted.is_empty() {
            continue;
        }
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (label, want, place) in wanted {
            assert_eq!(after.floats(place), want, "{label}");
        }
    }
}
