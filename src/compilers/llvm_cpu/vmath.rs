//! The elementary functions of [`crate::op::math`] as vector code.
//!
//! Each function repeats its scalar namesake operation by operation, so the bits
//! agree on every vector width. The scalar code is the definition: change it
//! first. `fma` becomes a library call (`fmaf`, `fma`) on targets without the
//! instruction, with the same result.

use inkwell::values::IntValue;
use inkwell::{FloatPredicate as F, IntPredicate as I};

use super::lower::vector::{Ops, V, built, lanes};
use crate::op::math;

/// `c[0] + x * (c[1] + ...)` with constants made by `constant`.
pub fn horner<'c, T: Copy>(
    ops: &Ops<'_, 'c>,
    c: &[T],
    x: V<'c>,
    constant: impl Fn(T) -> V<'c>,
) -> V<'c> {
    let (last, rest) = c.split_last().expect("a polynomial has coefficients");
    let first = constant(*last);
    rest.iter()
        .rev()
        .fold(first, |acc, &c| ops.fma(acc, x, constant(c)))
}

/// `p * 2^n`, rounded once, where `shifted` holds `n + ROUND_F32`.
fn scale<'c>(ops: &Ops<'_, 'c>, p: V<'c>, shifted: V<'c>) -> V<'c> {
    scale_by_part(ops, p, shifted, 0)
}

/// `p * 2^floor(n / 2^places)`, rounded once, where `shifted` holds `n + ROUND_F32`. In two exact halves, of which only
/// the second can round, unless there is an instruction for it.
pub fn scale_by_part<'c>(ops: &Ops<'_, 'c>, p: V<'c>, shifted: V<'c>, places: u8) -> V<'c> {
    let l = lanes(p);
    if ops.has_scale && l == 16 {
        let n = ops.fsub(shifted, ops.f32(l, math::ROUND_F32));
        if places == 0 {
            return ops.scale(p, n);
        }
        let part = ops.f32(l, 0.5f32.powi(places.into()));
        return ops.scale(p, ops.fmul(n, part));
    }
    let (ints, floats) = (ops.i32s(l), ops.f32s(l));
    let n = ops.sub(
        ops.bits(shifted, ints),
        ops.i32(l, math::ROUND_F32.to_bits() as i32),
    );
    let n = match places {
        0 => n,
        _ => ops.ashr(n, ops.i32(l, places.into())),
    };
    let half = ops.ashr(n, ops.i32(l, 1));
    let rest = ops.sub(n, half);
    let power = |n| ops.bits(ops.shl(ops.add(n, ops.i32(l, 127)), ops.i32(l, 23)), floats);
    ops.fmul(ops.fmul(p, power(half)), power(rest))
}

/// `x` limited to `low..=high`; NaN stays NaN.
pub fn clamp<'c>(ops: &Ops<'_, 'c>, x: V<'c>, low: f32, high: f32) -> V<'c> {
    let (low, high) = (ops.f32(lanes(x), low), ops.f32(lanes(x), high));
    let x = ops.select(ops.fcmp(F::OGT, x, high), high, x);
    ops.select(ops.fcmp(F::OLT, x, low), low, x)
}

/// `-x`.
pub fn neg<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    built(ops.builder.build_float_neg(x, ""))
}

/// [`math::exp2`] of `f32` lanes.
pub fn exp2<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let constant = |c| ops.f32(l, c);
    let x = clamp(ops, x, -152.0, 129.0);
    let shifted = ops.fadd(x, constant(math::ROUND_F32));
    let n = ops.fsub(shifted, constant(math::ROUND_F32));
    let f = ops.fsub(x, n);
    let p = horner(ops, &math::EXP2_POLY, f, constant);
    scale(ops, ops.fma(p, f, constant(1.0)), shifted)
}

/// [`math::exp`] of `f32` lanes.
pub fn exp<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let constant = |c| ops.f32(l, c);
    let x = clamp(ops, x, -106.0, 90.0);
    let shifted = ops.fma(x, constant(math::LOG2_E_HI), constant(math::ROUND_F32));
    let n = neg(ops, ops.fsub(shifted, constant(math::ROUND_F32)));
    let r = ops.fma(n, constant(math::LN2_HI), x);
    let r = ops.fma(n, constant(math::LN2_LO), r);
    let q = horner(ops, &math::EXP_POLY, r, constant);
    let p = ops.fadd(ops.fma(q, ops.fmul(r, r), r), constant(1.0));
    scale(ops, p, shifted)
}

/// [`math::log2`] of `f32` lanes.
pub fn log2<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let constant = |c| ops.f32(l, c);
    let small = ops.fcmp(F::OLT, x, constant(f32::MIN_POSITIVE));
    let scaled = ops.select(small, ops.fmul(x, constant(8_388_608.0)), x);
    let bias = ops.select(small, constant(-23.0), constant(0.0));
    let bits = ops.bits(scaled, ops.i32s(l));
    let exponent = ops.ashr(
        ops.sub(bits, ops.i32(l, math::SQRT_HALF_BITS)),
        ops.i32(l, 23),
    );
    let mantissa = ops.sub(bits, ops.shl(exponent, ops.i32(l, 23)));
    let f = ops.fsub(ops.bits(mantissa, ops.f32s(l)), constant(1.0));
    let k = ops.fadd(ops.to_float(exponent, ops.f32s(l)), bias);
    let q = horner(ops, &math::LOG2_POLY, f, constant);
    let low = ops.fma(f, constant(math::LOG2_E_LO), ops.fmul(ops.fmul(f, f), q));
    let y = ops.fadd(k, ops.fma(f, constant(math::LOG2_E_HI), low));
    let y = ops.select(ops.fcmp(F::OLT, x, constant(f32::INFINITY)), y, x);
    let zero = ops.fcmp(F::OEQ, x, constant(0.0));
    let y = ops.select(zero, constant(f32::NEG_INFINITY), y);
    ops.select(ops.fcmp(F::OLT, x, constant(0.0)), constant(f32::NAN), y)
}

/// [`math::sin`] of `f32` lanes. The reduction of large arguments is skipped when no lane has one.
pub fn sin<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let size = ops.fabs(x);
    let large = ops.and(
        ops.fcmp(F::OGT, size, ops.f32(l, math::SIN_SMALL)),
        ops.fcmp(F::OLT, size, ops.f32(l, f32::INFINITY)),
    );
    let small = reduce_small(ops, x);
    let [r, n] = either(ops, ops.any(large), small, |ops| {
        let (wide_r, wide_n) = reduce_large(ops, x);
        [
            ops.select(large, wide_r, small[0]),
            ops.select(large, wide_n, small[1]),
        ]
    });
    let p = horner(ops, &math::SIN_POLY, ops.fmul(r, r), |c| ops.f64(l, c));
    let y = ops.bits(ops.fmul(r, p), ops.i64s(l));
    let sign = ops.shl(n, ops.i64(l, 63));
    ops.fptrunc(ops.bits(ops.xor(y, sign), ops.f64s(l)), ops.f32s(l))
}

/// `otherwise()` if `condition` holds at run time, else `values`.
fn either<'c, const N: usize>(
    ops: &Ops<'_, 'c>,
    condition: IntValue<'c>,
    values: [V<'c>; N],
    otherwise: impl FnOnce(&Ops<'_, 'c>) -> [V<'c>; N],
) -> [V<'c>; N] {
    let here = || {
        ops.builder
            .get_insert_block()
            .expect("the builder has a position")
    };
    let before = here();
    let function = before.get_parent().expect("a block is in a function");
    let rare = ops.context.append_basic_block(function, "rare");
    let after = ops.context.append_basic_block(function, "after");
    built(ops.builder.build_conditional_branch(condition, rare, after));
    ops.builder.position_at_end(rare);
    let others = otherwise(ops);
    let rare = here();
    built(ops.builder.build_unconditional_branch(after));
    ops.builder.position_at_end(after);
    std::array::from_fn(|i| {
        let phi = built(ops.builder.build_phi(values[i].get_type(), ""));
        phi.add_incoming(&[(&values[i], before), (&others[i], rare)]);
        phi.as_basic_value().into_vector_value()
    })
}

/// `math::reduce_small` of `f32` lanes: `f64` and `i64` lanes.
fn reduce_small<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> [V<'c>; 2] {
    let l = lanes(x);
    let constant = |c| ops.f64(l, c);
    let wide = ops.fpext(x, ops.f64s(l));
    let shifted = ops.fma(
        wide,
        constant(std::f64::consts::FRAC_1_PI),
        constant(math::ROUND_F64),
    );
    let n = neg(ops, ops.fsub(shifted, constant(math::ROUND_F64)));
    let r = ops.fma(n, constant(math::PI_HI), wide);
    let r = ops.fma(n, constant(math::PI_LO), r);
    [r, ops.bits(shifted, ops.i64s(l))]
}

/// `math::reduce_large` of `f32` lanes: `f64` and `i64` lanes.
fn reduce_large<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> (V<'c>, V<'c>) {
    let l = lanes(x);
    let int = |c: i64| ops.i64(l, c);
    let bits = ops.zext(ops.bits(x, ops.i32s(l)), ops.i64s(l));
    let m = ops.or(ops.and(bits, int(0x7f_ffff)), int(0x80_0000));
    let first = ops.sub(ops.and(ops.lshr(bits, int(23)), int(0xff)), int(151));
    let (word, shift) = (
        ops.and(ops.lshr(first, int(5)), int(3)),
        ops.and(first, int(31)),
    );
    let pick = |i: usize| {
        let word_of = |w: usize| int(i64::from(math::INV_PI[w + i]));
        (1..4).fold(word_of(0), |chosen, w| {
            let is = ops.icmp(I::EQ, word, int(w as i64));
            ops.select(is, word_of(w), chosen)
        })
    };
    let window = |i: usize| {
        let pair = ops.or(ops.shl(pick(i), int(32)), pick(i + 1));
        ops.lshr(ops.shl(pair, shift), int(32))
    };
    let product = ops.add(
        ops.shl(ops.mul(m, window(0)), int(32)),
        ops.mul(m, window(1)),
    );
    let product = ops.add(product, ops.lshr(ops.mul(m, window(2)), int(32)));
    let fraction = ops.to_float(ops.shl(product, int(1)), ops.f64s(l));
    let fraction = ops.fmul(fraction, ops.f64(l, math::TWO_POW_MINUS_64));
    let nearest = ops.lshr(ops.add(product, int(1 << 62)), int(63));
    let n = ops.add(nearest, ops.lshr(bits, int(31)));
    (ops.fmul(fraction, ops.f64(l, math::PI_HI)), n)
}

/// `x` rounded to the nearest `bf16`, as `f32`: ties to even, NaN stays NaN.
pub fn round_bf16<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let int = |c: u32| ops.i32(l, c as i32);
    let bits = ops.bits(x, ops.i32s(l));
    let odd = ops.and(ops.lshr(bits, int(16)), int(1));
    let rounded = ops.add(bits, ops.add(odd, int(0x7fff)));
    let nan = ops.fcmp(F::UNO, x, x);
    let chosen = ops.select(nan, ops.or(bits, int(0x40_0000)), rounded);
    ops.bits(ops.and(chosen, int(0xffff_0000)), ops.f32s(l))
}

/// The bits of `x` as `f16` in `i16` lanes: nearest even. By integer operations,
/// for targets without conversion instructions.
pub fn f16_bits<'c>(ops: &Ops<'_, 'c>, x: V<'c>) -> V<'c> {
    let l = lanes(x);
    let int = |c: u32| ops.i32(l, c as i32);
    let bits = ops.bits(x, ops.i32s(l));
    let magnitude = ops.and(bits, int(0x7fff_ffff));
    let sign = ops.and(ops.lshr(bits, int(16)), int(0x8000));
    // Normal results: move the exponent from bias 127 to 15 and round at bit 13.
    let odd = ops.and(ops.lshr(magnitude, int(13)), int(1));
    let moved = ops.add(ops.sub(magnitude, int(112 << 23)), ops.add(odd, int(0xfff)));
    let normal = ops.lshr(moved, int(13));
    // Subnormal results: 2^-24 is the unit in the last place of 1/2.
    let half = ops.f32(l, 0.5);
    let sum = ops.fadd(ops.bits(magnitude, ops.f32s(l)), half);
    let tiny = ops.sub(ops.bits(sum, ops.i32s(l)), int(0.5f32.to_bits()));
    let finite = ops.select(ops.icmp(I::ULT, magnitude, int(113 << 23)), tiny, normal);
    let payload = ops.and(ops.lshr(magnitude, int(13)), int(0x3ff));
    let nan = ops.icmp(I::UGT, magnitude, int(0x7f80_0000));
    let special = ops.select(nan, ops.or(payload, int(0x7e00)), int(0x7c00));
    let large = ops.icmp(I::UGE, magnitude, int(143 << 23));
    let result = ops.or(ops.select(large, special, finite), sign);
    ops.trunc(result, ops.i16s(l))
}

/// The value of `f16` bits in `i16` lanes as `f32`, exactly, by integer operations.
pub fn f16_value<'c>(ops: &Ops<'_, 'c>, half: V<'c>) -> V<'c> {
    let l = lanes(half);
    let int = |c: u32| ops.i32(l, c as i32);
    let bits = ops.zext(half, ops.i32s(l));
    let magnitude = ops.shl(ops.and(bits, int(0x7fff)), int(13));
    let sign = ops.shl(ops.and(bits, int(0x8000)), int(16));
    // Multiplying by 2^112 changes the bias and normalises subnormals.
    let value = ops.fmul(
        ops.bits(magnitude, ops.f32s(l)),
        ops.f32(l, f32::from_bits(239 << 23)),
    );
    let special = ops.icmp(I::UGE, magnitude, int(0x0f80_0000));
    let finite = ops.bits(value, ops.i32s(l));
    let chosen = ops.select(special, ops.or(magnitude, int(0x7f80_0000)), finite);
    ops.bits(ops.or(chosen, sign), ops.f32s(l))
}
