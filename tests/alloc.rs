//! In the steady state an execution allocates nothing: the counting allocator sees every request of this thread.
#![cfg(feature = "llvm-backend")]

#[path = "support/gemma2.rs"]
mod gemma2;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use brain_blitz::nn::CacheType;
use brain_blitz::nn::models::{LanguageModel, NEW_TOKENS, PAST_TOKENS, Rows};
use brain_blitz::op::{PlanePart, Planes};
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{AdamW, Optimizer, clip_grad_norm};
use brain_blitz::train::schedule::Schedule;

struct Counting;

thread_local! {
    /// Requests of this thread; `None` while nobody counts.
    static REQUESTS: Cell<Option<usize>> = const { Cell::new(None) };
}

fn count() {
    REQUESTS.set(REQUESTS.get().map(|n| n + 1));
}

// SAFETY: every request is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the contract of the trait, which the system's allocator is bound to as well.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is this one's.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the contract of the trait, which the system's allocator is bound to as well.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is this one's.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: the contract of the trait, which the system's allocator is bound to as well.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's contract is this one's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often `f` asks for memory.
fn requests(f: impl FnOnce()) -> usize {
    REQUESTS.set(Some(0));
    f();
    REQUESTS.take().expect("counting was switched on")
}

#[test]
fn the_counter_counts() {
    let n = requests(|| drop(std::hint::black_box(vec![1u8; 100])));
    assert_eq!(n, 1);
}

#[test]
fn executing_a_compiled_perceptron_again() {
    let mut cx = Graph::new();
    cx.set_threads(1);
    let (x, a) = (
        cx.input(('s', 64), DType::F32),
        cx.input((64, 96), DType::F32),
    );
    let b = cx.input((96, 10), DType::F32);
    let y = x.matmul(a).relu().matmul(b).softmax(-1).retrieve();
    a.set(vec![0.01; 64 * 96]);
    b.set(vec![0.02; 96 * 10]);
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    x.set(vec![1.0; 32 * 64]);
    cx.set_dim('s', 32);
    cx.execute();
    assert_eq!(requests(|| cx.execute()), 0);
    // A smaller size needs no new memory either, the first time that it comes.
    x.set(vec![1.0; 5 * 64]);
    cx.set_dim('s', 5);
    assert_eq!(requests(|| cx.execute()), 0);
    assert_eq!(y.data().len(), 50);
}

#[test]
fn products_with_epilogues() {
    let mut cx = Graph::new();
    cx.set_threads(1);
    let x = cx.input(('s', 48), DType::F32);
    let [gate, up, down] = [(70, 48), (70, 48), (30, 70)].map(|(n, k)| {
        let weight = cx.input((n, k), DType::F32);
        weight.set(vec![0.01; n * k]).transpose(0, 1)
    });
    let bias = cx.input(30, DType::F32).set(vec![0.5; 30]);
    let inner = x.matmul(gate).gelu() * x.matmul(up);
    let y = (inner.matmul(down) + bias).relu().retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    // Packed, dot products and a loop nest.
    for (s, again) in [(100, false), (100, true), (20, true), (1, true)] {
        x.set(vec![1.0; s * 48]);
        cx.set_dim('s', s);
        let n = requests(|| cx.execute());
        assert!(n == 0 || !again, "{s} rows: {n}");
        assert_eq!(cx.stats().steps, 2, "two products have one kernel");
    }
    assert_eq!(y.data().len(), 30);
}

#[test]
fn products_of_levels() {
    use brain_blitz::nn::{BinaryLinear, LowBit};
    let mut cx = Graph::new();
    cx.set_threads(1);
    let x = cx.input(('s', 70), DType::F32);
    let first = BinaryLinear::new(&mut cx, 70, 90, LowBit::w1a4().ternary()).latent();
    let second = BinaryLinear::new(&mut cx, 90, 20, LowBit::w1a2()).latent();
    first.weight.set(vec![0.25; 90 * 70]);
    second.weight.set(vec![-0.5; 20 * 90]);
    let y = second.forward(first.forward(x)).retrieve();
    // Levels that something else reads are numbers.
    let rows = x.pack_planes(Planes::Four);
    let levels = rows.unpack_planes(70, Planes::Four, PlanePart::Levels);
    let sum = levels.sum(-1).retrieve();
    let binarize = Binarize::w1a1().ternary().with_ends();
    let report = cx.compile((Generic, binarize, LlvmCpu::default()), ());
    assert_eq!(report.hits("sign-products"), 2, "{report}");
    for (s, again) in [(40, false), (40, true), (7, true), (1, true)] {
        x.set(vec![1.0; s * 70]);
        cx.set_dim('s', s);
        let n = requests(|| cx.execute());
        assert!(n == 0 || !again, "{s} rows: {n}");
    }
    assert_eq!((y.data().len(), sum.data()[0]), (20, 70.0 * 3.0));
}

#[test]
fn generating_tokens() {
    for ty in CacheType::ALL {
        let mut cx = Graph::new();
        cx.set_threads(1);
        let (model, config) = gemma2::tiny(&mut cx, ty);
        let tokens = cx.input(NEW_TOKENS, DType::I32);
        let logits = model.forward(tokens, Rows::Last).retrieve();
        cx.compile(<(Generic, LlvmCpu)>::default(), ());
        cx.set_dim(PAST_TOKENS, 0);
        cx.set_dim(NEW_TOKENS, 20);
        tokens.set(vec![3; 20]);
        cx.execute();
        cx.set_dim(NEW_TOKENS, 1);
        tokens.set([5]);
        for past in 20..40 {
            cx.set_dim(PAST_TOKENS, past);
            let n = requests(|| cx.execute());
            assert_eq!(n, 0, "{past} tokens in {ty} caches");
        }
        assert_eq!(logits.data().len(), config.vocab_size);
    }
}

#[test]
fn setting_an_input_of_the_same_size() {
    let mut cx = Graph::new();
    cx.set_threads(1);
    let x = cx.input((2, 3), DType::F32).set(vec![0.0; 6]);
    let nested = cx.tensor::<R2<2, 2>>().set([[0.0; 2]; 2]);
    let token = cx.input(1, DType::I32).set([0]);
    let y = (x.sum(..) + nested.dynamic().sum(..) + token.cast(DType::F32).sum(..)).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    let numbers = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let n = requests(|| {
        x.set(&numbers[..]);
        nested.set([[1.0f32, 2.0], [3.0, 4.0]]);
        token.set([7]);
        cx.execute();
    });
    assert_eq!((n, y.data()), (0, vec![38.0]));
    assert!(
        requests(|| {
            token.set([7i64]);
        }) > 0,
        "another format"
    );
    // One vector for the numbers and one for the shape.
    assert_eq!(
        requests(|| drop(y.data())),
        1,
        "a single number has no sizes"
    );
    assert_eq!(requests(|| drop(x.data())), 2);
}

#[test]
fn a_state_that_is_written_as_a_whole() {
    let mut cx = Graph::new();
    cx.set_threads(1);
    let state = cx.input(100, DType::F32).set_zeros();
    state.assign(state * 0.5 + 1.0);
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    assert_eq!(requests(|| cx.execute()), 0);
    assert_eq!(state.data(), [1.5; 100]);
}

#[test]
fn a_training_step() {
    let mut cx = Graph::new();
    cx.set_threads(1);
    let x = cx.input((16, 20), DType::F32).set(vec![0.1; 320]);
    let params = [(20, 30), (30, 4)].map(|(n, m)| {
        let numbers: Vec<f32> = (0..n * m).map(|i| (i % 7) as f32 * 0.01).collect();
        cx.input((n, m), DType::F32).set(numbers)
    });
    let y = x.matmul(params[0]).relu().matmul(params[1]);
    let loss = (y - 1.0).square().sum(..).retrieve();
    let grads = cx.compile(Autograd::new(params, loss), ());
    let (grads, _) = clip_grad_norm(&grads, 1.0);
    let schedule = Schedule::cosine(0.01, 0.0, 50).after_warm_up(2, 0.1);
    AdamW::new(schedule).step(&mut cx, &params, &grads);
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    let first = loss.data()[0];
    for _ in 0..5 {
        assert_eq!(requests(|| cx.execute()), 0);
    }
    assert_eq!(
        cx.stats().state_bytes_written,
        0,
        "nothing is copied either"
    );
    assert!(loss.data()[0] < first);
}
