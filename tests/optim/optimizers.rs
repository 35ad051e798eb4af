//! Ten steps of every optimizer, and of what surrounds one, on all pipelines.

use brain_blitz::prelude::*;
use brain_blitz::train::optim::{
    Adagrad, Adam, AdamW, Adjust, Ema, Lion, Muon, Named, Optimizer, RmsProp, Sgd, Split, States,
    accumulate, clip_grad_norm, clip_grad_value,
};
use brain_blitz::train::schedule::Schedule;
use serde_json::Value;

use super::data::{N_STEPS, PIPELINES, Problem, cases, check, check_row, check_states, tensor};

/// The arguments of a case; those that are not given have torch's defaults, which the optimizers' own have to be.
struct Args<'a>(&'a Value);

impl Args<'_> {
    fn f64(&self, name: &str, default: f64) -> f64 {
        self.0
            .get(name)
            .map_or(default, |value| value.as_f64().expect("a number"))
    }

    fn bool(&self, name: &str, default: bool) -> bool {
        self.0
            .get(name)
            .map_or(default, |value| value.as_bool().expect("a boolean"))
    }

    fn list(&self, name: &str, i: usize, default: f64) -> f64 {
        self.0
            .get(name)
            .map_or(default, |list| list[i].as_f64().expect("a number"))
    }
}

/// Records the step of a case.
fn record(case: &Value, problem: &mut Problem) -> States {
    let args = Args(&case["args"]);
    let lr = args.f64("lr", f64::NAN);
    match case["optimizer"].as_str().expect("a name") {
        "sgd" => {
            let plain = Sgd::new(lr);
            step(
                problem,
                &Sgd {
                    momentum: args.f64("momentum", plain.momentum),
                    dampening: args.f64("dampening", plain.dampening),
                    weight_decay: args.f64("weight_decay", plain.weight_decay),
                    nesterov: args.bool("nesterov", plain.nesterov),
                    ..plain
                },
            )
        }
        "adam" => {
            let plain = Adam::new(lr);
            step(
                problem,
                &Adam {
                    beta1: args.list("betas", 0, plain.beta1),
                    beta2: args.list("betas", 1, plain.beta2),
                    epsilon: args.f64("eps", plain.epsilon),
                    weight_decay: args.f64("weight_decay", plain.weight_decay),
                    amsgrad: args.bool("amsgrad", plain.amsgrad),
                    ..plain
                },
            )
        }
        "adamw" => {
            let plain = AdamW::new(lr);
            step(
                problem,
                &AdamW {
                    beta1: args.list("betas", 0, plain.beta1),
                    beta2: args.list("betas", 1, plain.beta2),
                    epsilon: args.f64("eps", plain.epsilon),
                    weight_decay: args.f64("weight_decay", plain.weight_decay),
                    amsgrad: args.bool("amsgrad", plain.amsgrad),
                    ..plain
                },
            )
        }
        other => record_other(other, lr, &args, problem),
    }
}

fn record_other(name: &str, lr: f64, args: &Args<'_>, problem: &mut Problem) -> States {
    match name {
        "rmsprop" => {
            let plain = RmsProp::new(lr);
            step(
                problem,
                &RmsProp {
                    alpha: args.f64("alpha", plain.alpha),
                    epsilon: args.f64("eps", plain.epsilon),
                    weight_decay: args.f64("weight_decay", plain.weight_decay),
                    momentum: args.f64("momentum", plain.momentum),
                    centered: args.bool("centered", plain.centered),
                    ..plain
                },
            )
        }
        "adagrad" => {
            let plain = Adagrad::new(lr);
            step(
                problem,
                &Adagrad {
                    rate_decay: args.f64("lr_decay", plain.rate_decay),
                    weight_decay: args.f64("weight_decay", plain.weight_decay),
                    initial: args.f64("initial_accumulator_value", plain.initial),
                    epsilon: args.f64("eps", plain.epsilon),
                    ..plain
                },
            )
        }
        "lion" => {
            let plain = Lion::new(lr);
            step(
                problem,
                &Lion {
                    beta1: args.list("betas", 0, plain.beta1),
                    beta2: args.list("betas", 1, plain.beta2),
                    weight_decay: args.f64("weight_decay", plain.weight_decay),
                    ..plain
                },
            )
        }
        "muon" => step(problem, &muon(lr, args)),
        other => panic!("unknown optimizer {other}"),
    }
}

fn muon(lr: f64, args: &Args<'_>) -> Muon {
    let plain = Muon::new(lr);
    let coefficients = [0, 1, 2].map(|i| args.list("ns_coefficients", i, plain.coefficients[i]));
    Muon {
        weight_decay: args.f64("weight_decay", plain.weight_decay),
        momentum: args.f64("momentum", plain.momentum),
        nesterov: args.bool("nesterov", plain.nesterov),
        coefficients,
        iterations: args.f64("ns_steps", plain.iterations as f64) as usize,
        adjust: match args.0.get("adjust_lr_fn") {
            None => plain.adjust,
            Some(name) => {
                assert_eq!(name, "match_rms_adamw");
                Adjust::MatchRmsAdamW
            }
        },
        ..plain
    }
}

fn step(problem: &mut Problem, optimizer: &impl Optimizer) -> States {
    let params = problem.named();
    let params: Vec<(String, GraphTensor)> = params.as_slice().named();
    let params: Vec<(&str, GraphTensor)> = params.iter().map(|(n, t)| (n.as_str(), *t)).collect();
    optimizer.step(&mut problem.cx, params.as_slice(), &problem.grads)
}

#[test]
fn ten_steps_of_every_optimizer() {
    let cases = cases();
    let mut n_optimizers: Vec<&str> = Vec::new();
    for case in &cases {
        let id = case["id"].as_str().expect("an id");
        let names = case["params"].as_array().expect("names");
        let names: Vec<&str> = names
            .iter()
            .map(|name| name.as_str().expect("a name"))
            .collect();
        n_optimizers.push(case["optimizer"].as_str().expect("a name"));
        for (pipeline, finish) in PIPELINES {
            let mut problem = Problem::new(&names);
            let states = record(case, &mut problem);
            finish(&mut problem.cx);
            problem.check(id, pipeline);
            check_states(id, &states);
        }
    }
    n_optimizers.dedup();
    assert_eq!((cases.len(), n_optimizers.len()), (19, 7));
}

#[test]
fn gradients_clipped_by_their_norm() {
    for (id, limit) in [("clip_norm", 4.0), ("clip_norm_loose", 1e3)] {
        for (pipeline, finish) in PIPELINES {
            let mut problem = Problem::new(&["w", "b"]);
            let (clipped, norm) = clip_grad_norm(&problem.grads, limit);
            let norm = norm.retrieve();
            Sgd::new(0.1).step(&mut problem.cx, &problem.params, &clipped);
            finish(&mut problem.cx);
            problem.check(id, pipeline);
            check_row(
                id,
                &norm.array(),
                &tensor(&format!("{id}.norm")).1,
                N_STEPS - 1,
            );
        }
    }
}

#[test]
fn gradients_clipped_by_value() {
    for (pipeline, finish) in PIPELINES {
        let mut problem = Problem::new(&["w", "b"]);
        let clipped = clip_grad_value(&problem.grads, 0.7);
        Sgd::new(0.1).step(&mut problem.cx, &problem.params, &clipped);
        finish(&mut problem.cx);
        problem.check("clip_value", pipeline);
    }
}

#[test]
fn means_of_three_gradients_clipped_for_adamw_under_a_schedule() {
    for (pipeline, finish) in PIPELINES {
        let mut problem = Problem::new(&["w", "b"]);
        let (cx, params) = (&mut problem.cx, &problem.params);
        let mean = accumulate(cx, params, &problem.grads, 3);
        let (clipped, _) = clip_grad_norm(&mean.grads, 2.0);
        let optimizer = AdamW::new(Schedule::exponential(0.05, 0.5));
        let states = optimizer.step_when(cx, mean.is_due, params, &clipped);
        finish(cx);
        problem.check("accumulate", pipeline);
        let counted = |states: &States, name| states.get(name).expect("a counter").array().to_i32();
        assert_eq!(counted(&states, "step"), [3]);
        assert_eq!(counted(&mean.states, "micro_step"), [1]);
    }
}

#[test]
fn averages_of_weights() {
    for (pipeline, finish) in PIPELINES {
        let mut problem = Problem::new(&["w", "b"]);
        let (cx, params) = (&mut problem.cx, &problem.params);
        let states = Sgd::new(0.1).step(cx, params, &problem.grads);
        let averages = Ema { decay: 0.8 }.record(cx, params, &states);
        finish(cx);
        for i in 0..N_STEPS {
            problem.run(i);
            for (name, found) in [("w", "0.ema"), ("b", "1.ema")] {
                let found = averages.get(found).expect("one of each").array();
                let wanted = tensor(&format!("ema.{name}.ema")).1;
                check_row(&format!("{name} on {pipeline}"), &found, &wanted, i);
            }
        }
    }
}

#[test]
fn two_optimizers_share_the_parameters() {
    for (pipeline, finish) in PIPELINES {
        let mut problem = Problem::new(&["w", "b"]);
        let two = Split::new(Muon::new(0.02), Adam::new(0.01), |_, tensor| {
            tensor.rank() == 2
        });
        let states = step(&mut problem, &two);
        finish(&mut problem.cx);
        (0..N_STEPS).for_each(|i| problem.run(i));
        let last = |id: &str| {
            let all = tensor(id).1;
            all[all.len() - all.len() / N_STEPS..].to_vec()
        };
        check(pipeline, &problem.params[0].array(), &last("muon_17.w"));
        check(pipeline, &problem.params[1].array(), &last("adam_4.b"));
        let names: Vec<&str> = states.iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            ["step", "w.momentum_buffer", "b.exp_avg", "b.exp_avg_sq"]
        );
    }
}

#[test]
fn half_precision_parameters_have_f32_states() {
    let mut cx = Graph::new();
    let w = cx.input(3, DType::BF16).set([1.0, 2.0, 3.0]);
    let g = cx.input(3, DType::BF16).set([1.0, -1.0, 0.5]);
    let states = Adam::new(0.125).step(&mut cx, &[w], &[g]);
    let moment = states.get("0.exp_avg").expect("Adam has one");
    assert_eq!((w.dtype(), moment.dtype()), (DType::BF16, DType::F32));
    cx.execute();
    assert_eq!(w.data(), [0.875, 2.125, 2.875]);
}

#[test]
#[should_panic(expected = "one gradient for each parameter")]
fn a_missing_gradient_is_refused() {
    let mut cx = Graph::new();
    let w = cx.input(3, DType::F32);
    Sgd::new(0.1).step(&mut cx, &[w, w], &[w]);
}
