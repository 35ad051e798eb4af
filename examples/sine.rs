//! A perceptron that fits a sine, with a warm-up, a cosine and clipped gradients.
//!
//!     cargo run --release --example sine

use brain_blitz::nn::{Activation, Layer, Linear, Module, Sequential};
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{AdamW, Optimizer, clip_grad_norm};
use brain_blitz::train::schedule::Schedule;

const POINTS: usize = 128;

fn main() {
    let fit = train(2000);
    println!("{:>6}  {:>9}  {:>9}", "step", "rate", "loss");
    for row in &fit.table {
        println!("{:>6}  {:>9.6}  {:>9.6}", row.0, row.1, row.2);
    }
    println!("\n{:>6}  {:>9}  {:>9}", "x", "sin x", "network");
    for i in (0..POINTS).step_by(POINTS / 8) {
        println!(
            "{:>6.2}  {:>9.4}  {:>9.4}",
            fit.x[i],
            fit.x[i].sin(),
            fit.y[i]
        );
    }
}

/// What came of a training.
pub struct Fit {
    /// Step, learning rate and loss, some of them.
    pub table: Vec<(usize, f64, f32)>,
    /// Where the network was trained.
    pub x: Vec<f32>,
    /// What it says there.
    pub y: Vec<f32>,
}

/// Trains for some steps.
pub fn train(n_steps: u32) -> Fit {
    let points: Vec<f32> = (0..POINTS)
        .map(|i| (i as f32 / (POINTS - 1) as f32 * 2.0 - 1.0) * std::f32::consts::PI)
        .collect();
    let mut cx = Graph::new();
    let x = cx.input((POINTS, 1), DType::F32).set(&points);
    let model = Sequential::new()
        .then(Linear::new(&mut cx, 1, 32, true))
        .then(Activation::Tanh)
        .then(Linear::new(&mut cx, 32, 32, true))
        .then(Activation::Tanh)
        .then(Linear::new(&mut cx, 32, 1, true));
    model.init(3);
    let y = model.forward(x).retrieve();
    let loss = (y - x.sin()).square().mean(..).retrieve();

    let params = model.parameters();
    let grads = cx.compile(Autograd::new(&params, loss), ());
    let (grads, _) = clip_grad_norm(&grads, 1.0);
    let schedule =
        Schedule::cosine(0.01, 1e-5, n_steps - n_steps / 20).after_warm_up(n_steps / 20, 0.1);
    let optimizer = AdamW {
        weight_decay: 1e-4,
        ..AdamW::new(schedule)
    };
    let states = optimizer.step(&mut cx, &params, &grads);
    let rate = states.rate().expect("every step has a rate").retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), (loss, y, rate));

    let mut table = Vec::new();
    for step in 0..n_steps as usize {
        cx.execute();
        if step.is_multiple_of(n_steps as usize / 10) || step + 1 == n_steps as usize {
            table.push((step, rate.array().to_f64()[0], loss.data()[0]));
        }
    }
    Fit {
        table,
        x: points,
        y: y.data(),
    }
}
