//! `Remat`: less memory, the same bits.

#[cfg(feature = "llvm-backend")]
#[path = "support/gemma2.rs"]
mod gemma2;
#[path = "support/inputs.rs"]
mod inputs;

use brain_blitz::compilers::{Remat, Report};
use brain_blitz::graph::state::Stats;
use brain_blitz::nn::Dropout;
#[cfg(feature = "llvm-backend")]
use brain_blitz::nn::models::LanguageModel;
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{Optimizer, Sgd};
use inputs::numbers;

/// A recorded training step, what it is compared by, and its states.
struct Recorded {
    cx: Graph,
    wanted: Vec<GraphTensor>,
}

/// What an execution gave.
struct Done {
    values: Vec<Vec<f32>>,
    stats: Stats,
    report: Report,
}

impl Recorded {
    /// Compiles with a budget, without one at all, executes twice and reads what is wanted.
    fn run(mut self, remat: Option<Remat>, back_end: LlvmCpu) -> Done {
        let report = match remat {
            Some(remat) => self.cx.compile((Generic, remat, back_end), ()),
            None => self.cx.compile((Generic, back_end), ()),
        };
        self.cx.execute();
        self.cx.execute();
        Done {
            values: self.wanted.iter().map(|value| value.data()).collect(),
            stats: self.cx.stats(),
            report,
        }
    }
}

/// The bytes before and after that the report names.
fn named(report: &Report) -> (usize, usize) {
    let notes = report.notes();
    let note = notes.iter().find(|note| note.starts_with("remat: "));
    let note = note.unwrap_or_else(|| panic!("{report}"));
    let numbers: Vec<usize> = note
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    (numbers[0], numbers[1])
}

fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    let bits = |values: &Vec<f32>| values.iter().map(|x| x.to_bits()).collect();
    values.iter().map(bits).collect()
}

/// Eight layers, with gradients and a step of an optimizer.
fn perceptron(activation: fn(GraphTensor) -> GraphTensor) -> Recorded {
    let mut cx = Graph::new();
    let mut x = inputs::input(&mut cx, &[64, 32], 0);
    let mut params = Vec::new();
    for layer in 0..8 {
        let w: Vec<f32> = numbers(32 * 32, layer).iter().map(|x| x * 0.15).collect();
        let w = cx.input((32, 32), DType::F32).set(w);
        params.push(w);
        x = activation(x.matmul(w));
    }
    let loss = (x * x).mean(..).retrieve();
    let grads = cx.compile(Autograd::new(&params, loss), ());
    let mut wanted: Vec<GraphTensor> = grads.iter().map(|grad| grad.retrieve()).collect();
    Sgd::new(0.1).step(&mut cx, &params, &grads);
    wanted.push(loss);
    wanted.extend(params);
    Recorded { cx, wanted }
}

#[cfg(feature = "llvm-backend")]
/// The small Gemma 2 on two windows of twelve tokens, with gradients and a step of AdamW.
fn language_model() -> Recorded {
    use brain_blitz::nn::Module;
    use brain_blitz::train::optim::AdamW;
    let mut cx = Graph::new();
    let (model, config) = gemma2::tiny(&mut cx, brain_blitz::nn::CacheType::F32);
    let tokens: Vec<i32> = (0..24).map(|i| i * 37 % config.vocab_size as i32).collect();
    let targets: Vec<i32> = tokens.iter().map(|&t| (t * 5 + 1) % 512).collect();
    let tokens = cx.input((2, 12), DType::I32).set(tokens);
    let targets = cx.input((2, 12), DType::I32).set(targets);
    let log = model.forward_sequences(tokens).log_softmax(-1);
    let loss = (-log.gather(-1, targets.unsqueeze(-1)).mean(..)).retrieve();
    let params: Vec<GraphTensor> = model
        .parameters()
        .iter()
        .map(|(_, tensor)| tensor)
        .collect();
    let grads = cx.compile(Autograd::new(&params, loss), ());
    AdamW::new(1e-3).step(&mut cx, &params, &grads);
    let mut wanted = vec![loss];
    wanted.extend(params);
    Recorded { cx, wanted }
}

/// What is true of any budget: the report names what executions need, and results have the same bits.
fn check(make: &dyn Fn() -> Recorded, percent: usize, cpu: &str) -> [Done; 2] {
    let cpu = || LlvmCpu::for_cpu(cpu);
    let all = make().run(None, cpu());
    let budget = all.stats.arena_bytes * percent / 100;
    let less = make().run(Some(Remat::new(budget)), cpu());
    assert_eq!(bits(&less.values), bits(&all.values), "{percent} %");
    let before_and_after = (all.stats.arena_bytes, less.stats.arena_bytes);
    assert_eq!(named(&less.report), before_and_after, "{}", less.report);
    assert_eq!(
        less.stats.state_bytes_written,
        all.stats.state_bytes_written
    );
    let is_out_of_reach = less.report.notes()[0].contains("out of reach");
    assert_eq!(is_out_of_reach, less.stats.arena_bytes > budget);
    [all, less]
}

#[cfg(feature = "llvm-backend")]
#[test]
fn layers_keep_to_a_budget() {
    for cpu in ["native", "x86-64-v3"] {
        for percent in [80, 50, 30] {
            let [all, less] = check(&|| perceptron(|x| x.silu()), percent, cpu);
            let budget = all.stats.arena_bytes * percent / 100;
            assert!(less.stats.arena_bytes <= budget, "{}", less.report);
            assert!(less.report.hits("remat") > 0);
        }
    }
    // Where nothing else is left to compute again, products are.
    for percent in [50, 40] {
        let [all, less] = check(&|| perceptron(|x| x.relu()), percent, "native");
        let products = [&all, &less].map(|done| done.report.hits("contraction"));
        assert_eq!(
            products[0],
            8 + 8 + 7,
            "a product for each layer and gradient"
        );
        assert!(products[1] > products[0], "{}", less.report);
        assert!(products[1] <= products[0] + 8, "{}", less.report);
    }
}

#[cfg(feature = "llvm-backend")]
#[test]
fn cheap_values_go_before_products() {
    let [all, less] = check(&|| perceptron(|x| x.silu()), 60, "native");
    let products = [&all, &less].map(|done| done.report.hits("contraction"));
    assert_eq!(products, [23, 23]);
    // Each activation is computed once more, in one kernel; nothing is written out on the way there.
    assert!(less.stats.steps <= all.stats.steps + 8, "{}", less.report);
}

#[cfg(feature = "llvm-backend")]
#[test]
fn what_is_computed_again_is_part_of_the_kernel_that_reads_it() {
    let make = || {
        let mut cx = Graph::new();
        let x = inputs::input(&mut cx, &[500], 1);
        let y = x.exp().sin();
        let loss = (y * y).sum(..).retrieve();
        let grads = cx.compile(Autograd::new(x, loss), ());
        let wanted = vec![loss, grads[0].retrieve()];
        Recorded { cx, wanted }
    };
    let [all, less] = check(&make, 40, "native");
    assert!(less.stats.steps < all.stats.steps, "{}", less.report);
    assert_eq!(
        less.stats.arena_bytes,
        2048 + 64,
        "only the gradient and the loss"
    );
}

#[cfg(feature = "llvm-backend")]
#[test]
fn a_language_model_keeps_to_a_budget() {
    for percent in [80, 60] {
        let [all, less] = check(&language_model, percent, "native");
        let budget = all.stats.arena_bytes * percent / 100;
        assert!(less.stats.arena_bytes <= budget, "{}", less.report);
        // As long as little is missing, what is computed again mostly becomes part of kernels that are there.
        let steps = [all.stats.steps, less.stats.steps];
        let few = steps[1] <= steps[0] + steps[0] / 16;
        assert!(few || percent < 80, "{steps:?} {}", less.report);
        assert_eq!(less.stats.state_bytes_written, 0, "updates stay in place");
    }
}

#[test]
fn a_budget_that_holds_changes_nothing() {
    let text = |budget: Option<usize>| {
        // Without ops that only matter to gradients, which go whatever the budget is.
        let mut cx = Graph::new();
        let x = inputs::input(&mut cx, &[64, 32], 0);
        let w = cx.input((32, 32), DType::F32).set(numbers(32 * 32, 1));
        let y = (0..6).fold(x, |y, _| y.matmul(w).sin());
        cx.compile(Autograd::new(w, y.sum(..)), ())[0].retrieve();
        let report = match budget {
            Some(budget) => cx.compile((Generic, Remat::new(budget)), ()),
            None => cx.compile(Generic, ()),
        };
        (cx.to_text(), report)
    };
    let (with, report) = text(Some(1 << 30));
    assert_eq!(with, text(None).0);
    assert_eq!(report.hits("remat"), 0);
    assert!(!report.notes()[0].contains("again"), "{report}");
}

#[test]
fn a_budget_out_of_reach_is_told_and_memory_saved() {
    let [all, less] = check(&|| perceptron(|x| x.silu()), 1, "native");
    let notes = less.report.notes();
    assert!(notes[0].contains("which is out of reach"), "{}", notes[0]);
    if cfg!(feature = "llvm-backend") {
        // The gradients that are read, and three results of layers: no more are there at once.
        assert!(less.stats.arena_bytes <= 8 * 32 * 32 * 4 + 3 * 64 * 32 * 4);
    }
    assert!(less.stats.arena_bytes < all.stats.arena_bytes);
}

#[test]
fn random_numbers_are_the_same_again() {
    let make = || {
        let mut cx = Graph::new();
        let mut x = inputs::input(&mut cx, &[40, 16], 0);
        let w = cx.input((16, 16), DType::F32).set(numbers(256, 2));
        for seed in 0..5 {
            x = Dropout { p: 0.3, seed }.forward(x.matmul(w).tanh());
        }
        let loss = x.square().mean(..).retrieve();
        let grads = cx.compile(Autograd::new(w, loss), ());
        let wanted = vec![loss, grads[0].retrieve()];
        Recorded { cx, wanted }
    };
    let [all, less] = check(&make, 30, "native");
    assert!(less.stats.arena_bytes < all.stats.arena_bytes);
    let randoms = |remat: Option<Remat>| {
        let mut cx = make().cx;
        match remat {
            Some(remat) => cx.compile((Generic, remat), ()),
            None => cx.compile(Generic, ()),
        };
        cx.to_text().matches("= random").count()
    };
    let budget = all.stats.arena_bytes * 30 / 100;
    assert_eq!(randoms(None), 5);
    assert!(randoms(Some(Remat::new(budget))) > 5);
}

/// The later passes are those of `LlvmCpu`, one of which merges equal nodes.
#[cfg(feature = "llvm-backend")]
#[test]
fn later_passes_do_not_undo_it() {
    let again = |budget: usize| {
        let mut cx = perceptron(|x| x.silu()).cx;
        cx.compile((Generic, Remat::new(budget)), ());
        let report = cx.compile((Generic, LlvmCpu::native()), ());
        cx.execute();
        (report.hits("cse"), cx.stats().arena_bytes)
    };
    let (_, all) = again(usize::MAX);
    let (merged, less) = again(all / 2);
    assert!(less <= all / 2 + all / 8, "{less} of {all}");
    assert_eq!(merged, 0);
}

#[test]
fn the_reference_computes_the_same() {
    let run = |remat: Option<Remat>| {
        let Recorded { mut cx, wanted } = perceptron(|x| x.gelu());
        match remat {
            Some(remat) => cx.compile((Generic, remat), ()),
            None => cx.compile(Generic, ()),
        };
        cx.execute();
        cx.execute();
        let values: Vec<Vec<f32>> = wanted.iter().map(|value| value.data()).collect();
        bits(&values)
    };
    assert_eq!(run(Some(Remat::new(100_000))), run(None));
}

#[test]
fn sizes_are_those_given_or_set() {
    let make = || {
        let mut cx = Graph::new();
        let x = cx.input(('s', 8), DType::F32);
        let w: Vec<f32> = numbers(64, 1).iter().map(|x| x * 0.2).collect();
        let w = cx.input((8, 8), DType::F32).set(w);
        let y = (0..6).fold(x, |y, _| y.matmul(w).silu());
        let grads = cx.compile(Autograd::new(w, y.sum(..)), ());
        let dw = grads[0].retrieve();
        (cx, x, dw)
    };
    let (mut cx, _, _) = make();
    let error = cx.try_compile((Generic, Remat::new(1000)), ());
    let error = error.expect_err("no size").to_string();
    assert!(
        error.contains("`remat`") && error.contains("`s`"),
        "{error}"
    );
    let run = |remat: Option<Remat>, set: Option<usize>| {
        let (mut cx, x, dw) = make();
        set.into_iter().for_each(|size| cx.set_dim('s', size));
        let report = match remat {
            Some(remat) => cx.compile((Generic, remat, LlvmCpu::native()), ()),
            None => cx.compile((Generic, LlvmCpu::native()), ()),
        };
        cx.set_dim('s', 50);
        x.set(numbers(400, 4));
        cx.execute();
        (dw.data(), cx.stats().arena_bytes, report)
    };
    let (dw, bytes, _) = run(None, None);
    let given = run(Some(Remat::new(bytes * 3 / 4).at('s', 50)), Some(1));
    let set = run(Some(Remat::new(bytes * 3 / 4)), Some(50));
    for (same, fewer, report) in [given, set] {
        assert_eq!(same, dw);
        assert!(fewer <= bytes * 3 / 4, "{report}");
        assert_eq!(named(&report), (bytes, fewer));
    }
    let (same, all, report) = run(Some(Remat::new(bytes * 3 / 4)), Some(1));
    assert_eq!((same, all, report.hits("remat")), (dw, bytes, 0));
}
