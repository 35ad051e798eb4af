//! Every op and the methods built of them.

use super::check::{array, check, gradients, spread};
use brain_blitz::array::Array;
use brain_blitz::hl_ops::Reduction;
use brain_blitz::op::{BinaryOp, Op, ReduceOp, ScatterMode, UnaryOp, table::ROWS};
use brain_blitz::prelude::*;

fn positive(n: usize, phase: usize) -> Vec<f64> {
    spread(n, phase).iter().map(|x| x.abs() + 0.3).collect()
}

fn matrix(phase: usize) -> Array {
    array(&[2, 3], spread(6, phase))
}

#[test]
fn every_unary_op() {
    for op in [
        UnaryOp::Log2,
        UnaryOp::Exp2,
        UnaryOp::Sin,
        UnaryOp::Sqrt,
        UnaryOp::Recip,
    ] {
        let op = Op::Unary(op);
        check(op.name(), &[array(&[5], positive(5, 1))], &|cx, x| {
            cx.record(op.clone(), x)
        });
    }
    for op in [Op::Contiguous, Op::Cast(DType::F64)] {
        check(op.name(), &[matrix(1)], &|cx, x| {
            cx.record(op.clone(), x) * x[0]
        });
    }
}

#[test]
fn every_binary_op() {
    for op in [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Mod] {
        let op = Op::Binary(op);
        let inputs = [array(&[6], spread(6, 1)), array(&[6], positive(6, 2))];
        check(op.name(), &inputs, &|cx, x| cx.record(op.clone(), x));
    }
    check("select", &[matrix(1), matrix(2)], &|_, x| {
        x[0].lt(x[1]).where_(x[0] * x[1], x[1])
    });
}

#[test]
fn every_reduction() {
    for op in [ReduceOp::Sum, ReduceOp::Max] {
        for axes in [vec![], vec![0], vec![1], vec![0, 2], vec![0, 1, 2]] {
            let op = Op::Reduce(op, axes.into_iter().collect());
            let input = array(&[2, 3, 2], spread(12, 3));
            check(op.name(), &[input], &|cx, x| cx.record(op.clone(), x));
        }
    }
}

#[test]
fn equal_largest_elements_share_the_gradient() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<4>>().set([2.0, 5.0, 5.0, 1.0]);
    let dx = cx.compile(Autograd::new(x, x.dynamic().max(..)), ())[0].retrieve();
    cx.execute();
    assert_eq!(dx.data(), [0.0, 0.5, 0.5, 0.0]);
}

#[test]
fn gather_and_scatter() {
    let index =
        |cx: &mut Graph, values: [i32; 6]| cx.input((2, 3), DType::I32).set(values.to_vec());
    let data = array(&[4, 3], spread(12, 1));
    check("gather", std::slice::from_ref(&data), &|cx, x| {
        let index = index(cx, [3, 0, 3, 1, 0, 3]);
        cx.record(Op::Gather { axis: 0 }, &[x[0], index]) * 2.0
    });
    check("gather one", std::slice::from_ref(&data), &|cx, x| {
        let index = cx.input((4, 1), DType::I32).set(vec![2, 0, 0, 1]);
        cx.record(Op::Gather { axis: 1 }, &[x[0], index])
    });
    for mode in [ScatterMode::Set, ScatterMode::Add, ScatterMode::Max] {
        for values in [[3, 0, 3, 1, 0, 2], [0, 1, 2, 3, 2, 1]] {
            let op = Op::Scatter { axis: 0, mode };
            let inputs = [data.clone(), matrix(4)];
            check(mode.name(), &inputs, &|cx, x| {
                let index = index(cx, values);
                cx.record(op.clone(), &[x[0], index, x[1]])
            });
        }
    }
}

#[test]
fn one_index_a_row_needs_no_scatter() {
    let scatters = |dims: (usize, usize), axis| {
        let mut cx = Graph::new();
        let data = cx.input((4, 4), DType::F32);
        let index = cx.input(dims, DType::I32);
        let read = cx.record(Op::Gather { axis }, &[data, index]);
        cx.compile(Autograd::new(data, read), ());
        let is_scatter = |dag: &brain_blitz::graph::Dag| {
            let ops = dag.ids().map(|id| dag.node(id).op.name());
            ops.filter(|name| *name == "scatter").count()
        };
        cx.inspect(is_scatter)
    };
    assert_eq!((scatters((4, 1), 1), scatters((1, 4), 0)), (0, 0));
    assert_eq!((scatters((4, 2), 1), scatters((4, 4), 0)), (1, 1));
}

#[test]
fn ops_that_carry_no_gradient_are_these() {
    let without: Vec<&str> = ROWS
        .iter()
        .filter(|r| r.gradient.is_none())
        .map(|r| r.name)
        .collect();
    assert_eq!(
        without,
        [
            "input",
            "constant",
            "iota",
            "random",
            "less_than",
            "detach",
            "quantize",
            "dequantize",
            "pack_signs",
            "unpack_signs",
            "sign_matrix",
            "pack_planes",
            "unpack_planes"
        ]
    );
}

#[test]
fn rounded_activations_pass_gradients_on() {
    let mut cx = Graph::new();
    let x = cx.input((2, 3), DType::F32);
    x.set([[254.0, 3.1, -1.2], [0.0, 0.0, 0.0]]);
    let y = x.fake_quantize(brain_blitz::op::ActivationScheme::A8Tok);
    let dx = cx.compile(Autograd::new(x, y * y), ())[0].retrieve();
    cx.execute();
    // Twice the rounded numbers.
    assert_eq!(dx.data(), [508.0, 8.0, -4.0, 0.0, 0.0, 0.0]);
}

/// A function of one tensor, and the numbers it is tried on.
type Case = (&'static str, fn(GraphTensor) -> GraphTensor, fn() -> Array);

const SMOOTH: &[Case] = &[
    ("neg", |x| -x, || matrix(1)),
    ("abs", |x| x.abs(), || matrix(1)),
    ("square", |x| x.square(), || matrix(1)),
    ("rsqrt", |x| x.rsqrt(), || array(&[4], positive(4, 2))),
    ("exp", |x| x.exp(), || matrix(2)),
    ("log", |x| x.log(), || array(&[4], positive(4, 2))),
    ("log1p", |x| x.log1p(), || array(&[4], positive(4, 2))),
    ("expm1", |x| x.expm1(), || matrix(2)),
    ("cos", |x| x.cos(), || matrix(2)),
    ("tan", |x| x.tan(), || matrix(2)),
    ("asin", |x| (x * 0.5).asin(), || matrix(2)),
    ("atan", |x| x.atan(), || matrix(2)),
    ("sinh", |x| x.sinh(), || matrix(2)),
    ("asinh", |x| x.asinh(), || matrix(2)),
    ("tanh", |x| x.tanh(), || matrix(2)),
    ("erf", |x| x.erf(), || matrix(2)),
    ("sigmoid", |x| x.sigmoid(), || matrix(2)),
    ("logsigmoid", |x| x.logsigmoid(), || matrix(2)),
    ("relu", |x| x.relu(), || matrix(2)),
    ("leaky_relu", |x| x.leaky_relu(0.1), || matrix(2)),
    ("elu", |x| x.elu(0.7), || matrix(2)),
    ("gelu", |x| x.gelu(), || matrix(2)),
    ("gelu_tanh", |x| x.gelu_tanh(), || matrix(2)),
    ("silu", |x| x.silu(), || matrix(2)),
    ("mish", |x| x.mish(), || matrix(2)),
    ("softplus", |x| x.softplus(), || matrix(2)),
    ("hardswish", |x| x.hardswish(), || matrix(2)),
    ("pow", |x| x.pow(2.5), || array(&[4], positive(4, 2))),
    ("clamp", |x| x.clamp(-0.8, 0.9), || matrix(2)),
    ("mean", |x| x.mean(1), || matrix(2)),
    ("var", |x| x.var(1, 1), || matrix(2)),
    ("prod", |x| x.prod(1), || matrix(2)),
    ("min", |x| x.min(0), || matrix(2)),
    ("norm", |x| x.norm(1, 2.0), || matrix(2)),
    ("logsumexp", |x| x.logsumexp(1), || matrix(2)),
    ("cumsum", |x| x.cumsum(1), || matrix(2)),
    ("cumprod", |x| x.cumprod(1), || matrix(2)),
    ("logcumsumexp", |x| x.logcumsumexp(1), || matrix(2)),
    ("softmax", |x| x.softmax(1), || matrix(2)),
    ("log_softmax", |x| x.log_softmax(1), || matrix(2)),
    ("rms_norm", |x| x.rms_norm(1, None, 1e-5), || matrix(2)),
    (
        "layer_norm",
        |x| x.layer_norm(1, None, None, 1e-5),
        || matrix(2),
    ),
    ("sort", |x| x.sort(1, false).0, || matrix(2)),
];

#[test]
fn methods() {
    for (name, f, input) in SMOOTH {
        check(name, &[input()], &|_, x| f(x[0]));
    }
}

#[test]
fn methods_of_two_tensors() {
    let (a, b) = (matrix(1), array(&[3, 2], spread(6, 5)));
    check("matmul", &[a.clone(), b], &|_, x| x[0].matmul(x[1]));
    let (p, q) = (array(&[2, 3], positive(6, 4)), matrix(6));
    check("sub", &[a.clone(), q.clone()], &|_, x| x[0] - x[1] * x[1]);
    check("div", &[a.clone(), p.clone()], &|_, x| x[0] / x[1]);
    check("pow", &[p.clone(), q.clone()], &|_, x| x[0].pow(x[1]));
    check("maximum", &[a.clone(), q.clone()], &|_, x| {
        x[0].maximum(x[1])
    });
    check("atan2", &[a.clone(), p], &|_, x| x[0].atan2(x[1]));
    let row = array(&[3], spread(3, 7));
    check("broadcast", &[a.clone(), row], &|_, x| x[0] * x[1] + x[1]);
    let batch = [
        array(&[2, 2, 3], spread(12, 2)),
        array(&[3, 2], spread(6, 8)),
    ];
    check("batched", &batch, &|_, x| x[0].matmul(x[1]));
    check("einsum", &batch, &|_, x| {
        GraphTensor::einsum("bij,jk->bk", x)
    });
    check("concat", &[a.clone(), q.clone()], &|_, x| {
        GraphTensor::concat(&[x[0], x[1], x[0]], 1) * GraphTensor::concat(&[x[1], x[0], x[1]], 1)
    });
}

/// Each result is the logarithm of how many elements there are so far, beside 10000, where `F32` has steps of 0.001.
#[test]
fn gradients_of_running_sums_of_exponentials_do_not_depend_on_how_large_they_are() {
    let weights = [0.5f32, -2.0, 1.25, 3.0, 0.75];
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<5>>().set([10000.0; 5]);
    let w = cx.tensor::<R1<5>>().set(weights);
    let loss = (x.logcumsumexp(0) * w).sum(0);
    let dx = cx.compile(Autograd::new(x, loss), ())[0].retrieve();
    cx.execute();
    for (i, found) in dx.data().into_iter().enumerate() {
        let shares = (i..5).map(|k| f64::from(weights[k]) / (k + 1) as f64);
        let expected: f64 = shares.sum();
        assert!(
            (f64::from(found) - expected).abs() < 1e-6,
            "element {i}: {found}, not {expected}"
        );
    }
}

/// What is chosen at an edge must not leave the gradient of what was not chosen: 0 times an infinity.
#[test]
fn gradients_at_edges_are_finite() {
    let at = |values: Vec<f64>, f: &dyn Fn(&mut Graph, GraphTensor) -> GraphTensor| {
        let n = values.len();
        let found = gradients(&[array(&[n], values)], &|cx, x| f(cx, x[0]));
        found[0].to_f64()
    };
    let sure = at(vec![1.0, 0.0, 0.5], &|cx, x| {
        let target = cx
            .input(3, DType::F64)
            .set(array(&[3], vec![1.0, 0.0, 1.0]));
        x.bce_loss(target, None, Reduction::Sum)
    });
    // Half of the derivatives: `check::gradients` weighs the loss by 0.5.
    let mut both = sure.iter().zip([-0.5, 0.5, -1.0]);
    assert!(both.all(|(x, y)| (x - y).abs() < 1e-9), "{sure:?}");
    assert_eq!(at(vec![0.0; 3], &|_, x| x.norm(0, 2.0)), [0.0; 3]);
    let unit = at(vec![0.0; 2], &|_, x| x.normalize(2.0, 0, 0.5));
    assert!(unit.iter().all(|x| x.is_finite()), "{unit:?}");
    let matrix = at(vec![0.0, 1.0, 0.0, 2.0], &|_, x| x.reshape((2, 2)).det());
    assert!(matrix.iter().all(|x| x.is_finite()), "{matrix:?}");
}

/// Where exponentials overflow, functions are straight lines, and so say their gradients.
#[test]
fn gradients_far_from_zero_are_those_of_lines() {
    type Function = fn(GraphTensor) -> GraphTensor;
    let functions: [(&str, Function, [f64; 2]); 8] = [
        ("sigmoid", |x| x.sigmoid(), [0.0, 0.0]),
        ("silu", |x| x.silu(), [0.0, 1.0]),
        ("logsigmoid", |x| x.logsigmoid(), [1.0, 0.0]),
        ("softplus", |x| x.softplus(), [0.0, 1.0]),
        ("tanh", |x| x.tanh(), [0.0, 0.0]),
        ("gelu", |x| x.gelu(), [0.0, 1.0]),
        ("gelu_tanh", |x| x.gelu_tanh(), [0.0, 1.0]),
        ("mish", |x| x.mish(), [0.0, 1.0]),
    ];
    for dtype in [DType::F32, DType::F64] {
        for (name, function, [below, above]) in functions {
            let far = [-1e4, -800.0, -100.0, 100.0, 800.0, 1e4];
            let mut cx = Graph::new();
            let x = cx.input(6, dtype).set(far.to_vec());
            let loss = function(x).sum(0);
            let found = cx.compile(Autograd::new(vec![x], loss), ())[0].retrieve();
            cx.execute();
            for (i, slope) in found.array().to_f64().into_iter().enumerate() {
                let expected = if i < 3 { below } else { above };
                let close = (slope - expected).abs() < 1e-6;
                assert!(close, "{name} {dtype} at {}: {slope}", far[i]);
            }
        }
    }
}
