//! How probable a model finds a text.

use crate::generation::logprobs::LogSoftmax;

/// The sum over the tokens of a text of `-log p(token)`, and what follows from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scores {
    n: usize,
    sum: f64,
    squares: f64,
}

impl Scores {
    /// Counts a token that follows where the model has these logits.
    ///
    /// # Panics
    /// If the row has no logit of it.
    pub fn add(&mut self, row: &[f32], token: u32) {
        self.add_logprob(LogSoftmax::of(row).at(row[token as usize]));
    }

    /// Counts a token by the logarithm of its probability.
    pub fn add_logprob(&mut self, logprob: f64) {
        let loss = -logprob;
        self.n += 1;
        self.sum += loss;
        self.squares += loss * loss;
    }

    /// How many tokens were counted.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The mean of `-log p`, in nats a token.
    pub fn mean(&self) -> f64 {
        self.sum / self.n as f64
    }

    /// The exponential of the mean.
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }

    /// The standard error of [`Scores::perplexity`], as if tokens did not depend on each other.
    pub fn perplexity_error(&self) -> f64 {
        let n = self.n as f64;
        let variance = (self.squares / n - self.mean() * self.mean()).max(0.0);
        (variance / (n - 1.0).max(1.0)).sqrt() * self.perplexity()
    }

    /// Bits a byte of a text of so many bytes: what an ideal coder with this model would need, whatever the tokens are.
    pub fn bits_per_byte(&self, bytes: usize) -> f64 {
        self.sum / std::f64::consts::LN_2 / bytes as f64
    }
}
