//! Rules that need a kernel, a state or a second look at the same graph.

use std::sync::Arc;

use smallvec::smallvec;

use super::super::{Algebra, ConstantFolding, Cse, DeadCode, ViewElimination};
use crate::compilers::{Pass, PassList, Report};
use crate::graph::{Dag, Graph, GraphTensor};
use crate::op::{BinaryOp, Kernel, KernelInput, KernelStep, Op, TensorType, UnaryOp};
use crate::prelude::*;
use crate::shape::View;

fn record(op: Op, operands: &[GraphTensor]) -> GraphTensor {
    GraphTensor::record(op, operands)
}

fn count(cx: &Graph, op: &Op) -> usize {
    cx.inspect(|dag: &Dag| dag.ids().filter(|&id| dag.node(id).op == *op).count())
}

#[test]
fn a_kept_copy_of_a_state_is_not_the_state() {
    let mut cx = Graph::new();
    let state = cx.tensor::<R1<2>>().set([1.0, 2.0]).dynamic();
    let old = record(Op::Contiguous, &[state]);
    let old = record(Op::Detach, &[old]).retrieve();
    let also_old = (old * 1.0).retrieve();
    state.assign(old + 1.0);
    cx.compile(Generic, ());
    cx.execute();
    assert_eq!(old.data(), [1.0, 2.0]);
    assert_eq!(also_old.data(), [1.0, 2.0]);
    assert_eq!(state.data(), [2.0, 3.0]);
    cx.execute();
    assert_eq!(old.data(), [2.0, 3.0]);
}

#[test]
fn unused_inputs_stay_settable_and_need_no_data() {
    let mut cx = Graph::new();
    let (used, unused) = (cx.tensor::<R1<2>>(), cx.tensor::<R1<2>>());
    let (y, lost) = (used.exp2().retrieve(), unused.exp2());
    let report = cx.compile(Generic, ());
    assert_eq!(report.hits("dead-code"), 1);
    used.set([0.0, 1.0]);
    cx.execute();
    assert_eq!(y.data(), [1.0, 2.0]);
    unused.set([1.0, 1.0]);
    let error = lost.try_array().expect_err("it was removed").to_string();
    assert!(error.contains("optimized away"), "{error}");
    assert!(error.contains("rules.rs"), "{error}");
}

#[test]
fn handles_follow_what_replaced_their_nodes() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>().set([3.0, 4.0]).dynamic();
    let (a, b) = (x.exp2(), x.exp2());
    let sum = (a + b).retrieve();
    cx.compile(Generic, ());
    let later = (b * 1.0).retrieve();
    cx.execute();
    assert_eq!(sum.data(), [16.0, 32.0]);
    assert_eq!(later.data(), [8.0, 16.0]);
    assert_eq!(count(&cx, &Op::Unary(UnaryOp::Exp2)), 1);
}

#[test]
fn what_a_kernel_reads_keeps_its_buffer() {
    let mut cx = Graph::new();
    let x = cx
        .input((2, 3), DType::F32)
        .set([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    let turned = x.look("permute", |view| view.permute(&[1, 0]));
    let copy = record(Op::Contiguous, &[turned]);
    let ones = GraphTensor::scalar(cx.id(), DType::F32, 1.0);
    let ones = ones.look("insert", |view| view.insert(0, 6));
    let ones = record(Op::Contiguous, &[ones]).look("reshape", |view| view.reshape((3, 2)));
    let ty = TensorType::new(copy.dims(), DType::F32);
    let view = View::contiguous((3, 2));
    let step = KernelStep {
        op: Op::Binary(BinaryOp::Add),
        inputs: vec![
            (KernelInput::Operand(0), view.clone()),
            (KernelInput::Operand(1), view),
        ],
        ty: ty.clone(),
    };
    let kernel = Kernel::new("add".into(), vec![step], vec![ty.clone(), ty]);
    let y = record(Op::Kernel(Arc::new(kernel)), &[copy, ones]).retrieve();
    let report = cx.compile(Generic, ());
    assert_eq!(report.passes.iter().map(|pass| pass.hits).sum::<usize>(), 0);
    assert_eq!(count(&cx, &Op::Contiguous), 2);
    cx.execute();
    assert_eq!(y.data(), [2.0, 5.0, 3.0, 6.0, 4.0, 7.0]);
}

#[test]
fn in_place_updates_of_a_state_stay_in_place() {
    let mut cx = Graph::new();
    let cache = cx.input((4, 2), DType::F32).set([[0.0, 0.0]; 4]);
    let row = cx.input((1, 2), DType::F32).set([[1.0, 2.0]]);
    let at = cx.input((1, 1), DType::I32).set([[2]]);
    let at = record(
        Op::Contiguous,
        &[at.look("expand", |view| view.expand(1, 2))],
    );
    let mode = crate::op::ScatterMode::Set;
    let next = record(Op::Scatter { axis: 0, mode }, &[cache, at, row * 1.0]);
    cache.assign(next);
    let sum = record(
        Op::Reduce(crate::op::ReduceOp::Sum, smallvec![0, 1]),
        &[next],
    )
    .retrieve();
    cx.compile(Generic, ());
    cx.execute();
    assert_eq!(sum.data(), [3.0]);
    assert_eq!(cache.data(), [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
    assert_eq!(count(&cx, &Op::Contiguous), 1);
    assert_eq!(cx.stats().state_bytes_written, 8);
}

/// Runs one pass alone.
fn run(cx: &mut Graph, pass: impl Pass + Copy + 'static) -> Report {
    struct Only<P>(P);
    impl<P: Pass + Copy + 'static> Compiler for Only<P> {
        type Output = crate::compilers::Report;

        fn passes(&self, list: &mut PassList) {
            list.push(self.0);
        }
    }
    cx.compile(Only(pass), ())
}

#[test]
fn a_chain_collapses_in_one_run_of_each_pass() {
    let n = 500;
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>().set([1.0, f32::NEG_INFINITY]).dynamic();
    let chain = |x: GraphTensor, f: &dyn Fn(GraphTensor) -> GraphTensor| {
        (0..n).fold(x, |x, _| f(x)).retrieve()
    };
    let start = x.exp2();
    chain(start, &|x| record(Op::Contiguous, &[x]));
    chain(start, &|x| x * 1.0);
    chain(GraphTensor::scalar(cx.id(), DType::F32, 0.5), &|x| x.sqrt());
    let report = run(&mut cx, ViewElimination);
    assert_eq!(report.hits("view-elimination"), n);
    let report = run(&mut cx, Algebra);
    assert_eq!(report.hits("algebra"), n);
    let report = run(&mut cx, ConstantFolding);
    assert_eq!(report.hits("constant-folding"), n);
    run(&mut cx, DeadCode);
    let twice = [0, 1].map(|_| chain(x, &|x| x.exp2()));
    let report = run(&mut cx, Cse);
    assert_eq!(report.hits("cse"), 2 * n - (n - 1));
    run(&mut cx, DeadCode);
    assert_eq!(cx.n_nodes(), 2 + n);
    cx.execute();
    assert_eq!(twice[0].data(), twice[1].data());
}

#[test]
fn nested_maxima_merge_only_where_the_same_zero_wins() {
    let nested = |inner: usize, outer: usize| {
        let mut cx = Graph::new();
        let x = cx
            .input((2, 2), DType::F32)
            .set([[-1.0, -0.0], [0.0, -1.0]]);
        let max = |axis| Op::Reduce(crate::op::ReduceOp::Max, smallvec![axis]);
        let y = record(max(outer), &[record(max(inner), &[x])]).retrieve();
        cx.execute();
        let before = y.data()[0].to_bits();
        let hits = cx.compile(Generic, ()).hits("algebra");
        cx.execute();
        assert_eq!(y.data()[0].to_bits(), before);
        (hits, f32::from_bits(before).is_sign_negative())
    };
    assert_eq!(nested(1, 0), (1, false), "the last row's zero wins");
    assert_eq!(nested(0, 0), (0, true), "the last column's zero wins");
}
