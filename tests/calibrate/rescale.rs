//! What matrices give, and the factors that make rounded ones give it again.

use std::path::PathBuf;

use brain_blitz::compilers::Outputs;
use brain_blitz::formats::gguf::{self, Converted, Gguf, scale_rows};
use brain_blitz::formats::{ModelFiles, Weights};
use brain_blitz::generation::Options;
use brain_blitz::generation::evaluate::Windows;
use brain_blitz::generation::rescale::{Matrices, Model, SHARE, row_factors};

use super::*;

const NAMES: [&str; 3] = ["table.weight", "up.weight", "down.weight"];

fn names() -> impl Iterator<Item = String> {
    NAMES.into_iter().map(str::to_owned)
}

#[test]
fn outputs_are_those_of_plain_loops() {
    let mut net = net(DType::F32);
    let outputs = Outputs::of(names()).add_to(&mut net.cx).unwrap();
    let found: Vec<(&str, usize)> = outputs.iter().map(|o| (o.name(), o.rows())).collect();
    assert_eq!(
        found,
        [("table.weight", 50), ("up.weight", 96), ("down.weight", 64)]
    );
    net.cx.compile(<(Generic, LlvmCpu)>::default(), ());
    net.ids.set(sample(1));
    net.cx.set_dim('s', 3);
    net.cx.execute();
    let [table, up] = [0, 1].map(|i| net.weights[i].1.array().into_f32());
    let given = outputs[1].try_data().unwrap();
    assert_eq!(given.len(), 6 * 96);
    for (given, id) in given.chunks(96).zip(sample(1)) {
        let x = &table[id as usize * 64..][..64];
        for (given, w) in given.iter().zip(up.chunks(64)) {
            let expected: f64 = x.iter().zip(w).map(|(a, b)| f64::from(a * b)).sum();
            assert!((f64::from(*given) - expected).abs() < 1e-4, "{expected}");
        }
    }
    // The last product is the graph's own result.
    assert_eq!(outputs[0].try_data().unwrap(), net.y.data());
}

#[test]
fn what_is_not_asked_for_costs_nothing() {
    let mut net = net(DType::F32);
    let nodes = net.cx.n_nodes();
    let outputs = Outputs::of(["other.weight".to_owned()]).add_to(&mut net.cx);
    assert_eq!((outputs.unwrap().len(), net.cx.n_nodes()), (0, nodes));
}

#[test]
fn products_that_nothing_needs_any_more_are_not_found() {
    let mut net = net(DType::F32);
    // Activations are rounded too, so each product is there twice until it is compiled for a machine.
    let report = net.cx.compile((Generic, Quantize::q8_0()), ());
    assert_eq!(report.stored.len(), 3, "{report}");
    let outputs = Outputs::of(names()).add_to(&mut net.cx).unwrap();
    let calibrator = Calibrate::default().add_to(&mut net.cx).unwrap();
    assert_eq!((outputs.len(), calibrator.weights().count()), (3, 3));
    net.ids.set(sample(1));
    net.cx.set_dim('s', 3);
    net.cx.execute();
    let last = outputs.iter().find(|output| output.name() == NAMES[0]);
    assert_eq!(last.unwrap().try_data().unwrap(), net.y.data());
}

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn converted(input: &Path, output: &Path) -> Vec<Converted> {
    let options = gguf::Options::new(BlockType::Q8_0);
    gguf::convert(input, output, &options, &mut |_, _| ()).unwrap()
}

/// The factors between two models, of the matrices of one layer.
fn factors(original: &Path, rounded: &Path, matrices: &Matrices) -> BTreeMap<String, Vec<f32>> {
    let files = [original, rounded].map(|path| ModelFiles::open(path).unwrap());
    let weights: Vec<Box<dyn Weights>> = files
        .iter()
        .map(|files| files.weights(DType::F32).unwrap())
        .collect();
    let model = |i: usize| Model {
        config: files[i].config().unwrap(),
        weights: &*weights[i],
    };
    let vocab = model(0).config.vocab_size() as u32;
    let ids: Vec<u32> = (0..48)
        .map(|i| 3 + (i * 29 + i * i) % (vocab - 3))
        .collect();
    let windows = Windows::new(&ids, None, 24, 24).unwrap();
    let options = Options {
        threads: Some(1),
        context: Some(32),
        ..Options::default()
    };
    let mut told = Vec::new();
    let tell = &mut |done, all| told.push((done, all));
    let both = [model(0), model(1)];
    let found = row_factors(both, matrices, &windows, &options, &mut |_| (), tell).unwrap();
    assert_eq!(told, [(0, 2), (1, 2), (2, 2)]);
    found
}

#[test]
fn rows_that_became_smaller_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let [original, smaller] = ["a.gguf", "b.gguf"].map(|name| folder.path().join(name));
    let tensors = converted(&shared("models/gemma2-shakespeare"), &original);
    std::fs::copy(&original, &smaller).unwrap();
    // A factor for each row of the last layer's last matrix, which changes nothing before it.
    let last = tensors
        .iter()
        .rfind(|t| t.name.ends_with("ffn_down.weight"));
    let last = last.unwrap();
    let rows = Gguf::open(&smaller).unwrap().get(&last.name).unwrap().shape[0];
    let scales: Vec<f32> = (0..rows).map(|i| [1.0, 0.5, 0.75][i % 3]).collect();
    let change = BTreeMap::from([(last.name.clone(), scales.clone())]);
    scale_rows(&smaller, &change).unwrap();

    let up = last.parameter.replace("down_proj", "up_proj");
    let matrices = [&last.parameter, &up].map(|name| (name.clone(), None));
    let found = factors(&original, &smaller, &matrices.into());
    assert_eq!(found.len(), 2);
    assert!(found[&up].iter().all(|&factor| factor == 1.0));
    for (found, scale) in found[&last.parameter].iter().zip(scales) {
        let expected = 1.0 + SHARE * (f64::from(scale).recip() - 1.0);
        assert!(
            (f64::from(*found) - expected).abs() < 1e-3,
            "{found} {expected}"
        );
    }
}

#[test]
fn rows_in_another_order_are_compared_with_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("llama.gguf");
    let checkpoint = shared("tests/data/models/llama");
    let tensors = converted(&checkpoint, &file);
    let turned = tensors.iter().filter(|tensor| tensor.rows.is_some());
    let matrices: Matrices = turned
        .map(|tensor| (tensor.parameter.clone(), tensor.rows.clone()))
        .collect();
    assert!(matrices.len() >= 4, "queries and keys of two layers");
    // Narrow rows are stored in f16, in which a row gives nearly what it gave, and another one something else.
    for (name, found) in factors(&checkpoint, &file, &matrices) {
        let far = found.iter().map(|factor| (factor - 1.0).abs());
        let far = far.fold(0.0, f32::max);
        assert!(far < 0.05, "{name}: {far}");
    }
}

#[test]
fn factors_go_into_scales_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let tensors = converted(&shared("models/gemma2-shakespeare"), &path);
    let before = Gguf::open(&path).unwrap();
    let name = "blk.0.ffn_up.weight".to_owned();
    let n = before.get(&name).unwrap().shape[0];
    let scales: Vec<f32> = (0..n).map(|i| 1.0 + i as f32 / 64.0).collect();
    scale_rows(&path, &BTreeMap::from([(name.clone(), scales.clone())])).unwrap();
    let after = Gguf::open(&path).unwrap();
    assert_eq!(before.metadata(), after.metadata());
    for tensor in &tensors {
        let [before, after] = [&before, &after].map(|file| file.get(&tensor.name).unwrap());
        if tensor.name != name {
            assert_eq!(*before.bytes, *after.bytes, "{}", tensor.name);
            continue;
        }
        let row = before.bytes.len() / n;
        let rows = before.bytes.chunks(row).zip(after.bytes.chunks(row));
        for ((before, after), scale) in rows.zip(&scales) {
            // The scale is in the first two bytes of 34.
            for (before, after) in before.chunks(34).zip(after.chunks(34)) {
                let [x, y] = [before, after].map(|b| half::f16::from_le_bytes([b[0], b[1]]));
                assert_eq!(y, half::f16::from_f32(x.to_f32() * scale));
                assert_eq!(before[2..], after[2..]);
            }
        }
    }
    let norm = BTreeMap::from([("blk.0.attn_norm.weight".to_owned(), vec![1.0])]);
    for (wrong, why) in [
        (
            BTreeMap::from([("nowhere".to_owned(), vec![1.0])]),
            "nowhere",
        ),
        (BTreeMap::from([(name, vec![1.0])]), "shape"),
        (norm, "shape"),
    ] {
        let error = scale_rows(&path, &wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
