//! Every op against the numbers that PyTorch gives (`tests/data/torch`).
//!
//! Each family has a table file that maps torch's op names to this crate's methods, lists the cases that are left out
//! with the reason, and states how many cases it covers, so that coverage cannot drop unnoticed. A test runs all cases
//! of its family on every pipeline. `GOLDEN=abs` in front of `cargo test --test golden` runs only ids that contain
//! `abs` (and skips the count).

mod call;
mod case;
mod check;
mod families;
mod outcome;

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
    conv_pool
    creation
    unary_math
    index
    linalg
    loss
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
