//! Training that goes on from saved states has the bits of training that did not stop.

use brain_blitz::array::Array;
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{AdamW, Optimizer, States};
use brain_blitz::train::schedule::Schedule;

use super::data::{PIPELINES, Problem};

fn problem() -> (Problem, States) {
    let mut problem = Problem::new(&["w", "b"]);
    let schedule = Schedule::cosine(0.05, 0.0, 8).after_warm_up(3, 0.1);
    let states = AdamW::new(schedule).step(&mut problem.cx, &problem.params, &problem.grads);
    (problem, states)
}

fn bits(tensors: impl Iterator<Item = GraphTensor>) -> Vec<Vec<u8>> {
    tensors
        .map(|tensor| tensor.array().bytes().to_vec())
        .collect()
}

#[test]
fn saved_states_give_the_same_bits() {
    for (pipeline, finish) in PIPELINES {
        let (mut whole, all_states) = problem();
        finish(&mut whole.cx);
        (0..5).for_each(|i| whole.run(i));
        let saved: Vec<(String, Array)> = all_states
            .iter()
            .map(|(name, tensor)| (name.to_string(), tensor.array()))
            .collect();
        let weights: Vec<Array> = whole.params.iter().map(|param| param.array()).collect();
        (5..9).for_each(|i| whole.run(i));

        let (mut rest, states) = problem();
        finish(&mut rest.cx);
        rest.params.iter().zip(weights).for_each(|(param, data)| {
            param.set(data);
        });
        for (name, data) in saved {
            states.get(&name).expect("the same states").set(data);
        }
        (5..9).for_each(|i| rest.run(i));
        let all = |problem: &Problem, states: &States| {
            let states = states.iter().map(|(_, tensor)| tensor);
            bits(problem.params.iter().copied().chain(states))
        };
        assert_eq!(all(&rest, &states), all(&whole, &all_states), "{pipeline}");

        let (mut forgetful, _) = problem();
        finish(&mut forgetful.cx);
        forgetful
            .params
            .iter()
            .zip(&whole.params)
            .for_each(|(param, from)| {
                param.set(from.array());
            });
        (5..9).for_each(|i| forgetful.run(i));
        assert_ne!(
            bits(forgetful.params.iter().copied()),
            bits(whole.params.iter().copied())
        );
    }
}
