//! What methods record, and what they do where PyTorch's numbers do not reach: 16-bit formats, integers, booleans,
//! whole operand structures, panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

use brain_blitz::hl_ops::CrossEntropy;
use brain_blitz::nn::{BatchNorm, Module};
use brain_blitz::op::{BinaryOp, Op, ReduceOp};
use brain_blitz::prelude::*;

const INF: f32 = f32::INFINITY;

/// The ops that `build` records on inputs that are there already.
fn recorded(build: impl FnOnce(&mut Graph) -> GraphTensor) -> Vec<String> {
    let mut cx = Graph::new();
    build(&mut cx);
    cx.inspect(|dag| {
        let ops = dag.ids().map(|node| dag.node(node).op.name().to_string());
        ops.filter(|name| name != "input").collect()
    })
}

#[test]
fn a_product_is_one_multiplication_and_one_sum_of_views() {
    let shapes = [
        (vec![3, 4], vec![4, 5]),
        (vec![2, 3, 4], vec![4, 5]),
        (vec![2, 1, 3, 4], vec![6, 4, 5]),
        (vec![4], vec![2, 4, 5]),
        (vec![2, 3, 4], vec![4]),
    ];
    for (a, b) in shapes {
        let ops = recorded(|cx| {
            let (a, b) = (cx.input(&a, DType::F32), cx.input(&b, DType::F32));
            a.matmul(b)
        });
        assert_eq!(ops, ["mul", "sum_reduce"], "{a:?} times {b:?}");
    }
    let ops = recorded(|cx| {
        let q = cx.input((2, 's', 4, 8), DType::F32);
        let k = cx.input((2, 't', 4, 8), DType::F32);
        GraphTensor::einsum("bihd,bjhd->bhij", &[q, k])
    });
    assert_eq!(ops, ["mul", "sum_reduce"]);
}

#[test]
fn a_product_multiplies_over_its_whole_space_with_stride_0() {
    let mut cx = Graph::new();
    let (a, b) = (cx.input((3, 4), DType::F32), cx.input((4, 5), DType::F32));
    a.matmul(b);
    cx.inspect(|dag| {
        let is_mul = |node: &_| matches!(dag.node(*node).op, Op::Binary(BinaryOp::Mul));
        let mul = dag.ids().find(is_mul).unwrap();
        let strides: Vec<Vec<i64>> = (dag.operands(mul).iter())
            .map(|edge| {
                let layer = edge.1.single().expect("one layer");
                layer.strides.iter().map(|s| s.as_const().unwrap()).collect()
            })
            .collect();
        assert_eq!(strides, [vec![4, 0, 1], vec![0, 1, 5]]);
        let is_sum = |node: &_| matches!(&dag.node(*node).op, Op::Reduce(ReduceOp::Sum, axes) if axes[..] == [2]);
        assert!(dag.ids().any(|node| is_sum(&node)));
    });
}

#[test]
fn movement_records_nothing() {
    let ops = recorded(|cx| {
        let x = cx.input((4, 6), DType::F32);
        let x = x.roll(1, 0).flip(1).pad(0, 1, 2).slice((1.., ..-1));
        let x = x
            .repeat([2, 1])
            .unfold(1, 2, 1)
            .flatten(0, 1)
            .transpose(0, 1);
        x.chunk(2, 0)[1]
            .diagonal(0, 0, 1)
            .unsqueeze(0)
            .expand([3, -1])
    });
    assert!(ops.is_empty(), "{ops:?}");
}

#[test]
fn an_embedding_reads_rows_and_nothing_else() {
    let mut cx = Graph::new();
    let table = cx.input((1000, 8), DType::F32);
    let ids = cx.input((2, 's'), DType::I32);
    let rows = table.index_select(0, ids);
    assert_eq!(rows.ty().to_string(), "f32[2, s, 8]");
    cx.inspect(|dag| {
        let gather = dag
            .ids()
            .find(|&n| dag.node(n).op.name() == "gather")
            .unwrap();
        assert_eq!(
            dag.operands(gather)[1].1.single().unwrap().strides[1],
            Expr::from(0)
        );
        assert_eq!(dag.ids().count(), 3);
    });
}

#[test]
fn joining_keeps_infinities_and_nan_where_they_are() {
    let mut cx = Graph::new();
    let a = cx.input(2, DType::F32).set([INF, 1.0]);
    let b = cx.input(2, DType::F32).set([f32::NAN, -INF]);
    let joined = GraphTensor::concat(&[a, b, a], 0).retrieve();
    let lower = GraphTensor::stack(&[a, b], 0).tril(0).retrieve();
    let padded = b.pad_with(0, 1, 1, 7.0).retrieve();
    cx.execute();
    let same = |got: Vec<f32>, want: &[f32]| {
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&got), bits(want));
    };
    same(joined.data(), &[INF, 1.0, f32::NAN, -INF, INF, 1.0]);
    same(lower.data(), &[INF, 0.0, f32::NAN, -INF]);
    same(padded.data(), &[7.0, f32::NAN, -INF, 7.0]);
}

#[test]
fn sixteen_bit_formats_are_computed_in_f32_and_rounded_once() {
    for dtype in [DType::F16, DType::BF16] {
        let mut cx = Graph::new();
        // 600 times 200 is more than F16 holds; their mean is not.
        let x = cx.input(600, dtype).set(vec![200.0f32; 600]);
        let results = [
            x.mean(0),
            x.var(0, 0),
            x.norm(0, f64::INFINITY),
            x.softmax(0).sum(0).mean(..),
            x.layer_norm(0, None, None, 1e-5).max(0),
            x.rms_norm(0, None, 1e-5).min(0),
            x.logsumexp(0),
        ];
        let results = results.map(|x| x.retrieve());
        assert!(results.iter().all(|x| x.dtype() == dtype));
        cx.execute();
        let got = results.map(|x| x.data()[0]);
        // softmax: 600 times 1/600 as rounded to the format; logsumexp: 200 + ln(600).
        let (share, log) = match dtype {
            DType::F16 => (1.0, 206.375),
            _ => (1.0, 206.0),
        };
        assert_eq!(
            [got[0], got[1], got[2], got[4], got[5]],
            [200.0, 0.0, 200.0, 0.0, 1.0]
        );
        assert!((got[3] - share).abs() < 0.01, "{dtype}: {}", got[3]);
        assert_eq!(got[6], log, "{dtype}");
    }
}

#[test]
fn integers_and_booleans_reduce_exactly() {
    let mut cx = Graph::new();
    let x = cx
        .input((2, 3), DType::I32)
        .set([[i32::MIN, 0, i32::MAX], [-5, 7, -5]]);
    let flags = cx
        .input((2, 3), DType::Bool)
        .set([[true, false, true], [true, true, true]]);
    let integers = [x.min(1), x.max(1), x.prod(1), x.argmin(1), x.argmax(1)].map(|x| x.retrieve());
    let counted = flags.sum(1).retrieve();
    let booleans = [flags.all(1), flags.any(1), flags.min(1), flags.max(1)].map(|x| x.retrieve());
    let running = flags.cumsum(1).dynamic();
    cx.execute();
    let got = integers.map(|x| x.array().to_i32());
    assert_eq!(
        got,
        [[i32::MIN, -5], [i32::MAX, 7], [0, 175], [0, 0], [2, 1]]
    );
    assert_eq!(counted.array().to_i32(), [2, 3]);
    let got = booleans.map(|x| x.array().to_i32());
    assert_eq!(got, [[0, 1], [1, 1], [0, 1], [1, 1]]);
    assert_eq!(running.dtype(), DType::I32);
}

#[test]
fn the_first_of_equal_elements_is_found_and_nan_wins() {
    let mut cx = Graph::new();
    let x = cx.input((4, 4), DType::F32).set([
        [1.0, 3.0, 3.0, 2.0],
        [f32::NAN, 5.0, f32::NAN, -INF],
        [-INF, -INF, -INF, -INF],
        [0.0, -0.0, INF, INF],
    ]);
    let results = [x.argmax(1), x.argmin(1), x.argmax(..).expand([4])].map(|x| x.retrieve());
    let order = x.argsort(1, false).retrieve();
    cx.execute();
    let got = results.map(|x| x.array().to_i32());
    assert_eq!(got, [[1, 0, 0, 2], [0, 0, 0, 0], [4, 4, 4, 4]]);
    let want = [[0, 3, 1, 2], [3, 1, 0, 2], [0, 1, 2, 3], [0, 1, 2, 3]];
    assert_eq!(order.array().to_i32(), want.concat());
}

#[test]
fn static_shapes_go_through_composed_methods() {
    let mut cx = Graph::new();
    let x = cx
        .tensor::<R2<2, 3>>()
        .set([[3.0, 1.0, 2.0], [4.0, 6.0, 5.0]]);
    let sorted = x.gather(1, x.argsort(1, false)).retrieve();
    let centred: GraphTensor<R2<2, 3>> = (x - x.mean_all().expand_to()).retrieve();
    let gram: GraphTensor<R2<3, 3>> = x.t().matmul(x).retrieve();
    let rows: GraphTensor<R1<2>> = x.softmax(1).sum_axis::<1>().retrieve();
    let mixed: GraphTensor = x.matmul(x.dynamic().transpose(0, 1)).retrieve();
    cx.execute();
    assert_eq!(sorted.data(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(centred.data(), [-0.5, -2.5, -1.5, 0.5, 2.5, 1.5]);
    assert_eq!(gram.data()[..3], [25.0, 27.0, 26.0]);
    assert!(rows.data().iter().all(|x| (x - 1.0).abs() < 1e-6));
    assert_eq!(mixed.data(), [14.0, 28.0, 28.0, 77.0]);
}

#[test]
fn an_index_out_of_range_is_an_error_when_executed() {
    for bad in [-1, 3] {
        let mut cx = Graph::new();
        let table = cx.input((3, 2), DType::F32).set([[0.0; 2]; 3]);
        let ids = cx.input(2, DType::I32).set([0, bad]);
        table.index_select(0, ids).retrieve();
        let error = cx.try_execute().unwrap_err().to_string();
        assert!(
            error.contains(&format!("index {bad} is out of range")),
            "{error}"
        );
    }
}

/// The message with which `build` panics.
fn panic_of(build: impl FnOnce(&mut Graph) -> GraphTensor) -> String {
    let mut cx = Graph::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| build(&mut cx)));
    let panic = outcome.expect_err("a panic");
    panic.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn mismatches_name_the_operation_and_both_shapes() {
    let two = |cx: &mut Graph| (cx.input((2, 3), DType::F32), cx.input((4, 's'), DType::F32));
    let cases: [(String, &[&str]); 6] = [
        (
            panic_of(|cx| two(cx).0.matmul(two(cx).1)),
            &["matmul", "f32[2, 3]", "f32[4, s]"],
        ),
        (
            panic_of(|cx| {
                let (a, b) = two(cx);
                GraphTensor::concat(&[a, b], 0)
            }),
            &["concat", "f32[2, 3]", "f32[4, s]"],
        ),
        (
            panic_of(|cx| {
                let (a, b) = two(cx);
                GraphTensor::einsum("ij,jk->ik", &[a, b])
            }),
            &["einsum", "'j'", "f32[2, 3]", "f32[4, s]"],
        ),
        (
            panic_of(|cx| two(cx).0.reshape([7])),
            &["reshape", "[2, 3]", "[7]"],
        ),
        (
            panic_of(|cx| two(cx).0.expand([3, 3])),
            &["expand", "[2, 3]", "[3, 3]"],
        ),
        (
            panic_of(|cx| two(cx).0.slice(..3)),
            &["slice", "0..3", "[2, 3]"],
        ),
    ];
    for (message, parts) in cases {
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
}

#[test]
fn composed_methods_record_at_the_users_line() {
    let mut cx = Graph::new();
    let x = cx.input((4, 's'), DType::F32);
    let index = cx.input((4, 's'), DType::I32);
    let before: Vec<_> = cx.inspect(|dag| dag.ids().collect());
    let first = line!();
    x.softmax(1);
    x.log_softmax(1);
    x.layer_norm(1, None, None, 1e-5);
    x.rms_norm(1, Some(x), 1e-5);
    x.var(0, 1);
    x.norm(0, 3);
    x.logsumexp(..);
    x.cumsum(1);
    x.cumprod(0);
    x.prod(0);
    x.argmax(1);
    x.sort(1, true);
    x.matmul(x.t());
    x.tril('s').triu(0);
    x.scatter_add(1, index, x);
    GraphTensor::concat(&[x, x], 0);
    GraphTensor::einsum("ij,kj->ik", &[x, x]);
    let last = line!();
    let elsewhere: Vec<String> = cx.inspect(|dag| {
        let new = dag.ids().filter(|node| !before.contains(node));
        let strays = new.filter(|&node| {
            let at = dag.node(node).location;
            !at.file().ends_with("tests/hl_ops.rs") || !(first..last).contains(&at.line())
        });
        strays.map(|node| dag.describe(node)).collect()
    });
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

/// Bits of uniform numbers, normal numbers and a dropout of one seed, folded into one number each (FNV-1a).
fn random_bits(compile: impl FnOnce(&mut Graph)) -> [u64; 3] {
    let mut cx = Graph::new();
    let uniform = cx.rand_uniform((3, 100), 7, 2).retrieve();
    let normal = cx.rand_normal((3, 100), 7, 2).retrieve();
    let dropped = cx.full((3, 100), 1.5, DType::F32).dropout(0.3, 7, 2);
    let dropped = dropped.retrieve();
    compile(&mut cx);
    cx.execute();
    [uniform, normal, dropped].map(|x| {
        let words = x.data().into_iter().map(|x: f32| u64::from(x.to_bits()));
        words.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
            (hash ^ word).wrapping_mul(0x100_0000_01b3)
        })
    })
}

#[test]
fn random_numbers_have_the_same_bits_everywhere() {
    let known = [
        14681564230092760651,
        11527518581940190858,
        15680595656969906023,
    ];
    assert_eq!(random_bits(|_| ()), known);
    assert_eq!(random_bits(|cx| drop(cx.compile(Generic, ()))), known);
    let native = |cx: &mut Graph| drop(cx.compile(<(Generic, LlvmCpu)>::default(), ()));
    assert_eq!(random_bits(native), known);
}

#[test]
fn singular_matrices_have_no_volume() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R3<3, 2, 2>>().dynamic();
    x.set([
        [[0.0, 1.0], [0.0, 2.0]],
        [[0.0, 0.0], [0.0, 0.0]],
        [[1.0, 2.0], [2.0, 4.0]],
    ]);
    let det = x.det().retrieve();
    let (sign, log) = x.slogdet();
    let (sign, log) = (sign.retrieve(), log.retrieve());
    cx.execute();
    assert_eq!(det.data(), [0.0; 3]);
    assert_eq!(sign.data(), [0.0; 3]);
    assert_eq!(log.data(), [-INF; 3]);
}

#[test]
fn running_minima_of_every_format() {
    let mut cx = Graph::new();
    let x = cx.input(4, DType::I32).set([5, i32::MIN, 3, i32::MIN]);
    let (values, places) = x.cummin(0);
    let flags = cx
        .input(3, DType::Bool)
        .set([true, false, true])
        .cummin(0)
        .0;
    let (values, places, flags) = (values.retrieve(), places.retrieve(), flags.retrieve());
    cx.execute();
    let low = i32::MIN;
    assert_eq!(values.array().to_i32(), [5, low, low, low]);
    assert_eq!(places.array().to_i32(), [0, 1, 1, 3]);
    assert_eq!(flags.array().to_i32(), [1, 0, 0]);
}

#[test]
fn ignored_samples_count_nothing_whatever_they_are() {
    let mut cx = Graph::new();
    let x = cx
        .tensor::<R2<2, 2>>()
        .set([[-INF, 0.0], [-1.0, -2.0]])
        .dynamic();
    let classes = cx.input(2, DType::I32).set([-100, 1]);
    let rule = CrossEntropy {
        ignore_index: Some(-100),
        ..CrossEntropy::default()
    };
    let loss = x.nll_loss(classes, &rule).retrieve();
    cx.execute();
    assert_eq!(loss.data(), [2.0]);
}

#[test]
fn a_batch_of_one_leaves_the_running_variance() {
    let mut cx = Graph::new();
    let layer = BatchNorm::new(&mut cx, 2);
    layer.init(1);
    let x = cx.tensor::<R2<1, 2>>().set([[3.0, -4.0]]).dynamic();
    layer.forward(x).retrieve();
    cx.execute();
    assert_eq!(layer.running_var.data(), [1.0, 1.0]);
}
