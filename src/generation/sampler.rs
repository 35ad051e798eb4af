//! Choosing the next token from logits.
//!
//! What is done to the logits of all tokens, in this order, which is that of Hugging Face's transformers:
//!
//! | step | what it does | off |
//! |---|---|---|
//! | repetition penalty | a token among the last `repeat_last_n` has its logit divided by `repeat_penalty` where it is above zero, multiplied with it elsewhere, however often it occurred (Keskar et al. 2019, section 4.1) | 1 |
//! | temperature | logits are divided by it | 1 |
//! | top-k | keeps the `top_k` most likely | 0 |
//! | top-p | keeps the fewest of the most likely whose probabilities, among those left, reach `top_p` (Holtzman et al. 2020) | 1 |
//! | min-p | keeps those whose probability is at least `min_p` times that of the most likely (Nguyen et al. 2024) | 0 |
//! | draw | takes one at random by `softmax` of what is left | |
//!
//! Temperature 0 is greedy: the first of the largest logits after the penalty; the other steps change nothing then. The most
//! likely token always stays.
//!
//! The same logits, settings, seed and earlier tokens choose the same token on every machine: random numbers come from
//! [`random`]'s counter-based generator, exponentials from the crate's own [`math::exp`], and sums
//! are taken in a fixed order, in `f64`. Of equal logits, the one with the smaller id counts as the more likely.
//!
//! A NaN among the logits is never chosen. This module knows no model and no tokenizer.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::op::{math, random};

/// How the next token is chosen; see the [module](self) for the order of the steps. The default is greedy.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// Logits are divided by this; 0 is greedy.
    pub temperature: f32,
    /// Only this many of the most likely tokens; 0 means all.
    pub top_k: usize,
    /// Only the fewest of the most likely tokens whose probabilities reach this sum; 1 means all.
    pub top_p: f32,
    /// Only tokens that are at least this many times as likely as the most likely one; 0 means all.
    pub min_p: f32,
    /// How much less likely tokens are that were there before; 1 leaves them as they are.
    pub repeat_penalty: f32,
    /// How many of the last tokens `repeat_penalty` looks at; 0 means none.
    pub repeat_last_n: usize,
    /// Which stream of random numbers.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Sampling {
        Sampling::default()
    }

    fn check(&self) -> Result<()> {
        let Sampling {
            temperature,
            top_p,
            min_p,
            repeat_penalty,
            ..
        } = *self;
        let rules = [
            (
                temperature.is_finite() && temperature >= 0.0,
                format!("temperature {temperature} is not a finite number from 0 up"),
            ),
            (
                top_p > 0.0 && top_p <= 1.0,
                format!("top-p {top_p} is not above 0 and at most 1"),
            ),
            (
                (0.0..=1.0).contains(&min_p),
                format!("min-p {min_p} is not from 0 to 1"),
            ),
            (
                repeat_penalty.is_finite() && repeat_penalty > 0.0,
                format!("repeat-penalty {repeat_penalty} is not a finite number above 0"),
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, what)) => Err(Error::msg(what)),
        }
    }

    fn penalizes(&self) -> bool {
        self.repeat_penalty != 1.0 && self.repeat_last_n > 0
    }
}

/// Chooses one token after the other. The n-th call of [`Sampler::sample`] uses the n-th random number of the seed.
///
/// ```
/// use brain_blitz::generation::sampler::{Sampler, Sampling};
/// let mut greedy = Sampler::new(Sampling::greedy()).unwrap();
/// assert_eq!(greedy.sample(&[0.5, 2.0, 2.0]).unwrap(), 1);
///
/// let mut wary = Sampler::new(Sampling { repeat_penalty: 1.5, ..Sampling::greedy() }).unwrap();
/// wary.observe(&[1]);
/// assert_eq!(wary.sample(&[0.5, 2.0, 1.9]).unwrap(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    drawn: u64,
    /// The last `repeat_last_n` tokens, where there is a penalty.
    recent: VecDeque<u32>,
    /// Scratch, kept between calls: logits after the penalty.
    penalized: Vec<f32>,
    /// Scratch, kept between calls: id and logit, then id and weight.
    candidates: Vec<(u32, f32)>,
}

impl Sampler {
    /// A sampler at the start of its stream of random numbers, which has seen no tokens.
    ///
    /// # Errors
    /// If the temperature is negative or not finite, `top_p` is not in (0, 1], `min_p` not in [0, 1], or
    /// `repeat_penalty` not finite and above 0.
    pub fn new(sampling: Sampling) -> Result<Sampler> {
        sampling.check()?;
        Ok(Sampler {
            sampling,
            drawn: 0,
            recent: VecDeque::new(),
            penalized: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// Takes note of tokens that the repetition penalty is to count and that [`Sampler::sample`] did not choose: those of a
    /// prompt.
    pub fn observe(&mut self, ids: &[u32]) {
        if !self.sampling.penalizes() {
            return;
        }
        let n = self.sampling.repeat_last_n;
        self.recent.extend(&ids[ids.len().saturating_sub(n)..]);
        let surplus = self.recent.len().saturating_sub(n);
        self.recent.drain(..surplus);
    }

    /// Forgets the tokens seen so far; the stream of random numbers goes on.
    pub fn forget(&mut self) {
        self.recent.clear();
    }

    /// Chooses a token from the logits of the whole vocabulary.
    ///
    /// # Errors
    /// If there is nothing to choose from: no logits, or none that is above -inf and not NaN.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.narrow(logits)?;
        let chosen = match self.candidates[..] {
            [(only, _)] if self.sampling.temperature == 0.0 => only,
            _ => {
                let [a, b, ..] = random::block(self.sampling.seed, self.drawn, 0);
                self.drawn += 1;
                pick(&self.candidates, unit64(a, b))
            }
        };
        self.observe(&[chosen]);
        Ok(chosen)
    }

    /// The tokens that [`Sampler::sample`] would choose among, by id, with their probabilities. Chooses nothing.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn probabilities(&mut self, logits: &[f32]) -> Result<Vec<(u32, f64)>> {
        self.narrow(logits)?;
        let sum = total(&self.candidates);
        let all = self.candidates.iter();
        let mut all: Vec<_> = all.map(|&(id, w)| (id, f64::from(w) / sum)).collect();
        all.sort_unstable_by_key(|&(id, _)| id);
        Ok(all)
    }

    /// Leaves in `candidates` what may be chosen, at least one, with weights.
    fn narrow(&mut self, logits: &[f32]) -> Result<()> {
        let mut penalized = std::mem::take(&mut self.penalized);
        let logits = match self.sampling.penalizes() {
            false => logits,
            true => {
                penalized.clear();
                penalized.extend_from_slice(logits);
                self.penalize(&mut penalized);
                &penalized
            }
        };
        let narrowed = first_largest(logits).map(|largest| self.narrow_to(logits, largest));
        self.penalized = penalized;
        narrowed
    }

    fn narrow_to(&mut self, logits: &[f32], largest: usize) {
        if self.sampling.temperature == 0.0 {
            self.candidates.clear();
            self.candidates.push((largest as u32, 1.0));
            return;
        }
        self.collect(logits);
        self.keep_top_k();
        self.weigh(logits[largest]);
        self.keep_top_p();
        self.keep_min_p();
    }

    fn penalize(&self, logits: &mut [f32]) {
        let mut distinct: Vec<u32> = self.recent.iter().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let penalty = self.sampling.repeat_penalty;
        for id in distinct {
            // A prompt may hold ids that the model has no logits of.
            let Some(logit) = logits.get_mut(id as usize) else {
                continue;
            };
            *logit = match *logit > 0.0 {
                true => *logit / penalty,
                false => *logit * penalty,
            };
        }
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

    /// Drops candidates that are less likely than `min_p` times the most likely, whose weight is 1.
    fn keep_min_p(&mut self) {
        let least = self.sampling.min_p;
        if least > 0.0 {
            self.candidates.retain(|&(_, weight)| weight >= least);
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
mod tests;
