//! Every checkpoint on every pipeline.

use crate::support::{continue_greedily, folder, golden, last_row, max_diff, session};

/// How far a logit may be off: a twentieth of what the smallest feature of the model changes.
const TOLERANCE: f32 = 5e-4;

fn check(name: &str, cpu: &str) {
    let golden = golden(name);
    let mut session = session(&folder(name), cpu, 2);
    let logits = session.feed(&golden.prompt).unwrap().to_vec();
    let diff = max_diff(&logits, &golden.logits);
    assert!(
        diff < TOLERANCE,
        "{name} on {cpu}: a logit differs by {diff}"
    );
    let last = last_row(&session, &logits);
    let (ids, logits) = continue_greedily(&mut session, &last, golden.greedy.len());
    assert_eq!(ids, golden.greedy, "{name} on {cpu}");
    let diff = max_diff(&logits, &golden.greedy_logits);
    assert!(
        diff < TOLERANCE,
        "{name} on {cpu}: a logit differs by {diff} in the continuation"
    );
}

macro_rules! pipelines {
    ($($test:ident: $cpu:literal;)*) => {
        $(
            #[test]
            fn $test() {
                for name in ["tiny", "odd", "bf16", "sharded"] {
                    check(name, $cpu);
                }
            }
        )*
    };
}

pipelines! {
    reference: "reference";
}

#[cfg(feature = "llvm-backend")]
pipelines! {
    scalar: "scalar";
    avx2: "x86-64-v3";
    native: "native";
}
