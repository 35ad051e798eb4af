//! The tokenizer wrapper: encoding, decoding, and decoding as a stream.

use std::path::Path;

use brain_blitz::formats::Tokenizer;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tempfile::tempdir;

const BOS: u32 = 2;
const EOS: u32 = 1;
/// The token of byte 0; the other bytes follow.
const BYTES: u32 = 4;

/// A byte-fallback BPE as Gemma has it: spaces become "▁", unknown characters their bytes.
fn description() -> Value {
    let mut vocab = Map::new();
    for (id, token) in ["<pad>", "<eos>", "<bos>", "<unk>"].iter().enumerate() {
        vocab.insert((*token).to_owned(), id.into());
    }
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let letters = ["▁", "h", "i", "e", "\u{FFFD}", "hi", "▁hi"].map(str::to_owned);
    for token in bytes.chain(letters) {
        vocab.insert(token, vocab.len().into());
    }
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 },
        "padding": null,
        "added_tokens": [special(0, "<pad>"), special(EOS, "<eos>"), special(BOS, "<bos>"), special(3, "<unk>")],
        "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": [["h", "i"], ["▁", "hi"]],
        },
    })
}

fn parse(text: &str) -> brain_blitz::error::Result<Tokenizer> {
    Tokenizer::from_bytes(Path::new("tokenizer.json"), text.as_bytes())
}

fn tokenizer() -> Tokenizer {
    parse(&description().to_string()).unwrap()
}

fn byte_tokens(bytes: &[u8]) -> Vec<u32> {
    bytes.iter().map(|&byte| BYTES + u32::from(byte)).collect()
}

/// The pieces of the stream, with what `finish` gives as the last one.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<Option<String>> {
    let mut stream = tokenizer.decode_stream();
    let mut pieces: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(Some(stream.finish().unwrap()));
    pieces
}

fn some(piece: &str) -> Option<String> {
    Some(piece.to_owned())
}

#[test]
fn texts_round_trip() {
    let tokenizer = tokenizer();
    let hi = tokenizer.token_to_id("▁hi").unwrap();
    assert_eq!(tokenizer.encode(" hi hi", false).unwrap(), [hi, hi]);
    assert_eq!(tokenizer.encode(" hi", true).unwrap(), [BOS, hi]);
    assert_eq!(tokenizer.encode("", true).unwrap(), [BOS]);
    for text in ["hi", " hi  hi ", "été 你好 😀\n", ""] {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    assert_eq!(tokenizer.vocab_size(), 4 + 256 + 7);
    assert_eq!(tokenizer.id_to_token(hi).as_deref(), Some("▁hi"));
    assert!(tokenizer.is_special(EOS) && !tokenizer.is_special(hi));
}

#[test]
fn saved_truncation_does_not_apply() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.encode("hihihihi", false).unwrap().len(), 4);
}

#[test]
fn ids_without_a_token_are_errors() {
    let tokenizer = tokenizer();
    let expected = "tokenizer.json: tokenizer: id 9999 has no token";
    assert_eq!(
        tokenizer.decode(&[BOS, 9999]).unwrap_err().to_string(),
        expected
    );
    let mut stream = tokenizer.decode_stream();
    assert_eq!(stream.push(9999).unwrap_err().to_string(), expected);
    assert_eq!(
        stream.push(tokenizer.token_to_id("h").unwrap()).unwrap(),
        some("h")
    );
}

/// A list of pieces may have one twice: it is counted once, but its second id comes out of texts.
#[test]
fn the_vocabulary_reaches_to_the_last_id() {
    let pieces = ["to", "<unk>", " ", "be", "to"];
    let scores = (0u8..).map(|i| -f64::from(i));
    let vocab: Vec<_> = pieces.into_iter().zip(scores).collect();
    let description = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": { "type": "Unigram", "unk_id": 1, "vocab": vocab, "byte_fallback": false },
    });
    let tokenizer = parse(&description.to_string()).unwrap();
    let ids = tokenizer.encode("to be", false).unwrap();
    assert_eq!(ids, [4, 2, 3]);
    assert_eq!(tokenizer.vocab_size(), 5);
}

#[test]
fn a_missing_begin_token_is_an_error() {
    let mut tokenizer = tokenizer();
    assert_eq!(tokenizer.bos(), Some(BOS));
    tokenizer.set_bos(None);
    let message = tokenizer.encode("hi", true).unwrap_err().to_string();
    assert_eq!(
        message,
        "tokenizer.json: tokenizer: there is no begin-of-text token"
    );
    assert!(tokenizer.encode("hi", false).is_ok());
}

#[test]
fn files_that_are_no_tokenizer() {
    let folder = tempdir().unwrap();
    let message = Tokenizer::open(folder.path()).unwrap_err().to_string();
    let advice =
        "tokenizer.json: file: does not exist; copy the tokenizer.json that the checkpoint";
    assert!(message.contains(advice), "{message}");
    let file = folder.path().join("tokenizer.json");
    let cases = [
        ("", "json at byte 0: EOF"),
        ("{\"model\": ", "json at byte 9: EOF"),
        ("\u{1f600}", "json at byte 0: expected value"),
        ("{}", "tokenizer: "),
        ("[1]", "tokenizer: "),
        ("{\"model\": {\"type\": \"BPE\"}}", "tokenizer: "),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, text).unwrap();
        let message = Tokenizer::open(folder.path()).unwrap_err().to_string();
        let expected = format!("tokenizer.json: {expected}");
        assert!(message.contains(&expected), "{message}");
    }
    std::fs::write(&file, description().to_string()).unwrap();
    assert!(Tokenizer::open(folder.path()).is_ok());
}

#[test]
fn a_stream_waits_for_whole_characters() {
    let tokenizer = tokenizer();
    let pieces = stream(&tokenizer, &byte_tokens("é😀".as_bytes()));
    let expected = [None, some("é"), None, None, None, some("😀"), some("")];
    assert_eq!(pieces, expected);
}

#[test]
fn control_tokens_are_silent() {
    let tokenizer = tokenizer();
    let hi = tokenizer.token_to_id("▁hi").unwrap();
    let pieces = stream(&tokenizer, &[BOS, hi, EOS, hi]);
    assert_eq!(pieces, [None, some(" hi"), None, some(" hi"), some("")]);
}

#[test]
fn invalid_bytes_do_not_stop_a_stream() {
    let tokenizer = tokenizer();
    let h = tokenizer.token_to_id("h").unwrap();
    let pieces = stream(&tokenizer, &byte_tokens(&[0xff; 4]));
    let last = some("\u{FFFD}\u{FFFD}\u{FFFD}");
    assert_eq!(pieces, [None, None, None, some("\u{FFFD}"), last]);
    // Characters after invalid bytes are whole as soon as the invalid bytes are given up.
    let pieces = stream(&tokenizer, &byte_tokens(b"\xff\xe4\xbd\xa0"));
    assert_eq!(pieces, [None, None, None, some("\u{FFFD}你"), some("")]);
    let pieces = stream(&tokenizer, &byte_tokens(b"\xff\xf0\x9f\x98\x80"));
    let expected = [None, None, None, some("\u{FFFD}"), some("😀"), some("")];
    assert_eq!(pieces, expected);
    // A character, half of another, then a letter: the first is not spoiled by what follows.
    let ids = [byte_tokens("你".as_bytes()), byte_tokens(&[0xe5]), vec![h]].concat();
    let pieces = stream(&tokenizer, &ids);
    assert_eq!(
        pieces,
        [None, None, some("你"), None, some("\u{FFFD}h"), some("")]
    );
}

#[test]
fn an_unfinished_character_comes_out_at_the_end() {
    let tokenizer = tokenizer();
    let pieces = stream(&tokenizer, &byte_tokens(&[0xe4, 0xbd]));
    assert_eq!(pieces, [None, None, some("\u{FFFD}\u{FFFD}")]);
    let literal = tokenizer.token_to_id("\u{FFFD}").unwrap();
    assert_eq!(stream(&tokenizer, &[literal]), [None, some("\u{FFFD}")]);
}

#[test]
fn a_byte_level_token_may_end_inside_a_character() {
    let mut description = description();
    // The byte-level alphabet: 'ä' 0xe4, '½' 0xbd, 'ł' 0xa0, 'å' 0xe5, '¥' 0xa5, 'x' itself.
    description["model"]["vocab"] = json!({ "<bos>": 2, "xä": 10, "½łå": 11, "¥½": 12, "x": 13 });
    description["model"]["merges"] = json!([]);
    description["model"]["unk_token"] = Value::Null;
    description["added_tokens"] = json!([]);
    description["decoder"] = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
    });
    let tokenizer = parse(&description.to_string()).unwrap();
    assert_eq!(tokenizer.decode(&[10, 11, 12, 13]).unwrap(), "x你好x");
    let pieces = stream(&tokenizer, &[10, 11, 12, 13]);
    assert_eq!(
        pieces,
        [some("x"), some("你"), some("好"), some("x"), some("")]
    );
}

#[test]
fn a_decoder_that_strips_the_first_space_keeps_the_others() {
    let mut description = description();
    description["decoder"] = json!({
        "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true,
    });
    let tokenizer = parse(&description.to_string()).unwrap();
    let hi = tokenizer.token_to_id("▁hi").unwrap();
    assert_eq!(tokenizer.decode(&[hi, hi, hi]).unwrap(), "hi hi hi");
    let pieces = stream(&tokenizer, &[hi, hi, hi]);
    assert_eq!(pieces, [some("hi"), some(" hi"), some(" hi"), some("")]);
}

proptest! {
    #[test]
    fn a_stream_adds_up_to_the_text(text in "[hi é你😀]{0,40}") {
        let tokenizer = tokenizer();
        let ids = tokenizer.encode(&text, true).unwrap();
        let pieces: String = stream(&tokenizer, &ids).into_iter().flatten().collect();
        prop_assert_eq!(pieces, text);
    }

    #[test]
    fn a_stream_takes_any_ids(ids in proptest::collection::vec(0u32..267, 0..40)) {
        let tokenizer = tokenizer();
        let pieces: String = stream(&tokenizer, &ids).into_iter().flatten().collect();
        // Runs of invalid bytes may be counted differently; everything else is the same.
        let valid = |text: &str| text.replace('\u{FFFD}', "");
        let whole = tokenizer.decode(&ids).unwrap();
        if !whole.contains('\u{FFFD}') {
            prop_assert_eq!(&pieces, &whole);
        }
        prop_assert!(valid(&pieces).len() >= valid(&whole).len());
    }

    #[test]
    fn damaged_descriptions_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = description().to_string().into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes(Path::new("tokenizer.json"), &bytes) {
            let _ = tokenizer.encode("hi é", true);
            let _ = tokenizer.decode(&[BOS, 200, 7]);
        }
    }
}
