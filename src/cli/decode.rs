//! The loop that reads a prompt and continues it, token by token, until something ends the text.

use std::time::{Duration, Instant};

use brain_blitz::generation::ReusingSession;
use brain_blitz::generation::logprobs::LogSoftmax;
use brain_blitz::generation::sampler::Sampler;
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::interrupt;
use super::progress::Bar;
use super::text::Writer;

/// Tokens of a prompt that are fed at once: bounds the working memory, and how long Ctrl-C waits.
const CHUNK: usize = 512;

/// What ended a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stop {
    /// A token that ends texts.
    Eos,
    /// As many tokens as were asked for, or a full context.
    Length,
    /// A string that was to end it.
    String,
    /// Ctrl-C.
    Interrupt,
}

/// A token that was chosen, and how likely the model found it and others.
pub struct Scored {
    /// The token.
    pub id: u32,
    /// The logarithm of its probability.
    pub logprob: f64,
    /// The most likely tokens, with the same.
    pub top: Vec<(u32, f64)>,
}

/// What generates.
pub struct Decoder {
    /// The model.
    pub session: ReusingSession,
    /// What chooses tokens.
    pub sampler: Sampler,
    /// The most tokens of a text.
    pub max_tokens: usize,
    /// Tokens that end a text beside the model's own.
    pub ends: Vec<u32>,
    /// How many likely tokens are kept with each token, if any are.
    pub n_logprobs: Option<usize>,
}

/// A text that was generated.
#[derive(Default)]
pub struct Generated {
    /// The new tokens.
    pub ids: Vec<u32>,
    /// Their probabilities, if these were asked for.
    pub scored: Vec<Scored>,
    /// Tokens of the prompt that were in the caches already.
    pub n_reused: usize,
    /// How long reading the prompt took, the choice of the first new token included.
    pub reading: Duration,
}

impl Decoder {
    /// Continues a prompt that is written already.
    ///
    /// # Errors
    /// If the prompt does not fit, the model cannot compute or choose, or standard output fails.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        writer: &mut Writer<'_>,
        bar: &mut Bar,
    ) -> Outcome<(Generated, Stop)> {
        let mut new = Generated::default();
        if self.max_tokens == 0 {
            return Ok((new, Stop::Length));
        }
        self.sampler.forget();
        self.sampler.observe(prompt);
        let start = Instant::now();
        let read = self.read(prompt, &mut new, bar)?;
        new.reading = start.elapsed();
        if !read {
            return Ok((new, Stop::Interrupt));
        }
        let stop = self.continue_text(&mut new, writer)?;
        Ok((new, stop))
    }

    fn continue_text(&mut self, new: &mut Generated, writer: &mut Writer<'_>) -> Outcome<Stop> {
        loop {
            let next = *new.ids.last().expect("reading the prompt chose a token");
            if writer.push(next)? {
                return Ok(Stop::String);
            }
            let session = self.session.session();
            if session.eos().contains(&next) || self.ends.contains(&next) {
                return Ok(Stop::Eos);
            }
            if new.ids.len() == self.max_tokens || session.position() == session.capacity() {
                return Ok(Stop::Length);
            }
            if interrupt::requested() {
                return Ok(Stop::Interrupt);
            }
            self.step(&[next], new)?;
        }
    }

    /// Feeds tokens and chooses the one after them.
    fn step(&mut self, ids: &[u32], new: &mut Generated) -> Outcome {
        let logits = self.session.feed(ids)?;
        let id = self.sampler.sample(logits)?;
        if let Some(n) = self.n_logprobs {
            let log = LogSoftmax::of(logits);
            new.scored.push(Scored {
                id,
                logprob: log.at(logits[id as usize]),
                top: log.most_likely(logits, n),
            });
        }
        new.ids.push(id);
        Ok(())
    }

    /// Feeds the prompt and chooses the first new token; `false` after Ctrl-C.
    fn read(&mut self, prompt: &[u32], new: &mut Generated, bar: &mut Bar) -> Outcome<bool> {
        let mut done = self.session.begin(prompt)?;
        new.n_reused = done;
        while done < prompt.len() {
            if interrupt::requested() {
                bar.clear();
                return Ok(false);
            }
            if prompt.len() - new.n_reused > CHUNK {
                bar.reading(done, prompt.len());
            }
            let end = prompt.len().min(done + CHUNK);
            let chunk = &prompt[done..end];
            done = end;
            if done < prompt.len() {
                self.session.feed(chunk)?;
            } else {
                bar.clear();
                self.step(chunk, new)?;
            }
        }
        match new.ids.is_empty() {
            true => Err(Failure::new("there are no tokens; give at least one")),
            false => Ok(true),
        }
    }
}
