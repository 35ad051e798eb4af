//! Npy files: round trips, NumPy's own layouts, malformed files.

use std::fs;
use std::path::Path;

use brain_blitz::error::Result;
use brain_blitz::formats::{Bytes, StoredType, TensorView, npy};
use proptest::prelude::*;
use tempfile::tempdir;

/// An npy file of this version, header and data.
fn file(major: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([major, 0]);
    let length = (header.len() as u32).to_le_bytes();
    bytes.extend(&length[..if major == 1 { 2 } else { 4 }]);
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn parse(bytes: &[u8]) -> Result<TensorView> {
    npy::from_bytes(Path::new("a.npy"), &Bytes::copy_of(bytes))
}

fn failure(bytes: &[u8]) -> String {
    let message = parse(bytes).unwrap_err().to_string();
    let rest = message.strip_prefix("a.npy: ");
    rest.unwrap_or_else(|| panic!("no file name: {message}"))
        .to_owned()
}

#[test]
fn arrays_round_trip() {
    let folder = tempdir().unwrap();
    let arrays = [
        TensorView::from_slice(
            "f4",
            StoredType::F32,
            &[2, 3],
            &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0],
        ),
        TensorView::from_slice("f8", StoredType::F64, &[], &[1.5f64]),
        TensorView::from_slice("f2", StoredType::F16, &[1], &[0x3c00u16]),
        TensorView::from_slice("i4", StoredType::I32, &[3], &[1i32, -2, 3]),
        TensorView::from_slice("i8", StoredType::I64, &[1, 2], &[1i64, -2]),
        TensorView::from_slice("b1", StoredType::BOOL, &[2], &[0u8, 1]),
        TensorView::from_slice::<u8>("none", StoredType::U8, &[3, 0], &[]),
    ];
    for array in arrays {
        let path = folder.path().join(format!("{}.npy", array.name));
        npy::write(&path, &array).unwrap();
        assert_eq!(npy::read(&path).unwrap(), array);
        let data = fs::read(&path).unwrap();
        assert!((data.len() - array.bytes.len()).is_multiple_of(64));
    }
}

#[test]
fn what_is_written_is_what_numpy_writes() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let array = TensorView::from_slice("a", StoredType::I32, &[2], &[5i32, 6]);
    npy::write(&path, &array).unwrap();
    let mut header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }".to_owned();
    header.extend(std::iter::repeat_n(' ', 128 - 10 - header.len() - 1));
    header.push('\n');
    assert_eq!(
        fs::read(&path).unwrap(),
        file(1, &header, &[5, 0, 0, 0, 6, 0, 0, 0])
    );
}

#[test]
fn versions_spacing_and_key_order() {
    for major in 1..=3 {
        let header = "{ \"shape\":(1 ,2),'fortran_order' : False,'descr':'|u1'}\n";
        let array = parse(&file(major, header, &[7, 8])).unwrap();
        assert_eq!(
            (array.shape, array.bytes.as_slice()),
            (vec![1, 2], &[7, 8][..])
        );
    }
}

#[test]
fn a_header_of_many_dimensions_is_version_2() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let array = TensorView::from_slice("a", StoredType::U8, &[1; 30_000], &[1u8]);
    npy::write(&path, &array).unwrap();
    assert_eq!(fs::read(&path).unwrap()[6], 2);
    assert_eq!(npy::read(&path).unwrap(), array);
}

#[test]
fn column_major_arrays_are_reordered() {
    let header = "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3), }";
    let array = parse(&file(1, header, &[1, 4, 2, 5, 3, 6])).unwrap();
    assert_eq!(array.bytes.as_slice(), [1, 2, 3, 4, 5, 6]);
    let header = "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 2, 2), }";
    let data: Vec<u8> = (0..8u16).flat_map(u16::to_le_bytes).collect();
    let array = parse(&file(1, header, &data)).unwrap();
    assert_eq!(
        array.bytes.cast::<u16>(),
        Some(&[0, 4, 2, 6, 1, 5, 3, 7][..])
    );
}

#[test]
fn broken_preambles() {
    assert_eq!(
        failure(b""),
        "magic at byte 0: is not \\x93NUMPY: not an npy file"
    );
    assert_eq!(failure(b"\x93NUMPY\x01"), "version at byte 6: is cut off");
    assert_eq!(
        failure(b"\x93NUMPY\x04\x00"),
        "version at byte 6: 4.0 is not one of 1, 2 and 3"
    );
    assert_eq!(
        failure(b"\x93NUMPY\x01\x00\x05"),
        "header length at byte 8: is cut off"
    );
    assert_eq!(
        failure(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),
        "header length at byte 8: is 4294967295, but only 2 bytes follow: the file is cut off"
    );
}

#[test]
fn broken_headers() {
    let cases = [
        ("", "header at byte 10: expected '{'"),
        ("{", "header at byte 11: expected a string"),
        ("{'descr", "header at byte 11: the string does not end"),
        ("{'des\\x'", "header at byte 11: the string has an escape"),
        ("{}", "descr at byte 10: is missing"),
        ("{'descr': '<f4'}", "fortran_order at byte 10: is missing"),
        (
            "{'descr': '<f4', 'fortran_order': False}",
            "shape at byte 10: is missing",
        ),
        (
            "{'descr': [('a', '<f4')]}",
            "descr at byte 20: expected a string",
        ),
        ("{'descr': '<f4' 'shape'", "descr at byte 26: expected '}'"),
        (
            "{'fortran_order': 0}",
            "fortran_order at byte 28: expected True or False",
        ),
        (
            "{'shape': (2)}",
            "shape at byte 22: expected ',' after the only dimension",
        ),
        ("{'shape': (-2,)}", "shape at byte 21: expected a size"),
        (
            "{'shape': (99999999999999999999,)}",
            "shape at byte 21: expected a size",
        ),
        (
            "{'shape': (1,), 'shape': (1,)}",
            "shape at byte 26: occurs twice",
        ),
        (
            "{'colour': 1}",
            "header at byte 11: has an unknown key \"colour\"",
        ),
    ];
    for (header, expected) in cases {
        assert_eq!(failure(&file(1, header, &[])), expected, "{header}");
    }
}

#[test]
fn broken_arrays() {
    let of = |descr: &str, shape: &str, data: &[u8]| {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}");
        failure(&file(1, &header, data))
    };
    assert_eq!(
        of(">f4", "(1,)", &[0; 4]),
        "descr at byte 20: \">f4\" is big-endian; save it as little-endian"
    );
    assert_eq!(
        of("|O", "(1,)", &[0; 4]),
        "descr at byte 20: \"|O\" is not a type that is read"
    );
    assert_eq!(
        of("é", "(1,)", &[0; 4]),
        "descr at byte 20: \"é\" is not a type that is read"
    );
    assert_eq!(
        of("<f4", "(2,)", &[0; 4]),
        "shape at byte 60: F32[2] needs 8 bytes, 4 follow the header"
    );
    assert_eq!(
        of("<f4", "(1,)", &[0; 5]),
        "shape at byte 60: F32[1] needs 4 bytes, 5 follow the header"
    );
    assert_eq!(
        of("<f4", "(4294967296, 4294967296)", &[]),
        "shape at byte 60: the size of F32[4294967296, 4294967296] overflows"
    );
    let trailing = "{'descr': '<f4', 'fortran_order': False, 'shape': ()} x";
    assert_eq!(
        failure(&file(1, trailing, &[0; 4])),
        "header at byte 64: has something after the dict"
    );
}

#[test]
fn writing_checks_its_arguments() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let array = TensorView::from_slice("a", StoredType::BF16, &[1], &[0u16]);
    let message = npy::write(&path, &array).unwrap_err().to_string();
    assert!(
        message.ends_with("a.npy: descr: npy has no type for BF16"),
        "{message}"
    );
    let mut array = TensorView::from_slice("a", StoredType::U8, &[1], &[0u8]);
    array.shape = vec![2];
    let message = npy::write(&path, &array).unwrap_err().to_string();
    assert!(
        message.ends_with("a.npy: shape: 1 bytes are not the data of U8[2]"),
        "{message}"
    );
    assert!(!path.exists());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(major in 1u8..4, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse(&bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = parse(&file(major, &text, &bytes));
        let _ = parse(&file(major, &format!("{{'descr': '{text}', 'shape': ({text},)}}"), &bytes));
    }

    #[test]
    fn damaged_files_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        fortran in any::<bool>(),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let order = if fortran { "True" } else { "False" };
        let header = format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': (2, 3), }}");
        let mut bytes = file(1, &header, &[1; 24]);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(array) = parse(&bytes) {
            prop_assert_eq!(array.elements() * array.dtype.bits() / 8, array.bytes.len());
        }
    }
}
