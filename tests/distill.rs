//! Rounding that is written into graphs for training, the losses of a student, and that it learns.

use brain_blitz::array::{Array, Data};
use brain_blitz::compilers::binarize::{Choice, SignActivations, TrainedWeights};
use brain_blitz::nn::{LayerNorm, Linear, LowBit, Module};
use brain_blitz::op::Op;
use brain_blitz::prelude::*;
use brain_blitz::train::checkpoint::{Arrays, Store, parameter_arrays};
use brain_blitz::train::distill::{
    Distill, Lesson, Progress, Stage, Student, distillation_loss, hidden_loss, stages,
};

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
    let mut hidden = vec![];
    let last = layers.iter().zip(&norms).fold(inputs, |x, (layer, norm)| {
        hidden.push(norm.forward(layer.forward(x)).clamp(-1.0, 1.0));
        hidden[hidden.len() - 1]
    });
    let logits = layers[2].forward(last);
    let net = Net { layers, norms };
    Student {
        params: net.parameters(),
        inputs: vec![inputs],
        logits,
        hidden,
    }
}

fn count(cx: &Graph, is: impl Fn(&Op) -> bool) -> usize {
    cx.inspect(|dag| dag.ids().filter(|&id| is(&dag.node(id).op)).count())
}

#[test]
fn rounded_graphs_compute_what_binarize_stores() {
    let signs = Binarize::w1a1().activations(SignActivations::Signs);
    for (binarize, fit, n_rounded) in [
        (Binarize::w1a1(), LowBit::w1a1(), 1),
        (Binarize::w1a1().with_ends(), LowBit::w1a1(), 3),
        (Binarize::w1a8(), LowBit::w1a8(), 1),
        (Binarize::w1a8().with_ends(), LowBit::w1a8(), 3),
        (Binarize::w1a8().ternary(), LowBit::w1a8().ternary(), 1),
        (signs, LowBit::w1a1(), 1),
        (Binarize::w1a4(), LowBit::w1a4(), 1),
        (Binarize::w1a2().ternary(), LowBit::w1a2().ternary(), 1),
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
    let mut cx = Graph::new();
    let student = student(&mut cx);
    let two = Binarize::w1a8().bases(2);
    let why = two.round_for_training(&mut cx, &student.params, TrainedWeights::Bytes);
    let why = why.unwrap_err().to_string();
    assert!(why.contains("choose one base, or three values"), "{why}");
}

#[test]
fn gradients_reach_signs_of_at_most_twice_the_mean() {
    let gradient = |layers: Binarize| {
        let mut cx = Graph::new();
        let x = cx.input((2, 4), DType::F32);
        // Means 2 and 0.5: what is larger than 4 and than 1 gets no gradient.
        x.set([[1.0, -0.5, 6.0, 0.5], [-0.25, 0.25, -0.25, 1.25]]);
        let layer = Linear::new(&mut cx, 4, 2, false);
        layer.weight.set([[0.5, -0.5, 0.5, 0.5], [0.0; 4]]);
        let y = layer.forward(x).retrieve();
        let weights = TrainedWeights::Signs(LowBit::w1a1());
        let layers = layers.with_ends();
        let report = layers.round_for_training(&mut cx, &layer.parameters(), weights);
        assert_eq!(report.unwrap().hits("round-layers"), 1);
        let slopes = cx.compile(Autograd::new(x, y.sum(..)), ())[0].retrieve();
        cx.execute();
        (y.data(), slopes.data())
    };
    let scaled = gradient(Binarize::w1a1());
    // Signs + - + + times + - + + and - + - + times + - + +, times 0.5 and the mean.
    assert_eq!(scaled.0, [4.0, 0.0, -0.5, 0.0]);
    assert_eq!(scaled.1, [0.5, -0.5, 0.0, 0.5, 0.5, -0.5, 0.5, 0.0]);
    let plain = gradient(Binarize::w1a1().activations(SignActivations::Signs));
    assert_eq!(plain.0, [2.0, 0.0, -1.0, 0.0]);
    assert_eq!(plain.1, [0.5, -0.5, 0.0, 0.5, 0.5, -0.5, 0.5, 0.0]);
}

#[test]
fn gradients_reach_levels_and_not_what_lies_beyond() {
    for (binarize, beyond) in [
        (Binarize::w1a4(), 64.0 / 15.0),
        (Binarize::w1a2(), 8.0 / 3.0),
    ] {
        let mut cx = Graph::new();
        // A mean of 1, and numbers on both sides of the end of the outermost interval.
        let mut row = vec![0.0; 16];
        (row[0], row[1], row[2]) = (beyond + 0.1, 0.1 - beyond, 1.0);
        row[3] = 16.0 - row.iter().map(|x: &f32| x.abs()).sum::<f32>();
        let x = cx.input((1, 16), DType::F32).set(row.clone());
        let layer = Linear::new(&mut cx, 16, 2, false);
        layer.weight.set([[0.5; 16], [-0.5; 16]]);
        let y = layer.forward(x).retrieve();
        let weights = TrainedWeights::Signs(LowBit::w1a1());
        let layers = binarize.with_ends();
        let report = layers.round_for_training(&mut cx, &layer.parameters(), weights);
        assert_eq!(report.unwrap().hits("round-layers"), 1);
        let first = y.slice((0..1, 0..1)).sum(..);
        let slopes = cx.compile(Autograd::new(x, first), ())[0].retrieve();
        cx.execute();
        let within = |x: &f32| if x.abs() <= beyond { 0.5 } else { 0.0 };
        let expected: Vec<f32> = row.iter().map(within).collect();
        assert_eq!(slopes.data(), expected, "{row:?}");
        assert_eq!(expected.iter().filter(|slope| **slope == 0.0).count(), 2);
    }
}

/// What a run told of its steps.
type Told = Vec<(u64, f64, f64)>;

/// Teaches in three stages of so many steps: a teacher of first weights, and a student that starts with others. Stops with
/// an error after step `stop`.
fn learn(steps: u32, distill: impl Fn(Distill) -> Distill, stop: u64) -> (Told, Result<Arrays>) {
    let stage = |weights, layers| Stage {
        name: "a stage".into(),
        layers,
        weights,
        steps,
        rate: 5e-3,
    };
    let signs = TrainedWeights::Signs(LowBit::w1a8());
    let stages = vec![
        stage(TrainedWeights::Bytes, Binarize::w1a8()),
        stage(signs, Binarize::w1a8()),
        stage(signs, Binarize::w1a1()),
    ];
    let distill = distill(Distill::new(stages));
    assert_eq!(distill.steps(), 3 * u64::from(steps));
    teach(distill, stop)
}

/// Teaches a student, until step `stop` if there is one.
fn teach(distill: Distill, stop: u64) -> (Told, Result<Arrays>) {
    let mut cx = Graph::new();
    let teacher = student(&mut cx);
    teacher.params.init(7);
    let logits = (teacher.logits * 4.0).retrieve();
    teacher.hidden.iter().for_each(|state| {
        state.retrieve();
    });
    let mut lesson = |step: u64| {
        let x = Array::new(
            vec![BATCH, 12],
            Data::F32(numbers(BATCH * 12, step as usize % 5)),
        );
        teacher.inputs[0].try_set(x.clone())?;
        cx.try_execute()?;
        Ok(Lesson {
            inputs: vec![x],
            logits: logits.array(),
            hidden: teacher.hidden.iter().map(|state| state.array()).collect(),
        })
    };
    let start = {
        let mut cx = Graph::new();
        let other = student(&mut cx);
        other.params.init(8);
        parameter_arrays(&other.params).unwrap()
    };
    let mut told = Told::new();
    let mut on_step = |step: &Progress<'_>| {
        told.push((step.total, step.loss, step.hidden));
        match step.total == stop {
            true => Err(brain_blitz::Error::msg("stopped")),
            false => Ok(()),
        }
    };
    let weights = distill.run(&mut student, &mut lesson, &start, &mut on_step);
    (told, weights)
}

#[test]
fn a_student_learns_the_answers_and_the_hidden_states() {
    let (told, _) = learn(40, |distill| distill.hidden_weight(1.0), 0);
    assert!(told.iter().map(|step| step.0).eq(1..=120));
    let [first, last] = [told[0], told[119]];
    assert!(first.1 > 0.1 && last.1 < 0.2 * first.1, "{told:?}");
    assert!(first.2 > 0.5 && last.2 < 0.7 * first.2, "{told:?}");
    // Without the weight they are measured, and nothing draws them together.
    let (alone, _) = learn(40, |distill| distill, 0);
    assert!(alone[119].2 > 1.2 * last.2, "{alone:?}");
}

/// Stage after stage of fewer bits, down to one: each learns, and more bits know more in the end.
#[test]
fn activations_of_fewer_and_fewer_bits_learn() {
    use SignActivations::{Bytes, FourBits, ScaledSigns, TwoBits};
    let path = [Bytes, FourBits, TwoBits, ScaledSigns];
    let layers = |inputs| Binarize::w1a1().activations(inputs);
    let stages = stages(&path, LowBit::w1a1(), (400, 5e-3), &layers);
    let steps: Vec<usize> = stages.iter().map(|stage| stage.steps as usize).collect();
    assert_eq!(steps, [20, 76, 76, 76, 152]);
    let (told, weights) = teach(Distill::new(stages), 0);
    let losses: Vec<f64> = told.iter().map(|step| step.1).collect();
    // Of each stage, the first and the last pass over all lessons, of which there are five.
    let mut at = 0;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let mut ends = Vec::new();
    for steps in steps {
        let of_stage = &losses[at..at + steps];
        ends.push([mean(&of_stage[..5]), mean(&of_stage[steps - 5..])]);
        at += steps;
    }
    for [first, last] in &ends {
        assert!(last < &(0.9 * first), "{ends:?}");
    }
    assert_eq!(weights.unwrap().len(), 3 + 4);
}

#[test]
fn a_stopped_run_goes_on_with_the_same_bits() {
    let whole = learn(10, |distill| distill.hidden_weight(0.5), 0);
    let expected = whole.1.unwrap();
    // Within a stage, at its end, and behind a checkpoint, whose steps are then done again.
    for (stop, next) in [(14, 15), (20, 21), (17, 15), (3, 1), (28, 29)] {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path()).keep(2);
        let saves = |distill: Distill| {
            let store = store.clone();
            distill.hidden_weight(0.5).checkpoints(store, 4)
        };
        let (first, error) = learn(10, saves, stop);
        assert_eq!(error.unwrap_err().to_string(), "stopped");
        assert_eq!(first[..], whole.0[..stop as usize]);
        let (then, weights) = learn(10, saves, 0);
        assert_eq!(then[..], whole.0[next - 1..], "after {stop}");
        assert_eq!(weights.unwrap(), expected, "after {stop}");
        // All is done: nothing is trained any more.
        let (none, weights) = learn(10, saves, 0);
        assert_eq!((none.len(), weights.unwrap()), (0, expected.clone()));
        // Another run does not go on from here.
        let (_, other) = learn(10, |distill| saves(distill).temperature(2.0), 0);
        let why = other.unwrap_err().to_string();
        assert!(why.contains("other stages or losses"), "{why}");
    }
}

#[test]
fn a_lesson_must_fit_the_student() {
    let mut record = student;
    let mut lesson = |_| {
        Ok(Lesson {
            inputs: vec![Array::new(
                vec![BATCH, 12],
                Data::F32(numbers(BATCH * 12, 1)),
            )],
            logits: Array::new(vec![BATCH, 5], Data::F32(numbers(BATCH * 5, 1))),
            hidden: vec![],
        })
    };
    let mut cx = Graph::new();
    let start = student(&mut cx);
    start.params.init(1);
    let stage = Stage {
        name: "bytes".into(),
        layers: Binarize::w1a8(),
        weights: TrainedWeights::Bytes,
        steps: 1,
        rate: 1e-3,
    };
    let start = parameter_arrays(&start.params).unwrap();
    let run = Distill::new([stage]).run(&mut record, &mut lesson, &start, &mut |_| Ok(()));
    let why = run.unwrap_err().to_string();
    assert!(
        why.contains("1 inputs and 0 hidden states, the student 1 and 2"),
        "{why}"
    );
}
