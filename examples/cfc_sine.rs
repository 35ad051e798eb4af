//! A closed-form continuous-time network (Hasani et al. 2022) that foretells a sine from samples at irregular times.
//!
//!     cargo run --release --example cfc_sine
//!
//! At each sample the network sees the wave's value and the time until the next sample, and says what that one will be.
//! Times and phases are new in every step. The same network trains once more without the times, and the guess that
//! nothing changes stands beside them.

use brain_blitz::nn::{Cfc, CfcConfig, Init, Linear, Module, Visitor};
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{Adam, Optimizer, clip_grad_norm};
use brain_blitz::train::schedule::Schedule;

/// Samples that the network sees of a wave.
const STEPS: usize = 8;
/// Waves in a batch.
const WAVES: usize = 32;
/// The first samples, which do not say yet where on the wave they are: their errors do not count.
const BLIND: usize = 1;

fn main() {
    let (with, without) = (train(3000, true), train(3000, false));
    println!("{:>6}  {:>9}  {:>9}", "step", "loss", "no times");
    for (a, b) in with.table.iter().zip(&without.table) {
        println!("{:>6}  {:>9.6}  {:>9.6}", a.0, a.1, b.1);
    }
    println!("{:>6}  {:>9.6}  if nothing changed", "", with.still);
    println!("\n{:>6}  {:>9}  {:>9}", "time", "sine", "network");
    for (time, sine, network) in &with.wave {
        println!("{time:>6.2}  {sine:>9.4}  {network:>9.4}");
    }
}

/// What came of a training.
pub struct Fit {
    /// Step and mean square error, some of them.
    pub table: Vec<(usize, f32)>,
    /// The mean square error of the guess that nothing changes, on the last batch.
    pub still: f32,
    /// A wave of the last batch: times, values, and what the network said of them.
    pub wave: Vec<(f32, f32, f32)>,
}

/// A batch of waves, sampled at irregular times.
struct Waves {
    /// `[STEPS, WAVES]`: the times between a sample and the next.
    gaps: Vec<f32>,
    /// `[STEPS + 1, WAVES]`: the times of samples.
    times: Vec<f32>,
    /// `[STEPS + 1, WAVES]`.
    values: Vec<f32>,
}

impl Waves {
    fn new(seed: u64) -> Waves {
        let gaps = Init::Uniform(0.1, 1.9).numbers(&[STEPS, WAVES], seed, 0);
        let mut times = Init::Uniform(0.0, std::f32::consts::TAU).numbers(&[WAVES], seed, 1);
        for (i, gap) in gaps.iter().enumerate() {
            times.push(times[i] + gap);
        }
        let values = times.iter().map(|time| time.sin()).collect();
        Waves {
            gaps,
            times,
            values,
        }
    }

    /// The values that the network sees, and those that it foretells.
    fn halves(&self) -> (&[f32], &[f32]) {
        (&self.values[..STEPS * WAVES], &self.values[WAVES..])
    }

    /// The mean square of the changes from each sample to the next.
    fn still(&self) -> f32 {
        let (seen, next) = self.halves();
        let pairs = seen.iter().zip(next).skip(BLIND * WAVES);
        pairs.map(|(a, b)| (a - b).powi(2)).sum::<f32>() / ((STEPS - BLIND) * WAVES) as f32
    }
}

/// The recurrent layer and what reads its state.
struct Model {
    cell: Cfc,
    read: Linear,
}

impl Module for Model {
    fn visit(&self, visitor: &mut Visitor<'_>) {
        visitor.module("cell", &self.cell);
        visitor.module("read", &self.read);
    }
}

/// Trains for some steps, with the times between samples or without.
pub fn train(n_steps: u32, sees_times: bool) -> Fit {
    let mut cx = Graph::new();
    let seen = cx.input((STEPS, WAVES, 1), DType::F32);
    let gaps = cx.input((STEPS, WAVES), DType::F32);
    let next = cx.input((STEPS, WAVES, 1), DType::F32);
    let config = CfcConfig {
        input: 1,
        hidden: 16,
        backbone: 32,
        backbone_layers: 1,
    };
    let model = Model {
        cell: Cfc::new(&mut cx, config),
        read: Linear::new(&mut cx, config.hidden, 1, true),
    };
    model.init(1);
    let (states, _) = model.cell.run(seen, sees_times.then_some(gaps), None);
    let said = model.read.forward(states).retrieve(); // [STEPS, WAVES, 1]
    let counted = (said - next).slice_axis(0, BLIND, STEPS);
    let loss = counted.square().mean(..).retrieve();

    let params = model.parameters();
    let grads = cx.compile(Autograd::new(&params, loss), ());
    let (grads, _) = clip_grad_norm(&grads, 1.0);
    let schedule =
        Schedule::cosine(0.01, 1e-4, n_steps - n_steps / 20).after_warm_up(n_steps / 20, 0.1);
    Adam::new(schedule).step(&mut cx, &params, &grads);
    cx.compile(<(Generic, LlvmCpu)>::default(), (loss, said));

    let mut table = Vec::new();
    for step in 0..n_steps as usize {
        let waves = Waves::new(step as u64);
        let (before, after) = waves.halves();
        seen.set(before);
        next.set(after);
        if sees_times {
            gaps.set(&waves.gaps);
        }
        cx.execute();
        if step.is_multiple_of(n_steps as usize / 10) || step + 1 == n_steps as usize {
            table.push((step, loss.data()[0]));
        }
    }
    let waves = Waves::new(u64::from(n_steps) - 1);
    let said: Vec<f32> = said.data();
    let row = |i: usize| (waves.times[i + WAVES], waves.values[i + WAVES], said[i]);
    Fit {
        table,
        still: waves.still(),
        wave: (0..STEPS * WAVES).step_by(WAVES).map(row).collect(),
    }
}
