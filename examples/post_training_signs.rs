//! A trained Gemma 2 whose weights become signs without any training: what each way of finding them loses.
//!
//!     cargo run --release --example post_training_signs -- --data FOLDER [--tokens N] [--windows N]
//!
//! `FOLDER` holds `train.txt` and `val.txt`, plain or gzipped. The model reads a part of the former; then all its layers are stored
//! as signs by several methods, computed with activations of 8 bits, and the perplexity of the held-out text is measured.
//! The embedding, which is the output layer too, stays as it is.
//!
//! | column | what |
//! |---|---|
//! | bits | of a weight of a layer: its signs, and a scale of 16 bits for each row and base |
//! | RMSE | relative to the weights' own root mean square |
//! | columns | squared error weighted by the mean squares of columns, relative to that of zeros |
//! | output | squared error of the layers' outputs on the text, relative to the outputs |
//! | ratio | perplexity of the held-out text, divided by that of the model as it is |

#[path = "shakespeare/model.rs"]
mod shipped;
#[path = "train_gemma2/text.rs"]
mod text;

use std::path::PathBuf;
use std::sync::Arc;

use brain_blitz::blocks::{SignFit, SignMatrix};
use brain_blitz::compilers::Calibrate;
use brain_blitz::formats::{Calibration, ModelConfig, Tokenizer, Weights, open_model};
use brain_blitz::generation::evaluate::{Windows, evaluate};
use brain_blitz::generation::{Options, Rows, Session, calibrate};
use brain_blitz::prelude::*;
use clap::Parser;

/// Tokens that are fed at once.
const CONTEXT: usize = 256;

/// Compares ways of storing a Gemma 2 as signs without training
#[derive(Parser)]
struct Args {
    /// Folder with train.txt and val.txt, plain or as .gz [default: $BB_DATA/shakespeare]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Folder of the model [default: the repository's model]
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Tokens of train.txt that the model reads to be calibrated, in windows spread over it
    #[arg(long, value_name = "N", default_value_t = 1 << 15)]
    tokens: usize,
    /// Windows of 256 tokens of val.txt that are predicted, 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    windows: usize,
    /// The bases that are tried
    #[arg(long, value_name = "K", value_delimiter = ',', default_values_t = [1, 2, 3, 4])]
    bases: Vec<usize>,
}

fn main() {
    if let Err(error) = run(&Args::parse()) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// How signs are found.
#[derive(Clone)]
struct Method {
    name: &'static str,
    /// What is known about columns.
    known: Option<Arc<Calibration>>,
}

fn run(args: &Args) -> Result<()> {
    let folder = args.model.clone().unwrap_or_else(shipped::default_model);
    let tokenizer = Tokenizer::open(&folder)?;
    let texts = text::Texts::read(args.data.as_deref())?;
    let (config, weights) = open_model(&folder, DType::F32)?;
    let subject = Subject {
        bos: config.bos_token_id(),
        held_out: {
            let mut ids = tokenizer.encode(&texts.val, false)?;
            if args.windows > 0 {
                ids.truncate(args.windows * CONTEXT);
            }
            ids
        },
        config,
        weights: &*weights,
    };
    let train = spread(&tokenizer.encode(&texts.train, false)?, args.tokens);
    let products = Arc::new(subject.calibrate(&train)?);
    let squares = Arc::new(without_products(&products));
    let plain = subject.perplexity(None)?;
    println!("perplexity {plain:.3} as it is\n");
    println!(
        "{:28} {:>6} {:>7} {:>9} {:>9} {:>11} {:>7}",
        "method", "bits", "RMSE", "columns", "output", "perplexity", "ratio"
    );
    let methods = [
        ("least squares", None),
        ("weighted", Some(squares)),
        ("error feedback", Some(products.clone())),
    ];
    let schemes = args.bases.iter().map(|&bases| (bases, false));
    for (bases, ternary) in schemes.chain([(2, true)]) {
        for (name, known) in methods.clone() {
            let method = Method { name, known };
            let lost = subject.lost(&products, (bases, ternary), &method)?;
            let perplexity = subject.perplexity(Some(((bases, ternary), &method)))?;
            let scheme = if ternary {
                "three values".to_owned()
            } else {
                format!("{bases} bases")
            };
            println!(
                "{:28} {:>6.3} {:>7.4} {:>9.2e} {:>9.2e} {perplexity:>11.3} {:>7.4}",
                format!("{scheme}, {}", method.name),
                lost.bits,
                lost.rmse,
                lost.columns,
                lost.output,
                perplexity / plain
            );
        }
    }
    Ok(())
}

/// Windows of a text, evenly spread over it.
fn spread(ids: &[u32], n: usize) -> Vec<u32> {
    let windows = (n / CONTEXT).max(1);
    let last = ids.len().saturating_sub(CONTEXT);
    let starts = (0..windows).map(|i| i * last / windows);
    starts
        .flat_map(|start| ids[start..].iter().take(CONTEXT).copied())
        .collect()
}

fn without_products(calibration: &Calibration) -> Calibration {
    let mut out = Calibration::default();
    for (name, stats) in calibration.iter() {
        out.insert(name, (**stats).clone().without_products());
    }
    out
}

/// The layers as signs.
fn signs((bases, ternary): (usize, bool), method: &Method) -> Binarize {
    let signs = Binarize::w1a8().with_ends().half_scales();
    let signs = if ternary {
        signs.ternary()
    } else {
        signs.bases(bases)
    };
    match &method.known {
        Some(known) => signs.calibrated(known.clone()),
        None => signs,
    }
}

/// What storing all layers loses.
struct Lost {
    bits: f64,
    rmse: f64,
    columns: f64,
    output: f64,
}

struct Subject<'a> {
    config: ModelConfig,
    weights: &'a dyn Weights,
    bos: Option<u32>,
    held_out: Vec<u32>,
}

impl Subject<'_> {
    fn options(&self) -> Options {
        Options {
            context: Some(CONTEXT),
            logits: Rows::All,
            ..Options::default()
        }
    }

    fn calibrate(&self, ids: &[u32]) -> Result<Calibration> {
        let windows = Windows::new(ids, self.bos, CONTEXT, CONTEXT)?;
        let how = Calibrate::default().with_products(1024);
        let (config, options) = (self.config.clone(), self.options());
        calibrate(
            config,
            self.weights,
            &windows,
            how,
            &options,
            &mut |_| (),
            &mut |_, _| (),
        )
    }

    /// Of the held-out text.
    fn perplexity(&self, how: Option<((usize, bool), &Method)>) -> Result<f64> {
        let mut prepare = |graph: &mut Graph| {
            if let Some((scheme, method)) = how {
                graph.try_compile((Generic, signs(scheme, method)), ())?;
            }
            Ok(())
        };
        let (config, options) = (self.config.clone(), self.options());
        let mut session =
            Session::prepared(config, self.weights, &options, &mut |_| (), &mut prepare)?;
        let windows = Windows::new(&self.held_out, self.bos, CONTEXT, CONTEXT)?;
        let found = evaluate(&mut session, None, &windows, &mut |_, _| ())?;
        Ok(found.scores.perplexity())
    }

    /// What storing the calibrated layers loses; those whose rows are looked up stay, so they are not counted.
    fn lost(
        &self,
        calibration: &Calibration,
        (bases, ternary): (usize, bool),
        method: &Method,
    ) -> Result<Lost> {
        let (mut bits, mut n) = (0.0, 0.0);
        let mut sums = [[0.0f64; 2]; 3];
        for (name, stats) in calibration
            .iter()
            .filter(|(name, _)| name.contains(".layers."))
        {
            let tensor = self.weights.get(name)?;
            let w: Vec<f32> = bytemuck::pod_collect_to_vec(&tensor.convert_to(DType::F32)?);
            let columns = stats.columns();
            let matrix = SignMatrix::new(w.len() / columns, columns, bases)?;
            let (mut bytes, mut q) = (vec![0; matrix.bytes()], vec![0.0; w.len()]);
            let fit = SignFit {
                ternary,
                half_scales: true,
            };
            match method.known.as_ref().and_then(|known| known.get(name)) {
                Some(stats) => matrix.encode_calibrated(fit, stats, &w, &mut bytes)?,
                None => matrix.encode(fit, &w, &mut bytes)?,
            }
            matrix.numbers(&bytes, &mut q);
            let scales = if ternary { 1 } else { bases };
            bits += (bases * w.len() + scales * 16 * matrix.rows()) as f64;
            n += w.len() as f64;
            let zeros = vec![0.0; w.len()];
            let square = |(a, b): (&f32, &f32)| f64::from(a - b).powi(2);
            let all = |q: &[f32]| {
                let plain: f64 = w.iter().zip(q).map(square).sum();
                let output = stats.output_error(&w, q).unwrap_or(0.0);
                [plain, stats.weighted_error(&w, q), output]
            };
            for (sum, (lost, whole)) in sums.iter_mut().zip(all(&q).into_iter().zip(all(&zeros))) {
                sum[0] += lost;
                sum[1] += whole;
            }
        }
        let [rmse, columns, output] = sums.map(|[lost, whole]| lost / whole);
        Ok(Lost {
            bits: bits / n,
            rmse: rmse.sqrt(),
            columns,
            output,
        })
    }
}
