//! Checkpoints that are folders: one file, shards with an index, and what is wrong with either.

use std::fs;

use brain_blitz::formats::safetensors::write;
use brain_blitz::formats::{Checkpoint, StoredType, TensorView};
use tempfile::tempdir;

/// A folder with two shards and this index.
fn sharded(index: &str) -> tempfile::TempDir {
    let folder = tempdir().unwrap();
    let tensor = |name: &str| TensorView::from_slice(name, StoredType::U8, &[2], &[1u8, 2]);
    write(
        folder.path().join("s1.safetensors"),
        &[tensor("a"), tensor("b")],
    )
    .unwrap();
    write(folder.path().join("s2.safetensors"), &[tensor("c")]).unwrap();
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    folder
}

const INDEX: &str = r#"{"metadata":{"total_size":6},
    "weight_map":{"a":"s1.safetensors","b":"s1.safetensors","c":"s2.safetensors"}}"#;

#[test]
fn a_sharded_folder_opens() {
    let folder = sharded(INDEX);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(checkpoint.get("c").unwrap().bytes.as_slice(), [1, 2]);
    assert!(checkpoint.file_of("c").unwrap().ends_with("s2.safetensors"));
    let index = folder.path().join("model.safetensors.index.json");
    assert_eq!(Checkpoint::open(index).unwrap().len(), 3);
    // One whole file wins over shards.
    write(folder.path().join("model.safetensors"), &[]).unwrap();
    assert!(Checkpoint::open(folder.path()).unwrap().is_empty());
}

#[test]
fn broken_indices() {
    let failure = |index: &str| {
        let folder = sharded(index);
        let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
        let prefix = format!("{}/", folder.path().display());
        message
            .replace(&prefix, "")
            .replace("model.safetensors.index.json: ", "")
    };
    let cases = [
        ("{}", "weight_map: is missing or not an object"),
        (
            r#"{"weight_map": []}"#,
            "weight_map at byte 1: is missing or not an object",
        ),
        (
            r#"{"weight_map": {"a": 1}}"#,
            "tensor \"a\": the shard is not a string",
        ),
        (
            r#"{"weight_map": {"a": "s3.safetensors"}}"#,
            "tensor \"a\": is in shard \"s3.safetensors\", which does not exist",
        ),
        (
            r#"{"weight_map": {"a": "../s1.safetensors"}}"#,
            "tensor \"a\": shard \"../s1.safetensors\" is not a file inside the folder",
        ),
        (
            r#"{"weight_map": {"a": "/etc/passwd"}}"#,
            "tensor \"a\": shard \"/etc/passwd\" is not a file inside the folder",
        ),
        (
            r#"{"weight_map": {"a": "..\\s1.safetensors"}}"#,
            "tensor \"a\": shard \"..\\\\s1.safetensors\" is not a file inside the folder",
        ),
        (
            r#"{"weight_map": {"a": ""}}"#,
            "tensor \"a\": shard \"\" is not a file inside the folder",
        ),
        (
            r#"{"weight_map": {"a": "s2.safetensors"}}"#,
            "tensor \"a\": is not in shard \"s2.safetensors\", where the index puts it",
        ),
        (
            r#"{"weight_map": {"a": "s1.safetensors"}}"#,
            "tensor \"b\": is in s1.safetensors, but not in the index",
        ),
    ];
    for (index, expected) in cases {
        assert_eq!(failure(index), expected, "{index}");
    }
    assert!(failure(r#"{"weight_map": {"a": "x", "a": "x"}}"#).ends_with(": occurs twice"));
}

#[test]
fn a_tensor_in_two_shards_is_an_error() {
    let folder = sharded(INDEX);
    let again = TensorView::from_slice("a", StoredType::U8, &[1], &[1u8]);
    let c = TensorView::from_slice("c", StoredType::U8, &[1], &[1u8]);
    write(folder.path().join("s2.safetensors"), &[again, c]).unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains("s2.safetensors: tensor \"a\": is in "),
        "{message}"
    );
    assert!(message.ends_with("s1.safetensors too"), "{message}");
}

#[test]
fn folders_and_missing_files() {
    let folder = tempdir().unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(
        message
            .ends_with(": folder: has neither model.safetensors nor model.safetensors.index.json")
    );
    let absent = folder.path().join("absent.safetensors");
    let message = Checkpoint::open(&absent).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("{}: ", absent.display())),
        "{message}"
    );
    fs::create_dir(folder.path().join("model.safetensors")).unwrap();
    let message = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(
        message.ends_with("model.safetensors: file: is not a regular file"),
        "{message}"
    );
    fs::write(&absent, b"").unwrap();
    let message = Checkpoint::open(&absent).unwrap_err().to_string();
    assert!(
        message.contains("needs 8 bytes; the file has 0"),
        "{message}"
    );
}
