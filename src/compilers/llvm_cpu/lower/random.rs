//! Random numbers on vectors: [`crate::op::random`] for one element per lane.
//!
//! Element `i` is word `i % 4` of block `i / 4`, so each lane computes its whole block
//! and keeps a quarter of it. That costs about what a logarithm does, and any lane of
//! any vector width has the bits of the definition.

use inkwell::IntPredicate as I;

use super::vector::{Ops, V, lanes};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// The upper and the lower half of the product of `i32` lanes and a constant.
fn multiply<'c>(ops: &Ops<'_, 'c>, a: V<'c>, by: u32) -> (V<'c>, V<'c>) {
    let l = lanes(a);
    let wide = ops.zext(a, ops.i64s(l));
    let product = ops.mul(wide, ops.i64(l, i64::from(by)));
    let high = ops.lshr(product, ops.i64(l, 32));
    (
        ops.trunc(high, ops.i32s(l)),
        ops.trunc(product, ops.i32s(l)),
    )
}

/// Uniform numbers in `[0, 1)`: elements `index` (`i32` lanes) of stream `seed` at
/// `step` (`i64` lanes).
pub fn random<'c>(ops: &Ops<'_, 'c>, seed: u64, step: V<'c>, index: V<'c>) -> V<'c> {
    let l = lanes(index);
    let int = |c: u32| ops.i32(l, c as i32);
    let upper = ops.lshr(step, ops.i64(l, 32));
    let mut words = [
        ops.lshr(index, int(2)),
        int(0),
        ops.trunc(step, ops.i32s(l)),
        ops.trunc(upper, ops.i32s(l)),
    ];
    for round in 0..ROUNDS {
        let key = |half: u32| {
            let start = (seed >> (32 * half)) as u32;
            int(start.wrapping_add(WEYL[half as usize].wrapping_mul(round)))
        };
        let (high0, low0) = multiply(ops, words[0], MULTIPLIERS[0]);
        let (high1, low1) = multiply(ops, words[2], MULTIPLIERS[1]);
        words = [
            ops.xor(ops.xor(high1, words[1]), key(0)),
            low1,
            ops.xor(ops.xor(high0, words[3]), key(1)),
            low0,
        ];
    }
    let number = ops.and(index, int(3));
    let word = (0..3).rev().fold(words[3], |word, n| {
        let this = ops.icmp(I::EQ, number, int(n));
        ops.select(this, words[n as usize], word)
    });
    let upper = ops.to_float(ops.lshr(word, int(8)), ops.f32s(l));
    ops.fmul(upper, ops.f32(l, 1.0 / 16_777_216.0))
}
