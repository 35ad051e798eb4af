//! The trained model of the repository against its own reference: three prompts and their continuations.

use std::path::Path;

use brain_blitz::formats::Checkpoint;

use crate::support::{continue_greedily, last_row, max_diff, session};

fn check(cpu: &str, n_new: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/gemma2-shakespeare");
    let reference = Checkpoint::open(folder.join("reference.safetensors")).unwrap();
    let ids = |name: String| -> Vec<u32> {
        let tensor = reference.get(&name).unwrap();
        let ids: Vec<i64> = bytemuck::pod_collect_to_vec(&tensor.bytes);
        ids.into_iter()
            .map(|id| u32::try_from(id).unwrap())
            .collect()
    };
    let mut session = session(&folder, cpu, 2);
    for prompt in 0..3 {
        let tokens = ids(format!("{prompt}/input_ids"));
        let text = ids(format!("{prompt}/greedy_ids"));
        assert_eq!(
            text.len(),
            tokens.len() + 40,
            "the reference has 40 new tokens"
        );
        let expected: Vec<f32> = bytemuck::pod_collect_to_vec(
            &reference.get(&format!("{prompt}/logits")).unwrap().bytes,
        );
        session.reset();
        let logits = session.feed(&tokens).unwrap().to_vec();
        let diff = max_diff(&logits, &expected);
        assert!(
            diff < 5e-4,
            "prompt {prompt} on {cpu}: a logit differs by {diff}"
        );
        let last = last_row(&session, &logits);
        let (new, _) = continue_greedily(&mut session, &last, n_new);
        assert_eq!(
            new,
            text[tokens.len()..][..n_new],
            "prompt {prompt} on {cpu}"
        );
    }
}

#[test]
fn on_the_reference_executor() {
    check("reference", 3);
}

#[cfg(feature = "llvm-backend")]
#[test]
fn native() {
    check("native", 40);
}

#[cfg(feature = "llvm-backend")]
#[test]
fn avx2() {
    check("x86-64-v3", 40);
}
