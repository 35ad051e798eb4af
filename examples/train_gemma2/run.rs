//! The training step as one graph, the loop around it, and validation.

use brain_blitz::array::Array;
use brain_blitz::formats::{Gemma2Config, Tokenizer};
use brain_blitz::nn::models::gemma2::Gemma2;
use brain_blitz::nn::models::{LanguageModel, LayerType};
use brain_blitz::nn::{Activation, Init, Module, Parameters};
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{self, Arrays, Checkpoint, Store};
use brain_blitz::train::data::{DataLoader, Dataset, Position, TextDataset};
use brain_blitz::train::metrics::{LossGuard, MetricsLog, RateMeter, TrainingBar};
use brain_blitz::train::optim::{AdamW, Muon, Optimizer, Split, States, clip_grad_norm};
use brain_blitz::train::schedule::Schedule;
use serde::{Deserialize, Serialize};

use crate::Args;
use crate::text::Texts;

/// The optimizer of the matrices between embedding and output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum Kind {
    Adamw,
    Muon,
}

/// What a checkpoint holds beside arrays. A run only goes on with the arguments that it was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meta {
    position: Position,
    run: Run,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    steps: u32,
    batch: usize,
    length: usize,
    rate: f64,
    optimizer: Kind,
    seed: u64,
}

/// A trained model.
pub struct Trained {
    pub config: Gemma2Config,
    pub weights: Arrays,
}

/// The sizes of the model that ships with brain-blitz.
fn config(tokenizer: &Tokenizer, length: usize) -> Gemma2Config {
    let kind = |layer: usize| match layer % 2 {
        0 => LayerType::Sliding,
        _ => LayerType::Full,
    };
    Gemma2Config {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 192,
        intermediate_size: 512,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 48,
        hidden_activation: Activation::GeluTanh,
        max_position_embeddings: length.max(1024),
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        attn_logit_softcapping: Some(50.0),
        final_logit_softcapping: Some(30.0),
        query_pre_attn_scalar: 40.0,
        sliding_window: 64,
        layer_types: (0..6).map(kind).collect(),
        bos_token_id: tokenizer.bos(),
        eos_token_ids: tokenizer.token_to_id("<eos>").into_iter().collect(),
        pad_token_id: tokenizer.token_to_id("<pad>"),
        dtype: None,
    }
}

/// The model, its inputs and the mean of its losses in nats a token.
struct Recorded {
    cx: Graph,
    params: Parameters,
    /// What the model carries on beside its parameters.
    carried: Parameters,
    inputs: [GraphTensor; 2],
    loss: GraphTensor,
}

impl Recorded {
    fn new(config: &Gemma2Config, args: &Args, batch: usize) -> Recorded {
        let mut cx = Graph::new();
        if let Some(n) = args.threads {
            cx.set_threads(n);
        }
        let model = Gemma2::new(&mut cx, config, args.length, &|_| DType::F32);
        let dims = (batch, args.length);
        let inputs = [cx.input(dims, DType::I32), cx.input(dims, DType::I32)];
        let log_probabilities = model.forward_sequences(inputs[0]).log_softmax(-1);
        let target = inputs[1].unsqueeze(-1);
        let loss = -log_probabilities.gather(-1, target).mean(..);
        let (params, carried) = (model.parameters(), model.state());
        Recorded {
            cx,
            params,
            carried,
            inputs,
            loss: loss.retrieve(),
        }
    }

    /// One execution on a batch of windows, each of which starts with `bos`; the loss.
    fn execute(&mut self, batch: &[Array], bos: i32) -> Result<f64> {
        let mut tokens = batch[0].to_i32();
        let length = batch[0].dims()[1];
        tokens
            .iter_mut()
            .step_by(length)
            .for_each(|first| *first = bos);
        self.inputs[0].try_set(tokens)?;
        self.inputs[1].try_set(batch[1].clone())?;
        self.cx.try_execute()?;
        Ok(f64::from(self.loss.data()[0]))
    }
}

/// First values: normal with deviation 0.02, and norms that change nothing (they multiply by 1 + w).
fn init(params: &Parameters, seed: u64) {
    for (stream, (name, tensor)) in params.iter().enumerate() {
        let dims: Vec<usize> = tensor
            .dims()
            .iter()
            .map(|d| d.as_usize().expect("static"))
            .collect();
        let rule = match name.contains("norm") {
            true => Init::ZEROS,
            false => Init::Normal(0.0, 0.02),
        };
        tensor.set(rule.numbers(&dims, seed, stream as u64));
    }
}

/// Records gradients and updates.
fn record_step(recorded: &mut Recorded, args: &Args) -> States {
    let tensors: Vec<GraphTensor> = recorded.params.iter().map(|(_, tensor)| tensor).collect();
    let is_finite = recorded.loss.isfinite();
    let cx = &mut recorded.cx;
    let grads = cx.compile(Autograd::new(&tensors, recorded.loss), ());
    let (grads, _) = clip_grad_norm(&grads, 1.0);
    let warm_up = (args.steps / 10).clamp(1, 100);
    let falling = Schedule::cosine(
        args.rate,
        args.rate * 0.03,
        args.steps - warm_up.min(args.steps - 1),
    );
    let schedule = falling.after_warm_up(warm_up, 0.01);
    let adam = |decay: f64| AdamW {
        beta2: 0.97,
        weight_decay: decay,
        ..AdamW::new(schedule.clone())
    };
    let is_norm = |name: &str, _: GraphTensor| name.contains("norm");
    let plain = Split::new(adam(0.0), adam(0.05), is_norm);
    match args.optimizer {
        Kind::Adamw => plain.step_when(cx, is_finite, &recorded.params, &grads),
        Kind::Muon => {
            let muon = Muon {
                weight_decay: 0.05,
                adjust: brain_blitz::train::optim::Adjust::MatchRmsAdamW,
                ..Muon::new(schedule.clone())
            };
            let is_inner = |name: &str, tensor: GraphTensor| {
                tensor.rank() == 2 && !name.contains("embed_tokens")
            };
            Split::new(muon, plain, is_inner).step_when(cx, is_finite, &recorded.params, &grads)
        }
    }
}

/// Everything that a run moves on.
struct Trainer<'a> {
    args: &'a Args,
    step: Recorded,
    states: States,
    validation: Validation,
    store: Store,
    metrics: MetricsLog,
    bar: TrainingBar,
    bos: i32,
    done: u64,
    position: Position,
}

/// Trains; goes on from the last checkpoint in `--out`, if there is one.
pub fn run(args: &Args, texts: &Texts, tokenizer: &Tokenizer) -> Result<Trained> {
    let no_bos = || Error::msg("the tokenizer has no <bos>");
    let bos = tokenizer.bos().ok_or_else(no_bos)? as i32;
    let config = config(tokenizer, args.length);
    let tokens = |text: &str| tokenizer.encode(text, false);
    let (train, val) = (tokens(&texts.train)?, tokens(&texts.val)?);
    let (n_train, n_val) = (train.len(), val.len());
    eprintln!("{n_train} tokens to train on, {n_val} to validate with");
    let windows = args.batch * args.steps as usize;
    let data = TextDataset::new(train, args.length)?.random(windows, args.seed);
    let loader = DataLoader::new(data, args.batch).prefetch(2);

    let mut step = Recorded::new(&config, args, args.batch);
    init(&step.params, args.seed);
    let states = record_step(&mut step, args);
    step.cx.try_compile(<(Generic, LlvmCpu)>::default(), ())?;
    let validation = Validation::new(&config, args, val)?;
    let store = Store::new(args.out.join("checkpoints")).keep(2);
    let (done, position) = resume(&store, &Run::of(args), &step, &states)?;
    let mut trainer = Trainer {
        args,
        step,
        states,
        validation,
        store,
        metrics: MetricsLog::resume(args.out.join("metrics.jsonl"), done)?,
        bar: TrainingBar::new(u64::from(args.steps), "tokens", false),
        bos,
        done,
        position,
    };
    trainer.train(&loader)?;
    let weights = checkpoint::parameter_arrays(&trainer.step.params)?;
    Ok(Trained { config, weights })
}

impl Trainer<'_> {
    fn train(&mut self, loader: &DataLoader<TextDataset>) -> Result<()> {
        let (steps, batch_tokens) = (
            u64::from(self.args.steps),
            self.args.batch * self.args.length,
        );
        let mut guard = LossGuard::new(10.0, 32);
        let mut rate = RateMeter::new();
        self.bar.resume(self.done);
        println!("{:>8} {:>10} {:>12}", "step", "loss", "validation");
        for batch in loader.resume(self.position) {
            if self.done >= steps {
                break;
            }
            let batch = batch?;
            let loss = self.step.execute(&batch.arrays, self.bos)?;
            (self.done, self.position) = (self.done + 1, batch.next);
            let speed = rate.tick(batch_tokens as u64);
            self.bar.update(self.done, loss, speed);
            if let Err(error) = guard.check(self.done, loss) {
                return Err(match loss.is_finite() {
                    true => error,
                    false => explained(error, &self.step.cx),
                });
            }
            let epoch = self.done as f64 * batch_tokens as f64 / loader.data().n_tokens() as f64;
            let values = [("loss", loss), ("tokens_per_second", speed)];
            self.metrics.write(self.done, epoch, &values)?;
            if self.done.is_multiple_of(self.args.every) || self.done == steps {
                let val = self.validation.loss(&self.step, self.bos)?;
                self.metrics.write(self.done, epoch, &[("val_loss", val)])?;
                self.bar
                    .hide_while(|| println!("{:>8} {loss:>10.4} {val:>12.4}", self.done));
                self.save()?;
            }
        }
        self.bar.finish();
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let state = self.states.iter().chain(self.step.carried.iter());
        self.store.save(&Checkpoint {
            step: self.done,
            weights: checkpoint::parameter_arrays(&self.step.params)?,
            state: checkpoint::parameter_arrays(state)?,
            meta: Meta {
                position: self.position,
                run: Run::of(self.args),
            },
        })?;
        Ok(())
    }
}

/// A loss that is not finite, with the op that it comes from: such a step leaves parameters and states as they were.
fn explained(error: Error, cx: &Graph) -> Error {
    match cx.first_not_finite() {
        Ok(Some(found)) => Error::msg(format!("{error}\n{found}")),
        _ => error,
    }
}

impl Run {
    fn of(args: &Args) -> Run {
        Run {
            steps: args.steps,
            batch: args.batch,
            length: args.length,
            rate: args.rate,
            optimizer: args.optimizer,
            seed: args.seed,
        }
    }
}

/// Steps done and place in the text; the first values stay where there is no checkpoint.
fn resume(store: &Store, run: &Run, step: &Recorded, states: &States) -> Result<(u64, Position)> {
    let Some(loaded) = store.load_latest::<Meta>()? else {
        return Ok((0, Position::default()));
    };
    for error in &loaded.skipped {
        eprintln!("passed over: {error}");
    }
    let checkpoint = loaded.checkpoint;
    if checkpoint.meta.run != *run {
        let what = format!(
            "{} was started with other arguments ({:?}); use them, or another --out",
            loaded.folder.display(),
            checkpoint.meta.run
        );
        return Err(Error::msg(what));
    }
    checkpoint::set_parameters(&step.params, &checkpoint.weights)?;
    let all = states.iter().chain(step.carried.iter());
    checkpoint::set_parameters(all, &checkpoint.state)?;
    eprintln!("going on after step {}", checkpoint.step);
    Ok((checkpoint.step, checkpoint.meta.position))
}

/// The mean loss over all whole batches of windows of a text.
struct Validation {
    recorded: Recorded,
    loader: DataLoader<TextDataset>,
}

impl Validation {
    fn new(config: &Gemma2Config, args: &Args, tokens: Vec<u32>) -> Result<Validation> {
        let data = TextDataset::new(tokens, args.length)?;
        let batch = args.batch.min(data.len());
        let mut recorded = Recorded::new(config, args, batch);
        let compiler = <(Generic, LlvmCpu)>::default();
        recorded.cx.try_compile(compiler, ())?;
        let loader = DataLoader::new(data, batch).drop_last(true);
        Ok(Validation { recorded, loader })
    }

    fn loss(&mut self, trained: &Recorded, bos: i32) -> Result<f64> {
        let own = &self.recorded;
        let pairs = [
            (&own.params, &trained.params),
            (&own.carried, &trained.carried),
        ];
        for (own, trained) in pairs {
            checkpoint::set_parameters(own, &checkpoint::parameter_arrays(trained)?)?;
        }
        let mut total = 0.0;
        for batch in self.loader.epoch(0) {
            total += self.recorded.execute(&batch?.arrays, bos)?;
        }
        Ok(total / self.loader.n_batches() as f64)
    }
}
