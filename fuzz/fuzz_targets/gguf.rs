//! Any bytes as a GGUF file: reading it, and everything that is made of it, gives a value or an error.

#![no_main]

use std::path::Path;

use brain_blitz::dtype::DType;
use brain_blitz::formats::gguf::{Gguf, ModelWeights};
use brain_blitz::formats::{Bytes, ModelConfig, Tokenizer, Weights};
use libfuzzer_sys::fuzz_target;

// A panic that the tokenizer catches is an error; libFuzzer's own hook would end the run at it.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |data: &[u8]| {
    let Ok(file) = Gguf::from_bytes(Path::new("fuzz.gguf"), Bytes::copy_of(data)) else {
        return;
    };
    for info in file.tensors() {
        let tensor = file.get(&info.name).expect("a listed tensor is there");
        assert_eq!(tensor.bytes.len(), info.size());
        assert_eq!(tensor.dequantize().is_ok(), tensor.ty.can_dequantize());
    }
    let _ = ModelConfig::from_gguf(&file);
    if let Ok(Some(tokenizer)) = Tokenizer::from_gguf(&file) {
        let ids = tokenizer.encode("To be, or", false).unwrap_or_default();
        let _ = tokenizer.decode(&ids);
    }
    if let Ok(weights) = ModelWeights::new(file, DType::BF16) {
        for name in weights.names() {
            let _ = weights.get(name);
        }
    }
});
