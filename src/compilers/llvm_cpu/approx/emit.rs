//! Approximations as vector code.
//!
//! A table has 32 entries and is looked into lane by lane: by permutations of registers where vectors have 8 or 16
//! lanes, from memory elsewhere. Which of the two makes no difference to the bits. Where a table is of a function itself,
//! it has three coefficients for each of 32 intervals, in powers of the distance from the interval's middle.

use inkwell::module::Linkage;
use inkwell::types::VectorType;
use inkwell::values::IntValue;
use inkwell::{FloatPredicate as F, IntPredicate as I};

use super::tables::*;
use super::{Approximation, Function};
use crate::compilers::llvm_cpu::lower::vector::{Ops, V, lanes};
use crate::compilers::llvm_cpu::vmath::{clamp, horner, neg, scale_by_part};
use crate::compilers::math::Math;
use crate::op::math::{LOG2_E_HI, ROUND_F32};

/// The approximation of a function of `f32` lanes.
pub fn emit<'c>(ops: &Ops<'_, 'c>, approximation: Approximation, x: V<'c>) -> V<'c> {
    let tables = approximation.math == Math::Lut;
    match approximation.function {
        Function::Exp => exp(ops, x, tables),
        Function::Sigmoid => {
            let one = ops.f32(lanes(x), 1.0);
            ops.fdiv(one, ops.fadd(exp(ops, neg(ops, x), tables), one))
        }
        Function::Tanh if tables => {
            let (size, end) = (ops.fabs(x), 31.0 / 4.0);
            ops.copysign(quadratic(ops, &TANH_TABLE, size, (4.0, end)), x)
        }
        Function::Tanh => tanh(ops, x),
        Function::Gelu => gelu(ops, x, tables.then_some(&GELU_TABLE), &GELU_POLY),
        Function::GeluTanh => gelu(ops, x, tables.then_some(&GELU_TANH_TABLE), &GELU_TANH_POLY),
        Function::Rsqrt => rsqrt(ops, x, tables),
    }
}

/// `x` rounded to a whole number `n` of steps: `n + ROUND_F32`, and `steps * x - n`.
fn steps<'c>(ops: &Ops<'_, 'c>, x: V<'c>, steps: f32) -> (V<'c>, V<'c>) {
    let l = lanes(x);
    let (steps, round) = (ops.f32(l, steps), ops.f32(l, ROUND_F32));
    let shifted = ops.fma(x, steps, round);
    let n = ops.fsub(shifted, round);
    (shifted, ops.fma(x, steps, neg(ops, n)))
}

/// The lowest five bits of a number that [`steps`] rounded.
fn index<'c>(ops: &Ops<'_, 'c>, shifted: V<'c>) -> V<'c> {
    let l = lanes(shifted);
    ops.and(ops.bits(shifted, ops.i32s(l)), ops.i32(l, 31))
}

/// `e^x`. With a table, `2^(n / 32)` is looked up and the rest is linear; without, the rest of `2^n` is a cubic.
fn exp<'c>(ops: &Ops<'_, 'c>, x: V<'c>, tables: bool) -> V<'c> {
    let l = lanes(x);
    let x = clamp(ops, x, -106.0, 90.0);
    if tables {
        let (shifted, rest) = steps(ops, x, 32.0 * LOG2_E_HI);
        let power = lookup(ops, &EXP2_TABLE, "exp2", index(ops, shifted));
        let more = ops.fmul(rest, ops.f32(l, std::f32::consts::LN_2 / 32.0));
        return scale_by_part(ops, ops.fma(power, more, power), shifted, 5);
    }
    let (shifted, rest) = steps(ops, x, LOG2_E_HI);
    let p = horner(ops, &EXP2_POLY, rest, |c| ops.f32(l, c));
    scale_by_part(ops, p, shifted, 0)
}

/// `x P(x²) / Q(x²)`.
fn tanh<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let x = clamp(ops, x, -TANH_END, TANH_END);
    let square = ops.fmul(x, x);
    let p = horner(ops, &TANH_P, square, |c| ops.f32(l, c));
    let q = horner(ops, &TANH_Q, square, |c| ops.f32(l, c));
    ops.fdiv(ops.fmul(x, p), q)
}

/// `max(x, 0) + g(|x|)`, where `g`, the distance from that to gelu, is even and ends.
fn gelu<'c>(ops: &Ops<'_, 'c>, x: V<'c>, table: Option<&Quadratics>, poly: &[f32; 5]) -> V<'c> {
    let (l, size) = (lanes(x), ops.fabs(x));
    let zero = ops.f32(l, 0.0);
    let distance = match table {
        Some(table) => quadratic(ops, table, size, (6.0, 31.0 / 6.0)),
        None => {
            let end = ops.f32(l, GELU_END);
            let size = ops.select(ops.fcmp(F::OGT, size, end), end, size);
            let left = ops.fsub(end, size);
            let square = ops.fmul(left, left);
            let fourth = ops.fmul(square, square);
            let p = horner(ops, poly, size, |c| ops.f32(l, c));
            ops.fmul(ops.fmul(p, size), ops.fmul(fourth, fourth))
        }
    };
    ops.fadd(ops.select(ops.fcmp(F::OGT, x, zero), x, zero), distance)
}

/// A function of `size`, at least 0, whose table has `per_one` intervals per 1 and is constant from `end` on.
fn quadratic<'c>(
    ops: &Ops<'_, 'c>,
    table: &Quadratics,
    size: V<'c>,
    (per_one, end): (f32, f32),
) -> V<'c> {
    let end = ops.f32(lanes(size), end);
    let size = ops.select(ops.fcmp(F::OGT, size, end), end, size);
    let (shifted, rest) = steps(ops, size, per_one);
    of_interval(ops, table, index(ops, shifted), rest)
}

/// The polynomial of an interval.
fn of_interval<'c>(ops: &Ops<'_, 'c>, table: &Quadratics, index: V<'c>, rest: V<'c>) -> V<'c> {
    let c = |i: usize| lookup(ops, &table.powers[i], table.names[i], index);
    ops.fma(ops.fma(c(2), rest, c(1)), rest, c(0))
}

/// `1 / sqrt(x)`.
fn rsqrt<'c>(ops: &Ops<'_, 'c>, x: V<'c>, tables: bool) -> V<'c> {
    let l = lanes(x);
    let number = |value| ops.f32(l, value);
    // Subnormal numbers times 2^24 are normal.
    let tiny = ops.fcmp(F::OLT, x, number(f32::MIN_POSITIVE));
    let scaled = ops.select(tiny, ops.fmul(x, number(16_777_216.0)), x);
    let y = match tables {
        true => rsqrt_by_table(ops, scaled),
        false => rsqrt_by_steps(ops, scaled),
    };
    let y = ops.select(tiny, ops.fmul(y, number(4096.0)), y);
    let infinite = number(f32::INFINITY);
    let y = ops.select(ops.fcmp(F::OEQ, x, infinite), number(0.0), y);
    let zero = ops.fcmp(F::OEQ, x, number(0.0));
    let y = ops.select(zero, ops.copysign(infinite, x), y);
    // Not at least zero: below, or NaN.
    ops.select(ops.fcmp(F::ULT, x, number(0.0)), number(f32::NAN), y)
}

/// Of a normal `x = m 4^k` with `m` in `1..4`: `2^-k` times a polynomial in the mantissa.
fn rsqrt_by_table<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let (int, floats) = (|value| ops.i32(l, value), ops.f32s(l));
    let bits = ops.bits(x, ops.i32s(l));
    let index = ops.and(ops.lshr(bits, int(19)), int(31));
    let low = ops.or(ops.and(bits, int(0x7_ffff)), int(0x3f80_0000));
    let rest = ops.fsub(ops.bits(low, floats), ops.f32(l, 1.0 + 1.0 / 32.0));
    let y = of_interval(ops, &RSQRT_TABLE, index, rest);
    let exponent = ops.and(ops.lshr(bits, int(23)), int(255));
    let half = ops.lshr(ops.add(exponent, int(1)), int(1));
    let power = ops.shl(ops.sub(int(191), half), int(23));
    ops.fmul(y, ops.bits(power, floats))
}

/// Two of Newton's steps from a first guess: halving the bits halves the logarithm, nearly.
fn rsqrt_by_steps<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let bits = ops.lshr(ops.bits(x, ops.i32s(l)), ops.i32(l, 1));
    let guess = ops.bits(ops.sub(ops.i32(l, RSQRT_GUESS), bits), ops.f32s(l));
    let minus_half = ops.fmul(x, ops.f32(l, -0.5));
    (0..2).fold(guess, |y, _| {
        let change = ops.fma(ops.fmul(minus_half, y), y, ops.f32(l, 1.5));
        ops.fmul(y, change)
    })
}

/// The entries of a table at `index`, whose lanes are in `0..32`.
fn lookup<'c>(ops: &Ops<'_, 'c>, table: &[f32; 32], name: &str, index: V<'c>) -> V<'c> {
    let l = lanes(index);
    match l {
        16 if ops.has_scale => {
            let [low, high] = [0, 16].map(|at| constants(ops, &table[at..at + 16]));
            ops.intrinsic(
                "llvm.x86.avx512.vpermi2var.ps.512",
                &[],
                &[low, index, high],
            )
        }
        8 if ops.has_permute => {
            let part = |at: usize| {
                let part = constants(ops, &table[at..at + 8]);
                ops.intrinsic("llvm.x86.avx2.permps", &[], &[part, index])
            };
            let upper = |bit: i32| {
                let set = ops.and(index, ops.i32(l, bit));
                ops.icmp(I::NE, set, ops.i32(l, 0))
            };
            let [odd, second] = [8, 16].map(upper);
            let low = ops.select(odd, part(8), part(0));
            let high = ops.select(odd, part(24), part(16));
            ops.select(second, high, low)
        }
        _ => from_memory(ops, table, name, index),
    }
}

/// One number per lane.
fn constants<'c>(ops: &Ops<'_, 'c>, values: &[f32]) -> V<'c> {
    let kind = ops.context.f32_type();
    let value = |&value: &f32| kind.const_float(value.into());
    let values: Vec<_> = values.iter().map(value).collect();
    VectorType::const_vector(&values)
}

/// [`lookup`], element by element from a constant in memory.
fn from_memory<'c>(ops: &Ops<'_, 'c>, table: &[f32; 32], name: &str, index: V<'c>) -> V<'c> {
    let name = format!("table_{name}");
    let values = constants(ops, table);
    let global = ops.module.get_global(&name).unwrap_or_else(|| {
        let global = ops.module.add_global(values.get_type(), None, &name);
        global.set_linkage(Linkage::Private);
        global.set_constant(true);
        global.set_initializer(&values);
        global
    });
    let kind = ops.context.f32_type();
    let base = global.as_pointer_value();
    let element = |lane: u32| -> IntValue<'c> { ops.extract(index, lane).into_int_value() };
    let first = ops.f32s(lanes(index)).get_poison();
    (0..lanes(index)).fold(first, |all, lane| {
        let at = ops.element(kind, base, element(lane));
        ops.insert(all, ops.load(kind, at, 4), lane)
    })
}
