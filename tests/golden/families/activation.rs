//! Activation functions.

use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::Family;

fn gelu(c: &mut Call<'_>) -> GraphTensor {
    match c.kw("approximate") {
        Some(Arg::Str(kind)) if kind == "tanh" => c.x().gelu_tanh(),
        _ => c.x().gelu(),
    }
}

/// Torch's function turns into the identity above its threshold.
fn softplus(c: &mut Call<'_>) -> GraphTensor {
    let (beta, threshold) = (c.float(0, "beta", 1.0), c.float(1, "threshold", 20.0));
    let scaled = c.x() * beta;
    scaled.gt(threshold).where_(c.x(), scaled.softplus() / beta)
}

fn prelu(c: &mut Call<'_>) -> GraphTensor {
    let weight = c.get(0, "weight").expect("a weight").tensor();
    c.x().prelu(weight)
}

pub const FAMILY: Family = Family {
    ops: &[
        ("nn.functional.relu", |c| c.x().relu().into()),
        ("nn.functional.relu6", |c| c.x().relu6().into()),
        ("nn.functional.leaky_relu", |c| {
            c.x().leaky_relu(c.float(0, "negative_slope", 0.01)).into()
        }),
        ("nn.functional.prelu", |c| prelu(c).into()),
        ("nn.functional.elu", |c| {
            c.x().elu(c.float(0, "alpha", 1.0)).into()
        }),
        ("nn.functional.celu", |c| {
            c.x().celu(c.float(0, "alpha", 1.0)).into()
        }),
        ("nn.functional.selu", |c| c.x().selu().into()),
        ("nn.functional.gelu", |c| gelu(c).into()),
        ("nn.functional.silu", |c| c.x().silu().into()),
        ("nn.functional.mish", |c| c.x().mish().into()),
        ("nn.functional.softplus", |c| softplus(c).into()),
        ("nn.functional.softsign", |c| c.x().softsign().into()),
        ("nn.functional.softshrink", |c| {
            c.x().softshrink(c.float(0, "lambd", 0.5)).into()
        }),
        ("nn.functional.hardshrink", |c| {
            c.x().hardshrink(c.float(0, "lambd", 0.5)).into()
        }),
        ("nn.functional.tanhshrink", |c| c.x().tanhshrink().into()),
        ("nn.functional.hardsigmoid", |c| c.x().hardsigmoid().into()),
        ("nn.functional.hardswish", |c| c.x().hardswish().into()),
        ("nn.functional.hardtanh", |c| {
            let (low, high) = (c.float(0, "min_val", -1.0), c.float(1, "max_val", 1.0));
            c.x().hardtanh(low, high).into()
        }),
        ("nn.functional.threshold", |c| {
            let (limit, value) = (c.args[0].float(), c.args[1].float());
            c.x().threshold(limit, value).into()
        }),
        ("nn.functional.logsigmoid", |c| c.x().logsigmoid().into()),
        ("nn.functional.glu", |c| {
            c.x().glu(c.int(0, "dim", -1) as isize).into()
        }),
    ],
    excluded: &[],
    n_cases: 201,
    rtol: 1e-5,
};
