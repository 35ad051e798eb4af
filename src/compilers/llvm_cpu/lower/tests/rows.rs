//! Nests that run row by row.

use super::fixed::{binding, nest};
use super::random::{Rng, buffer};
use super::{check, execute};
use crate::compilers::llvm_cpu::ir::{
    Access, BinaryOp, Literal, Nest, ReduceOp, Reduction, Scalar, UnaryOp,
};
use crate::compilers::llvm_cpu::lower::plan::Plan;
use crate::compilers::llvm_cpu::lower::{lower, runs_by_rows};
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::{Expr, Symbols, View};

const EXP: usize = 7;

/// A softmax over the last of two dims.
fn softmax(dims: [Expr; 2]) -> Nest {
    let one = |value: f64| Scalar::Const(Literal::new(DType::F32, value));
    let mut nest = nest(
        [dims[0]],
        [dims[1]],
        &[View::contiguous(dims)],
        &[
            Scalar::Load(0),
            Scalar::Reduced(0),
            one(-1.0),
            Scalar::Binary(BinaryOp::Mul, 1, 2),
            Scalar::Binary(BinaryOp::Add, 0, 3),
            one(std::f64::consts::LOG2_E),
            Scalar::Binary(BinaryOp::Mul, 4, 5),
            Scalar::Unary(UnaryOp::Exp2, 6),
            Scalar::Reduced(1),
            Scalar::Unary(UnaryOp::Recip, 8),
            Scalar::Binary(BinaryOp::Mul, EXP, 9),
        ],
    );
    let stage = |kind, value| Reduction { kind, value };
    nest.stages = vec![stage(ReduceOp::Max, 0), stage(ReduceOp::Sum, EXP)];
    nest.per_point = true;
    nest
}

#[test]
fn exponentials_are_stored_and_read_back() {
    let nest = softmax(['p', 's'].map(Expr::from));
    let plan = Plan::new(&nest).unwrap();
    let turns: Vec<_> = plan.turns.iter().map(|t| (t.reads, t.writes)).collect();
    assert_eq!(turns, [(None, None), (None, Some(EXP)), (Some(EXP), None)]);
    assert!(
        !plan.last().nodes.contains(&0),
        "the last walk reads no input"
    );
    // Not where the output has another type: then they are computed again.
    let mut narrow = nest.clone();
    narrow.body.push(Scalar::Cast(DType::BF16, narrow.result));
    (narrow.result, narrow.dtype) = (narrow.body.len() - 1, DType::BF16);
    let plan = Plan::new(&narrow).unwrap();
    assert!(plan.turns.iter().all(|t| t.reads.or(t.writes).is_none()));

    let rng = &mut Rng::new(1);
    let mut case = |p: i64, s: i64| {
        let input = buffer(rng, DType::F32, (p * s) as usize);
        (binding(&[('p', p), ('s', s)]), vec![input])
    };
    let sizes = [(3, 5), (1, 1), (2, 1000), (7, 16), (0, 4), (4, 0), (5, 33)];
    let cases = sizes.map(|(p, s)| case(p, s));
    check(&nest, &cases);
    check(&narrow, &cases);
}

#[test]
fn stages_have_the_bits_of_nests_of_their_own() {
    let (p, s) = (5, 77);
    let rows = softmax([p, s].map(Expr::from));
    let mut largest = rows.clone();
    (largest.per_point, largest.result) = (false, 1);
    largest.stages.truncate(1);
    largest.body.truncate(2);
    // The same sum, of a maximum that is read from memory.
    let mut sum = rows.clone();
    (sum.per_point, sum.result) = (false, 8);
    sum.body[1] = Scalar::Load(1);
    sum.body[8] = Scalar::Reduced(0);
    sum.stages.remove(0);
    sum.n_inputs = 2;
    sum.loads.push(Access {
        input: 1,
        dtype: DType::F32,
        view: View::contiguous([p]).insert(1, s).unwrap(),
    });
    let mut both = rows.clone();
    (both.per_point, both.result) = (false, 8);
    assert!(!Plan::new(&sum).unwrap().is_by_rows() && Plan::new(&both).unwrap().is_by_rows());
    let x = buffer(&mut Rng::new(2), DType::F32, (p * s) as usize);
    for cpu in ["native", "x86-64-v3", "scalar"] {
        let target = Target::for_cpu(cpu).unwrap();
        let run = |nest: &Nest, inputs: &[Vec<u8>]| {
            let lowered = lower(nest, &target).unwrap();
            execute(nest, &lowered, &Symbols::new(), inputs, 1).0
        };
        let max = run(&largest, std::slice::from_ref(&x));
        let apart = run(&sum, &[x.clone(), max]);
        assert_eq!(run(&both, std::slice::from_ref(&x)), apart, "{cpu}");
    }
}

#[test]
fn only_rows_that_lie_in_memory_one_after_the_other_run_by_rows() {
    let [p, s] = [100, 40].map(Expr::from);
    assert!(runs_by_rows(&softmax([p, s])));
    // Columns.
    let mut columns = softmax([p, s]);
    columns.loads[0].view = View::contiguous([s, p]).permute(&[1, 0]).unwrap();
    assert!(!runs_by_rows(&columns));
    check(
        &columns,
        &[(
            Symbols::new(),
            vec![buffer(&mut Rng::new(3), DType::F32, 4000)],
        )],
    );
    // One row that no cache holds.
    assert!(!runs_by_rows(&softmax([1, 1 << 24].map(Expr::from))));
    assert!(runs_by_rows(&softmax([1, 1 << 12].map(Expr::from))));
}
