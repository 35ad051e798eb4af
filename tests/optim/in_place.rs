//! A compiled step writes weights and moments where they are.

use brain_blitz::op::Op;
use brain_blitz::prelude::*;
use brain_blitz::train::optim::{Adam, AdamW, Lion, Optimizer, RmsProp, Sgd};

const SIZE: usize = 40_000;

/// Kernels, and bytes copied to states, of one step for `n` parameters with gradients that are data.
fn step(optimizer: &impl Optimizer, n: usize) -> (usize, usize) {
    let mut cx = Graph::new();
    let mut input = |value: f32| cx.input((200, 200), DType::F32).set(vec![value; SIZE]);
    let params: Vec<GraphTensor> = (0..n).map(|_| input(0.5)).collect();
    let grads: Vec<GraphTensor> = (0..n).map(|_| input(0.25)).collect();
    optimizer.step(&mut cx, &params, &grads);
    let report = cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    let stats = cx.stats();
    assert_eq!(stats.native_steps, stats.steps, "{report}");
    assert!(
        stats.arena_bytes < SIZE,
        "only scalars are in the arena, not {}",
        stats.arena_bytes
    );
    let kernels = cx.inspect(|dag| {
        let is_kernel = |op: &Op| matches!(op, Op::Kernel(_));
        dag.ids().filter(|&id| is_kernel(&dag.node(id).op)).count()
    });
    (kernels, stats.state_bytes_written)
}

/// Each parameter costs one kernel for each tensor that is assigned to, and nothing is copied.
#[test]
fn one_kernel_for_each_tensor_that_changes() {
    fn check(name: &str, optimizer: &impl Optimizer, n_tensors: usize) {
        let (one, copied) = step(optimizer, 1);
        let (three, _) = step(optimizer, 3);
        assert_eq!((three - one, copied), (2 * n_tensors, 0), "{name}");
        assert!(one - n_tensors <= 6, "{name}: {one} kernels with scalars");
    }
    check("sgd", &Sgd::new(0.1), 1);
    let momentum = Sgd {
        momentum: 0.9,
        ..Sgd::new(0.1)
    };
    check("momentum", &momentum, 2);
    check("adam", &Adam::new(0.1), 3);
    check("adamw", &AdamW::new(0.1), 3);
    check("rmsprop", &RmsProp::new(0.1), 2);
    check("lion", &Lion::new(0.1), 2);
}

/// The update of the first layer waits until the second layer's gradient was sent back through its weights.
#[test]
fn weights_change_after_the_backward_pass_has_read_them() {
    let run = |compiled: bool| {
        let mut cx = Graph::new();
        let numbers = |n: usize| {
            (0..n)
                .map(|i| ((i * 7 % 11) as f32 - 5.0) / 9.0)
                .collect::<Vec<_>>()
        };
        let x = cx.input((8, 24), DType::F32).set(numbers(8 * 24));
        let dims = [(24, 40), (40, 33), (33, 2)];
        let params = dims.map(|(n, m)| cx.input((n, m), DType::F32).set(numbers(n * m)));
        let hidden = params.iter().fold(x, |x, &w| x.matmul(w).tanh());
        let loss = hidden.square().sum(..).retrieve();
        let grads = cx.compile(Autograd::new(params, loss), ());
        Adam::new(0.001).step(&mut cx, &params, &grads);
        if compiled {
            cx.compile(<(Generic, LlvmCpu)>::default(), loss);
        }
        let losses: Vec<f32> = (0..6)
            .map(|_| {
                cx.execute();
                loss.data()[0]
            })
            .collect();
        (losses, cx.stats().state_bytes_written)
    };
    let ((found, copied), (wanted, _)) = (run(true), run(false));
    assert_eq!(copied, 0);
    assert!(wanted[5] < wanted[0], "{wanted:?}");
    for (a, b) in found.iter().zip(&wanted) {
        assert!((a - b).abs() <= 1e-4 * b, "{found:?} {wanted:?}");
    }
}
