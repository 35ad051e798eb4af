//! Numbers that are stored one by one.

use half::{bf16, f16};

/// Applies `convert` to the words of `N` bytes in `source`.
fn decode<const N: usize>(source: &[u8], target: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    let (words, _) = source.as_chunks::<N>();
    for (word, x) in words.iter().zip(target) {
        *x = convert(*word);
    }
}

fn encode<const N: usize>(source: &[f32], target: &mut [u8], convert: impl Fn(f32) -> [u8; N]) {
    let (words, _) = target.as_chunks_mut::<N>();
    for (x, word) in source.iter().zip(words) {
        *word = convert(*x);
    }
}

pub(super) fn decode_f32(source: &[u8], target: &mut [f32]) {
    decode(source, target, f32::from_le_bytes);
}

pub(super) fn encode_f32(source: &[f32], target: &mut [u8]) {
    encode(source, target, f32::to_le_bytes);
}

pub(super) fn decode_f16(source: &[u8], target: &mut [f32]) {
    decode(source, target, |word| f16::from_le_bytes(word).to_f32());
}

pub(super) fn encode_f16(source: &[f32], target: &mut [u8]) {
    encode(source, target, |x| f16::from_f32(x).to_le_bytes());
}

pub(super) fn decode_bf16(source: &[u8], target: &mut [f32]) {
    decode(source, target, |word| bf16::from_le_bytes(word).to_f32());
}

pub(super) fn encode_bf16(source: &[f32], target: &mut [u8]) {
    encode(source, target, |x| bf16::from_f32(x).to_le_bytes());
}
