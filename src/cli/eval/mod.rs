//! `brain-blitz eval`: how well a model predicts a text, and how far it is from a reference.
//!
//! | file | what it does |
//! |---|---|
//! | [`report`] | puts what was measured into lines, a table or JSON |
//!
//! What is measured, and how, is the library's `generation::evaluate`.

use std::path::{Path, PathBuf};

use brain_blitz::atomic;
use brain_blitz::compilers::Math;
use brain_blitz::formats::Tokenizer;
use brain_blitz::generation::Quant;
use brain_blitz::generation::evaluate::{Comparison, Trial, TrialOptions};
use brain_blitz::generation::session::{CacheType, Rows, Session};
use brain_blitz::train::plot;

use self::report::Report;
use super::failure::{Failure, Outcome};
use super::generate::open_tokenizer;
use super::model::{ModelArgs, context_for, quant};
use super::progress::Bar;
use super::{at_least_one, output, text};

mod report;

/// What `eval` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// File with the text to predict, - for standard input
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// Also compare with this model, which must have the same tokens; --quant, --kv-cache and --math are not for it
    #[arg(long, value_name = "PATH", conflicts_with = "quants")]
    against: Option<PathBuf>,
    /// Compare the model as it is with itself stored in these ways: all, bits (one for each number of bits), or
    /// q8_0,q4_0-a32,w1a8,...
    #[arg(long, value_name = "TYPES", value_parser = quants, conflicts_with = "quant")]
    quants: Option<Quants>,
    /// With --quants: compare with this model too, which must have the same tokens; may be given several times
    #[arg(long, value_name = "PATH", requires = "quants")]
    other: Vec<PathBuf>,
    /// With --quants: draw quality by size, and speed by bits, into this file
    #[arg(long, value_name = "FILE", requires = "quants")]
    svg: Option<PathBuf>,
    /// Tokens that are fed at once, and predicted from nothing but each other
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = at_least_one)]
    context: usize,
    /// Tokens from the start of one such window to that of the next [default: --context]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    stride: Option<usize>,
    /// Only the first N tokens of the text
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,
    /// Prompts of 32 tokens from the text that both models continue greedily, for BLEU; 0 for none
    #[arg(long, value_name = "N", default_value_t = 8)]
    continuations: usize,
    /// Tokens of a continuation
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one)]
    length: usize,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz eval --model models/gemma2-shakespeare --text play.txt
  brain-blitz eval --model models/gemma2-shakespeare --text play.txt --context 256 --stride 128
  brain-blitz eval --model gemma-q4_0.gguf --against gemma-f16.gguf --text wiki.txt --limit 20000
  brain-blitz eval --model models/gemma2-shakespeare --text play.txt --quants all
  brain-blitz eval --model models/gemma2-shakespeare --text play.txt --quants bits --svg bits.svg
  brain-blitz eval --model gemma-f16.gguf --against gemma-f16.gguf --text wiki.txt --kv-cache f16
  brain-blitz eval --model gemma-f16.gguf --against gemma-f16.gguf --text wiki.txt --math approx

The text is cut into windows of --context tokens. Each is fed on its own, after the begin-of-text token
where the model has one; then the text's first token counts too, else it is only fed. Windows begin
--stride tokens apart, and each token of the text counts once: in the first window that predicts it.

  perplexity   exp of the mean of -log p(token), with the standard error
  bits/byte    the sum of -log2 p(token), by the bytes of the text: comparable between tokenizers
  KL           the divergence of the model from the reference, in nats: mean and 99th percentile
  agreement    share of positions where both have the same most likely token
  RMS dp       root of the mean square of the change of the text's tokens' probabilities
  MSE, cosine  mean squared difference and cosine of the logits
  BLEU-1..4    n-grams of tokens that the greedy continuations of both have in common, from 0 to 100:
               of the whole corpus, without smoothing, with the brevity penalty
  tokens/s     reading the text, with the logits of all positions; writing continuations, one by one

Blocks (q8_0, q4_0, ...) have activations of 8 bits; -a32 leaves those as they are. w2 (two signs added),
w1.58 (three values) and w1 store layers as signs, embedding and output layer as q8_0; a8, a4, a2 and a1
round activations to 8, 4 and 2 bits and to signs. Nothing is trained: fewer than three bits are for models that were.
Weights whose rows are no whole number of blocks stay as they are, which bits by weight show.
--json prints {\"text\", \"models\"}; the first of the models is the reference, where there is one.";

/// Ways to store weights, as `--quants` takes them.
#[derive(Clone, Debug)]
struct Quants(Vec<Quant>);

fn quants(text: &str) -> Result<Quants, String> {
    match text {
        "all" => Ok(Quants(Quant::all().collect())),
        "bits" => Ok(Quants(Quant::bits().collect())),
        names => names
            .split(',')
            .map(quant)
            .collect::<Result<_, _>>()
            .map(Quants),
    }
}

/// Checks that the reference's tokenizer, where it has one, makes these tokens of the text, of which `limit` count at most.
fn check_tokens(reference: &Path, text: &str, limit: usize, ids: &[u32]) -> Outcome {
    let Some(other) = Tokenizer::find(reference)? else {
        return Ok(());
    };
    let mut others = other.encode(text, false)?;
    others.truncate(limit);
    if others == ids {
        return Ok(());
    }
    let what = format!("{}: has other tokens for this text", reference.display());
    Err(Failure::new(what).hint("only models with the same tokens can be compared"))
}

/// Runs the command.
///
/// # Errors
/// If the text cannot be read or has no tokens, a model cannot be loaded or has no room for a window, or models have different
/// tokens.
pub fn run(args: &Args) -> Outcome {
    let config = args.model.open_config()?;
    let tokenizer = open_tokenizer(&args.model, true, config.bos_token_id())?;
    let tokenizer = tokenizer.expect("a tokenizer that is needed is there");
    let text = text::read(&args.text)?;
    let trial = Trial::new(&tokenizer, &text, args.trial_options())?;
    for path in args.against.iter().chain(&args.other) {
        check_tokens(path, &text, trial.options().limit, trial.ids())?;
    }
    if let Some(path) = &args.svg {
        output::check_file(path)?;
    }
    let mut report = Report::new(&trial)?;
    let mut bar = Bar::new(args.json || args.model.run.quiet);
    let against = match (&args.against, &args.quants) {
        (Some(path), _) => {
            let exact = ModelArgs::new(path.clone(), args.model.run.clone()).with_quant(None);
            let exact = exact.with_kv_cache(CacheType::F32);
            Some(exact.with_math(Math::Exact))
        }
        (None, Some(_)) => Some(args.model.clone()),
        (None, None) => None,
    };
    match against {
        Some(against) => compare(args, &trial, &against, &mut report, &mut bar)?,
        None => {
            let mut session = load(&trial, &args.model, &mut bar)?;
            let path = args.model.path().display().to_string();
            let name = (path.as_str(), args.model.quant());
            let figures = trial.measure(name, &mut session, &mut |what, done, total| {
                bar.counting(what, done, total);
            });
            bar.clear();
            report.models.push(figures?);
        }
    }
    if let Some(path) = &args.svg {
        atomic::write_bytes(path, plot::comparison(&report.models)?.as_bytes())?;
    }
    report.print(args.json)
}

impl Args {
    fn trial_options(&self) -> TrialOptions {
        TrialOptions {
            context: self.context,
            stride: self.stride.unwrap_or(self.context),
            limit: self.limit.unwrap_or(usize::MAX),
            continuations: self.continuations,
            length: self.length,
        }
    }

    /// What is compared with the reference.
    fn compared(&self) -> Vec<ModelArgs> {
        let Some(Quants(quants)) = &self.quants else {
            return vec![self.model.clone()];
        };
        let quants = quants
            .iter()
            .map(|quant| self.model.with_quant(Some(*quant)));
        let others = self.other.iter();
        let others = others.map(|path| ModelArgs::new(path.clone(), self.model.run.clone()));
        quants.chain(others).collect()
    }
}

/// Measures the model, stored in each way that was asked for, beside the reference `against`.
fn compare(
    args: &Args,
    trial: &Trial,
    against: &ModelArgs,
    report: &mut Report,
    bar: &mut Bar,
) -> Outcome {
    let reference = load(trial, against, bar)?;
    let path = against.path().display().to_string();
    let mut comparison = Comparison::new(trial, reference, &path);
    for (n, model) in args.compared().into_iter().enumerate() {
        let mut session = load(trial, &model, bar)?;
        let path = model.path().display().to_string();
        let done = &session.info().report;
        let is_same = done.stored.is_empty() && done.signed.is_empty();
        if args.quants.is_some() && model.quant().is_some() && is_same {
            let failure = Failure::new(format!("{path}: no weights can be stored in other blocks"));
            return Err(failure.hint("give a model whose weights are f32, f16 or bf16"));
        }
        let name = (path.as_str(), model.quant());
        let figures = comparison.measure(name, &mut session, &mut |what, done, total| {
            bar.counting(what, done, total);
        });
        bar.clear();
        let figures = figures?;
        if n == 0 {
            report.models.push(comparison.reference()?);
        }
        report.models.push(figures);
    }
    Ok(())
}

/// Loads a model with room for what the text needs.
fn load(trial: &Trial, model: &ModelArgs, bar: &mut Bar) -> Outcome<Session> {
    let config = model.open_config()?;
    let needed = trial.needed();
    let context = context_for(needed, &config);
    if context < needed {
        let failure = Failure::new(format!(
            "{}: the model's context holds {context} tokens, {needed} are needed",
            model.path().display(),
        ));
        return Err(failure.hint("give a smaller --context or --length"));
    }
    model.load_packed(Rows::All, context, bar)
}
