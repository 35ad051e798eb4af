//! The command line: one file per subcommand, each thin over the library.
//!
//! Exit codes: 0 when the command did its work (also when whoever reads its output went away), 1 for an error, told on
//! standard error as `error: ...`, 2 for wrong usage. Results go to standard output and nothing else does; progress and
//! notes go to standard error.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod chat;
mod convert;
mod decode;
mod display;
mod eval;
mod failure;
mod generate;
mod inspect;
mod interrupt;
mod logits;
mod model;
mod output;
mod plot;
mod progress;
mod sampling;
mod text;
mod tokens;

use failure::Failure;

/// Run language models on the CPU.
#[derive(Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Continue a text.
    Generate(generate::Args),
    /// Talk with a chat model.
    Chat(chat::Args),
    /// Write the logits of every position to a .npy file.
    Logits(logits::Args),
    /// Measure how fast a model loads, reads a prompt and generates.
    Bench(bench::Args),
    /// Measure how well a model predicts a text, and how far it is from another.
    Eval(eval::Args),
    /// Draw a model's graph.
    Display(display::Args),
    /// Draw the metrics of training runs as curves.
    Plot(plot::Args),
    /// List what is in a file of weights.
    Inspect(inspect::Args),
    /// Store weights in another type, as a GGUF file.
    Convert(convert::Args),
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz generate --model models/gemma2-shakespeare --prompt 'HAMLET:' --max-tokens 100
  brain-blitz chat --model gemma-2-2b-it-Q8_0.gguf
  brain-blitz logits --model models/gemma2-shakespeare --tokens 2,17,99 --output logits.npy
  brain-blitz bench --model models/gemma2-shakespeare --json
  brain-blitz eval --model models/gemma2-shakespeare --text play.txt --quants q8_0,q4_0
  brain-blitz display --model models/gemma2-shakespeare --output graph.svg
  brain-blitz plot run/metrics.jsonl --output loss.svg
  brain-blitz convert models/gemma2-shakespeare shakespeare.gguf --quant q8_0
  brain-blitz inspect shakespeare.gguf

`brain-blitz COMMAND --help` tells more about each.";

/// Runs the command that the program's arguments name.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Logits(args) => logits::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Display(args) => display::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Convert(args) => convert::run(&args),
    };
    match outcome {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Error { error, hint }) => {
            tell_error(&error, hint.as_deref());
            ExitCode::FAILURE
        }
    }
}

/// A line on standard error. When even that is closed there is nobody left to tell.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What is wrong, and what to do about it, on standard error.
fn tell_error(error: &brain_blitz::Error, hint: Option<&str>) {
    tell(&format!("error: {error}"));
    if let Some(hint) = hint {
        tell(&format!("hint: {hint}"));
    }
}

/// A number that an option takes, from 1 up.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("not a number from 1 up".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
