//! Any bytes as each kind of file that holds arrays or tables: npy, IDX (packed or not) and CSV.

#![no_main]

use std::path::Path;

use brain_blitz::formats::csv::{Options, Table};
use brain_blitz::formats::{Bytes, idx, npy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_of(data);
    for tensor in [
        npy::from_bytes(Path::new("fuzz.npy"), &bytes),
        idx::from_bytes(Path::new("fuzz.idx"), &bytes),
    ]
    .into_iter()
    .flatten()
    {
        let bits = tensor.dtype.bits() * tensor.shape.iter().product::<usize>();
        assert_eq!(tensor.bytes.len() * 8, bits);
    }
    for header in [true, false] {
        let options = Options {
            header,
            ..Options::default()
        };
        if let Ok(table) = Table::from_bytes(Path::new("fuzz.csv"), data, options) {
            for name in table.names() {
                let column = table.column(name).expect("a listed column is there");
                assert_eq!(column.len(), table.n_rows());
            }
        }
    }
});
