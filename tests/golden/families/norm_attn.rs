//! Normalisation with weights, linear layers and embeddings.

use brain_blitz::prelude::*;

use crate::case::{Arg, Call};
use crate::check::Family;

/// The last axes, as many as the normalised shape has.
fn last_axes(c: &Call<'_>) -> Vec<i64> {
    let n = c.args[0].ints().len() as i64;
    (-n..0).collect()
}

fn optional(c: &Call<'_>, i: usize, name: &str) -> Option<GraphTensor> {
    match c.get(i, name) {
        Some(Arg::Tensor(tensor)) => Some(*tensor),
        _ => None,
    }
}

pub fn layer_norm(c: &Call<'_>) -> GraphTensor {
    let (weight, bias) = (optional(c, 1, "weight"), optional(c, 2, "bias"));
    let eps = c.float(3, "eps", 1e-5);
    c.x().layer_norm(last_axes(c), weight, bias, eps)
}

pub fn rms_norm(c: &Call<'_>) -> GraphTensor {
    let eps = c.float(2, "eps", f64::from(f32::EPSILON));
    c.x().rms_norm(last_axes(c), optional(c, 1, "weight"), eps)
}

pub fn linear(c: &Call<'_>) -> GraphTensor {
    let weight = c.t(0);
    let weight = match weight.rank() {
        1 => weight,
        _ => weight.transpose(0, 1),
    };
    let product = c.x().matmul(weight);
    match optional(c, 1, "bias") {
        Some(bias) => product + bias,
        None => product,
    }
}

pub const FAMILY: Family = Family {
    ops: &[
        ("nn.functional.layer_norm", |c| layer_norm(c).into()),
        ("nn.functional.rms_norm", |c| rms_norm(c).into()),
        ("nn.functional.linear", |c| linear(c).into()),
        ("nn.functional.embedding", |c| {
            c.x().index_select(0, c.t(0)).into()
        }),
    ],
    excluded: &[],
    n_cases: 40,
    rtol: 1e-4,
};
