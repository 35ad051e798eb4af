//! Every op on its samples, through every pipeline, against the op's reference `eval`.

use brain_blitz::array::{Array, Data};
use brain_blitz::op::{Op, ReduceOp, Sample, table};
use brain_blitz::prelude::*;

use crate::pipelines::Pipeline;

/// Ops that no pipeline turns into machine code, with the reason.
const NOT_NATIVE: [(&str, &str); 5] = [
    ("scatter", "the executor writes rows in place itself"),
    ("detach", "is its operand, which is read in its place"),
    (
        "straight_through",
        "is its first operand, which is read in its place",
    ),
    (
        "known_gradient",
        "is its first operand, which is read in its place",
    ),
    ("random", "counter-based generation has no loop form yet"),
];

fn run(sample: &Sample, pipeline: Pipeline) -> (Array, usize, Vec<String>) {
    let mut cx = Graph::new();
    let operands: Vec<GraphTensor> = sample
        .inputs
        .iter()
        .map(|array| {
            cx.input(array.dims().to_vec(), array.dtype())
                .set(array.clone())
        })
        .collect();
    let out = cx.record(sample.op.clone(), &operands).retrieve();
    let report = pipeline.compile(&mut cx);
    cx.execute();
    (out.array(), cx.stats().native_steps, report.notes())
}

/// How far a sum may be off: the rounding of one addition, times the sum of the magnitudes.
fn sum_scale(sample: &Sample) -> Option<Vec<f64>> {
    let Op::Reduce(ReduceOp::Sum, _) = sample.op else {
        return None;
    };
    let x = &sample.inputs[0];
    let magnitudes = x.to_f64().into_iter().map(f64::abs).collect();
    let mut scale = sample.clone();
    scale.inputs = vec![Array::new(x.dims().to_vec(), Data::F64(magnitudes))];
    Some(scale.eval().expect("a sum of numbers").to_f64())
}

fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F16 => 2f64.powi(-10),
        DType::BF16 => 2f64.powi(-7),
        _ => f64::from(f32::EPSILON),
    }
}

fn close(want: &Array, got: &Array, sample: &Sample) -> bool {
    let is_max = matches!(sample.op, Op::Reduce(ReduceOp::Max, _));
    let Some(scale) = sum_scale(sample).filter(|_| want.dtype().is_float()) else {
        // The sign of a zero that is the largest of both zeros depends on the order.
        return want.same_bits(got) || (is_max && numerically_equal(want, got));
    };
    let ulps = f64::from(sample.op.row().ulps);
    let tolerance = |scale: f64| ulps * epsilon(want.dtype()) * scale;
    want.dims() == got.dims()
        && want
            .to_f64()
            .iter()
            .zip(got.to_f64())
            .zip(scale)
            .all(|((&want, got), scale)| {
                (want.is_nan() && got.is_nan())
                    || want == got
                    || (want - got).abs() <= tolerance(scale)
            })
}

fn numerically_equal(a: &Array, b: &Array) -> bool {
    a.dims() == b.dims()
        && a.to_f64()
            .iter()
            .zip(b.to_f64())
            .all(|(&x, y)| x == y || (x.is_nan() && y.is_nan()))
}

#[test]
fn every_op_means_the_same_on_every_pipeline() {
    let mut failures = Vec::new();
    let mut n_native = 0;
    for row in table::ROWS {
        for sample in (row.samples)() {
            let want = sample.eval().expect("samples evaluate");
            for pipeline in Pipeline::all() {
                let (got, native, notes) = run(&sample, pipeline);
                n_native += native;
                let label = || {
                    let types: Vec<_> = sample
                        .inputs
                        .iter()
                        .map(|x| format!("{}{:?}", x.dtype(), x.dims()))
                        .collect();
                    format!("{} {:?} of {types:?} on {pipeline:?}", row.name, sample.op)
                };
                if !close(&want, &got, &sample) {
                    failures.push(format!("{}\n  want {want}\n  got  {got}", label()));
                }
                let exempt = NOT_NATIVE.iter().any(|(name, _)| *name == row.name)
                    || is_f64_function(&sample);
                if pipeline.is_native() && native == 0 && !exempt && !want.is_empty() {
                    failures.push(format!("{} did not run native code: {notes:?}", label()));
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    #[cfg(feature = "llvm-backend")]
    assert!(n_native > 500, "only {n_native} native kernels ran");
    #[cfg(not(feature = "llvm-backend"))]
    assert_eq!(n_native, 0);
}

/// `F64` logarithms, powers and sines stay with the reference executor.
fn is_f64_function(sample: &Sample) -> bool {
    use brain_blitz::op::UnaryOp::{Exp2, Log2, Sin};
    matches!(sample.op, Op::Unary(Log2 | Exp2 | Sin)) && sample.inputs[0].dtype() == DType::F64
}
