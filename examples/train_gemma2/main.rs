//! Trains a small Gemma 2 on plain text, on the CPU, and writes a folder that `brain-blitz generate` and Hugging
//! Face's transformers load.
//!
//!     cargo run --release --example train_gemma2 -- --data FOLDER --out my-model
//!
//! `FOLDER` holds `train.txt` and `val.txt`, plain or gzipped. Without `--tokenizer`, a tokenizer is trained on the
//! text first. Interrupted at any moment and started again with the same arguments, training goes on from the last
//! checkpoint, with the same bits as if it had not stopped.

mod export;
mod run;
mod text;
mod tokenizer;

use std::path::PathBuf;

use brain_blitz::Result;
use clap::Parser;

/// Trains a small Gemma 2 language model
#[derive(Parser, Clone)]
struct Args {
    /// Folder with train.txt and val.txt, plain or as .gz [default: $BB_DATA/shakespeare]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Folder for the model, checkpoints and metrics.jsonl
    #[arg(long, value_name = "FOLDER", default_value = "trained-gemma2")]
    out: PathBuf,
    /// Folder with the tokenizer.json to use; without it one is trained on the text
    #[arg(long, value_name = "FOLDER")]
    tokenizer: Option<PathBuf>,
    /// Training steps
    #[arg(long, value_name = "N", default_value_t = 880, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Sequences a step
    #[arg(long, value_name = "N", default_value_t = 20)]
    batch: usize,
    /// Tokens a sequence
    #[arg(long, value_name = "N", default_value_t = 256)]
    length: usize,
    /// Learning rate at its highest; it warms up, then falls along a cosine
    #[arg(long, value_name = "R", default_value_t = 4e-3)]
    rate: f64,
    /// Optimizer of the matrices between embedding and output: adamw or muon
    #[arg(long, default_value = "muon")]
    optimizer: run::Kind,
    /// Entries of a tokenizer that is trained
    #[arg(long, value_name = "N", default_value_t = 2048)]
    vocab: usize,
    /// Validate, and save a checkpoint, every so many steps
    #[arg(long, value_name = "N", default_value_t = 100)]
    every: u64,
    /// First values and order of the text
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Threads [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn main() {
    if let Err(error) = train(&Args::parse()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn train(args: &Args) -> Result<()> {
    let texts = text::Texts::read(args.data.as_deref())?;
    let tokenizer = tokenizer::open_or_train(args, &texts.train)?;
    let trained = run::run(args, &texts, &tokenizer)?;
    export::write(args, &trained)?;
    let folder = &args.out;
    println!("wrote {}; try it:", folder.display());
    println!(
        "  brain-blitz generate --model {} --prompt 'ROMEO:'",
        folder.display()
    );
    Ok(())
}
