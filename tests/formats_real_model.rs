//! The checkpoint that comes with the repository, read as a whole: weights, configuration and tokenizer agree.

use std::path::{Path, PathBuf};

use brain_blitz::dtype::DType;
use brain_blitz::formats::{Checkpoint, Gemma2Config, StoredType, Tokenizer};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/gemma2-shakespeare")
}

#[test]
fn weights_and_configuration_agree() {
    let checkpoint = Checkpoint::open(folder()).unwrap();
    let config = Gemma2Config::open(folder()).unwrap();
    let tensors: Vec<_> = checkpoint
        .names()
        .map(|name| checkpoint.get(name).unwrap())
        .collect();
    let elements = tensors.iter().map(|tensor| tensor.elements()).sum();
    assert_eq!(config.parameter_count(), Some(elements));
    assert_eq!(config.dtype, Some(DType::BF16));
    let embedding = checkpoint.get("model.embed_tokens.weight").unwrap();
    assert_eq!(embedding.shape, [config.vocab_size, config.hidden_size]);
    assert_eq!(embedding.dtype, StoredType::BF16);
    let wide = embedding.convert_to(DType::F32).unwrap();
    assert!(
        wide.cast::<f32>()
            .unwrap()
            .iter()
            .all(|weight| weight.is_finite())
    );
}

#[test]
fn tokenizer_and_configuration_agree() {
    let tokenizer = Tokenizer::open(folder()).unwrap();
    let config = Gemma2Config::open(folder()).unwrap();
    assert_eq!(tokenizer.vocab_size(), config.vocab_size);
    assert_eq!(tokenizer.bos(), config.bos_token_id);
    assert!(
        config
            .eos_token_ids
            .iter()
            .all(|&id| tokenizer.is_special(id))
    );
    let text = "HAMLET:\nTo be, or not to be: that is the question. 你好 😀";
    let ids = tokenizer.encode(text, true).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    let mut stream = tokenizer.decode_stream();
    let pieces: String = ids
        .iter()
        .filter_map(|&id| stream.push(id).unwrap())
        .collect();
    assert_eq!(pieces, text);
}
