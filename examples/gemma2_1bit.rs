//! A small Gemma 2 whose weights are signs, taught by the trained one of this repository.
//!
//!     cargo run --release --example gemma2_1bit -- --data FOLDER [--steps N] [--batch N] [--rate R]
//!
//! `FOLDER` holds `train.txt` and `val.txt`, plain or gzipped. The student starts with the teacher's weights; a tenth of the
//! steps trains it with weights and activations of 8 bits, the others with weights of one bit. Then it is compiled with
//! `Binarize`, and the perplexity of held-out text is printed: the teacher's, that of the teacher's weights stored as signs
//! without training, the student's, and the ratio.

#[path = "train_gemma2/text.rs"]
mod text;

use std::path::{Path, PathBuf};
use std::time::Instant;

use brain_blitz::array::{Array, Data};
use brain_blitz::compilers::binarize::TrainedWeights;
use brain_blitz::formats::safetensors::Checkpoint;
use brain_blitz::formats::{Gemma2Config, StoredType, Tokenizer};
use brain_blitz::nn::models::LanguageModel;
use brain_blitz::nn::models::gemma2::Gemma2;
use brain_blitz::nn::{LowBit, Module, Parameters};
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{Arrays, set_parameters};
use brain_blitz::train::data::{DataLoader, Dataset, TextDataset};
use brain_blitz::train::distill::{Stage, Student, distill};
use clap::Parser;

/// Teaches a Gemma 2 of one bit
#[derive(Parser)]
struct Args {
    /// Folder with train.txt and val.txt, plain or as .gz [default: $BB_DATA/shakespeare]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Folder of the teacher [default: the repository's model]
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Training steps
    #[arg(long, value_name = "N", default_value_t = 1500)]
    steps: u32,
    /// Sequences a step
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch: usize,
    /// Tokens a sequence
    #[arg(long, value_name = "N", default_value_t = 256)]
    length: usize,
    /// Learning rate at first; it falls along a cosine
    #[arg(long, value_name = "R", default_value_t = 2e-3)]
    rate: f64,
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
    let folder = args.model.clone().unwrap_or_else(default_model);
    let tokenizer = Tokenizer::open(&folder)?;
    let teacher = Teacher {
        config: Gemma2Config::open(&folder)?,
        weights: weights(&folder)?,
        bos: tokenizer.bos().map_or(0, |bos| bos as i32),
    };
    let texts = text::Texts::read(args.data.as_deref())?;
    let held_out = tokenizer.encode(&texts.val, false)?;
    let train = tokenizer.encode(&texts.train, false)?;
    let plain = teacher.perplexity(args, &held_out, &teacher.weights, false)?;
    let untrained = teacher.perplexity(args, &held_out, &teacher.weights, true)?;
    println!("perplexity of the teacher: {plain:.2}; of its signs, untrained: {untrained:.2}");
    let taught = teach(args, &teacher, train)?;
    let student = teacher.perplexity(args, &held_out, &taught, true)?;
    println!(
        "perplexity of the student: {student:.2}, {:.3} times the teacher's",
        student / plain
    );
    Ok(())
}

/// The model beside the sources, or below the current folder when those are gone.
fn default_model() -> PathBuf {
    let name = "models/gemma2-shakespeare";
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if beside.exists() { beside } else { name.into() }
}

/// All tensors of a model, in `F32`.
fn weights(folder: &Path) -> Result<Arrays> {
    let file = Checkpoint::open(folder.join("model.safetensors"))?;
    let read = |name: &str| {
        let tensor = file.get(name)?;
        let half = |bytes: &[u8]| half::bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        let single = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let numbers = match tensor.dtype {
            StoredType::BF16 => tensor.bytes.chunks_exact(2).map(half).collect(),
            StoredType::F32 => tensor.bytes.chunks_exact(4).map(single).collect(),
            other => {
                return Err(Error::msg(format!(
                    "{name} is stored as {other:?}; this example reads bf16 and f32"
                )));
            }
        };
        Ok((
            name.to_string(),
            Array::new(tensor.shape, Data::F32(numbers)),
        ))
    };
    file.names().map(read).collect()
}

/// The layers that become binary: all projections but the first ones.
fn layers() -> Binarize {
    Binarize::w1a8()
}

struct Teacher {
    config: Gemma2Config,
    weights: Arrays,
    bos: i32,
}

/// A model that reads whole sequences.
struct Model {
    cx: Graph,
    params: Parameters,
    tokens: GraphTensor,
    logits: GraphTensor,
}

impl Teacher {
    fn record(&self, args: &Args, batch: usize) -> Model {
        let mut cx = Graph::new();
        if let Some(n) = args.threads {
            cx.set_threads(n);
        }
        let Student {
            params,
            inputs,
            logits,
        } = self.student(&mut cx, args, batch);
        Model {
            cx,
            params,
            tokens: inputs[0],
            logits,
        }
    }

    fn student(&self, cx: &mut Graph, args: &Args, batch: usize) -> Student {
        let model = Gemma2::new(cx, &self.config, args.length, &|_| DType::F32);
        let tokens = cx.input((batch, args.length), DType::I32);
        Student {
            params: model.parameters(),
            inputs: vec![tokens],
            logits: model.forward_sequences(tokens),
        }
    }

    /// Tokens of a batch of windows, each of which starts with `bos`.
    fn tokens(&self, batch: &Array) -> Array {
        let mut tokens = batch.to_i32();
        let length = batch.dims()[1];
        tokens.chunks_mut(length).for_each(|row| row[0] = self.bos);
        Array::new(batch.dims().to_vec(), Data::I32(tokens))
    }

    /// Of a text, by a model with these weights, stored as signs or as they are.
    fn perplexity(
        &self,
        args: &Args,
        text: &[u32],
        weights: &Arrays,
        as_signs: bool,
    ) -> Result<f64> {
        let mut data = text.to_vec();
        if args.windows > 0 {
            data.truncate(args.windows * args.length + 1);
        }
        let data = TextDataset::new(data, args.length)?;
        let batch = 8.min(data.len());
        let mut model = self.record(args, batch);
        let targets = model.cx.input((batch, args.length), DType::I32);
        let chosen = model
            .logits
            .log_softmax(-1)
            .gather(-1, targets.unsqueeze(-1));
        let loss = (-chosen.mean(..)).retrieve();
        set_parameters(&model.params, weights)?;
        match as_signs {
            true => {
                let report = model
                    .cx
                    .try_compile((Generic, layers(), LlvmCpu::default()), ())?;
                let bytes: usize = report.signed.iter().map(|layer| layer.bytes).sum();
                eprintln!("{} layers take {bytes} bytes", report.signed.len());
            }
            false => {
                model.cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?;
            }
        }
        let batches = DataLoader::new(data, batch).drop_last(true);
        let mut total = 0.0;
        for batch in batches.epoch(0) {
            let batch = batch?;
            model.tokens.try_set(self.tokens(&batch.arrays[0]))?;
            targets.try_set(batch.arrays[1].clone())?;
            model.cx.try_execute()?;
            total += f64::from(loss.data()[0]);
        }
        Ok((total / batches.n_batches() as f64).exp())
    }
}

/// Trains the student; gives its weights.
fn teach(args: &Args, teacher: &Teacher, text: Vec<u32>) -> Result<Arrays> {
    let mut answering = teacher.record(args, args.batch);
    answering.logits.retrieve();
    set_parameters(&answering.params, &teacher.weights)?;
    answering
        .cx
        .try_compile(<(Generic, LlvmCpu)>::default(), ())?;
    let windows = args.batch * args.steps as usize;
    let data = TextDataset::new(text, args.length)?.random(windows, args.seed);
    let loader = DataLoader::new(data, args.batch).prefetch(2);
    let mut batches = loader.epoch(0);
    let mut batch = || {
        let batch = batches.next().expect("there is one for each step")?;
        let tokens = teacher.tokens(&batch.arrays[0]);
        answering.tokens.try_set(tokens.clone())?;
        answering.cx.try_execute()?;
        Ok((vec![tokens], answering.logits.array()))
    };
    let stage = |name: &str, weights, steps, rate| Stage {
        name: name.into(),
        layers: layers(),
        weights,
        steps,
        rate,
    };
    let first = args.steps / 10;
    let signs = TrainedWeights::Signs(LowBit::w1a8());
    let stages = [
        stage("8 bits", TrainedWeights::Bytes, first, args.rate / 10.0),
        stage("1 bit", signs, args.steps - first, args.rate),
    ];
    let start = Instant::now();
    let mut mean = 0.0;
    distill(
        &mut |cx| {
            if let Some(n) = args.threads {
                cx.set_threads(n);
            }
            teacher.student(cx, args, args.batch)
        },
        &mut batch,
        &teacher.weights,
        &stages,
        1.0,
        &mut |step| {
            mean += step.loss / 20.0;
            if step.done % 20 == 0 {
                let seconds = start.elapsed().as_secs();
                println!(
                    "{:>8} {:>6}  {mean:.4} nats from the teacher  {seconds} s",
                    step.stage.name, step.done
                );
                mean = 0.0;
            }
        },
    )
}
