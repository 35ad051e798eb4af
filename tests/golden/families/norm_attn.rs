//! Normalisation with weights, linear layers and embeddings.

use brain_blitz::hl_ops::{BagMode, EmbeddingBag};
use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::{Family, unsupported};

/// The last axes, as many as the normalised shape has.
fn last_axes(c: &Call<'_>) -> Vec<i64> {
    let n = c.args[0].ints().len() as i64;
    (-n..0).collect()
}

pub fn layer_norm(c: &Call<'_>) -> GraphTensor {
    let (weight, bias) = (c.tensor(1, "weight"), c.tensor(2, "bias"));
    let eps = c.float(3, "eps", 1e-5);
    c.x().layer_norm(last_axes(c), weight, bias, eps)
}

pub fn rms_norm(c: &Call<'_>) -> GraphTensor {
    let eps = c.float(2, "eps", f64::from(f32::EPSILON));
    c.x().rms_norm(last_axes(c), c.tensor(1, "weight"), eps)
}

pub fn linear(c: &Call<'_>) -> GraphTensor {
    let weight = c.t(0);
    let weight = match weight.rank() {
        1 => weight,
        _ => weight.transpose(0, 1),
    };
    let product = c.x().matmul(weight);
    match c.tensor(1, "bias") {
        Some(bias) => product + bias,
        None => product,
    }
}

/// Mean and variance, where both are given.
fn statistics(c: &Call<'_>) -> Option<(GraphTensor, GraphTensor)> {
    let mean = c.tensor(0, "running_mean");
    mean.zip(c.tensor(1, "running_var"))
}

fn batch_norm(c: &Call<'_>) -> GraphTensor {
    if c.x().rank() < 2 {
        unsupported("a batch without channels");
    }
    let (given, eps) = (statistics(c), c.float(6, "eps", 1e-5));
    let given = given.filter(|_| !c.bool(4, "training", false));
    c.get(5, "momentum");
    let (weight, bias) = (c.tensor(2, "weight"), c.tensor(3, "bias"));
    c.x().batch_norm(given, weight, bias, eps)
}

fn instance_norm(c: &Call<'_>) -> GraphTensor {
    let (given, eps) = (statistics(c), c.float(6, "eps", 1e-5));
    let given = given.filter(|_| !c.bool(4, "use_input_stats", true));
    c.get(5, "momentum");
    let (weight, bias) = (c.tensor(2, "weight"), c.tensor(3, "bias"));
    c.x().instance_norm(given, weight, bias, eps)
}

fn group_norm(c: &Call<'_>) -> GraphTensor {
    let (groups, eps) = (c.int(0, "num_groups", 1), c.float(3, "eps", 1e-5));
    let (weight, bias) = (c.tensor(1, "weight"), c.tensor(2, "bias"));
    c.x().group_norm(groups as usize, weight, bias, eps)
}

/// A number alone is an axis of one, as torch has it.
fn at_least_a_line(x: GraphTensor) -> GraphTensor {
    match x.rank() {
        0 => x.unsqueeze(0),
        _ => x,
    }
}

fn normalize(c: &Call<'_>) -> GraphTensor {
    let (p, dim, eps) = (
        c.float(0, "p", 2.0),
        c.int(1, "dim", 1),
        c.float(2, "eps", 1e-12),
    );
    let x = at_least_a_line(c.x());
    x.normalize(p, dim, eps).reshape(c.x().dims())
}

fn cosine_similarity(c: &Call<'_>) -> GraphTensor {
    let (dim, eps) = (c.int(1, "dim", 1), c.float(2, "eps", 1e-8));
    let [a, b] = [c.x(), c.t(0)].map(at_least_a_line);
    a.cosine_similarity(b, dim, eps)
}

fn pairwise_distance(c: &Call<'_>) -> GraphTensor {
    let (p, eps) = (c.float(1, "p", 2.0), c.float(2, "eps", 1e-6));
    let out = c.x().pairwise_distance(c.t(0), p, eps);
    match c.bool(3, "keepdim", false) {
        true => out.unsqueeze(-1),
        false => out,
    }
}

fn embedding_bag(c: &Call<'_>) -> GraphTensor {
    let rows = c.x().dims()[0].as_const().expect("static sizes");
    let mode = match c.get(5, "mode").map_or("mean", Arg::str) {
        "sum" => BagMode::Sum,
        "mean" => BagMode::Mean,
        "max" => BagMode::Max,
        other => unsupported(format!("the mode {other}")),
    };
    let padding = c.get(9, "padding_idx").map(Arg::int);
    let from_front = |row: i64| if row < 0 { row + rows } else { row };
    let rule = EmbeddingBag {
        mode,
        padding_index: padding.map(|row| from_front(row) as i32),
        weights: c.tensor(7, "per_sample_weights"),
    };
    let offsets = c.tensor(1, "offsets");
    let offsets = match c.bool(8, "include_last_offset", false) {
        true => offsets.map(|offsets| offsets.slice_axis(0, 0, offsets.dims()[0] - 1)),
        false => offsets,
    };
    c.x().embedding_bag(c.t(0), offsets, &rule)
}

pub const FAMILY: Family = Family {
    ops: &[
        ("nn.functional.layer_norm", |c| layer_norm(c).into()),
        ("nn.functional.rms_norm", |c| rms_norm(c).into()),
        ("nn.functional.linear", |c| linear(c).into()),
        ("nn.functional.embedding", |c| {
            c.x().index_select(0, c.t(0)).into()
        }),
        ("nn.functional.batch_norm", |c| batch_norm(c).into()),
        ("nn.functional.instance_norm", |c| instance_norm(c).into()),
        ("nn.functional.group_norm", |c| group_norm(c).into()),
        ("nn.functional.local_response_norm", |c| {
            let (size, alpha) = (c.int(0, "size", 1), c.float(1, "alpha", 1e-4));
            let (beta, k) = (c.float(2, "beta", 0.75), c.float(3, "k", 1.0));
            let x = c.x();
            x.local_response_norm(size as usize, alpha, beta, k).into()
        }),
        ("nn.functional.normalize", |c| normalize(c).into()),
        ("nn.functional.cosine_similarity", |c| {
            cosine_similarity(c).into()
        }),
        ("nn.functional.pairwise_distance", |c| {
            pairwise_distance(c).into()
        }),
        ("nn.functional.bilinear", |c| {
            let bias = c.tensor(2, "bias");
            c.x().bilinear(c.t(0), c.t(1), bias).into()
        }),
        ("nn.functional.embedding_bag", |c| embedding_bag(c).into()),
        ("nn.functional.scaled_dot_product_attention", |c| {
            super::nn::attention(c).into()
        }),
    ],
    excluded: &[
        (
            "nn.functional.scaled_dot_product_attention#2",
            "torch's random numbers",
        ),
        (
            "nn.functional.scaled_dot_product_attention#3",
            "torch's random numbers",
        ),
        (
            "nn.functional.scaled_dot_product_attention#7",
            "torch's random numbers",
        ),
    ],
    n_cases: 101,
    rtol: 1e-4,
};
