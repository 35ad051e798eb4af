//! Checkpoints, what transformers computed for them, and comparing logits.

use std::path::{Path, PathBuf};

use brain_blitz::formats::{Checkpoint, StoredType};
use brain_blitz::generation::{Options, Rows, Session};

/// All checkpoints of `tests/data/models`.
pub const NAMES: [&str; 6] = ["llama", "smollm2", "mistral", "qwen2", "qwen3", "gemma3"];

/// How far a logit may be off: a two-thousandth of what the smallest feature of a model changes.
pub const TOLERANCE: f32 = 5e-4;

/// A folder of `tests/data/models`.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/models")
        .join(name)
}

/// For a machine, with the logits of every token.
pub fn options(cpu: &str) -> Options {
    Options {
        cpu: cpu.into(),
        threads: Some(2),
        logits: Rows::All,
        ..Options::default()
    }
}

/// What transformers computed for a checkpoint.
pub struct Golden {
    pub prompt: Vec<u32>,
    pub logits: Vec<f32>,
    pub greedy: Vec<u32>,
    pub greedy_logits: Vec<f32>,
}

pub fn golden(name: &str) -> Golden {
    let file = Checkpoint::open(folder(name).join("ref.safetensors")).unwrap();
    let ids = |name: &str| {
        let tensor = file.get(name).unwrap();
        assert_eq!(tensor.dtype, StoredType::I64);
        let ids: Vec<i64> = bytemuck::pod_collect_to_vec(&tensor.bytes);
        ids.into_iter()
            .map(|id| u32::try_from(id).unwrap())
            .collect::<Vec<u32>>()
    };
    let floats =
        |name: &str| bytemuck::pod_collect_to_vec::<u8, f32>(&file.get(name).unwrap().bytes);
    Golden {
        prompt: ids("input_ids"),
        logits: floats("logits"),
        greedy: ids("greedy_ids"),
        greedy_logits: floats("greedy_logits"),
    }
}

/// The largest difference of two lists of the same length; a NaN counts as infinite.
pub fn max_diff(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "numbers of logits");
    let diff = |(a, b): (&f32, &f32)| {
        let diff = (a - b).abs();
        if diff.is_nan() { f32::INFINITY } else { diff }
    };
    a.iter().zip(b).map(diff).fold(0.0, f32::max)
}

/// The first index of the largest number.
pub fn argmax(row: &[f32]) -> u32 {
    let best = (0..row.len())
        .rev()
        .max_by(|&a, &b| row[a].total_cmp(&row[b]));
    best.expect("there are logits") as u32
}

/// Continues by the most likely token `n` times, given the logits of the last position: tokens, and the logits that
/// each was chosen from.
pub fn continue_greedily(session: &mut Session, last: &[f32], n: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut ids, mut logits) = (Vec::new(), last.to_vec());
    for i in 0..n {
        let row = logits.len() - session.vocab_size();
        let next = argmax(&logits[row..]);
        ids.push(next);
        if i + 1 < n {
            logits.extend_from_slice(session.feed(&[next]).unwrap());
        }
    }
    (ids, logits)
}

/// Checks the logits of the prompt, and of a continuation with the cache.
#[track_caller]
pub fn assert_golden(session: &mut Session, name: &str, what: &str) {
    let golden = golden(name);
    let logits = session.feed(&golden.prompt).unwrap().to_vec();
    let diff = max_diff(&logits, &golden.logits);
    assert!(diff < TOLERANCE, "{name} {what}: a logit differs by {diff}");
    let last = &logits[logits.len() - session.vocab_size()..];
    let (ids, logits) = continue_greedily(session, last, golden.greedy.len());
    assert_eq!(ids, golden.greedy, "{name} {what}");
    let diff = max_diff(&logits, &golden.greedy_logits);
    assert!(
        diff < TOLERANCE,
        "{name} {what}: a logit differs by {diff} in the continuation"
    );
}
