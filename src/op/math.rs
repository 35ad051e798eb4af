//! The elementary functions, defined to the last bit.
//!
//! `Log2`, `Exp2` and `Sin` on `F32` mean exactly what these functions compute:
//! the reference executor calls them, and the compiled kernels emit the same
//! list of operations on vectors, so both give the same bits on every target.
//!
//! Invariants:
//! - Each function is a fixed list of IEEE-754 operations, fused multiply-adds
//!   (`mul_add`, correctly rounded), bit operations and selects; only [`sin`] has
//!   a second list for large arguments.
//!   `src/compilers/llvm_cpu/vmath.rs` repeats each list line by line; change
//!   both together.
//! - A NaN gives a NaN; its payload is not specified.
//! - No operation relies on a rounding mode other than nearest-even, and none
//!   needs subnormals to be flushed.
//!
//! The bounds below are in units in the last place of the result (for subnormal
//! results of the smallest subnormal), over all 2^32 inputs unless said
//! otherwise; the tests check them.
//!
//! | function | bound | remark |
//! |---|---|---|
//! | [`exp2`] | 1 ulp | gradual underflow, `+inf` from 128 |
//! | [`exp`] | 1.1 ulp | same; used by kernels for `exp2(x * LOG2_E)` |
//! | [`log2`] | 1 ulp | `log2(0) = -inf`, NaN below zero, exact at powers of two |
//! | [`sin`] | 0.51 ulp | NaN at infinities |
//!
//! This module does not offer `f64` versions: kernels leave those functions of
//! `F64` to the reference executor, which uses the standard library.

/// `1.5 * 2^23`: adding and subtracting it rounds an `f32` of magnitude below
/// 2^22 to the nearest integer, and the sum's low bits are that integer.
pub const ROUND_F32: f32 = 12_582_912.0;

/// `1.5 * 2^52`: the same for an `f64` of magnitude below 2^51.
pub const ROUND_F64: f64 = 6_755_399_441_055_744.0;

/// Coefficients of `(2^f - 1) / f` on `[-1/2, 1/2]`, lowest power first.
pub const EXP2_POLY: [f32; 6] = [
    6.931_472e-1,
    2.402_265e-1,
    5.550_357e-2,
    9.618_083e-3,
    1.339_086_3e-3,
    1.545_316_3e-4,
];

/// Coefficients of `(e^r - 1 - r) / r^2` on `[-ln 2 / 2, ln 2 / 2]`.
pub const EXP_POLY: [f32; 5] = [
    0.5,
    1.666_657_6e-1,
    4.166_655_6e-2,
    8.363_195e-3,
    1.392_620_4e-3,
];

/// The high part of `ln 2`: 16 significant bits, so that `n * LN2_HI` is exact.
pub const LN2_HI: f32 = 0.693_145_75;
/// `ln 2 - LN2_HI`.
pub const LN2_LO: f32 = 1.428_606_8e-6;

/// The high part of `log2 e`.
pub const LOG2_E_HI: f32 = std::f32::consts::LOG2_E;
/// `log2 e - LOG2_E_HI`.
pub const LOG2_E_LO: f32 = 1.925_963e-8;

/// The bits of `sqrt(1/2)`: mantissas are taken from `[sqrt(1/2), sqrt(2))`.
pub const SQRT_HALF_BITS: i32 = 0x3f35_04f3;

/// Coefficients of `(log2(1 + f) / f - log2 e) / f` for `1 + f` in
/// `[sqrt(1/2), sqrt(2))`.
pub const LOG2_POLY: [f32; 10] = [
    -7.213_475e-1,
    4.808_982e-1,
    -3.606_739e-1,
    2.885_598_8e-1,
    -2.404_617_2e-1,
    2.053_289_4e-1,
    -1.791_944_8e-1,
    1.704_131e-1,
    -1.667_364_2e-1,
    9.765_638e-2,
];

/// The largest magnitude that [`sin`] reduces by subtracting a multiple of pi: 2^50.
pub const SIN_SMALL: f32 = 1_125_899_906_842_624.0;

/// The first 224 bits of `1 / pi` after the binary point, in words of 32.
pub const INV_PI: [u32; 7] = [
    0x517c_c1b7,
    0x2722_0a94,
    0xfe13_abe8,
    0xfa9a_6ee0,
    0x6db1_4acc,
    0x9e21_c820,
    0xff28_b1d5,
];

/// `2^-64`.
pub const TWO_POW_MINUS_64: f64 = 5.421_010_862_427_522e-20;

/// Pi as the unevaluated sum of two `f64`.
pub const PI_HI: f64 = std::f64::consts::PI;
/// `pi - PI_HI`.
pub const PI_LO: f64 = 1.224_646_799_147_353_2e-16;

/// Coefficients of `sin(r) / r` in powers of `r^2`, for `r` in `[-pi/2, pi/2]`.
pub const SIN_POLY: [f64; 6] = [
    0.999_999_999_982_817,
    -0.166_666_666_166_175_7,
    0.008_333_330_964_838_084,
    -0.000_198_408_599_654_272_2,
    2.752_520_661_631_257e-6,
    -2.388_808_038_829_864_8e-8,
];

/// Horner's rule with fused multiply-adds: `c[0] + x * (c[1] + ...)`.
#[inline]
fn poly(coefficients: &[f32], x: f32) -> f32 {
    let (last, rest) = coefficients
        .split_last()
        .expect("a polynomial has coefficients");
    rest.iter().rev().fold(*last, |acc, &c| acc.mul_add(x, c))
}

/// `p * 2^n` for `n` in `-200..=200`, rounded once: the factor is applied in two
/// normal halves, of which the first is exact.
#[inline]
fn scale(p: f32, n: i32) -> f32 {
    let half = n >> 1;
    let rest = n.wrapping_sub(half);
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    (p * power(half)) * power(rest)
}

/// `2^x`: at most 1 ulp from the real value, `0` and `inf` beyond the range.
#[inline]
pub fn exp2(x: f32) -> f32 {
    let x = if x > 129.0 { 129.0 } else { x };
    let x = if x < -152.0 { -152.0 } else { x };
    let shifted = x + ROUND_F32;
    let n = shifted - ROUND_F32;
    let f = x - n;
    let p = poly(&EXP2_POLY, f).mul_add(f, 1.0);
    scale(
        p,
        (shifted.to_bits() as i32).wrapping_sub(ROUND_F32.to_bits() as i32),
    )
}

/// `e^x`: at most 1.1 ulp from the real value, `0` and `inf` beyond the range.
///
/// Kernels compute `Exp2(x * LOG2_E)` with this function, which is more accurate
/// than the two roundings it replaces.
#[inline]
pub fn exp(x: f32) -> f32 {
    let x = if x > 90.0 { 90.0 } else { x };
    let x = if x < -106.0 { -106.0 } else { x };
    let shifted = x.mul_add(LOG2_E_HI, ROUND_F32);
    let n = shifted - ROUND_F32;
    let r = (-n).mul_add(LN2_HI, x);
    let r = (-n).mul_add(LN2_LO, r);
    let p = poly(&EXP_POLY, r).mul_add(r * r, r) + 1.0;
    scale(
        p,
        (shifted.to_bits() as i32).wrapping_sub(ROUND_F32.to_bits() as i32),
    )
}

/// `log2 x`: at most 1 ulp from the real value; `-inf` at zero of either sign,
/// NaN below.
#[inline]
pub fn log2(x: f32) -> f32 {
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 8_388_608.0 } else { x };
    let bias = if small { -23.0 } else { 0.0 };
    let bits = scaled.to_bits() as i32;
    let exponent = bits.wrapping_sub(SQRT_HALF_BITS) >> 23;
    let f = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32) - 1.0;
    let k = exponent as f32 + bias;
    let low = f.mul_add(LOG2_E_LO, (f * f) * poly(&LOG2_POLY, f));
    let y = k + f.mul_add(LOG2_E_HI, low);
    // Also true of a NaN; infinity passes through unchanged.
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 { f32::NAN } else { y }
}

/// `x` as `r + n * pi` with `r` in `[-pi/2, pi/2]`, for magnitudes up to [`SIN_SMALL`]: `r`, and `n` in the lowest bit.
///
/// The first step of the reduction is exact: both terms are multiples of `2^-51` and their difference is below 2.
#[inline]
fn reduce_small(x: f32) -> (f64, u64) {
    let wide = f64::from(x);
    let shifted = wide.mul_add(std::f64::consts::FRAC_1_PI, ROUND_F64);
    let n = shifted - ROUND_F64;
    let r = (-n).mul_add(PI_HI, wide);
    ((-n).mul_add(PI_LO, r), shifted.to_bits())
}

/// The same for finite magnitudes from [`SIN_SMALL`] on (Payne and Hanek 1983): with `|x| = m * 2^e`, only the bits of
/// `2^e / pi` from the one worth 1 downwards can change `|x| / pi` modulo 2. 96 of them times `m`, modulo 2^96, are that
/// remainder with 95 binary places, of which the upper 63 are kept.
#[inline]
fn reduce_large(x: f32) -> (f64, u64) {
    let bits = u64::from(x.to_bits());
    let m = (bits & 0x7f_ffff) | 0x80_0000;
    // Position of the first bit in `INV_PI`: e - 1.
    let first = ((bits >> 23) & 0xff).wrapping_sub(151);
    let (word, shift) = ((first >> 5) & 3, first & 31);
    let pick = |i: usize| u64::from(INV_PI[word as usize + i]);
    let window = |i: usize| (((pick(i) << 32) | pick(i + 1)) << shift) >> 32;
    let product = ((m * window(0)) << 32)
        .wrapping_add(m * window(1))
        .wrapping_add((m * window(2)) >> 32);
    let fraction = (product << 1) as i64 as f64 * TWO_POW_MINUS_64;
    // Rounded to the nearest integer, plus one for the sign of x.
    let n = (product.wrapping_add(1 << 62) >> 63).wrapping_add(bits >> 31);
    (fraction * PI_HI, n)
}

/// `sin x`, at most 0.51 ulp from the real value; NaN at infinities.
#[inline]
pub fn sin(x: f32) -> f32 {
    let large = x.abs() > SIN_SMALL && x.abs() < f32::INFINITY;
    let (r, n) = if large {
        reduce_large(x)
    } else {
        reduce_small(x)
    };
    let z = r * r;
    let (last, rest) = SIN_POLY
        .split_last()
        .expect("a polynomial has coefficients");
    let p = rest.iter().rev().fold(*last, |acc, &c| acc.mul_add(z, c));
    let y = r * p;
    // An odd multiple of pi turns the sign.
    f64::from_bits(y.to_bits() ^ (n << 63)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance of `got` from `want` in units in the last place of `want`.
    fn ulps(got: f32, want: f64) -> f64 {
        if want.is_nan() || got.is_nan() {
            return if want.is_nan() && got.is_nan() {
                0.0
            } else {
                f64::INFINITY
            };
        }
        let rounded = want as f32;
        if rounded == got {
            // Also equal infinities; the sub-ulp part below matters little here.
            return if got.is_infinite() {
                0.0
            } else {
                sub_ulp(got, want)
            };
        }
        if rounded.is_infinite() || got.is_infinite() {
            return f64::INFINITY;
        }
        sub_ulp(got, want)
    }

    fn sub_ulp(got: f32, want: f64) -> f64 {
        let exponent = (((want.abs().to_bits() >> 52) as i32) - 1023).clamp(-126, 127);
        (f64::from(got) - want).abs() * f64::from(23 - exponent).exp2()
    }

    /// The worst error of `f` against `want` over the bit patterns
    /// `0, step, 2 * step, ...`.
    fn worst(step: u32, f: impl Fn(f32) -> f32, want: impl Fn(f64) -> f64) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        let mut bits = 0u32;
        loop {
            let x = f32::from_bits(bits);
            let error = ulps(f(x), want(f64::from(x)));
            if error > worst.0 {
                worst = (error, x);
            }
            let Some(next) = bits.checked_add(step) else {
                return worst;
            };
            bits = next;
        }
    }

    /// Each function with its accurate counterpart and its bound.
    fn check(step: u32) {
        type Row = (&'static str, fn(f32) -> f32, fn(f64) -> f64, f64);
        let table: [Row; 4] = [
            ("exp2", exp2, f64::exp2, 1.0),
            ("exp", exp, f64::exp, 1.1),
            ("log2", log2, f64::log2, 1.0),
            ("sin", sin, f64::sin, 0.51),
        ];
        for (name, f, want, bound) in table {
            let (error, at) = worst(step, f, want);
            println!("{name}: {error:.4} ulp at {at:e}");
            assert!(error <= bound, "{name}({at:e}) is {error} ulp off");
        }
    }

    #[test]
    fn bounds_hold_on_a_stride_of_all_inputs() {
        check(4093);
    }

    #[test]
    #[ignore = "all 2^32 inputs of four functions take minutes"]
    fn bounds_hold_on_all_inputs() {
        check(1);
    }

    #[test]
    fn special_values() {
        assert_eq!(exp2(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp2(f32::NEG_INFINITY).to_bits(), 0);
        assert!(exp2(f32::NAN).is_nan() && log2(f32::NAN).is_nan() && sin(f32::NAN).is_nan());
        assert_eq!(exp2(-149.0), f32::from_bits(1));
        assert_eq!(exp2(-150.0), 0.0);
        assert_eq!(exp2(128.0), f32::INFINITY);
        for n in -126..128 {
            assert_eq!(exp2(n as f32), 2f32.powi(n));
            assert_eq!(log2(2f32.powi(n)), n as f32);
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(log2(f32::from_bits(1)), -149.0);
        assert_eq!(log2(0.0), f32::NEG_INFINITY);
        assert_eq!(log2(-0.0), f32::NEG_INFINITY);
        assert!(log2(-1.0).is_nan() && log2(f32::NEG_INFINITY).is_nan());
        assert_eq!(log2(f32::INFINITY), f32::INFINITY);
        assert_eq!(sin(-0.0).to_bits(), (-0.0f32).to_bits());
        assert!(sin(f32::INFINITY).is_nan() && sin(f32::NEG_INFINITY).is_nan());
        // One of the floats nearest to a multiple of pi / 2: cancellation is worst there.
        let near = 16_367_173.0 * 2f32.powi(72);
        assert!(ulps(sin(near), f64::from(near).sin()) <= 0.51);
        assert_eq!(sin(f32::from_bits(0x7f7f_ffff)), -0.521_876_5);
        assert_eq!(sin(-f32::from_bits(0x7f7f_ffff)), 0.521_876_5);
    }
}
