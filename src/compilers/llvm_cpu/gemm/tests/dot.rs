//! Products with few rows against the definition of their order, and against loop nests.

use super::check::{Case, data_by, product, run_few, striped, targets};
use super::{dense, transposed};
use crate::compilers::llvm_cpu::gemm::asm::hot_loop;
use crate::compilers::llvm_cpu::gemm::dot::{emit_dot, shape, shapes, symbol};
use crate::compilers::llvm_cpu::gemm::few::FEW;
use crate::compilers::llvm_cpu::gemm::stored::Stored;
use crate::compilers::llvm_cpu::jit::assembly;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::View;

/// Runs a case on all targets and numbers of threads; every run has to be by dot products.
fn check(case: &Case) {
    let expected = data_by(case, striped).expected;
    for target in targets() {
        for threads in [1, 2, 3] {
            let got = run_few(case, &target, threads).expect("few rows");
            assert_eq!(
                got, expected,
                "{} on {target}, {threads} threads",
                case.name
            );
        }
    }
}

#[test]
fn few_rows_and_few_columns_of_every_number() {
    for (m, n, k) in [
        (1, 1, 1),
        (1, 37, 64),
        (2, 13, 16),
        (3, 8, 15),
        (4, 300, 300),
        (5, 11, 33),
        (7, 100, 17),
        (16, 29, 100),
        (29, 3, 47),
        (100, 1, 16),
    ] {
        check(&Case::fixed(
            "few",
            product(((), m, n, k), dense((m, k)), dense((n, k))),
        ));
    }
}

#[test]
fn few_rows_of_half_precision_weights() {
    for dtype in [DType::BF16, DType::F16] {
        for (m, n, k) in [(1, 70, 64), (3, 9, 37), (6, 21, 130)] {
            let weights = (dtype, View::contiguous((n, k)));
            check(&Case::fixed(
                "half",
                product(((), m, n, k), dense((m, k)), weights),
            ));
        }
    }
}

#[test]
fn few_rows_whose_steps_lie_apart() {
    let (few, many, k) = (7usize, 256usize, 37usize);
    // With more columns, many rows would be read where they are.
    let columns = 4usize;
    let batches = View::contiguous((3, k, columns))
        .permute(&[0, 2, 1])
        .unwrap();
    let halves = View::contiguous((k, few)).permute(&[1, 0]).unwrap();
    let flipped = View::contiguous((few, k)).flip(1).unwrap();
    for contraction in [
        product(
            ((), many, columns, k),
            dense((many, k)),
            transposed((k, columns)),
        ),
        product(((), few, many, k), transposed((k, few)), dense((many, k))),
        product(((), 1, many, k), transposed((k, 1)), dense((many, k))),
        product(((), few, many, k), (DType::F32, flipped), dense((many, k))),
        product(
            (3, many, columns, k),
            dense((3, many, k)),
            (DType::F32, batches),
        ),
        product(
            ((), few, many, k),
            (DType::BF16, halves),
            (DType::BF16, View::contiguous((many, k))),
        ),
    ] {
        check(&Case::fixed("apart", contraction));
    }
}

#[test]
fn few_rows_in_batches_of_slices_with_other_strides() {
    let (batch, m, n, k) = (3usize, 2usize, 9usize, 20usize);
    let lhs = View::contiguous((m, batch, 2 * k))
        .permute(&[1, 0, 2])
        .unwrap();
    let lhs = lhs.slice(2, 5, 5 + k, 1).unwrap();
    let mut contraction = product((batch, m, n, k), (DType::F32, lhs), dense((batch, n, k)));
    contraction.out_strides = [n as i64, (batch * n) as i64, 1]
        .into_iter()
        .map(Into::into)
        .collect();
    check(&Case::fixed("batch", contraction));
}

#[test]
fn other_layouts_and_many_rows_are_not_done_by_dot_products() {
    let target = Target::native();
    let few = |m: usize, n: usize, lhs, rhs| {
        let case = Case::fixed("not few", product(((), m, n, 40usize), lhs, rhs));
        run_few(&case, &target, 1).is_some()
    };
    assert!(few(FEW, 50, dense((FEW, 40)), dense((50, 40))));
    assert!(
        !few(FEW + 1, 50, dense((FEW + 1, 40)), dense((50, 40))),
        "too many rows"
    );
    assert!(
        !few(2, 50, dense((2, 40)), transposed((40, 50))),
        "k is not contiguous"
    );
    assert!(few(256, 2, dense((256, 40)), transposed((40, 2))));
    assert!(
        !few(255, 2, dense((255, 40)), transposed((40, 2))),
        "writing rows out does not pay"
    );
    let padded = (DType::F32, View::contiguous((2, 39)).pad(1, 1, 0).unwrap());
    assert!(!few(2, 50, padded, dense((50, 40))), "padding");
    let half = (DType::BF16, View::contiguous((3, 40)));
    assert!(
        !few(50, 3, dense((50, 40)), half),
        "no kernel for half-precision rows times f32"
    );
}

#[test]
fn the_inner_loop_has_full_vectors_and_no_spills() {
    for (name, register) in [
        ("x86-64-v3", "ymm"),
        ("x86-64-v4", "zmm"),
        ("znver4", "zmm"),
    ] {
        let target = Target::for_cpu(name).unwrap();
        for stored in [[DType::F32; 2], [DType::F32, DType::BF16]] {
            let stored = stored.map(Stored::Number);
            let text = assembly(&target, |context, module| {
                shapes(stored, &target)
                    .for_each(|shape| emit_dot(context, module, stored, shape, &target));
                Ok(())
            });
            let text = text.unwrap();
            for size in shapes(stored, &target) {
                let inner = hot_loop(&text, &symbol(stored, size, &target)).unwrap();
                let expected = size.0 * size.1 * 16 / target.lanes() as usize;
                assert_eq!(
                    inner.fused(register),
                    expected,
                    "{name} {size:?}\n{}",
                    inner.text
                );
                assert_eq!(inner.spills(), 0, "{name} {size:?}\n{}", inner.text);
                assert_eq!(inner.calls(), 0, "{name} {size:?}\n{}", inner.text);
            }
            assert!(
                shape(stored, &target).1 > 1,
                "{name} has room for several rows"
            );
        }
    }
}
