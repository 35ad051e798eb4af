//! Choosing the next token from logits.
//!
//! Temperature 0 is greedy: the first of the largest logits. Any other temperature draws at random from
//! `softmax(logits / temperature)`, restricted first to the `top_k` most likely tokens and then to the fewest of those
//! that together reach the probability `top_p`.
//!
//! The same logits, settings and seed choose the same token on every machine: random numbers come from
//! [`random`]'s counter-based generator, exponentials from the crate's own [`math::exp`], and sums
//! are taken in a fixed order, in `f64`. Of equal logits, the one with the smaller id counts as the more likely.
//!
//! A NaN among the logits is never chosen. This module knows no model and no tokenizer.

use std::cmp::Ordering;

use crate::error::{Error, Result};
use crate::op::{math, random};

/// How the next token is chosen.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Logits are divided by this; 0 is greedy, and nothing else here matters then.
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 means all.
    pub top_k: usize,
    /// Only the fewest of the most likely tokens whose probabilities reach this sum; 1 means all.
    pub top_p: f32,
    /// Which stream of random numbers.
    pub seed: u64,
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            seed: 0,
        }
    }

    fn check(&self) -> Result<()> {
        let Sampling {
            temperature, top_p, ..
        } = self;
        if !(temperature.is_finite() && *temperature >= 0.0) {
            return Err(Error::msg(format!(
                "temperature {temperature} is not a finite number from 0 up"
            )));
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            return Err(Error::msg(format!(
                "top-p {top_p} is not above 0 and at most 1"
            )));
        }
        Ok(())
    }
}

/// Chooses one token after the other. The n-th call of [`Sampler::sample`] uses the n-th random number of the seed.
///
/// ```
/// use brain_blitz::generation::sampler::{Sampler, Sampling};
/// let mut greedy = Sampler::new(Sampling::greedy()).unwrap();
/// assert_eq!(greedy.sample(&[0.5, 2.0, 2.0]).unwrap(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    drawn: u64,
    /// Scratch, kept between calls: id and logit, then id and weight.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler at the start of its stream of random numbers.
    ///
    /// # Errors
    /// If the temperature is negative or not finite, or `top_p` is not in (0, 1].
    pub fn new(sampling: Sampling) -> Result<Sampler> {
        sampling.check()?;
        Ok(Sampler {
            sampling,
            drawn: 0,
            candidates: Vec::new(),
        })
    }

    /// Chooses a token from the logits of the whole vocabulary.
    ///
    /// # Errors
    /// If there is nothing to choose from: no logits, or none that is above -inf and not NaN.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        let largest = first_largest(logits)?;
        if self.sampling.temperature == 0.0 {
            return Ok(largest as u32);
        }
        self.collect(logits);
        self.keep_top_k();
        self.weigh(logits[largest]);
        self.keep_top_p();
        let [a, b, ..] = random::block(self.sampling.seed, self.drawn, 0);
        self.drawn += 1;
        Ok(pick(&self.candidates, unit64(a, b)))
    }

    fn collect(&mut self, logits: &[f32]) {
        self.candidates.clear();
        let possible =
            |(id, &logit): (usize, &f32)| (logit > f32::NEG_INFINITY).then_some((id as u32, logit));
        self.candidates
            .extend(logits.iter().enumerate().filter_map(possible));
    }

    /// Cuts the candidates down to the `top_k` largest.
    fn keep_top_k(&mut self) {
        let k = self.sampling.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, more_likely);
            self.candidates.truncate(k);
        }
        // Restores the order that sums are taken in: by likelihood where that is needed, else by id.
        match self.sampling.top_p < 1.0 {
            true => self.candidates.sort_unstable_by(more_likely),
            false => self.candidates.sort_unstable_by_key(|&(id, _)| id),
        }
    }

    /// Turns logits into weights: probabilities but for a common factor, the largest being 1.
    fn weigh(&mut self, largest: f32) {
        let temperature = self.sampling.temperature;
        for (_, value) in &mut self.candidates {
            // An infinite logit minus itself would be NaN.
            *value = match *value == largest {
                true => 1.0,
                false => math::exp((*value - largest) / temperature),
            };
        }
    }

    /// Cuts the candidates, most likely first, off where their weights reach `top_p` of the sum.
    fn keep_top_p(&mut self) {
        if self.sampling.top_p == 1.0 {
            return;
        }
        let goal = total(&self.candidates) * f64::from(self.sampling.top_p);
        let mut sum = 0.0;
        let reached = self.candidates.iter().position(|&(_, weight)| {
            sum += f64::from(weight);
            sum >= goal
        });
        if let Some(last) = reached {
            self.candidates.truncate(last + 1);
        }
    }
}

/// Larger logits first, smaller ids first among equals. There is no NaN among candidates.
fn more_likely(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    let by_logit = b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal);
    by_logit.then(a.0.cmp(&b.0))
}

/// Index of the first of the largest logits.
fn first_largest(logits: &[f32]) -> Result<usize> {
    let mut best = f32::NEG_INFINITY;
    let mut at = None;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > best {
            (best, at) = (logit, Some(index));
        }
    }
    at.ok_or_else(|| {
        let n = logits.len();
        let n_nan = logits.iter().filter(|logit| logit.is_nan()).count();
        Error::msg(format!(
            "no token can be chosen: of {n} logits {n_nan} are NaN and the others -inf; are the model's weights finite?"
        ))
    })
}

fn total(candidates: &[(u32, f32)]) -> f64 {
    candidates.iter().map(|&(_, w)| f64::from(w)).sum()
}

/// The candidate at the fraction `at` (in [0, 1)) of the sum of all weights.
fn pick(candidates: &[(u32, f32)], at: f64) -> u32 {
    let goal = total(candidates) * at;
    let mut sum = 0.0;
    let mut last = 0;
    for &(id, weight) in candidates.iter().filter(|candidate| candidate.1 > 0.0) {
        sum += f64::from(weight);
        last = id;
        if sum > goal {
            break;
        }
    }
    last
}

/// Two words as a number in [0, 1): their upper 53 bits.
fn unit64(a: u32, b: u32) -> f64 {
    let bits = (u64::from(a) << 32) | u64::from(b);
    (bits >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f32, top_k: usize, top_p: f32) -> Sampling {
        Sampling {
            temperature,
            top_k,
            top_p,
            seed: 5,
        }
    }

    /// How often each token is chosen in `n` draws.
    fn counts(settings: Sampling, logits: &[f32], n: usize) -> Vec<usize> {
        let mut sampler = Sampler::new(settings).unwrap();
        let mut counts = vec![0; logits.len()];
        for _ in 0..n {
            counts[sampler.sample(logits).unwrap() as usize] += 1;
        }
        counts
    }

    const LOGITS: [f32; 5] = [1.0, 3.0, f32::NAN, 2.0, f32::NEG_INFINITY];

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut sampler = Sampler::new(Sampling::greedy()).unwrap();
        assert_eq!(sampler.sample(&[1.0, 7.0, 7.0, 2.0]).unwrap(), 1);
        assert_eq!(sampler.sample(&LOGITS).unwrap(), 1);
        assert_eq!(sampler.sample(&[f32::NAN, -1e30]).unwrap(), 1);
        assert_eq!(sampler.sample(&[0.0, f32::INFINITY]).unwrap(), 1);
    }

    #[test]
    fn draws_follow_the_softmax() {
        let n = 20_000;
        let temperature = 0.7;
        let found = counts(sampling(temperature, 0, 1.0), &LOGITS, n);
        let weight = |logit: f32| f64::from(logit / temperature).exp();
        let sum: f64 = [1.0, 3.0, 2.0].map(weight).iter().sum();
        for (id, &count) in found.iter().enumerate() {
            let logit = LOGITS[id];
            let p = if logit.is_nan() {
                0.0
            } else {
                weight(logit) / sum
            };
            // Four standard deviations of a binomial count.
            let bound = 4.0 * (n as f64 * p * (1.0 - p)).sqrt();
            let error = (count as f64 - n as f64 * p).abs();
            assert!(
                error <= bound,
                "token {id}: {count} of {n}, expected {}",
                n as f64 * p
            );
        }
    }

    #[test]
    fn top_k_keeps_the_k_largest_and_of_equals_the_first() {
        let logits = [1.0, 0.0, 1.0, 1.0, 0.5];
        let found = counts(sampling(5.0, 2, 1.0), &logits, 500);
        assert!(found[0] > 0 && found[2] > 0, "{found:?}");
        assert_eq!(found[0] + found[2], 500, "{found:?}");
        assert_eq!(counts(sampling(5.0, 1, 1.0), &logits, 50)[0], 50);
    }

    #[test]
    fn top_p_keeps_the_fewest_that_reach_it() {
        // Probabilities 1/8, 1/2, 1/4, 1/8.
        let logits = [0.0, 4.0_f32.ln(), 2.0_f32.ln(), 0.0];
        let kept = |p: f32| {
            let found = counts(sampling(1.0, 0, p), &logits, 400);
            found
                .iter()
                .map(|&count| usize::from(count > 0))
                .collect::<Vec<_>>()
        };
        assert_eq!(kept(0.4), [0, 1, 0, 0]);
        assert_eq!(kept(0.6), [0, 1, 1, 0]);
        assert_eq!(kept(0.8), [1, 1, 1, 0]);
        assert_eq!(kept(0.99), [1, 1, 1, 1]);
    }

    #[test]
    fn a_seed_names_one_sequence() {
        let logits: Vec<f32> = (0..64).map(|i| (i % 7) as f32 * 0.1).collect();
        let draw = |seed: u64| -> Vec<u32> {
            let settings = Sampling {
                seed,
                ..sampling(1.0, 40, 0.9)
            };
            let mut sampler = Sampler::new(settings).unwrap();
            (0..12).map(|_| sampler.sample(&logits).unwrap()).collect()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        // Pinned: the sequence must not depend on the machine.
        assert_eq!(draw(1), PINNED);
    }

    const PINNED: [u32; 12] = [31, 6, 31, 61, 46, 31, 12, 13, 25, 6, 45, 4];

    #[test]
    fn extreme_temperatures_and_logits_still_choose() {
        assert_eq!(counts(sampling(1e-38, 0, 1.0), &LOGITS, 9)[1], 9);
        let all = counts(sampling(f32::MAX, 0, 1.0), &LOGITS, 600);
        assert!(all[0] > 100 && all[1] > 100 && all[3] > 100, "{all:?}");
        let infinite = [0.0, f32::INFINITY, f32::INFINITY];
        let found = counts(sampling(1.0, 0, 0.9), &infinite, 100);
        assert!(found[0] == 0 && found[1] > 0 && found[2] > 0, "{found:?}");
        let found = counts(sampling(1.0, 3, 0.5), &[f32::MAX, f32::MIN, 0.0], 9);
        assert_eq!(found, [9, 0, 0]);
    }

    #[test]
    fn impossible_settings_and_logits_are_errors() {
        for settings in [
            sampling(-1.0, 0, 1.0),
            sampling(f32::NAN, 0, 1.0),
            sampling(f32::INFINITY, 0, 1.0),
            sampling(1.0, 0, 0.0),
            sampling(1.0, 0, 1.5),
            sampling(1.0, 0, f32::NAN),
        ] {
            assert!(Sampler::new(settings).is_err(), "{settings:?}");
        }
        for settings in [Sampling::greedy(), sampling(1.0, 2, 0.5)] {
            let mut sampler = Sampler::new(settings).unwrap();
            let error = sampler.sample(&[f32::NAN, f32::NEG_INFINITY]).unwrap_err();
            assert!(error.to_string().contains("1 are NaN"), "{error}");
            assert!(sampler.sample(&[]).is_err());
        }
    }
}
