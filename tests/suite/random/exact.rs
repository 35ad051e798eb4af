//! Steps on whole numbers that every format involved holds exactly, so that any order of evaluation gives the same.

use brain_blitz::prelude::*;
use brain_blitz::shape::numel;

use super::build::{Build, Value, exact_limit};
use super::library;

/// A step of arithmetic on some value; `None` if the drawn one does not fit.
pub fn step(build: &mut Build) -> Option<Value> {
    match build.dice.below(18) {
        0 | 1 => elementwise(build),
        2..=5 => binary(build),
        6 => compare(build),
        7 => choose(build),
        8..=10 => reduce(build),
        11 | 12 => product(build),
        13 => cast(build),
        14 => look_up(build),
        16 | 17 => library::step(build),
        _ => write(build),
    }
}

/// A value, unless it would leave the numbers that its format holds.
pub fn exact(t: GraphTensor, magnitude: f64) -> Option<Value> {
    (magnitude <= exact_limit(t.dtype())).then_some(Value {
        t,
        magnitude,
        error: 0.0,
    })
}

/// The value as numbers rather than truths.
fn numeric(build: &mut Build, value: Value) -> Value {
    if value.t.dtype() != DType::Bool {
        return value;
    }
    let dtype = build.dice.pick(&[DType::F32, DType::I32]);
    Value {
        t: value.t.cast(dtype),
        ..value
    }
}

/// The value with magnitudes of at most `most`.
pub fn at_most(value: Value, most: f64) -> Value {
    if value.magnitude <= most {
        return value;
    }
    Value {
        t: value.t % (most + 1.0).floor(),
        magnitude: most.floor(),
        ..value
    }
}

/// Some value, as numbers.
pub fn number(build: &mut Build) -> Option<Value> {
    let value = build.any()?;
    Some(numeric(build, value))
}

/// Two numbers of one format whose shapes broadcast.
fn two(build: &mut Build) -> Option<(Value, Value)> {
    let a = number(build)?;
    let b = build.partner(a);
    let b = numeric(build, b);
    let b = at_most(b, exact_limit(a.t.dtype()) - 1.0);
    Some((
        a,
        Value {
            t: b.t.cast(a.t.dtype()),
            ..b
        },
    ))
}

fn elementwise(build: &mut Build) -> Option<Value> {
    let a = number(build)?;
    let (t, m) = (a.t, a.magnitude);
    let constant = build.dice.between(-5, 5) as f64;
    match build.dice.below(7) {
        0 => exact(-t, m),
        1 => exact(t.abs(), m),
        2 => exact(t.sign(), 1.0),
        3 => exact(t + constant, m + 5.0),
        4 => exact(constant * t, m * 5.0),
        5 => {
            let a = at_most(a, exact_limit(t.dtype()).sqrt().floor() - 1.0);
            exact(a.t.square(), a.magnitude * a.magnitude)
        }
        _ => {
            let modulus = build.dice.between(2, 40) as f64;
            exact(t % modulus, m.min(modulus - 1.0))
        }
    }
}

fn binary(build: &mut Build) -> Option<Value> {
    let (a, b) = two(build)?;
    let larger = a.magnitude.max(b.magnitude);
    let limit = exact_limit(a.t.dtype());
    let kind = build.dice.below(6);
    let (a, b) = match kind {
        0 | 1 => (at_most(a, limit / 2.0 - 1.0), at_most(b, limit / 2.0 - 1.0)),
        2 => {
            let most = limit.sqrt().floor() - 1.0;
            (at_most(a, most), at_most(b, most))
        }
        _ => (a, b),
    };
    match kind {
        0 => exact(a.t + b.t, a.magnitude + b.magnitude),
        1 => exact(a.t - b.t, a.magnitude + b.magnitude),
        2 => exact(a.t * b.t, a.magnitude * b.magnitude),
        3 => exact(a.t.maximum(b.t), larger),
        4 => exact(a.t.minimum(b.t), larger),
        // The divisor is odd, so never zero.
        _ => {
            let odd = at_most(b, 20.0).t * 2.0 + 1.0;
            exact(a.t % odd, a.magnitude)
        }
    }
}

fn truth(build: &mut Build) -> Option<Value> {
    let (a, b) = two(build)?;
    let t = match build.dice.below(6) {
        0 => a.t.lt(b.t),
        1 => a.t.gt(b.t),
        2 => a.t.le(b.t),
        3 => a.t.ge(b.t),
        4 => a.t.eq(b.t),
        _ => a.t.ne(b.t),
    };
    exact(t, 1.0)
}

fn compare(build: &mut Build) -> Option<Value> {
    let made = truth(build)?;
    let truths: Vec<Value> = build
        .pool
        .iter()
        .filter(|value| value.t.ty() == made.t.ty())
        .copied()
        .collect();
    if truths.is_empty() {
        return exact(!made.t, 1.0);
    }
    let other = build.dice.pick(&truths);
    match build.dice.below(3) {
        0 => exact(made.t & other.t, 1.0),
        1 => exact(made.t | other.t, 1.0),
        _ => Some(made),
    }
}

fn choose(build: &mut Build) -> Option<Value> {
    let (a, b) = two(build)?;
    let condition = build.partner(a).t.cast(DType::Bool);
    let shape = super::build::broadcast(&condition.dims(), &a.t.dims())?;
    super::build::broadcast(&shape, &b.t.dims())?;
    exact(condition.where_(a.t, b.t), a.magnitude.max(b.magnitude))
}

fn reduce(build: &mut Build) -> Option<Value> {
    let a = build.any()?;
    let rank = a.t.rank();
    let mut axes: Vec<usize> = (0..rank).collect();
    build.dice.shuffle(&mut axes);
    axes.truncate(build.dice.below(rank + 1));
    let sizes: Vec<Expr> = axes.iter().map(|&axis| a.t.dims()[axis]).collect();
    let (n, smallest) = (build.largest(numel(&sizes)), build.smallest(numel(&sizes)));
    let keep = build.dice.one_in(3);
    if build.dice.one_in(3) {
        if smallest == 0 {
            return None;
        }
        let t = if keep {
            a.t.max_keepdim(axes)
        } else {
            a.t.max(axes)
        };
        return exact(t, a.magnitude);
    }
    let a = numeric(build, a);
    let a = at_most(a, (exact_limit(a.t.dtype()) / n.max(1) as f64).floor());
    let t = if keep {
        a.t.sum_keepdim(axes)
    } else {
        a.t.sum(axes)
    };
    exact(t, a.magnitude * n as f64)
}

/// Sums of products: over the last axes of both, each operand having axes of its own in front.
fn product(build: &mut Build) -> Option<Value> {
    let a = number(build)?;
    let b = build.any()?;
    let b = numeric(build, b);
    let (a_dims, b_dims) = (a.t.dims(), b.t.dims());
    let shared: Vec<(usize, usize)> = (0..a_dims.len())
        .flat_map(|i| (0..b_dims.len()).map(move |j| (i, j)))
        .filter(|&(i, j)| a_dims[i] == b_dims[j])
        .collect();
    if shared.is_empty() {
        return None;
    }
    let (i, j) = build.dice.pick(&shared);
    let k = build.largest(a_dims[i]);
    let limit = exact_limit(a.t.dtype());
    let most = (limit / k.max(1) as f64).sqrt().floor();
    if most < 1.0 {
        return None;
    }
    let (a, b) = (at_most(a, most), at_most(b, most));
    let (x, y) = (a.t, b.t.cast(a.t.dtype()));
    let magnitude = a.magnitude * b.magnitude * k as f64;
    let (m_rank, n_rank) = (x.rank() - 1, y.rank() - 1);
    let rest = |dims: &[Expr], at: usize| {
        let mut dims = dims.to_vec();
        dims.remove(at);
        dims
    };
    let (m, n) = (rest(&a_dims, i), rest(&b_dims, j));
    let out: Vec<Expr> = m.iter().chain(&n).copied().collect();
    let all: Vec<Expr> = out.iter().copied().chain([a_dims[i]]).collect();
    if m_rank + n_rank > 4
        || build.largest(numel(&all)) > 10 * build.max_elements
        || !build.fits(&out)
    {
        return None;
    }
    if x.rank() == 2 && y.rank() == 2 && build.dice.one_in(2) {
        let x = if i == 1 { x } else { x.transpose(0, 1) };
        let y = if j == 0 { y } else { y.transpose(0, 1) };
        return exact(x.matmul(y), magnitude);
    }
    let order = |rank: usize, at: usize| (0..rank).filter(move |&axis| axis != at).chain([at]);
    let mut x = x.permute(order(m_rank + 1, i).collect::<Vec<_>>());
    let mut y = y.permute(order(n_rank + 1, j).collect::<Vec<_>>());
    for (at, &size) in n.iter().enumerate() {
        x = x.insert_axis(m_rank + at, size);
    }
    for (at, &size) in m.iter().enumerate() {
        y = y.insert_axis(at, size);
    }
    exact((x * y).sum(-1), magnitude)
}

fn cast(build: &mut Build) -> Option<Value> {
    let a = build.any()?;
    let dtype = build.dice.pick(&[
        DType::F32,
        DType::I32,
        DType::F64,
        DType::BF16,
        DType::F16,
        DType::Bool,
    ]);
    if dtype == DType::Bool {
        return exact(a.t.cast(dtype), 1.0);
    }
    let a = at_most(a, exact_limit(dtype) - 1.0);
    exact(a.t.cast(dtype), a.magnitude)
}

/// `I32` numbers in `0..end`: an input's, or computed from a value.
fn indices(build: &mut Build, dims: &[Expr], end: i64) -> Option<GraphTensor> {
    let computed = build
        .pool
        .iter()
        .find(|value| value.t.dims()[..] == *dims && value.t.dtype() != DType::Bool)
        .copied();
    match computed {
        Some(value) if build.dice.one_in(2) => Some((value.t.abs() % end as f64).cast(DType::I32)),
        _ => build.input(dims, DType::I32, Some(end)),
    }
}

fn look_up(build: &mut Build) -> Option<Value> {
    let a = build.any()?;
    let axis = build.dice.below(a.t.rank().max(1));
    let mut dims = a.t.dims().to_vec();
    let end = build.smallest(*dims.get(axis)?);
    if end == 0 {
        return None;
    }
    let n = Expr::from(build.dice.between(1, 9));
    dims[axis] = n;
    if !build.fits(&dims) {
        return None;
    }
    if build.dice.one_in(2) {
        let index = indices(build, &[n], end)?;
        return exact(a.t.index_select(axis, index), a.magnitude);
    }
    let index = indices(build, &dims, end)?;
    exact(a.t.gather(axis, index), a.magnitude)
}

fn write(build: &mut Build) -> Option<Value> {
    let a = number(build)?;
    let axis = build.dice.below(a.t.rank().max(1));
    let end = build.smallest(*a.t.dims().get(axis)?);
    if end == 0 {
        return None;
    }
    let n = build.dice.between(1, 5);
    let mut dims = a.t.dims().to_vec();
    dims[axis] = Expr::from(n);
    let index = indices(build, &dims, end)?;
    let a = at_most(a, exact_limit(a.t.dtype()) / 8.0 - 1.0);
    let updates = at_most(a, 9.0).t.gather(axis, index) + 1.0;
    match build.dice.below(3) {
        0 => exact(a.t.scatter(axis, index, updates), a.magnitude.max(10.0)),
        1 => exact(
            a.t.scatter_add(axis, index, updates),
            a.magnitude + 10.0 * n as f64,
        ),
        _ => exact(a.t.scatter_max(axis, index, updates), a.magnitude.max(10.0)),
    }
}

/// Some rows of a state replaced by others of it: an update that can happen in place.
pub fn rows(build: &mut Build, state: GraphTensor) -> Option<GraphTensor> {
    let axis = build.dice.below(state.rank());
    let end = build.smallest(state.dims()[axis]);
    if end == 0 {
        return None;
    }
    let mut dims = state.dims().to_vec();
    dims[axis] = Expr::from(build.dice.between(1, 3));
    let [to, from] = [(); 2].map(|()| build.input(&dims, DType::I32, Some(end)));
    let (to, from) = (to?, from?);
    Some(state.scatter(axis, to, state.gather(axis, from)))
}
