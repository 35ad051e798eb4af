//! Blocks taken apart: whole numbers, and what they are multiplied by.
//!
//! Every number of a block is `s (code - offset) + m`. `s` and `m` are an `f16` of the block times, in
//! super-blocks, a small integer of the number's group of 32 or half of one ([`factors_of`]); where the type subtracts its
//! minima, they come out negative. For kernels, which compute with whole numbers, and know the offsets.

use super::{BlockType, k_decode, legacy, ternary};

/// Numbers in a group.
const GROUP: usize = 32;

/// The codes of group `g` of a block, offset not subtracted: unsigned, for levels of a table 128 more than these, for
/// signs 0 and 2.
///
/// # Panics
/// If there is no such group, or the type's codes are not of this kind or need no taking apart (`Q4_0`, `Q4_1`, `Q8_0`).
pub(crate) fn codes_of(ty: BlockType, block: &[u8], g: usize) -> [u8; GROUP] {
    use BlockType as T;
    match ty {
        T::Q5_0 => legacy::with_fifth(&block[6..22], four(block, 2)),
        T::Q5_1 => legacy::with_fifth(&block[8..24], four(block, 4)),
        T::IQ4_NL => nibbles(&block[2..18]).map(|q| legacy::level(q).to_le_bytes()[0] ^ 0x80),
        T::Q2_K => pairs(&block[16 + g / 4 * GROUP..], g % 4),
        T::Q3_K => with_bit(
            pairs(&block[32 + g / 4 * GROUP..], g % 4),
            &block[..32],
            g,
            2,
        ),
        T::Q4_K => halves(&block[16 + g / 2 * GROUP..], g % 2),
        T::Q5_K => with_bit(
            halves(&block[48 + g / 2 * GROUP..], g % 2),
            &block[16..48],
            g,
            4,
        ),
        T::Q6_K => {
            let low = halves(&block[g / 4 * 64 + g % 2 * GROUP..], g % 4 / 2);
            let high = pairs(&block[128 + g / 4 * GROUP..], g % 4);
            std::array::from_fn(|i| low[i] | high[i] << 4)
        }
        T::Q1_0 => std::array::from_fn(|i| (block[2 + 4 * g + i / 8] >> (i % 8) & 1) << 1),
        T::Q2_0 => std::array::from_fn(|i| block[2 + 8 * g + i / 4] >> (2 * (i % 4)) & 3),
        T::TQ2_0 => pairs(&block[g / 4 * GROUP..], g % 4),
        T::TQ1_0 => std::array::from_fn(|i| ternary::digit(block, g * GROUP + i)),
        other => unreachable!("{other} has no codes"),
    }
}

/// The integer factors of `s` and of `m` of group `g` of a super-block, for each of its halves; 0 where there are none.
pub(crate) fn factors_of(ty: BlockType, block: &[u8], g: usize) -> ([i8; 2], [i8; 2]) {
    use BlockType as T;
    let signed = |byte: u8| i8::from_le_bytes([byte]);
    match ty {
        T::Q2_K => {
            let both = [block[2 * g], block[2 * g + 1]];
            (both.map(|x| signed(x & 15)), both.map(|x| signed(x >> 4)))
        }
        T::Q3_K => {
            let factor = |j| k_decode::six_bits(&block[96..108], j) - 32;
            ([factor(2 * g), factor(2 * g + 1)], [0; 2])
        }
        T::Q4_K | T::Q5_K => {
            let (s, m) = k_decode::scale_and_min(&block[4..16], g);
            ([signed(s); 2], [signed(m); 2])
        }
        T::Q6_K => (
            [192 + 2 * g, 193 + 2 * g].map(|at| signed(block[at])),
            [0; 2],
        ),
        _ => ([0; 2], [0; 2]),
    }
}

/// Which of the `f16` scales of a type's blocks is one of minima that are subtracted.
pub(crate) fn subtracted_scale(ty: BlockType) -> Option<usize> {
    matches!(ty, BlockType::Q2_K | BlockType::Q4_K | BlockType::Q5_K).then_some(1)
}

fn four(block: &[u8], at: usize) -> [u8; 4] {
    std::array::from_fn(|i| block[at + i])
}

/// The low halves of 16 bytes, then the high ones.
fn nibbles(bytes: &[u8]) -> [u8; GROUP] {
    let mut out = [0; GROUP];
    let (low, high) = out.split_at_mut(GROUP / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    out
}

/// The low or the high halves of 32 bytes.
fn halves(bytes: &[u8], which: usize) -> [u8; GROUP] {
    std::array::from_fn(|i| bytes[i] >> (4 * which) & 15)
}

/// Two bits of each of 32 bytes.
fn pairs(bytes: &[u8], which: usize) -> [u8; GROUP] {
    std::array::from_fn(|i| bytes[i] >> (2 * which) & 3)
}

/// Codes with bit `which` of 32 bytes above `low` bits of their own.
fn with_bit(codes: [u8; GROUP], bytes: &[u8], which: usize, low: usize) -> [u8; GROUP] {
    std::array::from_fn(|i| codes[i] | (bytes[i] >> which & 1) << low)
}
