//! The teacher and its students: the same model, recorded for whole sequences.

use std::path::Path;

use brain_blitz::array::{Array, Data};
use brain_blitz::formats::safetensors::Checkpoint;
use brain_blitz::formats::{Gemma2Config, Tokenizer};
use brain_blitz::nn::Module;
use brain_blitz::nn::models::LanguageModel;
use brain_blitz::nn::models::gemma2::Gemma2;
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{Arrays, set_parameters};
use brain_blitz::train::data::{Batch, DataLoader, Dataset, Position, TextDataset};
use brain_blitz::train::distill::{Lesson, Student};

use crate::Args;

/// A trained model.
pub struct Teacher {
    pub config: Gemma2Config,
    pub weights: Arrays,
    bos: i32,
}

impl Teacher {
    pub fn open(folder: &Path, tokenizer: &Tokenizer) -> Result<Teacher> {
        Ok(Teacher {
            config: Gemma2Config::open(folder)?,
            weights: weights(folder)?,
            bos: tokenizer.bos().map_or(0, |bos| bos as i32),
        })
    }

    /// The model, reading so many sequences at once; hidden states are those after each layer.
    pub fn record(&self, cx: &mut Graph, args: &Args, batch: usize) -> Student {
        if let Some(n) = args.threads {
            cx.set_threads(n);
        }
        let model = Gemma2::new(cx, &self.config, args.length, &|_| DType::F32);
        let tokens = cx.input((batch, args.length), DType::I32);
        let states = model.hidden_states(tokens, None);
        let last = *states.last().expect("the embedding's is there");
        let hidden = match args.hidden > 0.0 {
            true => states[1..].to_vec(),
            false => vec![],
        };
        Student {
            params: model.parameters(),
            inputs: vec![tokens],
            logits: model.logits(last),
            hidden,
        }
    }

    /// Tokens of a batch of windows, each of which starts with `bos`.
    fn tokens(&self, batch: &Array) -> Array {
        let mut tokens = batch.to_i32();
        let length = batch.dims()[1];
        tokens.chunks_mut(length).for_each(|row| row[0] = self.bos);
        Array::new(batch.dims().to_vec(), Data::I32(tokens))
    }

    /// Of a text, by a model with these weights, stored as `layers` says or as they are.
    pub fn perplexity(
        &self,
        args: &Args,
        text: &[u32],
        weights: &Arrays,
        layers: Option<Binarize>,
    ) -> Result<f64> {
        let mut data = text.to_vec();
        if args.windows > 0 {
            data.truncate(args.windows * args.length + 1);
        }
        let data = TextDataset::new(data, args.length)?;
        let batch = 8.min(data.len());
        let mut cx = Graph::new();
        let model = self.record(&mut cx, args, batch);
        let targets = cx.input((batch, args.length), DType::I32);
        let rows = model.logits.log_softmax(-1);
        let chosen = rows.gather(-1, targets.unsqueeze(-1));
        let loss = (-chosen.mean(..)).retrieve();
        set_parameters(&model.params, weights)?;
        match layers {
            Some(layers) => {
                let compiler = (Generic, layers, LlvmCpu::default());
                let report = cx.try_compile(compiler, ())?;
                let bytes: usize = report.signed.iter().map(|layer| layer.bytes).sum();
                eprintln!("{} layers take {bytes} bytes", report.signed.len());
            }
            None => {
                cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?;
            }
        }
        let batches = DataLoader::new(data, batch).drop_last(true);
        let mut total = 0.0;
        for batch in batches.epoch(0) {
            let batch = batch?;
            model.inputs[0].try_set(self.tokens(&batch.arrays[0]))?;
            targets.try_set(batch.arrays[1].clone())?;
            cx.try_execute()?;
            total += f64::from(loss.data()[0]);
        }
        Ok((total / batches.n_batches() as f64).exp())
    }
}

type Batches = Box<dyn Iterator<Item = Result<Batch>>>;

/// The teacher at work: what it says of the text's windows, in a random order that depends on the seed.
pub struct Lessons<'a> {
    teacher: &'a Teacher,
    cx: Graph,
    model: Student,
    loader: DataLoader<TextDataset>,
    /// The next ones, and the step of the first of them.
    batches: Option<(u64, Batches)>,
}

impl<'a> Lessons<'a> {
    pub fn new(teacher: &'a Teacher, args: &Args, text: Vec<u32>) -> Result<Lessons<'a>> {
        let mut cx = Graph::new();
        let model = teacher.record(&mut cx, args, args.batch);
        for tensor in [model.logits].iter().chain(&model.hidden) {
            tensor.retrieve();
        }
        set_parameters(&model.params, &teacher.weights)?;
        cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?;
        let windows = args.batch * args.steps as usize;
        let data = TextDataset::new(text, args.length)?.random(windows, args.seed);
        Ok(Lessons {
            teacher,
            cx,
            model,
            loader: DataLoader::new(data, args.batch).prefetch(2),
            batches: None,
        })
    }

    /// The lesson of a step, wherever a run begins.
    pub fn get(&mut self, step: u64) -> Result<Lesson> {
        let at = |batch: u64| Position {
            epoch: 0,
            batch: batch as usize,
        };
        if self.batches.as_ref().is_none_or(|(next, _)| *next != step) {
            self.batches = Some((step, Box::new(self.loader.resume(at(step)))));
        }
        let (next, batches) = self.batches.as_mut().expect("it was made");
        let batch = batches.next().expect("there is one for each step")?;
        *next += 1;
        let tokens = self.teacher.tokens(&batch.arrays[0]);
        self.model.inputs[0].try_set(tokens.clone())?;
        self.cx.try_execute()?;
        Ok(Lesson {
            inputs: vec![tokens],
            logits: self.model.logits.array(),
            hidden: self
                .model
                .hidden
                .iter()
                .map(|state| state.array())
                .collect(),
        })
    }
}

/// All tensors of a model, in `F32`.
fn weights(folder: &Path) -> Result<Arrays> {
    let file = Checkpoint::open(folder)?;
    let read = |name: &str| {
        let tensor = file.get(name)?;
        let bytes = tensor.convert_to(DType::F32)?;
        let numbers = Array::from_bytes(tensor.shape, DType::F32, &bytes);
        Ok((name.to_string(), numbers))
    };
    file.names().map(read).collect()
}
