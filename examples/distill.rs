//! A binary student of handwritten digits that learns from a float teacher of the same shape, in stages.
//!
//!     cargo run --release --example distill -- [--data DIR] [--epochs N] [--width N] [--seed N]
//!
//! Trains a perceptron on labels, then a student on the teacher's answers: weights and activations of 8 bits, then weights of
//! one bit, then activations of one bit too. Prints the accuracy of the teacher and of the student, stored as signs.

use std::path::PathBuf;

use brain_blitz::array::Array;
use brain_blitz::compilers::binarize::{SignActivations, TrainedWeights};
use brain_blitz::hl_ops::CrossEntropy;
use brain_blitz::nn::{LayerNorm, Linear, LowBit, Module, Visitor};
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{Arrays, parameter_arrays, set_parameters};
use brain_blitz::train::data::mnist::{Kind, Mnist, Split};
use brain_blitz::train::data::{Batch, DataLoader};
use brain_blitz::train::distill::{Distill, Lesson, Stage, Student};
use brain_blitz::train::optim::{Adam, Optimizer};
use brain_blitz::train::schedule::Schedule;
use clap::Parser;

const BATCH: usize = 100;
const N_CLASSES: usize = 10;

/// Teaches a binary network.
#[derive(Parser)]
struct Options {
    /// The folder with the four files of MNIST; without it they are looked for in BB_DATA, then fetched
    #[arg(long)]
    data: Option<PathBuf>,
    /// How often the teacher sees all images, and the student in each stage with signs
    #[arg(long, default_value_t = 3)]
    epochs: u32,
    /// Neurons of a hidden layer
    #[arg(long, default_value_t = 512)]
    width: usize,
    /// First weights and the order of images
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (mean, deviation) = Kind::Digits.statistics();
    let open = |split| {
        let images = Mnist::open(Kind::Digits, split, options.data.as_deref())?;
        Ok(images.normalize(mean, deviation).with_dims(&[28 * 28]))
    };
    let (train, test) = (open(Split::Train)?, open(Split::Test)?);
    let teacher = train_teacher(&options, &train)?;
    let accuracy = accuracy(&options, &teacher, None, &test)?;
    println!("teacher: {accuracy:.2} %");
    for (stage, student) in teach(&options, &teacher, &train)? {
        let accuracy = self::accuracy(&options, &student, Some(stage.layers), &test)?;
        println!("{}: {accuracy:.2} %", stage.name);
    }
    Ok(())
}

/// A perceptron of three hidden layers, each normalized before what reads it: signs say nothing of a shift.
struct Perceptron {
    layers: Vec<Linear>,
    norms: Vec<LayerNorm>,
}

impl Perceptron {
    fn new(cx: &mut Graph, width: usize) -> Perceptron {
        let sizes = [28 * 28, width, width, width, N_CLASSES];
        let layer = |(at, two): (usize, &[usize])| Linear::new(cx, two[0], two[1], at == 3);
        let layers = sizes.windows(2).enumerate().map(layer).collect();
        let norms = (0..3).map(|_| LayerNorm::new(cx, width, 1e-5)).collect();
        Perceptron { layers, norms }
    }

    /// `[n, 784]` images to `[n, 10]` scores.
    fn forward(&self, images: GraphTensor) -> GraphTensor {
        let last = self.layers.len() - 1;
        let hidden = self.layers[..last].iter().zip(&self.norms);
        let x = hidden.fold(images, |x, (layer, norm)| {
            norm.forward(layer.forward(x)).clamp(-1.0, 1.0)
        });
        self.layers[last].forward(x)
    }
}

impl Module for Perceptron {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.modules("layers", &self.layers);
        visitor.modules("norms", &self.norms);
    }
}

/// Weights learnt from labels.
fn train_teacher(options: &Options, images: &Mnist) -> Result<Arrays> {
    let mut cx = Graph::new();
    let x = cx.input((BATCH, 28 * 28), DType::F32);
    let labels = cx.input(BATCH, DType::I32);
    let model = Perceptron::new(&mut cx, options.width);
    model.init(options.seed);
    let loss = model
        .forward(x)
        .cross_entropy(labels, &CrossEntropy::default());
    let params = model.parameters();
    let grads = cx.compile(Autograd::new(&params, loss), ());
    let batches = DataLoader::new(images.clone(), BATCH).shuffle(options.seed);
    let steps = options.epochs * batches.n_batches() as u32;
    Adam::new(Schedule::cosine(1e-3, 0.0, steps)).step(&mut cx, &params, &grads);
    cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?;
    for epoch in 0..options.epochs {
        for batch in batches.epoch(epoch.into()) {
            let [images, answers] = fields(batch?);
            x.try_set(images)?;
            labels.try_set(answers)?;
            cx.try_execute()?;
        }
    }
    parameter_arrays(&params)
}

/// The student's stages; the first and the last layer stay.
fn stages(options: &Options, n_batches: usize) -> [Stage; 3] {
    let steps = options.epochs * n_batches as u32;
    let signs = TrainedWeights::Signs(LowBit::w1a1());
    let last = Binarize::w1a1().activations(SignActivations::Signs);
    [
        (
            "8-bit weights and activations",
            Binarize::w1a8(),
            TrainedWeights::Bytes,
            100,
            2e-4,
        ),
        (
            "1-bit weights, 8-bit activations",
            Binarize::w1a8(),
            signs,
            steps,
            1e-3,
        ),
        ("1-bit weights and activations", last, signs, steps, 1e-3),
    ]
    .map(|(name, layers, weights, steps, rate)| Stage {
        name: name.into(),
        layers,
        weights,
        steps,
        rate,
    })
}

/// The student's weights after each stage with signs.
fn teach(options: &Options, teacher: &Arrays, images: &Mnist) -> Result<Vec<(Stage, Arrays)>> {
    let mut cx = Graph::new();
    let x = cx.input((BATCH, 28 * 28), DType::F32);
    let model = Perceptron::new(&mut cx, options.width);
    let logits = model.forward(x).retrieve();
    set_parameters(&model.parameters(), teacher)?;
    cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?;
    let loader = DataLoader::new(images.clone(), BATCH).shuffle(options.seed + 1);
    let (mut epoch, mut batches) = (0, loader.epoch(0));
    let mut lesson = |_| {
        let batch = match batches.next() {
            Some(batch) => batch,
            None => {
                epoch += 1;
                batches = loader.epoch(epoch);
                batches.next().expect("there are images")
            }
        };
        let [images, _] = fields(batch?);
        x.try_set(images.clone())?;
        cx.try_execute()?;
        Ok(Lesson {
            inputs: vec![images],
            logits: logits.array(),
            hidden: vec![],
        })
    };
    let mut record = |cx: &mut Graph| {
        let x = cx.input((BATCH, 28 * 28), DType::F32);
        let model = Perceptron::new(cx, options.width);
        Student {
            params: model.parameters(),
            inputs: vec![x],
            logits: model.forward(x),
            hidden: vec![],
        }
    };
    let (mut weights, mut out) = (teacher.clone(), Vec::new());
    for stage in stages(options, loader.n_batches()) {
        let distill = Distill::new([stage.clone()]).temperature(2.0);
        weights = distill.run(&mut record, &mut lesson, &weights, &mut |_| Ok(()))?;
        if stage.weights != TrainedWeights::Bytes {
            out.push((stage, weights.clone()));
        }
    }
    Ok(out)
}

/// Percent of right answers, with layers stored as signs or as they are.
fn accuracy(
    options: &Options,
    weights: &Arrays,
    layers: Option<Binarize>,
    images: &Mnist,
) -> Result<f64> {
    let mut cx = Graph::new();
    let x = cx.input((BATCH, 28 * 28), DType::F32);
    let labels = cx.input(BATCH, DType::I32);
    let model = Perceptron::new(&mut cx, options.width);
    let is_right = model.forward(x).argmax(1).eq(labels).cast(DType::F32);
    let n_right = is_right.sum(..).retrieve();
    set_parameters(&model.parameters(), weights)?;
    match layers {
        Some(layers) => cx.try_compile((Generic, layers, LlvmCpu::default()), ())?,
        None => cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?,
    };
    let batches = DataLoader::new(images.clone(), BATCH).drop_last(true);
    let mut sum = 0.0;
    for batch in batches.epoch(0) {
        let [images, answers] = fields(batch?);
        x.try_set(images)?;
        labels.try_set(answers)?;
        cx.try_execute()?;
        sum += f64::from(n_right.data()[0]);
    }
    Ok(sum / batches.n_batches() as f64)
}

/// Images and labels.
fn fields(batch: Batch) -> [Array; 2] {
    batch.arrays.try_into().expect("a sample has two fields")
}
