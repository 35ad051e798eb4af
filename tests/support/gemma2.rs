//! The small random Gemma 2 of `tests/data`, recorded with its weights.

use std::path::Path;

use brain_blitz::formats::{Checkpoint, Gemma2Config};
use brain_blitz::nn::models::gemma2::Gemma2;
use brain_blitz::nn::{CacheConfig, CacheType, Module};
use brain_blitz::prelude::*;

/// Records the model for a context of 64 tokens, with caches of this type.
///
/// # Panics
/// If its files cannot be read.
pub fn tiny(cx: &mut Graph, ty: CacheType) -> (Gemma2, Gemma2Config) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gemma2/tiny");
    let config = Gemma2Config::open(&folder).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let cache = CacheConfig { capacity: 64, ty };
    let model = Gemma2::new(cx, &config, cache, &|_| DType::F32);
    for (name, parameter) in model.parameters().iter() {
        let bytes = checkpoint
            .get(name)
            .unwrap()
            .convert_to(DType::F32)
            .unwrap();
        parameter.set(bytes.cast::<f32>().unwrap());
    }
    (model, config)
}
