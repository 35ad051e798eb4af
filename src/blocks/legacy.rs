//! Blocks of 32 numbers with one scale, or a scale and a minimum.
//!
//! | type | bytes | a number is |
//! |---|---|---|
//! | `Q8_0` | d, 32 x i8 | `d q` |
//! | `Q4_0` | d, 16 x 2 nibbles | `d (q - 8)` |
//! | `Q4_1` | d, m, 16 x 2 nibbles | `d q + m` |
//! | `Q5_0` | d, fifth bits, 16 x 2 nibbles | `d (q - 16)` |
//! | `Q5_1` | d, m, fifth bits, 16 x 2 nibbles | `d q + m` |
//! | `IQ4_NL` | d, 16 x 2 nibbles | `d` times the q-th of 16 levels |
//!
//! The byte `i` of the nibbles has number `i` in its low half and number `i + 16` in its high half. A symmetric scale has
//! the sign that makes the number of largest magnitude the lowest code, which has no positive counterpart.

use super::{half_at, inverse, put_half, round_small, truncate};

/// Numbers in a block.
const LEN: usize = 32;
const HALF: usize = LEN / 2;

/// The levels of `IQ4_NL`: denser around zero, as weights are.
const LEVELS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// The level of a code of `IQ4_NL`.
pub(super) fn level(code: u8) -> i8 {
    LEVELS[usize::from(code)]
}

/// Calls `decode` with every block of `BYTES` bytes and its numbers.
fn each<const BYTES: usize>(
    source: &[u8],
    target: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, _) = source.as_chunks::<BYTES>();
    let (rows, _) = target.as_chunks_mut::<LEN>();
    blocks.iter().zip(rows).for_each(|(b, x)| decode(b, x));
}

fn each_back<const BYTES: usize>(
    source: &[f32],
    target: &mut [u8],
    encode: impl Fn(&[f32; LEN], &mut [u8; BYTES]),
) {
    let (rows, _) = source.as_chunks::<LEN>();
    let (blocks, _) = target.as_chunks_mut::<BYTES>();
    rows.iter().zip(blocks).for_each(|(x, b)| encode(x, b));
}

/// The first number of largest magnitude.
fn largest(x: &[f32; LEN]) -> f32 {
    let larger = |best: f32, &x: &f32| if best.abs() < x.abs() { x } else { best };
    x.iter().fold(0.0, larger)
}

/// As [`largest`], without its sign: halves against each other, which is vector code.
fn largest_magnitude(x: &[f32; LEN]) -> f32 {
    fn halved<const N: usize>(x: &[f32]) -> [f32; N] {
        std::array::from_fn(|i| if x[i] < x[i + N] { x[i + N] } else { x[i] })
    }
    let eight: [f32; 8] = halved(&halved::<HALF>(&x.map(f32::abs)));
    let [largest] = halved(&halved::<2>(&halved::<4>(&eight)));
    largest
}

fn range(x: &[f32; LEN]) -> (f32, f32) {
    let low = x.iter().fold(f32::MAX, |m, &x| if x < m { x } else { m });
    let high = x.iter().fold(f32::MIN, |m, &x| if x > m { x } else { m });
    (low, high)
}

/// The nibbles of number `i` and number `i + 16`.
fn nibbles(byte: u8) -> (u8, u8) {
    (byte & 15, byte >> 4)
}

/// The codes of nibbles whose fifth bits are in `high`, one bit for each number.
pub(super) fn with_fifth(nibbles: &[u8], high: [u8; 4]) -> [u8; LEN] {
    let high = u32::from_le_bytes(high);
    let fifth = |i: usize| ((high >> i & 1) as u8) << 4;
    std::array::from_fn(|i| match i {
        0..HALF => nibbles[i] & 15 | fifth(i),
        _ => nibbles[i - HALF] >> 4 | fifth(i),
    })
}

/// Stores codes of four bits.
fn put_nibbles(codes: &[u8; LEN], target: &mut [u8]) {
    for (i, byte) in target.iter_mut().enumerate() {
        *byte = codes[i] & 15 | codes[i + HALF] << 4;
    }
}

/// Stores the fifth bits of codes.
fn put_fifth(codes: &[u8; LEN], target: &mut [u8]) {
    let bit = |(i, code): (usize, &u8)| u32::from(code >> 4 & 1) << i;
    let bits: u32 = codes.iter().enumerate().map(bit).sum();
    target.copy_from_slice(&bits.to_le_bytes());
}

/// Scale, and codes `x / d + 2^(bits - 1)` rounded, of a symmetric format.
fn symmetric(x: &[f32; LEN], bits: u32) -> (f32, [u8; LEN]) {
    let middle = (1 << (bits - 1)) as f32;
    let d = largest(x) / -middle;
    let id = inverse(d);
    let top = (1 << bits) - 1;
    (
        d,
        x.map(|x| (truncate(x * id + (middle + 0.5)) as u8).min(top)),
    )
}

/// Scale, minimum, and codes `(x - m) / d` rounded, of an asymmetric format.
fn asymmetric(x: &[f32; LEN], bits: u32) -> (f32, f32, [u8; LEN]) {
    let top = (1u8 << bits) - 1;
    let (low, high) = range(x);
    let d = (high - low) / f32::from(top);
    let id = inverse(d);
    let code = |x: f32| (truncate((x - low) * id + 0.5) as u8).min(top);
    (d, low, x.map(code))
}

pub(super) fn decode_q8_0(source: &[u8], target: &mut [f32]) {
    each::<34>(source, target, |block, x| {
        let d = half_at(block, 0);
        for (x, q) in x.iter_mut().zip(&block[2..]) {
            *x = f32::from(*q as i8) * d;
        }
    });
}

pub(super) fn encode_q8_0(source: &[f32], target: &mut [u8]) {
    each_back::<34>(source, target, |x, block| {
        let d = largest_magnitude(x) / 127.0;
        let id = inverse(d);
        put_half(block, 0, d);
        // A scale without an inverse is 0 in `f16`, and its numbers are products of 0.
        let id = if id.is_finite() { id } else { 0.0 };
        for (x, q) in x.iter().zip(&mut block[2..]) {
            *q = round_small(x * id) as u8;
        }
    });
}

pub(super) fn decode_q4_0(source: &[u8], target: &mut [f32]) {
    each::<18>(source, target, |block, x| {
        let d = half_at(block, 0);
        for (i, &byte) in block[2..].iter().enumerate() {
            let (low, high) = nibbles(byte);
            x[i] = (f32::from(low) - 8.0) * d;
            x[i + HALF] = (f32::from(high) - 8.0) * d;
        }
    });
}

pub(super) fn encode_q4_0(source: &[f32], target: &mut [u8]) {
    each_back::<18>(source, target, |x, block| {
        let (d, codes) = symmetric(x, 4);
        put_q4_0(d, &codes, block);
    });
}

pub(super) fn decode_q4_1(source: &[u8], target: &mut [f32]) {
    each::<20>(source, target, |block, x| {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        for (i, &byte) in block[4..].iter().enumerate() {
            let (low, high) = nibbles(byte);
            x[i] = f32::from(low) * d + m;
            x[i + HALF] = f32::from(high) * d + m;
        }
    });
}

pub(super) fn encode_q4_1(source: &[f32], target: &mut [u8]) {
    each_back::<20>(source, target, |x, block| {
        let (d, m, codes) = asymmetric(x, 4);
        put_q4_1([d, m], &codes, block);
    });
}

pub(super) fn decode_q5_0(source: &[u8], target: &mut [f32]) {
    each::<22>(source, target, |block, x| {
        let d = half_at(block, 0);
        let codes = with_fifth(&block[6..], [block[2], block[3], block[4], block[5]]);
        for (x, q) in x.iter_mut().zip(codes) {
            *x = (f32::from(q) - 16.0) * d;
        }
    });
}

pub(super) fn encode_q5_0(source: &[f32], target: &mut [u8]) {
    each_back::<22>(source, target, |x, block| {
        let (d, codes) = symmetric(x, 5);
        put_q5_0(d, &codes, block);
    });
}

pub(super) fn decode_q5_1(source: &[u8], target: &mut [f32]) {
    each::<24>(source, target, |block, x| {
        let (d, m) = (half_at(block, 0), half_at(block, 2));
        let codes = with_fifth(&block[8..], [block[4], block[5], block[6], block[7]]);
        for (x, q) in x.iter_mut().zip(codes) {
            *x = f32::from(q) * d + m;
        }
    });
}

pub(super) fn encode_q5_1(source: &[f32], target: &mut [u8]) {
    each_back::<24>(source, target, |x, block| {
        let (d, m, codes) = asymmetric(x, 5);
        put_q5_1([d, m], &codes, block);
    });
}

pub(super) fn decode_iq4_nl(source: &[u8], target: &mut [f32]) {
    each::<18>(source, target, |block, x| {
        let d = half_at(block, 0);
        let level = |q: u8| f32::from(level(q)) * d;
        for (i, &byte) in block[2..].iter().enumerate() {
            let (low, high) = nibbles(byte);
            (x[i], x[i + HALF]) = (level(low), level(high));
        }
    });
}

/// Codes as blocks have them, plus `add`.
pub(super) fn bytes_of(codes: &[i32], add: i32) -> [u8; LEN] {
    std::array::from_fn(|i| (codes[i] + add) as u8)
}

/// Stores a block of `Q8_0`.
pub(super) fn put_q8_0(d: f32, codes: &[u8; LEN], block: &mut [u8]) {
    put_half(block, 0, d);
    block[2..].copy_from_slice(codes);
}

/// Stores a block of `Q4_0`.
pub(super) fn put_q4_0(d: f32, codes: &[u8; LEN], block: &mut [u8]) {
    put_half(block, 0, d);
    put_nibbles(codes, &mut block[2..]);
}

/// Stores a block of `Q5_0`.
pub(super) fn put_q5_0(d: f32, codes: &[u8; LEN], block: &mut [u8]) {
    put_half(block, 0, d);
    put_fifth(codes, &mut block[2..6]);
    put_nibbles(codes, &mut block[6..]);
}

/// Stores a block of `Q4_1` with this scale and minimum.
pub(super) fn put_q4_1([d, m]: [f32; 2], codes: &[u8; LEN], block: &mut [u8]) {
    put_half(block, 0, d);
    put_half(block, 2, m);
    put_nibbles(codes, &mut block[4..]);
}

/// Stores a block of `Q5_1` with this scale and minimum.
pub(super) fn put_q5_1([d, m]: [f32; 2], codes: &[u8; LEN], block: &mut [u8]) {
    put_half(block, 0, d);
    put_half(block, 2, m);
    put_fifth(codes, &mut block[4..8]);
    put_nibbles(codes, &mut block[8..]);
}
