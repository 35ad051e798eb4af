//! A small Gemma 2 of one bit, taught by the trained one of this repository.
//!
//!     cargo run --release --example gemma2_1bit -- --data FOLDER [--kind w1a8|ternary|w1a4|w1a2|w1a1|w1a1-gradual] [--steps N]
//!
//! `FOLDER` holds `train.txt` and `val.txt`, plain or gzipped. The student starts with the teacher's weights; a twentieth of
//! the steps trains it with weights and activations of 8 bits, the others with fewer. It learns from the teacher's answers
//! and from its hidden states. Interrupted at any moment and started again with the same arguments, training goes on from
//! the last checkpoint in `--out`, with the same bits as if it had not stopped.
//!
//! Then the perplexity of held-out text is printed: the teacher's, that of the teacher's weights stored as few bits without
//! training, the student's, and the ratio. The student is in `--out`, as a folder of a checkpoint with packed layers and as
//! `student.gguf`, and a text of both models is shown.

mod export;
mod kind;
mod model;
#[path = "../shakespeare/model.rs"]
mod shipped;
#[path = "../train_gemma2/text.rs"]
mod text;

use std::path::PathBuf;

use brain_blitz::formats::Tokenizer;
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{Arrays, Store};
use brain_blitz::train::distill::Distill;
use brain_blitz::train::metrics::{MetricsLog, RateMeter, TrainingBar};
use clap::Parser;

use kind::Kind;
use model::{Lessons, Teacher};

/// Teaches a Gemma 2 of one bit
#[derive(Parser)]
struct Args {
    /// Folder with train.txt and val.txt, plain or as .gz [default: $BB_DATA/shakespeare]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Folder of the teacher [default: the repository's model]
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Folder for the student, checkpoints and metrics.jsonl
    #[arg(long, value_name = "FOLDER", default_value = "gemma2-1bit")]
    out: PathBuf,
    /// What weights and activations become
    #[arg(long, default_value = "w1a8")]
    kind: Kind,
    /// Training steps
    #[arg(long, value_name = "N", default_value_t = 1500)]
    steps: u32,
    /// Sequences a step
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch: usize,
    /// Tokens a sequence
    #[arg(long, value_name = "N", default_value_t = 256)]
    length: usize,
    /// Learning rate at first; it falls along a cosine in each stage
    #[arg(long, value_name = "R", default_value_t = 2e-3)]
    rate: f64,
    /// Weight of the distance from the teacher's hidden states, 0 for none
    #[arg(long, value_name = "W", default_value_t = 1.0)]
    hidden: f64,
    /// Softens the teacher's answers and the student's
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Steps from one checkpoint to the next
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// What both models continue at the end
    #[arg(long, default_value = "HAMLET:\n")]
    prompt: String,
    /// Which parts of the text
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Windows of the held-out text that are looked at, 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    windows: usize,
    /// Threads [default: the machine's cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn main() {
    if let Err(error) = run(&Args::parse()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> Result<()> {
    let folder = args.model.clone().unwrap_or_else(shipped::default_model);
    let tokenizer = Tokenizer::open(&folder)?;
    let teacher = Teacher::open(&folder, &tokenizer)?;
    let texts = text::Texts::read(args.data.as_deref())?;
    let held_out = tokenizer.encode(&texts.val, false)?;
    let train = tokenizer.encode(&texts.train, false)?;
    let layers = || Some(args.kind.layers());
    let plain = teacher.perplexity(args, &held_out, &teacher.weights, None)?;
    let untrained = teacher.perplexity(args, &held_out, &teacher.weights, layers())?;
    println!(
        "perplexity of the teacher: {plain:.2}; of its weights so stored, untrained: {untrained:.2}"
    );
    let taught = teach(args, &teacher, train)?;
    let student = teacher.perplexity(args, &held_out, &taught, layers())?;
    println!(
        "perplexity of the student: {student:.2}, {:.3} times the teacher's",
        student / plain
    );
    let stored = export::write((&folder, &args.out), &teacher, args.kind, &taught)?;
    let bytes: usize = stored.iter().map(|tensor| tensor.bytes.1).sum();
    let file = args.out.join("student.gguf");
    println!("{}: {bytes} bytes of weights", file.display());
    let texts = export::samples(&folder, &args.out, &args.prompt, args.threads)?;
    println!("{texts}");
    println!(
        "  brain-blitz generate --model {} --prompt 'ROMEO:'",
        file.display()
    );
    Ok(())
}

/// Trains the student; gives its weights.
fn teach(args: &Args, teacher: &Teacher, text: Vec<u32>) -> Result<Arrays> {
    let mut lessons = Lessons::new(teacher, args, text)?;
    let store = Store::new(args.out.join("checkpoints")).keep(2);
    let done = store.list()?.last().map_or(0, |latest| latest.step);
    std::fs::create_dir_all(&args.out).map_err(|source| Error::Io {
        path: args.out.clone(),
        source,
    })?;
    let mut metrics = MetricsLog::resume(args.out.join("metrics.jsonl"), done)?;
    let distill = Distill::new(args.kind.stages(args.steps, args.rate))
        .temperature(args.temperature)
        .hidden_weight(args.hidden)
        .checkpoints(store, args.every);
    let bar = TrainingBar::new(distill.steps(), "tokens", false);
    bar.resume(done);
    let tokens = args.batch * args.length;
    let mut rate = RateMeter::new();
    let (mut n, mut sums) = (0, [0.0; 2]);
    let taught = distill.run(
        &mut |cx| teacher.record(cx, args, args.batch),
        &mut |step| lessons.get(step),
        &teacher.weights,
        &mut |step| {
            bar.update(step.total, step.loss, rate.tick(tokens as u64));
            (n, sums) = (n + 1, [sums[0] + step.loss, sums[1] + step.hidden]);
            if step.done.is_multiple_of(20) || step.done == step.stage.steps {
                let [loss, hidden] = sums.map(|sum| sum / f64::from(n));
                let values = [("loss", loss), ("hidden", hidden)];
                metrics.write(step.total, 0.0, &values)?;
                bar.hide_while(|| {
                    println!(
                        "{:>10} {:>6}  {loss:.4} nats from the teacher, hidden states {hidden:.4}",
                        step.stage.name, step.total
                    );
                });
                (n, sums) = (0, [0.0; 2]);
            }
            Ok(())
        },
    )?;
    bar.finish();
    Ok(taught)
}
