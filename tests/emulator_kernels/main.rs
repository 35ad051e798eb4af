//! AVX-512 kernels, run under the emulator and compared with the reference or with scalar code, bit by bit.
//!
//! `x86-64-v4` runs on the model that has exactly its features. `sapphirerapids` and `znver4` run on the richest model
//! that there is, which lacks the BF16 and FP16 instructions: kernels that use them are left out and counted.
#![cfg(feature = "llvm-backend")]

#[path = "../avx512/mod.rs"]
mod avx512;
mod batch;
mod binary;
mod blocks;
mod cases;
mod dot;
mod gemm;
mod sign_rows;
mod sums;

use std::collections::HashMap;

use brain_blitz::array::Array;
use brain_blitz::compilers::llvm_cpu::approx::{Function, approximate};
use brain_blitz::compilers::llvm_cpu::jit::{self, compile_module};
use brain_blitz::compilers::llvm_cpu::lower::{Lowered, assembly, lower};
use brain_blitz::compilers::llvm_cpu::nest::nest_of;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::op::{Kernel, Op};
use brain_blitz::prelude::*;

use inkwell::context::Context;
use inkwell::module::Module;

use avx512::{CpuModel, Emulator};
use batch::{Arg, Batch, Place};
use cases::Case;

/// The targets and the model that each runs on.
const TARGETS: [(&str, CpuModel); 3] = [
    ("x86-64-v4", CpuModel::SkylakeX),
    ("sapphirerapids", CpuModel::TigerLake),
    ("znver4", CpuModel::TigerLake),
];

/// Whether the emulator cannot run a line of assembly.
///
/// No model of it has half-precision and BF16 arithmetic. And it takes the short displacement of the EVEX forms of
/// `vpextrw` and `vpinsrw`, which count in words, for bytes; LLVM uses those forms for registers from `xmm16` on.
fn is_beyond_the_emulator(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let operands: String = words.collect();
    let moves_a_word = name == "vpextrw" || name == "vpinsrw";
    if moves_a_word {
        let evex = (16..32).any(|n| operands.contains(&format!("%xmm{n}")));
        let displaced = operands.contains('(') && !operands.contains(",(");
        return evex && displaced;
    }
    let f16c = ["vcvtph2ps", "vcvtps2ph"].contains(&name);
    let arithmetic = ["ph", "sh", "bf16"].iter().any(|end| name.ends_with(end));
    let converts =
        name.starts_with("vcvt") && ["ph", "2sh", "sh2"].iter().any(|part| name.contains(part));
    name.starts_with('v') && !f16c && (arithmetic || converts || name == "vmovw")
}

/// A kernel's code for a target; `None` if the emulator cannot run it.
fn compiled(kernel: &Kernel, math: Math, target: &Target) -> Option<Lowered> {
    let mut nest = nest_of(kernel).unwrap_or_else(|why| panic!("{}: {why}", kernel.name()));
    let n_replaced = approximate(&mut nest, math);
    assert_eq!(n_replaced, usize::from(math != Math::Exact), "{math}");
    let lowered = lower(&nest, target).unwrap_or_else(|why| panic!("{}: {why}", kernel.name()));
    let text = assembly(&nest, target).expect("it was compiled before");
    (!text.lines().any(is_beyond_the_emulator)).then_some(lowered)
}

fn params(lowered: &Lowered, case: &Case) -> (Vec<i64>, i64) {
    let eval = |e: &Expr| e.eval(&case.symbols).expect("every symbol is bound");
    (
        lowered.params.iter().map(eval).collect(),
        eval(&lowered.units),
    )
}

/// Adds the call of a case; gives the places of its output and of its error slot.
fn add(batch: &mut Batch, case: &Case, lowered: &Lowered, len: usize) -> (Place, Place) {
    batch.object(&lowered.symbol, &lowered.object);
    batch.label(&case.name);
    let (params, units) = params(lowered, case);
    let mut table: Vec<Place> = case
        .inputs
        .iter()
        .map(|array| batch.input(array.bytes()))
        .collect();
    let (out, errors) = (batch.output(len), batch.state(&0i64.to_le_bytes()));
    table.push(out);
    let params: Vec<u8> = params.iter().flat_map(|p| p.to_le_bytes()).collect();
    let params = batch.input(&params);
    let args = [
        Arg::Table(table),
        Arg::Pointer(params),
        Arg::Int(0),
        Arg::Int(units),
        Arg::Pointer(errors),
    ];
    batch.call(&lowered.symbol, &args);
    (out, errors)
}

/// The result of the same kernel compiled for one lane, here.
fn scalar(case: &Case) -> Array {
    let mut cx = Graph::new();
    let operands: Vec<GraphTensor> = case
        .inputs
        .iter()
        .map(|x| cx.input(x.dims().to_vec(), x.dtype()).set(x.clone()))
        .collect();
    let kernel = Op::Kernel(case.kernel.clone().into());
    let out = cx.record(kernel, &operands).retrieve();
    cx.compile(LlvmCpu::scalar().math(case.math), ());
    cx.execute();
    assert_eq!(cx.stats().native_steps, 1, "{} has code", case.name);
    out.array()
}

/// A kernel's object; `None` if the emulator lacks instructions of it.
pub fn object(target: &Target, emit: impl for<'c> Fn(&'c Context, &Module<'c>)) -> Option<Vec<u8>> {
    let text = jit::assembly(target, |context, module| {
        emit(context, module);
        Ok(())
    });
    let text = text.expect("it compiles");
    (!text.lines().any(is_beyond_the_emulator)).then(|| {
        let object = compile_module(target, |context, module| {
            emit(context, module);
            Ok(())
        });
        object.expect("it compiled before")
    })
}

/// Runs cases for all targets, each in one emulated program; at least `least` must run on each.
fn check(test: &str, cases: &[Case], least: usize) {
    let Some(emulator) = Emulator::for_test(test) else {
        return;
    };
    let wanted: Vec<Array> = cases
        .iter()
        .map(|case| {
            if case.as_reference {
                case.eval()
            } else {
                scalar(case)
            }
        })
        .collect();
    let mut failures = Vec::new();
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let (mut batch, mut places) = (Batch::default(), Vec::new());
        // Cases of one symbolic kernel share its code.
        let mut known: HashMap<(&Kernel, Math), Option<Lowered>> = HashMap::new();
        for (case, want) in cases.iter().zip(&wanted) {
            let lowered = known
                .entry((&case.kernel, case.math))
                .or_insert_with(|| compiled(&case.kernel, case.math, &target));
            if let Some(lowered) = lowered {
                let place = add(&mut batch, case, lowered, want.bytes().len());
                places.push((case, want, place));
            }
        }
        assert!(
            places.len() >= least,
            "only {} of {} kernels for {name} can be emulated",
            places.len(),
            cases.len()
        );
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (case, want, (out, errors)) in places {
            let bytes = after.bytes(out);
            let got = Array::from_bytes(want.dims().to_vec(), want.dtype(), bytes);
            if !want.same_bits(&got) {
                let differences = differences(case, want, &got);
                failures.push(format!("{} on {name}: {differences}", case.name));
            }
            assert_eq!(after.bytes(errors), [0; 8], "{} on {name}", case.name);
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The first elements that differ, with what the operands hold at their place.
fn differences(case: &Case, want: &Array, got: &Array) -> String {
    let operands: Vec<Vec<f64>> = case.inputs.iter().map(Array::to_f64).collect();
    let (want, got) = (want.to_f64(), got.to_f64());
    let differ = (0..want.len()).filter(|&i| want[i].to_bits() != got[i].to_bits());
    let line = |i: usize| {
        let at: Vec<_> = operands.iter().map(|x| x.get(i)).collect();
        format!("element {i}: {} for {}, operands {at:?}", got[i], want[i])
    };
    differ.take(8).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_op_on_its_samples() {
    check("every_op_on_its_samples", &cases::op_table(), 250);
}

#[test]
fn tails_of_every_length() {
    check("tails_of_every_length", &cases::masked_tails(), 160);
}

#[test]
fn views_of_every_kind() {
    check("views_of_every_kind", &cases::seen_through_views(), 24);
}

#[test]
fn exponentials() {
    check("exponentials", &cases::exponentials(), 1);
}

#[test]
fn approximations() {
    check(
        "approximations",
        &cases::approximations(),
        2 * Function::ALL.len(),
    );
}

#[test]
fn reductions_of_rows_columns_and_middle_axes() {
    check(
        "reductions_of_rows_columns_and_middle_axes",
        &cases::reductions(),
        36,
    );
}

#[test]
fn rows_of_several_reductions() {
    check("rows_of_several_reductions", &cases::rows(), 6);
}

#[test]
fn gathers_of_rows_and_elements() {
    check("gathers_of_rows_and_elements", &cases::gathers(), 8);
}

#[test]
fn a_wrong_result_would_be_noticed() {
    let cases = cases::gathers();
    let Some(emulator) = Emulator::for_test("a_wrong_result_would_be_noticed") else {
        return;
    };
    // A bad index is reported in the error slot, and a good run differs from another case's result.
    let mut case = cases[0].clone();
    let bad = Array::new(vec![40, 19], brain_blitz::array::Data::I32(vec![50; 760]));
    case.inputs[1] = bad;
    let target = Target::for_cpu("x86-64-v4").expect("a known target");
    let lowered = compiled(&case.kernel, Math::Exact, &target).expect("plain AVX-512");
    let want = cases[0].eval();
    let mut batch = Batch::default();
    let (out, errors) = add(&mut batch, &case, &lowered, want.bytes().len());
    let after = batch.run(&emulator, CpuModel::SkylakeX).expect("it runs");
    assert_ne!(after.bytes(out), want.bytes());
    assert_eq!(after.bytes(errors), (50i64 + (1 << 32)).to_le_bytes());
}
