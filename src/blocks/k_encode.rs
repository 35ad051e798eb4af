//! Encoders of `Q4_K` and `Q6_K`, whose layout is in [`super::k_decode`].
//!
//! Each sub-block's scale is the one of least weighted squared error among a few candidates: for every candidate the
//! numbers are rounded to codes, and for these codes the best scale has a closed form. Then the scales themselves are
//! rounded to small integers, and the numbers are rounded again with what is stored.
//!
//! The sums are taken in the order, and with the roundings, of ggml's reference functions, so that the bytes are the same.

use half::f16;

use super::k_decode::LEN;
use super::put_half;

/// Numbers in a sub-block of `Q4_K`.
pub(super) const SUB4: usize = 32;
/// Numbers in a sub-block of `Q6_K`.
pub(super) const SUB6: usize = 16;
/// Numbers below this are zero.
const SMALLEST: f32 = 1e-15;

/// The integer nearest to `x`, ties to even, if it has at most 22 bits: adding 1.5 * 2^23 leaves no room for a fraction.
fn nearest(x: f32) -> i32 {
    let bits = (x + 12_582_912.0).to_bits();
    (bits & 0x007f_ffff) as i32 - 0x0040_0000
}

/// What a search over scales found: numbers are `scale * code - min`.
struct Fit {
    scale: f32,
    min: f32,
    codes: [u8; SUB4],
}

/// The scale and minimum (at most 0) of least squared error, weighted by `weights`, for codes 0 to 15: the range's, or the
/// best of 21 around it.
fn fit_range(x: &[f32; SUB4], weights: &[f32; SUB4]) -> Fit {
    const TOP: i32 = 15;
    let (mut low, mut high) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (weights[0], weights[0] * x[0]);
    for (&x, &w) in x.iter().zip(weights).skip(1) {
        low = if x < low { x } else { low };
        high = if x > high { x } else { high };
        sum_w += w;
        sum_x += w * x;
    }
    low = if low > 0.0 { 0.0 } else { low };
    if high == low {
        return Fit {
            scale: 0.0,
            min: low,
            codes: [0; SUB4],
        };
    }
    let round =
        |inverse: f32, low: f32| x.map(|x| nearest(inverse * (x - low)).clamp(0, TOP) as u8);
    let inverse = TOP as f32 / (high - low);
    let codes = round(inverse, low);
    let mut best = Fit {
        scale: 1.0 / inverse,
        min: low,
        codes,
    };
    let mut best_error = error(x, weights, &best);
    for step in 0..=20 {
        // The range starts at the best minimum so far, not at the smallest number.
        let inverse = (-1.0 + 0.1 * step as f32 + TOP as f32) / (high - best.min);
        let codes = round(inverse, best.min);
        let Some((scale, min)) = solve(x, weights, &codes, sum_w, sum_x) else {
            continue;
        };
        let fit = Fit { scale, min, codes };
        let fit_error = error(x, weights, &fit);
        if fit_error < best_error {
            (best, best_error) = (fit, fit_error);
        }
    }
    best
}

/// The sum of `w (scale * code + min - x)²`.
fn error(x: &[f32; SUB4], weights: &[f32; SUB4], fit: &Fit) -> f32 {
    let mut sum = 0.0;
    for ((&x, &w), &code) in x.iter().zip(weights).zip(&fit.codes) {
        let off = fit.scale * f32::from(code) + fit.min - x;
        sum += w * (off * off);
    }
    sum
}

/// The scale and minimum of least weighted squared error for given codes: linear regression, with a minimum that is at
/// most 0. Nothing when all codes are the same.
fn solve(
    x: &[f32; SUB4],
    weights: &[f32; SUB4],
    codes: &[u8; SUB4],
    sum_w: f32,
    sum_x: f32,
) -> Option<(f32, f32)> {
    let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
    for ((&x, &w), &code) in x.iter().zip(weights).zip(codes) {
        let l = f32::from(code);
        sum_l += w * l;
        sum_l2 += w * l * l;
        sum_xl += w * l * x;
    }
    let determinant = sum_w * sum_l2 - sum_l * sum_l;
    (determinant > 0.0).then(|| {
        let min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        match min > 0.0 {
            true => (sum_xl / sum_l2, 0.0),
            false => ((sum_w * sum_xl - sum_x * sum_l) / determinant, min),
        }
    })
}

/// Weights of a sub-block's numbers: large ones matter more.
fn weights(x: &[f32; SUB4]) -> [f32; SUB4] {
    let sum = x.iter().fold(0.0, |sum, x| sum + x * x);
    let mean = (sum / SUB4 as f32).sqrt();
    x.map(|x| mean + x.abs())
}

/// Stores six bits of scale and of minimum for each of eight sub-blocks; see [`super::k_decode::scale_and_min`].
fn pack_scales(scales: &[u8; 8], mins: &[u8; 8], packed: &mut [u8]) {
    for j in 0..4 {
        packed[j] = scales[j] | scales[j + 4] >> 4 << 6;
        packed[j + 4] = mins[j] | mins[j + 4] >> 4 << 6;
        packed[j + 8] = scales[j + 4] & 15 | mins[j + 4] << 4;
    }
}

/// A block of `Q4_K`, taken apart.
pub(super) struct Block4 {
    /// What sub-blocks' scales and minima are multiples of.
    pub(super) d: [f16; 2],
    pub(super) scales: [u8; 8],
    pub(super) mins: [u8; 8],
    pub(super) codes: [[u8; SUB4]; 8],
}

impl Block4 {
    /// The one that ggml's search finds with these weights of sub-blocks' numbers.
    pub(super) fn fit(subs: &[[f32; SUB4]], weights: impl Fn(usize) -> [f32; SUB4]) -> Block4 {
        let fits: [Fit; 8] = std::array::from_fn(|j| fit_range(&subs[j], &weights(j)));
        let largest = |of: fn(&Fit) -> f32| {
            fits.iter()
                .map(of)
                .fold(0.0, |m, x| if x > m { x } else { m })
        };
        let (max_scale, max_min) = (largest(|fit| fit.scale), largest(|fit| -fit.min));
        let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
        let (by_scale, by_min) = (inverse(max_scale), inverse(max_min));
        let six = |x: f32| (nearest(x) as u8).min(63);
        let mut block = Block4 {
            d: [max_scale / 63.0, max_min / 63.0].map(f16::from_f32),
            scales: std::array::from_fn(|j| six(by_scale * fits[j].scale)),
            mins: std::array::from_fn(|j| six(by_min * -fits[j].min)),
            codes: fits.map(|fit| fit.codes),
        };
        for (j, sub) in subs.iter().enumerate() {
            let (s, m) = block.line(j);
            if s != 0.0 {
                block.codes[j] = codes4(sub, s, m);
            }
        }
        block
    }

    /// Numbers of a sub-block are `scale * code - minimum`.
    pub(super) fn line(&self, j: usize) -> (f32, f32) {
        let [d, min] = self.d.map(f16::to_f32);
        (d * f32::from(self.scales[j]), min * f32::from(self.mins[j]))
    }

    pub(super) fn put(&self, block: &mut [u8]) {
        put_half(block, 0, self.d[0].to_f32());
        put_half(block, 2, self.d[1].to_f32());
        pack_scales(&self.scales, &self.mins, &mut block[4..16]);
        for (i, byte) in block[16..].iter_mut().enumerate() {
            let (pair, i) = (i / SUB4 * 2, i % SUB4);
            *byte = self.codes[pair][i] | self.codes[pair + 1][i] << 4;
        }
    }
}

/// Codes of numbers `s * code - m`, where `s` is not 0.
pub(super) fn codes4(x: &[f32; SUB4], s: f32, m: f32) -> [u8; SUB4] {
    x.map(|x| nearest((x + m) / s).clamp(0, 15) as u8)
}

pub(super) fn q4_k(source: &[f32], target: &mut [u8]) {
    let blocks = target.chunks_exact_mut(144);
    for (x, block) in source.chunks_exact(LEN).zip(blocks) {
        let (subs, _) = x.as_chunks::<SUB4>();
        Block4::fit(subs, |j| weights(&subs[j])).put(block);
    }
}

/// The scale of least squared error, weighted by `weights`, for codes -32 to 31: the one that makes the largest number -32,
/// or the best of 18 around it. The codes are stored plus 32.
fn fit_symmetric(x: &[f32; SUB6], weights: &[f32; SUB6]) -> (f32, [u8; SUB6]) {
    const TOP: i32 = 32;
    let larger = |best: f32, &x: &f32| if x.abs() > best.abs() { x } else { best };
    let max = x.iter().fold(0.0, larger);
    if max.abs() < SMALLEST {
        return (0.0, [0; SUB6]);
    }
    let round = |inverse: f32| x.map(|x| nearest(inverse * x).clamp(-TOP, TOP - 1));
    let sums = |codes: &[i32; SUB6]| {
        let (mut sum_xl, mut sum_l2) = (0.0f32, 0.0f32);
        for ((&x, &w), &code) in x.iter().zip(weights).zip(codes) {
            let l = code as f32;
            sum_xl += w * x * l;
            sum_l2 += w * l * l;
        }
        (sum_xl, sum_l2)
    };
    let mut codes = round(-TOP as f32 / max);
    let (sum_xl, sum_l2) = sums(&codes);
    let mut scale = if sum_l2 != 0.0 { sum_xl / sum_l2 } else { 0.0 };
    let mut best = scale * sum_xl;
    for step in (-9..=9).filter(|&step| step != 0) {
        let candidate = round(-(TOP as f32 + 0.1 * step as f32) / max);
        let (sum_xl, sum_l2) = sums(&candidate);
        if sum_l2 > 0.0 && sum_xl * sum_xl > best * sum_l2 {
            codes = candidate;
            scale = sum_xl / sum_l2;
            best = scale * sum_xl;
        }
    }
    (scale, codes.map(|code| (code + TOP) as u8))
}

/// A block of `Q6_K`, taken apart.
pub(super) struct Block6 {
    /// What sub-blocks' scales are multiples of.
    pub(super) d: f16,
    pub(super) scales: [i8; 16],
    pub(super) codes: [[u8; SUB6]; 16],
}

impl Block6 {
    /// The one that ggml's search finds with these weights of sub-blocks' numbers; `None` where all are zero.
    pub(super) fn fit(
        subs: &[[f32; SUB6]],
        weights: impl Fn(usize) -> [f32; SUB6],
    ) -> Option<Block6> {
        let fits: [(f32, [u8; SUB6]); 16] =
            std::array::from_fn(|j| fit_symmetric(&subs[j], &weights(j)));
        let larger = |best: f32, fit: &(f32, _)| {
            if fit.0.abs() > best.abs() {
                fit.0
            } else {
                best
            }
        };
        let max_scale = fits.iter().fold(0.0, larger);
        if max_scale.abs() < SMALLEST {
            return None;
        }
        let inverse = -128.0 / max_scale;
        let mut block = Block6 {
            d: f16::from_f32(1.0 / inverse),
            scales: std::array::from_fn(|j| nearest(inverse * fits[j].0).min(127) as i8),
            codes: fits.map(|fit| fit.1),
        };
        for (j, sub) in subs.iter().enumerate() {
            let s = block.scale(j);
            if s != 0.0 {
                block.codes[j] = codes6(sub, s);
            }
        }
        Some(block)
    }

    /// Numbers of a sub-block are `scale * (code - 32)`.
    pub(super) fn scale(&self, j: usize) -> f32 {
        self.d.to_f32() * f32::from(self.scales[j])
    }

    pub(super) fn put(&self, block: &mut [u8]) {
        put_half(block, 208, self.d.to_f32());
        for (byte, scale) in block[192..208].iter_mut().zip(self.scales) {
            *byte = scale as u8;
        }
        let code = |i: usize| self.codes[i / SUB6][i % SUB6];
        for (i, byte) in block[..128].iter_mut().enumerate() {
            let first = i / 64 * 128 + i % 64;
            *byte = code(first) & 15 | code(first + 64) << 4;
        }
        for (i, byte) in block[128..192].iter_mut().enumerate() {
            let first = i / 32 * 128 + i % 32;
            *byte = (0..4).map(|n| code(first + 32 * n) >> 4 << (2 * n)).sum();
        }
    }
}

/// Codes of numbers `s * (code - 32)`, where `s` is not 0.
pub(super) fn codes6(x: &[f32; SUB6], s: f32) -> [u8; SUB6] {
    x.map(|x| (nearest(x / s).clamp(-32, 31) + 32) as u8)
}

pub(super) fn q6_k(source: &[f32], target: &mut [u8]) {
    let blocks = target.chunks_exact_mut(210);
    for (x, block) in source.chunks_exact(LEN).zip(blocks) {
        let (subs, _) = x.as_chunks::<SUB6>();
        block.fill(0);
        if let Some(found) = Block6::fit(subs, |j| subs[j].map(|x| x * x)) {
            found.put(block);
        }
    }
}
