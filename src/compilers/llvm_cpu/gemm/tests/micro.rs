//! Micro-kernels of every size against the definition, and what their machine code looks like.

use inkwell::context::Context;
use inkwell::module::Module;

use crate::compilers::llvm_cpu::gemm::asm::hot_loop;
use crate::compilers::llvm_cpu::gemm::micro::{MicroFn, Tile, UNROLL, emit_micro};
use crate::compilers::llvm_cpu::jit::{Jit, assembly, compile_module};
use crate::compilers::llvm_cpu::target::Target;

fn all<'c>(
    target: &Target,
    tile: Tile,
) -> impl FnOnce(&'c Context, &Module<'c>) -> crate::error::Result<()> {
    move |context, module| {
        for size in tile.kernels() {
            let symbol = tile.symbol(size, target);
            emit_micro(context, module, &symbol, tile, size);
        }
        Ok(())
    }
}

fn value(i: usize) -> f32 {
    ((i * 37 + 11) % 101) as f32 / 7.0 - 6.0
}

/// One micro-kernel on so many rows and columns of C against the definition, bit for bit.
fn check_kernel(
    kernel: MicroFn,
    tile: Tile,
    (rows, used): (usize, usize),
    (k, fresh): (usize, bool),
    what: &str,
) {
    let (panel, columns) = (tile.rows as usize, tile.columns() as usize);
    let ldc = columns + 3;
    let a: Vec<f32> = (0..k * panel).map(value).collect();
    let mut b = vec![[0f32; 16]; (k * columns).div_ceil(16) + 1];
    let start = b.as_ptr().cast::<f32>().align_offset(64);
    let b = &mut b.as_flattened_mut()[start..];
    b.iter_mut()
        .enumerate()
        .for_each(|(i, x)| *x = value(i + 5));
    let mut c: Vec<f32> = (0..rows * ldc).map(|i| value(i + 9)).collect();
    let mut expected = c.clone();
    for (i, j) in (0..rows).flat_map(|i| (0..used).map(move |j| (i, j))) {
        let c = &mut expected[i * ldc + j];
        let start = if fresh { 0.0 } else { *c };
        let products = (0..k).map(|p| (a[p * panel + i], b[p * columns + j]));
        *c = products.fold(start, |sum, (a, b)| a.mul_add(b, sum));
    }
    // SAFETY: the slices are as large as the micro-kernel's documentation asks, `b` aligned.
    unsafe {
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        let (k, ldc, fresh) = (k as i64, ldc as i64, i64::from(fresh));
        kernel(k, a, b, c, ldc, fresh, rows as i64, used as i64, c);
    }
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(
        bits(&c),
        bits(&expected),
        "{what}: {rows} x {used}, k {k} fresh {fresh}"
    );
}

/// Every kernel of a target, for fresh and continued C, also with the last row and lanes outside of C.
fn check_bits(target: &Target, tile: Tile) {
    let jit = Jit::new().unwrap();
    let object = compile_module(target, |c, m| all(target, tile)(c, m)).unwrap();
    jit.add_object(&object).unwrap();
    for size in tile.kernels() {
        let symbol = tile.symbol(size, target);
        // SAFETY: a micro-kernel has this signature.
        let kernel =
            unsafe { std::mem::transmute::<*const (), MicroFn>(jit.address(&symbol).unwrap()) };
        let (most, wide) = (size.0 as usize, (size.1 * tile.lanes) as usize);
        let narrow = wide - tile.lanes as usize + 1;
        for (index, k) in [0, 0, 1, 3, 4, 8, 13, 15].into_iter().enumerate() {
            let rows = if most > 4 { most - index % 2 } else { most };
            let used = [wide, narrow, narrow.max(wide - 1)][index % 3];
            let fresh = matches!(index, 0 | 2 | 4 | 6);
            check_kernel(kernel, tile, (rows, used), (k, fresh), &symbol);
        }
    }
}

#[test]
fn tiles_compute_the_defined_bits_on_every_target_that_runs_here() {
    let mut ran = 0;
    for name in Target::known_names() {
        let target = Target::for_cpu(name).unwrap();
        if target.can_run_here() {
            for tile in Tile::all(&target) {
                check_bits(&target, tile);
            }
            ran += 1;
        }
    }
    assert!(ran >= 3, "native, scalar and the baseline run everywhere");
}

#[test]
fn the_inner_loop_has_full_vectors_and_no_spills() {
    for (name, register) in [
        ("x86-64-v3", "ymm"),
        ("haswell", "ymm"),
        ("znver3", "ymm"),
        ("x86-64-v4", "zmm"),
        ("sapphirerapids", "zmm"),
        ("icelake-server", "zmm"),
        ("znver4", "zmm"),
        ("znver5", "zmm"),
    ] {
        let target = Target::for_cpu(name).unwrap();
        let text = |tile: &Tile| assembly(&target, |c, m| all(&target, *tile)(c, m)).unwrap();
        let tiles = Tile::all(&target);
        let texts: Vec<String> = tiles.iter().map(text).collect();
        let each = tiles.iter().zip(&texts);
        for ((tile, text), size) in each.flat_map(|both| both.0.kernels().map(move |s| (both, s))) {
            let inner = hot_loop(text, &tile.symbol(size, &target)).unwrap();
            let expected = (size.0 * size.1 * UNROLL) as usize;
            assert_eq!(
                inner.fused(register),
                expected,
                "{name} {size:?}\n{}",
                inner.text
            );
            assert_eq!(inner.spills(), 0, "{name} {size:?}\n{}", inner.text);
            assert_eq!(inner.calls(), 0, "{name} {size:?}\n{}", inner.text);
        }
    }
}

#[test]
fn a_tile_with_too_many_accumulators_is_seen_to_spill() {
    let target = Target::for_cpu("x86-64-v4").unwrap();
    let tile = Tile {
        rows: 14,
        vectors: 3,
        lanes: 16,
    };
    let text = assembly(&target, |c, m| all(&target, tile)(c, m)).unwrap();
    assert!(
        hot_loop(&text, &tile.symbol((14, 3), &target))
            .unwrap()
            .spills()
            > 0
    );
}
