//! Against dfdx, an independent implementation in Rust: the same numbers through both.

use brain_blitz::prelude::{DType, Generic, Graph, GraphTensor, LlvmCpu};
use dfdx::prelude as oracle;
use oracle::{AsArray, Axis, Cpu, MeanTo, SumTo, TensorFrom, TryMatMul};

const ROWS: usize = 5;
const COLUMNS: usize = 7;

type Matrix = [[f32; COLUMNS]; ROWS];

fn matrix(seed: u64) -> Matrix {
    let numbers = brain_blitz::op::random::uniform(seed, 0, ROWS * COLUMNS);
    std::array::from_fn(|row| {
        std::array::from_fn(|column| 4.0 * numbers[row * COLUMNS + column] - 2.0)
    })
}

/// What brain-blitz makes of a matrix, compiled.
fn ours(x: &Matrix, f: impl FnOnce(GraphTensor) -> GraphTensor) -> Vec<f32> {
    let mut cx = Graph::new();
    let x = cx.input((ROWS, COLUMNS), DType::F32).set(*x);
    let y = f(x).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.execute();
    y.data()
}

fn assert_close(name: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!(
            (a - b).abs() <= 1e-5 * b.abs().max(1.0),
            "{name} at {i}: {a} and {b}"
        );
    }
}

#[test]
fn elementwise_functions_agree() {
    use oracle::{abs, cos, exp, ln, relu, sigmoid, sin, sqrt, square, tanh};
    let (x, dev) = (matrix(1), Cpu::default());
    let t = || dev.tensor(x);
    let flat =
        |t: oracle::Tensor<(oracle::Const<ROWS>, oracle::Const<COLUMNS>), f32, Cpu>| t.as_vec();
    assert_close("exp", &ours(&x, |x| x.exp()), &flat(exp(t())));
    assert_close("ln", &ours(&x, |x| x.abs().log()), &flat(ln(abs(t()))));
    assert_close("sin", &ours(&x, |x| x.sin()), &flat(sin(t())));
    assert_close("cos", &ours(&x, |x| x.cos()), &flat(cos(t())));
    assert_close("tanh", &ours(&x, |x| x.tanh()), &flat(tanh(t())));
    assert_close("sigmoid", &ours(&x, |x| x.sigmoid()), &flat(sigmoid(t())));
    assert_close("relu", &ours(&x, |x| x.relu()), &flat(relu(t())));
    assert_close(
        "sqrt",
        &ours(&x, |x| x.square().sqrt()),
        &flat(sqrt(square(t()))),
    );
}

#[test]
fn reductions_and_softmax_agree() {
    let (x, dev) = (matrix(2), Cpu::default());
    let softmax = dev.tensor(x).softmax::<Axis<1>>().as_vec();
    assert_close("softmax", &ours(&x, |x| x.softmax(1)), &softmax);
    let log_softmax = dev.tensor(x).log_softmax::<Axis<1>>().as_vec();
    assert_close("log_softmax", &ours(&x, |x| x.log_softmax(1)), &log_softmax);
    let sums: oracle::Tensor<oracle::Rank1<ROWS>, f32, Cpu> = dev.tensor(x).sum();
    assert_close("sum", &ours(&x, |x| x.sum(1)), &sums.array());
    let means: oracle::Tensor<oracle::Rank1<COLUMNS>, f32, Cpu> = dev.tensor(x).mean();
    assert_close("mean", &ours(&x, |x| x.mean(0)), &means.array());
}

#[test]
fn matrix_products_agree() {
    let (a, b, dev) = (matrix(3), matrix(4), Cpu::default());
    let theirs = dev
        .tensor(a)
        .matmul(oracle::PermuteTo::permute::<oracle::Rank2<COLUMNS, ROWS>, _>(dev.tensor(b)));
    let mut cx = Graph::new();
    let x = cx.input((ROWS, COLUMNS), DType::F32).set(a);
    let y = cx.input((ROWS, COLUMNS), DType::F32).set(b);
    let product = x.matmul(y.transpose(0, 1)).retrieve();
    let report = cx.compile(<(Generic, LlvmCpu)>::default(), ());
    #[cfg(feature = "llvm-backend")]
    assert_eq!(report.hits("contraction"), 1);
    #[cfg(not(feature = "llvm-backend"))]
    assert_eq!(report.hits("contraction"), 0);
    cx.execute();
    assert_close("matmul", &product.data(), &theirs.as_vec());
}
