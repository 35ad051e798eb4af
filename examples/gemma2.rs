//! Runs the Gemma 2 model of this repository: loads it, compiles it for this machine, and continues a text.
//!
//!     cargo run --release --example gemma2 -- --prompt "HAMLET:"
//!
//! With `--compare` it shows what fewer bits cost and bring: the model as it is beside itself with 8 bits to one, and beside
//! the student of one bit in this repository, on held-out text, as a table and as an SVG chart:
//!
//!     cargo run --release --example gemma2 -- --compare --data FOLDER --svg bits.svg
//!
//! Any other Gemma 2 checkpoint in the Hugging Face layout works too: `--model FOLDER`. The text goes to standard
//! output as it comes, progress and speed to standard error.

#[path = "shakespeare/model.rs"]
mod shipped;
#[path = "train_gemma2/text.rs"]
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use brain_blitz::Result;
use brain_blitz::formats::Tokenizer;
use brain_blitz::generation::evaluate::{Comparison, Trial, TrialOptions, table};
use brain_blitz::generation::{Options, Progress, Quant, Rows, Sampler, Sampling, Session};
use brain_blitz::train::plot;
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
    /// Compare the model with itself in fewer bits, instead of writing
    #[arg(long)]
    compare: bool,
    /// With --compare: folder with train.txt and val.txt, plain or as .gz [default: $BB_DATA/shakespeare]
    #[arg(long, value_name = "FOLDER", requires = "compare")]
    data: Option<PathBuf>,
    /// With --compare: tokens of the held-out text that are predicted
    #[arg(long, value_name = "N", default_value_t = 8192)]
    limit: usize,
    /// With --compare: file to draw the chart into
    #[arg(long, value_name = "FILE", requires = "compare")]
    svg: Option<PathBuf>,
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
    let folder = args.model.clone().unwrap_or_else(shipped::default_model);
    if args.compare {
        return compare(&folder, args);
    }
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

/// Prints what fewer bits cost and bring.
fn compare(folder: &Path, args: &Args) -> Result<()> {
    let texts = text::Texts::read(args.data.as_deref())?;
    let (train, val) = (texts.train.len(), texts.val.len());
    eprintln!("{val} bytes of text are held out, {train} others are not");
    let options = TrialOptions {
        context: 256,
        stride: 256,
        limit: args.limit,
        ..TrialOptions::default()
    };
    let trial = Trial::new(&Tokenizer::open(folder)?, &texts.val, options)?;
    let open = |path: &Path, quant: Option<Quant>| {
        let options = Options {
            cpu: args.cpu.clone(),
            threads: args.threads,
            context: Some(trial.needed()),
            logits: Rows::All,
            quant,
            ..Options::default()
        };
        Session::load(path, &options, &mut |_| ())
    };
    let bar = ProgressBar::new(0);
    let mut show = |what: &str, done: usize, total: usize| {
        bar.set_message(what.to_owned());
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let name = folder.display().to_string();
    let mut comparison = Comparison::new(&trial, open(folder, None)?, &name);
    let mut rows = Vec::new();
    for quant in Quant::bits() {
        let mut session = open(folder, Some(quant))?;
        rows.push(comparison.measure((&name, Some(quant)), &mut session, &mut show)?);
    }
    for student in students(folder) {
        let mut session = open(&student, None)?;
        let name = student.display().to_string();
        rows.push(comparison.measure((&name, None), &mut session, &mut show)?);
    }
    bar.finish_and_clear();
    rows.insert(0, comparison.reference()?);
    println!("{}", table(&rows));
    if let Some(path) = &args.svg {
        brain_blitz::atomic::write_bytes(path, plot::comparison(&rows)?.as_bytes())?;
    }
    Ok(())
}

/// The models that were taught by this one: GGUF files in the folder beside it whose name ends with `-1bit`.
fn students(folder: &Path) -> Vec<PathBuf> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push("-1bit");
    let files = std::fs::read_dir(folder.with_file_name(name))
        .into_iter()
        .flatten()
        .flatten();
    let files = files.map(|file| file.path());
    let mut files: Vec<PathBuf> = files
        .filter(|path| path.extension().is_some_and(|end| end == "gguf"))
        .collect();
    files.sort();
    files
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
