//! `brain-blitz logits`: what a model predicts at every position of given tokens.

use std::path::PathBuf;

use brain_blitz::formats::{StoredType, TensorView, npy};
use brain_blitz::generation::session::Rows;

use super::failure::Outcome;
use super::model::{ModelArgs, context_for};
use super::output;
use super::progress::Bar;
use super::tokens::{self, TokenList};

/// Tokens that are fed at once: bounds the working memory.
const CHUNK: usize = 128;

/// What `logits` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids, exactly as given: 2,17,99
    #[arg(long, value_name = "IDS")]
    tokens: TokenList,
    /// The .npy file to write: f32, [tokens, vocabulary]
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

const EXAMPLES: &str = "\
Example:
  brain-blitz logits --model models/gemma2-shakespeare --tokens 2,17,99 --output logits.npy

Row i holds the logits of the token that follows the first i + 1 tokens.";

/// Runs the command.
///
/// # Errors
/// If the tokens do not fit the model, the model cannot be loaded, or the file cannot be written.
pub fn run(args: &Args) -> Outcome {
    let ids = &args.tokens.0;
    output::check_file(&args.output)?;
    let config = args.model.open_config()?;
    tokens::check(ids, &config)?;
    let mut bar = Bar::new(args.model.run.quiet);
    let context = context_for(ids.len(), &config);
    let mut session = args.model.load(Rows::All, context, &mut bar)?;
    let mut logits: Vec<f32> = Vec::new();
    for chunk in ids.chunks(CHUNK) {
        if ids.len() > CHUNK {
            bar.reading(session.position(), ids.len());
        }
        logits.extend_from_slice(session.feed(chunk)?);
    }
    bar.clear();
    let shape = [ids.len(), config.vocab_size()];
    let tensor = TensorView::from_slice("logits", StoredType::F32, &shape, &logits);
    Ok(npy::write(&args.output, &tensor)?)
}
