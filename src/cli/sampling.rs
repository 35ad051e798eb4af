//! The options that say how tokens are chosen, and what ends a text.

use brain_blitz::generation::sampler::{Sampler, Sampling};
use brain_blitz::generation::stop::StopStrings;

use super::failure::Outcome;

/// How the next token is chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct SamplingArgs {
    /// Randomness of the choice; 0 always takes the most likely token
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.8,
        allow_negative_numbers = true
    )]
    temperature: f32,
    /// Choose among the K most likely tokens; 0 means all
    #[arg(
        long,
        value_name = "K",
        default_value_t = 50,
        allow_negative_numbers = true
    )]
    top_k: usize,
    /// Choose among the fewest of the most likely tokens whose probabilities reach P
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    top_p: f32,
    /// Choose among the tokens at least P times as likely as the most likely one; 0 means all
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    min_p: f32,
    /// Make tokens that were there lately less likely: logits above 0 are divided by R, others multiplied
    #[arg(
        long,
        value_name = "R",
        default_value_t = 1.0,
        allow_negative_numbers = true
    )]
    repeat_penalty: f32,
    /// How many of the last tokens, those of the prompt too, --repeat-penalty looks at
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        allow_negative_numbers = true
    )]
    repeat_last_n: usize,
    /// Which random numbers; the same seed gives the same text
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// End the text before this string; may be given several times
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    stop: Vec<String>,
}

impl SamplingArgs {
    /// What chooses the tokens.
    ///
    /// # Errors
    /// If a number is outside its range.
    pub fn sampler(&self) -> Outcome<Sampler> {
        Ok(Sampler::new(Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_last_n: self.repeat_last_n,
            seed: self.seed,
        })?)
    }

    /// What ends the text.
    ///
    /// # Errors
    /// If a string is empty.
    pub fn stop_strings(&self) -> Outcome<StopStrings> {
        Ok(StopStrings::new(self.stop.clone())?)
    }
}
