//! What `eval` measured, as lines for one model, a table for several, or JSON.

use std::fmt::Write;

use brain_blitz::generation::evaluate::{Figures, Trial, table};
use serde::Serialize;

use crate::cli::failure::Outcome;
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

impl Report {
    /// Nothing measured yet, on this text.
    ///
    /// # Errors
    /// If it has no windows.
    pub fn new(trial: &Trial) -> Outcome<Report> {
        let (windows, options) = (trial.windows()?, trial.options());
        let text = Text {
            tokens: windows.n_counted(),
            bytes: trial.bytes(),
            context: options.context,
            stride: options.stride,
            windows: windows.count(),
        };
        Ok(Report {
            text,
            models: Vec::new(),
        })
    }

    /// Prints everything.
    ///
    /// # Errors
    /// If standard output fails.
    pub fn print(self, json: bool) -> Outcome {
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
    let quant = model.quant.as_ref();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<16} {value}");
    };
    line(
        "weights",
        format!(
            "{} bytes, {:.2} bits each{}",
            model.weight_bytes,
            model.bits_per_weight,
            quant.map_or(String::new(), |quant| format!(", {quant}"))
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
