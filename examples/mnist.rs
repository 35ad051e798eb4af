//! Handwritten digits: a perceptron of 12,730 parameters, trained by plain gradient descent.
//!
//!     cargo run --release --example mnist -- [--data DIR] [--epochs N] [--seeds N] [--threads N]
//!
//! Prints loss and accuracy after each epoch (their means, with several seeds) and the time of a step.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use brain_blitz::array::Array;
use brain_blitz::nn::{Activation, Init, Layer, Linear, Module, Sequential};
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{parameter_arrays, set_parameters};
use brain_blitz::train::data::loader::Epoch;
use brain_blitz::train::data::mnist::{Kind, Mnist, Split};
use brain_blitz::train::data::{Batch, DataLoader, Dataset};
use brain_blitz::train::optim::{Optimizer, Sgd};
use clap::Parser;

const BATCH: usize = 256;
const TEST_BATCH: usize = 1000;
const SIZES: [usize; 3] = [784, 16, 10];

/// Trains a perceptron on MNIST.
#[derive(Parser)]
struct Options {
    /// The folder with the four files of MNIST; without it they are looked for in BB_DATA, then fetched
    #[arg(long)]
    data: Option<PathBuf>,
    /// How often all images are seen
    #[arg(long, default_value_t = 10)]
    epochs: u64,
    /// Trainings whose means are printed
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Threads that may work; all cores by default
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let (mean, deviation) = Kind::Digits.statistics();
    let open = |split| {
        let images = Mnist::open(Kind::Digits, split, options.data.as_deref())?;
        Ok(images.normalize(mean, deviation).with_dims(&[SIZES[0]]))
    };
    let (train, test) = (open(Split::Train)?, open(Split::Test)?);
    let mut table = vec![(0.0, 0.0); options.epochs as usize];
    let mut times = Vec::new();
    for seed in 0..options.seeds {
        let mut trainer = Trainer::new(seed, options.threads);
        let batches = DataLoader::new(train.clone(), BATCH).shuffle(seed);
        let batches = batches.drop_last(true).prefetch(2);
        for epoch in 0..options.epochs {
            let loss = trainer.epoch(batches.epoch(epoch), &mut times)?;
            let row = &mut table[epoch as usize];
            row.0 += loss / options.seeds as f64;
            row.1 += trainer.accuracy(&test)? / options.seeds as f64;
        }
    }
    println!("epoch    loss  accuracy");
    for (epoch, (loss, accuracy)) in table.iter().enumerate() {
        println!("{:>5}  {loss:>6.3}  {accuracy:>7.2} %", epoch + 1);
    }
    times.sort();
    if let Some(median) = times.get(times.len() / 2) {
        println!("{:.3} ms per step (median)", median.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// The network from `[n, 784]` images to `[n, 10]` logits.
fn network(cx: &mut Graph) -> Sequential {
    Sequential::new()
        .then(Linear::new(cx, SIZES[0], SIZES[1], true))
        .then(Activation::Relu)
        .then(Linear::new(cx, SIZES[1], SIZES[2], true))
}

/// Two graphs: one whose execution is a training step, one that counts right answers.
struct Trainer {
    step: Graph,
    model: Sequential,
    images: GraphTensor,
    labels: GraphTensor,
    loss: GraphTensor,
    test: Graph,
    test_model: Sequential,
    test_images: GraphTensor,
    test_labels: GraphTensor,
    n_right: GraphTensor,
}

impl Trainer {
    fn new(seed: u64, threads: Option<usize>) -> Trainer {
        let (mut step, mut test) = (Graph::new(), Graph::new());
        let images = step.input((BATCH, SIZES[0]), DType::F32);
        let labels = step.input(BATCH, DType::I32);
        let model = network(&mut step);
        let params = model.parameters();
        // PyTorch draws the first biases as it does the weights.
        for (stream, (_, param)) in params.iter().enumerate() {
            let bound = (SIZES[stream / 2] as f32).recip().sqrt();
            let dims: Vec<usize> = param.dims().iter().filter_map(|d| d.as_usize()).collect();
            param.set(Init::Uniform(-bound, bound).numbers(&dims, seed, stream as u64));
        }
        let logits = model.forward(images);
        let chosen = logits.log_softmax(1) * labels.one_hot(SIZES[2], DType::F32);
        let loss = (chosen.sum(..) * (-1.0 / BATCH as f64)).retrieve();
        let grads = step.compile(Autograd::new(&params, loss), ());
        Sgd::new(0.01).step(&mut step, &params, &grads);
        step.compile(<(Generic, LlvmCpu)>::default(), loss);

        let test_images = test.input((TEST_BATCH, SIZES[0]), DType::F32);
        let test_labels = test.input(TEST_BATCH, DType::I32);
        let test_model = network(&mut test);
        let logits = test_model.forward(test_images);
        let is_right = logits.argmax(1).eq(test_labels).cast(DType::F32);
        let n_right = is_right.sum(..).retrieve();
        test.compile(<(Generic, LlvmCpu)>::default(), n_right);
        if let Some(threads) = threads {
            step.set_threads(threads);
            test.set_threads(threads);
        }
        Trainer {
            step,
            model,
            images,
            labels,
            loss,
            test,
            test_model,
            test_images,
            test_labels,
            n_right,
        }
    }

    /// Trains on these batches; gives the mean loss, and adds the time of each step.
    fn epoch(&mut self, batches: Epoch<Mnist>, times: &mut Vec<Duration>) -> Result<f64> {
        let (mut sum, mut n) = (0.0, 0.0);
        for batch in batches {
            let [images, labels] = fields(batch?);
            let start = Instant::now();
            self.images.set(images);
            self.labels.set(labels);
            self.step.execute();
            times.push(start.elapsed());
            sum += f64::from(self.loss.data()[0]);
            n += 1.0;
        }
        Ok(sum / n)
    }

    /// Percent of right answers on images that were not trained on.
    fn accuracy(&mut self, images: &Mnist) -> Result<f64> {
        let weights = parameter_arrays(&self.model.parameters())?;
        set_parameters(&self.test_model.parameters(), &weights)?;
        let mut n_right = 0.0;
        for batch in DataLoader::new(images.clone(), TEST_BATCH).epoch(0) {
            let [images, labels] = fields(batch?);
            self.test_images.set(images);
            self.test_labels.set(labels);
            self.test.execute();
            n_right += f64::from(self.n_right.data()[0]);
        }
        Ok(100.0 * n_right / images.len() as f64)
    }
}

/// Images and labels.
fn fields(batch: Batch) -> [Array; 2] {
    batch.arrays.try_into().expect("a sample has two fields")
}
