//! `brain-blitz chat`: a conversation with a model, in turns.
//!
//! | file | what it does |
//! |---|---|
//! | [`command`] | tells what is for the program from what is for the model |
//! | [`input`] | reads lines, from a terminal or from anything else |
//!
//! Answers and what commands print go to standard output, notes to standard error, so that a conversation can be piped
//! through the program. A message that cannot be answered ends neither the program nor the conversation.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use brain_blitz::atomic;
use brain_blitz::formats::Tokenizer;
use brain_blitz::generation::session::Rows;
use brain_blitz::generation::stop::StopStrings;
use brain_blitz::generation::{Conversation, Message, ReusingSession};
use serde::{Deserialize, Serialize};

use self::command::{Command, HELP, Line};
use self::input::Input;
use super::decode::{Decoder, Stop};
use super::failure::{Failure, Outcome};
use super::generate::{Opening, no_template, open_conversation};
use super::model::ModelArgs;
use super::progress::Bar;
use super::sampling::SamplingArgs;
use super::text::{self, Writer};
use super::{at_least_one, interrupt, output, tell, tell_error};

mod command;
mod input;

/// What to do about a model without a template.
const HINT: &str = "`generate` continues a text without one; a checkpoint's template can be put into its folder as chat_template.jinja";

/// What `chat` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// What the model is told before everything else
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Go on with a conversation that /save wrote
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    max_tokens: usize,
    /// Tokens that a conversation may have; the oldest turns make room for new ones
    /// [default: the model's limit, at most 4096]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    context: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz chat --model gemma-2-2b-it-Q8_0.gguf
  brain-blitz chat --model gemma-2-2b-it-Q8_0.gguf --system 'Answer in one sentence.' --temperature 0
  echo 'Why is the sky blue?' | brain-blitz chat --model gemma-2-2b-it-Q8_0.gguf --quiet

The model needs a chat template: chat_template.jinja, tokenizer_config.json or a GGUF file's metadata.
Each line is a message; /help lists what else can be asked for. Ctrl-C ends an answer and keeps the
conversation, Ctrl-D ends the program. What a turn has in common with the one before is not read again.";

/// What `/save` writes.
#[derive(Serialize, Deserialize)]
struct Saved {
    messages: Vec<Message>,
}

/// How much was read and written.
#[derive(Default)]
struct Stats {
    answers: usize,
    reused: usize,
    read: usize,
    written: usize,
    reading: Duration,
    writing: Duration,
}

/// A conversation that is going on.
struct Chat {
    tokenizer: Tokenizer,
    said: Conversation,
    decoder: Decoder,
    stop_strings: StopStrings,
    stats: Stats,
    quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// If the model cannot be loaded or has no chat template, standard input cannot be read, or nobody takes the output.
pub fn run(args: &Args) -> Outcome {
    let (sampler, stop_strings) = (args.sampling.sampler()?, args.sampling.stop_strings()?);
    let config = args.model.open_config()?;
    // Without a template there is nothing to load for.
    if args.model.files()?.chat_template()?.is_none() {
        return Err(no_template(&args.model, HINT));
    }
    let opening = Opening::begin(&args.model, true, config.bos_token_id());
    let quiet = args.model.run.quiet;
    let mut bar = Bar::new(quiet);
    let session = args.model.load(Rows::Last, args.context, &mut bar)?;
    let tokenizer = opening.finish()?;
    let tokenizer = tokenizer.expect("a tokenizer that is needed is there");
    let eos = config.eos_token_ids().first().copied();
    let mut said = open_conversation(&args.model, &tokenizer, eos, HINT)?;
    if let Some(path) = &args.load {
        load(&mut said, path)?;
    }
    if args.system.is_some() {
        said.set_system(args.system.clone());
    }
    let ends = said.end_of_turn(&tokenizer).into_iter().collect();
    let mut input = Input::open()?;
    // After the editor, which takes the signal over when it is made and does not look at it later.
    interrupt::watch()?;
    let mut chat = Chat {
        tokenizer,
        said,
        decoder: Decoder {
            session: ReusingSession::new(session),
            sampler,
            max_tokens: args.max_tokens,
            ends,
            n_logprobs: None,
        },
        stop_strings,
        stats: Stats::default(),
        quiet,
    };
    if chat.said.system().is_some() {
        chat.note_where_the_system_goes();
    }
    if input.is_terminal() && !quiet {
        tell("/help lists what can be asked for; Ctrl-D ends");
    }
    chat.talk(&mut input, &mut bar)
}

impl Chat {
    fn talk(&mut self, input: &mut Input, bar: &mut Bar) -> Outcome {
        while let Some(line) = input.next()? {
            match Line::parse(&line) {
                Line::Empty => {}
                Line::Message(text) => self.answer(Some(text), bar)?,
                Line::Unknown(why) => tell(&format!("error: {why}")),
                Line::Command(Command::Quit) => break,
                Line::Command(command) => self.obey(command, bar)?,
            }
        }
        Ok(())
    }

    fn note(&self, what: &str) {
        if !self.quiet {
            tell(&format!("note: {what}"));
        }
    }

    fn obey(&mut self, command: Command, bar: &mut Bar) -> Outcome {
        match command {
            Command::Help => output::write(HELP)?,
            Command::Stats => output::write(&self.stats_text())?,
            Command::Reset => {
                self.said.clear();
                self.note("the conversation is empty");
            }
            Command::System(None) => {
                let text = self.said.system().unwrap_or("(none)");
                output::write(&format!("{text}\n"))?;
            }
            Command::System(Some(text)) => {
                self.said.set_system((!text.is_empty()).then_some(text));
                self.note_where_the_system_goes();
            }
            Command::Undo => match self.said.undo() {
                Some(text) => self.note(&format!("took back: {text}")),
                None => tell("error: there is no message to take back"),
            },
            Command::Retry => self.answer(None, bar)?,
            Command::Save(path) => match save(&self.said, &path) {
                Ok(()) => self.note(&format!(
                    "{} messages saved",
                    self.said.all_messages().len()
                )),
                Err(failure) => complain(failure)?,
            },
            Command::Load(path) => match load(&mut self.said, &path) {
                Ok(()) => self.note(&format!("{} messages loaded", self.said.messages().len())),
                Err(failure) => complain(failure)?,
            },
            Command::Quit => {}
        }
        Ok(())
    }

    fn note_where_the_system_goes(&self) {
        if self.said.system().is_some() && !self.said.takes_system() {
            self.note(
                "the chat template has no system message; its text goes before the first message",
            );
        }
    }

    /// Answers a message, or the last one again. Where there is no answer, the conversation is as it was before.
    fn answer(&mut self, text: Option<String>, bar: &mut Bar) -> Outcome {
        let before = self.said.all_messages();
        let Some(text) = text.or_else(|| self.said.undo()) else {
            tell("error: there is no message to answer again");
            return Ok(());
        };
        self.said.ask(text);
        if !self.generate(bar)? {
            let restored = self.said.set_messages(before);
            restored.expect("between lines, every message has its answer");
        }
        Ok(())
    }

    /// Writes the answer to the last message; `false` if there is none.
    fn generate(&mut self, bar: &mut Bar) -> Outcome<bool> {
        interrupt::forget();
        let capacity = self.decoder.session.session().capacity();
        // An answer needs room too.
        let room = capacity - self.decoder.max_tokens.min(capacity / 4).max(1);
        let (ids, dropped) = match self.said.fit(&self.tokenizer, room) {
            Ok(fitting) => fitting,
            Err(error) => {
                complain(error.into())?;
                return Ok(false);
            }
        };
        if dropped > 0 {
            let turns = if dropped == 1 { "turn" } else { "turns" };
            self.note(&format!(
                "the context of {capacity} tokens is full: dropped the oldest {turns} ({dropped})"
            ));
        }
        let mut writer = Writer::new(Some(&self.tokenizer), self.stop_strings.clone(), true);
        let start = Instant::now();
        let (new, stop) = match self.decoder.generate(&ids, &mut writer, bar) {
            Ok(answer) => answer,
            Err(failure @ Failure::OutputClosed) => return Err(failure),
            Err(failure) => {
                writer.finish(false)?;
                complain(failure)?;
                return Ok(false);
            }
        };
        writer.finish(stop == Stop::String)?;
        let seconds = start.elapsed();
        if new.ids.is_empty() {
            self.note("there is no answer; the conversation is as it was");
            return Ok(false);
        }
        self.stats.answers += 1;
        self.stats.reused += new.n_reused;
        self.stats.read += ids.len() - new.n_reused;
        self.stats.written += new.ids.len();
        self.stats.reading += new.reading;
        self.stats.writing += seconds.saturating_sub(new.reading);
        self.said.answer(writer.text().trim());
        if stop == Stop::Length && new.ids.len() < self.decoder.max_tokens {
            self.note(&format!(
                "the context of {capacity} tokens is full; the oldest turns will make room"
            ));
        } else if stop == Stop::Length {
            self.note("the answer is as long as --max-tokens allows");
        }
        Ok(true)
    }

    fn stats_text(&self) -> String {
        let session = self.decoder.session.session();
        let stats = &self.stats;
        let rate = |n: usize, time: Duration| n as f64 / time.as_secs_f64().max(1e-9);
        format!(
            "answers  {}\ncontext  {} of {} tokens\nread     {} tokens, {} more were known from before, {:.1} tokens/s\nwritten  {} tokens, {:.1} tokens/s\n",
            stats.answers,
            session.position(),
            session.capacity(),
            stats.read,
            stats.reused,
            rate(stats.read, stats.reading),
            stats.written,
            rate(stats.written, stats.writing),
        )
    }
}

/// Tells what went wrong with one line, unless nobody reads what the program writes.
fn complain(failure: Failure) -> Outcome {
    match failure {
        Failure::OutputClosed => Err(failure),
        Failure::Error { error, hint } => {
            tell_error(&error, hint.as_deref());
            Ok(())
        }
    }
}

fn save(said: &Conversation, path: &Path) -> Outcome {
    output::check_file(path)?;
    let saved = Saved {
        messages: said.all_messages(),
    };
    let text = serde_json::to_string_pretty(&saved);
    let text = text.map_err(|error| Failure::new(error.to_string()))?;
    Ok(atomic::write_bytes(path, (text + "\n").as_bytes())?)
}

fn load(said: &mut Conversation, path: &Path) -> Outcome {
    let text = text::read_file(path)?;
    let named = |what: String| Failure::new(format!("{}: {what}", path.display()));
    let saved: Saved = serde_json::from_str(&text).map_err(|error| {
        named(error.to_string()).hint(
            "a conversation is what /save writes: {\"messages\": [{\"role\", \"content\"}, ...]}",
        )
    })?;
    let set = said.set_messages(saved.messages);
    set.map_err(|error| named(error.to_string()))
}
