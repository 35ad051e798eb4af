//! Rounding that is written into graphs for training, the losses of a student, and that it learns.

use brain_blitz::array::{Array, Data};
use brain_blitz::compilers::binarize::{Choice, SignActivations, TrainedWeights};
use brain_blitz::nn::{LayerNorm, Linear, LowBit, Module};
use brain_blitz::op::Op;
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{Arrays, parameter_arrays};
use brain_blitz::train::distill::{Stage, Student, distill, distillation_loss, hidden_loss};

#[path = "support/inputs.rs"]
mod inputs;
use inputs::{input, numbers};

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// Softened probabilities of a row.
fn softmax(x: &[f64], temperature: f64) -> Vec<f64> {
    let all: Vec<f64> = x.iter().map(|x| (x / temperature).exp()).collect();
    let sum: f64 = all.iter().sum();
    all.iter().map(|x| x / sum).collect()
}

#[test]
fn the_divergence_is_that_of_its_formula() {
    for temperature in [1.0, 2.5] {
        let mut cx = Graph::new();
        let student = input(&mut cx, &[3, 2, 7], 1);
        let teacher = input(&mut cx, &[3, 2, 7], 2);
        let loss = distillation_loss(student, teacher, temperature).retrieve();
        let none = distillation_loss(teacher, teacher, temperature).retrieve();
        let grads = cx.compile(Autograd::new((student, teacher), loss), ());
        let grads = [grads[0].retrieve(), grads[1].retrieve()];
        cx.execute();
        let (student, teacher) = (wide(&numbers(42, 1)), wide(&numbers(42, 2)));
        let (mut expected, mut slopes) = (0.0, Vec::new());
        for (s, t) in student.chunks(7).zip(teacher.chunks(7)) {
            let (s, t) = (softmax(s, temperature), softmax(t, temperature));
            let row: f64 = t.iter().zip(&s).map(|(t, s)| t * (t / s).ln()).sum();
            expected += row * temperature * temperature / 6.0;
            slopes.extend(s.iter().zip(&t).map(|(s, t)| (s - t) * temperature / 6.0));
        }
        let found = f64::from(loss.data()[0]);
        assert!((found - expected).abs() < 1e-5, "{found}, not {expected}");
        assert!(none.data()[0].abs() < 1e-6);
        for (found, expected) in grads[0].data().iter().zip(&slopes) {
            assert!((f64::from(*found) - expected).abs() < 1e-6);
        }
        assert_eq!(grads[1].data(), [0.0; 42], "the teacher learns nothing");
    }
}

#[test]
fn hidden_states_are_compared_by_direction() {
    let mut cx = Graph::new();
    let student = cx.input((2, 2), DType::F32).set([[3.0, 4.0], [0.0, 2.0]]);
    let teacher = cx.input((2, 2), DType::F32).set([[6.0, 8.0], [5.0, 0.0]]);
    let loss = hidden_loss(student, teacher).retrieve();
    cx.execute();
    // The first point the same way, the others are at right angles.
    assert!((loss.data()[0] - 1.0).abs() < 1e-5, "{:?}", loss.data());
}

const WIDTH: usize = 48;

/// Three layers with norms between them.
struct Net {
    layers: Vec<Linear>,
    norms: Vec<LayerNorm>,
}

impl Module for Net {
    fn visit(&self, visitor: &mut brain_blitz::nn::Visitor<'_>) {
        visitor.modules("layers", &self.layers);
        visitor.modules("norms", &self.norms);
    }
}

const BATCH: usize = 24;

fn student(cx: &mut Graph) -> Student {
    let sizes = [12, WIDTH, WIDTH, 5];
    let layers = sizes.windows(2);
    let layers = layers.map(|two| Linear::new(cx, two[0], two[1], false));
    let layers: Vec<Linear> = layers.collect();
    let norms: Vec<LayerNorm> = (0..2).map(|_| LayerNorm::new(cx, WIDTH, 1e-5)).collect();
    let inputs = cx.input((BATCH, 12), DType::F32);
    let hidden = layers.iter().zip(&norms).fold(inputs, |x, (layer, norm)| {
        norm.forward(layer.forward(x)).clamp(-1.0, 1.0)
    });
    let logits = layers[2].forward(hidden);
    let net = Net { layers, norms };
    Student {
        params: net.parameters(),
        inputs: vec![inputs],
        logits,
    }
}

fn count(cx: &Graph, is: impl Fn(&Op) -> bool) -> usize {
    cx.inspect(|dag| dag.ids().filter(|&id| is(&dag.node(id).op)).count())
}

#[test]
fn rounded_graphs_compute_what_binarize_stores() {
    let signs = Binarize::w1a1().activations(SignActivations::Signs);
    for (binarize, fit, n_rounded) in [
        (Binarize::w1a8(), LowBit::w1a8(), 1),
        (Binarize::w1a8().with_ends(), LowBit::w1a8(), 3),
        (Binarize::w1a8().ternary(), LowBit::w1a8().ternary(), 1),
        (signs, LowBit::w1a1(), 1),
    ] {
        let run = |rounds: bool| {
            let mut cx = Graph::new();
            let student = student(&mut cx);
            student.params.init(3);
            student.inputs[0].set(numbers(BATCH * 12, 1));
            let logits = student.logits.retrieve();
            if rounds {
                let weights = TrainedWeights::Signs(fit);
                let report = binarize.round_for_training(&mut cx, &student.params, weights);
                let report = report.unwrap();
                assert_eq!(report.hits("round-layers"), n_rounded, "{report}");
                cx.compile(Generic, ());
                assert_eq!(count(&cx, |op| matches!(op, Op::SignMatrix(..))), 0);
            } else {
                let report = cx.compile((Generic, binarize.clone(), Generic), ());
                assert_eq!(report.signed.len(), n_rounded, "{report}");
            }
            cx.execute();
            logits.data()
        };
        let (trained, stored) = (run(true), run(false));
        let size = stored.iter().fold(0f32, |size, x| size.max(x.abs()));
        for (a, b) in trained.iter().zip(&stored) {
            assert!((a - b).abs() <= 1e-5 * size, "{a} {b} {binarize:?}");
        }
    }
}

#[test]
fn what_the_plan_leaves_stays_as_it_is() {
    let run = |binarize: Option<Binarize>| {
        let mut cx = Graph::new();
        let student = student(&mut cx);
        student.params.init(3);
        student.inputs[0].set(numbers(BATCH * 12, 1));
        let logits = student.logits.retrieve();
        if let Some(binarize) = binarize {
            let report = binarize
                .round_for_training(&mut cx, &student.params, TrainedWeights::Bytes)
                .unwrap();
            assert_eq!(report.hits("round-layers"), 0, "{report}");
            assert!(report.to_string().contains("stays: told so"), "{report}");
        }
        cx.execute();
        logits.data()
    };
    let stay = Binarize::w1a8().plan(|_, _| Choice::Stay("told so".into()));
    assert_eq!(run(Some(stay)), run(None));
}

#[test]
fn what_is_not_trained_is_refused() {
    for binarize in [Binarize::w1a1(), Binarize::w1a8().bases(2)] {
        let mut cx = Graph::new();
        let student = student(&mut cx);
        let why = binarize.round_for_training(&mut cx, &student.params, TrainedWeights::Bytes);
        let why = why.unwrap_err().to_string();
        assert!(why.contains("choose one base, and signs or bytes"), "{why}");
    }
}

/// A teacher of first weights, and the losses of a student that starts with others.
fn learn(steps: u32) -> (Vec<f64>, Arrays) {
    let mut cx = Graph::new();
    let teacher = student(&mut cx);
    teacher.params.init(7);
    let logits = (teacher.logits * 4.0).retrieve();
    let mut at = 0;
    let mut batch = || {
        at += 1;
        let x = Array::new(vec![BATCH, 12], Data::F32(numbers(BATCH * 12, at % 5)));
        teacher.inputs[0].try_set(x.clone())?;
        cx.try_execute()?;
        Ok((vec![x], logits.array()))
    };
    let start = {
        let mut cx = Graph::new();
        let other = student(&mut cx);
        other.params.init(8);
        parameter_arrays(&other.params).unwrap()
    };
    let stage = |weights, layers, steps| Stage {
        name: "a stage".into(),
        layers,
        weights,
        steps,
        rate: 5e-3,
    };
    let signs = TrainedWeights::Signs(LowBit::w1a8());
    let last = Binarize::w1a1().activations(SignActivations::Signs);
    let stages = [
        stage(TrainedWeights::Bytes, Binarize::w1a8(), steps),
        stage(signs, Binarize::w1a8(), steps),
        stage(signs, last, steps),
    ];
    let mut losses = Vec::new();
    let mut told = |step: &brain_blitz::train::distill::Progress<'_>| losses.push(step.loss);
    let weights = distill(&mut student, &mut batch, &start, &stages, 1.0, &mut told).unwrap();
    (losses, weights)
}

#[test]
fn a_student_learns_and_does_so_again() {
    let (losses, weights) = learn(40);
    assert_eq!(losses.len(), 120);
    let [first, last] = [losses[0], losses[119]];
    assert!(first > 0.1 && last < 0.1 * first, "{losses:?}");
    let (again, same) = learn(40);
    assert_eq!((again, same), (losses, weights));
}
