//! Writing: the Python package's bytes, round trips, and plans that cannot be written.

use std::fs;

use brain_blitz::blocks::BlockType;
use brain_blitz::error::Result;
use brain_blitz::formats::gguf::{Gguf, Sink, TensorInfo, Value, Writer};
use tempfile::tempdir;

use crate::data;

/// The keys of the sample in the order in which it was written.
const KEYS: [&str; 19] = [
    "general.architecture",
    "a.u8",
    "a.i8",
    "a.u16",
    "a.i16",
    "a.u32",
    "a.i32",
    "a.f32",
    "a.bool",
    "a.string",
    "a.u64",
    "a.i64",
    "a.f64",
    "a.strings",
    "a.ints",
    "a.floats",
    "a.bools",
    "a.bytes",
    "a.nested",
];

/// A writer of what `file` holds, and what gives it the data.
fn copy_of(file: &Gguf) -> Writer {
    let mut writer = Writer::new();
    for key in KEYS {
        writer.set(key, file.value(key).unwrap().clone());
    }
    for info in file.tensors() {
        writer.tensor(&info.name, info.ty, &info.shape);
    }
    writer
}

fn filler(file: &Gguf) -> impl FnMut(&TensorInfo, &mut Sink<'_>) -> Result<()> {
    |info, sink| sink.write(&file.get(&info.name)?.bytes)
}

#[test]
fn the_bytes_are_those_of_the_python_package() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("copy.gguf");
    let file = Gguf::open(data("sample.gguf")).unwrap();
    copy_of(&file).write(&path, &mut filler(&file)).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(data("sample.gguf")).unwrap());
}

#[test]
fn another_alignment_and_data_in_pieces() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("copy.gguf");
    let file = Gguf::open(data("sample.gguf")).unwrap();
    let mut writer = copy_of(&file);
    writer.set("general.alignment", 256u32).set("a.u8", 7u8);
    let by_bytes = &mut |info: &TensorInfo, sink: &mut Sink<'_>| {
        let tensor = file.get(&info.name)?;
        tensor
            .bytes
            .chunks(3)
            .try_for_each(|piece| sink.write(piece))
    };
    writer.write(&path, by_bytes).unwrap();
    let again = Gguf::open(&path).unwrap();
    assert_eq!(again.alignment(), 256);
    assert_eq!(
        again.value("a.u8"),
        Some(&Value::U8(7)),
        "set in the place of the first"
    );
    assert_eq!(again.metadata().len(), KEYS.len() + 1);
    for info in file.tensors() {
        assert_eq!(
            again.get(&info.name).unwrap(),
            file.get(&info.name).unwrap()
        );
        assert!(again.info(&info.name).unwrap().offset().is_multiple_of(256));
    }
}

#[test]
fn what_cannot_be_written_is_an_error_and_leaves_the_old_file() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    fs::write(&path, "old").unwrap();
    let failure = |writer: &Writer, given: usize| {
        let error = writer.write(&path, &mut |_, sink| sink.write(&vec![0; given]));
        let message = error.unwrap_err().to_string();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let name = format!("{}: ", path.display());
        message
            .strip_prefix(&name)
            .expect("the file's name")
            .to_owned()
    };
    let tensor = |name: &str, shape: &[usize]| {
        let mut writer = Writer::new();
        writer.tensor(name, BlockType::Q8_0, shape);
        writer
    };
    assert_eq!(
        failure(&tensor("x", &[2, 32]), 34),
        "tensor \"x\": has 68 bytes, but was given 34"
    );
    assert_eq!(
        failure(&tensor("x", &[32]), 35),
        "tensor \"x\": has 34 bytes, but was given 35"
    );
    assert_eq!(
        failure(
            &tensor("x", &[32]).tensor("x", BlockType::F32, &[1]).clone(),
            34
        ),
        "tensor \"x\": occurs twice"
    );
    assert_eq!(
        failure(&tensor("x", &[40]), 0),
        "tensor \"x\": rows of 40 are no whole number of Q8_0 blocks of 32"
    );
    assert!(failure(&tensor("x", &[1 << 60, 64]), 0).contains("overflows"));
    let long = "x".repeat(64);
    assert!(failure(&tensor(&long, &[32]), 0).ends_with("the name has more than 63 bytes"));
    assert!(failure(Writer::new().set("ä", 1u8), 0).contains("no ASCII text"));
    assert!(failure(Writer::new().set("", 1u8), 0).contains("no ASCII text"));
    let what = "metadata \"general.alignment\": is not a u32 that is a power of two";
    assert_eq!(
        failure(Writer::new().set("general.alignment", 24u32), 0),
        what
    );
    assert_eq!(
        failure(Writer::new().set("general.alignment", "32"), 0),
        what
    );
    // A power of two, but more than files are read with.
    assert_eq!(
        failure(Writer::new().set("general.alignment", 1u32 << 21), 0),
        what
    );
}

#[test]
fn an_error_of_whoever_gives_the_data_is_passed_on() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let mut writer = Writer::new();
    writer.tensor("x", BlockType::F32, &[1]);
    let error = writer.write(&path, &mut |_, _| {
        Err(brain_blitz::Error::msg("out of paper"))
    });
    assert_eq!(error.unwrap_err().to_string(), "out of paper");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
