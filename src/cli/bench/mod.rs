//! `brain-blitz bench`: how fast a model loads, compiles, reads a prompt and generates, and what the machine can do.
//!
//! | file | what it measures |
//! |---|---|
//! | [`speed`] | a model's rates |
//! | [`compile`] | compiling, with an empty cache and with a full one |
//! | [`machine`] | the limits that rates are compared with |
//! | [`profile`] | a model's kernels, one by one |

use std::path::PathBuf;

use brain_blitz::dtype::DType;
use brain_blitz::formats::ModelConfig;
use brain_blitz::generation::session::{Rows, Session};
use brain_blitz::generation::synthetic;

use super::failure::Outcome;
use super::model::{ModelArgs, RunArgs, context_for, pack};
use super::progress::Bar;
use super::{output, tell};

mod compile;
mod machine;
mod profile;
mod speed;

/// Seed of random weights.
const SEED: u64 = 0;

/// What `bench` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    speed: speed::SpeedArgs,
    /// Measure the machine's limits again; the best of all measurements counts
    #[arg(long, requires = "machine")]
    refresh: bool,
    /// Also time every kernel; a file gets a page with their code, and a trace beside it
    #[arg(long, value_name = "FILE.html", num_args = 0..=1, conflicts_with = "machine")]
    profile: Option<Option<PathBuf>>,
    /// Only compile, without weights
    #[arg(long, requires = "synthetic")]
    compile: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is measured.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Subject {
    /// Folder of a Hugging Face checkpoint (config.json, model.safetensors or its shards)
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// A model of this shape with random weights
    #[arg(long, value_name = "SHAPE", value_parser = synthetic::SHAPES)]
    synthetic: Option<String>,
    /// What this machine can do at best: multiply-adds and reading memory
    #[arg(long)]
    machine: bool,
}

/// Details of a synthetic model.
#[derive(clap::Args, Clone, Debug)]
struct ShapeArgs {
    /// Layers of a synthetic model [default: those of its shape]
    #[arg(long, value_name = "N", requires = "synthetic")]
    layers: Option<usize>,
    /// Format of a synthetic model's weights
    #[arg(long, value_enum, default_value = "bf16")]
    precision: Format,
}

/// A format of weights.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    F32,
    Bf16,
    F16,
}

impl Format {
    fn dtype(self) -> DType {
        match self {
            Format::F32 => DType::F32,
            Format::Bf16 => DType::BF16,
            Format::F16 => DType::F16,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz bench --model models/gemma2-shakespeare --prompt-tokens 128
  brain-blitz bench --model models/gemma2-shakespeare --threads 1 --json
  brain-blitz bench --synthetic gemma2-2b --precision bf16
  brain-blitz bench --model models/gemma2-shakespeare --profile profile.html
  brain-blitz bench --machine

Rates are tokens per second: prefill while reading the prompt, decode while generating. Loading maps
the weights into memory; compiling is faster when compiled kernels are in the cache. Rates are also
given as parts of what the machine can do, once --machine has measured that.";

/// Runs the command.
///
/// # Errors
/// If the numbers of tokens do not fit the model's context, or the model cannot be loaded.
pub fn run(args: &Args) -> Outcome {
    args.run.check()?;
    match (&args.subject.model, &args.subject.synthetic) {
        (Some(folder), _) => {
            let model = ModelArgs::new(folder.clone(), args.run.clone());
            let config = model.open_config()?;
            measure(args, &config, None, &mut |context, bar| {
                model.load_packed(Rows::Last, context, bar)
            })
        }
        (None, Some(shape)) => synthetic_model(args, shape),
        (None, None) => machine::run(args.refresh, args.json),
    }
}

fn synthetic_model(args: &Args, shape: &str) -> Outcome {
    let mut config = synthetic::config(shape).expect("the parser knows the shapes");
    if let Some(layers) = args.shape.layers {
        synthetic::set_layers(&mut config, layers);
    }
    let config = ModelConfig::from(config);
    let dtype = args.shape.precision.dtype();
    let lengths = speed::Lengths::of(&args.speed, &config)?;
    let context = context_for(lengths.prompt + lengths.generate, &config);
    let options = args.run.options(Rows::Last, context);
    if args.compile {
        let session = Session::without_weights(config, dtype, &options, &mut |_| ())?;
        return compile::report(&session, args.json);
    }
    let times = compile::in_fresh_processes(&args.run, &args.shape, shape, context)?;
    measure(args, &config.clone(), times, &mut |_, bar| {
        let session = Session::random(config.clone(), dtype, SEED, &options, &mut |progress| {
            bar.show(progress);
        });
        bar.clear();
        let mut session = session?;
        pack(&mut session, bar)?;
        Ok(session)
    })
}

/// Measures the model that `load` makes with room for so many tokens.
fn measure(
    args: &Args,
    config: &ModelConfig,
    times: Option<compile::Times>,
    load: &mut dyn FnMut(usize, &mut Bar) -> Outcome<Session>,
) -> Outcome {
    let lengths = speed::Lengths::of(&args.speed, config)?;
    let quiet = args.run.quiet || args.json;
    if lengths.reduced && !quiet {
        tell(&format!(
            "note: the model's context is {} tokens; measuring with a prompt of {} and {} generated",
            config.max_position_embeddings(),
            lengths.prompt,
            lengths.generate
        ));
    }
    let mut bar = Bar::new(quiet);
    let context = context_for(lengths.prompt + lengths.generate, config);
    let mut session = load(context, &mut bar)?;
    let mut results = speed::measure(
        &args.speed,
        &args.run,
        &mut session,
        &lengths,
        times.as_ref(),
        &mut bar,
    )?;
    let limits = machine::now(args.run.threads());
    if let Some(limits) = &limits {
        results.compare(limits);
    }
    match args.json {
        true => output::write_json(&results)?,
        false => output::write(&speed::table(&results))?,
    }
    let Some(page) = &args.profile else {
        return Ok(());
    };
    let profiles = profile::Profiles::of(&mut session, &lengths, limits, args.run.cpu())?;
    if !args.json {
        output::write(&profiles.table())?;
    }
    match page {
        Some(page) => profiles.write(&session, page),
        None => Ok(()),
    }
}
