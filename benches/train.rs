//! Median time of a training step: forward, backward and update, which are one graph.
//!
//! `cargo bench --bench train [-- MODEL] [--threads N] [--steps N] [--profile]` prints milliseconds for perceptrons on
//! one and two threads; `benches/peers/train.py` does the same in PyTorch. `--profile` also prints the steps of one
//! execution with their times.

use std::time::Instant;

use brain_blitz::nn::{Activation, Init, Layer, Linear, Module, Parameters, Sequential};
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{Adam, Optimizer, Sgd, States};

/// Images in a batch.
const BATCH: usize = 256;

/// What is trained.
struct Model {
    name: &'static str,
    sizes: &'static [usize],
    update: fn(&mut Graph, &Parameters, &[GraphTensor]) -> States,
}

const MODELS: &[Model] = &[
    Model {
        name: "mlp 784-16-10 sgd",
        sizes: &[784, 16, 10],
        update: |cx, params, grads| Sgd::new(0.01).step(cx, params, grads),
    },
    Model {
        name: "mlp 784-512-512-10 adam",
        sizes: &[784, 512, 512, 10],
        update: |cx, params, grads| Adam::new(1e-3).step(cx, params, grads),
    },
];

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut name, mut threads, mut n_steps, mut profile) = (String::new(), None, 200, false);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<usize>().ok());
        match arg.as_str() {
            "--threads" => threads = number(),
            "--steps" => n_steps = number().unwrap_or(n_steps).max(1),
            "--profile" => profile = true,
            _ => name = arg,
        }
    }
    for model in MODELS.iter().filter(|model| model.name.contains(&name)) {
        for n in threads.map_or(vec![1, 2], |n| vec![n]) {
            let (mut cx, loss) = recorded(model);
            cx.set_threads(n);
            let (ms, steps) = (median(&mut cx, n_steps), cx.stats().steps);
            let loss = loss.data()[0];
            println!(
                "{:<28} {n} threads  {ms:8.3} ms  {steps} kernels, loss {loss:.4}",
                model.name
            );
            if profile {
                cx.set_profiling(true);
                cx.execute();
                let profile = cx.profile().expect("it was switched on");
                println!("{}", profile.table(None));
            }
        }
    }
}

/// A compiled step, with its data, and its loss.
fn recorded(model: &Model) -> (Graph, GraphTensor) {
    let mut cx = Graph::new();
    let n_in = model.sizes[0];
    let images = cx.input((BATCH, n_in), DType::F32);
    images.set(Init::Normal(0.0, 1.0).numbers(&[BATCH, n_in], 1, 0));
    let labels: Vec<i32> = (0..BATCH as i32).map(|i| i * 7 % 10).collect();
    let labels = cx.input(BATCH, DType::I32).set(labels);
    let mut network = Sequential::new();
    for (i, ends) in model.sizes.windows(2).enumerate() {
        if i > 0 {
            network = network.then(Activation::Relu);
        }
        network = network.then(Linear::new(&mut cx, ends[0], ends[1], true));
    }
    network.init(2);
    let params = network.parameters();
    let logits = network.forward(images);
    let chosen = logits.log_softmax(1) * labels.one_hot(10, DType::F32);
    let loss = (chosen.sum(..) * (-1.0 / BATCH as f64)).retrieve();
    let grads = cx.compile(Autograd::new(&params, loss), ());
    (model.update)(&mut cx, &params, &grads);
    cx.compile(<(Generic, LlvmCpu)>::default(), loss);
    (cx, loss)
}

/// Milliseconds of a step, after some that are not counted.
fn median(cx: &mut Graph, n_steps: usize) -> f64 {
    (0..5).for_each(|_| cx.execute());
    let mut times: Vec<f64> = (0..n_steps)
        .map(|_| {
            let start = Instant::now();
            cx.execute();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
