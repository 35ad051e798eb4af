//! `Q4_K` and `Q6_K` of least weighted error.
//!
//! The search over scales is ggml's with other weights. Then each sub-block's small integers, its scale and perhaps its
//! minimum, are moved by a step or two as long as that makes its weighted error smaller: rounding a scale alone to six or
//! eight bits loses what the search had found.

use super::k_encode::{Block4, Block6, SUB4, SUB6, codes4, codes6};
use super::weighted::Best;

/// The weighted squared error of numbers that codes stand for.
fn error<const N: usize>(
    x: &[f32; N],
    weights: &[f32; N],
    codes: &[u8; N],
    value: impl Fn(u8) -> f32,
) -> f32 {
    let mut sum = 0.0;
    for ((x, w), code) in x.iter().zip(weights).zip(codes) {
        let off = value(*code) - x;
        sum += w * (off * off);
    }
    sum
}

/// Weights as ggml's with an importance: large numbers matter more beside it.
fn mixed<const N: usize>(x: &[f32; N], weights: &[f32; N]) -> [f32; N] {
    let squares = x.iter().fold(0.0, |sum, x| sum + x * x) / N as f32;
    std::array::from_fn(|i| weights[i] * (squares + x[i] * x[i]).sqrt())
}

pub(super) fn q4_k(best: &mut Best<'_>) {
    let (x, weights) = best.numbers();
    let (subs, _) = x.as_chunks::<SUB4>();
    let (weights, _) = weights.as_chunks::<SUB4>();
    let plain = Block4::fit(subs, |j| weights[j]);
    let mixed = Block4::fit(subs, |j| mixed(&subs[j], &weights[j]));
    for mut block in [plain, mixed] {
        for (j, (x, weights)) in subs.iter().zip(weights).enumerate() {
            refine4(&mut block, j, x, weights);
        }
        best.offer(|bytes| block.put(bytes));
    }
}

/// Moves scale and minimum of a sub-block to the best neighbours.
fn refine4(block: &mut Block4, j: usize, x: &[f32; SUB4], weights: &[f32; SUB4]) {
    let at = |block: &Block4| {
        let (s, m) = block.line(j);
        error(x, weights, &block.codes[j], |code| s * f32::from(code) - m)
    };
    let (s, m) = (block.scales[j], block.mins[j]);
    let mut least = (at(block), s, m, block.codes[j]);
    for scale in s.saturating_sub(2)..=(s + 2).min(63) {
        for min in m.saturating_sub(2)..=(m + 2).min(63) {
            (block.scales[j], block.mins[j]) = (scale, min);
            let (s, m) = block.line(j);
            if s == 0.0 {
                continue;
            }
            block.codes[j] = codes4(x, s, m);
            let error = at(block);
            if error < least.0 {
                least = (error, scale, min, block.codes[j]);
            }
        }
    }
    (_, block.scales[j], block.mins[j], block.codes[j]) = least;
}

pub(super) fn q6_k(best: &mut Best<'_>) {
    let (x, weights) = best.numbers();
    let (subs, _) = x.as_chunks::<SUB6>();
    let (weights, _) = weights.as_chunks::<SUB6>();
    let plain = Block6::fit(subs, |j| weights[j]);
    let mixed = Block6::fit(subs, |j| {
        std::array::from_fn(|i| weights[j][i] * subs[j][i] * subs[j][i])
    });
    for mut block in [plain, mixed].into_iter().flatten() {
        for (j, (x, weights)) in subs.iter().zip(weights).enumerate() {
            refine6(&mut block, j, x, weights);
        }
        best.offer(|bytes| block.put(bytes));
    }
}

/// Moves the scale of a sub-block to the best neighbour.
fn refine6(block: &mut Block6, j: usize, x: &[f32; SUB6], weights: &[f32; SUB6]) {
    let at = |block: &Block6| {
        let s = block.scale(j);
        error(x, weights, &block.codes[j], |code| {
            s * (f32::from(code) - 32.0)
        })
    };
    let s = block.scales[j];
    let mut least = (at(block), s, block.codes[j]);
    for scale in s.saturating_sub(3)..=s.saturating_add(3) {
        block.scales[j] = scale;
        let s = block.scale(j);
        if s == 0.0 {
            continue;
        }
        block.codes[j] = codes6(x, s);
        let error = at(block);
        if error < least.0 {
            least = (error, scale, block.codes[j]);
        }
    }
    (_, block.scales[j], block.codes[j]) = least;
}
