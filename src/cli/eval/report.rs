//! What `eval` measured, as lines for one model, a table for several, or JSON.

use std::fmt::Write;
use std::time::Duration;

use brain_blitz::blocks::BlockType;
use brain_blitz::generation::evaluate::{Bleu, Divergence, Scores, Windows};
use brain_blitz::generation::session::Session;
use serde::Serialize;

use crate::cli::failure::Outcome;
use crate::cli::model::ModelArgs;
use crate::cli::output;

/// Everything that was measured.
#[derive(Serialize)]
pub struct Report {
    text: Text,
    /// The reference first, where there is one.
    pub models: Vec<Figures>,
}

/// The text.
#[derive(Serialize)]
struct Text {
    /// Tokens that are counted.
    tokens: usize,
    /// Bytes of these tokens.
    bytes: usize,
    context: usize,
    stride: usize,
    windows: usize,
}

/// What was measured of a model.
#[derive(Serialize)]
pub struct Figures {
    model: String,
    quant: Option<&'static str>,
    weight_bytes: u64,
    bits_per_weight: f64,
    #[serde(skip)]
    scores: Scores,
    nats_per_token: f64,
    perplexity: f64,
    perplexity_error: f64,
    bits_per_byte: f64,
    read_tok_s: Option<f64>,
    write_tok_s: Option<f64>,
    against: Option<Against>,
}

/// How far a model is from the reference.
#[derive(Serialize)]
struct Against {
    perplexity_ratio: f64,
    kl_mean: f64,
    kl_p99: f64,
    agreement: f64,
    rms_delta_p: f64,
    logit_mse: f64,
    logit_cosine: f64,
    bleu: Option<[f64; 4]>,
    brevity_penalty: Option<f64>,
}

impl Figures {
    /// Those of a model alone.
    pub fn new(session: &Session, args: &ModelArgs, scores: &Scores) -> Figures {
        let info = session.info();
        Figures {
            model: args.path().display().to_string(),
            quant: args.quant().map(BlockType::name),
            weight_bytes: info.weight_bytes,
            bits_per_weight: info.weight_bytes as f64 * 8.0 / info.parameters.max(1) as f64,
            scores: *scores,
            nats_per_token: scores.mean(),
            perplexity: scores.perplexity(),
            perplexity_error: scores.perplexity_error(),
            bits_per_byte: f64::NAN,
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

    /// A short name for a table.
    fn name(&self) -> &str {
        self.quant.unwrap_or("as stored")
    }
}

fn rate((n, time): (usize, Duration)) -> Option<f64> {
    (n > 0).then(|| n as f64 / time.as_secs_f64())
}

impl Report {
    /// Nothing measured yet, on a text of so many bytes.
    pub fn new(bytes: usize, windows: &Windows<'_>, context: usize, stride: usize) -> Report {
        let text = Text {
            tokens: windows.n_counted(),
            bytes,
            context,
            stride,
            windows: windows.clone().count(),
        };
        Report {
            text,
            models: Vec::new(),
        }
    }

    /// Prints everything.
    ///
    /// # Errors
    /// If standard output fails.
    pub fn print(mut self, json: bool) -> Outcome {
        for model in &mut self.models {
            model.bits_per_byte = model.scores.bits_per_byte(self.text.bytes);
        }
        if json {
            return output::write_json(&self);
        }
        let Text {
            tokens,
            bytes,
            context,
            stride,
            windows,
        } = &self.text;
        let mut text = format!(
            "text             {tokens} tokens, {bytes} bytes; {windows} windows of {context}, {stride} apart\n"
        );
        match &self.models[..] {
            [model] => text.push_str(&lines(model)),
            [reference, model] if model.model != reference.model || model.quant.is_none() => {
                let _ = writeln!(text, "\nreference        {}", reference.model);
                text.push_str(&lines(reference));
                let _ = writeln!(text, "\nmodel            {}", model.model);
                text.push_str(&lines(model));
            }
            models => text.push_str(&table(models)),
        }
        output::write(&text)
    }
}

/// A figure on each line.
fn lines(model: &Figures) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16} {value}");
    };
    line(
        "weights",
        format!(
            "{} bytes, {:.2} bits each{}",
            model.weight_bytes,
            model.bits_per_weight,
            model.quant.map_or(String::new(), |ty| format!(", {ty}"))
        ),
    );
    line(
        "perplexity",
        format!("{:.4} ± {:.4}", model.perplexity, model.perplexity_error),
    );
    line("bits/byte", format!("{:.4}", model.bits_per_byte));
    if let Some(found) = &model.against {
        line("perplexity ratio", format!("{:.5}", found.perplexity_ratio));
        line(
            "KL",
            format!(
                "mean {:.6}, 99th percentile {:.6} nats",
                found.kl_mean, found.kl_p99
            ),
        );
        line("agreement", format!("{:.2} %", 100.0 * found.agreement));
        line("RMS dp", format!("{:.3} %", 100.0 * found.rms_delta_p));
        line(
            "logits",
            format!(
                "mean square error {:.6}, cosine {:.6}",
                found.logit_mse, found.logit_cosine
            ),
        );
        if let (Some([a, b, c, d]), Some(penalty)) = (found.bleu, found.brevity_penalty) {
            let value = format!("{a:.2} {b:.2} {c:.2} {d:.2}, brevity penalty {penalty:.3}");
            line("BLEU-1..4", value);
        }
    }
    for (name, rate) in [
        ("reading", model.read_tok_s),
        ("writing", model.write_tok_s),
    ] {
        if let Some(rate) = rate {
            line(name, format!("{rate:.1} tokens/s"));
        }
    }
    text
}

/// A model on each line.
fn table(models: &[Figures]) -> String {
    let mut text = format!(
        "\n{:<10} {:>8} {:>12} {:>10} {:>7} {:>9} {:>9} {:>7} {:>7} {:>6} {:>6} {:>9}\n",
        "weights",
        "bits",
        "bytes",
        "perplexity",
        "ratio",
        "KL mean",
        "KL p99",
        "agree %",
        "dp %",
        "BLEU-1",
        "BLEU-4",
        "written/s",
    );
    for model in models {
        let _ = write!(
            text,
            "{:<10} {:>8.4} {:>12} {:>10.4}",
            model.name(),
            model.bits_per_weight,
            model.weight_bytes,
            model.perplexity
        );
        let nothing = || "-".to_owned();
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(nothing, |value| format!("{value:.digits$}"))
        };
        let against = model.against.as_ref();
        let of = |f: fn(&Against) -> f64| against.map(f);
        let bleu = |at: usize| against.and_then(|a| a.bleu).map(|bleu| bleu[at]);
        let _ = writeln!(
            text,
            " {:>7} {:>9} {:>9} {:>7} {:>7} {:>6} {:>6} {:>9}",
            number(of(|a| a.perplexity_ratio), 4),
            number(of(|a| a.kl_mean), 6),
            number(of(|a| a.kl_p99), 6),
            number(of(|a| 100.0 * a.agreement), 2),
            number(of(|a| 100.0 * a.rms_delta_p), 3),
            number(bleu(0), 1),
            number(bleu(3), 1),
            number(model.write_tok_s, 1),
        );
    }
    text
}
