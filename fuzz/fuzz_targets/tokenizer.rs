//! Any bytes as a `tokenizer.json`, a zero byte, and a text: the tokenizer gives ids and texts, or errors.

#![no_main]

use std::path::Path;

use brain_blitz::formats::Tokenizer;
use libfuzzer_sys::fuzz_target;

/// Texts that are encoded by every tokenizer: words, other scripts, white space, control tokens.
const TEXTS: [&str; 3] = [
    "To be, or not to be",
    "né \u{1F600}\u{301} 漢字\r\n\t  ",
    "<s><bos>a</s>",
];

/// The longest text that is encoded: some tokenizers of strangers take quadratic time.
const LONGEST: usize = 256;

// A panic that the tokenizer catches is an error; libFuzzer's own hook would end the run at it.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |data: &[u8]| {
    let (json, text) = match data.iter().position(|&byte| byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    let Ok(tokenizer) = Tokenizer::from_bytes(Path::new("tokenizer.json"), json) else {
        return;
    };
    let text = String::from_utf8_lossy(&text[..text.len().min(LONGEST)]);
    for text in TEXTS.iter().copied().chain([&*text]) {
        let Ok(ids) = tokenizer.encode(text, tokenizer.bos().is_some()) else {
            continue;
        };
        let is_inside = |id: u32| (id as usize) < tokenizer.vocab_size();
        assert!(ids.iter().all(|&id| tokenizer.id_to_token(id).is_none() || is_inside(id)));
        let _ = tokenizer.decode(&ids);
        let mut stream = tokenizer.decode_stream();
        for &id in &ids {
            let _ = stream.push(id);
        }
        let _ = stream.finish();
    }
});
