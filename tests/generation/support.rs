//! The figures of other programs, and sessions.

use std::fs;
use std::path::{Path, PathBuf};

use brain_blitz::blocks::BlockType;
use brain_blitz::generation::session::{Options, Rows, Session};
use serde::Deserialize;

/// What `tests/data/evaluate/make.py` writes.
#[derive(Deserialize)]
pub struct Figures {
    #[cfg(feature = "llvm-backend")]
    pub perplexity: Vec<Perplexity>,
    pub bleu: Vec<BleuCase>,
    pub divergence: DivergenceCase,
    pub sampling: Vec<SamplingCase>,
}

#[cfg(feature = "llvm-backend")]
#[derive(Deserialize)]
pub struct Perplexity {
    pub bos: bool,
    pub context: usize,
    pub stride: usize,
    pub tokens: usize,
    pub nats: f64,
}

#[derive(Deserialize)]
pub struct BleuCase {
    pub texts: Vec<Vec<u32>>,
    pub references: Vec<Vec<u32>>,
    pub scores: [f64; 4],
    pub precisions: [f64; 4],
    pub brevity_penalty: f64,
}

#[derive(Deserialize)]
pub struct DivergenceCase {
    pub reference: Vec<Vec<f32>>,
    pub model: Vec<Vec<f32>>,
    pub targets: Vec<u32>,
    pub kl_mean: f64,
    pub kl_p99: f64,
    pub kl_median: f64,
    pub agreement: f64,
    pub rms_delta_p: f64,
    pub logit_mse: f64,
    pub logit_cosine: f64,
    pub perplexity: f64,
}

#[derive(Deserialize)]
pub struct SamplingCase {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repeat_penalty: f32,
    pub logits: Vec<f32>,
    pub seen: Vec<u32>,
    pub kept: Vec<u32>,
    pub probabilities: Vec<f64>,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn figures() -> Figures {
    let text = fs::read(repository().join("tests/data/evaluate/figures.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[cfg(feature = "llvm-backend")]
pub fn text() -> String {
    fs::read_to_string(repository().join("tests/data/evaluate/text.txt")).unwrap()
}

pub fn shakespeare() -> PathBuf {
    repository().join("models/gemma2-shakespeare")
}

pub fn tiny() -> PathBuf {
    repository().join("tests/data/gemma2/tiny")
}

pub fn session(folder: &Path, rows: Rows, context: usize, quant: Option<BlockType>) -> Session {
    let cpu = match cfg!(feature = "llvm-backend") {
        true => "native",
        false => "reference",
    };
    let options = Options {
        cpu: cpu.into(),
        threads: Some(2),
        context: Some(context),
        logits: rows,
        quant: quant.map(Into::into),
        ..Options::default()
    };
    Session::load(folder, &options, &mut |_| ()).unwrap()
}

/// Asserts that both are the same but for this part of the second.
#[track_caller]
pub fn close(found: f64, expected: f64, relative: f64) {
    let bound = relative * expected.abs().max(1e-9);
    assert!((found - expected).abs() <= bound, "{found} for {expected}");
}
