//! Schedules as functions and as graph, against torch's.

use brain_blitz::prelude::*;
use brain_blitz::train::optim::{Optimizer, Sgd};
use brain_blitz::train::schedule::{OneCycle, Schedule};

use super::data::{PIPELINES, tensor};

fn all() -> Vec<(&'static str, Schedule)> {
    vec![
        ("step", Schedule::step(0.5, 7, 0.3)),
        ("exponential", Schedule::exponential(0.2, 0.93)),
        ("cosine", Schedule::cosine(0.4, 0.01, 30)),
        ("warm_up", Schedule::Constant(0.4).after_warm_up(9, 0.25)),
        (
            "warm_up_cosine",
            Schedule::cosine(0.3, 0.02, 24).after_warm_up(6, 0.1),
        ),
        ("one_cycle", Schedule::one_cycle(0.6, 31)),
        (
            "one_cycle_linear",
            Schedule::OneCycle(OneCycle {
                rise: 0.45,
                initial_divisor: 8.0,
                final_divisor: 50.0,
                linear: true,
                ..OneCycle::new(0.6, 31)
            }),
        ),
    ]
}

fn close(a: f64, b: f64, rtol: f64) -> bool {
    (a - b).abs() <= 1e-12 + rtol * b.abs()
}

#[test]
fn functions_have_torchs_rates() {
    for (name, schedule) in all() {
        let wanted = tensor(&format!("schedule_{name}")).1;
        assert_eq!(wanted.len(), 31);
        for (step, &wanted) in wanted.iter().enumerate() {
            let found = schedule.at(step as u64);
            assert!(
                close(found, wanted, 1e-11),
                "{name}, step {step}: {found} for {wanted}"
            );
        }
    }
}

/// The schedule's rates in the middle of a step that counts, beyond its end too.
#[test]
fn graphs_have_the_functions_rates() {
    for (pipeline, finish) in PIPELINES {
        let mut cx = Graph::new();
        let w = cx.input(1, DType::F32).set([0.0]);
        let mut rates = Vec::new();
        for (name, schedule) in all() {
            let sgd = Sgd::new(schedule.clone());
            let w = w.detach();
            let copy = cx.input(1, DType::F32).set_zeros();
            let states = sgd.step(&mut cx, &[copy], &[w]);
            rates.push((name, schedule, states.rate().expect("a rate").retrieve()));
        }
        finish(&mut cx);
        for step in 0..40 {
            cx.execute();
            for (name, schedule, rate) in &rates {
                let (found, wanted) = (rate.array().to_f64()[0], schedule.at(step));
                let what = format!("{name} on {pipeline}, step {step}: {found} for {wanted}");
                assert!(close(found, wanted, 5e-7), "{what}");
            }
        }
    }
}

#[test]
fn ends_and_degenerate_lengths() {
    assert_eq!(Schedule::cosine(1.0, 0.25, 8).at(1000), 0.25);
    assert_eq!(Schedule::Constant(2.0).after_warm_up(0, 0.1).at(0), 2.0);
    let short = Schedule::one_cycle(1.0, 2);
    assert!(short.at(0) == 1.0 && short.at(1) < 1e-5 && short.at(5) < 1e-5);
    let mostly_up = Schedule::OneCycle(OneCycle {
        rise: 0.95,
        ..OneCycle::new(1.0, 10)
    });
    assert!(mostly_up.at(8) > 0.9 && mostly_up.at(9) < 1e-5);
}

#[test]
fn a_rate_that_is_set_from_outside() {
    let mut cx = Graph::new();
    let w = cx.input(1, DType::F32).set([1.0]);
    let rate = cx.input((), DType::F32).set(0.5);
    let one = cx.ones(1, DType::F32);
    Sgd::new(rate).step(&mut cx, &[w], &[one]);
    cx.compile(Generic, ());
    cx.execute();
    rate.set(0.25);
    cx.execute();
    assert_eq!(w.data(), [0.25]);
}
