//! `brain-blitz convert`: weights of another type, as a GGUF file.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use brain_blitz::blocks::BlockType;
use brain_blitz::formats::Calibration;
use brain_blitz::formats::gguf::{self, Converted, is_gguf};
use brain_blitz::generation::plan::{Found, Grouping, Request};
use brain_blitz::train::rescale::Learnt;

use super::failure::{Failure, Outcome};
use super::model::block_type;
use super::progress::Bar;
use super::{model, output, tell};

mod sample;

/// What `convert` takes.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Folder of a Hugging Face checkpoint (Gemma 2 or 3, Llama, SmolLM2, Mistral, Qwen 2 or 3), or a GGUF
    /// file of any model
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// GGUF file to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Type of the matrices: f32, f16, bf16, q8_0, q6_k, q5_0, q5_1, q4_0, q4_1, q4_k, q2_0, tq2_0, tq1_0, q1_0
    #[arg(long, value_name = "TYPE", value_parser = block_type, required_unless_present = "bits")]
    quant: Option<BlockType>,
    /// Type of the embedding and the output layer, which are one matrix in many models
    /// [default: of the output layer q6_k where --quant has fewer than eight bits, q8_0 where it has fewer than three]
    #[arg(long, value_name = "TYPE", value_parser = block_type)]
    embedding: Option<BlockType>,
    /// Choose a type for each matrix, by measuring what it costs, so that a weight has N bits on average
    /// at most
    #[arg(long, value_name = "N", value_parser = bits, requires = "calibrate")]
    #[arg(conflicts_with_all = ["quant", "embedding"])]
    bits: Option<f64>,
    /// With --bits, one type for all matrices that differ in the layer's number only: fewer measurements
    #[arg(long, requires = "bits")]
    by_kind: bool,
    #[command(flatten)]
    sample: sample::SampleArgs,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// No progress and no notes on standard error
    #[arg(long, short)]
    quiet: bool,
}

const EXAMPLES: &str = "\
Examples:
  brain-blitz convert models/gemma2-shakespeare gemma2-q8_0.gguf --quant q8_0
  brain-blitz convert model-f16.gguf model-q4_k.gguf --quant q4_k --embedding q6_k
  brain-blitz convert models/gemma2-shakespeare small.gguf --quant q4_0 --calibrate plays.txt
  brain-blitz convert models/gemma2-shakespeare small.gguf --bits 5 --calibrate plays.txt
  brain-blitz convert IN OUT --quant q4_k --calibrate wiki.txt --save-importance wiki.importance
  brain-blitz convert IN OUT --quant q4_0 --importance wiki.importance
  brain-blitz convert IN OUT --quant q4_0 --calibrate wiki.txt --feedback --rescale

With --calibrate the model reads a part of the text, and errors in a column of a matrix count by the mean
square of what that column is multiplied by; with --feedback also by how what one column is off by can be made
up for in others (of matrices with up to 4096 columns). With --rescale the model and the converted one read
it side by side at the end, and factors for rows of matrices and for norms are learnt that bring the predictions
of both together; they go into the scales of blocks, so the file is as large and as fast as without (both
models are in memory then, the converted one as f32). The formats stay the same.
With --bits each matrix is rounded to each type, and what that does to predictions of the text is measured
as the divergence KL; the types that cost least within the bits are taken. The model is in memory as f32
meanwhile.

The output layer, which is the embedding where a model has no other, keeps more bits than --quant says,
as in llama.cpp's files; --embedding TYPE stores both in TYPE, for example all matrices in one type.

Norms and other vectors stay f32. A matrix whose rows are no whole number of blocks gets a type that
fits: smaller blocks of at least as many bits, or f16; a note says which. Weights are not trained
further, so fewer than four bits are for models that were trained to have them.
--json prints {\"bytes_before\", \"bytes_after\", \"bits_per_weight\", \"tensors\", \"rescaled\",
\"plan\"}.";

fn bits(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(bits) if (1.0..=32.0).contains(&bits) => Ok(bits),
        _ => Err("not a number of bits from 1 to 32".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// If the input is damaged or not of a kind that can be converted, or the output cannot be written.
pub fn run(args: &Args) -> Outcome {
    output::check_file(&args.output)?;
    if !is_gguf(&args.input) && !args.input.is_dir() {
        let input = args.input.display();
        let failure = Failure::new(format!("{input}: is neither a folder nor a GGUF file"));
        return Err(failure.hint("give the folder of a Hugging Face checkpoint, or a GGUF file"));
    }
    let mut bar = Bar::new(args.json || args.quiet);
    let text = args.sample.read(&args.input)?;
    let calibration = (args.sample).calibration(text.as_ref(), args.bits.is_some(), &mut bar)?;
    let found = match (args.bits, &text) {
        (Some(bits), Some(text)) => {
            let request = request(args, bits, calibration.clone());
            Some(args.sample.plan(text, &request, &mut bar)?)
        }
        _ => None,
    };
    let options = options(args, calibration, found.as_ref());
    let bars = RefCell::new(&mut bar);
    let sample = &args.sample;
    let mut moments = (text.as_ref().filter(|_| sample.feeds_back()))
        .map(|text| |names: &[String]| sample.moments(text, names, &mut bars.borrow_mut()));
    let converted = gguf::convert_with(
        &args.input,
        &args.output,
        &options,
        moments
            .as_mut()
            .map(|moments| moments as &mut gguf::Moments<'_>),
        &mut |done, total| bars.borrow_mut().converting(done, total),
    );
    let converted = converted?;
    let rescaled = match text.as_ref().filter(|_| sample.rescales()) {
        Some(text) => Some(sample.rescale_rows(text, (&args.output, &converted), &mut bar)?),
        None => None,
    };
    bar.clear();
    report(args, &converted, (found.as_ref(), rescaled.as_ref()))
}

/// What is planned.
fn request(args: &Args, bits: f64, calibration: Arc<Calibration>) -> Request {
    Request {
        calibration,
        grouping: match args.by_kind {
            true => Grouping::Kind,
            false => Grouping::Tensor,
        },
        ..Request::new(bits)
    }
}

/// How the file is converted; with a plan, in the types of that.
fn options(args: &Args, calibration: Arc<Calibration>, found: Option<&Found>) -> gguf::Options {
    let types = found.map(|found| found.plan.types()).unwrap_or_default();
    // The type of most weights is that of the file.
    let most = found.and_then(|found| {
        let entries = found.plan.entries().iter();
        let size = |ty: BlockType| -> usize {
            let same = found.plan.entries().iter().filter(|e| e.chosen.ty == ty);
            same.map(|e| e.n).sum()
        };
        entries.map(|e| e.chosen.ty).max_by_key(|ty| size(*ty))
    });
    let quant = args.quant.or(most);
    gguf::Options {
        embedding: args.embedding,
        types,
        calibration,
        threads: args.sample.threads(),
        ..gguf::Options::new(quant.expect("the arguments have a type or bits"))
    }
}

/// Tells what became of the tensors, with the plan and the factors, if there are any.
fn report(
    args: &Args,
    tensors: &[Converted],
    (found, rescaled): (Option<&Found>, Option<&Learnt>),
) -> Outcome {
    let sum = |of: fn(&Converted) -> usize| tensors.iter().map(of).sum::<usize>();
    let (before, after) = (sum(|t| t.bytes.0), sum(|t| t.bytes.1));
    let elements = sum(|t| t.elements);
    let bits = after as f64 * 8.0 / elements.max(1) as f64;
    if args.json {
        let row = |t: &Converted| {
            serde_json::json!({
                "name": t.name,
                "from": t.from.name(),
                "to": t.to.name(),
                "instead_of": t.instead_of.map(BlockType::name),
                "calibrated": t.calibrated,
            })
        };
        return output::write_json(&serde_json::json!({
            "bytes_before": before,
            "bytes_after": after,
            "bits_per_weight": bits,
            "tensors": tensors.iter().map(row).collect::<Vec<_>>(),
            "rescaled": rescaled.map(sample::learnt_json),
            "plan": found.map(sample::json),
        }));
    }
    if !args.quiet {
        note_what_did_not_fit(tensors);
    }
    if let Some(found) = found {
        output::write(&sample::table(found))?;
    }
    output::write(&format!(
        "{}: {} tensors, {before} -> {after} bytes, {bits:.2} bits per weight\n",
        args.output.display(),
        tensors.len(),
    ))
}

/// One line for each pair of types.
fn note_what_did_not_fit(tensors: &[Converted]) {
    let pairs = tensors.iter().filter_map(|t| Some((t.instead_of?, t.to)));
    let mut counts = std::collections::BTreeMap::new();
    for pair in pairs {
        *counts.entry(pair).or_insert(0) += 1;
    }
    for ((wanted, to), n) in counts {
        tell(&format!(
            "note: {n} of {} tensors are {to}: their rows are no whole number of {wanted} blocks of {}",
            tensors.len(),
            wanted.block_len()
        ));
    }
}
