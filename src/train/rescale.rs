//! Factors for the rows of rounded matrices, and for norms, that are learnt from the model as it was.
//!
//! ```text
//! model as it was(window)  → logits ┐
//!                                   ├ KL divergence → gradients → factors
//! rounded model(window)    → logits ┘   row r of W x: f[r] (W x)[r]; norm weight i: f[i] w[i]
//! ```
//! Rounding does not only add noise: errors of one layer change what the next ones are given, and what a row gives is too large
//! or too small for what comes after it. All codes stay as they are; what is learnt goes into the scales that blocks have, and into
//! weights of norms, so the file is as large and as fast as before. One reading of a short text is enough: there is a number
//! for every row, not for every weight. (Kim et al. 2023, "PEQA", fine-tune scales beside frozen codes; Li et al. 2023, "Norm
//! Tweaking", weights of norms.)
//!
//! Activations are as they are in `f32` meanwhile. Rejected: factors of least squares for what each row gives, without
//! gradients (perplexity 1.071 times that of the model as it was, where this has 1.057).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::distill::distillation_loss;
use super::optim::{AdamW, Optimizer};
use super::schedule::Schedule;
use crate::array::{Array, Data};
use crate::compilers::calibrate::Instead;
use crate::compilers::{Autograd, RowFactors};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::formats::gguf::Converted;
use crate::formats::{Gguf, ModelConfig, ModelFiles, Weights};
use crate::generation::compile::compile;
use crate::generation::evaluate::{Window, Windows};
use crate::generation::session::new_graph;
use crate::generation::{CacheType, Info, Options, Progress, Rows, Session};
use crate::graph::{Graph, GraphTensor, ValueId};
use crate::nn::attention::CacheConfig;

/// The largest learning rate, for models as far apart as [`FAR`]; it falls as the square root of the divergence, as rounding
/// errors do, for every step moves a factor by about the rate, needed or not.
const RATE: f64 = 3e-3;
/// Nats.
const FAR: f64 = 0.1;
/// The rate rises in one of so many steps.
const WARM_UP: u32 = 20;

/// A model that a rounded one is to be near.
pub struct Model<'a> {
    /// What it is.
    pub config: ModelConfig,
    /// Its parameters.
    pub weights: &'a dyn Weights,
}

/// What was learnt.
#[derive(Clone, Debug, Default)]
pub struct Learnt {
    /// By the names of tensors in the file: a factor for each row of a matrix, and for each number of a vector.
    pub factors: BTreeMap<String, Vec<f32>>,
    /// For each window the mean divergence of the rounded model's predictions before it was learnt from, in nats.
    pub divergences: Vec<f64>,
}

/// Lets a model and the file that was made of it read the windows of a text side by side, each once, and learns factors for the
/// tensors of the file, by gradients of the divergence of its predictions. `tensors` is what became of them; matrices that were not
/// rounded, the embedding and the output layer get none. `options` say where the models run; `quant`, `logits` and
/// `cache` are not looked at. All windows must be as long as the first; a shorter last one is left out. `loading` is told how
/// far loading is, `reading` how many windows of how many are read.
///
/// Both models are in memory, the rounded one in `f32`, and for each token of a window some rows of logits.
///
/// # Errors
/// If a model cannot be loaded, the file has another vocabulary, or the divergence is not finite.
pub fn learn_factors(
    original: Model<'_>,
    (file, tensors): (&Path, &[Converted]),
    windows: &Windows<'_>,
    options: &Options,
    loading: &mut dyn FnMut(Progress<'_>),
    reading: &mut dyn FnMut(usize, usize),
) -> Result<Learnt> {
    let length = windows.clone().next().map_or(0, |first| first.inputs.len());
    let is_whole = |window: &Window| window.inputs.len() == length;
    let n_windows = windows.clone().filter(is_whole).count();
    let options = Options {
        quant: None,
        logits: Rows::All,
        cache: CacheType::default(),
        ..options.clone()
    };
    let mut teacher = Session::new(original.config, original.weights, &options, loading)?;
    let mut student = Student::new((file, tensors), (length, n_windows), &options, loading)?;
    for (n, window) in windows.clone().filter(is_whole).enumerate() {
        reading(n, n_windows);
        teacher.reset();
        let answers = teacher.feed(&window.inputs)?;
        student.step(&window.inputs, answers)?;
    }
    reading(n_windows, n_windows);
    Ok(Learnt {
        factors: student.factors(),
        divergences: student.divergences,
    })
}

/// The rounded model, whose factors learn.
struct Student {
    cx: Graph,
    tokens: GraphTensor,
    answers: GraphTensor,
    loss: GraphTensor,
    /// What the rate is at each step, for models that are far apart.
    schedule: Schedule,
    rate: GraphTensor,
    /// Mean divergences before each step.
    divergences: Vec<f64>,
    /// By the file's names.
    factors: Vec<(String, GraphTensor)>,
}

impl Student {
    /// A model that is to read so many windows of so many tokens.
    fn new(
        (file, tensors): (&Path, &[Converted]),
        (length, n_windows): (usize, usize),
        options: &Options,
        loading: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Student> {
        let mut cx = new_graph(options)?;
        let files = ModelFiles::open(file)?;
        let cache = CacheConfig {
            capacity: length,
            ty: options.cache,
        };
        let model = files.config()?.build(&mut cx, cache, &|_| DType::F32);
        let tokens = cx.input(length, DType::I32);
        let logits = model.forward_sequences(tokens);
        let answers = cx.input(logits.dims(), DType::F32);
        let loss = distillation_loss(logits, answers, 1.0).retrieve();
        let weights = files.weights(DType::F32)?;
        for (name, parameter) in model.parameters().iter() {
            parameter.set_name(name);
            let numbers = weights.get(name)?.convert_to(DType::F32)?;
            parameter.try_set_shared(Arc::new(numbers))?;
        }
        let parameter = |name: &str| model.parameters().get(name);
        let factors = factors(&mut cx, &Gguf::open(file)?, tensors, &parameter)?;
        let learnt: Vec<GraphTensor> = factors.iter().map(|(_, tensor)| *tensor).collect();
        let grads = cx.compile(Autograd::new(&learnt, loss), ());
        let n_steps = u32::try_from(n_windows).unwrap_or(u32::MAX).max(1);
        let warm_up = (n_steps / WARM_UP).max(1);
        let falling = Schedule::cosine(RATE, 0.0, (n_steps - warm_up).max(1));
        let rate = cx.input((), DType::F32);
        let adam = AdamW {
            // Steps are few.
            beta2: 0.99,
            weight_decay: 0.0,
            ..AdamW::new(rate)
        };
        adam.step_when(&mut cx, loss.isfinite(), &learnt[..], &grads);
        compile(&mut cx, options, &mut Info::default(), loading)?;
        Ok(Student {
            cx,
            tokens,
            answers,
            loss,
            schedule: falling.after_warm_up(warm_up, 0.0),
            rate,
            divergences: Vec::new(),
            factors,
        })
    }

    /// Learns from what the model as it was says of each token. The first step only looks how far that is.
    fn step(&mut self, window: &[u32], answers: &[f32]) -> Result<()> {
        let rate = self.divergences.first().map_or(0.0, |first| {
            let rate = self.schedule.at(self.divergences.len() as u64);
            rate * (first / FAR).sqrt().min(1.0)
        });
        self.rate.try_set(rate as f32)?;
        let ids = window.iter().map(|&id| id as i32).collect();
        self.tokens
            .try_set(Array::new(vec![window.len()], Data::I32(ids)))?;
        self.answers.try_set(answers.to_vec())?;
        self.cx.try_execute()?;
        let loss = f64::from(self.loss.data()[0]);
        match loss.is_finite() {
            true => {
                self.divergences.push(loss);
                Ok(())
            }
            false => Err(Error::msg(
                "the divergence of predictions is not finite: nothing can be learnt from it",
            )),
        }
    }

    fn factors(&self) -> BTreeMap<String, Vec<f32>> {
        let all = self.factors.iter();
        all.map(|(name, tensor)| (name.clone(), tensor.array().into_f32()))
            .collect()
    }
}

/// Writes factors into the graph, all of them one.
fn factors(
    cx: &mut Graph,
    file: &Gguf,
    tensors: &[Converted],
    parameter: &dyn Fn(&str) -> Option<GraphTensor>,
) -> Result<Vec<(String, GraphTensor)>> {
    let rounded = tensors.iter().filter(|tensor| tensor.has_new_scales());
    let names: BTreeMap<&str, &str> = rounded
        .map(|tensor| (&*tensor.parameter, &*tensor.name))
        .collect();
    let mut factors = RowFactors::add_to(cx, names.keys().copied())?;
    for (name, _) in &mut factors {
        *name = names[&**name].to_owned();
    }
    let mut instead: Vec<(ValueId, ValueId)> = Vec::new();
    for tensor in tensors {
        let stored = file.get(&tensor.name)?;
        let Some(old) = parameter(&tensor.parameter).filter(|_| stored.shape.len() == 1) else {
            continue;
        };
        // The file's numbers may be those of the parameter and one.
        let (stored, now) = (stored.dequantize()?, old.array().into_f32());
        let n = now.len();
        let now = cx.input(n, DType::F32).set(now);
        let stored = cx.input(n, DType::F32).set(stored);
        let factor = cx.input(n, DType::F32).set(vec![1.0; n]);
        instead.push((old.value, (now + stored * (factor - 1.0)).value));
        factors.push((tensor.name.clone(), factor));
    }
    cx.try_compile(Instead(instead), ())?;
    Ok(factors)
}
