//! First values of parameters.
//!
//! A module states the rule for each of its parameters where it names them ([`Visitor::parameter`]); [`Module::init`]
//! carries the rules out. The n-th parameter takes the n-th stream of the seed's random numbers, so the same module
//! and seed give the same numbers on every machine.
//!
//! [`Visitor::parameter`]: super::Visitor::parameter
//! [`Module::init`]: super::Module::init

use crate::op::{math, random};

/// How a parameter's numbers are drawn. The fans of a weight `[out, in, ..]` are the numbers of inputs of an output
/// and of outputs of an input: `in * rest` and `out * rest`; those of a vector are both its length.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// The same number everywhere.
    Constant(f32),
    /// Evenly between these two.
    Uniform(f32, f32),
    /// With this mean and standard deviation.
    Normal(f32, f32),
    /// Glorot and Bengio (2010): evenly, with variance `2 / (fan_in + fan_out)`.
    XavierUniform,
    /// Glorot and Bengio (2010): normal, with variance `2 / (fan_in + fan_out)`.
    XavierNormal,
    /// He et al. (2015): evenly, with variance `2 / fan_in`, for layers before a ReLU.
    KaimingUniform,
    /// He et al. (2015): normal, with variance `2 / fan_in`, for layers before a ReLU.
    KaimingNormal,
    /// Evenly within `1 / sqrt(fan_in)`: what PyTorch gives linear layers.
    LeCunUniform,
    /// With this mean and standard deviation, but never further than two deviations from the mean.
    TruncatedNormal(f32, f32),
    /// Saxe et al. (2014): rows (of a tall matrix columns) that stand at right angles to each other, of this length.
    Orthogonal(f32),
}

impl Init {
    /// All zeros.
    pub const ZEROS: Init = Init::Constant(0.0);
    /// All ones.
    pub const ONES: Init = Init::Constant(1.0);

    /// Numbers for a parameter of these dimensions, from stream `stream` of `seed`.
    ///
    /// ```
    /// use brain_blitz::nn::Init;
    /// let numbers = Init::XavierUniform.numbers(&[3, 5], 7, 0);
    /// assert_eq!(numbers.len(), 15);
    /// let bound = (6.0f32 / (3.0 + 5.0)).sqrt();
    /// assert!(numbers.iter().all(|x| x.abs() <= bound));
    /// assert_eq!(numbers, Init::XavierUniform.numbers(&[3, 5], 7, 0));
    /// assert_ne!(numbers, Init::XavierUniform.numbers(&[3, 5], 7, 1));
    /// ```
    pub fn numbers(self, dims: &[usize], seed: u64, stream: u64) -> Vec<f32> {
        let n = dims.iter().product();
        let (fan_in, fan_out) = fans(dims);
        let uniform = |low: f32, high: f32| {
            let numbers = random::uniform(seed, stream, n);
            numbers
                .into_iter()
                .map(|u| low + (high - low) * u)
                .collect()
        };
        let within = |bound: f32| uniform(-bound, bound);
        match self {
            Init::Constant(value) => vec![value; n],
            Init::Uniform(low, high) => uniform(low, high),
            Init::Normal(mean, deviation) => normal(n, mean, deviation, seed, stream),
            Init::XavierUniform => within((6.0 / (fan_in + fan_out)).sqrt()),
            Init::XavierNormal => normal(n, 0.0, (2.0 / (fan_in + fan_out)).sqrt(), seed, stream),
            Init::KaimingUniform => within((6.0 / fan_in).sqrt()),
            Init::KaimingNormal => normal(n, 0.0, (2.0 / fan_in).sqrt(), seed, stream),
            Init::LeCunUniform => within((1.0 / fan_in).sqrt()),
            Init::TruncatedNormal(mean, deviation) => truncated(n, mean, deviation, seed, stream),
            Init::Orthogonal(length) => orthogonal(dims, length, seed, stream),
        }
    }
}

/// `(fan_in, fan_out)`, at least 1 each.
fn fans(dims: &[usize]) -> (f32, f32) {
    let (n_out, n_in) = match *dims {
        [] => (1, 1),
        [n] => (n, n),
        [n_out, n_in, ..] => (n_out, n_in),
    };
    let rest: usize = dims.iter().skip(2).product();
    ((n_in * rest).max(1) as f32, (n_out * rest).max(1) as f32)
}

/// Normal numbers by the transform of Box and Muller (1958): two uniform ones make one.
fn normal(n: usize, mean: f32, deviation: f32, seed: u64, stream: u64) -> Vec<f32> {
    let numbers = random::uniform(seed, stream, 2 * n);
    let pair = |pair: &[f32]| {
        // 1 - u is never 0.
        let radius = (-2.0 * std::f32::consts::LN_2 * math::log2(1.0 - pair[0])).sqrt();
        mean + deviation * radius * math::sin(2.0 * std::f32::consts::PI * pair[1])
    };
    numbers.chunks_exact(2).map(pair).collect()
}

/// Normal numbers, those beyond two deviations drawn again: about one in twenty, so that an eighth more is enough, and what
/// finds none is put on the bound.
fn truncated(n: usize, mean: f32, deviation: f32, seed: u64, stream: u64) -> Vec<f32> {
    let drawn = normal(n + n / 8 + 64, 0.0, 1.0, seed, stream);
    let mut again = drawn[n..].iter().filter(|x| x.abs() <= 2.0);
    let kept = drawn[..n].iter().map(|&x| match x.abs() <= 2.0 {
        true => x,
        false => again.next().copied().unwrap_or(x.clamp(-2.0, 2.0)),
    });
    kept.map(|x| mean + deviation * x).collect()
}

/// The rows of a matrix of normal numbers, made orthogonal one after the other (twice, which is enough in floating point:
/// Giraud et al. 2005); of a tall matrix the columns. Further axes count as columns.
fn orthogonal(dims: &[usize], length: f32, seed: u64, stream: u64) -> Vec<f32> {
    let rows = dims.first().copied().unwrap_or(1);
    let columns: usize = dims.iter().skip(1).product();
    let (short, long) = (rows.min(columns), rows.max(columns));
    let numbers = normal(short * long, 0.0, 1.0, seed, stream);
    let mut lines: Vec<Vec<f64>> = Vec::new();
    for line in numbers.chunks_exact(long.max(1)) {
        let mut line: Vec<f64> = line.iter().map(|&x| f64::from(x)).collect();
        for _ in 0..2 {
            for before in &lines {
                let along: f64 = line.iter().zip(before).map(|(a, b)| a * b).sum();
                line.iter_mut()
                    .zip(before)
                    .for_each(|(a, b)| *a -= along * b);
            }
        }
        let norm = line.iter().map(|x| x * x).sum::<f64>().sqrt();
        line.iter_mut().for_each(|x| *x /= norm);
        lines.push(line);
    }
    let number = |at: usize| {
        let (row, column) = (at / columns.max(1), at % columns.max(1));
        let (line, place) = if rows <= columns {
            (row, column)
        } else {
            (column, row)
        };
        (f64::from(length) * lines[line][place]) as f32
    };
    (0..rows * columns).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance.
    fn moments(numbers: &[f32]) -> (f64, f64) {
        let n = numbers.len() as f64;
        let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let square = numbers.iter().map(|&x| (f64::from(x) - mean).powi(2));
        (mean, square.sum::<f64>() / n)
    }

    #[test]
    fn each_rule_has_its_mean_and_variance() {
        let dims = [40, 25, 10];
        let (fan_in, fan_out) = (250.0, 400.0);
        let rules = [
            (Init::Constant(2.0), 2.0, 0.0),
            (Init::Uniform(1.0, 3.0), 2.0, 4.0 / 12.0),
            (Init::Normal(1.0, 0.5), 1.0, 0.25),
            (Init::XavierUniform, 0.0, 2.0 / (fan_in + fan_out)),
            (Init::XavierNormal, 0.0, 2.0 / (fan_in + fan_out)),
            (Init::KaimingUniform, 0.0, 2.0 / fan_in),
            (Init::KaimingNormal, 0.0, 2.0 / fan_in),
            (Init::LeCunUniform, 0.0, 1.0 / (3.0 * fan_in)),
            // Between -2 and 2 the variance is 1 - 4 phi(2) / (2 Phi(2) - 1).
            (Init::TruncatedNormal(1.0, 2.0), 1.0, 4.0 * 0.773_741),
            (Init::Orthogonal(3.0), 0.0, 9.0 / fan_in),
        ];
        for (init, mean, variance) in rules {
            let (found_mean, found_variance) = moments(&init.numbers(&dims, 3, 1));
            let deviation: f64 = f64::sqrt(variance);
            assert!(
                (found_mean - mean).abs() <= 0.05 * deviation,
                "{init:?}: mean {found_mean}"
            );
            assert!(
                (found_variance - variance).abs() <= 0.05 * variance,
                "{init:?}: variance {found_variance}"
            );
        }
    }

    #[test]
    fn truncated_numbers_stay_within_two_deviations() {
        let numbers = Init::TruncatedNormal(1.0, 0.5).numbers(&[10_000], 3, 1);
        assert!(numbers.iter().all(|x| (0.0..=2.0).contains(x)));
        let outside = Init::Normal(1.0, 0.5).numbers(&[10_000], 3, 1);
        assert!(outside.iter().any(|x| !(0.0..=2.0).contains(x)));
    }

    #[test]
    fn orthogonal_rows_or_columns_are_at_right_angles() {
        for (rows, columns) in [(4, 6), (6, 4), (5, 5)] {
            let numbers = Init::Orthogonal(2.0).numbers(&[rows, columns], 3, 1);
            let (lines, long) = (rows.min(columns), rows.max(columns));
            let at = |line: usize, i: usize| match rows <= columns {
                true => numbers[line * columns + i],
                false => numbers[i * columns + line],
            };
            for a in 0..lines {
                for b in 0..lines {
                    let dot: f32 = (0..long).map(|i| at(a, i) * at(b, i)).sum();
                    let want = if a == b { 4.0 } else { 0.0 };
                    assert!((dot - want).abs() < 1e-5, "{rows}x{columns}: {a} {b} {dot}");
                }
            }
        }
    }
}
