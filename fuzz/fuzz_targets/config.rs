//! Any bytes as a `config.json`: a configuration or an error, and a configuration can be written to a GGUF file.

#![no_main]

use brain_blitz::formats::ModelConfig;
use brain_blitz::formats::gguf::Writer;
use libfuzzer_sys::fuzz_target;

#[path = "../support/folder.rs"]
mod folder;

use folder::FOLDER;

fuzz_target!(|data: &[u8]| {
    std::fs::write(FOLDER.join("config.json"), data)
        .expect("the folder for temporary files can be written");
    if let Ok(config) = ModelConfig::open(&*FOLDER) {
        let _ = config.parameter_count();
        let _ = config.to_gguf(&mut Writer::new());
    }
});
