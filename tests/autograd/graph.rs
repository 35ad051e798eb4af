//! What `Autograd` builds: only what is needed, of any order, for any sizes, and what becomes of it.

use super::check::{array, check, spread};
use brain_blitz::prelude::*;

#[test]
fn gradients_of_gradients() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R0>().set(0.7);
    let y = (x.sin() * x).exp();
    let mut f = y.dynamic();
    for _ in 0..3 {
        f = cx.compile(Autograd::new(x, f), ())[0];
    }
    f.retrieve();
    cx.compile(Generic, ());
    cx.execute();
    // d3/dx3 exp(x sin x), from its Taylor series around 0.7 computed to 30 digits.
    let expected = third_derivative(0.7);
    assert!(
        (f64::from(f.data()[0]) - expected).abs() < 2e-4 * expected.abs(),
        "{f:?} {expected}"
    );
}

/// With u = x sin x: (u''' + 3 u' u'' + u'^3) e^u.
fn third_derivative(x: f64) -> f64 {
    let (s, c) = x.sin_cos();
    let u = x * s;
    let (u1, u2, u3) = (s + x * c, 2.0 * c - x * s, -3.0 * s - x * c);
    (u3 + 3.0 * u1 * u2 + u1.powi(3)) * u.exp()
}

#[test]
fn second_order_through_products_and_softmax() {
    let inputs = [array(&[2, 3], spread(6, 1)), array(&[3, 2], spread(6, 4))];
    check("gradient of a gradient", &inputs, &|cx, x| {
        let loss =
            (x[0].matmul(x[1]).softmax(1) * x[0].sum(1).reshape((2, 1)).expand((2, 2))).square();
        cx.compile(Autograd::new(x[0], loss), ())[0] * x[0]
    });
}

#[test]
fn what_no_parameter_needs_is_not_built() {
    let nodes = |both: bool| {
        let mut cx = Graph::new();
        let (a, b) = (cx.tensor::<R2<4, 4>>(), cx.tensor::<R2<4, 4>>());
        let loss = (a.exp().matmul(b.exp())).dynamic().sum(..);
        match both {
            true => cx.compile(Autograd::new((a, b), loss), ()),
            false => cx.compile(Autograd::new(b, loss), ()),
        };
        cx.inspect(|dag| dag.len())
    };
    assert!(
        nodes(false) < nodes(true),
        "{} and {}",
        nodes(false),
        nodes(true)
    );
    let mut cx = Graph::new();
    let (a, b) = (
        cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]),
        cx.tensor::<R1<3>>(),
    );
    let loss = a.exp().dynamic().sum(..);
    let before = cx.inspect(|dag| dag.len());
    let db = cx.compile(Autograd::new(b, loss), ())[0].retrieve();
    let added = cx.inspect(|dag| dag.len()) - before;
    assert!(
        added <= 2,
        "a zero and the loss's own gradient, not {added} nodes"
    );
    cx.execute();
    assert_eq!(db.data(), [0.0; 3]);
}

#[test]
fn detached_values_are_constants() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>().set([2.0, 3.0]);
    let dx = cx.compile(Autograd::new(x, x * x.detach()), ())[0].retrieve();
    let constant = cx.no_grad(|| x * x * x);
    let dy = cx.compile(Autograd::new(x, constant * x), ())[0].retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    assert_eq!(dx.data(), [2.0, 3.0]);
    assert_eq!(dy.data(), [8.0, 27.0]);
}

#[test]
fn several_losses_and_shared_parameters_add_up() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>().set([2.0, 3.0]);
    let (a, b) = (x * 2.0, x * x);
    let sum = cx.compile(Autograd::new(x, (a, b)), ())[0].retrieve();
    let weights = cx.tensor::<R1<2>>().set([10.0, 100.0]);
    let weighted = cx.compile(Autograd::new(x, b).weighted(weights), ())[0].retrieve();
    cx.execute();
    assert_eq!(sum.data(), [6.0, 8.0]);
    assert_eq!(weighted.data(), [40.0, 600.0]);
}

#[test]
fn parts_of_a_tensor_and_inner_values_are_parameters_too() {
    let mut cx = Graph::new();
    let x = cx.input(4, DType::F32).set([1.0, 2.0, 3.0, 4.0]);
    let h = x * 3.0;
    let loss = (h * h).sum(..);
    let part = x.slice_axis(0, 1, 3);
    let grads = cx.compile(Autograd::new((part, h), loss), ());
    grads.iter().for_each(|grad| {
        grad.retrieve();
    });
    cx.execute();
    assert_eq!(grads[0].data(), [36.0, 54.0]);
    assert_eq!(grads[1].data(), [6.0, 12.0, 18.0, 24.0]);
}

#[test]
fn symbolic_sizes() {
    let mut cx = Graph::new();
    let x = cx.input(('s', 3), DType::F32);
    let w = cx
        .input((3, 2), DType::F32)
        .set(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let y = x.matmul(w);
    let part = y.slice_axis(0, 1, 's');
    let loss = (part * part).sum(..);
    let grads = cx.compile(Autograd::new((x, w), loss), ());
    let (dx, dw) = (grads[0].retrieve(), grads[1].retrieve());
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    for s in [2usize, 5] {
        let values: Vec<f32> = (0..3 * s).map(|i| i as f32 * 0.25 - 1.0).collect();
        x.set(values.clone());
        cx.set_dim('s', s);
        cx.execute();
        let mut fixed = Graph::new();
        let fx = fixed.input((s, 3), DType::F32).set(values);
        let fw = fixed
            .input((3, 2), DType::F32)
            .set(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let part = fx.matmul(fw).slice_axis(0, 1, s);
        let grads = fixed.compile(Autograd::new((fx, fw), (part * part).sum(..)), ());
        let expected = [grads[0].retrieve(), grads[1].retrieve()];
        fixed.execute();
        for (found, expected) in [dx, dw].iter().zip(expected) {
            let (found, expected) = (found.data(), expected.data());
            assert_eq!(found.len(), expected.len());
            assert!(
                found
                    .iter()
                    .zip(&expected)
                    .all(|(a, b)| (a - b).abs() < 1e-3),
                "{found:?} {expected:?}"
            );
            assert!(found.iter().any(|x| *x != 0.0));
        }
    }
}

#[test]
fn wrong_uses_say_what_is_wrong() {
    let (mut cx, mut other) = (Graph::new(), Graph::new());
    let x = cx.tensor::<R1<2>>();
    let foreign = other.tensor::<R1<2>>();
    let error = |result: Result<_>| match result {
        Err(e) => Error::to_string(&e),
        Ok(_) => panic!("no error"),
    };
    let text = error(cx.try_compile(Autograd::new(foreign, x), ()).map(|_| ()));
    assert!(text.contains("another graph"), "{text}");
    let text = error(cx.try_compile(Autograd::new(x, ()), ()).map(|_| ()));
    assert!(text.contains("no loss"), "{text}");
    let text = error(cx.try_compile(Autograd::new(x, x.lt(1.0)), ()).map(|_| ()));
    assert!(text.contains("no floating-point"), "{text}");
}

#[cfg(feature = "llvm-backend")]
#[test]
fn compiled_graphs_have_no_gradients() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>();
    let y = (x.exp() + 1.0).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    match cx.try_compile(Autograd::new(x, y), ()) {
        Err(e) => assert!(e.to_string().contains("compiled already"), "{e}"),
        Ok(_) => panic!("no error"),
    }
}

#[test]
fn in_a_pipeline_the_gradients_are_kept() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>().set([2.0, 3.0]);
    let report = cx.compile(
        (Generic, Autograd::new(x, x * x), Generic, LlvmCpu::native()),
        (),
    );
    cx.execute();
    assert_eq!(report.values[0].data(), [4.0, 6.0]);
}

#[cfg(feature = "llvm-backend")]
#[test]
fn backward_products_are_contractions() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R2<8, 16>>();
    let w1 = cx.tensor::<R2<16, 32>>();
    let w2 = cx.tensor::<R2<32, 4>>();
    let loss = x.matmul(w1).relu().matmul(w2).dynamic().square().sum(..);
    let grads = cx.compile(Autograd::new((w1, w2), loss), ());
    let grads = (grads[0], grads[1]);
    let report = cx.compile(<(Generic, LlvmCpu)>::default(), (loss, grads));
    // Two forward, two for the weights' gradients, one for the hidden layer's.
    assert_eq!(report.hits("contraction"), 5, "{report}");
}
