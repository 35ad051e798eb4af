//! Runs the Gemma 2 model of this repository: loads it, compiles it for this machine, and continues a text.
//!
//!     cargo run --release --example gemma2 -- --prompt "HAMLET:"
//!
//! Any other Gemma 2 checkpoint in the Hugging Face layout works too: `--model FOLDER`. The text goes to standard
//! output as it comes, progress and speed to standard error.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use brain_blitz::Result;
use brain_blitz::formats::Tokenizer;
use brain_blitz::generation::{Options, Progress, Sampler, Sampling, Session};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Continues a text with a Gemma 2 model
#[derive(Parser)]
struct Args {
    /// Folder with config.json, tokenizer.json and safetensors files [default: the repository's model]
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Text to continue
    #[arg(long, default_value = "ROMEO:\n")]
    prompt: String,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_tokens: usize,
    /// Randomness of the choice; 0 always takes the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f32,
    /// Choose among the K most likely tokens; 0 means all
    #[arg(long, value_name = "K", default_value_t = 50)]
    top_k: usize,
    /// Which random numbers; the same seed gives the same text
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// CPU to compile for: native, x86-64-v3, x86-64-v4, scalar ..., or reference to compile nothing
    #[arg(long, default_value = DEFAULT_CPU)]
    cpu: String,
    /// Threads [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

const DEFAULT_CPU: &str = if cfg!(feature = "llvm-backend") {
    "native"
} else {
    "reference"
};

fn main() {
    if let Err(error) = run(&Args::parse()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<()> {
    let folder = args.model.clone().unwrap_or_else(default_model);
    let mut session = load(&folder, args)?;
    let mut tokenizer = Tokenizer::open(&folder)?;
    tokenizer.set_bos(session.bos());
    let mut sampler = Sampler::new(Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        seed: args.seed,
        ..Sampling::default()
    })?;

    let prompt = tokenizer.encode(&args.prompt, true)?;
    let mut text = tokenizer.decode_stream();
    for &id in &prompt {
        show(text.push(id)?);
    }
    let start = Instant::now();
    let mut next = sampler.sample(session.feed(&prompt)?)?;
    let prompt_s = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let mut n_new = 0;
    while n_new < args.max_tokens && !session.eos().contains(&next) {
        show(text.push(next)?);
        n_new += 1;
        if session.position() == session.capacity() {
            break;
        }
        next = sampler.sample(session.feed(&[next])?)?;
    }
    println!("{}", text.finish()?);
    let new_s = start.elapsed().as_secs_f64();
    eprintln!(
        "prompt: {} tokens in {:.1} ms; continuation: {n_new} tokens in {:.1} ms ({:.0} tokens/s)",
        prompt.len(),
        1e3 * prompt_s,
        1e3 * new_s,
        n_new as f64 / new_s.max(1e-9)
    );
    Ok(())
}

/// The model beside the sources, or below the current folder when those are gone.
fn default_model() -> PathBuf {
    let name = "models/gemma2-shakespeare";
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if beside.exists() { beside } else { name.into() }
}

/// Loads and compiles the model, with a line of progress on standard error.
fn load(folder: &Path, args: &Args) -> Result<Session> {
    let options = Options {
        cpu: args.cpu.clone(),
        threads: args.threads,
        ..Options::default()
    };
    let style = ProgressStyle::with_template("{spinner} {msg} [{wide_bar}] {bytes}/{total_bytes}")
        .expect("the template is valid");
    let bar = ProgressBar::new(0).with_style(style);
    let session = Session::load(folder, &options, &mut |progress| match progress {
        Progress::Loading {
            done_bytes,
            total_bytes,
        } => {
            bar.set_message("loading");
            bar.set_length(total_bytes);
            bar.set_position(done_bytes);
        }
        Progress::Tuning { .. } => (),
        Progress::Compiling { pass } => {
            bar.set_message(format!("compiling ({pass})"));
            bar.tick();
        }
        Progress::Ready => bar.finish_and_clear(),
    })?;
    let info = session.info();
    eprintln!(
        "{}: {:.1} MB in {:.0} ms, {} nodes compiled to {} kernels in {:.0} ms",
        folder.display(),
        info.weight_bytes as f64 / 1e6,
        1e3 * info.load_s,
        info.nodes_recorded,
        info.kernels,
        1e3 * info.compile_s
    );
    Ok(session)
}

fn show(piece: Option<String>) {
    print!("{}", piece.unwrap_or_default());
    // A text that nobody reads any more is no reason to fail.
    let _ = std::io::stdout().flush();
}
