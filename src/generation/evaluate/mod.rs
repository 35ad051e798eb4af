//! How well a model predicts a text, and how far it is from another model.
//!
//! | file | what it measures |
//! |---|---|
//! | [`windows`] | nothing: cuts a text into what is fed and what is to be predicted |
//! | [`scores`] | how probable a model finds the text |
//! | [`divergence`] | how far two models' predictions of the same token are apart |
//! | [`bleu`] | how much two models' texts have in common |
//! | [`trial`] | all of these for one text, of a model alone or beside a reference |
//! | [`figures`] | nothing: what was measured, in numbers and as a table |
//!
//! Memory does not grow with the text, but for eight bytes a token: logits are compared as they come, a few positions at a
//! time. Sums are taken in `f64` and in the order of the text.
//!
//! Deliberately absent: files, tokenizers, tasks with right and wrong answers.

use std::time::{Duration, Instant};

use super::session::Session;
use crate::error::{Error, Result};

pub mod bleu;
pub mod divergence;
pub mod figures;
pub mod scores;
pub mod trial;
pub mod windows;

pub use bleu::Bleu;
pub use divergence::Divergence;
pub use figures::{Against, Figures, table};
pub use scores::Scores;
pub use trial::{Comparison, Trial, TrialOptions};
pub use windows::{Window, Windows};

/// Positions whose logits are in memory at once.
const CHUNK: usize = 128;

/// What [`evaluate`] found out.
#[derive(Clone, Debug, Default)]
pub struct Evaluation {
    /// Of the model.
    pub scores: Scores,
    /// Of the reference, if there is one.
    pub reference: Option<Scores>,
    /// Between both.
    pub divergence: Divergence,
    /// Tokens that the model was fed, and the time that it took.
    pub fed: (usize, Duration),
}

/// Lets `model`, and `reference` if there is one, predict the text; both must give [all rows](super::session::Rows::All).
/// `progress` is told how many of the windows are done, and how many there are.
///
/// # Errors
/// If a token is not in a vocabulary, a window is longer than a session's context, the vocabularies differ, a session gives
/// only the last row, or a model's logits are not numbers.
pub fn evaluate(
    model: &mut Session,
    mut reference: Option<&mut Session>,
    windows: &Windows<'_>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation> {
    if let Some(reference) = &reference {
        let sizes = (reference.vocab_size(), model.vocab_size());
        if sizes.0 != sizes.1 {
            return Err(Error::msg(format!(
                "vocabularies of {} and {} tokens cannot be compared",
                sizes.0, sizes.1
            )));
        }
    }
    let mut found = Evaluation {
        reference: reference.as_ref().map(|_| Scores::default()),
        ..Evaluation::default()
    };
    let n_windows = windows.clone().count();
    for (n, window) in windows.clone().enumerate() {
        progress(n, n_windows);
        model.reset();
        if let Some(reference) = &mut reference {
            reference.reset();
        }
        for at in (0..window.inputs.len()).step_by(CHUNK) {
            found.chunk(model, reference.as_deref_mut(), &window, at)?;
        }
    }
    progress(n_windows, n_windows);
    let finite = |scores: &Scores| scores.mean().is_finite();
    if !finite(&found.scores) || !found.reference.as_ref().is_none_or(finite) {
        return Err(Error::msg(
            "a model's logits are not finite; are its weights?",
        ));
    }
    Ok(found)
}

impl Evaluation {
    /// Feeds the part of a window that starts at `at`.
    fn chunk(
        &mut self,
        model: &mut Session,
        reference: Option<&mut Session>,
        window: &Window,
        at: usize,
    ) -> Result<()> {
        let end = window.inputs.len().min(at + CHUNK);
        let vocab = model.vocab_size();
        let start = Instant::now();
        let rows = model.feed(&window.inputs[at..end])?;
        self.fed.0 += end - at;
        self.fed.1 += start.elapsed();
        let others = match reference {
            None => None,
            Some(reference) => Some(reference.feed(&window.inputs[at..end])?),
        };
        for given in [Some(rows), others].into_iter().flatten() {
            if given.len() != (end - at) * vocab {
                return Err(Error::msg(
                    "a text is evaluated with the logits of all rows",
                ));
            }
        }
        for position in at.max(window.counted_from)..end {
            let target = window.targets[position];
            check_target(target, vocab)?;
            let row = (position - at) * vocab..(position - at + 1) * vocab;
            let own = &rows[row.clone()];
            match (others, &mut self.reference) {
                (Some(others), Some(scores)) => {
                    let [other, own] = self.divergence.add(&others[row], own, target);
                    scores.add_logprob(other);
                    self.scores.add_logprob(own);
                }
                _ => self.scores.add(own, target),
            }
        }
        Ok(())
    }
}

fn check_target(target: u32, vocab: usize) -> Result<()> {
    match (target as usize) < vocab {
        true => Ok(()),
        false => Err(Error::msg(format!(
            "token {target} is not in the vocabulary of {vocab}"
        ))),
    }
}

/// The `length` tokens at most that `session` finds most likely one after the other, up to one that ends texts, which is left
/// out; and how long the tokens after the first took, with their number.
///
/// # Errors
/// If prompt and continuation do not fit the context, or nothing can be chosen.
pub fn greedy(
    session: &mut Session,
    prompt: &[u32],
    length: usize,
) -> Result<(Vec<u32>, (usize, Duration))> {
    let vocab = session.vocab_size();
    let mut sampler = super::Sampler::new(super::Sampling::greedy())?;
    let mut choose = |logits: &[f32]| sampler.sample(&logits[logits.len() - vocab..]);
    session.reset();
    let (mut ids, mut next) = (Vec::new(), None);
    for chunk in prompt.chunks(CHUNK) {
        next = Some(choose(session.feed(chunk)?)?);
    }
    let mut next = next.ok_or_else(|| Error::msg("no tokens to feed"))?;
    let start = Instant::now();
    let mut n_fed = 0;
    while ids.len() < length && !session.eos().contains(&next) {
        ids.push(next);
        if ids.len() < length {
            next = choose(session.feed(&[next])?)?;
            n_fed += 1;
        }
    }
    Ok((ids, (n_fed, start.elapsed())))
}

/// Where `n` prompts of `prompt` tokens, each with `length` more after it, begin in a text of `len` tokens: evenly spread,
/// fewer where the text is too short for so many that do not overlap.
pub fn prompt_starts(len: usize, n: usize, prompt: usize, length: usize) -> Vec<usize> {
    let each = prompt.saturating_add(length).max(1);
    let n = n.min(len / each);
    (0..n).map(|i| i * (len - each) / (n - 1).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_spread_over_the_text_and_do_not_overlap() {
        assert_eq!(prompt_starts(100, 4, 6, 4), [0, 30, 60, 90]);
        assert_eq!(prompt_starts(25, 4, 6, 4), [0, 15]);
        assert_eq!(prompt_starts(10, 4, 6, 4), [0]);
        assert!(prompt_starts(9, 4, 6, 4).is_empty());
        assert!(prompt_starts(100, 0, 6, 4).is_empty());
        for n in 1..40 {
            let starts = prompt_starts(311, n, 5, 3);
            assert!(starts.windows(2).all(|p| p[1] >= p[0] + 8), "{starts:?}");
            assert!(starts.iter().all(|start| start + 8 <= 311));
        }
    }
}
