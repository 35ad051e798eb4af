//! One and two bits for a number, several numbers in a byte, the first one in the lowest bits.
//!
//! `Q1_0` has 128 numbers: a set bit is `d`, another `-d`, with the mean magnitude as `d` (the scale of least squared error
//! for signs: Rastegari et al. 2016, section 3.1). Zero, of either sign, counts as positive.
//!
//! `Q2_0` has 64 numbers `d (q - 1)`, with the largest magnitude as `d`: the encoder uses three of the four codes, decoders
//! take all.

use super::{half_at, inverse, put_half, round};

const SIGNS: usize = 128;
const SIGN_BYTES: usize = 2 + SIGNS / 8;
const PAIRS: usize = 64;
const PAIR_BYTES: usize = 2 + PAIRS / 4;

pub(super) fn decode_q1_0(source: &[u8], target: &mut [f32]) {
    let blocks = source.chunks_exact(SIGN_BYTES);
    for (block, x) in blocks.zip(target.chunks_exact_mut(SIGNS)) {
        let d = half_at(block, 0);
        for (i, x) in x.iter_mut().enumerate() {
            let bit = block[2 + i / 8] >> (i % 8) & 1;
            *x = if bit == 1 { d } else { -d };
        }
    }
}

pub(super) fn encode_q1_0(source: &[f32], target: &mut [u8]) {
    let blocks = target.chunks_exact_mut(SIGN_BYTES);
    for (x, block) in source.chunks_exact(SIGNS).zip(blocks) {
        let sum = x.iter().fold(0.0, |sum, x| sum + x.abs());
        put_half(block, 0, sum / SIGNS as f32);
        for (eight, byte) in x.chunks_exact(8).zip(&mut block[2..]) {
            let bit = |(i, x): (usize, &f32)| u8::from(*x >= 0.0) << i;
            *byte = eight.iter().enumerate().map(bit).sum();
        }
    }
}

pub(super) fn decode_q2_0(source: &[u8], target: &mut [f32]) {
    let blocks = source.chunks_exact(PAIR_BYTES);
    for (block, x) in blocks.zip(target.chunks_exact_mut(PAIRS)) {
        let d = half_at(block, 0);
        for (i, x) in x.iter_mut().enumerate() {
            let q = block[2 + i / 4] >> (2 * (i % 4)) & 3;
            *x = (f32::from(q) - 1.0) * d;
        }
    }
}

pub(super) fn encode_q2_0(source: &[f32], target: &mut [u8]) {
    let blocks = target.chunks_exact_mut(PAIR_BYTES);
    for (x, block) in source.chunks_exact(PAIRS).zip(blocks) {
        let d = x.iter().fold(0.0f32, |d, x| d.max(x.abs()));
        let id = inverse(d);
        put_half(block, 0, d);
        let code = |x: f32| (round(x * id) + 1).clamp(0, 3) as u8;
        for (four, byte) in x.chunks_exact(4).zip(&mut block[2..]) {
            let pair = |(i, x): (usize, &f32)| code(*x) << (2 * i);
            *byte = four.iter().enumerate().map(pair).sum();
        }
    }
}
