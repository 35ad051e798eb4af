//! Gradients against central differences, computed by the reference executor in `f64`.

use brain_blitz::array::{Array, Data};
use brain_blitz::prelude::*;

/// A function to differentiate: any result; its elements are weighed differently.
pub type Function<'a> = &'a dyn Fn(&mut Graph, &[GraphTensor]) -> GraphTensor;

/// Half of the step of a difference, and how far the quotient may be from the gradient: the rounding of `f64`
/// (1e-16 / STEP) and the third derivative (STEP^2) both stay below.
const STEP: f64 = 1e-5;
const TOLERANCE: f64 = 1e-6;

/// Numbers between -1.6 and 1.6, none of them near a multiple of 0.5 (where functions used here have kinks), all
/// different.
pub fn spread(n: usize, phase: usize) -> Vec<f64> {
    let place = |i: usize| ((i * 7 + phase * 5 + 3) % 23) as f64;
    (0..n)
        .map(|i| (place(i) - 11.0) / 7.0 + 0.03 + i as f64 * 1.3e-3)
        .collect()
}

/// An `f64` array.
pub fn array(dims: &[usize], values: Vec<f64>) -> Array {
    Array::new(dims.to_vec(), Data::F64(values))
}

fn recorded(inputs: &[Array], f: Function<'_>) -> (Graph, Vec<GraphTensor>, GraphTensor) {
    let mut cx = Graph::new();
    let tensors: Vec<GraphTensor> = inputs
        .iter()
        .map(|x| cx.input(x.dims().to_vec(), DType::F64).set(x.clone()))
        .collect();
    let out = f(&mut cx, &tensors);
    let n: usize = out
        .dims()
        .iter()
        .map(|d| d.as_usize().expect("static"))
        .product();
    let weights = (0..n).map(|i| 0.5 + ((i * 5) % 11) as f64 / 10.0).collect();
    let weights = cx
        .input(vec![n], DType::F64)
        .set(array(&[n], weights))
        .reshape(out.dims());
    let loss = (out * weights).sum(..);
    (cx, tensors, loss)
}

fn loss_at(inputs: &[Array], f: Function<'_>) -> f64 {
    let (mut cx, _, loss) = recorded(inputs, f);
    let loss = loss.retrieve();
    cx.execute();
    loss.array().to_f64()[0]
}

/// The gradients by all inputs.
pub fn gradients(inputs: &[Array], f: Function<'_>) -> Vec<Array> {
    let (mut cx, tensors, loss) = recorded(inputs, f);
    let grads = cx.compile(Autograd::new(tensors, loss), ());
    grads.iter().for_each(|grad| {
        grad.retrieve();
    });
    cx.execute();
    grads.iter().map(|grad| grad.array()).collect()
}

/// Compares every element of every gradient with its central difference.
///
/// # Panics
/// If one differs.
pub fn check(name: &str, inputs: &[Array], f: Function<'_>) {
    let found = gradients(inputs, f);
    for (i, input) in inputs.iter().enumerate() {
        assert_eq!(found[i].dims(), input.dims(), "{name}");
        let values = input.to_f64();
        for at in 0..values.len() {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[at] += by;
                let mut inputs = inputs.to_vec();
                inputs[i] = array(input.dims(), values);
                loss_at(&inputs, f)
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let is = found[i].to_f64()[at];
            let close = (is - expected).abs() <= TOLERANCE * (1.0 + expected.abs());
            assert!(
                close,
                "{name}: input {i}, element {at}: {is} instead of {expected}"
            );
        }
    }
}
