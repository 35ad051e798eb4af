//! Matrix products.

use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::Family;

fn einsum(c: &Call<'_>) -> GraphTensor {
    let Arg::Str(formula) = &c.args[0] else {
        panic!("einsum without a formula")
    };
    GraphTensor::einsum(formula, &c.input.tensors())
}

/// `beta * input + alpha * product`, where a `beta` of 0 hides the input.
fn add_product(c: &Call<'_>, product: GraphTensor) -> GraphTensor {
    let scaled = product * c.float(usize::MAX, "alpha", 1.0);
    match c.float(usize::MAX, "beta", 1.0) {
        0.0 => scaled,
        beta => c.x() * beta + scaled,
    }
}

fn tensordot(c: &Call<'_>) -> GraphTensor {
    let (a, b) = (c.x(), c.t(0));
    let pairs = c.kw("dims").expect("tensordot has dims").list();
    let (left, right) = (pairs[0].ints(), pairs[1].ints());
    let name = |axis: usize| char::from(b'a' + axis as u8);
    let a_names: Vec<char> = (0..a.rank()).map(name).collect();
    let mut b_names: Vec<char> = (0..b.rank()).map(|axis| name(a.rank() + axis)).collect();
    for (&l, &r) in left.iter().zip(&right) {
        b_names[r as usize] = a_names[l as usize];
    }
    let free = |own: &[char], other: &[char]| -> String {
        own.iter().filter(|l| !other.contains(l)).collect()
    };
    let formula = format!(
        "{},{}->{}{}",
        String::from_iter(&a_names),
        String::from_iter(&b_names),
        free(&a_names, &b_names),
        free(&b_names, &a_names)
    );
    GraphTensor::einsum(&formula, &[a, b])
}

pub const FAMILY: Family = Family {
    ops: &[
        ("matmul", |c| c.x().matmul(c.t(0)).into()),
        ("mm", |c| c.x().matmul(c.t(0)).into()),
        ("bmm", |c| c.x().matmul(c.t(0)).into()),
        ("dot", |c| c.x().dot(c.t(0)).into()),
        ("outer", |c| c.x().outer(c.t(0)).into()),
        ("einsum", |c| einsum(c).into()),
        ("tensordot", |c| tensordot(c).into()),
        ("addmm", |c| add_product(c, c.t(0).matmul(c.t(1))).into()),
        ("addbmm", |c| {
            let product = GraphTensor::einsum("bij,bjk->ik", &[c.t(0), c.t(1)]);
            add_product(c, product).into()
        }),
        ("baddbmm", |c| add_product(c, c.t(0).matmul(c.t(1))).into()),
        ("linalg.multi_dot", |c| {
            let all = c.input.tensors();
            let product = all.into_iter().reduce(|a, b| a.matmul(b));
            product.expect("there are operands").into()
        }),
        ("linalg.matrix_power", |c| {
            let factors = std::iter::repeat_n(c.x(), c.args[0].int() as usize);
            let power = factors.reduce(|a, b| a.matmul(b));
            power.expect("a positive exponent").into()
        }),
        ("trace", |c| c.x().diagonal(0, 0, 1).sum(0).into()),
    ],
    excluded: &[
        ("linalg.matrix_power#0", "an exponent of 0 is `eye`"),
        ("linalg.matrix_power#4", "matrices are not inverted"),
        ("linalg.matrix_power#5", "matrices are not inverted"),
        ("linalg.matrix_power#9", "matrices are not inverted"),
    ],
    n_cases: 120,
    rtol: 1e-4,
};
