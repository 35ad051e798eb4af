//! A network that learns the exclusive or: a whole training loop in one graph.
//!
//!     cargo run --release --example xor

use brain_blitz::nn::{Activation, Layer, Linear, Module, Sequential};
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{Adam, Optimizer};

fn main() {
    let (losses, outputs) = train(500);
    for (step, loss) in losses.iter().enumerate().step_by(100) {
        println!("step {step:>4}  loss {loss:.6}");
    }
    println!(
        "step {:>4}  loss {:.6}",
        losses.len() - 1,
        losses[losses.len() - 1]
    );
    for (i, output) in outputs.iter().enumerate() {
        println!("{} xor {} = {output:.3}", i / 2, i % 2);
    }
}

/// Trains for some steps; gives the losses and what the network says of the four pairs in the end.
pub fn train(n_steps: usize) -> (Vec<f32>, Vec<f32>) {
    let mut cx = Graph::new();
    let x = cx
        .input((4, 2), DType::F32)
        .set([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]);
    let wanted = cx
        .input((4, 1), DType::F32)
        .set([[0.0], [1.0], [1.0], [0.0]]);

    let model = Sequential::new()
        .then(Linear::new(&mut cx, 2, 8, true))
        .then(Activation::Tanh)
        .then(Linear::new(&mut cx, 8, 1, true));
    model.init(1);
    let output = model.forward(x).sigmoid().retrieve();
    let loss = (output - wanted).square().mean(..).retrieve();

    // The backward pass and the update are more graph; an execution is one step.
    let params = model.parameters();
    let grads = cx.compile(Autograd::new(&params, loss), ());
    Adam::new(0.05).step(&mut cx, &params, &grads);
    cx.compile(<(Generic, LlvmCpu)>::default(), (loss, output));

    let mut losses = Vec::new();
    for _ in 0..n_steps {
        cx.execute();
        losses.push(loss.data()[0]);
    }
    (losses, output.data())
}
