//! `brain-blitz display`: a model's graph as recorded, after the general rewrites, or compiled.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use brain_blitz::atomic;
use brain_blitz::compilers::Generic;
use brain_blitz::compilers::driver::PassList;
use brain_blitz::generation::session::Rows;
use brain_blitz::graph::{Stage, listing, to_dot, to_html, to_svg};
use brain_blitz::knobs;

use super::failure::{Failure, Outcome};
use super::model::{ModelArgs, context_for};
use super::output;
use super::progress::Bar;

/// What `display` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Which graph [default: compiled; an .html page shows all unless told otherwise]
    #[arg(long, value_enum)]
    stage: Option<StageName>,
    /// File to write, as .svg, .dot, .html or .txt; without it, a listing goes to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz display --model models/gemma2-shakespeare --stage recorded
  brain-blitz display --model models/gemma2-shakespeare --output graph.html";

/// A point of the compilation.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum StageName {
    /// As the model's code recorded it
    Recorded,
    /// After the rewrites that hold for every machine
    Generic,
    /// As it runs
    Compiled,
}

/// A form that a graph is written in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Svg,
    Dot,
    Html,
    Text,
}

impl Form {
    fn of(path: &Path) -> Outcome<Form> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => Ok(Form::Svg),
            Some("dot") => Ok(Form::Dot),
            Some("html") => Ok(Form::Html),
            Some("txt") => Ok(Form::Text),
            _ => Err(Failure::new(format!(
                "{}: a graph can be written as .svg, .dot, .html or .txt",
                path.display()
            ))),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If the model cannot be loaded, the stage is not there, or the output cannot be written.
pub fn run(args: &Args) -> Outcome {
    let form = match &args.output {
        Some(path) => {
            output::check_file(path)?;
            Form::of(path)?
        }
        None => Form::Text,
    };
    let config = args.model.open_config()?;
    let mut bar = Bar::new(args.model.run.quiet);
    let model = match args.stage {
        // Nothing has to be compiled for it.
        Some(StageName::Recorded) => &args.model.with_cpu("reference"),
        _ => &args.model,
    };
    let context = context_for(1, &config);
    let session = model.load_to_look_at(Rows::Last, context, &mut bar)?;
    let stages = chosen(session.graph().stages(), args.stage, form)?;
    let last = &stages.last().expect("`chosen` gives at least one").dag;
    match &args.output {
        None => {
            let color = std::io::stdout().is_terminal() && knobs::color();
            output::write(&listing(last, color))
        }
        Some(path) => {
            let text = match form {
                Form::Svg => to_svg(last),
                Form::Dot => to_dot(last),
                Form::Html => to_html(&stages),
                Form::Text => listing(last, false),
            };
            Ok(atomic::write_bytes(path, text.as_bytes())?)
        }
    }
}

/// The stages to show, at least one.
fn chosen(stages: Vec<Stage>, name: Option<StageName>, form: Form) -> Outcome<Vec<Stage>> {
    let generic = PassList::of(&Generic).names().pop();
    let at = match name {
        None if form == Form::Html => return Ok(stages),
        None | Some(StageName::Compiled) => stages.len().checked_sub(1),
        Some(StageName::Recorded) => stages.iter().position(|stage| stage.name == "recorded"),
        Some(StageName::Generic) => stages
            .iter()
            .position(|stage| Some(&stage.name) == generic.as_ref()),
    };
    let found = at.and_then(|at| stages.into_iter().nth(at));
    found.map(|stage| vec![stage]).ok_or_else(|| {
        Failure::new("the graph did not go through that stage: --cpu reference compiles nothing")
    })
}
