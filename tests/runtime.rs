//! How compiled graphs run: in how many calls, from which memory, in how much of it.
#![cfg(feature = "llvm-backend")]

#[path = "support/gemma2.rs"]
mod gemma2;

use std::sync::Arc;

use brain_blitz::nn::CacheType;
use brain_blitz::nn::models::{LanguageModel, NEW_TOKENS, PAST_TOKENS, Rows};
use brain_blitz::prelude::*;

/// Sums over the first `n` of eight rows, and twice the rows.
fn sums_of_some_rows(cx: &mut Graph) -> [GraphTensor; 3] {
    let x = cx.input((8, 40), DType::F32);
    let some = x.slice_axis(0, 0, Expr::from('n'));
    let sums = some.sum(0).retrieve();
    [x, sums, (x * 2.0).retrieve()]
}

#[test]
fn only_what_depends_on_a_changed_symbol_is_evaluated_again() {
    let mut cx = Graph::new();
    let [x, sums, twice] = sums_of_some_rows(&mut cx);
    x.set(vec![1.0; 8 * 40]);
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    let mut evaluated = |n: usize| {
        cx.set_dim('n', n);
        cx.execute();
        assert_eq!(sums.data(), [n as f32; 40]);
        assert_eq!(twice.data(), [2.0; 8 * 40]);
        cx.stats().evaluated
    };
    assert_eq!([2, 2, 3, 8, 8].map(&mut evaluated), [2, 0, 1, 1, 0]);
    // What a view assumes is asked again too.
    cx.set_dim('n', 9);
    let error = cx.try_execute().expect_err("9 of 8 rows").to_string();
    assert!(error.contains("must not be negative"), "{error}");
    let mut evaluated = |n: usize, x0: f32| {
        x.set(vec![x0; 8 * 40]);
        cx.set_dim('n', n);
        cx.execute();
        assert_eq!(sums.data(), [n as f32 * x0; 40]);
        cx.stats().evaluated
    };
    assert_eq!([evaluated(5, 1.0), evaluated(4, 2.0)], [2, 1]);
}

#[test]
fn symbols_of_sizes_lay_everything_out_again() {
    let mut cx = Graph::new();
    let (x, y) = perceptron(&mut cx, 's'.into(), &[8, 8, 4]);
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    for (s, calls) in [(1, true), (2, true), (2, false), (1, true)] {
        x.set(numbers(3, 8 * s));
        cx.set_dim('s', s);
        cx.execute();
        assert_eq!(y.data().len(), 4 * s);
        let stats = cx.stats();
        let all = if calls { stats.steps } else { 0 };
        assert_eq!(stats.evaluated, all, "{s}");
    }
}

#[test]
fn values_are_read_into_the_memory_of_those_before() {
    let mut cx = Graph::new();
    let (x, y) = perceptron(&mut cx, 's'.into(), &[8, 4]);
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    let mut out = Vec::with_capacity(100);
    let place = out.as_ptr();
    for s in [3, 1, 5] {
        x.set(numbers(3, 8 * s));
        cx.set_dim('s', s);
        cx.execute();
        y.try_data_into(&mut out).expect("it was executed");
        assert_eq!((&out, out.as_ptr()), (&y.data(), place));
    }
    x.try_data_into(&mut out).expect("inputs are there");
    assert_eq!(out, numbers(3, 8 * 5));
}

/// Numbers between -0.1 and 0.1.
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let uniform = brain_blitz::op::random::uniform(seed, 0, n).into_iter();
    uniform.map(|x| 0.2 * x - 0.1).collect()
}

/// A perceptron of these widths; its input is first of the inputs.
fn perceptron(cx: &mut Graph, rows: Expr, widths: &[usize]) -> (GraphTensor, GraphTensor) {
    let input = cx.input((rows, widths[0]), DType::F32);
    let mut x = input;
    for (i, pair) in widths.windows(2).enumerate() {
        let w = cx.input((pair[0], pair[1]), DType::F32);
        let b = cx.input(pair[1], DType::F32);
        w.set(numbers(i as u64, pair[0] * pair[1]));
        b.set(numbers(10 + i as u64, pair[1]));
        x = x.matmul(w) + b.expand((rows, pair[1]));
        if i + 2 < widths.len() {
            x = x.relu();
        }
    }
    (input, x.retrieve())
}

fn close(a: &[f32], b: &[f32]) -> bool {
    let near = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-5 * x.abs().max(0.1);
    a.len() == b.len() && a.iter().zip(b).all(near)
}

#[test]
fn a_small_graph_is_one_call() {
    for target in [LlvmCpu::native(), LlvmCpu::for_cpu("x86-64-v3")] {
        let mut cx = Graph::new();
        let (x, y) = perceptron(&mut cx, 1.into(), &[784, 128, 64, 10]);
        x.set(numbers(7, 784));
        cx.execute();
        let expected = y.data();
        assert_eq!(cx.stats().native_calls, 0);
        cx.compile((Generic, target), ());
        cx.execute();
        let stats = cx.stats();
        assert_eq!((stats.native_calls, stats.native_steps), (1, stats.steps));
        assert!(stats.steps >= 3, "{stats:?}");
        assert!(close(&y.data(), &expected));
        x.set(vec![0.0; 784]);
        cx.execute();
        assert!(!close(&y.data(), &expected), "the input changed");
    }
}

#[test]
fn a_large_graph_is_a_call_for_each_kernel() {
    let mut cx = Graph::new();
    let (x, _) = perceptron(&mut cx, 1.into(), &[784, 2048, 512]);
    x.set(numbers(7, 784));
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    let stats = cx.stats();
    assert_eq!(stats.native_calls, stats.steps);
    assert!(stats.steps > 1);
}

#[test]
fn a_graph_that_is_small_for_some_sizes() {
    let mut cx = Graph::new();
    let x = cx.input(('s', 8), DType::F32);
    let y = (x * 2.0).softmax(1).sum(0).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    let mut run = |rows: usize| {
        x.set(vec![0.5; rows * 8]);
        cx.set_dim('s', rows);
        cx.execute();
        assert_eq!(y.data(), vec![rows as f32 / 8.0; 8]);
        cx.stats().native_calls
    };
    assert_eq!(run(4), 1);
    assert!(run(1 << 17) > 1);
    assert_eq!(run(16), 1);
}

#[test]
fn a_bad_index_in_a_sequence_names_its_node() {
    let mut cx = Graph::new();
    let data = cx.input((4, 2), DType::F32).set(numbers(1, 8));
    let index = cx.input((3, 2), DType::I32).set([[0, 1]; 3]);
    let rows = (data * 2.0).sum(1).retrieve();
    let picked = data.gather(0, index).sum(1).set_name("picked").retrieve();
    let last = (picked.exp().sum(0) + rows.sum(0)).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    assert_eq!(cx.stats().native_calls, 1);
    let expected = last.data();
    index.set([[0, 1], [0, -5], [0, 1]]);
    let error = cx.try_execute().expect_err("no such row").to_string();
    assert!(error.contains("index -5 is out of range"), "{error}");
    assert!(
        error.contains("kernel f32[3] \"picked\" (recorded at tests"),
        "{error}"
    );
    last.try_array()
        .expect_err("nothing was computed to the end");
    index.set([[0, 1]; 3]);
    cx.execute();
    assert_eq!(last.data(), expected);
}

#[test]
fn inputs_whose_memory_moves() {
    let mut cx = Graph::new();
    let x = cx.input(4, DType::F32).set([1.0; 4]);
    let w = cx.input(4, DType::F32).set([1.0; 4]);
    let y = (x * w).sum(0).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    assert_eq!(y.data(), [4.0]);
    let shared = |value: f32| Arc::new([value.to_le_bytes(); 4].concat());
    for value in [2.0, 3.0] {
        w.try_set_shared(shared(value)).expect("16 bytes");
        cx.execute();
        assert_eq!(y.data(), [4.0 * value]);
    }
    w.set_zeros();
    cx.execute();
    assert_eq!(y.data(), [0.0]);
    w.set([5.0; 4]);
    x.set([1.0, 2.0, 3.0, 4.0]);
    cx.execute();
    assert_eq!(y.data(), [50.0]);
}

#[test]
fn a_state_in_memory_of_another_owner_is_copied_and_then_written() {
    let mut cx = Graph::new();
    let state = cx.input((3, 1), DType::F32);
    let memory = Arc::new(vec![0u8; 12]);
    state.try_set_shared(memory.clone()).expect("12 bytes");
    let index = cx.input((1, 1), DType::I32).set([[1]]);
    let one = cx.input((1, 1), DType::F32).set([[1.0]]);
    let new = (state * 1.0).scatter_add(0, index, one);
    state.assign(new);
    let total = new.sum(..).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    for run in 1..4 {
        cx.execute();
        assert_eq!(total.data(), [run as f32]);
        assert_eq!(state.data(), [0.0, run as f32, 0.0]);
    }
    assert_eq!(*memory, [0; 12]);
}

#[test]
fn one_kernel_is_no_sequence_and_has_threads() {
    let mut cx = Graph::new();
    let x = cx.input((512, 512), DType::F32).set_zeros();
    x.sum(1).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    assert_eq!((cx.stats().native_calls, cx.stats().steps), (1, 1));
}

/// Compiles, executes, and compares the arena with the most that is needed at once.
fn arena_is_tight(cx: &mut Graph) {
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    arena_was_tight(cx);
}

fn arena_was_tight(cx: &Graph) {
    let stats = cx.stats();
    assert!(stats.steps > 2, "{stats:?}");
    assert!(stats.arena_bytes >= stats.peak_live_bytes);
    assert!(
        stats.arena_bytes * 10 <= stats.peak_live_bytes * 11,
        "{stats:?}"
    );
}

#[test]
fn the_arena_of_a_perceptron() {
    let mut cx = Graph::new();
    let (x, _) = perceptron(&mut cx, 32.into(), &[784, 512, 96, 300, 10]);
    x.set_zeros();
    arena_is_tight(&mut cx);
}

#[test]
fn the_arena_of_attention() {
    let mut cx = Graph::new();
    let [q, k, v] = [0; 3].map(|_| cx.input((2, 4, 48, 16), DType::F32).set_zeros());
    let scores = (q.matmul(k.transpose(2, 3)) * 0.25).softmax(3);
    let mixed = scores.matmul(v).permute([0, 2, 1, 3]).reshape((2, 48, 64));
    let w = cx.input((64, 64), DType::F32).set_zeros();
    (mixed.matmul(w) + mixed).retrieve();
    arena_is_tight(&mut cx);
}

#[test]
fn the_arena_of_branches_of_different_sizes() {
    let mut cx = Graph::new();
    let x = cx.input((64, 64), DType::F32).set_zeros();
    let mut branches = Vec::new();
    for i in 1..9 {
        let rows = x.slice_axis(0, 0, 8 * i).softmax(1);
        let columns = rows.softmax(0);
        branches.push((rows * columns).sum(1).softmax(0));
    }
    let total = branches.iter().map(|branch| branch.sum(0));
    total.reduce(|a, b| a + b).expect("eight").retrieve();
    branches
        .iter()
        .for_each(|branch| drop(branch.softmax(0).retrieve().dims()));
    arena_is_tight(&mut cx);
}

#[test]
fn the_arena_of_a_language_model() {
    let mut cx = Graph::new();
    let (model, _) = gemma2::tiny(&mut cx, CacheType::F32);
    let tokens = cx.input(NEW_TOKENS, DType::I32);
    model.forward(tokens, Rows::Last).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    for (past, new) in [(0, 40), (40, 1), (41, 1), (42, 7)] {
        cx.set_dim(PAST_TOKENS, past);
        cx.set_dim(NEW_TOKENS, new);
        tokens.set(vec![3; new]);
        cx.execute();
        arena_was_tight(&cx);
    }
}
