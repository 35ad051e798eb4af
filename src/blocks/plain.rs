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
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if std::arch::is_x86_feature_detected!("f16c") && std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: this machine has the instructions.
        return unsafe { decode_eights(source, target) };
    }
    decode(source, target, |word| f16::from_le_bytes(word).to_f32());
}

/// [`decode_f16`] by the instruction for eight numbers. `half` has it too, with a call and a look for the instruction for every
/// eight.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[target_feature(enable = "avx,f16c")]
fn decode_eights(source: &[u8], target: &mut [f32]) {
    let (sources, rest) = source.as_chunks::<16>();
    let (targets, rest_of_target) = target.as_chunks_mut::<8>();
    for (source, target) in sources.iter().zip(targets) {
        *target = bytemuck::cast(std::arch::x86_64::_mm256_cvtph_ps(bytemuck::cast(*source)));
    }
    decode(rest, rest_of_target, |word| {
        f16::from_le_bytes(word).to_f32()
    });
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

#[test]
fn every_f16_is_decoded_as_half_decodes_it() {
    // A number before them, so that they lie where eight numbers need not.
    let bits: Vec<u16> = std::iter::once(0).chain(0..=u16::MAX).collect();
    let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    for n in [1, 7, 8, 100, bits.len()] {
        let mut numbers = vec![0.0; n - 1];
        decode_f16(&bytes[2..2 * n], &mut numbers);
        for (x, bits) in numbers.iter().zip(&bits[1..]) {
            let expected = f16::from_bits(*bits).to_f32_const();
            let same = x.to_bits() == expected.to_bits() || x.is_nan() && expected.is_nan();
            assert!(same, "{bits:x} is {expected}, not {x}");
        }
    }
}
