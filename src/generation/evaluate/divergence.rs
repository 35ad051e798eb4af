//! How far a model's predictions are from a reference's, token by token of the same text.
//!
//! | figure | of each position | over all |
//! |---|---|---|
//! | Kullback-Leibler divergence | sum of `p (log p - log q)`, where `p` is the reference's probability of a token and `q` the model's | mean, percentiles |
//! | agreement | whether both have the same most likely token | share |
//! | Δp | `q - p` of the token that the text has | root of the mean square |
//! | error of logits | squares of the differences | mean over all logits |
//! | cosine | of the angle between the rows of logits | mean |
//!
//! The same rows give exactly 0, 1, 0, 0 and, up to rounding, 1.

use crate::generation::logprobs::LogSoftmax;

/// Sums over positions.
#[derive(Clone, Debug, Default)]
pub struct Divergence {
    kl: Vec<f64>,
    same: usize,
    squared_delta: f64,
    squared_error: f64,
    cosine: f64,
    n_logits: usize,
}

impl Divergence {
    /// Counts a position where the reference and the model have these logits and the text has this token; gives the
    /// logarithms of the token's probabilities, the reference's first.
    ///
    /// # Panics
    /// If the rows differ in length, or have no logit of the token.
    pub fn add(&mut self, reference: &[f32], model: &[f32], token: u32) -> [f64; 2] {
        assert_eq!(reference.len(), model.len(), "both have the same tokens");
        let (p, q) = (LogSoftmax::of(reference), LogSoftmax::of(model));
        let (mut kl, mut error) = (0.0, 0.0);
        let (mut dot, mut squares) = (0.0, [0.0; 2]);
        for (&a, &b) in reference.iter().zip(model) {
            let (log_p, log_q) = (p.at(a), q.at(b));
            let weight = log_p.exp();
            // Where the reference gives nothing, the limit is 0, even where the model gives nothing either.
            if weight > 0.0 {
                kl += weight * (log_p - log_q);
            }
            let (a, b) = (f64::from(a), f64::from(b));
            error += (a - b) * (a - b);
            dot += a * b;
            squares[0] += a * a;
            squares[1] += b * b;
        }
        // It is never negative; rounding can make it so.
        self.kl.push(kl.max(0.0));
        self.same += usize::from(most_likely(reference) == most_likely(model));
        let at = token as usize;
        let logprobs = [p.at(reference[at]), q.at(model[at])];
        let delta = logprobs[1].exp() - logprobs[0].exp();
        self.squared_delta += delta * delta;
        self.squared_error += error;
        self.cosine += dot / (squares[0] * squares[1]).sqrt();
        self.n_logits += reference.len();
        logprobs
    }

    /// How many positions were counted.
    pub fn n(&self) -> usize {
        self.kl.len()
    }

    /// The mean divergence, in nats.
    pub fn kl_mean(&self) -> f64 {
        self.mean(self.kl.iter().sum())
    }

    /// The divergence that the fraction `at` of the positions does not exceed; between two of them, on the line through both.
    pub fn kl_quantile(&self, at: f64) -> f64 {
        let mut all = self.kl.clone();
        all.sort_unstable_by(f64::total_cmp);
        let Some(last) = all.len().checked_sub(1) else {
            return f64::NAN;
        };
        let at = at.clamp(0.0, 1.0) * last as f64;
        let low = at.floor() as usize;
        let high = (low + 1).min(last);
        all[low] + (all[high] - all[low]) * (at - low as f64)
    }

    /// The share of positions where both have the same most likely token.
    pub fn agreement(&self) -> f64 {
        self.mean(self.same as f64)
    }

    /// The root of the mean square of how much more probable the model finds the text's tokens.
    pub fn rms_delta_p(&self) -> f64 {
        self.mean(self.squared_delta).sqrt()
    }

    /// The mean square of differences of logits.
    pub fn logit_mse(&self) -> f64 {
        self.squared_error / self.n_logits as f64
    }

    /// The mean cosine of the angle between rows of logits.
    pub fn logit_cosine(&self) -> f64 {
        self.mean(self.cosine)
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.kl.len() as f64
    }
}

/// The first of the largest.
fn most_likely(row: &[f32]) -> usize {
    let mut best = 0;
    for (at, &logit) in row.iter().enumerate() {
        if logit > row[best] {
            best = at;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_diverge_by_exactly_nothing() {
        let mut found = Divergence::default();
        for shift in 0..50 {
            let row: Vec<f32> = (0..97)
                .map(|i| ((i * 31 + shift) % 89) as f32 * 0.37)
                .collect();
            found.add(&row, &row, 5);
        }
        assert_eq!(found.kl_mean(), 0.0);
        assert_eq!(found.kl_quantile(1.0), 0.0);
        assert_eq!(found.agreement(), 1.0);
        assert_eq!(found.rms_delta_p(), 0.0);
        assert_eq!(found.logit_mse(), 0.0);
        assert!((found.logit_cosine() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_shift_of_all_logits_changes_no_probability() {
        let row = [0.5, 2.0, -1.0];
        let shifted = row.map(|logit| logit + 4.0);
        let mut found = Divergence::default();
        found.add(&row, &shifted, 0);
        assert!(found.kl_mean() < 1e-12);
        assert_eq!(found.logit_mse(), 16.0);
        // Probabilities 1/2, 1/2 and 1/4, 3/4.
        let mut found = Divergence::default();
        found.add(&[0.0, 0.0], &[0.0, 3.0_f32.ln()], 1);
        let expected = 0.5 * 2.0_f64.ln() + 0.5 * (2.0_f64 / 3.0).ln();
        assert!((found.kl_mean() - expected).abs() < 1e-7);
        assert!((found.rms_delta_p() - 0.25).abs() < 1e-7);
        assert_eq!(found.agreement(), 0.0);
    }

    #[test]
    fn what_the_reference_excludes_does_not_count() {
        let mut found = Divergence::default();
        found.add(&[0.0, f32::NEG_INFINITY], &[0.0, 0.0], 0);
        assert!((found.kl_mean() - 2.0_f64.ln()).abs() < 1e-12);
        let mut found = Divergence::default();
        found.add(&[0.0, 0.0], &[0.0, f32::NEG_INFINITY], 0);
        assert_eq!(found.kl_mean(), f64::INFINITY);
    }
}
