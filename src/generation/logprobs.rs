//! Logarithms of a model's probabilities: `log softmax(logits)`, before anything that sampling does.
//!
//! In `f64`, with the largest logit taken off first, so that nothing overflows and equal logits give equal bits. A NaN
//! among the logits makes all of it NaN. Natural logarithms throughout.

use std::cmp::Ordering;

/// What turns a row of logits into logarithms of probabilities.
///
/// ```
/// use brain_blitz::generation::logprobs::LogSoftmax;
/// let row = [0.0, 3.0_f32.ln()];
/// let log = LogSoftmax::of(&row);
/// assert!((log.at(row[1]).exp() - 0.75).abs() < 1e-7);
/// assert_eq!(log.most_likely(&row, 1)[0].0, 1);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax {
    largest: f64,
    log_sum: f64,
}

impl LogSoftmax {
    /// Of this row, which holds at least one finite logit.
    pub fn of(row: &[f32]) -> LogSoftmax {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let largest = f64::from(largest);
        let weights = row.iter().map(|&logit| (f64::from(logit) - largest).exp());
        LogSoftmax {
            largest,
            log_sum: weights.sum::<f64>().ln(),
        }
    }

    /// The logarithm of the probability of a token with this logit.
    pub fn at(&self, logit: f32) -> f64 {
        (f64::from(logit) - self.largest) - self.log_sum
    }

    /// The `n` most likely tokens of the row and the logarithms of their probabilities, most likely first; of equal logits
    /// the smaller id first. Never a NaN.
    pub fn most_likely(&self, row: &[f32], n: usize) -> Vec<(u32, f64)> {
        let all = (0..).zip(row.iter().copied());
        let mut all: Vec<(u32, f32)> = all.filter(|(_, logit)| !logit.is_nan()).collect();
        let order = |a: &(u32, f32), b: &(u32, f32)| {
            let by_logit = b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal);
            by_logit.then(a.0.cmp(&b.0))
        };
        let n = n.min(all.len());
        if n == 0 {
            return Vec::new();
        }
        if n < all.len() {
            all.select_nth_unstable_by(n - 1, order);
            all.truncate(n);
        }
        all.sort_unstable_by(order);
        all.into_iter()
            .map(|(id, logit)| (id, self.at(logit)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_large_logits_do_not_overflow() {
        let row = [1e30_f32, 1e30, f32::NEG_INFINITY, -5.0];
        let log = LogSoftmax::of(&row);
        assert_eq!(log.at(row[0]), -std::f64::consts::LN_2);
        assert_eq!(log.at(row[2]), f64::NEG_INFINITY);
        let row: Vec<f32> = (0..100).map(|i| (i % 17) as f32 * 0.3).collect();
        let log = LogSoftmax::of(&row);
        let sum: f64 = row.iter().map(|&logit| log.at(logit).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
    }

    #[test]
    fn the_most_likely_come_in_order() {
        let row = [0.5, 2.0, 0.5, 3.0, 0.5];
        let log = LogSoftmax::of(&row);
        let ids = |n| -> Vec<u32> {
            let found = log.most_likely(&row, n);
            found.iter().map(|&(id, _)| id).collect()
        };
        assert!(ids(0).is_empty());
        assert_eq!(ids(3), [3, 1, 0]);
        assert_eq!(ids(9), [3, 1, 0, 2, 4]);
        assert!(LogSoftmax::of(&[f32::NAN, 1.0]).at(1.0).is_nan());
    }
}
