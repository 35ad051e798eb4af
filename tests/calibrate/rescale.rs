//! Factors for rows of products, and those that make a rounded model predict again what it predicted.

use std::path::PathBuf;

use brain_blitz::compilers::RowFactors;
use brain_blitz::formats::gguf::{self, Converted, Gguf, scale_rows};

use super::*;

const NAMES: [&str; 3] = ["table.weight", "up.weight", "down.weight"];

#[test]
fn products_are_multiplied_row_by_row() {
    let mut net = net(DType::F32);
    let plain = {
        let mut net = super::net(DType::F32);
        run(&mut net)
    };
    let factors = RowFactors::add_to(&mut net.cx, NAMES).unwrap();
    let found: Vec<&str> = factors.iter().map(|(name, _)| &**name).collect();
    assert_eq!(found, NAMES);
    net.cx.compile(<(Generic, LlvmCpu)>::default(), ());
    // All are one.
    let ones = run(&mut net);
    assert_near(
        &ones,
        &plain.iter().map(|&y| y.into()).collect::<Vec<f64>>(),
        "y",
    );
    // The rows of the last product are the columns of the result.
    let of = |i: usize| [1.0, -2.0, 0.5][i % 3];
    factors[0].1.set((0..50).map(of).collect::<Vec<f32>>());
    let expected = ones.iter().enumerate().map(|(i, y)| y * of(i % 50));
    assert_eq!(run(&mut net), expected.collect::<Vec<f32>>());
}

fn run(net: &mut Net) -> Vec<f32> {
    net.ids.set(sample(1));
    net.cx.set_dim('s', 3);
    net.cx.execute();
    net.y.data()
}

#[test]
fn what_is_multiplied_twice_or_has_one_row_gets_no_factors() {
    let mut cx = Graph::new();
    let x = cx.input((2, 32), DType::F32);
    let mut weight = |rows: usize, name: &str| cx.input((rows, 32), DType::F32).set_name(name);
    let [twice, one, other] = [(32, "twice"), (1, "one"), (8, "other")].map(|w| weight(w.0, w.1));
    let product = |x: GraphTensor, w: GraphTensor| x.matmul(w.transpose(0, 1));
    let x = product(product(x, twice).tanh(), twice);
    (product(x, one) + product(x, other).sum(1).unsqueeze(1)).retrieve();
    let names = ["twice", "one", "other", "nowhere"];
    let factors = RowFactors::add_to(&mut cx, names).unwrap();
    assert_eq!(factors.len(), 1);
    assert_eq!(factors[0].0, "other");
}

#[test]
fn products_that_nothing_needs_any_more_are_not_found() {
    let mut net = net(DType::F32);
    // Activations are rounded too, so each product is there twice until it is compiled for a machine.
    let report = net.cx.compile((Generic, Quantize::q8_0()), ());
    assert_eq!(report.stored.len(), 3, "{report}");
    let calibrator = Calibrate::default().add_to(&mut net.cx).unwrap();
    assert_eq!(calibrator.weights().count(), 3);
    let factors = RowFactors::add_to(&mut net.cx, NAMES).unwrap();
    assert_eq!(factors.len(), 3);
}

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn converted(input: &Path, output: &Path, quant: BlockType) -> Vec<Converted> {
    let options = gguf::Options::new(quant);
    gguf::convert(input, output, &options, &mut |_, _| ()).unwrap()
}

// The definitions of operations would learn for minutes.
#[cfg(feature = "llvm-backend")]
mod learning {
    use brain_blitz::formats::{ModelFiles, Weights};
    use brain_blitz::generation::evaluate::{Windows, evaluate};
    use brain_blitz::generation::{Options, Rows, Session};
    use brain_blitz::train::rescale::{Learnt, Model, learn_factors};

    use super::*;

    fn options() -> Options {
        Options {
            threads: Some(1),
            context: Some(72),
            logits: Rows::All,
            ..Options::default()
        }
    }

    /// Tokens of all kinds.
    fn tokens(n: u32) -> Vec<u32> {
        (0..n).map(|i| 100 + i * i * 37 % 1901).collect()
    }

    fn learnt(original: &Path, file: &Path, tensors: &[Converted], ids: &[u32]) -> Learnt {
        let files = ModelFiles::open(original).unwrap();
        let weights: Box<dyn Weights> = files.weights(DType::F32).unwrap();
        let model = Model {
            config: files.config().unwrap(),
            weights: &*weights,
        };
        let windows = Windows::new(ids, None, 64, 64).unwrap();
        let mut told = Vec::new();
        let tell = &mut |done, all| told.push((done, all));
        let parts = (file, tensors);
        let found = learn_factors(model, parts, &windows, &options(), &mut |_| (), tell);
        let found = found.unwrap();
        let n = found.divergences.len();
        assert_eq!(told, (0..=n).map(|i| (i, n)).collect::<Vec<_>>());
        found
    }

    /// The mean divergence of predictions.
    fn divergence(original: &Path, file: &Path, ids: &[u32]) -> f64 {
        let mut sessions = [original, file].map(|path| {
            let files = ModelFiles::open(path).unwrap();
            let weights = files.weights(DType::F32).unwrap();
            let config = files.config().unwrap();
            Session::new(config, &*weights, &options(), &mut |_| ()).unwrap()
        });
        let [original, rounded] = &mut sessions;
        let windows = Windows::new(ids, None, 64, 64).unwrap();
        let found = evaluate(rounded, Some(original), &windows, &mut |_, _| ());
        found.unwrap().divergence.kl_mean()
    }

    #[test]
    fn a_model_that_became_weaker_predicts_again_what_it_did() {
        let folder = tempfile::tempdir().unwrap();
        let original = shared("models/gemma2-shakespeare");
        let file = folder.path().join("weak.gguf");
        let tensors = converted(&original, &file, BlockType::Q8_0);
        let opened = Gguf::open(&file).unwrap();
        // What eight bits leave alone is made weaker: rows of some matrices, and numbers of a norm.
        let weak = tensors.iter().filter(|tensor| {
            let ends = ["ffn_down.weight", "attn_v.weight", "2.ffn_norm.weight"];
            ends.iter().any(|end| tensor.name.ends_with(end))
        });
        let weak = weak.map(|tensor| {
            let rows = opened.get(&tensor.name).unwrap().shape[0];
            let factors = (0..rows).map(|row| [0.94, 1.0][row % 2]);
            (tensor.name.clone(), factors.collect::<Vec<f32>>())
        });
        scale_rows(&file, &weak.collect()).unwrap();
        let ids = tokens(64 * 64 + 10);
        let (sample, held_out) = ids.split_at(64 * 60 + 10);
        let before = divergence(&original, &file, held_out);
        let found = learnt(&original, &file, &tensors, sample);
        // Ten tokens are no window.
        assert_eq!(found.divergences.len(), 60);
        // Seven matrices of six layers, and four norms of each and the last.
        assert_eq!(found.factors.len(), 6 * 7 + 6 * 4 + 1);
        scale_rows(&file, &found.factors).unwrap();
        let after = divergence(&original, &file, held_out);
        assert!(after < 0.5 * before, "{before} {after}");
        let again = learnt(&original, &file, &tensors, &sample[..64]);
        assert!(again.divergences[0] < 0.5 * found.divergences[0]);
    }
}

#[test]
fn factors_go_into_scales_and_nothing_else_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let tensors = converted(&shared("models/gemma2-shakespeare"), &path, BlockType::Q8_0);
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
    // A number of a vector is a row.
    let norm = "blk.0.attn_norm.weight".to_owned();
    let halves = |n: usize| BTreeMap::from([(norm.clone(), vec![0.5; n])]);
    let old = after.get(&norm).unwrap().dequantize().unwrap();
    scale_rows(&path, &halves(old.len())).unwrap();
    let new = Gguf::open(&path)
        .unwrap()
        .get(&norm)
        .unwrap()
        .dequantize()
        .unwrap();
    assert!(new.iter().zip(old).all(|(new, old)| *new == 0.5 * old));

    let nowhere = BTreeMap::from([("nowhere".to_owned(), vec![1.0])]);
    let short = BTreeMap::from([(name.clone(), vec![1.0])]);
    for (wrong, why) in [(nowhere, "nowhere"), (short, "shape"), (halves(1), "shape")] {
        let error = scale_rows(&path, &wrong).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    converted(&shared("models/gemma2-shakespeare"), &path, BlockType::BF16);
    let error = scale_rows(&path, &BTreeMap::from([(name, scales)])).unwrap_err();
    assert!(error.to_string().contains("no scales of f16"), "{error}");
}
