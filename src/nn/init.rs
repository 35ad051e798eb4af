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
}
