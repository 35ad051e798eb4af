//! Handwritten digits by networks of one bit: weights and activations of all layers but the first and the last. (The perceptron's first
//! layer has weights of one bit, and pixels of eight.)
//!
//!     cargo run --release --example mnist_binary -- [--cnn] [--data DIR] [--epochs N] [--seed N]
//!     cargo run --release --example mnist_binary -- --epochs 100 --augment
//!     cargo run --release --example mnist_binary -- --speed [--cnn] [--float-first]
//!
//! Trains a perceptron of three hidden layers (with `--cnn`, a convolutional network) with latent weights, then compiles the
//! same network with `Binarize`, which stores signs and counts bits. Prints the accuracy after each epoch, that of the
//! stored network, on how many images both differ, and what the weights take; with `--float`, trains the network of the
//! same shape without any rounding; with `--speed`, only times the stored network and that one.

#[path = "digits/shared.rs"]
mod digits;

use std::path::PathBuf;
use std::time::Instant;

use brain_blitz::compilers::Report;
use brain_blitz::graph::IntoData;
use brain_blitz::hl_ops::{Conv, CrossEntropy, Padding, Pool};
use brain_blitz::nn::{
    Activation, BatchNorm, BinaryConv2d, BinaryLinear, Conv2d, Layer, Linear, LowBit, MaxPool,
    Module, Sequential, SignInputs, Visitor,
};
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{parameter_arrays, set_parameters};
use brain_blitz::train::data::loader::Epoch;
use brain_blitz::train::data::mnist::{Mnist, Split};
use brain_blitz::train::data::{DataLoader, RandomAffine};
use brain_blitz::train::optim::{Adam, Optimizer};
use brain_blitz::train::schedule::Schedule;
use clap::Parser;
use digits::{N_CLASSES, fields, open};

pub use digits::stripes;

const BATCH: usize = 100;
const TEST_BATCH: usize = 500;

/// Trains a binary network on MNIST.
#[derive(Parser)]
struct Options {
    /// The folder with the four files of MNIST; without it they are looked for in BB_DATA, then fetched
    #[arg(long)]
    data: Option<PathBuf>,
    /// A convolutional network instead of a perceptron
    #[arg(long)]
    cnn: bool,
    /// Trains without rounding anything
    #[arg(long)]
    float: bool,
    /// Does not round the first layer of the perceptron
    #[arg(long)]
    float_first: bool,
    /// Bits of a pixel, as the perceptron sees it: 8, 4, 2 or 1
    #[arg(
        long,
        value_name = "BITS",
        default_value = "8",
        conflicts_with = "float_first"
    )]
    #[arg(value_parser = pixels)]
    pixels: LowBit,
    /// Neurons of a hidden layer of the perceptron
    #[arg(long, default_value_t = 1024)]
    width: usize,
    /// How often all images are seen
    #[arg(long, default_value_t = 5)]
    epochs: u32,
    /// Learning rate at first
    #[arg(long, default_value_t = 2e-3)]
    rate: f64,
    /// Turns, resizes and moves the images at random, for long runs
    #[arg(long)]
    augment: bool,
    /// First weights and the order of images
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads that may work; all cores by default
    #[arg(long)]
    threads: Option<usize>,
    /// Times the stored network and the one without rounding, untrained
    #[arg(long)]
    speed: bool,
}

/// A first layer of signs by pixels of so many bits.
fn pixels(bits: &str) -> Result<LowBit, String> {
    Ok(match bits {
        "8" => LowBit::w1a8(),
        "4" => LowBit::w1a4(),
        "2" => LowBit::w1a2(),
        "1" => LowBit::w1a1(),
        _ => return Err("pixels have 8, 4, 2 or 1 bits".to_owned()),
    })
}

fn main() -> Result<()> {
    let options = Options::parse();
    let shape = Shape {
        is_cnn: options.cnn,
        width: options.width,
        low_bit: (!options.float).then(LowBit::w1a1),
        first: (!options.float && !options.float_first).then_some(options.pixels),
    };
    if options.speed {
        speed(&shape, options.threads);
        return Ok(());
    }
    let open = |split| open(split, options.data.as_deref());
    let (train, test) = (open(Split::Train)?, open(Split::Test)?);
    let mut train = RandomAffine::new(train, options.seed);
    if options.augment {
        train = train.degrees(12.0).shift(2.0).scale(0.1);
    }
    let batches = DataLoader::new(train, BATCH).shuffle(options.seed);
    let batches = batches.drop_last(true).prefetch(2);
    let n_steps = options.epochs * batches.n_batches() as u32;
    let mut trainer = Trainer::new(&shape, BATCH, n_steps, options.rate, options.seed);
    let mut judge = Judge::new(&shape, Stage::Judged, TEST_BATCH);
    if let Some(threads) = options.threads {
        trainer.graph.set_threads(threads);
        judge.graph.set_threads(threads);
    }
    println!("epoch    loss  accuracy");
    for epoch in 0..options.epochs {
        let loss = trainer.epoch(batches.epoch(epoch.into()))?;
        judge.take(&trainer.model)?;
        let accuracy = percent(&judge.answers(&test)?);
        println!("{:>5}  {loss:>6.4}  {accuracy:>6.2} %", epoch + 1);
    }
    if shape.low_bit.is_some() {
        let (stored, report) = Judge::stored(&shape, &trainer.model, TEST_BATCH)?;
        compare(&mut judge, stored, &report, &test)?;
    }
    Ok(())
}

/// Prints what the stored network answers, and what it takes.
fn compare(judge: &mut Judge, mut stored: Judge, report: &Report, test: &Mnist) -> Result<()> {
    let (before, after) = (judge.answers(test)?, stored.answers(test)?);
    let others = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    println!(
        "stored as signs: {:.2} %, {others} of {} answers differ",
        percent(&after),
        after.len()
    );
    for layer in &report.signed {
        let (name, bytes) = (&layer.name, layer.bytes);
        println!("  {name}: {bytes} bytes");
    }
    Ok(())
}

/// What a network is recorded for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Weights are rounded in the graph, batches normalize themselves.
    Training,
    /// Weights are rounded in the graph.
    Judged,
    /// `Binarize` rounds weights.
    Stored,
}

/// The shape of a network.
pub struct Shape {
    /// Whether it is convolutional.
    pub is_cnn: bool,
    /// Neurons of a hidden layer, if not.
    pub width: usize,
    /// How layers in the middle round; without, they do not.
    pub low_bit: Option<LowBit>,
    /// How the first layer of a perceptron rounds.
    pub first: Option<LowBit>,
}

impl Shape {
    /// The network from `[n, 1, 28, 28]` images to `[n, 10]` scores.
    pub fn network(&self, cx: &mut Graph, stage: Stage) -> Sequential {
        let mut net = Builder {
            cx,
            low_bit: self.low_bit,
            first: self.first,
            stage,
            layers: Sequential::new(),
        };
        match self.is_cnn {
            true => net.cnn(),
            false => net.perceptron(self.width),
        }
        net.layers
    }
}

struct Builder<'a> {
    cx: &'a mut Graph,
    low_bit: Option<LowBit>,
    first: Option<LowBit>,
    stage: Stage,
    layers: Sequential,
}

impl Builder<'_> {
    fn perceptron(&mut self, width: usize) {
        // A few levels are as many below 0 as above it.
        let few = |first: LowBit| first.inputs != SignInputs::Bytes;
        let centred = self.first.is_some_and(few);
        self.add(Flatten { centred });
        self.linear(28 * 28, width, self.first);
        self.between(width);
        for _ in 0..2 {
            self.linear(width, width, self.low_bit);
            self.between(width);
        }
        let last = Linear::new(self.cx, width, N_CLASSES, true);
        self.add(last);
    }

    fn cnn(&mut self) {
        let first = Conv2d::new(self.cx, 1, 32, 5, same());
        self.add(first);
        self.add(MaxPool {
            rule: Pool::new([2, 2]),
        });
        self.between(32); // [n, 32, 14, 14]
        self.conv(32, 64);
        self.add(MaxPool {
            rule: Pool::new([2, 2]),
        });
        self.between(64); // [n, 64, 7, 7]
        self.conv(64, 64);
        self.between(64);
        self.add(Flatten { centred: false });
        self.linear(64 * 7 * 7, 256, self.low_bit);
        self.between(256);
        let last = Linear::new(self.cx, 256, N_CLASSES, true);
        self.add(last);
    }

    fn add(&mut self, layer: impl Layer + Send + Sync + 'static) {
        let layers = std::mem::take(&mut self.layers);
        self.layers = layers.then(layer);
    }

    /// Normalization, and without rounding a nonlinearity (a sign is one).
    fn between(&mut self, channels: usize) {
        let mut norm = BatchNorm::new(self.cx, channels);
        norm.training = self.stage == Stage::Training;
        self.add(norm);
        if self.low_bit.is_none() {
            self.add(Activation::Relu);
        }
    }

    fn linear(&mut self, n_in: usize, n_out: usize, low_bit: Option<LowBit>) {
        let Some(low_bit) = low_bit else {
            let layer = Linear::new(self.cx, n_in, n_out, false);
            return self.add(layer);
        };
        let layer = BinaryLinear::new(self.cx, n_in, n_out, low_bit);
        match self.stage {
            Stage::Stored => self.add(layer.latent()),
            _ => self.add(layer),
        }
    }

    fn conv(&mut self, n_in: usize, n_out: usize) {
        let Some(low_bit) = self.low_bit else {
            let layer = Conv2d::new(self.cx, n_in, n_out, 3, same());
            return self.add(layer);
        };
        let layer = BinaryConv2d::new(self.cx, n_in, n_out, 3, same(), low_bit);
        match self.stage {
            Stage::Stored => self.add(layer.latent()),
            _ => self.add(layer),
        }
    }
}

fn same() -> Conv {
    Conv {
        padding: Padding::Same,
        ..Conv::default()
    }
}

/// All axes but the first as one; `centred` takes numbers from 0 to 1 to such from -1 to 1.
struct Flatten {
    centred: bool,
}

impl Module for Flatten {
    fn visit(&self, _: &mut Visitor<'_>) {}
}

impl Layer for Flatten {
    fn forward(&self, x: GraphTensor) -> GraphTensor {
        let x = x.flatten(1, 3);
        if self.centred { x * 2.0 - 1.0 } else { x }
    }
}

/// A graph whose execution is a training step.
pub struct Trainer {
    graph: Graph,
    /// The network.
    pub model: Sequential,
    images: GraphTensor,
    labels: GraphTensor,
    loss: GraphTensor,
}

impl Trainer {
    /// A network that sees `batch` images in each of `n_steps` steps.
    pub fn new(shape: &Shape, batch: usize, n_steps: u32, rate: f64, seed: u64) -> Trainer {
        let mut graph = Graph::new();
        let images = graph.input((batch, 1, 28, 28), DType::F32);
        let labels = graph.input(batch, DType::I32);
        let model = shape.network(&mut graph, Stage::Training);
        model.init(seed);
        let scores = model.forward(images);
        let loss = scores.cross_entropy(labels, &CrossEntropy::default());
        let loss = loss.retrieve();
        let params = model.parameters();
        let grads = graph.compile(Autograd::new(&params, loss), ());
        Adam::new(Schedule::cosine(rate, 0.0, n_steps)).step(&mut graph, &params, &grads);
        graph.compile(<(Generic, LlvmCpu)>::default(), loss);
        Trainer {
            graph,
            model,
            images,
            labels,
            loss,
        }
    }

    /// One step, and the loss before it.
    pub fn step(&mut self, images: impl IntoData, labels: impl IntoData) -> f32 {
        self.images.set(images);
        self.labels.set(labels);
        self.graph.execute();
        self.loss.data()[0]
    }

    /// Trains on these batches; gives the mean loss.
    fn epoch(&mut self, batches: Epoch<RandomAffine<Mnist>>) -> Result<f64> {
        let (mut sum, mut n) = (0.0, 0.0);
        for batch in batches {
            let [images, labels] = fields(batch?);
            sum += f64::from(self.step(images, labels));
            n += 1.0;
        }
        Ok(sum / n)
    }
}

/// A graph that answers.
pub struct Judge {
    graph: Graph,
    model: Sequential,
    images: GraphTensor,
    /// The scores of the last images.
    pub scores: GraphTensor,
    answers: GraphTensor,
}

impl Judge {
    fn recorded(shape: &Shape, stage: Stage, batch: usize) -> Judge {
        let mut graph = Graph::new();
        let images = graph.input((batch, 1, 28, 28), DType::F32);
        let model = shape.network(&mut graph, stage);
        let scores = model.forward(images).retrieve();
        let answers = scores.argmax(1).retrieve();
        Judge {
            graph,
            model,
            images,
            scores,
            answers,
        }
    }

    /// A network that computes with numbers.
    pub fn new(shape: &Shape, stage: Stage, batch: usize) -> Judge {
        let mut judge = Judge::recorded(shape, stage, batch);
        judge.graph.compile(<(Generic, LlvmCpu)>::default(), ());
        judge
    }

    /// A trained network that computes with signs, and what compiling it did.
    pub fn stored(shape: &Shape, trained: &Sequential, batch: usize) -> Result<(Judge, Report)> {
        let mut judge = Judge::recorded(shape, Stage::Stored, batch);
        judge.take(trained)?;
        let compilers = <(Generic, Binarize, LlvmCpu)>::default();
        let report = judge.graph.compile(compilers, ());
        Ok((judge, report))
    }

    /// Takes what was learnt.
    pub fn take(&self, trained: &Sequential) -> Result<()> {
        set_parameters(
            &self.model.parameters(),
            &parameter_arrays(&trained.parameters())?,
        )?;
        set_parameters(&self.model.state(), &parameter_arrays(&trained.state())?)
    }

    /// Answers for a batch of images.
    pub fn answer(&mut self, images: impl IntoData) -> Vec<f32> {
        self.images.set(images);
        self.graph.execute();
        self.scores.data()
    }

    /// For each image the answer, and whether it is right.
    fn answers(&mut self, images: &Mnist) -> Result<Vec<(i32, bool)>> {
        let mut out = Vec::new();
        for batch in DataLoader::new(images.clone(), TEST_BATCH).epoch(0) {
            let [images, labels] = fields(batch?);
            self.answer(images);
            let answers = self.answers.array().to_i32();
            let both = answers.into_iter().zip(labels.to_i32());
            out.extend(both.map(|(answer, label)| (answer, answer == label)));
        }
        Ok(out)
    }
}

fn percent(answers: &[(i32, bool)]) -> f64 {
    let n_right = answers.iter().filter(|(_, is_right)| *is_right).count();
    100.0 * n_right as f64 / answers.len() as f64
}

/// Times networks with first weights, whole and by kernels.
fn speed(shape: &Shape, threads: Option<usize>) {
    let float = Shape {
        low_bit: None,
        first: None,
        ..*shape
    };
    let binary = Shape {
        low_bit: Some(LowBit::w1a1()),
        ..*shape
    };
    println!("batch      float     binary  times");
    let mut tables = Vec::new();
    for batch in [1, 256] {
        let times = [(&float, Stage::Judged), (&binary, Stage::Stored)].map(|(shape, stage)| {
            let mut judge = Judge::recorded(shape, stage, batch);
            judge.model.init(1);
            match stage {
                Stage::Stored => judge
                    .graph
                    .compile(<(Generic, Binarize, LlvmCpu)>::default(), ()),
                _ => judge.graph.compile(<(Generic, LlvmCpu)>::default(), ()),
            };
            if let Some(threads) = threads {
                judge.graph.set_threads(threads);
            }
            judge.images.set(stripes(batch).0);
            let time = median(&mut judge.graph);
            judge.graph.set_profiling(true);
            (0..100).for_each(|_| judge.graph.execute());
            let profile = judge.graph.profile().expect("profiling is on");
            tables.push(profile.table(None));
            time
        });
        let [float, binary] = times;
        println!(
            "{batch:>5}  {float:>6.3} ms  {binary:>6.3} ms  {:>5.2}",
            float / binary
        );
    }
    println!("of 100 executions, in the same order:");
    tables.iter().for_each(|table| println!("{table}"));
}

/// Milliseconds of an execution.
fn median(graph: &mut Graph) -> f64 {
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 20 || start.elapsed().as_secs_f64() < 1.0 {
        let start = Instant::now();
        graph.execute();
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}
