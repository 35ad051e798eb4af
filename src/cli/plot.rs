//! `brain-blitz plot`: metrics of one or several runs as curves.

use std::path::{Path, PathBuf};

use brain_blitz::atomic;
use brain_blitz::train::metrics::log;
use brain_blitz::train::plot::{Curve, Plot, XAxis};

use super::failure::{Failure, Outcome};
use super::output;

/// What `plot` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Files of metrics, one JSON object a line
    #[arg(required = true, value_name = "METRICS")]
    files: Vec<PathBuf>,
    /// File to write, as .svg
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Metric to draw; may be given several times
    #[arg(long, value_name = "NAME", default_value = "loss")]
    value: Vec<String>,
    /// What goes to the right
    #[arg(long, value_enum, default_value = "step")]
    x: XName,
    /// Logarithmic vertical scale
    #[arg(long)]
    log: bool,
    /// How much the curves are smoothed, from 0 to below 1
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0, value_parser = weight)]
    smooth: f64,
    /// Text above the picture
    #[arg(long, default_value = "")]
    title: String,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz plot run/metrics.jsonl -o loss.svg
  brain-blitz plot a/metrics.jsonl b/metrics.jsonl -o loss.svg --log --smooth 0.9
  brain-blitz plot run/metrics.jsonl -o loss.svg --value loss --value val_loss --x epoch";

/// What can go to the right.
#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum XName {
    /// Steps
    Step,
    /// Epochs
    Epoch,
    /// Seconds since the run began
    Time,
}

impl From<XName> for XAxis {
    fn from(name: XName) -> XAxis {
        match name {
            XName::Step => XAxis::Step,
            XName::Epoch => XAxis::Epoch,
            XName::Time => XAxis::Time,
        }
    }
}

fn weight(text: &str) -> Result<f64, String> {
    let weight = text.parse().ok();
    let weight = weight.filter(|weight| (0.0..1.0).contains(weight));
    weight.ok_or_else(|| "not a number from 0 to below 1".to_owned())
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or has none of the metrics, or the picture cannot be written.
pub fn run(args: &Args) -> Outcome {
    output::check_file(&args.output)?;
    if args.output.extension().is_none_or(|found| found != "svg") {
        let path = args.output.display();
        return Err(Failure::new(format!("{path}: a plot is written as .svg")));
    }
    let x = XAxis::from(args.x);
    let mut curves = Vec::new();
    for file in &args.files {
        let records = log::read(file)?;
        for value in &args.value {
            let label = label(args, file, value);
            let curve = Curve::of(&records, value, x, &label);
            let named = |error| Failure::new(format!("{}: {error}", file.display()));
            curves.push(curve.map_err(named)?);
        }
    }
    let plot = Plot {
        title: args.title.clone(),
        x_label: x.label().to_owned(),
        y_label: args.value.join(", "),
        log_y: args.log,
        smooth: args.smooth,
        curves,
    };
    Ok(atomic::write_bytes(
        &args.output,
        plot.to_svg()?.as_bytes(),
    )?)
}

/// What tells a curve from the others: its file, its metric or both.
fn label(args: &Args, file: &Path, value: &str) -> String {
    let file = file.display();
    match (args.files.len(), args.value.len()) {
        (1, _) => value.to_owned(),
        (_, 1) => file.to_string(),
        _ => format!("{file}: {value}"),
    }
}
