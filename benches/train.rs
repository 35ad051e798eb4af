//! Median time of a training step: forward, backward and update, which are one graph.
//!
//! `cargo bench --bench train [-- MODEL] [--threads N] [--steps N] [--profile]` prints how long a step took to compile
//! and milliseconds a step, for perceptrons, a small convolutional network and a small Gemma 2, on one and two threads;
//! `benches/peers/train.py` does the same in PyTorch. `--profile` also prints the steps of [`PROFILED`]
//! executions with the sums of their times. Compiled code comes from the cache if it is there: with `BB_CACHE=off` all of it is made.

use std::time::{Duration, Instant};

use brain_blitz::formats::Gemma2Config;
use brain_blitz::hl_ops::{Conv, CrossEntropy, Padding, Pool};
use brain_blitz::nn::models::gemma2::Gemma2;
use brain_blitz::nn::models::{LanguageModel, LayerType};
use brain_blitz::nn::{
    Activation, Conv2d, Init, Layer, Linear, Module, Parameters, Sequential, Visitor,
};
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{Adam, AdamW, Optimizer, Sgd, States, clip_grad_norm};

/// How many executions `--profile` adds up.
const PROFILED: usize = 20;
/// Sequences in a batch of text, and tokens in a sequence.
const TEXT: [usize; 2] = [20, 256];
/// Entries of the vocabulary.
const VOCAB: usize = 2048;

/// What is trained: parameters and a loss, and how the parameters follow from the gradients.
struct Model {
    name: &'static str,
    record: fn(&mut Graph) -> (Parameters, GraphTensor),
    update: fn(&mut Graph, &Parameters, &[GraphTensor]) -> States,
}

const MODELS: &[Model] = &[
    Model {
        name: "mlp 784-16-10 sgd",
        record: |cx| perceptron(cx, &[784, 16, 10]),
        update: |cx, params, grads| Sgd::new(0.01).step(cx, params, grads),
    },
    Model {
        name: "mlp 784-512-512-10 adam",
        record: |cx| perceptron(cx, &[784, 512, 512, 10]),
        update: |cx, params, grads| Adam::new(1e-3).step(cx, params, grads),
    },
    Model {
        name: "lenet sgd momentum",
        record: lenet,
        update: |cx, params, grads| {
            let sgd = Sgd {
                momentum: 0.9,
                ..Sgd::new(0.01)
            };
            sgd.step(cx, params, grads)
        },
    },
    Model {
        name: "gemma2 adamw",
        record: gemma2,
        update: |cx, params, grads| {
            let (grads, _) = clip_grad_norm(grads, 1.0);
            AdamW::new(1e-3).step(cx, params, &grads)
        },
    },
];

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut name, mut threads, mut n_steps, mut profile) = (String::new(), None, None, false);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<usize>().ok());
        match arg.as_str() {
            "--threads" => threads = number(),
            "--steps" => n_steps = number(),
            "--profile" => profile = true,
            _ => name = arg,
        }
    }
    for model in MODELS.iter().filter(|model| model.name.contains(&name)) {
        for n in threads.map_or(vec![1, 2], |n| vec![n]) {
            let (mut cx, loss, compiling) = recorded(model);
            cx.set_threads(n);
            let (ms, steps) = (median(&mut cx, n_steps), cx.stats().steps);
            let (loss, compiling) = (loss.data()[0], compiling.as_secs_f64());
            println!(
                "{:<24} {n} threads {ms:10.3} ms  {steps} kernels, compiled in {compiling:.2} s, loss {loss:.4}",
                model.name
            );
            if profile {
                cx.set_profiling(true);
                (0..PROFILED).for_each(|_| cx.execute());
                let profile = cx.profile().expect("it was switched on");
                println!("{}", profile.table(None));
            }
        }
    }
}

/// A compiled step, with its data, its loss, and how long compiling took, gradients included.
fn recorded(model: &Model) -> (Graph, GraphTensor, Duration) {
    let mut cx = Graph::new();
    let (params, loss) = (model.record)(&mut cx);
    let loss = loss.retrieve();
    let start = Instant::now();
    let grads = cx.compile(Autograd::new(&params, loss), ());
    (model.update)(&mut cx, &params, &grads);
    cx.compile(<(Generic, LlvmCpu)>::default(), loss);
    (cx, loss, start.elapsed())
}

/// Noise.
fn noise(cx: &mut Graph, dims: &[usize]) -> GraphTensor {
    let exprs: Vec<Expr> = dims.iter().map(|&dim| Expr::from(dim)).collect();
    cx.input(exprs, DType::F32)
        .set(Init::Normal(0.0, 1.0).numbers(dims, 1, 0))
}

/// Numbers below `end`.
fn labels(cx: &mut Graph, dims: &[usize], end: usize) -> GraphTensor {
    let count = dims.iter().product::<usize>();
    let numbers: Vec<i32> = (0..count).map(|i| (i * 7 % end) as i32).collect();
    let exprs: Vec<Expr> = dims.iter().map(|&dim| Expr::from(dim)).collect();
    cx.input(exprs, DType::I32).set(numbers)
}

fn perceptron(cx: &mut Graph, sizes: &[usize]) -> (Parameters, GraphTensor) {
    const BATCH: usize = 256;
    let images = noise(cx, &[BATCH, sizes[0]]);
    let labels = labels(cx, &[BATCH], 10);
    let mut network = Sequential::new();
    for (i, ends) in sizes.windows(2).enumerate() {
        if i > 0 {
            network = network.then(Activation::Relu);
        }
        network = network.then(Linear::new(cx, ends[0], ends[1], true));
    }
    network.init(2);
    let chosen = network.forward(images).log_softmax(1) * labels.one_hot(10, DType::F32);
    let loss = chosen.sum(..) * (-1.0 / BATCH as f64);
    (network.parameters(), loss)
}

/// Two convolutions, each with a pool, and three linear layers.
struct LeNet {
    convs: [Conv2d; 2],
    linears: [Linear; 3],
}

impl LeNet {
    fn new(cx: &mut Graph) -> LeNet {
        let same = Conv {
            padding: Padding::Same,
            ..Conv::default()
        };
        LeNet {
            convs: [
                Conv2d::new(cx, 1, 6, 5, same),
                Conv2d::new(cx, 6, 16, 5, Conv::default()),
            ],
            linears: [(400, 120), (120, 84), (84, 10)].map(|(a, b)| Linear::new(cx, a, b, true)),
        }
    }

    /// `[n, 1, 28, 28]` images to `[n, 10]` scores.
    fn forward(&self, images: GraphTensor) -> GraphTensor {
        let ([conv1, conv2], [fc1, fc2, fc3]) = (&self.convs, &self.linears);
        let halved = Pool::new([2, 2]);
        let x = conv1.forward(images).relu().max_pool(&halved); // [n, 6, 14, 14]
        let x = conv2.forward(x).relu().max_pool(&halved); // [n, 16, 5, 5]
        let x = fc1.forward(x.flatten(1, 3)).relu();
        fc3.forward(fc2.forward(x).relu())
    }
}

impl Module for LeNet {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("conv1", &self.convs[0]);
        visitor.module("conv2", &self.convs[1]);
        visitor.module("fc1", &self.linears[0]);
        visitor.module("fc2", &self.linears[1]);
        visitor.module("fc3", &self.linears[2]);
    }
}

fn lenet(cx: &mut Graph) -> (Parameters, GraphTensor) {
    const BATCH: usize = 64;
    let images = noise(cx, &[BATCH, 1, 28, 28]);
    let labels = labels(cx, &[BATCH], 10);
    let network = LeNet::new(cx);
    network.init(2);
    let scores = network.forward(images);
    let loss = scores.cross_entropy(labels, &CrossEntropy::default());
    (network.parameters(), loss)
}

/// The shape of the model in `models/`.
fn gemma2(cx: &mut Graph) -> (Parameters, GraphTensor) {
    let config = Gemma2Config {
        vocab_size: VOCAB,
        hidden_size: 192,
        intermediate_size: 512,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 48,
        hidden_activation: Activation::GeluTanh,
        max_position_embeddings: 1024,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        attn_logit_softcapping: Some(50.0),
        final_logit_softcapping: Some(30.0),
        query_pre_attn_scalar: 40.0,
        sliding_window: 64,
        layer_types: [LayerType::Sliding, LayerType::Full].repeat(3),
        bos_token_id: None,
        eos_token_ids: vec![],
        pad_token_id: None,
        dtype: None,
    };
    let [tokens, targets] = [0, 1].map(|_| labels(cx, &TEXT, VOCAB));
    let model = Gemma2::new(cx, &config, TEXT[1], &|_| DType::F32);
    let params = model.parameters();
    for (stream, (name, tensor)) in params.iter().enumerate() {
        let size = |dim: &Expr| dim.as_usize().expect("all sizes are known");
        let dims: Vec<usize> = tensor.dims().iter().map(size).collect();
        let rule = match name.contains("norm") {
            true => Init::ZEROS,
            false => Init::Normal(0.0, 0.02),
        };
        tensor.set(rule.numbers(&dims, 2, stream as u64));
    }
    let log_probabilities = model.forward_sequences(tokens).log_softmax(-1);
    let loss = -log_probabilities.gather(-1, targets.unsqueeze(-1)).mean(..);
    (params, loss)
}

/// Milliseconds of a step, after some that are not counted; of about as many steps as two seconds have.
fn median(cx: &mut Graph, n_steps: Option<usize>) -> f64 {
    let mut time = || {
        let start = Instant::now();
        cx.execute();
        start.elapsed().as_secs_f64() * 1e3
    };
    let warm = (0..5).map(|_| time()).fold(f64::INFINITY, f64::min);
    let n_steps = n_steps.unwrap_or(((2e3 / warm) as usize).clamp(5, 2000));
    let mut times: Vec<f64> = (0..n_steps.max(1)).map(|_| time()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
