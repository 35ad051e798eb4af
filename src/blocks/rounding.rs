//! Numbers → whole numbers, by the rules of ggml's encoders.

/// The largest number below a half: the sum of it and a number, cut, is the number rounded.
const BELOW_HALF: f32 = 0.499_999_97;

/// The integer part of `x` as an `i32`; like x86's conversion, the smallest `i32` for what does not fit. Such `x` come from
/// blocks whose scale is too small to have an inverse, and is 0 in `f16`.
pub(super) fn truncate(x: f32) -> i32 {
    const LIMIT: f32 = 2_147_483_648.0;
    if x.abs() < LIMIT { x as i32 } else { i32::MIN }
}

/// `x` rounded to a whole number, halves away from zero, as [`f32::round`] does by a call for each number: the sum with
/// the largest number below a half is cut.
pub(super) fn round(x: f32) -> i32 {
    truncate(x + BELOW_HALF.copysign(x))
}

/// As [`round`], for `x` below 2^22: all of it is vector code, which a conversion that looks for what does not fit is not.
pub(super) fn round_small(x: f32) -> i32 {
    /// A sum with it has no place for a fraction, and the whole number in its lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    let sum = x + BELOW_HALF.copysign(x);
    let nearest = (sum + SHIFT) - SHIFT;
    let past = if nearest.abs() > sum.abs() {
        1f32.copysign(x)
    } else {
        0.0
    };
    let bits = (nearest - past + SHIFT).to_bits();
    bits.wrapping_sub(SHIFT.to_bits()) as i32
}

#[test]
fn rounding_without_a_call_is_that_of_the_language() {
    let corners = [0.5, 1.5, 0.499_999_97, 8_388_607.5, 8_388_609.0, 3e9];
    let many = (0..=u32::MAX).step_by(4099).map(f32::from_bits);
    for x in corners.into_iter().chain(corners.map(|x| -x)).chain(many) {
        assert_eq!(round(x), truncate(x.round()), "{x:e}");
        if x.abs() < 4_194_304.0 {
            assert_eq!(round_small(x), round(x), "{x:e}");
        }
    }
}
