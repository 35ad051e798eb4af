//! A network of few bits that learns what another one answers, in stages.
//!
//! ```text
//! teacher(batch) → logits, hidden states      student(batch) → logits, hidden states, rounded as the stage says
//!             │       └──────── distance of directions ────────┘ × weight ─┐
//!             └──────── KL divergence at a temperature ────────┘ ───────── + → gradients → latent weights
//! ```
//! [`Distill`] records the student once for each stage, writes the stage's rounding into the graph
//! ([`Binarize::round_for_training`]) and goes on with the weights of the stage before: 8 bits first, then signs, then
//! signs of activations, so that each finds weights that are near (Liu et al. 2022, "BiT"); [`stages`] lists them. Within a
//! stage the rate falls along a cosine from the first step; gradients are clipped to norm 1; nothing decays, for the size of
//! latent weights says how sure they are of their sign.
//!
//! Invariant: a run that was stopped at any moment and is started again with the same arguments goes on from its last
//! checkpoint and ends with the same bits, if a step's lesson depends on the step's number alone.
//!
//! The teacher is a function of the batch, so it may be any model. What it deliberately does not do: averages of weights,
//! attention maps, labels.

mod losses;
mod recipe;

use serde::{Deserialize, Serialize};

use crate::array::Array;
use crate::compilers::binarize::TrainedWeights;
use crate::compilers::{Autograd, Binarize, Generic, LlvmCpu};
use crate::error::{Error, Result};
use crate::graph::{Graph, GraphTensor};
use crate::nn::Parameters;
use crate::train::checkpoint::{Arrays, Checkpoint, Store, parameter_arrays, set_parameters};
use crate::train::optim::{AdamW, Optimizer, States, clip_grad_norm};
use crate::train::schedule::Schedule;

pub use losses::{distillation_loss, hidden_loss};
pub use recipe::stages;

/// A student, recorded.
pub struct Student {
    /// What is trained, with the names of the weights it starts with.
    pub params: Parameters,
    /// What a batch is set to, in its order.
    pub inputs: Vec<GraphTensor>,
    /// `[.., classes]`.
    pub logits: GraphTensor,
    /// `[.., width]` each: what is compared with the teacher's, in its order. There may be none.
    pub hidden: Vec<GraphTensor>,
}

/// A batch with the teacher's answers.
pub struct Lesson {
    /// What the student's inputs are set to.
    pub inputs: Vec<Array>,
    /// The teacher's logits.
    pub logits: Array,
    /// The teacher's hidden states, as many as the student has.
    pub hidden: Vec<Array>,
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

/// What is told of a step.
pub struct Progress<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// Steps of the stage that are done.
    pub done: u32,
    /// Steps of all stages that are done.
    pub total: u64,
    /// The divergence from the teacher's answers before the last one.
    pub loss: f64,
    /// The mean distance from the teacher's hidden states, 0 where there are none.
    pub hidden: f64,
}

/// How a student is taught; see the [module](self).
#[derive(Clone, Debug)]
pub struct Distill {
    stages: Vec<Stage>,
    temperature: f64,
    hidden_weight: f64,
    checkpoints: Option<(Store, u32)>,
}

/// What a checkpoint says beside its arrays: where it is, and of which run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meta {
    stage: usize,
    done: u32,
    run: Run,
}

/// What must be the same for a run to go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    /// Name, layers, steps and rate of each stage.
    stages: Vec<(String, String, u32, f64)>,
    temperature: f64,
    hidden_weight: f64,
}

/// Where a run is.
struct Place {
    stage: usize,
    done: u32,
    weights: Arrays,
    /// The optimizer's, empty at the start of a stage.
    state: Arrays,
}

impl Distill {
    /// These stages, at temperature 1, without a loss on hidden states and without checkpoints.
    pub fn new(stages: impl IntoIterator<Item = Stage>) -> Distill {
        Distill {
            stages: stages.into_iter().collect(),
            temperature: 1.0,
            hidden_weight: 0.0,
            checkpoints: None,
        }
    }

    /// Softens both distributions.
    pub fn temperature(self, temperature: f64) -> Distill {
        Distill {
            temperature,
            ..self
        }
    }

    /// Adds the mean [`hidden_loss`] of the hidden states, times this.
    pub fn hidden_weight(self, hidden_weight: f64) -> Distill {
        Distill {
            hidden_weight,
            ..self
        }
    }

    /// Saves a checkpoint every so many steps and at the end of each stage, and goes on from the latest.
    ///
    /// # Panics
    /// If `every` is 0.
    #[track_caller]
    pub fn checkpoints(self, store: Store, every: u32) -> Distill {
        assert!(every > 0, "checkpoints are at least one step apart");
        Distill {
            checkpoints: Some((store, every)),
            ..self
        }
    }

    /// Steps of all stages.
    pub fn steps(&self) -> u64 {
        self.stages.iter().map(|stage| u64::from(stage.steps)).sum()
    }

    /// Trains a student, stage after stage; gives its weights.
    ///
    /// `record` makes the student's graph, plain; `lesson` gives the batch of a step, counted from 0 over all stages, with the
    /// teacher's answers. An error of `on_step` ends the run.
    ///
    /// ```
    /// use brain_blitz::array::{Array, Data};
    /// use brain_blitz::compilers::binarize::TrainedWeights;
    /// use brain_blitz::nn::{Linear, LowBit, Module};
    /// use brain_blitz::prelude::*;
    /// use brain_blitz::train::checkpoint::Arrays;
    /// use brain_blitz::train::distill::{Distill, Lesson, Stage, Student};
    ///
    /// let array = |dims: [usize; 2], x: &[f32]| Array::new(dims.to_vec(), Data::F32(x.to_vec()));
    /// let mut record = |cx: &mut Graph| {
    ///     let layer = Linear::new(cx, 2, 2, false);
    ///     let x = cx.input((1, 2), DType::F32);
    ///     Student { params: layer.parameters(), inputs: vec![x], logits: layer.forward(x), hidden: vec![] }
    /// };
    /// let mut lesson = |_| {
    ///     let (x, answer) = (array([1, 2], &[1.0, 0.5]), array([1, 2], &[2.0, -2.0]));
    ///     Ok(Lesson { inputs: vec![x], logits: answer, hidden: vec![] })
    /// };
    /// let start: Arrays = [("weight".into(), array([2, 2], &[0.1, 0.1, 0.2, -0.1]))].into();
    /// let stage = Stage {
    ///     name: "one bit".into(),
    ///     layers: Binarize::w1a8().with_ends(),
    ///     weights: TrainedWeights::Signs(LowBit::w1a8()),
    ///     steps: 30,
    ///     rate: 0.1,
    /// };
    /// let mut losses = vec![];
    /// let mut note = |step: &brain_blitz::train::distill::Progress<'_>| Ok(losses.push(step.loss));
    /// let weights = Distill::new([stage]).run(&mut record, &mut lesson, &start, &mut note)?;
    /// assert!(losses[29] < 0.5 * losses[0]);
    /// assert!(weights["weight"].to_f32()[2] < 0.0, "its sign has changed");
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    ///
    /// # Errors
    /// If a weight is missing in `start`, a lesson does not fit, a layer cannot be rounded as a stage says, or the
    /// checkpoints are those of a run with other stages.
    pub fn run(
        &self,
        record: &mut dyn FnMut(&mut Graph) -> Student,
        lesson: &mut dyn FnMut(u64) -> Result<Lesson>,
        start: &Arrays,
        on_step: &mut dyn FnMut(&Progress<'_>) -> Result<()>,
    ) -> Result<Arrays> {
        let mut place = self.place(start)?;
        while let Some(stage) = self.stages.get(place.stage) {
            let mut trainer = Trainer::new(self, stage, record, &place)?;
            let before = &self.stages[..place.stage];
            let before: u64 = before.iter().map(|stage| u64::from(stage.steps)).sum();
            for done in place.done + 1..=stage.steps {
                let total = before + u64::from(done);
                let (loss, hidden) = trainer.step(lesson(total - 1)?)?;
                if let Some((store, every)) = &self.checkpoints
                    && (done.is_multiple_of(*every) || done == stage.steps)
                {
                    store.save(&Checkpoint {
                        step: total,
                        weights: parameter_arrays(&trainer.params)?,
                        state: parameter_arrays(trainer.states.iter())?,
                        meta: self.meta(place.stage, done),
                    })?;
                }
                on_step(&Progress {
                    stage,
                    done,
                    total,
                    loss,
                    hidden,
                })?;
            }
            place = Place {
                stage: place.stage + 1,
                done: 0,
                weights: parameter_arrays(&trainer.params)?,
                state: Arrays::new(),
            };
        }
        Ok(place.weights)
    }

    fn meta(&self, stage: usize, done: u32) -> Meta {
        let facts = |stage: &Stage| {
            let layers = format!("{:?} {:?}", stage.layers, stage.weights);
            (stage.name.clone(), layers, stage.steps, stage.rate)
        };
        let run = Run {
            stages: self.stages.iter().map(facts).collect(),
            temperature: self.temperature,
            hidden_weight: self.hidden_weight,
        };
        Meta { stage, done, run }
    }

    /// The latest checkpoint's, or the start.
    fn place(&self, start: &Arrays) -> Result<Place> {
        let latest = match &self.checkpoints {
            Some((store, _)) => store.load_latest::<Meta>()?,
            None => None,
        };
        let Some(loaded) = latest else {
            return Ok(Place {
                stage: 0,
                done: 0,
                weights: start.clone(),
                state: Arrays::new(),
            });
        };
        let Checkpoint {
            weights,
            state,
            meta,
            ..
        } = loaded.checkpoint;
        let Meta { stage, done, run } = meta;
        if run != self.meta(stage, done).run {
            return Err(Error::msg(format!(
                "{} is of a run with other stages or losses ({run:?}); use those, or another folder",
                loaded.folder.display()
            )));
        }
        Ok(Place {
            stage,
            done,
            weights,
            state,
        })
    }
}

/// A stage's step as a graph.
struct Trainer {
    cx: Graph,
    params: Parameters,
    inputs: Vec<GraphTensor>,
    /// What the teacher says: logits, then hidden states.
    answers: Vec<GraphTensor>,
    loss: GraphTensor,
    hidden: Option<GraphTensor>,
    states: States,
}

impl Trainer {
    fn new(
        distill: &Distill,
        stage: &Stage,
        record: &mut dyn FnMut(&mut Graph) -> Student,
        place: &Place,
    ) -> Result<Trainer> {
        let mut cx = Graph::new();
        let student = record(&mut cx);
        let params = student.params;
        set_parameters(&params, &place.weights)?;
        let compared = [student.logits].into_iter().chain(student.hidden);
        let compared: Vec<GraphTensor> = compared.collect();
        let answer = |of: &GraphTensor| cx.input(of.dims(), of.dtype());
        let answers: Vec<GraphTensor> = compared.iter().map(answer).collect();
        let layers = &stage.layers;
        layers.round_for_training(&mut cx, &params, stage.weights)?;
        let loss = distillation_loss(compared[0], answers[0], distill.temperature).retrieve();
        let apart = compared.iter().zip(&answers).skip(1);
        let apart = apart.map(|(own, other)| hidden_loss(*own, *other));
        let sum = apart.reduce(|sum, one| sum + one);
        let hidden = sum.map(|sum| (sum * ((compared.len() - 1) as f64).recip()).retrieve());
        let both = match hidden {
            Some(hidden) => loss + hidden * distill.hidden_weight,
            None => loss,
        };
        let grads = cx.compile(Autograd::new(&params, both), ());
        let (grads, _) = clip_grad_norm(&grads, 1.0);
        let adam = AdamW {
            beta2: 0.98,
            weight_decay: 0.0,
            ..AdamW::new(Schedule::cosine(stage.rate, 0.0, stage.steps))
        };
        let states = adam.step_when(&mut cx, both.isfinite(), &params, &grads);
        if !place.state.is_empty() {
            set_parameters(states.iter(), &place.state)?;
        }
        cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?;
        Ok(Trainer {
            cx,
            params,
            inputs: student.inputs,
            answers,
            loss,
            hidden,
            states,
        })
    }

    /// The losses before it.
    fn step(&mut self, lesson: Lesson) -> Result<(f64, f64)> {
        let answers = [lesson.logits].into_iter().chain(lesson.hidden);
        let answers: Vec<Array> = answers.collect();
        let counts = (lesson.inputs.len(), answers.len());
        if counts != (self.inputs.len(), self.answers.len()) {
            return Err(Error::msg(format!(
                "a lesson has {} inputs and {} hidden states, the student {} and {}",
                counts.0,
                counts.1 - 1,
                self.inputs.len(),
                self.answers.len() - 1
            )));
        }
        let tensors = self.inputs.iter().chain(&self.answers);
        for (tensor, array) in tensors.zip(lesson.inputs.into_iter().chain(answers)) {
            tensor.try_set(array)?;
        }
        self.cx.try_execute()?;
        let number = |loss: GraphTensor| f64::from(loss.data()[0]);
        Ok((number(self.loss), self.hidden.map_or(0.0, number)))
    }
}
