//! A byte-fallback BPE tokenizer of Gemma's kind, read or trained with the crate `tokenizers`.
//!
//! Spaces become `▁`, which stays at the head of a piece; lines are pieces of their own; bytes that no piece covers are
//! tokens `<0x00>` to `<0xFF>`.

use std::path::Path;

use brain_blitz::formats::Tokenizer;
use brain_blitz::{Error, Result};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, TokenizerImpl};
use tokenizers::{decoders, normalizers, processors};

use crate::Args;

const SPECIAL: [&str; 4] = ["<pad>", "<eos>", "<bos>", "<unk>"];

/// The tokenizer of `--tokenizer`, or of an earlier start in `--out`, or a new one in `--out`.
pub fn open_or_train(args: &Args, text: &str) -> Result<Tokenizer> {
    if let Some(folder) = &args.tokenizer {
        std::fs::create_dir_all(&args.out).map_err(io(&args.out))?;
        let (from, to) = (
            folder.join("tokenizer.json"),
            args.out.join("tokenizer.json"),
        );
        if from != to {
            let bytes = std::fs::read(&from).map_err(io(&from))?;
            brain_blitz::atomic::write_bytes(&to, &bytes)?;
        }
    }
    let file = args.out.join("tokenizer.json");
    if !file.exists() {
        eprintln!("training a tokenizer of {} entries ...", args.vocab);
        std::fs::create_dir_all(&args.out).map_err(io(&args.out))?;
        let json = trained(args.vocab, text).map_err(|e| Error::msg(format!("tokenizer: {e}")))?;
        brain_blitz::atomic::write_bytes(&file, json.as_bytes())?;
    }
    let mut tokenizer = Tokenizer::open(&args.out)?;
    tokenizer.set_bos(tokenizer.token_to_id("<bos>"));
    Ok(tokenizer)
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    |source| Error::Io {
        path: path.to_path_buf(),
        source,
    }
}

/// The tokenizer as JSON.
fn trained(vocab: usize, text: &str) -> tokenizers::Result<String> {
    let model = BPE::builder()
        .byte_fallback(true)
        .unk_token("<unk>".into())
        .fuse_unk(true)
        .build()?;
    let split =
        |pattern: &str, behavior| Split::new(SplitPattern::String(pattern.into()), behavior, false);
    let pieces = Sequence::new(vec![
        split("\n", SplitDelimiterBehavior::Isolated)?.into(),
        split("▁", SplitDelimiterBehavior::MergedWithNext)?.into(),
    ]);
    let text_again = decoders::sequence::Sequence::new(vec![
        normalizers::Replace::new("▁", " ")?.into(),
        decoders::byte_fallback::ByteFallback::new().into(),
        decoders::fuse::Fuse::new().into(),
    ]);
    let mut tokenizer: TokenizerImpl<
        BPE,
        normalizers::Replace,
        Sequence,
        processors::template::TemplateProcessing,
        decoders::sequence::Sequence,
    > = TokenizerImpl::new(model);
    tokenizer
        .with_normalizer(Some(normalizers::Replace::new(" ", "▁")?))
        .with_pre_tokenizer(Some(pieces))
        .with_decoder(Some(text_again));
    let names = SPECIAL.iter().map(ToString::to_string);
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let fixed = names.chain(bytes).map(|name| AddedToken::from(name, true));
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab)
        .min_frequency(3)
        .limit_alphabet(120)
        .special_tokens(fixed.collect())
        .show_progress(false)
        .build();
    tokenizer.train(&mut trainer, text.split_inclusive('\n'))?;
    Ok(finished(serde_json::from_str(&tokenizer.to_string(false)?)?).to_string())
}

/// Bytes are ordinary entries, only four are special; a text begins with `<bos>`.
fn finished(mut json: Value) -> Value {
    if let Some(added) = json["added_tokens"].as_array_mut() {
        added.retain(|token| SPECIAL.iter().any(|name| token["content"] == *name));
    }
    let bos = json!({"SpecialToken": {"id": "<bos>", "type_id": 0}});
    let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [bos, sequence("A")],
        "pair": [bos, sequence("A"), bos, sequence("B")],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    });
    json
}
