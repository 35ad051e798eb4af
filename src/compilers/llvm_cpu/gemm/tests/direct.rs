//! Right operands that few rows use, read where they are.

use super::check::{Case, check_everywhere, linked, product, targets};
use super::{dense, transposed};
use crate::compilers::llvm_cpu::gemm::Sizes;
use crate::compilers::llvm_cpu::gemm::asm::hot_loop;
use crate::compilers::llvm_cpu::gemm::direct::{ROWS, direct_symbol};
use crate::compilers::llvm_cpu::gemm::ir::Contraction;
use crate::compilers::llvm_cpu::gemm::micro::{Tile, UNROLL, emit_direct};
use crate::compilers::llvm_cpu::jit::assembly;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::View;

/// On how many of the targets here with masked loads, and on how many without, nothing is packed.
fn direct_on(contraction: &Contraction) -> [usize; 2] {
    let mut counts = [0, 0];
    for target in targets() {
        let (gemm, exprs) = linked(contraction, &target);
        let value = |expr: &crate::shape::Expr| expr.as_const().unwrap();
        let sizes = gemm.sizes(&exprs.iter().map(value).collect::<Vec<_>>());
        let direct = gemm
            .direct
            .as_ref()
            .is_some_and(|direct| direct.fits(sizes));
        counts[usize::from(target.lanes() < 8)] += usize::from(direct);
    }
    counts
}

#[test]
fn few_rows_of_every_kind_read_columns_where_they_are() {
    let plain = |(m, n, k): (usize, usize, usize)| {
        product(((), m, n, k), dense((m, k)), transposed((k, n)))
    };
    let sizes = [(1, 1, 1), (7, 64, 130), (17, 17, 17), (ROWS, 33, 9)];
    let mut all: Vec<_> = sizes.into_iter().map(plain).collect();
    let slice = View::contiguous((3, 70, 50)).slice(2, 7, 40, 1).unwrap();
    let slice = (DType::F32, slice.permute(&[0, 2, 1]).unwrap());
    all.push(product((3, 9, 33, 70), dense((3, 9, 70)), slice));
    let shared = View::contiguous((20, 31)).permute(&[1, 0]).unwrap();
    let shared = (DType::F32, shared.insert(0, 2).unwrap());
    all.push(product((2, 14, 31, 20), dense((2, 14, 20)), shared));
    let with_masks = targets()
        .iter()
        .filter(|target| target.lanes() >= 8)
        .count();
    for contraction in &all {
        assert_eq!(direct_on(contraction), [with_masks, 0], "{contraction}");
    }
    let cases: Vec<_> = all.into_iter().map(|c| Case::fixed("direct", c)).collect();
    check_everywhere(&cases);
}

#[test]
fn threads_read_columns_of_their_own() {
    let target = Target::for_cpu("x86-64-v4").unwrap();
    let sizes = |n: usize| Sizes {
        batch: 1,
        m: 16,
        n,
        k: 4096,
    };
    let contraction = |n: usize| {
        product(
            ((), 16usize, n, 4096usize),
            dense((16, 4096)),
            transposed((4096, n)),
        )
    };
    let cut = |n: usize, threads: usize| {
        let gemm = linked(&contraction(n), &target).0;
        let direct = gemm.direct.as_ref().expect("few rows");
        let (parts, unit) = direct.cut(sizes(n), gemm.shape.tile, threads);
        let columns = (0..parts.count()).map(|part| parts.part(part, sizes(n), unit)[2].clone());
        (parts.m, columns.collect::<Vec<_>>())
    };
    // 49 vectors of 16, which are no whole number of tiles.
    assert_eq!(cut(784, 2), (1, vec![0..384, 384..784]));
    assert_eq!(cut(784, 3).1.len(), 3);
    assert_eq!(cut(784, 1).1.len(), 1);
    // Fewer vectors than threads are shared as well as possible.
    assert!(cut(64, 8).1.len() > 1);
}

#[test]
fn many_rows_and_other_operands_are_packed() {
    let (m, n, k) = (9usize, 40usize, 20usize);
    let many = ROWS + 1;
    let half = View::contiguous((k, n)).permute(&[1, 0]).unwrap();
    let padded = View::contiguous((k, n - 1)).pad(1, 1, 0).unwrap();
    let padded = (DType::F32, padded.permute(&[1, 0]).unwrap());
    for contraction in [
        product(((), many, n, k), dense((many, k)), transposed((k, n))),
        product(((), m, n, k), dense((m, k)), dense((n, k))),
        product(((), m, n, k), dense((m, k)), (DType::BF16, half)),
        product(((), m, n, k), dense((m, k)), padded),
    ] {
        assert_eq!(direct_on(&contraction), [0, 0], "{contraction}");
    }
}

#[test]
fn the_inner_loop_has_full_vectors_and_keeps_sums_in_registers() {
    for (name, register) in [
        ("x86-64-v3", "ymm"),
        ("x86-64-v4", "zmm"),
        ("znver4", "zmm"),
    ] {
        let target = Target::for_cpu(name).unwrap();
        let tile = Tile::of(&target);
        let text = assembly(&target, |context, module| {
            for size in tile.parts() {
                let symbol = direct_symbol(tile, size, &target);
                emit_direct(context, module, &symbol, tile, size);
            }
            Ok(())
        });
        let text = text.unwrap();
        for size in tile.parts() {
            let inner = hot_loop(&text, &direct_symbol(tile, size, &target)).unwrap();
            let expected = (size.0 * size.1 * UNROLL) as usize;
            assert_eq!(
                inner.fused(register),
                expected,
                "{name} {size:?}\n{}",
                inner.text
            );
            let on_stack = |line: &&str| line.contains("(%rsp") && line.contains(register);
            let on_stack = inner.text.lines().filter(on_stack).count();
            // Of sixteen registers none is left for the mask.
            let most = if register == "ymm" { UNROLL } else { 0 };
            assert!(on_stack <= most as usize, "{name} {size:?}\n{}", inner.text);
        }
    }
}
