//! Many rows that are read where they are, times few columns.

use super::check::{Case, check_everywhere, linked, product, targets};
use super::{dense, transposed};
use crate::compilers::llvm_cpu::gemm::asm::hot_loop;
use crate::compilers::llvm_cpu::gemm::broad::{Broad, emit_broad};
use crate::compilers::llvm_cpu::gemm::ir::Contraction;
use crate::compilers::llvm_cpu::gemm::micro::UNROLL;
use crate::compilers::llvm_cpu::jit::assembly;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::{Expr, View};

/// Whether rows are read where they are: on targets with masked stores, and on others, which compute the same bits in
/// another way.
fn broad_on(contraction: &Contraction) -> [bool; 2] {
    let mut all = [true, true];
    for target in targets() {
        let (gemm, exprs) = linked(contraction, &target);
        let value = |expr: &Expr| expr.as_const().unwrap();
        let sizes = gemm.sizes(&exprs.iter().map(value).collect::<Vec<_>>());
        let rows = gemm.broad_for(sizes);
        all[0] &= rows.is_some() && !gemm.is_few(sizes);
        all[1] &= rows.is_some_and(|rows| rows.is_compiled()) == (target.lanes() >= 8);
    }
    all
}

#[test]
fn many_rows_of_every_kind_are_read_where_they_are() {
    let plain =
        |(m, n, k): (usize, usize, usize)| product(((), m, n, k), dense((m, k)), dense((n, k)));
    let sizes = [(64, 5, 32), (101, 16, 33), (65, 9, 130), (75, 8, 47)];
    let mut all: Vec<_> = sizes.into_iter().map(plain).collect();
    let (m, n, k) = (70usize, 7usize, 40usize);
    all.push(product(((), m, n, k), dense((m, k)), transposed((k, n))));
    // Rows of a wider matrix, and several products.
    let part = View::contiguous((m, k + 9)).slice(1, 5, k + 5, 1).unwrap();
    let part = (DType::F32, part);
    all.push(product(((), m, n, k), part, dense((n, k))));
    all.push(product((2, m, n, k), dense((2, m, k)), dense((2, n, k))));
    // So much work that threads share rows, and batches.
    all.push(plain((400, 16, 64)));
    let (batch, m, n, k) = (5usize, 130usize, 11usize, 48usize);
    all.push(product(
        (batch, m, n, k),
        dense((batch, m, k)),
        dense((batch, n, k)),
    ));
    for contraction in &all {
        assert_eq!(broad_on(contraction), [true, true], "{contraction}");
    }
    let cases: Vec<_> = all.into_iter().map(|c| Case::fixed("broad", c)).collect();
    check_everywhere(&cases);
}

#[test]
fn other_operands_and_sizes_are_packed_or_dot_products() {
    let (m, n, k) = (70usize, 7usize, 40usize);
    let plain = |m: usize, n: usize, k: usize| product(((), m, n, k), dense((m, k)), dense((n, k)));
    let wide = View::contiguous((m, 256)).slice(1, 0, k, 1).unwrap();
    for contraction in [
        plain(63, n, k),
        plain(m, 4, k),
        plain(m, 17, k),
        plain(m, n, 31),
        product(((), m, n, k), transposed((k, m)), dense((n, k))),
        product(((), m, n, k), (DType::F32, wide), dense((n, k))),
        product(((), m, n, k), dense((m, k)), (DType::BF16, dense((n, k)).1)),
    ] {
        assert!(!broad_on(&contraction)[0], "{contraction}");
    }
}

#[test]
fn the_inner_loop_has_full_vectors_and_no_spills() {
    for (name, register, lanes) in [
        ("x86-64-v3", "ymm", 8),
        ("x86-64-v4", "zmm", 16),
        ("znver4", "zmm", 16),
    ] {
        let target = Target::for_cpu(name).unwrap();
        for (columns, distance) in [(16, 784), (5, 33), (10, 1000)] {
            let broad = Broad {
                columns,
                distance,
                lanes,
            };
            let all = broad.heights().filter(|rows| rows * broad.vectors() >= 8);
            for rows in all {
                let symbol = broad.symbol(rows, &target);
                let text = assembly(&target, |context, module| {
                    emit_broad(context, module, &symbol, broad, rows);
                    Ok(())
                });
                let inner = hot_loop(&text.unwrap(), &symbol).unwrap();
                let expected = (rows * broad.vectors() * UNROLL) as usize;
                let what = format!("{name} {broad:?} {rows}\n{}", inner.text);
                assert_eq!(inner.fused(register), expected, "{what}");
                assert_eq!(inner.spills(), 0, "{what}");
                // One address leads to all rows.
                let moves = inner
                    .text
                    .lines()
                    .filter(|line| line.contains("add") && line.contains("%r"));
                let moves = moves.filter(|line| !line.contains("vfm")).count();
                assert!(moves <= 4, "{what}");
            }
        }
    }
}
