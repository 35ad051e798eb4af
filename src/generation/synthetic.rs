//! Models of known shapes with random weights: speed does not depend on what the numbers are.
//!
//! The numbers are made where they stay, in memory of large pages, by several threads, and are the same for the same
//! seed on any number of them. They are uniform with the standard deviation that models start training from, so that
//! nothing overflows on the way; what such a model says is noise.
//!
//! Deliberately absent: files, a tokenizer.

use memmap2::MmapMut;

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::Activation;
use crate::nn::models::LayerType;
use crate::nn::models::gemma2::Config;
use crate::op::random;
use crate::storage::SharedBytes;

/// Names of the shapes that [`config`] knows.
pub const SHAPES: [&str; 2] = ["gemma2-2b", "gemma2-tiny"];

/// Standard deviation of the weights.
const DEVIATION: f32 = 0.02;

/// Bytes that one stream of random numbers fills.
const CHUNK: usize = 1 << 20;

/// Different numbers of 16 bits that weights take, a power of two.
const LEVELS: usize = 1 << 12;

/// The configuration of a shape, if there is one of this name: `gemma2-2b` (Gemma Team 2024, table 1), or
/// `gemma2-tiny`, which has the same parts in small and sizes that differ from each other.
pub fn config(shape: &str) -> Option<Config> {
    let (vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim, window) =
        match shape {
            "gemma2-2b" => (256_000, 2304, 9216, 26, 8, 4, 256, 4096),
            "gemma2-tiny" => (640, 96, 224, 2, 4, 2, 32, 24),
            _ => return None,
        };
    let mut config = Config {
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers: 0,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        hidden_activation: Activation::GeluTanh,
        max_position_embeddings: 8192,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        attn_logit_softcapping: Some(50.0),
        final_logit_softcapping: Some(30.0),
        query_pre_attn_scalar: head_dim as f64,
        sliding_window: window,
        layer_types: Vec::new(),
        bos_token_id: Some(2),
        eos_token_ids: vec![1],
        pad_token_id: Some(0),
        dtype: None,
    };
    set_layers(&mut config, layers);
    Some(config)
}

/// Gives a configuration another number of layers, which are sliding and global in turn.
pub fn set_layers(config: &mut Config, n: usize) {
    config.num_hidden_layers = n;
    let kinds = [LayerType::Sliding, LayerType::Full];
    config.layer_types = (0..n).map(|layer| kinds[layer % 2]).collect();
}

/// Memory with `n` random weights in the format `dtype`, which is `F32`, `BF16` or `F16`.
///
/// # Errors
/// If there is no such memory, or the format is another one.
pub fn weights(n: usize, dtype: DType, seed: u64, n_threads: usize) -> Result<SharedBytes> {
    let largest = DEVIATION * 3f32.sqrt();
    let level = |i: usize| (2 * i + 1) as f32 / LEVELS as f32 * largest - largest;
    let table: Vec<u16> = match dtype {
        DType::F32 => Vec::new(),
        DType::BF16 => (0..LEVELS)
            .map(|i| half::bf16::from_f32(level(i)).to_bits())
            .collect(),
        DType::F16 => (0..LEVELS)
            .map(|i| half::f16::from_f32(level(i)).to_bits())
            .collect(),
        _ => return Err(Error::msg(format!("weights are not stored as {dtype}"))),
    };
    let len = n.checked_mul(dtype.size()).filter(|&len| len > 0);
    let len = len.ok_or_else(|| Error::msg("no memory holds weights of this size"))?;
    let failed = |e: std::io::Error| Error::msg(format!("{len} bytes for weights: {e}"));
    let mut memory = MmapMut::map_anon(len).map_err(failed)?;
    // Without large pages it is slower and as right.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    let fill = |chunk: usize, out: &mut [u8]| {
        let [a, b, ..] = random::block(seed, 0, chunk as u64);
        let mut stream = Stream(u64::from(a) << 32 | u64::from(b) | 1);
        match dtype {
            DType::F32 => stream.fill_f32(bytemuck::cast_slice_mut(out), largest),
            _ => stream.fill_16(bytemuck::cast_slice_mut(out), &table),
        }
    };
    let n_chunks = len.div_ceil(CHUNK);
    let share = n_chunks.div_ceil(n_threads.max(1)) * CHUNK;
    std::thread::scope(|scope| {
        for (part, out) in memory.chunks_mut(share).enumerate() {
            scope.spawn(move || {
                for (i, out) in out.chunks_mut(CHUNK).enumerate() {
                    fill(part * (share / CHUNK) + i, out);
                }
            });
        }
    });
    Ok(std::sync::Arc::new(
        memory.make_read_only().map_err(failed)?,
    ))
}

/// The generator xorshift64* (Vigna 2016): fast, and good enough for numbers that nothing is concluded from.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn fill_f32(&mut self, out: &mut [f32], largest: f32) {
        for x in out {
            *x = (2.0 * random::unit((self.next() >> 32) as u32) - 1.0) * largest;
        }
    }

    fn fill_16(&mut self, out: &mut [u16], table: &[u16]) {
        for four in out.chunks_mut(4) {
            let bits = self.next();
            for (i, x) in four.iter_mut().enumerate() {
                *x = table[(bits >> (16 * i)) as usize % LEVELS];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Array;

    fn numbers(n: usize, dtype: DType, seed: u64, n_threads: usize) -> Vec<f32> {
        let bytes = weights(n, dtype, seed, n_threads).unwrap();
        Array::from_bytes(vec![n], dtype, bytes.bytes()).to_f32()
    }

    #[test]
    fn weights_depend_on_the_seed_and_not_on_threads() {
        let n = CHUNK + 77;
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let one = numbers(n, dtype, 1, 1);
            assert_eq!(one, numbers(n, dtype, 1, 3), "{dtype}");
            assert_ne!(one, numbers(n, dtype, 2, 1), "{dtype}");
            let half = CHUNK / dtype.size();
            assert_ne!(one[..77], one[half..half + 77], "{dtype}: chunks differ");
        }
    }

    #[test]
    fn weights_spread_as_they_should() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let n = 100_000;
            let x: Vec<f64> = numbers(n, dtype, 5, 2).into_iter().map(f64::from).collect();
            let mean = x.iter().sum::<f64>() / n as f64;
            let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            assert!(mean.abs() < 3e-4, "{dtype}: mean {mean}");
            assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.01, "{dtype}");
        }
    }

    #[test]
    fn other_formats_and_no_weights_are_errors() {
        assert!(weights(4, DType::I32, 0, 1).is_err());
        assert!(weights(0, DType::F32, 0, 1).is_err());
        assert!(weights(usize::MAX, DType::F32, 0, 1).is_err());
    }

    #[test]
    fn the_shapes_are_those_of_the_paper() {
        let config = config("gemma2-2b").unwrap();
        assert_eq!(config.parameter_count(), Some(2_614_341_888));
        assert!(SHAPES.iter().all(|name| super::config(name).is_some()));
        assert!(super::config("gemma2").is_none());
    }
}
