//! Safetensors files: round trips, malformed files, and agreement with the `safetensors` crate.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use brain_blitz::formats::safetensors::{write, write_with_metadata};
use brain_blitz::formats::{Bytes, Checkpoint, StoredType, TensorView};
use proptest::prelude::*;
use tempfile::tempdir;

/// A safetensors file of this header and this many zero bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn parse(bytes: &[u8]) -> brain_blitz::error::Result<Checkpoint> {
    Checkpoint::from_bytes(Path::new("m.safetensors"), Bytes::copy_of(bytes))
}

/// The message for the file, without its name.
fn failure(bytes: &[u8]) -> String {
    let message = parse(bytes).unwrap_err().to_string();
    let rest = message.strip_prefix("m.safetensors: ");
    rest.unwrap_or_else(|| panic!("no file name: {message}"))
        .to_owned()
}

fn samples() -> Vec<TensorView> {
    vec![
        TensorView::from_slice(
            "b.weight",
            StoredType::BF16,
            &[2, 3],
            &[1u16, 2, 3, 4, 5, 6],
        ),
        TensorView::from_slice(
            "a.weight",
            StoredType::F32,
            &[2, 2],
            &[1.0f32, 2.0, 3.0, 4.0],
        ),
        TensorView::from_slice("ids", StoredType::I64, &[3], &[7i64, -8, 9]),
        TensorView::from_slice("mask", StoredType::BOOL, &[5], &[0u8, 1, 1, 0, 1]),
        TensorView::from_slice("scalar", StoredType::F64, &[], &[0.5f64]),
        TensorView::from_slice::<f32>("empty", StoredType::F32, &[0, 7], &[]),
        TensorView::from_slice("odd \"name\" \u{1f600}", StoredType::U8, &[1], &[255u8]),
    ]
}

#[test]
fn a_file_round_trips_without_copies() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_with_metadata(&path, &samples(), &metadata).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.len(), samples().len());
    assert_eq!(checkpoint.metadata(), &metadata);
    for tensor in samples() {
        let read = checkpoint.get(&tensor.name).unwrap();
        assert_eq!(read, tensor);
        let again = checkpoint.get(&tensor.name).unwrap();
        assert_eq!(read.bytes.as_ptr(), again.bytes.as_ptr());
        let align = tensor.dtype.bits() / 8;
        assert_eq!(
            read.bytes.aligned(align).as_ptr(),
            read.bytes.as_ptr(),
            "{}",
            tensor.name
        );
    }
    let names: Vec<&str> = checkpoint.names().collect();
    assert!(names.is_sorted());
    assert_eq!(checkpoint.file_of("ids"), Some(path.as_path()));
    let tensor = checkpoint.get("a.weight").unwrap();
    drop(checkpoint);
    assert_eq!(tensor.bytes.cast::<f32>(), Some(&[1.0, 2.0, 3.0, 4.0][..]));
}

#[test]
fn a_mapped_file_can_be_replaced() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let tensor = |value| TensorView::from_slice("x", StoredType::F32, &[1], &[value]);
    write(&path, &[tensor(1.0f32)]).unwrap();
    let old = Checkpoint::open(&path).unwrap().get("x").unwrap();
    write(&path, &[tensor(2.0f32)]).unwrap();
    assert_eq!(old.bytes.cast::<f32>(), Some(&[1.0][..]));
    let new = Checkpoint::open(&path).unwrap().get("x").unwrap();
    assert_eq!(new.bytes.cast::<f32>(), Some(&[2.0][..]));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_safetensors_crate_reads_what_is_written() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    write(&path, &samples()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.len(), samples().len());
    for tensor in samples() {
        let read = theirs.tensor(&tensor.name).unwrap();
        assert_eq!(read.shape(), tensor.shape);
        assert_eq!(read.data(), tensor.bytes.as_slice());
        assert_eq!(format!("{:?}", read.dtype()), tensor.dtype.name());
    }
}

#[test]
fn what_the_safetensors_crate_writes_is_read() {
    let ours = samples();
    let theirs = ours.iter().map(|tensor| {
        let dtype = serde_json::from_value(tensor.dtype.name().into()).unwrap();
        let shape = tensor.shape.clone();
        let view = safetensors::tensor::TensorView::new(dtype, shape, &tensor.bytes).unwrap();
        (tensor.name.as_str(), view)
    });
    let bytes = safetensors::serialize(theirs, None).unwrap();
    let checkpoint = parse(&bytes).unwrap();
    for tensor in ours {
        assert_eq!(checkpoint.get(&tensor.name).unwrap(), tensor);
    }
}

#[test]
fn an_unknown_tensor_names_the_nearest() {
    let header = r#"{"model.norm.weight":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
    let checkpoint = parse(&file(header, 0)).unwrap();
    assert_eq!(
        checkpoint
            .get("model.norms.weight")
            .unwrap_err()
            .to_string(),
        "m.safetensors: tensor \"model.norms.weight\": is not among the 1 tensors \
         (did you mean \"model.norm.weight\"?)"
    );
    let far = checkpoint.get("zzz").unwrap_err().to_string();
    assert_eq!(
        far,
        "m.safetensors: tensor \"zzz\": is not among the 1 tensors"
    );
}

#[test]
fn broken_prefixes_and_json() {
    assert_eq!(
        failure(b""),
        "header length at byte 0: needs 8 bytes; the file has 0"
    );
    assert_eq!(
        failure(b"1234567"),
        "header length at byte 0: needs 8 bytes; the file has 7"
    );
    assert_eq!(
        failure(&[9, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']),
        "header length at byte 0: is 9, but only 2 bytes follow: the file is cut off"
    );
    assert_eq!(
        failure(&[0xff; 32]),
        "header length at byte 0: is 18446744073709551615, more than the format's limit of 100000000"
    );
    let not = "header at byte 8: does not start with '{': not a safetensors file";
    assert_eq!(failure(&file("", 4)), not);
    assert_eq!(failure(&file(" {}", 0)), not);
    assert_eq!(failure(&file("[]", 0)), not);
    assert!(failure(&file("{\"a\"", 0)).starts_with("json at byte 11: EOF while parsing"));
    assert!(failure(&file("{} x", 0)).starts_with("json at byte 11: trailing characters"));
    let mut bytes = file("{\"a\":1}", 0);
    bytes[10] = 0xff;
    assert_eq!(failure(&bytes), "json at byte 10: is not valid UTF-8");
}

/// Entries for 8 bytes of data, and the message about each.
const BROKEN_ENTRIES: &[(&str, &str)] = &[
    ("1", "tensor \"t\" at byte 9: is not an object"),
    (
        r#"{"shape":[2],"data_offsets":[0,8]}"#,
        "tensor \"t\".dtype at byte 9: is missing",
    ),
    (
        r#"{"dtype":4,"shape":[2],"data_offsets":[0,8]}"#,
        "tensor \"t\".dtype at byte 9: is not a string",
    ),
    (
        r#"{"dtype":"f32","shape":[2],"data_offsets":[0,8]}"#,
        "tensor \"t\".dtype at byte 9: \"f32\" is not a type of the format",
    ),
    (
        r#"{"dtype":"F32","data_offsets":[0,8]}"#,
        "tensor \"t\".shape at byte 9: is missing",
    ),
    (
        r#"{"dtype":"F32","shape":2,"data_offsets":[0,8]}"#,
        "tensor \"t\".shape at byte 9: is not a list",
    ),
    (
        r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#,
        "tensor \"t\".shape at byte 9: has an entry that is not a size",
    ),
    (
        r#"{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#,
        "tensor \"t\".shape at byte 9: has an entry that is not a size",
    ),
    (
        r#"{"dtype":"F32","shape":[2]}"#,
        "tensor \"t\".data_offsets at byte 9: is missing",
    ),
    (
        r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}"#,
        "tensor \"t\".data_offsets at byte 9: has 3 entries, not two",
    ),
    (
        r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#,
        "tensor \"t\".data_offsets at byte 9: [8, 0] runs backwards",
    ),
    (
        r#"{"dtype":"F32","shape":[3],"data_offsets":[0,12]}"#,
        "tensor \"t\".data_offsets at byte 9: [0, 12] reaches past the 8 bytes of data",
    ),
    (
        r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#,
        "tensor \"t\".shape at byte 9: F32[3] needs 12 bytes, data_offsets give it 8",
    ),
    (
        r#"{"dtype":"F4","shape":[15],"data_offsets":[0,8]}"#,
        "tensor \"t\".shape at byte 9: F4[15] is not a whole number of bytes",
    ),
    (
        r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}"#,
        "tensor \"t\".shape at byte 9: the size of F32[4294967296, 4294967296] overflows",
    ),
    (
        r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":1}"#,
        "tensor \"t\" at byte 9: has an unknown field \"extra\"",
    ),
];

#[test]
fn broken_entries() {
    let entry = |entry: &str| failure(&file(&format!("{{\"t\":{entry}}}"), 8));
    for (text, expected) in BROKEN_ENTRIES {
        assert_eq!(entry(text), *expected, "{text}");
    }
}

#[test]
fn tensors_tile_the_data() {
    let two = |a: &str, b: &str| {
        let header = format!(
            r#"{{"a":{{"dtype":"F32","shape":[1],"data_offsets":{a}}},"b":{{"dtype":"F32","shape":[1],"data_offsets":{b}}}}}"#
        );
        (failure(&file(&header, 8)), 8 + header.len())
    };
    let (message, data) = two("[0,4]", "[2,6]");
    let at = data + 2;
    assert_eq!(
        message,
        format!("tensor \"b\".data_offsets at byte {at}: overlaps tensor \"a\"")
    );
    let (message, data) = two("[0,4]", "[0,4]");
    assert_eq!(
        message,
        format!("tensor \"b\".data_offsets at byte {data}: overlaps tensor \"a\"")
    );
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
    let at = 8 + header.len() + 4;
    assert_eq!(
        failure(&file(header, 8)),
        format!("tensor \"a\".data_offsets at byte {at}: leaves a hole of 4 bytes before it")
    );
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let at = 8 + header.len() + 4;
    assert_eq!(
        failure(&file(header, 9)),
        format!("data at byte {at}: 5 bytes after the last tensor belong to none")
    );
}

#[test]
fn duplicates_and_metadata() {
    let entry = r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
    let twice = format!("{{\"a\":{entry},\"a\":{entry}}}");
    assert!(failure(&file(&twice, 1)).starts_with("\"a\" at byte "));
    assert!(failure(&file(&twice, 1)).ends_with(": occurs twice"));
    let message = failure(&file(r#"{"__metadata__":{"step":3}}"#, 0));
    assert_eq!(message, "__metadata__ at byte 9: \"step\" is not a string");
    let message = failure(&file(r#"{"__metadata__":[]}"#, 0));
    assert_eq!(message, "__metadata__ at byte 9: is not an object");
}

#[test]
fn long_and_strange_names_are_quoted_short() {
    let header = format!("{{\"\\n{}\":1}}", "x".repeat(100_000));
    let message = failure(&file(&header, 0));
    assert!(message.starts_with("tensor \"\\nxxx"), "{message}");
    assert!(message.len() < 300, "{}", message.len());
}

#[test]
fn writing_checks_its_arguments() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let tensor = |name: &str| TensorView::from_slice(name, StoredType::U8, &[1], &[1u8]);
    let refused = |tensors: &[TensorView]| {
        let message = write(&path, tensors).unwrap_err().to_string();
        message
            .strip_prefix(&format!("{}: ", path.display()))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        refused(&[tensor("a"), tensor("a")]),
        "tensor \"a\": occurs twice"
    );
    let reserved = "tensor \"__metadata__\": is a reserved name";
    assert_eq!(refused(&[tensor("__metadata__")]), reserved);
    let mut wrong = tensor("a");
    wrong.shape = vec![3];
    assert_eq!(
        refused(&[wrong]),
        "tensor \"a\": U8[3] needs 3 bytes, not 1"
    );
    assert!(!path.exists());
}

/// A valid file, to be damaged.
fn valid() -> Vec<u8> {
    static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let folder = tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, &samples()).unwrap();
        fs::read(path).unwrap()
    });
    VALID.clone()
}

/// Parses; what is accepted must also be accepted by the safetensors crate, with the same tensors.
fn check_against_the_crate(bytes: &[u8]) {
    let Ok(checkpoint) = parse(bytes) else {
        return;
    };
    let theirs = safetensors::SafeTensors::deserialize(bytes).expect("they refuse what we accept");
    assert_eq!(theirs.len(), checkpoint.len());
    for name in checkpoint.names() {
        let ours = checkpoint.get(name).unwrap();
        assert_eq!(theirs.tensor(name).unwrap().data(), ours.bytes.as_slice());
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        check_against_the_crate(&bytes);
        let text = String::from_utf8_lossy(&bytes);
        check_against_the_crate(&file(&format!("{{{text}}}"), bytes.len()));
    }

    #[test]
    fn damaged_files_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = valid();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check_against_the_crate(&bytes);
    }

    #[test]
    fn digits_of_the_header_never_panic(at in any::<prop::sample::Index>(), digit in b'0'..=b'9') {
        let mut bytes = valid();
        let digits: Vec<usize> = (8..bytes.len()).filter(|&at| bytes[at].is_ascii_digit()).collect();
        bytes[*at.get(&digits)] = digit;
        check_against_the_crate(&bytes);
    }
}
