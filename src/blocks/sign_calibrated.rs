//! A row of numbers → signs and scales of the least error of what is multiplied by it.
//!
//! With [`ColumnStats`] the error of a row is `(q - w) G (q - w)` instead of the sum of squares `(q - w)²`; see there. Where only the
//! diagonal of `G` is known, scales and signs are fitted in turn as in [`super::sign_fit`], with weights, from two starts of which
//! one is what that fit ends with. With all of it:
//!
//! 1. that fit gives the levels, the sums of scaled signs;
//! 2. columns are rounded to the nearest level one after the other, those of large mean squares first, and what each is
//!    off by is made up for in the columns after it, as far as these are related (Frantar et al. 2022, GPTQ): with
//!    `G⁻¹ = Uᵀ U`, column j's error divided by `U[j, j]`, times row j of `U`, is taken from the columns after j;
//! 3. scales are fitted to the signs by least squares in `G`, and each sign to all others by taking the level of least
//!    error, in turn.
//!
//! Step 3 only makes the error smaller, and starts from the better of 1 and 2, so the result is never worse than the weighted fit.
//! Rows do not depend on each other; everything is computed in `f64` and in a fixed order.

use half::f16;

use super::error_weights::{ErrorWeights, Gram, dot};
use super::sign_fit::{self, MOST_BASES, solve};
use super::sign_matrix::SignFit;

/// Rounds of the weighted fit, at most.
const ROUNDS: usize = 60;
/// Rounds of fitting scales and signs in turn in `G`, at most.
const TURNS: usize = 6;
/// Rounds over all columns in a turn, at most.
const SWEEPS: usize = 4;

/// What codes of a row mean: the sum of parameters times features. Signs have a parameter for each base, three values
/// have one.
#[derive(Clone, Copy)]
struct Shape {
    bases: usize,
    ternary: bool,
}

/// Parameters of a row.
type Params = [f64; MOST_BASES];
/// Sums of the equations that parameters solve, with their right sides.
type Equations = [[f64; MOST_BASES + 1]; MOST_BASES];

impl Shape {
    fn params(self) -> usize {
        if self.ternary { 1 } else { self.bases }
    }

    /// The codes that numbers get: bit b says whether base b is positive.
    fn codes(self) -> impl Iterator<Item = u8> {
        let (n, ternary) = (1u8 << self.bases.min(MOST_BASES), self.ternary);
        // Of the two codes of 0, the one with a positive first base.
        (0..n).filter(move |code| !ternary || [0, 1, 3].contains(code))
    }

    fn feature(self, code: u8, param: usize) -> f64 {
        match (self.ternary, code >> param & 1) {
            (true, _) => match code {
                0 => -1.0,
                3 => 1.0,
                _ => 0.0,
            },
            (false, 1) => 1.0,
            (false, _) => -1.0,
        }
    }

    fn value(self, params: &Params, code: u8) -> f64 {
        let terms = params.iter().enumerate().take(self.params());
        terms.map(|(p, x)| x * self.feature(code, p)).sum()
    }

    /// All values that a code can have, in order.
    fn levels(self, params: &Params) -> Levels {
        let mut all: Vec<(f64, u8)> = self
            .codes()
            .map(|code| (self.value(params, code), code))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Levels(all)
    }
}

/// Values of codes, in order.
struct Levels(Vec<(f64, u8)>);

impl Levels {
    /// The nearest; of two, the larger.
    fn nearest(&self, x: f64) -> (f64, u8) {
        let above = self.0.partition_point(|(value, _)| *value <= x);
        let Some(high) = self.0.get(above) else {
            return *self.0.last().expect("there is a code");
        };
        match above.checked_sub(1).map(|at| self.0[at]) {
            Some(low) if x - low.0 < high.0 - x => low,
            _ => *high,
        }
    }
}

/// Fits a row: bit b of each code is whether base b is positive there. Returns the scales.
pub(super) fn fit(
    x: &[f32],
    bases: usize,
    how: SignFit,
    weights: &ErrorWeights,
    codes: &mut [u8],
) -> Vec<f32> {
    let row: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let shape = Shape {
        bases: if how.ternary { 2 } else { bases },
        ternary: how.ternary,
    };
    let mut row = Row {
        x: &row,
        shape,
        weights,
        codes,
    };
    let mut params = row.weighted_fit(x, bases, how);
    let rounded = |params: Params| match how.half_scales {
        // Three values are stored as two bases of half the scale, which has the same digits.
        true => params.map(|x| f64::from(f16::from_f64(x).to_f32())),
        false => params.map(|x| f64::from(x as f32)),
    };
    match &weights.gram {
        None => {
            row.make_positive(&mut params);
            params = rounded(params);
            row.nearest(&params);
        }
        Some(gram) => params = row.calibrate(gram, params, rounded),
    }
    let mut scales = vec![0.0; bases];
    match how.ternary {
        true => scales[..2].fill(params[0] as f32 / 2.0),
        false => scales
            .iter_mut()
            .zip(params)
            .for_each(|(s, p)| *s = p as f32),
    }
    scales
}

/// A row that is being fitted.
struct Row<'a> {
    x: &'a [f64],
    shape: Shape,
    weights: &'a ErrorWeights,
    codes: &'a mut [u8],
}

impl Row<'_> {
    /// The better of two weighted fits. They end where no step helps; the unweighted one ends elsewhere, and goes on from
    /// there.
    fn weighted_fit(&mut self, x: &[f32], bases: usize, how: SignFit) -> Params {
        let mut params = self.start();
        self.in_turn(&mut params);
        let (own, error) = (self.codes.to_vec(), self.weighted_error(&params));
        let exact = SignFit {
            half_scales: false,
            ..how
        };
        let scales = sign_fit::fit(x, bases, exact, self.codes);
        let mut other = [0.0; MOST_BASES];
        match how.ternary {
            true => other[0] = 2.0 * f64::from(scales[0]),
            false => {
                let pairs = other.iter_mut().zip(&scales);
                pairs.for_each(|(p, s)| *p = f64::from(*s));
            }
        }
        self.in_turn(&mut other);
        match self.weighted_error(&other) < error {
            true => params = other,
            false => self.codes.copy_from_slice(&own),
        }
        params
    }

    /// Parameters to start from: each base takes the weighted mean magnitude of what the ones before leave.
    fn start(&mut self) -> Params {
        let h = &self.weights.columns;
        let total: f64 = h.iter().sum();
        let mut rest = self.x.to_vec();
        let mut params = [0.0; MOST_BASES];
        let mean = |rest: &[f64]| rest.iter().zip(h).map(|(x, h)| h * x.abs()).sum::<f64>() / total;
        if self.shape.ternary {
            let limit = 0.75 * mean(&rest);
            let large = self.x.iter().zip(h).filter(|(x, _)| x.abs() > limit);
            let sums = large.fold((0.0, 0.0), |(sum, n), (x, h)| (sum + h * x.abs(), n + h));
            params[0] = if sums.1 > 0.0 { sums.0 / sums.1 } else { 0.0 };
        } else {
            for param in params.iter_mut().take(self.shape.bases) {
                *param = mean(&rest);
                for x in &mut rest {
                    *x -= if *x >= 0.0 { *param } else { -*param };
                }
            }
        }
        self.nearest(&params);
        params
    }

    /// Gives every number the nearest code; whether one changed.
    fn nearest(&mut self, params: &Params) -> bool {
        let levels = self.shape.levels(params);
        let mut changed = false;
        for (code, x) in self.codes.iter_mut().zip(self.x) {
            let (_, nearest) = levels.nearest(*x);
            changed |= std::mem::replace(code, nearest) != nearest;
        }
        changed
    }

    /// The error where those of columns do not depend on each other.
    fn weighted_error(&self, params: &Params) -> f64 {
        let columns = self.x.iter().zip(&self.weights.columns).zip(&*self.codes);
        let error =
            |((x, h), code): ((&f64, &f64), &u8)| h * (self.shape.value(params, *code) - x).powi(2);
        columns.map(error).sum()
    }

    /// Fits parameters and codes in turn, columns on their own.
    fn in_turn(&mut self, params: &mut Params) {
        for _ in 0..ROUNDS {
            let n = self.shape.params();
            let mut equations: Equations = Default::default();
            for ((x, h), code) in self.x.iter().zip(&self.weights.columns).zip(&*self.codes) {
                for (i, row) in equations.iter_mut().enumerate().take(n) {
                    let feature = self.shape.feature(*code, i);
                    for (j, cell) in row.iter_mut().enumerate().take(n) {
                        *cell += h * feature * self.shape.feature(*code, j);
                    }
                    row[n] += h * feature * x;
                }
            }
            solve_into(equations, n, params);
            if !self.nearest(params) {
                break;
            }
        }
    }

    /// Turns bases of negative parameters around, which changes no value.
    fn make_positive(&mut self, params: &mut Params) {
        for (base, param) in params.iter_mut().enumerate().take(self.shape.params()) {
            if *param < 0.0 {
                *param = -*param;
                for code in self.codes.iter_mut() {
                    *code = match (self.shape.ternary, *code) {
                        (true, 0) => 3,
                        (true, 3) => 0,
                        (true, zero) => zero,
                        (false, code) => code ^ 1 << base,
                    };
                }
            }
        }
    }

    /// Steps 2 and 3 of the header.
    fn calibrate(
        &mut self,
        gram: &Gram,
        mut params: Params,
        rounded: impl Fn(Params) -> Params,
    ) -> Params {
        let mut off = Off::of(self, gram, &params);
        let own = self.codes.to_vec();
        self.feed_back(gram, &params);
        let fed_back = Off::of(self, gram, &params);
        match fed_back.error() < off.error() {
            true => off = fed_back,
            false => self.codes.copy_from_slice(&own),
        }
        for _ in 0..TURNS {
            let mut fitted = params;
            self.fit_params(gram, &mut fitted);
            let better = Off::of(self, gram, &fitted);
            if better.error() < off.error() {
                (params, off) = (fitted, better);
            }
            if !self.sweep(gram, &params, &mut off) {
                break;
            }
        }
        self.make_positive(&mut params);
        params = rounded(params);
        off = Off::of(self, gram, &params);
        self.sweep(gram, &params, &mut off);
        params
    }

    /// Rounds columns one after the other, and makes up for each in those after it.
    fn feed_back(&mut self, gram: &Gram, params: &Params) {
        let (n, levels) = (self.x.len(), self.shape.levels(params));
        let mut rest: Vec<f64> = gram.order.iter().map(|&column| self.x[column]).collect();
        for (j, &column) in gram.order.iter().enumerate() {
            let (value, code) = levels.nearest(rest[j]);
            self.codes[column] = code;
            let row = &gram.factor[j * n..(j + 1) * n];
            let off = (rest[j] - value) / row[j];
            for (x, u) in rest[j + 1..].iter_mut().zip(&row[j + 1..]) {
                *x -= off * u;
            }
        }
    }

    /// The parameters of least error for the codes as they are.
    fn fit_params(&self, gram: &Gram, params: &mut Params) {
        let n = self.shape.params();
        let features = |param: usize| -> Vec<f64> {
            let codes = self.codes.iter();
            codes.map(|code| self.shape.feature(*code, param)).collect()
        };
        let features: Vec<Vec<f64>> = (0..n).map(features).collect();
        let mut equations: Equations = Default::default();
        for (i, row) in equations.iter_mut().enumerate().take(n) {
            let by = gram.times(&features[i]);
            for (cell, feature) in row.iter_mut().zip(&features) {
                *cell = dot(feature, &by);
            }
            row[n] = dot(self.x, &by);
        }
        solve_into(equations, n, params);
    }

    /// Gives each column the level of least error beside all others, until none changes; whether one did.
    fn sweep(&mut self, gram: &Gram, params: &Params, off: &mut Off) -> bool {
        let (n, levels) = (self.x.len(), self.shape.levels(params));
        let mut any = false;
        for _ in 0..SWEEPS {
            let mut changed = false;
            for j in 0..n {
                let row = &gram.products[j * n..(j + 1) * n];
                let now = self.x[j] + off.off[j];
                let (value, code) = levels.nearest(now - off.by[j] / row[j]);
                if code == self.codes[j] {
                    continue;
                }
                changed = true;
                self.codes[j] = code;
                off.off[j] = value - self.x[j];
                for (by, g) in off.by.iter_mut().zip(row) {
                    *by += (value - now) * g;
                }
            }
            any |= changed;
            if !changed {
                break;
            }
        }
        any
    }
}

/// How far a row is off, and that times the products.
struct Off {
    off: Vec<f64>,
    by: Vec<f64>,
}

impl Off {
    fn of(row: &Row<'_>, gram: &Gram, params: &Params) -> Off {
        let values = row.codes.iter().map(|code| row.shape.value(params, *code));
        let off: Vec<f64> = values.zip(row.x).map(|(q, x)| q - x).collect();
        let by = gram.times(&off);
        Off { off, by }
    }

    fn error(&self) -> f64 {
        dot(&self.off, &self.by)
    }
}

/// Solves the equations; where they have many solutions the parameters stay.
fn solve_into(equations: Equations, n: usize, params: &mut Params) {
    let largest = (0..n).fold(0.0f64, |m, i| m.max(equations[i][i]));
    if let Some(solved) = solve(equations, n, largest * 1e-9) {
        params[..n].copy_from_slice(&solved[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::ColumnStats;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut next = crate::blocks::test_numbers(seed);
        (0..n).map(|_| next() + next() + next()).collect()
    }

    /// Columns that are related: each row of data is a few patterns mixed.
    fn stats(n: usize, with_products: bool) -> ColumnStats {
        let (rows, patterns) = (4 * n, n / 3 + 1);
        let (mix, pattern) = (numbers(rows * patterns, 5), numbers(patterns * n, 6));
        let x: Vec<f32> = (0..rows * n)
            .map(|at| {
                let (row, k) = (at / n, at % n);
                let mixed = (0..patterns).map(|p| mix[row * patterns + p] * pattern[p * n + k]);
                mixed.sum::<f32>() * (1.0 + (k % 5) as f32)
            })
            .collect();
        let mean = |i: usize, j: usize| {
            (0..rows)
                .map(|row| x[row * n + i] * x[row * n + j])
                .sum::<f32>()
                / rows as f32
        };
        let products = (0..n * n).map(|at| mean(at / n, at % n)).collect();
        let squares = (0..n).map(|k| mean(k, k)).collect();
        ColumnStats::new(rows as u64, squares, with_products.then_some(products)).unwrap()
    }

    fn fitted(x: &[f32], bases: usize, how: SignFit, stats: &ColumnStats) -> Vec<f32> {
        let mut codes = vec![0; x.len()];
        let scales = fit(x, bases, how, &ErrorWeights::of(stats), &mut codes);
        assert!(scales.iter().all(|scale| *scale >= 0.0), "{scales:?}");
        let value = |code: &u8| {
            let terms = scales.iter().enumerate();
            terms
                .map(|(b, s)| if code >> b & 1 == 1 { *s } else { -s })
                .sum()
        };
        codes.iter().map(value).collect()
    }

    #[test]
    fn each_step_makes_the_error_of_products_smaller() {
        let n = 24;
        let stats = stats(n, true);
        let diagonal = stats.clone().without_products();
        let flat = ColumnStats::new(1, vec![1.0; n], None).unwrap();
        for (bases, ternary) in [(1, false), (2, false), (3, false), (4, false), (2, true)] {
            let how = SignFit {
                ternary,
                half_scales: true,
            };
            let mut errors = [[0.0; 2]; 3];
            for seed in 0..16 {
                let x = numbers(n, 100 + seed);
                for (errors, by) in errors.iter_mut().zip([&flat, &diagonal, &stats]) {
                    let fitted = fitted(&x, bases, how, by);
                    errors[0] += stats.weighted_error(&x, &fitted);
                    errors[1] += stats.output_error(&x, &fitted).unwrap();
                }
            }
            let [plain, weighted, calibrated] = errors;
            assert!(weighted[0] < plain[0], "{bases}: {errors:?}");
            assert!(calibrated[1] < 0.6 * weighted[1], "{bases}: {errors:?}");
            assert!(calibrated[0] > weighted[0], "{bases}: {errors:?}");
        }
    }

    #[test]
    fn numbers_of_few_values_are_kept_exactly() {
        let x: Vec<f32> = (0..24)
            .map(|i| [3.0, 1.0, -1.0, -3.0][i * 7 % 13 % 4])
            .collect();
        assert_eq!(fitted(&x, 2, SignFit::default(), &stats(24, true)), x);
        let ternary = SignFit {
            ternary: true,
            ..SignFit::default()
        };
        let x: Vec<f32> = (0..24).map(|i| [2.0, 0.0, -2.0][i * 5 % 7 % 3]).collect();
        assert_eq!(fitted(&x, 2, ternary, &stats(24, true)), x);
    }

    #[test]
    fn columns_that_are_always_zero_and_rows_of_zeros_are_fitted_too() {
        let dead = ColumnStats::new(9, vec![0.0; 8], Some(vec![0.0; 64])).unwrap();
        let x = [1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0];
        assert_eq!(fitted(&x, 1, SignFit::default(), &dead), x);
        assert_eq!(fitted(&[0.0; 8], 3, SignFit::default(), &dead), [0.0; 8]);
    }
}
