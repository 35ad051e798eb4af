//! A text, and what models are asked about it: how they predict it, and how they continue parts of it.

use std::time::Duration;

use super::{Bleu, Figures, Scores, Windows, evaluate, greedy, prompt_starts};
use crate::error::{Error, Result};
use crate::formats::Tokenizer;
use crate::generation::quant::Quant;
use crate::generation::session::Session;

/// Tokens of a prompt that models continue.
const PROMPT: usize = 32;

/// How a text is used.
#[derive(Clone, Copy, Debug)]
pub struct TrialOptions {
    /// Tokens that are fed at once, and predicted from nothing but each other.
    pub context: usize,
    /// Tokens from the start of one such window to that of the next.
    pub stride: usize,
    /// Only so many tokens of the text.
    pub limit: usize,
    /// Prompts from the text that are continued.
    pub continuations: usize,
    /// Tokens of a continuation.
    pub length: usize,
}

impl Default for TrialOptions {
    /// All of the text in windows of 512, and 8 continuations of 32 tokens.
    fn default() -> TrialOptions {
        TrialOptions {
            context: 512,
            stride: 512,
            limit: usize::MAX,
            continuations: 8,
            length: 32,
        }
    }
}

/// The text as tokens.
#[derive(Clone, Debug)]
pub struct Trial {
    ids: Vec<u32>,
    bos: Option<u32>,
    bytes: usize,
    prompts: Vec<Vec<u32>>,
    options: TrialOptions,
}

/// Is told what is done, how often it was done, and how often it will be.
pub type OnProgress<'a> = dyn FnMut(&str, usize, usize) + 'a;

/// What a model made of the prompts.
#[derive(Clone, Debug, Default)]
struct Texts {
    ids: Vec<Vec<u32>>,
    /// Tokens that were fed one by one, and how long that took.
    fed: (usize, Duration),
}

impl Trial {
    /// The tokens that a model's tokenizer makes of a text.
    ///
    /// # Errors
    /// If it cannot.
    pub fn new(tokenizer: &Tokenizer, text: &str, options: TrialOptions) -> Result<Trial> {
        let mut ids = tokenizer.encode(text, false)?;
        let all = ids.len();
        ids.truncate(options.limit);
        let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let first = usize::from(bos.is_none()).min(ids.len());
        let bytes = match ids.len() - first == all {
            true => text.len(),
            false => tokenizer.decode(&ids[first..])?.len(),
        };
        let starts = prompt_starts(ids.len(), options.continuations, PROMPT, options.length);
        let prompt = |start: usize| -> Vec<u32> {
            let text = ids[start..start + PROMPT].iter().copied();
            bos.into_iter().chain(text).collect()
        };
        let prompts: Vec<_> = starts.into_iter().map(prompt).collect();
        Ok(Trial {
            ids,
            bos,
            bytes,
            prompts,
            options,
        })
    }

    /// The text's tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The bytes of the tokens that count.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How the text is used.
    pub fn options(&self) -> &TrialOptions {
        &self.options
    }

    /// What is fed and what is to be predicted.
    ///
    /// # Errors
    /// If there are no tokens to predict, or the windows leave some out.
    pub fn windows(&self) -> Result<Windows<'_>> {
        let TrialOptions {
            context, stride, ..
        } = self.options;
        Windows::new(&self.ids, self.bos, context, stride)
    }

    /// Room for tokens that a session needs.
    pub fn needed(&self) -> usize {
        let TrialOptions {
            context, length, ..
        } = self.options;
        match self.prompts.is_empty() {
            true => context,
            false => context.max(length.saturating_add(PROMPT + 1)),
        }
    }

    /// How a model predicts the text; `name` is its file or folder, and what was made of it.
    ///
    /// # Errors
    /// Those of [`evaluate()`].
    pub fn measure(
        &self,
        name: (&str, Option<Quant>),
        session: &mut Session,
        progress: &mut OnProgress<'_>,
    ) -> Result<Figures> {
        let found = evaluate(session, None, &self.windows()?, &mut |done, total| {
            progress("Reading", done, total);
        })?;
        let mut figures = Figures::new(name, session, &found.scores, self.bytes);
        figures.read_at(found.fed);
        Ok(figures)
    }

    fn texts(&self, session: &mut Session, progress: &mut OnProgress<'_>) -> Result<Texts> {
        let (mut ids, mut fed) = (Vec::new(), (0, Duration::ZERO));
        for (n, prompt) in self.prompts.iter().enumerate() {
            progress("Writing", n, self.prompts.len());
            let (text, (n, time)) = greedy(session, prompt, self.options.length)?;
            ids.push(text);
            fed = (fed.0 + n, fed.1 + time);
        }
        Ok(Texts { ids, fed })
    }
}

/// Models beside a reference, one after the other.
pub struct Comparison<'a> {
    trial: &'a Trial,
    reference: Session,
    /// Where the reference came from.
    name: String,
    /// How the reference continues the prompts and predicts the text, once a model was compared with it.
    found: Option<(Texts, Scores)>,
}

impl<'a> Comparison<'a> {
    /// Nothing measured yet; `name` is the reference's file or folder.
    pub fn new(trial: &'a Trial, reference: Session, name: &str) -> Comparison<'a> {
        Comparison {
            trial,
            reference,
            name: name.to_owned(),
            found: None,
        }
    }

    /// The figures of a model, and how far it is from the reference.
    ///
    /// # Errors
    /// Those of [`evaluate()`].
    pub fn measure(
        &mut self,
        name: (&str, Option<Quant>),
        session: &mut Session,
        progress: &mut OnProgress<'_>,
    ) -> Result<Figures> {
        let title = name
            .1
            .map_or("Reading".to_owned(), |quant| quant.to_string());
        let windows = self.trial.windows()?;
        let reference = Some(&mut self.reference);
        let found = evaluate(session, reference, &windows, &mut |done, total| {
            progress(&title, done, total);
        })?;
        let scores = found.reference;
        let scores = scores.ok_or_else(|| Error::msg("there is no reference"))?;
        let texts = match self.found.take() {
            Some((texts, _)) => texts,
            None => self.trial.texts(&mut self.reference, progress)?,
        };
        let own = self.trial.texts(session, progress)?;
        let mut bleu = Bleu::default();
        for (own, reference) in own.ids.iter().zip(&texts.ids) {
            bleu.add(own, reference);
        }
        let mut figures = Figures::new(name, session, &found.scores, self.trial.bytes);
        figures.read_at(found.fed);
        figures.written_at(own.fed);
        let bleu = (!own.ids.is_empty()).then_some(&bleu);
        figures.compare(&found.divergence, &scores, bleu);
        self.found = Some((texts, scores));
        Ok(figures)
    }

    /// The figures of the reference.
    ///
    /// # Errors
    /// If nothing was compared with it yet.
    pub fn reference(&self) -> Result<Figures> {
        let nothing = || Error::msg("nothing was compared with the reference yet");
        let (texts, scores) = self.found.as_ref().ok_or_else(nothing)?;
        let name = (self.name.as_str(), None);
        let mut figures = Figures::new(name, &self.reference, scores, self.trial.bytes);
        figures.written_at(texts.fed);
        Ok(figures)
    }
}
