//! What was measured of models, in numbers and as a table.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::{Bleu, Divergence, Scores};
use crate::generation::quant::Quant;
use crate::generation::session::Session;

/// What was measured of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Where it came from.
    pub model: String,
    /// What was made of it, if it was not left as it is.
    pub quant: Option<String>,
    /// Bytes of all parameters.
    pub weight_bytes: u64,
    /// The same in bits for each parameter.
    pub bits_per_weight: f64,
    /// The mean of -log p of the text's tokens.
    pub nats_per_token: f64,
    /// Its exponential.
    pub perplexity: f64,
    /// The standard error of that.
    pub perplexity_error: f64,
    /// The sum of -log2 p, by the bytes of the text.
    pub bits_per_byte: f64,
    /// Tokens of the text read in a second.
    pub read_tok_s: Option<f64>,
    /// Tokens written in a second, one by one.
    pub write_tok_s: Option<f64>,
    /// How far it is from the reference, if there is one.
    pub against: Option<Against>,
}

/// How far a model is from the reference.
#[derive(Clone, Debug, Serialize)]
pub struct Against {
    /// The model's perplexity over the reference's.
    pub perplexity_ratio: f64,
    /// The mean divergence from the reference, in nats.
    pub kl_mean: f64,
    /// Its 99th percentile.
    pub kl_p99: f64,
    /// The share of positions where both have the same most likely token.
    pub agreement: f64,
    /// Root of the mean square of the change of the text's tokens' probabilities.
    pub rms_delta_p: f64,
    /// The mean squared difference of logits.
    pub logit_mse: f64,
    /// The cosine between logits.
    pub logit_cosine: f64,
    /// BLEU-1 to BLEU-4 of greedy continuations, from 0 to 100.
    pub bleu: Option<[f64; 4]>,
    /// What short continuations cost of it.
    pub brevity_penalty: Option<f64>,
}

impl Figures {
    /// Those of a model alone, on a text of so many bytes.
    pub fn new(
        (model, quant): (&str, Option<Quant>),
        session: &Session,
        scores: &Scores,
        bytes: usize,
    ) -> Figures {
        let info = session.info();
        Figures {
            model: model.to_owned(),
            quant: quant.map(|quant| quant.to_string()),
            weight_bytes: info.weight_bytes,
            bits_per_weight: info.weight_bytes as f64 * 8.0 / info.parameters.max(1) as f64,
            nats_per_token: scores.mean(),
            perplexity: scores.perplexity(),
            perplexity_error: scores.perplexity_error(),
            bits_per_byte: scores.bits_per_byte(bytes),
            read_tok_s: None,
            write_tok_s: None,
            against: None,
        }
    }

    /// How many tokens of the text were read in which time.
    pub fn read_at(&mut self, fed: (usize, Duration)) {
        self.read_tok_s = rate(fed);
    }

    /// How many tokens were written in which time.
    pub fn written_at(&mut self, fed: (usize, Duration)) {
        self.write_tok_s = rate(fed);
    }

    /// How far the model is from the reference.
    pub fn compare(&mut self, found: &Divergence, reference: &Scores, bleu: Option<&Bleu>) {
        self.against = Some(Against {
            perplexity_ratio: self.perplexity / reference.perplexity(),
            kl_mean: found.kl_mean(),
            kl_p99: found.kl_quantile(0.99),
            agreement: found.agreement(),
            rms_delta_p: found.rms_delta_p(),
            logit_mse: found.logit_mse(),
            logit_cosine: found.logit_cosine(),
            bleu: bleu.map(|bleu| [1, 2, 3, 4].map(|order| bleu.score(order))),
            brevity_penalty: bleu.map(Bleu::brevity_penalty),
        });
    }

    /// A short name beside others, of which `first` comes first: what was made of it, or the last part of its path.
    pub fn name(&self, first: &Figures) -> &str {
        match &self.quant {
            Some(quant) => quant,
            None if self.model == first.model => "as stored",
            None => {
                let path = self.model.trim_end_matches('/');
                path.rsplit('/').next().unwrap_or(path)
            }
        }
    }
}

fn rate((n, time): (usize, Duration)) -> Option<f64> {
    (n > 0).then(|| n as f64 / time.as_secs_f64())
}

/// A column of a table: its name, its width, and the number in it with so many digits.
type Column = (&'static str, usize, usize, fn(&Figures) -> Option<f64>);

#[rustfmt::skip]
const COLUMNS: [Column; 16] = [
    ("bits", 8, 4, |f| Some(f.bits_per_weight)),
    ("bytes", 12, 0, |f| Some(f.weight_bytes as f64)),
    ("perplexity", 10, 4, |f| Some(f.perplexity)),
    ("ratio", 7, 4, |f| Some(f.against.as_ref()?.perplexity_ratio)),
    ("KL mean", 9, 6, |f| Some(f.against.as_ref()?.kl_mean)),
    ("KL p99", 9, 6, |f| Some(f.against.as_ref()?.kl_p99)),
    ("agree %", 7, 2, |f| Some(100.0 * f.against.as_ref()?.agreement)),
    ("dp %", 7, 3, |f| Some(100.0 * f.against.as_ref()?.rms_delta_p)),
    ("MSE", 8, 5, |f| Some(f.against.as_ref()?.logit_mse)),
    ("cosine", 8, 6, |f| Some(f.against.as_ref()?.logit_cosine)),
    ("BLEU-1", 6, 1, |f| Some(f.against.as_ref()?.bleu?[0])),
    ("BLEU-2", 6, 1, |f| Some(f.against.as_ref()?.bleu?[1])),
    ("BLEU-3", 6, 1, |f| Some(f.against.as_ref()?.bleu?[2])),
    ("BLEU-4", 6, 1, |f| Some(f.against.as_ref()?.bleu?[3])),
    ("read/s", 8, 0, |f| f.read_tok_s),
    ("written/s", 9, 1, |f| f.write_tok_s),
];

/// A model on each line, with `-` for what was not measured.
pub fn table(models: &[Figures]) -> String {
    let names = models.iter().map(|model| model.name(&models[0]));
    let longest = names.map(|name| name.chars().count()).max();
    let first = longest.unwrap_or(0).max(10);
    let mut text = format!("\n{:<first$}", "weights");
    for (name, width, ..) in COLUMNS {
        let _ = write!(text, " {name:>width$}");
    }
    text.push('\n');
    for model in models {
        let _ = write!(text, "{:<first$}", model.name(&models[0]));
        for (_, width, digits, of) in COLUMNS {
            let number = of(model).map_or("-".to_owned(), |value| format!("{value:.digits$}"));
            let _ = write!(text, " {number:>width$}");
        }
        text.push('\n');
    }
    text
}
