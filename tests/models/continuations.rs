//! Real models, which `make models` fetches: logits as transformers computes them from the same file, and continuations as
//! llama.cpp's. Long tests (`BB_LONG=1`).
//!
//! llama.cpp rounds activations to 8 bits, as products with blocks do here, which moves logits by several tenths. So its
//! choice is compared only where the best two logits are further apart than that, and continuations follow its path;
//! near-ties are printed. Against transformers, whose numbers are not rounded, logits are compared themselves.

use std::path::Path;

use brain_blitz::formats::gguf::BlockTensor;
use brain_blitz::formats::{StoredType, TensorView, Weights, open_model};
use brain_blitz::generation::{Options, Rows, Session};
use brain_blitz::prelude::*;

use crate::real::{Reference, model, tell};
use crate::support::argmax;

/// How near two logits are that rounded activations may put in another order.
const NEAR: f32 = 0.5;
/// How far a logit may be from transformers' where nothing is rounded.
const EXACT: f32 = 1e-3;

/// Weights as numbers, so that activations are not rounded.
struct Decoded<'a>(&'a dyn Weights);

impl Weights for Decoded<'_> {
    fn source(&self) -> &Path {
        self.0.source()
    }

    fn names(&self) -> Vec<&str> {
        self.0.names()
    }

    fn stored_type(&self, name: &str) -> Option<StoredType> {
        self.0.stored_type(name)
    }

    fn blocks(&self, _: &str) -> Option<BlockTensor> {
        None
    }

    fn get(&self, name: &str) -> brain_blitz::Result<TensorView> {
        self.0.get(name)
    }
}

fn options(rows: Rows) -> Options {
    Options {
        context: Some(512),
        threads: Some(2),
        logits: rows,
        ..Options::default()
    }
}

/// Checks logits after all tokens at once where nothing is rounded; gives those of every step of every case.
fn check_numbers(reference: &Reference, path: &Path) -> Vec<Vec<Vec<f32>>> {
    let (config, weights) = open_model(path, DType::F32).unwrap();
    let weights = Decoded(&*weights);
    let mut session = Session::new(config, &weights, &options(Rows::All), &mut |_| ()).unwrap();
    let (vocab, mut worst, mut all) = (session.vocab_size(), 0.0, Vec::new());
    for case in &reference.cases {
        session.reset();
        let chosen = case.llama_cpp.iter().map(|step| step.0);
        let mut ids: Vec<u32> = case.ids.iter().copied().chain(chosen).collect();
        ids.pop();
        let logits = session.feed(&ids).unwrap();
        let rows = logits.chunks(vocab).skip(case.ids.len() - 1);
        let rows: Vec<Vec<f32>> = rows.map(<[f32]>::to_vec).collect();
        assert_eq!(rows.len(), case.transformers.len());
        for (row, step) in rows.iter().zip(&case.transformers) {
            for (id, expected) in [(step.0, step.1), (step.2, step.3)] {
                worst = f32::max(worst, (row[id as usize] - expected).abs());
            }
        }
        all.push(rows);
    }
    tell(&format!(
        "{}: logits differ from transformers' by {worst}",
        reference.file
    ));
    assert!(
        worst < EXACT,
        "a logit differs from transformers' by {worst}"
    );
    all
}

fn check_continuations(name: &str) {
    let Some((reference, path)) = model(name) else {
        return;
    };
    let exact = check_numbers(&reference, &path);
    let mut session = Session::load(&path, &options(Rows::Last), &mut |_| ()).unwrap();
    let (mut n_same, mut n_near) = (0, 0);
    for (case, exact) in reference.cases.iter().zip(&exact) {
        session.reset();
        let mut feed = case.ids.clone();
        for (at, (step, exact)) in case.llama_cpp.iter().zip(exact).enumerate() {
            let logits = session.feed(&feed).unwrap();
            let (ours, theirs) = (argmax(logits), step.0);
            feed = vec![theirs];
            if ours == theirs {
                n_same += 1;
                continue;
            }
            n_near += 1;
            let gap = |row: &[f32]| row[ours as usize] - row[theirs as usize];
            let (rounded, plain) = (gap(logits), gap(exact));
            tell(&format!(
                "{:?} step {at}: {ours} here, {theirs} in llama.cpp; ahead by {rounded} here, {plain} unrounded, \
                 -{} in llama.cpp",
                case.prompt,
                step.1 - step.3
            ));
            assert!(
                rounded < NEAR && plain.abs() < NEAR,
                "{name}: no near-tie at step {at} of {:?}",
                case.prompt
            );
        }
    }
    let n: usize = reference
        .cases
        .iter()
        .map(|case| case.llama_cpp.len())
        .sum();
    tell(&format!(
        "{name}: {n_same} of {n} tokens as in llama.cpp, {n_near} near-ties"
    ));
    assert!(n >= 200 && n_same + n_near == n);
    assert!(n_same * 10 >= n * 9, "{n_same} of {n} tokens are the same");
}

#[test]
fn smollm2_continues_as_llama_cpp_does() {
    check_continuations("smollm2");
}

#[test]
fn gemma3_continues_as_llama_cpp_does() {
    check_continuations("gemma3");
}
