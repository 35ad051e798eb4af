//! A row of numbers → signs and scales of the least squared error.
//!
//! With one base the best signs are those of the numbers (zero, of either sign, is positive), and the best scale is the mean
//! magnitude. With several, each starts from what the ones before leave; then, in turn, scales are fitted to signs by
//! least squares, and signs to scales by taking the nearest of the sums, until no sign changes (alternating residual
//! binarization: Guo et al. 2017, section 3; Xu et al. 2018).

use std::borrow::Cow;

use half::f16;

use super::sign_matrix::SignFit;

/// The most bases that a fit has.
pub(super) const MOST_BASES: usize = 4;

/// Rounds of fitting scales and signs in turn, at most.
const ROUNDS: usize = 100;

/// Sums of all combinations of signs, for each whether base b is positive in bit b.
const MOST_CODES: usize = 1 << MOST_BASES;

/// Fits a row: bit b of each code is whether base b is positive there. Returns the scales.
pub(super) fn fit(x: &[f32], bases: usize, how: SignFit, codes: &mut [u8]) -> Vec<f32> {
    let mut scales = match how.ternary {
        true => ternary(x, bases, codes),
        false => signs(x, bases, codes),
    };
    for (base, scale) in scales.iter_mut().enumerate() {
        if *scale < 0.0 {
            *scale = -*scale;
            codes.iter_mut().for_each(|code| *code ^= 1 << base);
        }
        if how.half_scales {
            *scale = f16::from_f32(*scale).to_f32();
        }
    }
    scales
}

/// Added in eight sums, so that it is vector code with the same bits on every machine.
fn mean_magnitude(x: &[f32]) -> f64 {
    let mut sums = [0f64; 8];
    let (eights, rest) = x.as_chunks::<8>();
    for eight in eights {
        sums.iter_mut()
            .zip(eight)
            .for_each(|(sum, x)| *sum += f64::from(x.abs()));
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += f64::from(x.abs());
    }
    sums.iter().sum::<f64>() / x.len().max(1) as f64
}

/// Three values in the first two bases; further ones have scale 0.
fn ternary(x: &[f32], bases: usize, codes: &mut [u8]) -> Vec<f32> {
    let limit = 0.75 * mean_magnitude(x);
    let is_large = |x: &f32| f64::from(x.abs()) > limit;
    let large: Vec<f32> = x.iter().copied().filter(is_large).collect();
    let scale = mean_magnitude(&large) / 2.0;
    for (code, x) in codes.iter_mut().zip(x) {
        *code = match (is_large(x), *x >= 0.0) {
            (true, true) => 3,
            (true, false) => 0,
            (false, _) => 1,
        };
    }
    let mut scales = vec![0.0; bases];
    scales[..bases.min(2)].fill(scale as f32);
    scales
}

fn signs(x: &[f32], bases: usize, codes: &mut [u8]) -> Vec<f32> {
    let mut scales = greedy(x, bases, codes);
    if bases > 1 {
        for _ in 0..ROUNDS {
            least_squares(x, codes, &mut scales);
            if !nearest(x, &scales, codes) {
                break;
            }
        }
    }
    scales.iter().map(|&scale| scale as f32).collect()
}

/// Each base takes the signs and the mean magnitude of what the ones before leave.
fn greedy(x: &[f32], bases: usize, codes: &mut [u8]) -> Vec<f64> {
    codes.fill(0);
    // The first base, mostly the only one, leaves the numbers where they are.
    let mut rest = Cow::Borrowed(x);
    let mut scales = Vec::with_capacity(bases);
    for base in 0..bases {
        let scale = mean_magnitude(&rest);
        scales.push(scale);
        for (x, code) in rest.iter().zip(codes.iter_mut()) {
            *code |= u8::from(*x >= 0.0) << base;
        }
        if base + 1 < bases {
            let scale = scale as f32;
            for (x, code) in rest.to_mut().iter_mut().zip(codes.iter()) {
                *x -= if code >> base & 1 == 1 { scale } else { -scale };
            }
        }
    }
    scales
}

fn sign(code: usize, base: usize) -> f64 {
    if code >> base & 1 == 1 { 1.0 } else { -1.0 }
}

/// Fits scales to signs. Where two bases have the same signs there are many best scales: these stay.
fn least_squares(x: &[f32], codes: &[u8], scales: &mut [f64]) {
    let (mut counts, mut sums) = ([0f64; MOST_CODES], [0f64; MOST_CODES]);
    for (x, &code) in x.iter().zip(codes) {
        counts[usize::from(code)] += 1.0;
        sums[usize::from(code)] += f64::from(*x);
    }
    let n = scales.len();
    let mut rows = [[0f64; MOST_BASES + 1]; MOST_BASES];
    for (code, (count, sum)) in counts.iter().zip(&sums).enumerate() {
        for (i, row) in rows.iter_mut().enumerate().take(n) {
            for (j, cell) in row.iter_mut().enumerate().take(n) {
                *cell += count * sign(code, i) * sign(code, j);
            }
            row[n] += sum * sign(code, i);
        }
    }
    if let Some(solved) = solve(rows, n, x.len() as f64 * 1e-9) {
        scales.copy_from_slice(&solved[..n]);
    }
}

/// Solves `n` equations, the last number of each being its right side, by elimination; `None` if a pivot is below `least`.
pub(super) fn solve(
    mut rows: [[f64; MOST_BASES + 1]; MOST_BASES],
    n: usize,
    least: f64,
) -> Option<[f64; MOST_BASES]> {
    for at in 0..n {
        let size = |row: &usize| rows[*row][at].abs();
        let best = (at..n).max_by(|a, b| size(a).total_cmp(&size(b)))?;
        rows.swap(at, best);
        let pivot = rows[at];
        if pivot[at].abs() <= least {
            return None;
        }
        for (i, row) in rows.iter_mut().enumerate().take(n) {
            let by = row[at] / pivot[at];
            if i != at {
                row.iter_mut().zip(pivot).for_each(|(x, p)| *x -= by * p);
            }
        }
    }
    let mut out = [0.0; MOST_BASES];
    out.iter_mut()
        .enumerate()
        .take(n)
        .for_each(|(i, x)| *x = rows[i][n] / rows[i][i]);
    Some(out)
}

/// Fits signs to scales; whether one changed.
fn nearest(x: &[f32], scales: &[f64], codes: &mut [u8]) -> bool {
    let n = 1 << scales.len();
    let sum = |code: usize| -> f64 {
        let terms = scales.iter().enumerate();
        terms.map(|(base, scale)| scale * sign(code, base)).sum()
    };
    let mut levels: Vec<(f64, u8)> = (0..n).map(|code| (sum(code), code as u8)).collect();
    levels.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let middles: Vec<f32> = levels
        .windows(2)
        .map(|two| ((two[0].0 + two[1].0) / 2.0) as f32)
        .collect();
    let mut changed = false;
    for (x, code) in x.iter().zip(codes) {
        let at: usize = middles.iter().map(|middle| usize::from(x >= middle)).sum();
        changed |= std::mem::replace(code, levels[at].1) != levels[at].1;
    }
    changed
}
