//! A network of few bits that learns what another one answers, in stages.
//!
//! ```text
//! teacher(batch) → logits            student(batch) → logits, rounded as the stage says
//!             └──────── KL divergence at a temperature ───────┘ → gradients → latent weights
//! ```
//! [`distill`] records the student once for each stage, writes the stage's rounding into the graph
//! ([`Binarize::round_for_training`]) and goes on with the weights of the stage before: 8 bits first, then signs, then
//! signs of activations, so that each finds weights that are near (Liu et al. 2022, "BiT"). Within a stage the rate falls
//! along a cosine from the first step; gradients are clipped to norm 1; nothing decays, for the size of latent weights says
//! how sure they are of their sign.
//!
//! The teacher is a function of the batch, so it may be any model. What it deliberately does not do: hidden states on its
//! own ([`hidden_loss`] is for those who record them), averages of weights, restarts from a checkpoint.

use crate::array::Array;
use crate::compilers::binarize::TrainedWeights;
use crate::compilers::{Autograd, Binarize, Generic, LlvmCpu};
use crate::error::Result;
use crate::graph::{Graph, GraphTensor};
use crate::nn::Parameters;
use crate::train::checkpoint::{Arrays, parameter_arrays, set_parameters};
use crate::train::optim::{AdamW, Optimizer, clip_grad_norm};
use crate::train::schedule::Schedule;

/// The Kullback-Leibler divergence of a student's distribution from its teacher's, both softened by a temperature, times
/// its square (Hinton et al. 2015, section 2.1): `[.., classes]` logits to one number, the mean over rows. Soft-caps of
/// logits come before.
///
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::distill::distillation_loss;
/// let mut cx = Graph::new();
/// let student = cx.input((1, 2), DType::F32).set([[0.0, 0.0]]);
/// let teacher = cx.input((1, 2), DType::F32).set([[3f32.ln(), 0.0]]); // 3/4 and 1/4
/// let loss = distillation_loss(student, teacher, 1.0).retrieve();
/// cx.execute();
/// let expected = 0.75 * 1.5f32.ln() + 0.25 * 0.5f32.ln();
/// assert!((loss.data()[0] - expected).abs() < 1e-6);
/// ```
///
/// # Panics
/// If shapes differ.
#[track_caller]
pub fn distillation_loss(
    student: GraphTensor,
    teacher: GraphTensor,
    temperature: f64,
) -> GraphTensor {
    let log = |logits: GraphTensor| (logits * temperature.recip()).log_softmax(-1);
    let (student, teacher) = (log(student), log(teacher.detach()));
    let rows = (teacher.exp() * (teacher - student)).sum(-1);
    rows.mean(..) * (temperature * temperature)
}

/// The mean squared distance of rows `[.., width]`, each scaled to length 1 (Xu et al. 2024, "OneBit", section 3.4).
///
/// # Panics
/// If shapes differ.
#[track_caller]
pub fn hidden_loss(student: GraphTensor, teacher: GraphTensor) -> GraphTensor {
    let unit = |x: GraphTensor| {
        let size = (x.square().sum(-1) + 1e-12).rsqrt();
        x * size.unsqueeze(-1)
    };
    let apart = unit(student) - unit(teacher.detach());
    apart.square().sum(-1).mean(..)
}

/// A student, recorded.
pub struct Student {
    /// What is trained, with the names of the weights it starts with.
    pub params: Parameters,
    /// What a batch is set to, in its order.
    pub inputs: Vec<GraphTensor>,
    /// `[.., classes]`.
    pub logits: GraphTensor,
}

/// A part of the training.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Its name in reports.
    pub name: String,
    /// Which layers are rounded, and what their activations become.
    pub layers: Binarize,
    /// What their weights become.
    pub weights: TrainedWeights,
    /// Steps of the optimizer.
    pub steps: u32,
    /// The learning rate at first.
    pub rate: f64,
}

/// What [`distill`] tells of a step.
pub struct Progress<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// Steps of the stage that are done.
    pub done: u32,
    /// The divergence from the teacher before the last one.
    pub loss: f64,
}

/// Trains a student, stage after stage; gives its weights.
///
/// `record` makes the student's graph, plain; `batch` gives what its inputs are set to, and the teacher's logits for it.
///
/// # Errors
/// If a weight is missing in `start`, a batch does not fit, or a layer cannot be rounded as a stage says.
pub fn distill(
    record: &mut dyn FnMut(&mut Graph) -> Student,
    batch: &mut dyn FnMut() -> Result<(Vec<Array>, Array)>,
    start: &Arrays,
    stages: &[Stage],
    temperature: f64,
    on_step: &mut dyn FnMut(&Progress<'_>),
) -> Result<Arrays> {
    let mut weights = start.clone();
    for stage in stages {
        let mut cx = Graph::new();
        let student = record(&mut cx);
        let Student {
            params,
            inputs,
            logits,
        } = &student;
        set_parameters(params, &weights)?;
        let answers = cx.input(logits.dims(), logits.dtype());
        stage
            .layers
            .round_for_training(&mut cx, params, stage.weights)?;
        let loss = distillation_loss(*logits, answers, temperature).retrieve();
        let grads = cx.compile(Autograd::new(params, loss), ());
        let (grads, _) = clip_grad_norm(&grads, 1.0);
        let adam = AdamW {
            beta2: 0.98,
            weight_decay: 0.0,
            ..AdamW::new(Schedule::cosine(stage.rate, 0.0, stage.steps))
        };
        adam.step_when(&mut cx, loss.isfinite(), params, &grads);
        cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?;
        for done in 1..=stage.steps {
            let (fields, teacher) = batch()?;
            for (input, field) in inputs.iter().zip(fields) {
                input.try_set(field)?;
            }
            answers.try_set(teacher)?;
            cx.try_execute()?;
            let loss = f64::from(loss.data()[0]);
            on_step(&Progress { stage, done, loss });
        }
        weights = parameter_arrays(params)?;
    }
    Ok(weights)
}
