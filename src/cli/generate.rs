//! `brain-blitz generate`: continues a text, token by token.

use brain_blitz::formats::Tokenizer;
use brain_blitz::formats::tokenizer::DecodeStream;
use brain_blitz::generation::chat::{ChatTemplate, Message};
use brain_blitz::generation::sampler::{Sampler, Sampling};
use brain_blitz::generation::session::{Rows, Session};
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::model::{ModelArgs, context_for};
use super::progress::Bar;
use super::tokens::{self, TokenList};
use super::{interrupt, output, tell};

/// Tokens of a prompt that are fed at once: bounds the working memory, and how long Ctrl-C waits.
const CHUNK: usize = 512;

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
    /// Token ids to continue, exactly as given: 2,17,99
    #[arg(long, value_name = "IDS", group = "input")]
    tokens: Option<TokenList>,
    /// The prompt is a user's message to a chat model: put it into the form of the model's chat template
    #[arg(long, conflicts_with = "tokens")]
    chat: bool,
    /// Tokens to generate at most; the end-of-text token and the model's context end it earlier
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        allow_negative_numbers = true
    )]
    max_tokens: usize,
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
    /// Which random numbers; the same seed gives the same text
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    seed: u64,
    /// Print one line of JSON at the end, and nothing else
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz generate --model models/gemma2-shakespeare --prompt 'HAMLET:'
  brain-blitz generate --model models/gemma2-shakespeare --prompt 'HAMLET:' --temperature 0
  brain-blitz generate --model models/gemma2-shakespeare --prompt 'HAMLET:' --top-p 0.9 --seed 7
  brain-blitz generate --model models/gemma2-shakespeare --tokens 2,17,99 --json
  brain-blitz generate --model gemma-2-2b-it-Q8_0.gguf --chat --prompt 'Why is the sky blue?'

The prompt is printed first, then the continuation as it comes; without a tokenizer.json, token ids
are printed instead. Ctrl-C ends the text where it is; a second Ctrl-C ends the program.
--json prints {\"text\", \"tokens\", \"generated\", \"stop\"}: text and ids of prompt and continuation, how
many of the ids are new, and what ended it: eos, length or interrupt.";

/// What ended a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Stop {
    Eos,
    Length,
    Interrupt,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    text: Option<&'a str>,
    tokens: &'a [u32],
    generated: usize,
    stop: Stop,
}

/// Runs the command.
///
/// # Errors
/// If the prompt does not fit the model, the model cannot be loaded, or nobody takes the output.
pub fn run(args: &Args) -> Outcome {
    let sampler = Sampler::new(Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: args.seed,
    })?;
    let config = args.model.open_config()?;
    let tokenizer = open_tokenizer(args, config.bos_token_id())?;
    let eos = config.eos_token_ids().first().copied();
    let prompt = prompt_ids(args, tokenizer.as_ref(), eos)?;
    tokens::check(&prompt, &config)?;
    let context = context_for(prompt.len().saturating_add(args.max_tokens), &config);
    let mut bar = Bar::new(args.json || args.model.run.quiet);
    let session = args.model.load(Rows::Last, context, &mut bar)?;
    interrupt::watch()?;
    let mut writer = Writer::new(tokenizer.as_ref(), !args.json);
    let mut run = Run {
        session,
        sampler,
        ids: Vec::new(),
        max_tokens: args.max_tokens,
    };
    let stop = run.generate(&prompt, &mut writer, &mut bar)?;
    writer.finish()?;
    let generated = run.ids.len() - prompt.len();
    if args.json {
        return output::write_json(&Summary {
            text: tokenizer.as_ref().map(|_| writer.text.as_str()),
            tokens: &run.ids,
            generated,
            stop,
        });
    }
    if stop == Stop::Length && generated < args.max_tokens && !args.model.run.quiet {
        tell(&format!(
            "note: the model's context of {context} tokens is full"
        ));
    }
    Ok(())
}

/// The model's tokenizer; a prompt of ids works without one.
fn open_tokenizer(args: &Args, bos: Option<u32>) -> Outcome<Option<Tokenizer>> {
    let path = args.model.path();
    let found = match args.prompt {
        Some(_) => Some(Tokenizer::open(path)?),
        None => Tokenizer::find(path)?,
    };
    Ok(found.map(|mut tokenizer| {
        if bos.is_some() {
            tokenizer.set_bos(bos);
        }
        tokenizer
    }))
}

fn prompt_ids(args: &Args, tokenizer: Option<&Tokenizer>, eos: Option<u32>) -> Outcome<Vec<u32>> {
    match (&args.prompt, &args.tokens, tokenizer) {
        (Some(text), _, Some(tokenizer)) if args.chat => chat_ids(args, text, tokenizer, eos),
        (Some(text), _, Some(tokenizer)) => Ok(tokenizer.encode(text, tokenizer.adds_bos())?),
        (None, Some(TokenList(ids)), _) => Ok(ids.clone()),
        _ => Err(Failure::new("give either --prompt or --tokens")),
    }
}

/// The ids of a user's message in the form of the model's chat template, up to where the model is to answer.
fn chat_ids(args: &Args, text: &str, tokenizer: &Tokenizer, eos: Option<u32>) -> Outcome<Vec<u32>> {
    let path = args.model.path();
    let Some(template) = ChatTemplate::open(path, tokenizer, eos)? else {
        let failure = Failure::new(format!("{}: holds no chat template", path.display()));
        return Err(failure.hint("without --chat, the prompt is a text to continue"));
    };
    let text = template.render(&[Message::new("user", text)], true)?;
    let ids = tokenizer.encode(&text, false)?;
    // Some templates begin with the token themselves.
    match tokenizer.bos() {
        Some(bos) if tokenizer.adds_bos() && ids.first() != Some(&bos) => {
            Ok([vec![bos], ids].concat())
        }
        _ => Ok(ids),
    }
}

/// A text that is being generated.
struct Run {
    session: Session,
    sampler: Sampler,
    /// Prompt and continuation.
    ids: Vec<u32>,
    max_tokens: usize,
}

impl Run {
    fn generate(
        &mut self,
        prompt: &[u32],
        writer: &mut Writer<'_>,
        bar: &mut Bar,
    ) -> Outcome<Stop> {
        for &id in prompt {
            writer.push(id)?;
        }
        self.ids.extend_from_slice(prompt);
        if self.max_tokens == 0 {
            return Ok(Stop::Length);
        }
        let Some(mut next) = self.read_prompt(prompt, bar)? else {
            return Ok(Stop::Interrupt);
        };
        for left in (0..self.max_tokens).rev() {
            self.ids.push(next);
            writer.push(next)?;
            if self.session.eos().contains(&next) {
                return Ok(Stop::Eos);
            }
            if left == 0 || self.session.position() == self.session.capacity() {
                break;
            }
            if interrupt::requested() {
                return Ok(Stop::Interrupt);
            }
            next = self.sampler.sample(self.session.feed(&[next])?)?;
        }
        Ok(Stop::Length)
    }

    /// Feeds the prompt and chooses the first new token; `None` after Ctrl-C.
    fn read_prompt(&mut self, prompt: &[u32], bar: &mut Bar) -> Outcome<Option<u32>> {
        let mut done = 0;
        for chunk in prompt.chunks(CHUNK) {
            if interrupt::requested() {
                bar.clear();
                return Ok(None);
            }
            if prompt.len() > CHUNK {
                bar.reading(done, prompt.len());
            }
            let logits = self.session.feed(chunk)?;
            done += chunk.len();
            if done == prompt.len() {
                bar.clear();
                return Ok(Some(self.sampler.sample(logits)?));
            }
        }
        Err(Failure::new("there are no tokens; give at least one"))
    }
}

/// Turns ids into text as they come; never a part of a character.
struct Writer<'t> {
    /// `None` without a tokenizer: the ids themselves are written.
    stream: Option<DecodeStream<'t>>,
    /// Whether standard output gets the text at once.
    live: bool,
    /// All text so far.
    text: String,
}

impl<'t> Writer<'t> {
    fn new(tokenizer: Option<&'t Tokenizer>, live: bool) -> Writer<'t> {
        Writer {
            stream: tokenizer.map(Tokenizer::decode_stream),
            live,
            text: String::new(),
        }
    }

    fn push(&mut self, id: u32) -> Outcome {
        let piece = match &mut self.stream {
            None => {
                let comma = if self.text.is_empty() { "" } else { "," };
                format!("{comma}{id}")
            }
            // An embedding may have more rows than the tokenizer has tokens.
            Some(stream) => match stream.push(id) {
                Ok(piece) => piece.unwrap_or_default(),
                Err(_) => char::REPLACEMENT_CHARACTER.to_string(),
            },
        };
        self.write(&piece)
    }

    /// Writes what is left: the rest of an unfinished character, and the end of the line.
    fn finish(&mut self) -> Outcome {
        let rest = match &mut self.stream {
            None => String::new(),
            Some(stream) => stream.finish()?,
        };
        self.write(&rest)?;
        match self.live {
            true => output::write("\n"),
            false => Ok(()),
        }
    }

    fn write(&mut self, piece: &str) -> Outcome {
        self.text.push_str(piece);
        match self.live && !piece.is_empty() {
            true => output::write(piece),
            false => Ok(()),
        }
    }
}
