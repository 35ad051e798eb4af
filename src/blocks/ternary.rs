//! 256 numbers -d, 0 or d, with the largest magnitude as `d`: for weights that were trained to be ternary.
//!
//! `TQ2_0` stores `q + 1` in two bits: byte `i` of a group of 32 has the numbers `i`, `i + 32`, `i + 64`, `i + 96`.
//!
//! `TQ1_0` stores five such digits in a byte as a fraction of 3^5: `ceil(digits * 256 / 243)`, from which a multiplication
//! by a power of three brings each digit to the top. The first 160 numbers lie in 32 bytes, the next 80 in 16 and the last
//! 16, four to a byte, in 4.

use super::{half_at, inverse, put_half, round};

const LEN: usize = 256;
const TQ1_BYTES: usize = 54;
const TQ2_BYTES: usize = 66;

/// How `TQ1_0` lays out a block: the first byte, how many bytes, the first number, how many digits in a byte.
const GROUPS: [(usize, usize, usize, usize); 3] =
    [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Scale and digits 0, 1 or 2 of a block.
fn digits(x: &[f32], digits: &mut [u8; LEN]) -> f32 {
    let d = x.iter().fold(0.0f32, |d, x| d.max(x.abs()));
    let id = inverse(d);
    for (x, digit) in x.iter().zip(digits) {
        // The wrapped byte of what does not fit is 0, the middle digit.
        *digit = (round(x * id) as u8).wrapping_add(1);
    }
    d
}

/// Digit `n` of a block of `TQ1_0`.
pub(super) fn digit(block: &[u8], n: usize) -> u8 {
    let group = GROUPS.iter().rfind(|(_, _, first, _)| *first <= n);
    let (byte, n_bytes, first, _) = group.expect("the first group has number 0");
    let shifted = block[byte + (n - first) % n_bytes].wrapping_mul(POWERS[(n - first) / n_bytes]);
    ((u16::from(shifted) * 3) >> 8).to_le_bytes()[0]
}

pub(super) fn decode_tq1_0(source: &[u8], target: &mut [f32]) {
    let blocks = source.chunks_exact(TQ1_BYTES);
    for (block, x) in blocks.zip(target.chunks_exact_mut(LEN)) {
        let d = half_at(block, 52);
        for (i, x) in x.iter_mut().enumerate() {
            *x = (f32::from(digit(block, i)) - 1.0) * d;
        }
    }
}

pub(super) fn encode_tq1_0(source: &[f32], target: &mut [u8]) {
    let mut q = [0; LEN];
    let blocks = target.chunks_exact_mut(TQ1_BYTES);
    for (x, block) in source.chunks_exact(LEN).zip(blocks) {
        put_half(block, 52, digits(x, &mut q));
        for (byte, n_bytes, first, n_digits) in GROUPS {
            for i in 0..n_bytes {
                let digit = |n: usize| {
                    if n < n_digits {
                        q[first + n * n_bytes + i]
                    } else {
                        0
                    }
                };
                let number = (0..5).fold(0, |number, n| number * 3 + u16::from(digit(n)));
                block[byte + i] = (number * 256).div_ceil(243) as u8;
            }
        }
    }
}

pub(super) fn decode_tq2_0(source: &[u8], target: &mut [f32]) {
    let blocks = source.chunks_exact(TQ2_BYTES);
    for (block, x) in blocks.zip(target.chunks_exact_mut(LEN)) {
        let d = half_at(block, 64);
        for (i, x) in x.iter_mut().enumerate() {
            let byte = block[i / 128 * 32 + i % 32];
            let q = byte >> (i % 128 / 32 * 2) & 3;
            *x = (f32::from(q) - 1.0) * d;
        }
    }
}

pub(super) fn encode_tq2_0(source: &[f32], target: &mut [u8]) {
    let mut q = [0; LEN];
    let blocks = target.chunks_exact_mut(TQ2_BYTES);
    for (x, block) in source.chunks_exact(LEN).zip(blocks) {
        put_half(block, 64, digits(x, &mut q));
        for (i, byte) in block[..64].iter_mut().enumerate() {
            let first = i / 32 * 128 + i % 32;
            *byte = (0..4).map(|n| q[first + 32 * n] << (2 * n)).sum();
        }
    }
}
