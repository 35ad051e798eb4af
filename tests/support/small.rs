//! Inputs for tests of long sums.

use brain_blitz::prelude::*;

/// Numbers between -1 and 1.05.
pub fn numbers(n: usize, phase: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 37 + phase * 29 + 5) % 83) as f32 / 40.0 - 1.0)
        .collect()
}

/// A tensor of numbers between -1 and 1.05.
pub fn input(cx: &mut Graph, dims: &[usize], phase: usize) -> GraphTensor {
    let exprs: Vec<Expr> = dims.iter().map(|&dim| Expr::from(dim)).collect();
    cx.input(exprs, DType::F32)
        .set(numbers(dims.iter().product(), phase))
}
