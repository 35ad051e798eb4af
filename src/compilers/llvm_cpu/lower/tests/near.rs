//! Elements that are close together: windows of pools, and what goes back through them.

use super::check;
use super::fixed::nest;
use super::random::{Rng, buffer};
use crate::compilers::llvm_cpu::ir::{BinaryOp, Nest, ReduceOp, Reduction, Scalar};
use crate::compilers::llvm_cpu::lower::ir_text;
use crate::compilers::llvm_cpu::lower::plan::{Along, Plan};
use crate::compilers::llvm_cpu::refine::refined;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::{Expr, Symbols, View};

/// Whether vectors of 8 or 16 lanes are gathered.
fn gathers(nest: &Nest) -> bool {
    let text = |cpu| ir_text(nest, &Target::for_cpu(cpu).unwrap()).unwrap();
    let [narrow, wide] = ["x86-64-v3", "x86-64-v4"].map(|cpu| text(cpu).contains("masked.gather"));
    assert_eq!(narrow, wide);
    wide
}

/// Compares with the interpreter, where each input ends with the last element that is read.
fn check_with(nest: &Nest, lengths: &[usize]) {
    let rng = &mut Rng::new(11);
    let inputs = lengths.iter().map(|&n| buffer(rng, DType::F32, n));
    check(nest, &[(Symbols::new(), inputs.collect())]);
}

/// The windows of an image that ends with the last one: `[rows, columns, size, size]`, and the image's size.
fn windows(rows: usize, columns: usize, size: usize, step: usize) -> (View, usize) {
    let [h, w] = [rows, columns].map(|n| (n - 1) * step + size);
    let view = View::contiguous([h, w]);
    let view = view.unfold(0, size, step as i64, 1).unwrap();
    (view.unfold(1, size, step as i64, 1).unwrap(), h * w)
}

#[test]
fn pools_walk_from_window_to_window() {
    for kind in [ReduceOp::Max, ReduceOp::Sum] {
        for (columns, size, step) in [
            (14, 2, 2),
            (16, 2, 2),
            (8, 3, 2),
            (75, 2, 2),
            (33, 3, 3),
            (21, 4, 4),
            (19, 5, 1),
            (40, 3, 1),
        ] {
            let (view, n) = windows(3, columns, size, step);
            let body = [Scalar::Load(0), Scalar::Reduced(0)];
            let mut nest = nest([3, columns], [size, size], &[view], &body);
            nest.stages = vec![Reduction { kind, value: 0 }];
            assert_eq!(Plan::new(&nest).unwrap().along(), Along::Kept);
            assert!(!gathers(&nest), "{columns} windows of {size} every {step}");
            check_with(&nest, &[n]);
        }
    }
}

#[test]
fn other_windows_are_reduced_as_they_were() {
    // Few windows, large ones, and such as lie far apart.
    for (columns, size, step) in [(4, 2, 2), (16, 9, 2), (16, 2, 5)] {
        let (view, n) = windows(3, columns, size, step);
        let body = [Scalar::Load(0), Scalar::Reduced(0)];
        let mut nest = nest([3, columns], [size, size], &[view], &body);
        let kind = ReduceOp::Max;
        nest.stages = vec![Reduction { kind, value: 0 }];
        assert_eq!(Plan::new(&nest).unwrap().along(), Along::Reduced);
        check_with(&nest, &[n]);
    }
}

#[test]
fn maps_read_every_second_element_in_vectors() {
    for (columns, step) in [(16, 2), (40, 3), (7, 2), (29, 4), (1, 2)] {
        let n = (columns - 1) * step + 1;
        let view = View::contiguous([2, n]);
        let view = view.slice(1, 0, n, step as i64).unwrap();
        let body = [Scalar::Load(0), Scalar::Binary(BinaryOp::Add, 0, 0)];
        let nest = nest([2, columns], (), &[view], &body);
        assert!(!gathers(&nest), "{columns} elements, every {step}");
        check_with(&nest, &[2 * n]);
    }
}

/// Each element of `[rows, columns]` so many times along both axes.
fn enlarged(rows: usize, columns: usize, times: usize) -> View {
    let view = View::contiguous([rows, columns]);
    let view = view.insert(2, times).unwrap().insert(1, times).unwrap();
    view.merge(2, 2).unwrap().merge(0, 2).unwrap()
}

#[test]
fn repeated_elements_are_read_once() {
    for (columns, times) in [(14, 2), (8, 2), (5, 2), (9, 4), (33, 2), (7, 8)] {
        let [h, w] = [3 * times, columns * times];
        let views = [enlarged(3, columns, times), View::contiguous([h, w])];
        let sum = Scalar::Binary(BinaryOp::Add, 0, 1);
        let nest = nest([h, w], (), &views, &[Scalar::Load(0), Scalar::Load(1), sum]);
        let plan = Plan::new(&nest).unwrap();
        assert!(plan.sources[0].below.is_empty());
        assert!(!gathers(&nest), "{columns} elements {times} times");
        check_with(&nest, &[3 * columns, h * w]);
    }
}

#[test]
fn repetitions_that_no_vector_has_are_gathered() {
    for (columns, times, is_layer) in [(14, 3, false), (3, 2, true)] {
        let [h, w] = [2 * times, columns * times];
        let views = [enlarged(2, columns, times), View::contiguous([h, w])];
        let sum = Scalar::Binary(BinaryOp::Add, 0, 1);
        let nest = nest([h, w], (), &views, &[Scalar::Load(0), Scalar::Load(1), sum]);
        let plan = Plan::new(&nest).unwrap();
        assert_eq!(!plan.sources[0].below.is_empty(), is_layer);
        assert!(gathers(&nest));
        check_with(&nest, &[2 * columns, h * w]);
    }
}

/// A map that adds to each element of `[3, s, width]` the one of the other half of its row, the `way` of whose elements is
/// given.
fn halves(width: usize, way: i64) -> Nest {
    let dims = [3.into(), Expr::from('s'), width.into()];
    let plain = View::contiguous(dims);
    let parts = [dims[0], dims[1], 2.into(), (width / 2).into()];
    let (axis, first) = if way < 0 {
        (3, width as i64 / 2 - 1)
    } else {
        (2, 1)
    };
    let exchanged = plain.reshape(parts).unwrap();
    let exchanged = exchanged.slice(axis, first, -1, -1).unwrap();
    let views = [plain, exchanged.reshape(dims).unwrap()];
    assert_eq!(views[1].layers().len(), 2);
    let sum = Scalar::Binary(BinaryOp::Add, 0, 1);
    nest(dims, (), &views, &[Scalar::Load(0), Scalar::Load(1), sum])
}

#[test]
fn halves_are_walked_without_divisions_of_lanes() {
    let divides = |nest: &Nest| {
        let text = ir_text(nest, &Target::for_cpu("x86-64-v3").unwrap()).unwrap();
        text.contains("udiv <") || text.contains("urem <")
    };
    // Halves of 7 would be short rows.
    for (width, is_split) in [(16, true), (32, true), (100, true), (14, false)] {
        let nest = refined(halves(width, 1));
        assert_eq!(gathers(&nest), !is_split, "{width}");
        assert_eq!(divides(&nest), !is_split, "{width}");
        for s in [0, 1, 5] {
            let rng = &mut Rng::new(5);
            let n = 3 * s * width;
            let inputs = [0; 2].map(|_| buffer(rng, DType::F32, n));
            check(
                &nest,
                &[(Symbols::from_iter([('s', s as i64)]), inputs.into())],
            );
        }
    }
    // From the last to the first within a half: gathered, but by strides.
    let backwards = refined(halves(64, -1));
    assert!(gathers(&backwards) && !divides(&backwards));
}
