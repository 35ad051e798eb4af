//! `brain-blitz generate`: continues a text, token by token.

use std::fmt::Write;
use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use brain_blitz::formats::Tokenizer;
use brain_blitz::generation::chat::ChatTemplate;
use brain_blitz::generation::session::Rows;
use brain_blitz::generation::{Conversation, ReusingSession};
use serde::Serialize;

use super::decode::{Decoder, Scored, Stop};
use super::failure::{Failure, Outcome};
use super::model::{ModelArgs, context_for};
use super::progress::Bar;
use super::sampling::SamplingArgs;
use super::text::{self, Writer};
use super::tokens::{self, TokenList};
use super::{interrupt, output, tell};

/// What `generate` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Text to continue; the begin-of-text token is put before it
    #[arg(long, value_name = "TEXT", group = "input", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// File with the text to continue, - for standard input; a line break at its end is left out
    #[arg(long, value_name = "FILE", group = "input")]
    prompt_file: Option<PathBuf>,
    /// Token ids to continue, exactly as given: 2,17,99
    #[arg(long, value_name = "IDS", group = "input")]
    tokens: Option<TokenList>,
    /// The prompt is a user's message to a chat model: put it into the form of the model's chat template
    #[arg(long, conflicts_with = "tokens")]
    chat: bool,
    /// With --chat: what the model is told before the message
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Tokens to generate at most; the end-of-text token and the model's context end it earlier
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        allow_negative_numbers = true
    )]
    max_tokens: usize,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Also tell how likely the model found each new token and the N most likely ones: natural
    /// logarithms, before the temperature and everything else that choosing does
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// Print one line of JSON at the end, and nothing else
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz generate --model models/gemma2-shakespeare --prompt 'HAMLET:'
  brain-blitz generate --model models/gemma2-shakespeare --prompt 'HAMLET:' --temperature 0
  brain-blitz generate --model models/gemma2-shakespeare --prompt 'HAMLET:' --min-p 0.1 --seed 7
  brain-blitz generate --model models/gemma2-shakespeare --prompt 'HAMLET:' --stop 'OPHELIA:'
  brain-blitz generate --model models/gemma2-shakespeare --prompt-file scene.txt --repeat-penalty 1.1
  brain-blitz generate --model models/gemma2-shakespeare --tokens 2,17,99 --logprobs 3 --json
  brain-blitz generate --model gemma-2-2b-it-Q8_0.gguf --chat --prompt 'Why is the sky blue?'

What chooses a token, in this order: --repeat-penalty, --temperature, --top-k, --top-p, --min-p.
The prompt is printed first, then the continuation as it comes; without a tokenizer.json, token ids
are printed instead. Ctrl-C ends the text where it is; a second Ctrl-C ends the program.
--json prints {\"text\", \"tokens\", \"generated\", \"stop\"}: text and ids of prompt and continuation, how
many of the ids are new, and what ended it: eos, length, string or interrupt. The text ends before a
string of --stop, the ids end with the token that completed it. With --logprobs there is also
\"logprobs\", for each new token {\"id\", \"token\", \"logprob\", \"top\"}.";

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    text: Option<&'a str>,
    tokens: &'a [u32],
    generated: usize,
    stop: Stop,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<ScoredRow>>,
}

/// A token and its probability.
#[derive(Serialize)]
struct TokenRow {
    id: u32,
    token: Option<String>,
    logprob: f64,
}

/// A new token, its probability, and the most likely ones.
#[derive(Serialize)]
struct ScoredRow {
    #[serde(flatten)]
    chosen: TokenRow,
    top: Vec<TokenRow>,
}

/// Runs the command.
///
/// # Errors
/// If the prompt does not fit the model, the model cannot be loaded, or nobody takes the output.
pub fn run(args: &Args) -> Outcome {
    let sampler = args.sampling.sampler()?;
    let stop_strings = args.sampling.stop_strings()?;
    let config = args.model.open_config()?;
    let text = match &args.prompt_file {
        Some(path) => Some(text::read_prompt(path)?),
        None => args.prompt.clone(),
    };
    let opening = Opening::begin(&args.model, text.is_some(), config.bos_token_id());
    let mut bar = Bar::new(args.json || args.model.run.quiet);
    let context = |prompt: usize| context_for(prompt.saturating_add(args.max_tokens), &config);
    let mut load = |context| args.model.load(Rows::Last, context, &mut bar);
    let early = early_context(args, text.as_deref(), context);
    let early = early.map(&mut load).transpose()?;
    // The process ends when this is done, and the system takes memory back sooner than it is given back piece by piece.
    let tokenizer = ManuallyDrop::new(opening.finish()?);
    let eos = config.eos_token_ids().first().copied();
    let (prompt, ends) = prompt_ids(args, text.as_deref(), tokenizer.as_ref(), eos)?;
    tokens::check(&prompt, &config)?;
    let context = context(prompt.len());
    let session = match early.filter(|session| session.capacity() == context) {
        Some(session) => session,
        None => load(context)?,
    };
    interrupt::watch()?;
    let mut writer = Writer::new(tokenizer.as_ref(), stop_strings, !args.json);
    let mut decoder = ManuallyDrop::new(Decoder {
        session: ReusingSession::new(session),
        sampler,
        max_tokens: args.max_tokens,
        ends,
        n_logprobs: args.logprobs,
    });
    for &id in &prompt {
        writer.prompt(id)?;
    }
    let (new, stop) = decoder.generate(&prompt, &mut writer, &mut bar)?;
    writer.finish(stop == Stop::String)?;
    let rows = args.logprobs.map(|_| rows(&new.scored, tokenizer.as_ref()));
    if args.json {
        return output::write_json(&Summary {
            text: tokenizer.as_ref().map(|_| writer.text()),
            tokens: &[prompt, new.ids.clone()].concat(),
            generated: new.ids.len(),
            stop,
            logprobs: rows,
        });
    }
    if let Some(rows) = rows {
        output::write(&table(&rows))?;
    }
    if stop == Stop::Length && new.ids.len() < args.max_tokens && !args.model.run.quiet {
        tell(&format!(
            "note: the model's context of {context} tokens is full"
        ));
    }
    Ok(())
}

/// The context that the model can be loaded with before the tokenizer is there: that of any prompt of at most a token a byte,
/// which nearly all are. `context` is that of so many tokens.
fn early_context(
    args: &Args,
    text: Option<&str>,
    context: impl Fn(usize) -> usize,
) -> Option<usize> {
    let most = text.filter(|_| !args.chat)?.len() + 2;
    (context(most) == context(1)).then(|| context(1))
}

/// A tokenizer that is being opened on a thread of its own: with a large vocabulary, that takes as long as the model does.
pub struct Opening(JoinHandle<Outcome<Option<Tokenizer>>>);

impl Opening {
    /// Begins what [`open_tokenizer`] does.
    pub fn begin(model: &ModelArgs, needed: bool, bos: Option<u32>) -> Opening {
        let model = model.clone();
        Opening(thread::spawn(move || open_tokenizer(&model, needed, bos)))
    }

    /// Waits for it.
    ///
    /// # Errors
    /// As [`open_tokenizer`].
    pub fn finish(self) -> Outcome<Option<Tokenizer>> {
        let done = self.0.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The model's tokenizer, which `needed` makes an error to be without; `bos` is the model's begin-of-text token.
///
/// # Errors
/// If it is needed and not there, or damaged.
pub fn open_tokenizer(
    model: &ModelArgs,
    needed: bool,
    bos: Option<u32>,
) -> Outcome<Option<Tokenizer>> {
    let found = match needed {
        true => Some(Tokenizer::of_model(model.files()?)?),
        false => model.files()?.tokenizer()?,
    };
    Ok(found.map(|mut tokenizer| {
        if bos.is_some() {
            tokenizer.set_bos(bos);
        }
        tokenizer
    }))
}

/// What the model is fed, and the tokens that end its answer beside its own.
fn prompt_ids(
    args: &Args,
    text: Option<&str>,
    tokenizer: Option<&Tokenizer>,
    eos: Option<u32>,
) -> Outcome<(Vec<u32>, Vec<u32>)> {
    match (text, &args.tokens, tokenizer) {
        (Some(text), _, Some(tokenizer)) if args.chat => {
            let hint = "without --chat, the prompt is a text to continue";
            let mut said = open_conversation(&args.model, tokenizer, eos, hint)?;
            said.set_system(args.system.clone());
            said.ask(text);
            let ends = said.end_of_turn(tokenizer).into_iter().collect();
            Ok((said.ids(tokenizer)?, ends))
        }
        (Some(text), _, Some(tokenizer)) => {
            Ok((tokenizer.encode(text, tokenizer.adds_bos())?, Vec::new()))
        }
        (None, Some(TokenList(ids)), _) => Ok((ids.clone(), Vec::new())),
        _ => Err(Failure::new(
            "give one of --prompt, --prompt-file and --tokens",
        )),
    }
}

/// A conversation in the form of the model's chat template.
///
/// # Errors
/// If there is no template, with this hint, or it is damaged.
pub fn open_conversation(
    model: &ModelArgs,
    tokenizer: &Tokenizer,
    eos: Option<u32>,
    hint: &str,
) -> Outcome<Conversation> {
    match ChatTemplate::of_model(model.files()?, tokenizer, eos)? {
        Some(template) => Ok(Conversation::new(template)),
        None => Err(no_template(model, hint)),
    }
}

/// That a model has no chat template, and what to do about it.
pub fn no_template(model: &ModelArgs, hint: &str) -> Failure {
    let path = model.path().display();
    Failure::new(format!("{path}: holds no chat template")).hint(hint)
}

fn rows(scored: &[Scored], tokenizer: Option<&Tokenizer>) -> Vec<ScoredRow> {
    let row = |&(id, logprob): &(u32, f64)| TokenRow {
        id,
        token: tokenizer.and_then(|tokenizer| tokenizer.id_to_token(id)),
        logprob,
    };
    let rows = scored.iter().map(|one| ScoredRow {
        chosen: row(&(one.id, one.logprob)),
        top: one.top.iter().map(row).collect(),
    });
    rows.collect()
}

/// One line for each new token: its logarithm, itself, and the most likely ones.
fn table(rows: &[ScoredRow]) -> String {
    let name = |row: &TokenRow| match &row.token {
        Some(token) => format!("{token:?}"),
        None => row.id.to_string(),
    };
    let mut text = format!("\n{:>9}  {:<16} most likely\n", "logprob", "token");
    for row in rows {
        let chosen = format!("{:>9.4}  {:<16}", row.chosen.logprob, name(&row.chosen));
        let mut line = chosen;
        for other in &row.top {
            let _ = write!(line, " {} {:.4} ", name(other), other.logprob);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
