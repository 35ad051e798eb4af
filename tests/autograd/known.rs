//! Functions whose gradient is known in closed form: it is used, and it is right in every order.

use super::check::{array, check, spread};
use brain_blitz::prelude::*;

type Function = fn(GraphTensor) -> GraphTensor;

/// Each function, and how many nodes its gradient may have, of the sum of all results by the input.
const KNOWN: [(&str, Function, usize); 5] = [
    ("tanh", |x| x.tanh(), 8),
    ("sigmoid", |x| x.sigmoid(), 8),
    ("erf", |x| x.erf(), 10),
    ("softmax", |x| x.softmax(1), 12),
    ("log_softmax", |x| x.log_softmax(1), 9),
];

#[test]
fn gradients_are_those_of_the_function_and_not_of_its_parts() {
    for (name, f, most) in KNOWN {
        let mut cx = Graph::new();
        let x = cx.tensor::<R2<4, 8>>().dynamic();
        let loss = f(x).sum(..);
        let before = cx.inspect(|dag| dag.len());
        cx.compile(Autograd::new(x, loss), ());
        let added = cx.inspect(|dag| dag.len()) - before;
        assert!((2..=most).contains(&added), "{name}: {added} nodes");
    }
}

#[test]
fn second_order_is_right_too() {
    let input = array(&[2, 3], spread(6, 2));
    for (name, f, _) in KNOWN {
        check(name, std::slice::from_ref(&input), &|cx, x| {
            let weighted = f(x[0]) * x[0].sin();
            cx.compile(Autograd::new(x[0], weighted), ())[0]
        });
    }
}

#[test]
fn third_order_of_tanh() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R0>().set(0.4);
    let mut f = x.tanh().dynamic();
    for _ in 0..3 {
        f = cx.compile(Autograd::new(x, f), ())[0];
    }
    f.retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), f);
    cx.execute();
    // (1 - y²)(6y² - 2), with y = tanh(0.4).
    let y = 0.4f64.tanh();
    let expected = (1.0 - y * y) * (6.0 * y * y - 2.0);
    assert!((f64::from(f.data()[0]) - expected).abs() < 1e-6, "{f:?}");
}

#[cfg(feature = "llvm-backend")]
#[test]
fn the_gradient_of_softmax_reads_its_result() {
    let mut cx = Graph::new();
    let (x, weights) = (
        cx.tensor::<R2<64, 96>>().set([[0.3; 96]; 64]).dynamic(),
        cx.tensor::<R2<64, 96>>().set([[0.7; 96]; 64]).dynamic(),
    );
    let y = ((x * 0.02).tanh() * 50.0).softmax(1);
    let loss = (y * weights).sum(..);
    let dx = cx.compile(Autograd::new(x, loss), ())[0];
    cx.compile(<(Generic, LlvmCpu)>::default(), dx);
    let text = cx.to_text();
    let kernels = text.matches("= kernel<").count();
    assert!((1..=6).contains(&kernels), "{text}");
}
