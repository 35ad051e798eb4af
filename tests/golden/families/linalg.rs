//! Matrix products.

use brain_blitz::hl_ops::Axes;
use brain_blitz::prelude::*;

use crate::call::{Arg, Call};
use crate::outcome::{Family, unsupported};

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

fn matrix_power(c: &mut Call<'_>) -> GraphTensor {
    let x = c.x();
    let n = c.int(0, "n", 1);
    let x = if n < 0 { x.inverse() } else { x };
    if n == 0 {
        let dims = x.dims();
        let size = dims[dims.len() - 1];
        return c.cx.eye(size, size, x.dtype()).expand(dims);
    }
    let factors = std::iter::repeat_n(x, n.unsigned_abs() as usize);
    let power = factors.reduce(|a, b| a.matmul(b));
    power.expect("the exponent is not 0")
}

/// torch takes vectors for right sides, too.
fn solve(c: &Call<'_>) -> GraphTensor {
    let (a, b) = (c.x(), c.t(0));
    if !c.bool(usize::MAX, "left", true) {
        unsupported("a matrix on the right");
    }
    let (rank, lead) = (a.rank(), a.dims());
    let is_vector = b.rank() == 1 || (b.rank() + 1 == rank && b.dims()[..] == lead[..rank - 1]);
    match is_vector {
        true => a.solve(b.unsqueeze(-1)).squeeze(-1),
        false => a.solve(b),
    }
}

fn solve_triangular(c: &Call<'_>) -> GraphTensor {
    if !c.bool(usize::MAX, "left", true) {
        unsupported("a matrix on the right");
    }
    let upper = c.bool(usize::MAX, "upper", false);
    let unit = c.bool(usize::MAX, "unitriangular", false);
    c.x().solve_triangular(c.t(0), upper, unit)
}

/// The cross product of vectors of three along an axis.
fn cross(c: &Call<'_>) -> GraphTensor {
    let axis = c.int(1, "dim", -1);
    let turned = |x: GraphTensor, by: i64| x.roll(-by, axis);
    let (a, b) = (c.x(), c.t(0));
    turned(a, 1) * turned(b, 2) - turned(a, 2) * turned(b, 1)
}

fn cdist(c: &Call<'_>) -> GraphTensor {
    c.get(2, "compute_mode");
    c.x().cdist(c.t(0), c.float(1, "p", 2.0))
}

/// The norm of a vector.
fn norm(c: &Call<'_>) -> GraphTensor {
    let p = match c.get(0, "ord") {
        None => 2.0,
        Some(Arg::Str(_)) => unsupported("norms of matrices"),
        Some(p) => p.float(),
    };
    let is_all = c.get(0, "ord").is_none();
    let axes: Axes = match c.ints(1, "dim") {
        Some(axes) if axes.len() == 1 || is_all => Axes::List(axes.into_iter().collect()),
        None if c.x().rank() == 1 || is_all => Axes::All,
        _ => unsupported("norms of matrices"),
    };
    match c.bool(2, "keepdim", false) {
        true => c.x().norm_keepdim(axes, p),
        false => c.x().norm(axes, p),
    }
}

/// The inverse Fourier transform of a spectrum without imaginary parts: a product with cosines.
fn irfft(c: &mut Call<'_>) -> GraphTensor {
    let x = c.x();
    let axis = c.int(1, "dim", -1);
    let have = x.transpose(axis, -1).dims()[x.rank() - 1];
    let have = have.as_const().expect("static sizes");
    let n = c.int(0, "n", 2 * (have - 1));
    let half = n / 2 + 1;
    let x = x.transpose(axis, -1);
    let x = match half <= have {
        true => x.slice_axis(-1, 0, half),
        false => x.pad(-1, 0, half - have),
    };
    let (k, t) = (c.cx.arange(half).unsqueeze(1), c.cx.arange(n));
    // The angle is reduced as an integer, so that it stays exact.
    let angle = ((k * t) % (n as i32)).cast(DType::F32) * (std::f64::consts::TAU / n as f64);
    // All but the first and, of an even length, the last stand for two.
    let doubled = k.gt(0) & (k * 2).lt(n as i32);
    let weight = doubled.cast(DType::F32) + 1.0;
    let factor = match c.kw("norm").map_or("backward", Arg::str) {
        "ortho" => 1.0 / (n as f64).sqrt(),
        "forward" => 1.0,
        _ => 1.0 / n as f64,
    };
    let basis = angle.cos() * weight * factor;
    x.matmul(basis).transpose(axis, -1)
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
        ("linalg.matrix_power", |c| matrix_power(c).into()),
        ("linalg.det", |c| c.x().det().into()),
        ("linalg.slogdet", |c| {
            let (sign, logarithm) = c.x().slogdet();
            vec![sign, logarithm].into()
        }),
        ("linalg.inv", |c| c.x().inverse().into()),
        ("linalg.qr", |c| {
            let (q, r) = c.x().qr();
            vec![q, r].into()
        }),
        ("linalg.solve", |c| solve(c).into()),
        ("linalg.solve_triangular", |c| solve_triangular(c).into()),
        ("linalg.cholesky", |c| {
            let lower = c.x().cholesky();
            match c.bool(usize::MAX, "upper", false) {
                true => lower.transpose(-1, -2).into(),
                false => lower.into(),
            }
        }),
        ("mv", |c| c.x().matmul(c.t(0)).into()),
        ("cdist", |c| cdist(c).into()),
        ("linalg.cross", |c| cross(c).into()),
        ("linalg.norm", |c| norm(c).into()),
        ("fft.irfft", |c| irfft(c).into()),
        ("trace", |c| c.x().diagonal(0, 0, 1).sum(0).into()),
    ],
    excluded: &[],
    n_cases: 191,
    rtol: 1e-4,
};
