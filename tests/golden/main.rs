//! Every op against the numbers that PyTorch gives (`tests/data/torch`).
//!
//! Each family has a table file that maps torch's op names to this crate's methods, lists the cases that are left out
//! with the reason, and states how many cases it covers, so that coverage cannot drop unnoticed. A test runs all cases
//! of its family on every pipeline. `GOLDEN=abs` in front of `cargo test --test golden` runs only ids that contain
//! `abs` (and skips the count).

mod case;
mod check;
mod families;

use brain_blitz::prelude::*;

/// What happens between recording and execution. It may rewrite the graph as long as `outputs` survive.
type Finish = fn(cx: &mut Graph, outputs: &mut Vec<GraphTensor>);

/// The pipelines that every case runs on.
const PIPELINES: &[(&str, Finish)] = &[
    ("reference", |_, _| ()),
    ("compiled", |cx, outputs| {
        cx.compile(<(Generic, LlvmCpu)>::default(), outputs);
    }),
];

macro_rules! family_tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check::run(stringify!($name), &families::$name::FAMILY);
        })*
    };
}

family_tests! {
    activation
    binary_math
    compare_logic
    creation
    unary_math
    index
    linalg
    nn
    norm_attn
    reduction
    shape
}

/// These are among torch's activations.
#[test]
fn softmax() {
    check::run("activation", &families::softmax::FAMILY);
}
