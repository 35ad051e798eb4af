//! Loading checkpoints and what belongs to them, and comparing logits.

use std::path::{Path, PathBuf};

use brain_blitz::formats::npy;
use brain_blitz::generation::{Options, Rows, Session};

/// A folder of `tests/data/gemma2`.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/gemma2")
        .join(name)
}

/// For a machine and a number of threads, with the logits of every token.
pub fn options(cpu: &str, threads: usize) -> Options {
    Options {
        cpu: cpu.into(),
        threads: Some(threads),
        context: None,
        logits: Rows::All,
        ..Options::default()
    }
}

/// The checkpoint in `folder`, for a machine and a number of threads.
pub fn session(folder: &Path, cpu: &str, threads: usize) -> Session {
    Session::load(folder, &options(cpu, threads), &mut |_| ()).unwrap()
}

/// What transformers computed for a checkpoint.
pub struct Golden {
    pub prompt: Vec<u32>,
    pub logits: Vec<f32>,
    pub greedy: Vec<u32>,
    pub greedy_logits: Vec<f32>,
}

pub fn golden(name: &str) -> Golden {
    let ids = |file: &str| {
        let tensor = npy::read(folder(name).join(file)).unwrap();
        let ids: Vec<i64> = bytemuck::pod_collect_to_vec(&tensor.bytes);
        ids.into_iter()
            .map(|id| u32::try_from(id).unwrap())
            .collect::<Vec<u32>>()
    };
    let floats = |file: &str| {
        let tensor = npy::read(folder(name).join(file)).unwrap();
        bytemuck::pod_collect_to_vec::<u8, f32>(&tensor.bytes)
    };
    Golden {
        prompt: ids("ref_input_ids.npy"),
        logits: floats("ref_logits_f32.npy"),
        greedy: ids("ref_greedy_ids.npy"),
        greedy_logits: floats("ref_greedy_logits_f32.npy"),
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
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best as u32
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

/// The last row of logits.
pub fn last_row(session: &Session, logits: &[f32]) -> Vec<f32> {
    logits[logits.len() - session.vocab_size()..].to_vec()
}
