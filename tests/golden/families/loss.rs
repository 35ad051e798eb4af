//! Losses.

use brain_blitz::hl_ops::{CrossEntropy, Reduction, Triplet};
use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::{Family, Out, unsupported};

fn reduction(c: &Call<'_>) -> Reduction {
    if c.kw("size_average").is_some() || c.kw("reduce").is_some() {
        unsupported("torch's deprecated reductions");
    }
    match c.kw("reduction").map_or("mean", Arg::str) {
        "none" => Reduction::None,
        "mean" => Reduction::Mean,
        "sum" => Reduction::Sum,
        other => unsupported(format!("the reduction {other}")),
    }
}

fn target(c: &Call<'_>, i: usize) -> GraphTensor {
    let target = c.tensor(i, "target");
    target.unwrap_or_else(|| unsupported("no target"))
}

fn weight(c: &Call<'_>) -> Option<GraphTensor> {
    c.tensor(1, "weight")
}

fn classes(c: &Call<'_>) -> CrossEntropy {
    CrossEntropy {
        weight: weight(c),
        ignore_index: Some(c.int(usize::MAX, "ignore_index", -100) as i32),
        label_smoothing: c.float(usize::MAX, "label_smoothing", 0.0),
        reduction: reduction(c),
    }
}

/// `batchmean` divides the sum by the number of samples.
fn kl_div(c: &mut Call<'_>) -> GraphTensor {
    let log_target = c.bool(usize::MAX, "log_target", false);
    let is_by_sample = matches!(c.kw("reduction"), Some(Arg::Str(kind)) if kind == "batchmean");
    if is_by_sample {
        let n = c.x().dims()[0].as_const().expect("static sizes");
        return c.x().kl_div(target(c, 0), log_target, Reduction::Sum) / n as f64;
    }
    c.x().kl_div(target(c, 0), log_target, reduction(c))
}

fn poisson(c: &mut Call<'_>) -> GraphTensor {
    let log_input = c.bool(1, "log_input", true);
    let full = c.bool(2, "full", false);
    let eps = c.float(4, "eps", 1e-8);
    c.x()
        .poisson_nll_loss(target(c, 0), log_input, full, eps, reduction(c))
}

/// torch takes a variance without the last axis, too.
fn gaussian(c: &mut Call<'_>) -> GraphTensor {
    let variance = match c.get(1, "var") {
        Some(Arg::Tensor(variance)) => *variance,
        Some(number) => {
            let number = number.float();
            c.cx.scalar(number, DType::F32)
        }
        None => unsupported("no variance"),
    };
    let variance = match variance.rank() + 1 == c.x().rank() {
        true => variance.unsqueeze(-1),
        false => variance,
    };
    let (full, eps) = (c.bool(2, "full", false), c.float(3, "eps", 1e-6));
    c.x()
        .gaussian_nll_loss(target(c, 0), variance, full, eps, reduction(c))
}

fn triplet(c: &mut Call<'_>) -> GraphTensor {
    let default = Triplet::default();
    let rule = Triplet {
        margin: c.float(2, "margin", default.margin),
        p: c.float(3, "p", default.p),
        eps: c.float(4, "eps", default.eps),
        swap: c.bool(5, "swap", default.swap),
    };
    c.x()
        .triplet_margin_loss(c.t(0), c.t(1), rule, reduction(c))
}

/// torch takes a single score for a single class, and one class for a vector of scores.
fn multi_margin(c: &mut Call<'_>) -> GraphTensor {
    let (p, margin) = (c.int(1, "p", 1), c.float(2, "margin", 1.0));
    let weight = c.tensor(3, "weight");
    let (mut x, target) = (c.x(), target(c, 0));
    while x.rank() < 2 {
        x = x.unsqueeze(0);
    }
    let is_single = c.x().rank() < 2 && target.rank() == 0;
    let target = target.reshape([-1]);
    let out = x.multi_margin_loss(target, p as i32, margin, weight, reduction(c));
    match is_single && out.rank() == 1 {
        true => out.squeeze(0),
        false => out,
    }
}

fn elementwise(
    c: &Call<'_>,
    f: impl Fn(GraphTensor, GraphTensor, Reduction) -> GraphTensor,
) -> Out {
    f(c.x(), target(c, 0), reduction(c)).into()
}

pub const FAMILY: Family = Family {
    ops: &[
        ("nn.functional.mse_loss", |c| {
            let weight = c.kw("weight");
            if weight.is_some() {
                unsupported("weighted differences");
            }
            elementwise(c, GraphTensor::mse_loss)
        }),
        ("nn.functional.l1_loss", |c| {
            elementwise(c, GraphTensor::l1_loss)
        }),
        ("nn.functional.smooth_l1_loss", |c| {
            let beta = c.float(usize::MAX, "beta", 1.0);
            elementwise(c, |x, y, how| x.smooth_l1_loss(y, beta, how))
        }),
        ("nn.functional.huber_loss", |c| {
            let delta = c.float(usize::MAX, "delta", 1.0);
            elementwise(c, |x, y, how| x.huber_loss(y, delta, how))
        }),
        ("nn.functional.binary_cross_entropy", |c| {
            let weight = weight(c);
            elementwise(c, |x, y, how| x.bce_loss(y, weight, how))
        }),
        ("nn.functional.binary_cross_entropy_with_logits", |c| {
            let (weight, positive) = (weight(c), c.tensor(usize::MAX, "pos_weight"));
            elementwise(c, |x, y, how| x.bce_with_logits(y, weight, positive, how))
        }),
        ("nn.functional.kl_div", |c| kl_div(c).into()),
        ("nn.functional.poisson_nll_loss", |c| poisson(c).into()),
        ("nn.functional.gaussian_nll_loss", |c| gaussian(c).into()),
        ("nn.functional.hinge_embedding_loss", |c| {
            let margin = c.float(1, "margin", 1.0);
            elementwise(c, |x, y, how| x.hinge_embedding_loss(y, margin, how))
        }),
        ("nn.functional.margin_ranking_loss", |c| {
            let (margin, how) = (c.float(2, "margin", 0.0), reduction(c));
            c.x()
                .margin_ranking_loss(c.t(0), c.t(1), margin, how)
                .into()
        }),
        ("nn.functional.soft_margin_loss", |c| {
            elementwise(c, GraphTensor::soft_margin_loss)
        }),
        ("nn.functional.cross_entropy", |c| {
            c.x().cross_entropy(target(c, 0), &classes(c)).into()
        }),
        ("nn.functional.nll_loss", |c| {
            c.x().nll_loss(target(c, 0), &classes(c)).into()
        }),
        ("nn.functional.multi_margin_loss", |c| {
            multi_margin(c).into()
        }),
        ("nn.functional.cosine_embedding_loss", |c| {
            let (margin, how) = (c.float(2, "margin", 0.0), reduction(c));
            c.x()
                .cosine_embedding_loss(c.t(0), c.t(1), margin, how)
                .into()
        }),
        ("nn.functional.triplet_margin_loss", |c| triplet(c).into()),
    ],
    excluded: &[],
    n_cases: 101,
    rtol: 1e-4,
};
