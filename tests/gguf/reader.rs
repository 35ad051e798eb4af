//! Reading: what the Python package writes, and what is damaged.

use std::path::Path;

use brain_blitz::blocks::BlockType;
use brain_blitz::dtype::DType;
use brain_blitz::formats::gguf::{Array, Gguf, ModelWeights, Value, is_gguf};
use brain_blitz::formats::{Bytes, Gemma2Config, Tokenizer, Weights};
use proptest::prelude::*;

use crate::data;

/// The bytes of a file, put together by hand.
#[derive(Clone)]
struct Draft(Vec<u8>);

impl Draft {
    fn new(n_tensors: u64, n_entries: u64) -> Draft {
        let draft = Draft(b"GGUF".to_vec()).u32(3).u64(n_tensors);
        draft.u64(n_entries)
    }

    fn raw(mut self, bytes: &[u8]) -> Draft {
        self.0.extend(bytes);
        self
    }

    fn u32(self, x: u32) -> Draft {
        self.raw(&x.to_le_bytes())
    }

    fn u64(self, x: u64) -> Draft {
        self.raw(&x.to_le_bytes())
    }

    fn text(self, text: &str) -> Draft {
        self.u64(text.len() as u64).raw(text.as_bytes())
    }

    /// A tensor; `dims` in the file's order.
    fn tensor(self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Draft {
        let draft = self.text(name).u32(dims.len() as u32);
        let draft = dims.iter().fold(draft, |draft, &dim| draft.u64(dim));
        draft.u32(ty).u64(offset)
    }

    /// Pads to 32 bytes and adds `n` more.
    fn data(mut self, n: usize) -> Draft {
        self.0.resize(self.0.len().next_multiple_of(32) + n, 0);
        self
    }

    fn parse(&self) -> Result<Gguf, String> {
        parse(&self.0)
    }

    /// The message, without the file's name.
    fn failure(&self) -> String {
        let message = self.parse().map(|_| ()).unwrap_err();
        let rest = message.strip_prefix("m.gguf: ");
        rest.unwrap_or_else(|| panic!("no file name: {message}"))
            .to_owned()
    }
}

fn parse(bytes: &[u8]) -> Result<Gguf, String> {
    Gguf::from_bytes(Path::new("m.gguf"), Bytes::copy_of(bytes)).map_err(|e| e.to_string())
}

#[test]
fn every_type_of_metadata_is_read() {
    let file = Gguf::open(data("sample.gguf")).unwrap();
    assert_eq!((file.version(), file.alignment()), (3, 32));
    let expected: [(&str, Value); 19] = [
        ("general.architecture", "none".into()),
        ("a.u8", 200u8.into()),
        ("a.i8", (-100i8).into()),
        ("a.u16", 60_000u16.into()),
        ("a.i16", (-30_000i16).into()),
        ("a.u32", 4_000_000_000u32.into()),
        ("a.i32", (-2_000_000_000i32).into()),
        ("a.f32", 1e-6f32.into()),
        ("a.bool", true.into()),
        ("a.string", "naïve".into()),
        ("a.u64", (1u64 << 60).into()),
        ("a.i64", (-1i64 << 60).into()),
        ("a.f64", 0.1f64.into()),
        (
            "a.strings",
            vec![String::new(), "two words".into(), "日本".into()].into(),
        ),
        ("a.ints", vec![3i32, -4].into()),
        ("a.floats", vec![0.5f32, -1.5].into()),
        ("a.bools", vec![true, false].into()),
        ("a.bytes", vec![1u8, 2, 255].into()),
        (
            "a.nested",
            vec![Array::I32(vec![1, 2]), Array::I32(vec![3])].into(),
        ),
    ];
    for (key, value) in &expected {
        assert_eq!(file.value(key), Some(value), "{key}");
    }
    assert_eq!(file.metadata().len(), expected.len());
    assert_eq!(
        file.value("a.f32").unwrap().as_f64(),
        Some(1e-6),
        "the shortest decimal"
    );
    assert_eq!(file.value("a.i8").unwrap().as_u64(), None);
    assert_eq!(file.value("a.nested").unwrap().type_name(), "[array; 2]");
}

#[test]
fn tensors_are_regions_of_the_file() {
    let file = Gguf::open(data("sample.gguf")).unwrap();
    let names: Vec<&str> = file.tensors().iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["plain", "half", "blocks", "cube", "one"]);
    let value = |row: usize, column: usize| (row * 64 + column) as f32 / 8.0 - 7.0;
    let plain = file.get("plain").unwrap();
    assert_eq!((plain.ty, &plain.shape[..]), (BlockType::F32, &[3, 5][..]));
    let rows = (0..3).flat_map(|row| (0..5).map(move |column| value(row, column)));
    assert_eq!(plain.dequantize().unwrap(), rows.collect::<Vec<_>>());
    assert_eq!(
        plain.bytes.as_ptr(),
        file.get("plain").unwrap().bytes.as_ptr()
    );
    let half = file.get("half").unwrap();
    assert_eq!(
        half.dequantize().unwrap(),
        [-7.0, -6.875, -6.75, 1.0, 1.125, 1.25]
    );
    let blocks = file.get("blocks").unwrap();
    assert_eq!(
        (blocks.ty, &blocks.shape[..]),
        (BlockType::Q8_0, &[3, 64][..])
    );
    assert_eq!(blocks.bytes.len(), 6 * 34);
    for (i, x) in blocks.dequantize().unwrap().into_iter().enumerate() {
        assert!((x - value(i / 64, i % 64)).abs() < 0.07, "{i}: {x}");
    }
    let cube = file.get("cube").unwrap();
    assert_eq!((cube.ty, &cube.shape[..]), (BlockType::I32, &[2, 3, 4][..]));
    assert_eq!(
        cube.bytes.cast::<i32>().unwrap(),
        (0..24).collect::<Vec<_>>()
    );
    assert_eq!(file.get("one").unwrap().shape, [1]);
    for info in file.tensors() {
        assert!(info.offset().is_multiple_of(32));
    }
    let message = file.get("block").unwrap_err().to_string();
    assert!(
        message.ends_with(
            "sample.gguf: tensor \"block\": is not among the 5 tensors (did you mean \"blocks\"?)"
        ),
        "{message}"
    );
    assert!(is_gguf(&data("sample.gguf")));
    assert!(!is_gguf(&data("types.json")));
}

#[test]
fn a_file_by_hand_and_its_corner_cases() {
    let file = Draft::new(0, 0).parse().unwrap();
    assert!(file.tensors().is_empty() && file.metadata().is_empty());
    // Version 2 has the same layout. Padding after the last tensor may be missing.
    let mut draft = Draft::new(2, 0)
        .tensor("b", &[2], 0, 32)
        .tensor("a", &[3, 1], 1, 0)
        .data(40);
    draft.0[4] = 2;
    let file = draft.parse().unwrap();
    assert_eq!(file.version(), 2);
    assert_eq!(file.get("a").unwrap().shape, [1, 3]);
    assert_eq!(file.get("b").unwrap().bytes.len(), 8);
    // Empty tensors and scalars.
    let file = Draft::new(2, 0)
        .tensor("e", &[0, 5], 8, 64)
        .tensor("s", &[], 0, 0)
        .data(4);
    let file = file.parse().unwrap();
    assert!(file.get("e").unwrap().dequantize().unwrap().is_empty());
    assert_eq!(file.get("s").unwrap().dequantize().unwrap(), [0.0]);
    let aligned = Draft::new(1, 1)
        .text("general.alignment")
        .u32(4)
        .u32(8)
        .tensor("x", &[1], 0, 8);
    let mut aligned = aligned.clone();
    aligned
        .0
        .resize(aligned.0.len().next_multiple_of(8) + 12, 0);
    assert_eq!(aligned.parse().unwrap().alignment(), 8);
}

#[test]
fn wrong_headers_are_errors_with_their_place() {
    let cases = [
        (
            Draft(vec![]),
            "magic at byte 0: needs 4 bytes, 0 are left: the file is cut off",
        ),
        (
            Draft(b"GGUX\x03\0\0\0".to_vec()),
            "magic at byte 0: the file does not start with \"GGUF\": not a GGUF file",
        ),
        (
            Draft(b"GGUF".to_vec()).u32(1),
            "version at byte 4: is 1; 2 and 3 are read",
        ),
        (
            Draft(b"GGUF\0\0\0\x03".to_vec()),
            "version at byte 4: is big-endian; only little-endian files are read",
        ),
        (
            Draft::new(1 << 40, 0),
            "tensor count at byte 8: is 1099511627776, but the 8 bytes that follow hold 0 at most",
        ),
        (
            Draft::new(0, 7).raw(&[0; 26]),
            "metadata count at byte 16: is 7, but the 26 bytes that follow hold 2 at most",
        ),
        (
            Draft::new(0, 1).u64(99).raw(&[0; 9]),
            "metadata key 0 at byte 24: is 99, but the 9 bytes that follow hold 9 at most",
        ),
        (
            Draft::new(0, 1).u64(2).raw(&[0xff; 20]),
            "metadata key 0 at byte 24: is not UTF-8",
        ),
    ];
    for (draft, expected) in cases {
        assert_eq!(draft.failure(), expected);
    }
}

#[test]
fn wrong_metadata_is_an_error_with_its_place() {
    let entry = |key: &str| Draft::new(0, 1).text(key);
    let cases = [
        (
            entry("k").u32(13).u32(0),
            "metadata \"k\" at byte 33: is of the unknown type 13",
        ),
        (
            entry("k").u32(7).raw(&[2]),
            "metadata \"k\" at byte 37: 2 is neither 0 nor 1",
        ),
        (
            entry("k").u32(4).raw(&[2]),
            "metadata \"k\" at byte 37: needs 4 bytes, 1 are left: the file is cut off",
        ),
        (
            entry("k").u32(9).u32(0).u64(u64::MAX),
            "metadata \"k\" at byte 41: is 18446744073709551615, but the 0 bytes that follow hold 0 at most",
        ),
        (
            entry("k").u32(9).u32(77).u64(0),
            "metadata \"k\" at byte 37: has elements of the unknown type 77",
        ),
        (
            Draft::new(0, 2)
                .text("k")
                .u32(0)
                .raw(&[1])
                .text("k")
                .u32(0)
                .raw(&[1]),
            "metadata \"k\" at byte 38: occurs twice",
        ),
        (
            entry("general.alignment").u32(4).u32(24),
            "metadata \"general.alignment\": is no power of two up to 1048576",
        ),
        (
            entry("general.alignment").u32(8).text("32"),
            "metadata \"general.alignment\": is no power of two up to 1048576",
        ),
    ];
    for (draft, expected) in cases {
        assert_eq!(draft.failure(), expected);
    }
    let deep = (0..5).fold(entry("k").u32(9), |draft, _| draft.u32(9).u64(1));
    let deep = deep.u32(0).u64(0).failure();
    assert!(deep.ends_with("has arrays more than 4 deep"), "{deep}");
}

#[test]
fn wrong_tensors_are_errors_with_their_place() {
    let one = |dims: &[u64], ty: u32, offset: u64| {
        Draft::new(1, 0).tensor("x", dims, ty, offset).data(64)
    };
    let cases = [
        (
            one(&[1, 1, 1, 1, 1], 0, 0),
            "has 5 dimensions; 4 are the most",
        ),
        (one(&[1], 4, 0), "is of the unknown type 4"),
        (
            one(&[33], 8, 0),
            "rows of 33 are no whole number of Q8_0 blocks of 32",
        ),
        (
            one(&[1, 32], 8, 0),
            "rows of 1 are no whole number of Q8_0 blocks of 32",
        ),
        (
            one(&[], 8, 0),
            "rows of 1 are no whole number of Q8_0 blocks of 32",
        ),
        (
            one(&[1 << 32, 1 << 32], 0, 0),
            "the size of F32[4294967296, 4294967296] overflows",
        ),
        (
            one(&[1 << 62], 0, 0),
            "the size of F32[4611686018427387904] overflows",
        ),
        (one(&[1], 0, 8), "its offset 8 is no multiple of 32"),
        (
            one(&[17], 0, 0),
            "68 bytes at 0 reach past the 64 bytes of data",
        ),
        (
            one(&[1], 0, 64),
            "4 bytes at 64 reach past the 64 bytes of data",
        ),
        (
            one(&[1], 0, u64::MAX - 31),
            "4 bytes at 18446744073709551584 reach past the 64 bytes of data",
        ),
    ];
    for (draft, expected) in cases {
        let message = draft.failure();
        assert!(message.starts_with("tensor \"x\" at byte "), "{message}");
        assert!(message.ends_with(&format!(": {expected}")), "{message}");
    }
}

#[test]
fn tensors_that_are_not_apart_are_errors() {
    let two = |a: &str, b: &str, offset: u64| {
        let draft = Draft::new(2, 0).tensor(a, &[9], 0, 0);
        draft.tensor(b, &[1], 0, offset).data(128).failure()
    };
    assert_eq!(two("a", "a", 64), "tensor \"a\": occurs twice");
    assert_eq!(
        two("a", "b", 32),
        "tensor \"b\" at byte 82: overlaps tensor \"a\""
    );
    assert_eq!(
        two("a", "b", 0),
        "tensor \"a\" at byte 49: overlaps tensor \"b\""
    );
}

#[test]
fn every_prefix_of_a_file_is_refused() {
    let bytes = std::fs::read(data("sample.gguf")).unwrap();
    let whole = parse(&bytes).unwrap();
    let end = whole
        .tensors()
        .iter()
        .map(|t| t.offset() + t.size())
        .max()
        .unwrap();
    for cut in 0..end {
        let message = parse(&bytes[..cut]).map(|_| ()).unwrap_err();
        assert!(message.starts_with("m.gguf: "), "{cut}: {message}");
    }
    assert!(parse(&bytes[..end]).is_ok());
}

/// Whatever is read can be used without a panic.
fn use_all(file: &Gguf) {
    for info in file.tensors() {
        let tensor = file.get(&info.name).unwrap();
        assert_eq!(tensor.bytes.len(), info.size());
        assert_eq!(tensor.dequantize().is_ok(), tensor.ty.can_dequantize());
    }
}

/// How many damaged files are tried: enough for a test, or for an evening with `BB_LONG`.
fn cases() -> u32 {
    if std::env::var_os("BB_LONG").is_some() {
        2_000_000
    } else {
        2_000
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..8),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = SAMPLE.clone();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes[at] ^= 1 << (byte % 8),
                2 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        match parse(&bytes) {
            Ok(file) => use_all(&file),
            Err(message) => prop_assert!(message.starts_with("m.gguf: "), "{}", message),
        }
    }

    #[test]
    fn made_up_tensors_never_panic(
        dims in prop::collection::vec(prop_oneof![0..300u64, any::<u64>()], 0..6),
        ty in 0..50u32,
        offset in prop_oneof![(0..8u64).prop_map(|n| n * 32), any::<u64>()],
        data in 0..4096usize,
    ) {
        let draft = Draft::new(1, 0).tensor("x", &dims, ty, offset).data(data);
        if let Ok(file) = draft.parse() {
            use_all(&file);
        }
    }
}

proptest! {
    // A tokenizer is slow to make.
    #![proptest_config(ProptestConfig { cases: cases() / 20, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_models_never_panic(
        which in 0..2usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4),
    ) {
        // All that is before the tensors' data.
        let (bytes, header) = &MODELS[which];
        let mut bytes = bytes.clone();
        for (at, byte, kind) in changes {
            let at = at.index(*header);
            match kind {
                0 => bytes[at] = byte,
                _ => bytes[at] ^= 1 << (byte % 8),
            }
        }
        let Ok(file) = Gguf::from_bytes(Path::new("m.gguf"), Bytes::copy_of(&bytes)) else {
            return Ok(());
        };
        if let Ok(config) = Gemma2Config::from_gguf(&file) {
            prop_assert!(config.vocab_size > 0);
        }
        if let Ok(Some(tokenizer)) = Tokenizer::from_gguf(&file) {
            let ids = tokenizer.encode("To be, or", false).unwrap_or_default();
            let _ = tokenizer.decode(&ids);
        }
        if let Ok(weights) = ModelWeights::new(file, DType::BF16) {
            for name in Weights::names(&weights) {
                let _ = weights.get(name);
            }
        }
    }
}

/// Files of models, and how long what is before the data is.
static MODELS: std::sync::LazyLock<[(Vec<u8>, usize); 2]> = std::sync::LazyLock::new(|| {
    ["gemma2.gguf", "tokenizer.gguf"].map(|name| {
        let bytes = std::fs::read(data(name)).unwrap();
        let file = parse(&bytes).unwrap();
        let starts = file.tensors().iter().map(|tensor| tensor.offset());
        let header = starts.min().unwrap_or(bytes.len());
        (bytes, header)
    })
});

static SAMPLE: std::sync::LazyLock<Vec<u8>> =
    std::sync::LazyLock::new(|| std::fs::read(data("sample.gguf")).unwrap());
