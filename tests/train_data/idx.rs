//! IDX files: every element type, packed and plain, malformed files.

use std::io::Write;
use std::path::Path;

use brain_blitz::error::Result;
use brain_blitz::formats::{Bytes, StoredType, TensorView, idx};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

/// A file with this type, these dimensions and this data.
pub fn file(code: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, code, dims.len() as u8];
    dims.iter().for_each(|dim| bytes.extend(dim.to_be_bytes()));
    bytes.extend(data);
    bytes
}

pub fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn parse(bytes: &[u8]) -> Result<TensorView> {
    idx::from_bytes(Path::new("a.idx.gz"), &Bytes::copy_of(bytes))
}

fn failure(bytes: &[u8]) -> String {
    let message = parse(bytes).unwrap_err().to_string();
    let rest = message.strip_prefix("a.idx.gz: ");
    rest.unwrap_or_else(|| panic!("no file name: {message}"))
        .to_owned()
}

#[test]
fn every_type_is_read_packed_and_plain() {
    let be = |values: [i16; 2]| values.map(i16::to_be_bytes).concat();
    let cases = [
        (
            file(8, &[3], &[1, 255, 3]),
            TensorView::from_slice("a.idx", StoredType::U8, &[3], &[1u8, 255, 3]),
        ),
        (
            file(9, &[2], &[1, 255]),
            TensorView::from_slice("a.idx", StoredType::I8, &[2], &[1i8, -1]),
        ),
        (
            file(11, &[2, 1], &be([258, -2])),
            TensorView::from_slice("a.idx", StoredType::I16, &[2, 1], &[258i16, -2]),
        ),
        (
            file(12, &[1], &7i32.to_be_bytes()),
            TensorView::from_slice("a.idx", StoredType::I32, &[1], &[7i32]),
        ),
        (
            file(13, &[1, 1], &1.5f32.to_be_bytes()),
            TensorView::from_slice("a.idx", StoredType::F32, &[1, 1], &[1.5f32]),
        ),
        (
            file(14, &[], &(-0.1f64).to_be_bytes()),
            TensorView::from_slice("a.idx", StoredType::F64, &[], &[-0.1f64]),
        ),
        (
            file(8, &[2, 0], &[]),
            TensorView::from_slice::<u8>("a.idx", StoredType::U8, &[2, 0], &[]),
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(parse(&bytes).unwrap(), expected);
        assert_eq!(parse(&packed(&bytes)).unwrap(), expected);
    }
}

#[test]
fn a_plain_file_of_bytes_is_not_copied() {
    let bytes = Bytes::copy_of(&file(8, &[2], &[1, 2]));
    let array = idx::from_bytes(Path::new("a"), &bytes).unwrap();
    assert_eq!(array.bytes.as_ptr(), bytes[8..].as_ptr());
}

#[test]
fn malformed_files_are_errors_with_field_and_offset() {
    let cases: [(&[u8], &str); 6] = [
        (
            &[0, 0, 8],
            "magic number at byte 0: needs 4 bytes; the file has 3",
        ),
        (b"\x7fELF", "magic number at byte 0: starts with"),
        (&[0, 0, 10, 1], "element type at byte 2: 0x0a is not a type"),
        (
            &[0, 0, 8, 2, 0, 0, 0, 1],
            "dimensions at byte 4: 2 need 8 bytes, 4 follow",
        ),
        (
            &file(8, &[2, 2], &[1, 2, 3]),
            "dimensions at byte 4: U8[2, 2] needs 4 bytes, fewer follow",
        ),
        (
            &file(8, &[2], &[1, 2, 3]),
            "dimensions at byte 4: U8[2] needs 2 bytes, more follow",
        ),
    ];
    for (bytes, expected) in cases {
        assert!(failure(bytes).starts_with(expected), "{}", failure(bytes));
        let packed = failure(&packed(bytes));
        assert!(packed.starts_with(expected), "{packed}");
    }
    let huge = file(14, &[u32::MAX, u32::MAX, u32::MAX], &[]);
    assert!(failure(&huge).contains("overflows"), "{}", failure(&huge));
}

#[test]
fn damaged_gzip_data_is_an_error() {
    let bytes = packed(&file(8, &[500], &[7; 500]));
    let cut = failure(&bytes[..bytes.len() - 9]);
    assert!(cut.starts_with("gzip data at byte "), "{cut}");
    // The checksum of what was packed stands eight bytes before the end.
    let mut changed = bytes.clone();
    let at = bytes.len() - 8;
    changed[at] ^= 1;
    assert!(
        failure(&changed).starts_with("gzip data at byte 508"),
        "{}",
        failure(&changed)
    );
}

#[test]
fn a_small_file_that_claims_much_or_unpacks_to_much_takes_little_memory() {
    // Four thousand million bytes are claimed, none are there.
    let claims = failure(&packed(&file(8, &[u32::MAX], &[])));
    assert!(
        claims.contains("needs 4294967295 bytes, fewer follow"),
        "{claims}"
    );
    // A hundred million zeros are packed, one is claimed.
    let mut zeros = file(8, &[1], &[]);
    zeros.resize(100_000_000, 0);
    let bytes = Bytes::copy_of(&packed(&zeros));
    let plain = idx::unpack(Path::new("a"), &bytes).unwrap();
    assert!(plain.len() < 2000, "{} bytes were unpacked", plain.len());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(code in 8u8..15, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = parse(&bytes);
        let _ = parse(&[&[0, 0, code], &bytes[..]].concat());
        let _ = parse(&[&[0x1f, 0x8b, 8, 0], &bytes[..]].concat());
    }

    #[test]
    fn damaged_files_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        pack in any::<bool>(),
    ) {
        let mut bytes = file(13, &[2, 3], &[1; 24]);
        if pack {
            bytes = packed(&bytes);
        }
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(array) = parse(&bytes) {
            prop_assert_eq!(array.elements() * array.dtype.bits() / 8, array.bytes.len());
        }
    }
}
