//! BLEU: how many of the n-grams of texts are in reference texts (Papineni et al. 2002).
//!
//! Of a whole corpus: n-grams are counted over all texts before any division. Each n-gram of a text counts at most as often as
//! its own reference has it. The score up to order N is the geometric mean of the precisions of 1 to N, times the brevity
//! penalty `exp(1 - r / c)` where the texts' tokens `c` are fewer than the references' `r`. There is no smoothing: an order
//! without a match makes the score 0. Scores are given from 0 to 100.
//!
//! Over any tokens: those of a model here, so that no splitting into words has a say. One reference to a text.

use std::collections::HashMap;

/// The longest n-grams that are counted.
pub const LONGEST: usize = 4;

/// Counts over a corpus.
///
/// ```
/// use brain_blitz::generation::evaluate::Bleu;
/// let mut bleu = Bleu::default();
/// bleu.add(&[1, 2, 3, 4], &[1, 2, 3, 5]);
/// assert_eq!(bleu.precision(1), 75.0);
/// assert_eq!(bleu.score(4), 0.0); // no four in a row
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Bleu {
    matches: [usize; LONGEST],
    totals: [usize; LONGEST],
    length: usize,
    reference_length: usize,
}

impl Bleu {
    /// Counts a text and its reference.
    pub fn add(&mut self, text: &[u32], reference: &[u32]) {
        self.length += text.len();
        self.reference_length += reference.len();
        for n in 1..=LONGEST {
            let (own, other) = (counts(text, n), counts(reference, n));
            self.totals[n - 1] += (text.len() + 1).saturating_sub(n);
            let clipped = own.iter().map(|(gram, &count)| {
                let most = other.get(gram).copied().unwrap_or(0);
                count.min(most)
            });
            self.matches[n - 1] += clipped.sum::<usize>();
        }
    }

    /// The share of the texts' n-grams that are in their references, from 0 to 100.
    ///
    /// # Panics
    /// If `n` is not from 1 to [`LONGEST`].
    pub fn precision(&self, n: usize) -> f64 {
        match self.totals[n - 1] {
            0 => 0.0,
            total => 100.0 * self.matches[n - 1] as f64 / total as f64,
        }
    }

    /// What texts that are shorter than their references are multiplied by.
    pub fn brevity_penalty(&self) -> f64 {
        let (c, r) = (self.length as f64, self.reference_length as f64);
        match (self.length, self.length < self.reference_length) {
            (0, _) => 0.0,
            (_, true) => (1.0 - r / c).exp(),
            (_, false) => 1.0,
        }
    }

    /// The score with n-grams up to this order, from 0 to 100.
    ///
    /// # Panics
    /// If `order` is not from 1 to [`LONGEST`].
    pub fn score(&self, order: usize) -> f64 {
        let logs: f64 = (1..=order).map(|n| self.precision(n).ln()).sum();
        self.brevity_penalty() * (logs / order as f64).exp()
    }
}

fn counts(text: &[u32], n: usize) -> HashMap<&[u32], usize> {
    let mut counts = HashMap::new();
    for gram in text.windows(n) {
        *counts.entry(gram).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_words_count_as_often_as_the_reference_has_them() {
        // The paper's example: seven times "the" for "the cat is on the mat".
        let mut bleu = Bleu::default();
        bleu.add(&[1; 7], &[1, 2, 3, 4, 1, 5]);
        assert!((bleu.precision(1) - 200.0 / 7.0).abs() < 1e-12);
        assert_eq!(bleu.score(2), 0.0);
    }

    #[test]
    fn equal_texts_score_100_and_none_scores_0() {
        let mut bleu = Bleu::default();
        bleu.add(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
        for order in 1..=LONGEST {
            assert!((bleu.score(order) - 100.0).abs() < 1e-12);
        }
        assert_eq!(Bleu::default().score(1), 0.0);
        let mut empty = Bleu::default();
        empty.add(&[], &[1, 2]);
        assert_eq!(empty.score(1), 0.0);
    }
}
