//! Handwritten digits: a small convolutional network after LeNet-5 (LeCun et al. 1998), trained with Adam.
//!
//!     cargo run --release --example mnist_cnn -- [--data DIR] [--epochs N] [--seed N] [--threads N] [--out DIR]
//!     cargo run --release --example mnist_cnn -- --profile
//!
//! Prints loss, accuracy and the time of a step after each epoch; with `--out`, saves a checkpoint after each, and goes on
//! from the last one with the bits of a run that did not stop; with `--profile`, what the kernels of a step take.

#[path = "digits/shared.rs"]
mod digits;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use brain_blitz::compilers::Report;
use brain_blitz::graph::IntoData;
use brain_blitz::hl_ops::{Conv, CrossEntropy, Padding, Pool};
use brain_blitz::nn::{Conv2d, Linear, Module, Visitor};
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{Checkpoint, Store, parameter_arrays, set_parameters};
use brain_blitz::train::data::loader::Epoch;
use brain_blitz::train::data::mnist::{Mnist, Split};
use brain_blitz::train::data::{DataLoader, Dataset};
use brain_blitz::train::optim::{Adam, Optimizer, States};
use brain_blitz::train::schedule::Schedule;
use clap::Parser;
use digits::{N_CLASSES, fields, open};

pub use digits::stripes;

const BATCH: usize = 64;
const TEST_BATCH: usize = 500;
const RATE: f64 = 4e-3;

/// Trains a convolutional network on MNIST.
#[derive(Parser)]
struct Options {
    /// The folder with the four files of MNIST; without it they are looked for in BB_DATA, then fetched
    #[arg(long)]
    data: Option<PathBuf>,
    /// How often all images are seen
    #[arg(long, default_value_t = 5)]
    epochs: u32,
    /// First weights and the order of images
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads that may work; all cores by default
    #[arg(long)]
    threads: Option<usize>,
    /// The folder of checkpoints
    #[arg(long)]
    out: Option<PathBuf>,
    /// Times steps on one batch of noise instead of training
    #[arg(long)]
    profile: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.profile {
        profile(options.threads);
        return Ok(());
    }
    let open = |split| open(split, options.data.as_deref());
    let (train, test) = (open(Split::Train)?, open(Split::Test)?);
    let batches = DataLoader::new(train, BATCH).shuffle(options.seed);
    let batches = batches.drop_last(true).prefetch(2);
    let n_steps = options.epochs * batches.n_batches() as u32;
    let mut trainer = Trainer::new(BATCH, n_steps, options.seed);
    let mut judge = Judge::new(TEST_BATCH);
    if let Some(threads) = options.threads {
        trainer.graph.set_threads(threads);
        judge.graph.set_threads(threads);
    }
    let store = options.out.map(|folder| Store::new(folder).keep(2));
    let run = (options.epochs, options.seed);
    let done = match &store {
        Some(store) => trainer.resume(store, run)?,
        None => 0,
    };
    println!("epoch    loss  accuracy  ms per step");
    for epoch in done..options.epochs {
        let (loss, time) = trainer.epoch(batches.epoch(epoch.into()))?;
        let accuracy = judge.accuracy(&trainer.model, &test)?;
        let ms = time.as_secs_f64() * 1e3;
        println!(
            "{:>5}  {loss:>6.4}  {accuracy:>6.2} %  {ms:>11.3}",
            epoch + 1
        );
        if let Some(store) = &store {
            trainer.save(store, run, epoch + 1)?;
        }
    }
    Ok(())
}

/// Two convolutions, each with a pool, and three linear layers.
pub struct LeNet {
    conv1: Conv2d,
    conv2: Conv2d,
    fc1: Linear,
    fc2: Linear,
    fc3: Linear,
}

impl LeNet {
    fn new(cx: &mut Graph) -> LeNet {
        let same = Conv {
            padding: Padding::Same,
            ..Conv::default()
        };
        LeNet {
            conv1: Conv2d::new(cx, 1, 6, 5, same),
            conv2: Conv2d::new(cx, 6, 16, 5, Conv::default()),
            fc1: Linear::new(cx, 16 * 5 * 5, 120, true),
            fc2: Linear::new(cx, 120, 84, true),
            fc3: Linear::new(cx, 84, N_CLASSES, true),
        }
    }

    /// `[n, 1, 28, 28]` images to `[n, 10]` scores.
    fn forward(&self, images: GraphTensor) -> GraphTensor {
        let halved = Pool::new([2, 2]);
        let x = self.conv1.forward(images).relu().max_pool(&halved); // [n, 6, 14, 14]
        let x = self.conv2.forward(x).relu().max_pool(&halved); // [n, 16, 5, 5]
        let x = self.fc1.forward(x.flatten(1, 3)).relu();
        self.fc3.forward(self.fc2.forward(x).relu())
    }
}

impl Module for LeNet {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("conv1", &self.conv1);
        visitor.module("conv2", &self.conv2);
        visitor.module("fc1", &self.fc1);
        visitor.module("fc2", &self.fc2);
        visitor.module("fc3", &self.fc3);
    }
}

/// A graph whose execution is a training step.
pub struct Trainer {
    /// The compiled step.
    pub graph: Graph,
    /// What compiling it did.
    pub report: Report,
    model: LeNet,
    states: States,
    images: GraphTensor,
    labels: GraphTensor,
    loss: GraphTensor,
}

impl Trainer {
    /// A network that sees `batch` images in each of `n_steps` steps.
    pub fn new(batch: usize, n_steps: u32, seed: u64) -> Trainer {
        let mut graph = Graph::new();
        let images = graph.input((batch, 1, 28, 28), DType::F32);
        let labels = graph.input(batch, DType::I32);
        let model = LeNet::new(&mut graph);
        model.init(seed);
        let scores = model.forward(images);
        let loss = scores.cross_entropy(labels, &CrossEntropy::default());
        let loss = loss.retrieve();
        let params = model.parameters();
        let grads = graph.compile(Autograd::new(&params, loss), ());
        let warm_up = n_steps / 10;
        let schedule = Schedule::cosine(RATE, 0.0, n_steps - warm_up).after_warm_up(warm_up, 0.1);
        let states = Adam::new(schedule).step(&mut graph, &params, &grads);
        let report = graph.compile(<(Generic, LlvmCpu)>::default(), loss);
        Trainer {
            graph,
            report,
            model,
            states,
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

    /// Saves everything that the run, of so many epochs and this seed, needs to go on after `epoch` of them.
    fn save(&self, store: &Store, run: (u32, u64), epoch: u32) -> Result<()> {
        let carried = self.model.state();
        store.save(&Checkpoint {
            step: epoch.into(),
            weights: parameter_arrays(&self.model.parameters())?,
            state: parameter_arrays(self.states.iter().chain(carried.iter()))?,
            meta: run,
        })?;
        Ok(())
    }

    /// Takes up the last checkpoint, if there is one; gives the number of epochs that are behind.
    fn resume(&self, store: &Store, run: (u32, u64)) -> Result<u32> {
        let Some(loaded) = store.load_latest::<(u32, u64)>()? else {
            return Ok(0);
        };
        let checkpoint = loaded.checkpoint;
        if checkpoint.meta != run {
            return Err(Error::msg(
                "the checkpoints are those of a run of other epochs or of another seed",
            ));
        }
        let carried = self.model.state();
        set_parameters(&self.model.parameters(), &checkpoint.weights)?;
        let all = self.states.iter().chain(carried.iter());
        set_parameters(all, &checkpoint.state)?;
        Ok(checkpoint.step as u32)
    }

    /// Trains on these batches; gives the mean loss and the median time of a step.
    fn epoch(&mut self, batches: Epoch<Mnist>) -> Result<(f64, Duration)> {
        let (mut sum, mut times) = (0.0, Vec::new());
        for batch in batches {
            let [images, labels] = fields(batch?);
            let start = Instant::now();
            sum += f64::from(self.step(images, labels));
            times.push(start.elapsed());
        }
        times.sort();
        Ok((sum / times.len() as f64, times[times.len() / 2]))
    }
}

/// A graph that counts right answers.
struct Judge {
    graph: Graph,
    model: LeNet,
    images: GraphTensor,
    labels: GraphTensor,
    n_right: GraphTensor,
}

impl Judge {
    fn new(batch: usize) -> Judge {
        let mut graph = Graph::new();
        let images = graph.input((batch, 1, 28, 28), DType::F32);
        let labels = graph.input(batch, DType::I32);
        let model = LeNet::new(&mut graph);
        let is_right = model.forward(images).argmax(1).eq(labels);
        let n_right = is_right.cast(DType::F32).sum(..).retrieve();
        graph.compile(<(Generic, LlvmCpu)>::default(), n_right);
        Judge {
            graph,
            model,
            images,
            labels,
            n_right,
        }
    }

    /// Percent of right answers on images that were not trained on.
    fn accuracy(&mut self, trained: &LeNet, images: &Mnist) -> Result<f64> {
        let weights = parameter_arrays(&trained.parameters())?;
        set_parameters(&self.model.parameters(), &weights)?;
        set_parameters(&self.model.state(), &parameter_arrays(&trained.state())?)?;
        let mut n_right = 0.0;
        for batch in DataLoader::new(images.clone(), TEST_BATCH).epoch(0) {
            let [images, labels] = fields(batch?);
            self.images.set(images);
            self.labels.set(labels);
            self.graph.execute();
            n_right += f64::from(self.n_right.data()[0]);
        }
        Ok(100.0 * n_right / images.len() as f64)
    }
}

/// Prints the time of a step and what its kernels take of it.
fn profile(threads: Option<usize>) {
    let mut trainer = Trainer::new(BATCH, 1000, 1);
    if let Some(threads) = threads {
        trainer.graph.set_threads(threads);
    }
    let (images, labels) = stripes(BATCH);
    trainer.images.set(images);
    trainer.labels.set(labels);
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        trainer.graph.execute();
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "{:.3} ms per step",
        times[times.len() / 2].as_secs_f64() * 1e3
    );
    trainer.graph.set_profiling(true);
    for _ in 0..20 {
        trainer.graph.execute();
    }
    if let Some(profile) = trainer.graph.profile() {
        println!("{}", profile.table(None));
    }
}
