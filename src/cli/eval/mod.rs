//! `brain-blitz eval`: how well a model predicts a text, and how far it is from a reference.
//!
//! | file | what it does |
//! |---|---|
//! | [`report`] | puts what was measured into lines, a table or JSON |
//!
//! What is measured, and how, is the library's `generation::evaluate`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::Math;
use brain_blitz::formats::Tokenizer;
use brain_blitz::generation::evaluate::{
    Bleu, Evaluation, Windows, evaluate, greedy, prompt_starts,
};
use brain_blitz::generation::session::{CacheType, Rows, Session};

use self::report::{Figures, Report};
use super::failure::{Failure, Outcome};
use super::generate::open_tokenizer;
use super::model::{ModelArgs, block_type, block_types, context_for};
use super::progress::Bar;
use super::{at_least_one, text};

mod report;

/// Tokens of a prompt that both models continue.
const PROMPT: usize = 32;

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
    /// Compare the model as it is with itself in blocks of these types: all, or q8_0,q4_0,...
    #[arg(long, value_name = "TYPES", value_parser = quants, conflicts_with = "quant")]
    quants: Option<Quants>,
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
  BLEU-1..4    n-grams of tokens that the greedy continuations of both have in common, from 0 to 100:
               of the whole corpus, without smoothing, with the brevity penalty
  tokens/s     reading the text, with the logits of all positions; writing continuations, one by one

Weights whose rows are no whole number of blocks stay as they are, which bits by weight show.
--json prints {\"text\", \"models\"}; the first of the models is the reference, where there is one.";

/// Types of blocks, as `--quants` takes them.
#[derive(Clone, Debug)]
struct Quants(Vec<BlockType>);

fn quants(text: &str) -> Result<Quants, String> {
    match text {
        "all" => Ok(Quants(block_types().collect())),
        names => names
            .split(',')
            .map(block_type)
            .collect::<Result<_, _>>()
            .map(Quants),
    }
}

/// The text and how it is used.
struct Subject {
    ids: Vec<u32>,
    bos: Option<u32>,
    context: usize,
    stride: usize,
    /// What both models continue.
    prompts: Vec<Vec<u32>>,
    length: usize,
    /// Room for tokens that a session needs.
    needed: usize,
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
    let (subject, bytes) = subject(args, &tokenizer)?;
    let windows = subject.windows()?;
    let mut report = Report::new(bytes, &windows, subject.context, subject.stride);
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
    let Some(against) = against else {
        let mut session = subject.load(&args.model, &mut bar)?;
        let found = subject.evaluate(&mut session, None, "Reading", &mut bar)?;
        report
            .models
            .push(found.figures(&session, &args.model, None));
        return report.print(args.json);
    };
    compare(args, &subject, &against, &mut report, &mut bar)?;
    report.print(args.json)
}

/// Measures the model, in blocks of each type that was asked for, beside the reference `against`.
fn compare(
    args: &Args,
    subject: &Subject,
    against: &ModelArgs,
    report: &mut Report,
    bar: &mut Bar,
) -> Outcome {
    let mut reference = subject.load(against, bar)?;
    let mut texts = Texts::default();
    let types = match &args.quants {
        Some(Quants(types)) => types.iter().map(|ty| Some(*ty)).collect(),
        None => vec![args.model.quant()],
    };
    for (n, ty) in types.into_iter().enumerate() {
        let model = args.model.with_quant(ty);
        let mut session = subject.load(&model, bar)?;
        if ty.is_some() && session.info().report.stored.is_empty() {
            let path = model.path().display();
            let failure = Failure::new(format!("{path}: no weights can be stored in other blocks"));
            return Err(failure.hint("give a model whose weights are f32, f16 or bf16"));
        }
        let name = ty.map_or("Reading", BlockType::name);
        let mut found = subject.evaluate(&mut session, Some(&mut reference), name, bar)?;
        if n == 0 {
            texts = subject.continue_prompts(&mut reference, bar)?;
            let figures = found.reference_figures(&reference, against, &texts);
            report.models.push(figures);
        }
        let own = subject.continue_prompts(&mut session, bar)?;
        found.compare_texts(&own, &texts);
        let own = (!own.ids.is_empty()).then_some(&own);
        report.models.push(found.figures(&session, &model, own));
    }
    Ok(())
}

/// The text as tokens, and the bytes of what is counted.
fn subject(args: &Args, tokenizer: &Tokenizer) -> Outcome<(Subject, usize)> {
    let text = text::read(&args.text)?;
    let mut ids = tokenizer.encode(&text, false)?;
    let all = ids.len();
    let limit = args.limit.unwrap_or(usize::MAX);
    ids.truncate(limit);
    if let Some(path) = &args.against {
        check_tokens(path, &text, limit, &ids)?;
    }
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let first = usize::from(bos.is_none()).min(ids.len());
    let bytes = match ids.len() - first == all {
        true => text.len(),
        false => tokenizer.decode(&ids[first..])?.len(),
    };
    let (context, length) = (args.context, args.length);
    let stride = args.stride.unwrap_or(context);
    let starts = prompt_starts(ids.len(), args.continuations, PROMPT, length);
    let prompt = |start: usize| -> Vec<u32> {
        let text = ids[start..start + PROMPT].iter().copied();
        bos.into_iter().chain(text).collect()
    };
    let prompts: Vec<_> = starts.into_iter().map(prompt).collect();
    let needed = match prompts.is_empty() {
        true => context,
        false => context.max(length.saturating_add(PROMPT + 1)),
    };
    let subject = Subject {
        ids,
        bos,
        context,
        stride,
        prompts,
        length,
        needed,
    };
    Ok((subject, bytes))
}

/// What was found out about a model.
struct Found {
    evaluation: Evaluation,
    bleu: Bleu,
}

/// What a model made of the prompts.
#[derive(Default)]
struct Texts {
    ids: Vec<Vec<u32>>,
    /// Tokens that were fed one by one, and how long that took.
    fed: (usize, Duration),
}

impl Subject {
    fn windows(&self) -> Outcome<Windows<'_>> {
        let windows = Windows::new(&self.ids, self.bos, self.context, self.stride);
        Ok(windows?)
    }

    fn load(&self, model: &ModelArgs, bar: &mut Bar) -> Outcome<Session> {
        let config = model.open_config()?;
        let context = context_for(self.needed, &config);
        if context < self.needed {
            let failure = Failure::new(format!(
                "{}: the model's context holds {context} tokens, {} are needed",
                model.path().display(),
                self.needed
            ));
            return Err(failure.hint("give a smaller --context or --length"));
        }
        model.load(Rows::All, context, bar)
    }

    fn evaluate(
        &self,
        session: &mut Session,
        reference: Option<&mut Session>,
        name: &str,
        bar: &mut Bar,
    ) -> Outcome<Found> {
        let windows = self.windows()?;
        let evaluation = evaluate(session, reference, &windows, &mut |done, total| {
            bar.counting(name, done, total);
        });
        bar.clear();
        Ok(Found {
            evaluation: evaluation?,
            bleu: Bleu::default(),
        })
    }

    fn continue_prompts(&self, session: &mut Session, bar: &mut Bar) -> Outcome<Texts> {
        let (mut ids, mut fed) = (Vec::new(), (0, Duration::ZERO));
        for (n, prompt) in self.prompts.iter().enumerate() {
            bar.counting("Writing", n, self.prompts.len());
            let (text, (n, time)) = greedy(session, prompt, self.length)?;
            ids.push(text);
            fed = (fed.0 + n, fed.1 + time);
        }
        bar.clear();
        Ok(Texts { ids, fed })
    }
}

impl Found {
    fn compare_texts(&mut self, own: &Texts, reference: &Texts) {
        for (own, reference) in own.ids.iter().zip(&reference.ids) {
            self.bleu.add(own, reference);
        }
    }

    /// The figures of the model; without `texts`, none of continuations.
    fn figures(&self, session: &Session, args: &ModelArgs, texts: Option<&Texts>) -> Figures {
        let mut figures = Figures::new(session, args, &self.evaluation.scores);
        figures.read_at(self.evaluation.fed);
        if let Some(texts) = texts {
            figures.written_at(texts.fed);
        }
        if let Some(reference) = &self.evaluation.reference {
            let bleu = texts.map(|_| &self.bleu);
            figures.compare(&self.evaluation.divergence, reference, bleu);
        }
        figures
    }

    /// The figures of the reference.
    fn reference_figures(&self, session: &Session, args: &ModelArgs, texts: &Texts) -> Figures {
        let scores = self.evaluation.reference.as_ref();
        let scores = scores.expect("there is a reference");
        let mut figures = Figures::new(session, args, scores);
        if !texts.ids.is_empty() {
            figures.written_at(texts.fed);
        }
        figures
    }
}
