//! Any bytes as a safetensors file: a checkpoint, one whose layers are signs, and statistics of columns give values or errors.

#![no_main]

use std::path::Path;

use brain_blitz::dtype::DType;
use brain_blitz::formats::{Bytes, Calibration, Checkpoint, ModelFiles};
use libfuzzer_sys::fuzz_target;

#[path = "../support/folder.rs"]
mod folder;

use folder::FOLDER;

fuzz_target!(|data: &[u8]| {
    let Ok(checkpoint) =
        Checkpoint::from_bytes(Path::new("fuzz.safetensors"), Bytes::copy_of(data))
    else {
        return;
    };
    for name in checkpoint.names() {
        let tensor = checkpoint.get(name).expect("a listed tensor is there");
        for dtype in [DType::F32, DType::F64, DType::I32] {
            let _ = tensor.convert_to(dtype);
        }
    }
    let file = FOLDER.join("model.safetensors");
    // A new file each time: the old one may still be mapped.
    let _ = std::fs::remove_file(&file);
    std::fs::write(&file, data).expect("the folder for temporary files can be written");
    let _ = Calibration::open(&file);
    let files = ModelFiles::open(&*FOLDER).expect("nothing of a folder is read yet");
    if let Ok(weights) = files.weights(DType::BF16) {
        for name in weights.names() {
            assert!(weights.stored_type(name).is_some());
            let _ = weights.low_bit(name);
            let _ = weights.get(name);
        }
    }
});
