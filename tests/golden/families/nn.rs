//! The edge cases of layers.

use brain_blitz::nn::{Mask, RmsNorm, Rope, ScoreRule, soft_cap};
use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::{Family, unsupported};

use super::norm_attn::{layer_norm, linear, rms_norm};

/// Gemma's norm: the scale is `1 + weight`.
fn gemma_rms_norm(c: &Call<'_>) -> GraphTensor {
    let norm = RmsNorm {
        weight: c.t(0),
        eps: c.float(1, "eps", 0.0),
        plus_one: true,
    };
    norm.forward(c.x())
}

/// The arguments are the base and the position of the first row.
fn rotary_embedding(c: &mut Call<'_>) -> GraphTensor {
    let (theta, start) = (c.float(0, "base", 0.0), c.int(1, "start", 0));
    let x = c.x();
    let size = |axis: usize| x.dims()[axis].as_usize().expect("cases have sizes");
    let (rows, width) = (size(x.rank() - 2), size(x.rank() - 1));
    let capacity = start as usize + rows;
    Rope::new(c.cx, width, theta, capacity).forward(x, start)
}

/// Queries with the axes in front that keys have beside heads.
fn with_lead_of(q: GraphTensor, k: GraphTensor) -> GraphTensor {
    let mut q = q;
    while q.rank() < k.rank() {
        q = q.unsqueeze(0);
    }
    let (mut dims, keys) = (q.dims(), k.dims());
    for axis in 0..keys.len().saturating_sub(3) {
        if dims[axis].is_one() {
            dims[axis] = keys[axis];
        }
    }
    q.expand(dims)
}

pub fn attention(c: &Call<'_>) -> GraphTensor {
    if c.float(usize::MAX, "dropout_p", 0.0) > 0.0 {
        unsupported("torch's random numbers");
    }
    // Key heads are shared wherever they are fewer.
    c.kw("enable_gqa");
    let (k, v) = (c.t(0), c.t(1));
    let q = with_lead_of(c.x(), k);
    let width = q.dims()[q.rank() - 1].as_usize().expect("cases have sizes");
    let mut rule = ScoreRule::scaled(width);
    rule.scale = c.float(usize::MAX, "scale", rule.scale);
    rule.mask = match c.kw("attn_mask") {
        Some(Arg::Tensor(mask)) => Mask::Given(*mask),
        _ if c.bool(usize::MAX, "is_causal", false) => Mask::Causal,
        _ => Mask::None,
    };
    rule.attend(q, k, v, 0)
}

pub const FAMILY: Family = Family {
    ops: &[
        ("nn.functional.layer_norm", |c| layer_norm(c).into()),
        ("nn.functional.rms_norm", |c| rms_norm(c).into()),
        ("nn.functional.linear", |c| linear(c).into()),
        ("nn.functional.embedding", |c| {
            c.x().index_select(0, c.t(0)).into()
        }),
        ("nn.gemma_rms_norm", |c| gemma_rms_norm(c).into()),
        ("nn.softcap", |c| {
            soft_cap(c.x(), c.float(0, "cap", 0.0)).into()
        }),
        ("nn.rotary_embedding", |c| rotary_embedding(c).into()),
        ("nn.functional.scaled_dot_product_attention", |c| {
            attention(c).into()
        }),
    ],
    excluded: &[],
    n_cases: 31,
    rtol: 1e-4,
};
