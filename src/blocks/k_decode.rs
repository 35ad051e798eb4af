//! Decoders of the super-blocks: 256 numbers in sub-blocks of 16 or 32, whose scales are small integers times an `f16`.
//!
//! | type | bytes | a number is | sub-blocks |
//! |---|---|---|---|
//! | `Q2_K` | 16 x (scale, min) of 4 bits, 64 x 4 codes, d, dmin | `d s q - dmin m` | 16 of 16 |
//! | `Q3_K` | 32 of high bits, 64 x 4 low codes, 12 of scales, d | `d (s - 32) (q - 4)` | 16 of 16 |
//! | `Q4_K` | d, dmin, 12 of scales and mins, 128 x 2 codes | `d s q - dmin m` | 8 of 32 |
//! | `Q5_K` | d, dmin, 12 of scales and mins, 32 of high bits, 128 x 2 codes | `d s q - dmin m` | 8 of 32 |
//! | `Q6_K` | 128 x 2 low codes, 64 x 4 high codes, 16 x i8 of scales, d | `d s (q - 32)` | 16 of 16 |
//!
//! In all of them 32 numbers that follow each other are the same bits of 32 bytes that follow each other; the loops
//! below go over these groups of 32.

use super::half_at;

/// Numbers in a block.
pub(super) const LEN: usize = 256;
/// Numbers whose codes are the same bits of neighbouring bytes.
const GROUP: usize = 32;

/// Calls `group` with every block of `bytes` bytes, the number of a group in it, and the group's numbers.
fn each_group(
    bytes: usize,
    source: &[u8],
    target: &mut [f32],
    group: impl Fn(&[u8], usize, &mut [f32]),
) {
    let blocks = source.chunks_exact(bytes);
    for (block, x) in blocks.zip(target.chunks_exact_mut(LEN)) {
        for (g, x) in x.chunks_exact_mut(GROUP).enumerate() {
            group(block, g, x);
        }
    }
}

/// Scale and minimum of sub-block `j`, six bits each, of the twelve bytes of `Q4_K` and `Q5_K`: the first four of both in
/// the low bits of eight bytes; the others have their low bits in the last four bytes, their high bits above the first.
pub(super) fn scale_and_min(packed: &[u8], j: usize) -> (u8, u8) {
    match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (
            packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
            packed[j + 4] >> 4 | packed[j] >> 6 << 4,
        ),
    }
}

/// The scale of sub-block `j`, six bits, of the twelve bytes of `Q3_K`: four low bits in eight bytes, two high ones in the
/// last four.
pub(super) fn six_bits(packed: &[u8], j: usize) -> i8 {
    let low = packed[j % 8] >> (j / 8 * 4) & 15;
    let high = packed[8 + j % 4] >> (j / 4 * 2) & 3;
    i8::from_le_bytes([low | high << 4])
}

pub(super) fn q2_k(source: &[u8], target: &mut [f32]) {
    each_group(84, source, target, |block, g, x| {
        let (d, dmin) = (half_at(block, 80), half_at(block, 82));
        let codes = &block[16 + g / 4 * GROUP..][..GROUP];
        let shift = g % 4 * 2;
        for (i, x) in x.iter_mut().enumerate() {
            let scale = block[2 * g + i / 16];
            let (s, m) = (d * f32::from(scale & 15), dmin * f32::from(scale >> 4));
            *x = s * f32::from(codes[i] >> shift & 3) - m;
        }
    });
}

pub(super) fn q3_k(source: &[u8], target: &mut [f32]) {
    each_group(110, source, target, |block, g, x| {
        let d = half_at(block, 108);
        let scale = |j| d * f32::from(six_bits(&block[96..108], j) - 32);
        let scales = [scale(2 * g), scale(2 * g + 1)];
        let codes = &block[32 + g / 4 * GROUP..][..GROUP];
        let shift = g % 4 * 2;
        for (i, x) in x.iter_mut().enumerate() {
            let q = codes[i] >> shift & 3 | (block[i] >> g & 1) << 2;
            *x = scales[i / 16] * (f32::from(q) - 4.0);
        }
    });
}

pub(super) fn q4_k(source: &[u8], target: &mut [f32]) {
    each_group(144, source, target, |block, g, x| {
        let (s, m) = scale_and_min(&block[4..16], g);
        let (s, m) = (
            half_at(block, 0) * f32::from(s),
            half_at(block, 2) * f32::from(m),
        );
        let codes = &block[16 + g / 2 * GROUP..][..GROUP];
        let shift = g % 2 * 4;
        for (x, code) in x.iter_mut().zip(codes) {
            *x = s * f32::from(code >> shift & 15) - m;
        }
    });
}

pub(super) fn q5_k(source: &[u8], target: &mut [f32]) {
    each_group(176, source, target, |block, g, x| {
        let (s, m) = scale_and_min(&block[4..16], g);
        let (s, m) = (
            half_at(block, 0) * f32::from(s),
            half_at(block, 2) * f32::from(m),
        );
        let high = &block[16..48];
        let codes = &block[48 + g / 2 * GROUP..][..GROUP];
        let shift = g % 2 * 4;
        for (i, x) in x.iter_mut().enumerate() {
            let q = codes[i] >> shift & 15 | (high[i] >> g & 1) << 4;
            *x = s * f32::from(q) - m;
        }
    });
}

pub(super) fn q6_k(source: &[u8], target: &mut [f32]) {
    each_group(210, source, target, |block, g, x| {
        let d = half_at(block, 208);
        let scale = |j: usize| d * f32::from(block[192 + j] as i8);
        let scales = [scale(2 * g), scale(2 * g + 1)];
        // Of each 128 numbers, groups 0 and 2 share their bytes of low codes, as do 1 and 3.
        let low = &block[g / 4 * 64 + g % 2 * GROUP..][..GROUP];
        let low_shift = g % 4 / 2 * 4;
        let high = &block[128 + g / 4 * GROUP..][..GROUP];
        let high_shift = g % 4 * 2;
        for (i, x) in x.iter_mut().enumerate() {
            let q = low[i] >> low_shift & 15 | (high[i] >> high_shift & 3) << 4;
            *x = scales[i / 16] * (f32::from(q) - 32.0);
        }
    });
}
