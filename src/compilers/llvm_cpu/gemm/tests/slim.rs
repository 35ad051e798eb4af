//! The last tile of a row of the output with few columns, in vectors along its rows.

use super::check::{Case, check_everywhere, linked, product, targets};
use super::{dense, transposed};
use crate::compilers::llvm_cpu::gemm::asm::hot_loop;
use crate::compilers::llvm_cpu::gemm::micro::{Tile, UNROLL};
use crate::compilers::llvm_cpu::gemm::slim::{Slim, emit_slim};
use crate::compilers::llvm_cpu::jit::assembly;
use crate::compilers::llvm_cpu::target::Target;

fn tile(name: &str) -> Tile {
    Tile::of(&Target::for_cpu(name).unwrap())
}

#[test]
fn columns_behind_whole_vectors_are_few() {
    let wide = |n: usize| Slim::of(tile("x86-64-v4"), n).map(|slim| (slim.vectors, slim.columns));
    assert_eq!(wide(7), Some((0, 7)));
    assert_eq!(wide(17), Some((1, 1)));
    assert_eq!(wide(129), Some((0, 1)));
    assert_eq!(wide(20), Some((1, 4)));
    for n in [0, 9, 16, 21, 32, 63] {
        assert_eq!(wide(n), None, "{n}");
    }
    let narrow = |n: usize| Slim::of(tile("x86-64-v3"), n).map(|slim| (slim.vectors, slim.columns));
    assert_eq!(narrow(4), Some((0, 4)));
    assert_eq!(narrow(25), Some((1, 1)));
    for n in [5, 8, 11, 16] {
        assert_eq!(narrow(n), None, "{n}");
    }
    assert_eq!(Slim::of(tile("x86-64"), 1), None, "no masked loads");
}

#[test]
fn a_kernel_is_for_tiles_where_it_saves_more_than_its_stores_cost() {
    let slim = |n| Slim::of(tile("x86-64-v4"), n).unwrap();
    assert!(slim(17).takes([12, 17], 17, true));
    assert!(!slim(17).takes([11, 17], 17, true), "not all rows");
    assert!(!slim(17).takes([12, 32], 17, true), "a whole tile");
    assert!(!slim(17).takes([12, 17], 2, true), "few steps");
    assert!(slim(7).takes([12, 7], 64, true));
    assert!(slim(7).takes([10, 7], 64, true));
    assert!(
        !slim(7).takes([7, 7], 64, true),
        "no more rows than columns"
    );
}

#[test]
fn odd_numbers_of_columns_have_the_bits_of_whole_ones() {
    let mut cases = Vec::new();
    let sizes = [
        (30, 1, 70),
        (40, 7, 101),
        (25, 17, 45),
        (36, 20, 530),
        (13, 33, 60),
    ];
    for (index, (m, n, k)) in sizes.into_iter().enumerate() {
        let layouts = [dense((n, k)), transposed((k, n))];
        let contraction = product(((), m, n, k), dense((m, k)), layouts[index % 2].clone());
        for target in targets().iter().filter(|target| target.lanes() == 16) {
            let gemm = linked(&contraction, target).0;
            let (slim, _) = gemm.slim.as_ref().expect("few columns are left");
            let rows = slim.tile.rows as usize;
            assert!(slim.takes([rows, n % 32], k.min(60), true), "{contraction}");
        }
        cases.push(Case::fixed("slim", contraction));
    }
    check_everywhere(&cases);
}

#[test]
fn the_inner_loop_has_full_vectors_and_no_spills() {
    for (name, register) in [
        ("x86-64-v3", "ymm"),
        ("x86-64-v4", "zmm"),
        ("znver4", "zmm"),
    ] {
        let target = Target::for_cpu(name).unwrap();
        let tile = Tile::of(&target);
        let all = (0..tile.columns() as usize).filter_map(|n| Slim::of(tile, n));
        for slim in all {
            let symbol = slim.symbol(&target);
            let text = assembly(&target, |context, module| {
                emit_slim(context, module, &symbol, slim);
                Ok(())
            });
            let inner = hot_loop(&text.unwrap(), &symbol).unwrap();
            let each = slim.vectors * tile.rows + slim.columns;
            let expected = (each * UNROLL) as usize;
            assert_eq!(
                inner.fused(register),
                expected,
                "{name} {slim:?}\n{}",
                inner.text
            );
            assert_eq!(inner.spills(), 0, "{name} {slim:?}\n{}", inner.text);
        }
    }
}
