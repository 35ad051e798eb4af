//! What sampling leaves to choose from, against the logits processors of transformers.

use brain_blitz::generation::{Sampler, Sampling};

use crate::support::{close, figures};

#[test]
fn tokens_and_probabilities_are_those_of_transformers() {
    let cases = figures().sampling;
    assert_eq!(cases.len(), 7);
    for case in cases {
        let mut sampler = Sampler::new(Sampling {
            temperature: case.temperature,
            top_k: case.top_k,
            top_p: case.top_p,
            min_p: case.min_p,
            repeat_penalty: case.repeat_penalty,
            repeat_last_n: 64,
            seed: 0,
        })
        .unwrap();
        sampler.observe(&case.seen);
        let found = sampler.probabilities(&case.logits).unwrap();
        let ids: Vec<u32> = found.iter().map(|&(id, _)| id).collect();
        assert_eq!(ids, case.kept, "temperature {}", case.temperature);
        for (&(_, p), expected) in found.iter().zip(case.probabilities) {
            close(p, expected, 1e-5);
        }
    }
}
