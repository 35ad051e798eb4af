//! Models whose layers are of signs or of three values, in files: packed safetensors and GGUF give the same logits as the
//! graph that `Binarize` made of the numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use brain_blitz::blocks::BlockType;
use brain_blitz::formats::gguf::{self, Converted, Options as GgufOptions};
use brain_blitz::formats::{
    Checkpoint, Gguf, LowBitLayer, TensorView, low_bit, open_model, safetensors,
};
use brain_blitz::generation::{Options, Rows, Session};
use brain_blitz::nn::SignInputs;
use brain_blitz::prelude::*;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gemma2/tiny")
}

/// The layers of the tiny model: signs and three values, by all that activations can become.
fn layers(names: &[String]) -> BTreeMap<String, LowBitLayer> {
    let inputs = [
        SignInputs::Bytes,
        SignInputs::ScaledSigns,
        SignInputs::FourBits,
        SignInputs::Kept,
        SignInputs::TwoBits,
        SignInputs::Signs,
    ];
    let names = names.iter().filter(|name| name.contains("_proj"));
    let layer = |(at, name): (usize, &String)| {
        let layer = LowBitLayer {
            ternary: at % 3 == 0,
            inputs: inputs[at % inputs.len()],
        };
        (name.clone(), layer)
    };
    names.enumerate().map(layer).collect()
}

/// The tiny model with packed layers in `folder`.
fn write_packed(folder: &Path) -> BTreeMap<String, LowBitLayer> {
    let file = Checkpoint::open(tiny()).unwrap();
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let layers = layers(&names);
    assert_eq!(layers.len(), 4 * 7);
    let tensors: Vec<TensorView> = names.iter().map(|name| file.get(name).unwrap()).collect();
    fs::create_dir_all(folder).unwrap();
    fs::copy(tiny().join("config.json"), folder.join("config.json")).unwrap();
    low_bit::write_packed(folder.join("model.safetensors"), &tensors, &layers).unwrap();
    layers
}

fn load(path: &Path, cpu: &str) -> Session {
    let options = Options {
        cpu: cpu.into(),
        threads: Some(1),
        context: Some(64),
        logits: Rows::All,
        ..Options::default()
    };
    Session::load(path, &options, &mut |_| ()).unwrap()
}

fn logits(session: &mut Session) -> Vec<f32> {
    session.feed(&[2, 17, 300, 5, 81, 44]).unwrap().to_vec()
}

fn convert(input: &Path, output: &Path, quant: BlockType) -> Vec<Converted> {
    gguf::convert(input, output, &GgufOptions::new(quant), &mut |_, _| ()).unwrap()
}

#[test]
fn packed_layers_are_computed_as_they_are_declared() {
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("packed");
    let layers = write_packed(&packed);
    let (_, weights) = open_model(&packed, DType::F32).unwrap();
    for (name, layer) in &layers {
        assert_eq!(weights.low_bit(name), Some(*layer));
    }
    // The same numbers, which nothing declares to be of few bits.
    let plain = folder.path().join("plain");
    let tensors: Vec<TensorView> = weights
        .names()
        .iter()
        .map(|n| weights.get(n).unwrap())
        .collect();
    fs::create_dir_all(&plain).unwrap();
    fs::copy(tiny().join("config.json"), plain.join("config.json")).unwrap();
    safetensors::write(plain.join("model.safetensors"), &tensors).unwrap();
    let (mut as_signs, mut as_numbers) = (load(&packed, "reference"), load(&plain, "reference"));
    let (own, other) = (logits(&mut as_signs), logits(&mut as_numbers));
    let is_sign = |op: &brain_blitz::op::Op| matches!(op, brain_blitz::op::Op::SignMatrix(..));
    let count = |session: &Session| {
        let graph = session.graph();
        graph.inspect(|dag| dag.ids().filter(|&id| is_sign(&dag.node(id).op)).count())
    };
    assert!(count(&as_signs) >= layers.len());
    assert_eq!(count(&as_numbers), 0);
    assert_ne!(own, other, "activations are rounded where it is declared");
    assert!(as_signs.info().weight_bytes < as_numbers.info().weight_bytes / 2);
}

#[test]
fn gguf_files_hold_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let (packed, file) = (
        folder.path().join("packed"),
        folder.path().join("model.gguf"),
    );
    let layers = write_packed(&packed);
    let report = convert(&packed, &file, BlockType::F32);
    let expected = logits(&mut load(&packed, "reference"));
    assert_eq!(logits(&mut load(&file, "reference")), expected);
    let declared = Gguf::open(&file).unwrap().low_bit_layers().unwrap();
    assert_eq!(declared.len(), layers.len());
    // 64 columns are blocks of Q2_0, and 128 are of Q1_0; those of `down_proj`, 176, are no whole number of any.
    for tensor in &report {
        let ty = match declared.get(&tensor.name) {
            Some(_) if tensor.name.contains("ffn_down") => BlockType::F16,
            Some(layer) if tensor.name.contains("attn_output") && !layer.ternary => BlockType::Q1_0,
            Some(_) => BlockType::Q2_0,
            None => BlockType::F32,
        };
        assert_eq!(tensor.to, ty, "{}", tensor.name);
    }
    assert!(report.iter().any(|tensor| tensor.to == BlockType::Q1_0));
    // From there to another file, whatever type is asked for.
    let again = folder.path().join("again.gguf");
    let report = convert(&file, &again, BlockType::Q4_0);
    let few = |ty: BlockType| matches!(ty, BlockType::Q1_0 | BlockType::Q2_0);
    assert_eq!(report.iter().filter(|t| few(t.to)).count(), 4 * 6);
    assert_eq!(
        Gguf::open(&again).unwrap().low_bit_layers().unwrap(),
        declared
    );
}

#[cfg(feature = "llvm-backend")]
#[test]
fn native_code_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("packed");
    write_packed(&packed);
    let expected = logits(&mut load(&packed, "reference"));
    let size = expected.iter().fold(0f32, |size, x| size.max(x.abs()));
    for cpu in ["native", "x86-64-v3"] {
        let found = logits(&mut load(&packed, cpu));
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() <= 2e-4 * size, "{a} {b} {cpu}");
        }
    }
}

#[test]
fn what_is_declared_wrongly_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write_packed(folder.path());
    let path = folder.path().join("model.safetensors");
    let file = Checkpoint::open(&path).unwrap();
    let tensors: Vec<TensorView> = file.names().map(|name| file.get(name).unwrap()).collect();
    let mut said = file.metadata().clone();
    // The embedding is looked up too.
    let embedding = "model.embed_tokens.weight";
    let load = |tensors: &[TensorView], said: &BTreeMap<String, String>| {
        safetensors::write_with_metadata(&path, tensors, said).unwrap();
        let options = Options {
            cpu: "reference".into(),
            ..Options::default()
        };
        let loaded = Session::load(folder.path(), &options, &mut |_| ());
        loaded.map(drop).unwrap_err().to_string()
    };
    said.insert(
        format!("{}{embedding}", low_bit::KEY_PREFIX),
        "signs f32".into(),
    );
    let why = load(&tensors, &said);
    assert!(why.contains(embedding) && why.contains(".signs"), "{why}");
    let layers = [(
        embedding.to_owned(),
        LowBitLayer {
            ternary: false,
            inputs: SignInputs::Kept,
        },
    )];
    let plain = Checkpoint::open(tiny()).unwrap();
    let plain: Vec<TensorView> = plain.names().map(|name| plain.get(name).unwrap()).collect();
    low_bit::write_packed(&path, &plain, &layers.into()).unwrap();
    let options = Options {
        cpu: "reference".into(),
        ..Options::default()
    };
    let loaded = Session::load(folder.path(), &options, &mut |_| ());
    let why = loaded.map(drop).unwrap_err().to_string();
    assert!(
        why.contains(embedding) && why.contains("does more with it than multiply"),
        "{why}"
    );
}
