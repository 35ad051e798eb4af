//! Block formats: ggml's bytes and bits, and the errors that the formats have.
//!
//! The golden numbers and their origin: `tests/data/gguf/make_blocks.py`.

use brain_blitz::blocks::BlockType;
use brain_blitz::formats::Checkpoint;
use std::collections::BTreeMap;

use crate::data;

const ENCODED: [BlockType; 11] = [
    BlockType::Q8_0,
    BlockType::Q4_0,
    BlockType::Q4_1,
    BlockType::Q5_0,
    BlockType::Q5_1,
    BlockType::Q1_0,
    BlockType::Q2_0,
    BlockType::Q4_K,
    BlockType::Q6_K,
    BlockType::TQ1_0,
    BlockType::TQ2_0,
];

const ONLY_DECODED: [BlockType; 4] = [
    BlockType::Q2_K,
    BlockType::Q3_K,
    BlockType::Q5_K,
    BlockType::IQ4_NL,
];

fn golden() -> Checkpoint {
    Checkpoint::open(data("blocks.safetensors")).unwrap()
}

fn floats(golden: &Checkpoint, name: &str) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&golden.get(name).unwrap().bytes)
}

#[test]
fn every_type_has_the_number_and_the_size_that_ggml_gives_it() {
    let text = std::fs::read(data("types.json")).unwrap();
    let theirs: BTreeMap<String, (u32, usize, usize)> = serde_json::from_slice(&text).unwrap();
    let ours = BlockType::all().map(|ty| {
        assert_eq!(format!("{ty:?}"), ty.name(), "the table's order");
        assert_eq!(BlockType::from_id(ty.id()), Some(ty));
        assert_eq!(BlockType::from_name(&ty.name().to_lowercase()), Some(ty));
        let row = (ty.id(), ty.block_len(), ty.block_bytes());
        (ty.name().to_owned(), row)
    });
    assert_eq!(ours.collect::<BTreeMap<_, _>>(), theirs);
}

#[test]
fn encoded_blocks_are_those_of_ggml() {
    let golden = golden();
    let x = floats(&golden, "numbers");
    for ty in ENCODED {
        let expected = golden.get(&format!("{ty}.encoded")).unwrap().bytes;
        let mut found = vec![0xa5; ty.bytes_of(x.len()).unwrap()];
        ty.quantize(&x, &mut found).unwrap();
        let size = ty.block_bytes();
        for (at, (ours, theirs)) in found.chunks(size).zip(expected.chunks(size)).enumerate() {
            let first = at * ty.block_len();
            assert_eq!(ours, theirs, "{ty}: block {at}, row {}", first / 256);
        }
    }
}

#[test]
fn decoded_numbers_are_those_of_ggml() {
    let golden = golden();
    for ty in ENCODED.into_iter().chain(ONLY_DECODED) {
        let blocks = golden.get(&format!("{ty}.blocks")).unwrap().bytes;
        let expected = floats(&golden, &format!("{ty}.values"));
        let mut found = vec![f32::NAN; expected.len()];
        ty.dequantize(&blocks, &mut found).unwrap();
        for (at, (ours, theirs)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(ours.to_bits(), theirs.to_bits(), "{ty}: number {at}");
        }
    }
}

/// Normally distributed numbers (Box and Muller 1958) from a counter (SplitMix64, Steele et al. 2014).
fn normal(n: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut unit = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut draw = || {
        let radius = (-2.0 * (1.0 - unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * unit()).cos()) as f32
    };
    (0..n).map(|_| draw()).collect()
}

#[test]
fn errors_on_normal_numbers_are_those_of_the_formats() {
    let x = normal(1 << 19);
    // Root mean square errors of ggml's reference functions on N(0, 1), and what they may differ by.
    let cases = [
        (BlockType::Q8_0, 0.00535, 0.05),
        (BlockType::Q6_K, 0.01774, 0.02),
        (BlockType::Q4_K, 0.0713, 0.02),
        (BlockType::Q4_1, 0.0783, 0.02),
        (BlockType::Q4_0, 0.0860, 0.02),
        (BlockType::TQ2_0, 0.808, 0.02),
        (BlockType::TQ1_0, 0.808, 0.02),
        (BlockType::Q1_0, 0.6009, 0.02),
    ];
    for (ty, expected, tolerance) in cases {
        let mut blocks = vec![0; ty.bytes_of(x.len()).unwrap()];
        ty.quantize(&x, &mut blocks).unwrap();
        let mut back = vec![0.0; x.len()];
        ty.dequantize(&blocks, &mut back).unwrap();
        let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
        let error = x.iter().zip(&back).map(square).sum::<f64>() / x.len() as f64;
        let relative = error.sqrt() / expected - 1.0;
        assert!(relative.abs() < tolerance, "{ty}: {}", error.sqrt());
    }
}

#[test]
fn plain_numbers_are_rounded_to_nearest_even() {
    let x = [
        1.0,
        -0.0,
        1.0 + 1.0 / 2048.0,
        1.0 + 3.0 / 2048.0,
        1.0 + 1.0 / 256.0,
        6e-8,
    ];
    let round = |ty: BlockType| {
        let mut bytes = vec![0; ty.bytes_of(x.len()).unwrap()];
        ty.quantize(&x, &mut bytes).unwrap();
        let mut back = x;
        ty.dequantize(&bytes, &mut back).unwrap();
        back.map(f32::to_bits)
    };
    assert_eq!(round(BlockType::F32), x.map(f32::to_bits));
    let half = [
        1.0,
        -0.0,
        1.0,
        1.0 + 4.0 / 2048.0,
        1.0 + 1.0 / 256.0,
        f32::exp2(-24.0),
    ];
    assert_eq!(round(BlockType::F16), half.map(f32::to_bits));
    let brain = [
        1.0,
        -0.0,
        1.0,
        1.0,
        1.0,
        half::bf16::from_f32(6e-8).to_f32(),
    ];
    assert_eq!(round(BlockType::BF16), brain.map(f32::to_bits));
}

#[test]
fn what_a_format_cannot_hold_is_an_error() {
    let encode = |ty: BlockType, x: f32| {
        let mut row = vec![0.5; 256];
        row[200] = x;
        let mut blocks = vec![0; ty.bytes_of(256).unwrap()];
        ty.quantize(&row, &mut blocks).map_err(|e| e.to_string())
    };
    let plain = [BlockType::F32, BlockType::F16, BlockType::BF16];
    for ty in ENCODED.into_iter().chain(plain) {
        assert_eq!(encode(ty, 0.25), Ok(()));
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let message = encode(ty, x).unwrap_err();
            assert_eq!(
                message,
                format!("element 200 is {x}, which {ty} cannot hold")
            );
        }
    }
    for ty in ENCODED {
        let message = encode(ty, 3e38).unwrap_err();
        let value = 3e38f32;
        assert_eq!(
            message,
            format!("element 200 is {value}, which {ty} cannot hold")
        );
        let message = encode(ty, 2.9e8).unwrap_err();
        let first = 200 / ty.block_len() * ty.block_len();
        assert_eq!(
            message,
            format!("numbers from element {first} on are too large for {ty}")
        );
    }
    assert!(encode(BlockType::F16, 65504.0).is_ok());
    assert!(encode(BlockType::F16, 65520.0).is_err());
    assert!(encode(BlockType::BF16, f32::MAX).is_err());
    assert!(encode(BlockType::F32, f32::MAX).is_ok());
    let message = encode(BlockType::Q2_K, 0.0).unwrap_err();
    assert_eq!(message, "there is no encoder for Q2_K");
    let message = BlockType::IQ1_S.dequantize(&[0; 50], &mut [0.0; 256]);
    assert_eq!(
        message.unwrap_err().to_string(),
        "there is no decoder for IQ1_S"
    );
}

#[test]
fn sizes_are_whole_blocks() {
    assert_eq!(BlockType::Q4_K.bytes_of(512), Some(288));
    assert_eq!(BlockType::Q4_K.bytes_of(0), Some(0));
    assert_eq!(BlockType::Q4_K.bytes_of(128), None);
    assert_eq!(BlockType::F64.bytes_of(usize::MAX / 2), None);
    assert_eq!(BlockType::Q1_0.bits_per_weight(), 1.125);
    assert!("q9_0".parse::<BlockType>().is_err());
}

#[test]
#[should_panic(expected = "Q8_0: 32 numbers are not 33 bytes")]
fn lengths_that_do_not_belong_together_panic() {
    let _ = BlockType::Q8_0.dequantize(&[0; 33], &mut [0.0; 32]);
}
