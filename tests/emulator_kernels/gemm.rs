//! The pieces of matrix products: micro-kernels of every height, and packing from views of every kind.

use brain_blitz::array::Array;
use brain_blitz::compilers::llvm_cpu::cache::ObjectCache;
use brain_blitz::compilers::llvm_cpu::gemm::CompiledGemm;
use brain_blitz::compilers::llvm_cpu::gemm::broad::{Broad, emit_broad};
use brain_blitz::compilers::llvm_cpu::gemm::direct::direct_symbol;
use brain_blitz::compilers::llvm_cpu::gemm::ir::Contraction;
use brain_blitz::compilers::llvm_cpu::gemm::micro::{Tile, emit_direct};
use brain_blitz::compilers::llvm_cpu::gemm::objects::Objects;
use brain_blitz::compilers::llvm_cpu::gemm::slim::{Slim, emit_slim};
use brain_blitz::compilers::llvm_cpu::ir::Access;
use brain_blitz::compilers::llvm_cpu::jit::compile_module;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::prelude::*;
use brain_blitz::shape::{Dims, IntoDims, Symbols, View};

use inkwell::context::Context;
use inkwell::module::Module;

use crate::TARGETS;
use crate::avx512::Emulator;
use crate::batch::{Arg, Batch, Place};
use crate::cases::spread;

/// `[m, k]` times `[n, k]` transposed.
fn product(dtype: DType, lhs: View, rhs: View) -> Contraction {
    let (m, n, k) = (lhs.dims()[0], rhs.dims()[0], lhs.dims()[1]);
    let access = |input, view| Access { input, dtype, view };
    Contraction {
        batch: ().into_dims(),
        m: Dims::from_iter([m]),
        n: Dims::from_iter([n]),
        k: Dims::from_iter([k]),
        lhs: access(0, lhs),
        rhs: access(1, rhs),
        out_strides: Dims::from_iter([n, Expr::from(1)]),
        dtype: DType::F32,
    }
}

fn compiled(c: &Contraction, target: &Target) -> CompiledGemm {
    CompiledGemm::new(c, target, &ObjectCache::disabled()).expect("it compiles")
}

fn bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
}

fn value(i: usize) -> f32 {
    ((i * 37 + 11) % 101) as f32 / 7.0 - 6.0
}

/// One micro-kernel on packed data: what it must give, and where it will be.
fn micro(
    batch: &mut Batch,
    objects: &Objects,
    (kernel, vectors, symbol): &(u32, u32, String),
    k: usize,
    fresh: bool,
) -> (Vec<f32>, Place) {
    let (panel, columns) = (objects.tile.rows as usize, objects.tile.columns() as usize);
    let ldc = columns + 3;
    // Kernels for more than four rows also serve one row less; the last vector may be partly outside of C.
    let rows = *kernel as usize - usize::from(k == 3 && *kernel > 4);
    let used = (vectors * objects.tile.lanes) as usize - if k == 37 { 5 } else { 0 };
    let a: Vec<f32> = (0..panel * k).map(value).collect();
    let b: Vec<f32> = (0..columns * k).map(|i| value(i * 3 + 1)).collect();
    let mut c: Vec<f32> = (0..rows * ldc).map(|i| value(i * 5 + 2)).collect();
    let [a_place, b_place] = [&a, &b].map(|floats| batch.input(&bytes(floats)));
    batch.label(format!("{rows} x {used}, k = {k}"));
    let c_place = batch.state(&bytes(&c));
    let args = [
        Arg::Int(k as i64),
        Arg::Pointer(a_place),
        Arg::Pointer(b_place),
        Arg::Pointer(c_place),
        Arg::Int(ldc as i64),
        Arg::Int(i64::from(fresh)),
        Arg::Int(rows as i64),
        Arg::Int(used as i64),
        Arg::Pointer(c_place),
    ];
    batch.call(symbol, &args);
    for row in 0..rows {
        for column in 0..used {
            let start = if fresh { 0.0 } else { c[row * ldc + column] };
            let step =
                |sum: f32, k: usize| a[k * panel + row].mul_add(b[k * columns + column], sum);
            c[row * ldc + column] = (0..k).fold(start, step);
        }
    }
    (c, c_place)
}

/// Runs calls of the kernels that all products of a target share; `calls` gives for each what it is, what it must write
/// and where.
fn check_shared(
    test: &str,
    dtype: DType,
    calls: impl Fn(&mut Batch, &Objects<'_>) -> Vec<(String, Vec<f32>, Place)>,
) {
    let Some(emulator) = Emulator::for_test(test) else {
        return;
    };
    let plain = View::contiguous([4, 4]);
    let contraction = product(dtype, plain.clone(), plain);
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let gemm = compiled(&contraction, &target);
        let objects = gemm.objects();
        let mut batch = Batch::default();
        batch.object("micro", objects.micro_object);
        let wanted = calls(&mut batch, &objects);
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (call, want, place) in wanted {
            assert_eq!(after.floats(place), want, "{call} on {name}");
        }
    }
}

#[test]
fn micro_kernels_of_every_height() {
    check_shared(
        "micro_kernels_of_every_height",
        DType::F32,
        |batch, objects| {
            let mut wanted = Vec::new();
            for kernel in objects.micros {
                for (k, fresh) in [(0, true), (1, true), (3, false), (4, true), (37, false)] {
                    let (want, place) = micro(batch, objects, kernel, k, fresh);
                    let call = format!("{kernel:?}, k = {k}, fresh = {fresh}");
                    wanted.push((call, want, place));
                }
            }
            assert!(wanted.len() >= 40, "{} kernels times 5", wanted.len());
            wanted
        },
    );
}

/// What a kernel makes of C: products of a panel of A and rows of B, each with the distance of its rows.
fn multiply(
    [rows, columns, k]: [usize; 3],
    (a, panel): (&[f32], usize),
    (b, ldb): (&[f32], usize),
    (c, ldc): (&mut [f32], usize),
    fresh: bool,
) {
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let sum = &mut c[row * ldc + column];
        let step = |sum: f32, k: usize| a[k * panel + row].mul_add(b[k * ldb + column], sum);
        let start = if fresh { 0.0 } else { *sum };
        *sum = (0..k).fold(start, step);
    }
}

/// Compares kernels that `calls` compiles, on each target, with what it says they must give.
fn check_own(test: &str, calls: impl Fn(&mut Batch, &Target) -> Vec<(String, Vec<f32>, Place)>) {
    let Some(emulator) = Emulator::for_test(test) else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let mut batch = Batch::default();
        let wanted = calls(&mut batch, &target);
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (call, want, place) in wanted {
            assert_eq!(after.floats(place), want, "{call} on {name}");
        }
    }
}

/// Compiles a kernel of its own into the batch.
fn add(
    batch: &mut Batch,
    target: &Target,
    symbol: &str,
    emit: impl for<'c> FnOnce(&'c Context, &Module<'c>),
) {
    let object = compile_module(target, |context, module| {
        emit(context, module);
        Ok(())
    });
    batch.object(symbol, &object.expect("it compiles"));
}

/// A, B and C of so many numbers: their values, and where they are.
fn operands(batch: &mut Batch, lens: [usize; 3]) -> ([Vec<f32>; 3], [Place; 3]) {
    let a: Vec<f32> = (0..lens[0]).map(value).collect();
    let b: Vec<f32> = (0..lens[1]).map(|i| value(i * 3 + 1)).collect();
    let c: Vec<f32> = (0..lens[2]).map(|i| value(i * 5 + 2)).collect();
    let [a_place, b_place] = [&a, &b].map(|floats| batch.input(&bytes(floats)));
    let c_place = batch.state(&bytes(&c));
    ([a, b, c], [a_place, b_place, c_place])
}

/// One micro-kernel that reads rows of B where they are: what it must give, and where it will be.
fn direct(
    batch: &mut Batch,
    (tile, symbol): (Tile, &str),
    (rows, used): (usize, usize),
    k: usize,
) -> (Vec<f32>, Place) {
    let (panel, ldb, ldc) = (tile.rows as usize, used + 7, used + 3);
    // Nothing is behind the last row of B.
    let lens = [panel * k, (ldb * k).saturating_sub(7), rows * ldc];
    let ([a, b, mut c], [a_place, b_place, c_place]) = operands(batch, lens);
    let args = [
        Arg::Int(k as i64),
        Arg::Pointer(a_place),
        Arg::Pointer(b_place),
        Arg::Pointer(c_place),
        Arg::Int(ldc as i64),
        Arg::Int(0),
        Arg::Int(rows as i64),
        Arg::Int(used as i64),
        Arg::Pointer(c_place),
        Arg::Int(ldb as i64),
    ];
    batch.call(symbol, &args);
    multiply(
        [rows, used, k],
        (&a, panel),
        (&b, ldb),
        (&mut c, ldc),
        false,
    );
    (c, c_place)
}

#[test]
fn micro_kernels_read_rows_where_they_are() {
    check_own("micro_kernels_read_rows_where_they_are", |batch, target| {
        let (tile, mut wanted) = (Tile::of(target), Vec::new());
        for size in tile.parts().filter(|size| size.0 % 3 != 2) {
            let symbol = direct_symbol(tile, size, target);
            add(batch, target, &symbol, |context, module| {
                emit_direct(context, module, &symbol, tile, size)
            });
            let (rows, columns) = (size.0 as usize, (size.1 * tile.lanes) as usize);
            for (used, k) in [(columns, 5), (columns - 3, 6)] {
                let (want, place) = direct(batch, (tile, &symbol), (rows, used), k);
                wanted.push((format!("{symbol}, {used} columns"), want, place));
            }
        }
        assert!(wanted.len() >= 16, "{} calls", wanted.len());
        wanted
    });
}

/// One kernel for few columns: what it must give, and where it will be.
fn slim(
    batch: &mut Batch,
    (slim, symbol): (Slim, &str),
    (rows, k): (usize, usize),
    fresh: bool,
) -> (Vec<f32>, Place) {
    let columns = (slim.vectors * slim.tile.lanes + slim.columns) as usize;
    let (panel, ldb, ldc) = (slim.tile.rows as usize, columns + 2, columns + 3);
    let lens = [panel * k, ldb * k, rows * ldc];
    let ([a, b, mut c], [a_place, b_place, c_place]) = operands(batch, lens);
    let args = [
        Arg::Int(k as i64),
        Arg::Pointer(a_place),
        Arg::Pointer(b_place),
        Arg::Int(ldb as i64),
        Arg::Pointer(c_place),
        Arg::Int(ldc as i64),
        Arg::Int(i64::from(fresh)),
        Arg::Int(rows as i64),
    ];
    batch.call(symbol, &args);
    let sizes = [rows, columns, k];
    multiply(sizes, (&a, panel), (&b, ldb), (&mut c, ldc), fresh);
    (c, c_place)
}

#[test]
fn few_columns_lie_in_vectors_along_rows() {
    check_own("few_columns_lie_in_vectors_along_rows", |batch, target| {
        let (tile, mut wanted) = (Tile::of(target), Vec::new());
        for n in [1, 3, 8, 17, 20] {
            let kind = Slim::of(tile, n).expect("few columns");
            let symbol = kind.symbol(target);
            add(batch, target, &symbol, |context, module| {
                emit_slim(context, module, &symbol, kind)
            });
            let all = tile.rows as usize;
            let rows = if kind.vectors == 0 { all - 3 } else { all };
            for (rows, k, fresh) in [(all, 6, true), (rows, 5, false), (rows, 0, true)] {
                let (want, place) = slim(batch, (kind, &symbol), (rows, k), fresh);
                wanted.push((format!("{symbol}, {rows} rows, k = {k}"), want, place));
            }
        }
        wanted
    });
}

/// One kernel that reads rows of A where they are: what it must give, and where it will be.
fn broad(
    batch: &mut Batch,
    (broad, symbol): (Broad, &str),
    (rows, k): (usize, usize),
) -> (Vec<f32>, Place) {
    let (columns, apart) = (broad.columns as usize, broad.distance as usize);
    let (width, ldc) = (columns.next_multiple_of(broad.lanes as usize), columns + 3);
    let lens = [rows * apart, width * k, rows * ldc];
    let ([a, b, mut c], [a_place, b_place, c_place]) = operands(batch, lens);
    let panel = (0..k * rows).map(|i| a[i % rows * apart + i / rows]);
    let panel: Vec<f32> = panel.collect();
    let args = [
        Arg::Int(k as i64),
        Arg::Pointer(a_place),
        Arg::Pointer(b_place),
        Arg::Pointer(c_place),
        Arg::Int(ldc as i64),
    ];
    batch.call(symbol, &args);
    let sizes = [rows, columns, k];
    multiply(sizes, (&panel, rows), (&b, width), (&mut c, ldc), true);
    (c, c_place)
}

#[test]
fn many_rows_are_read_where_they_are() {
    check_own("many_rows_are_read_where_they_are", |batch, target| {
        let (lanes, mut wanted) = (target.lanes(), Vec::new());
        for (columns, k) in [(5, 9), (16, 7)] {
            let kind = Broad {
                columns,
                distance: 11,
                lanes,
            };
            for rows in kind.heights() {
                let symbol = kind.symbol(rows, target);
                add(batch, target, &symbol, |context, module| {
                    emit_broad(context, module, &symbol, kind, rows)
                });
                let (want, place) = broad(batch, (kind, &symbol), (rows as usize, k));
                wanted.push((format!("{symbol}, k = {k}"), want, place));
            }
        }
        assert!(wanted.len() >= 10, "{} calls", wanted.len());
        wanted
    });
}

#[test]
fn kept_panels_are_widened() {
    check_shared("kept_panels_are_widened", DType::BF16, |batch, objects| {
        let widened = [0, 1, 7].map(|steps| {
            let n = steps * objects.tile.columns() as usize;
            let x = spread(&[n], steps, DType::BF16);
            let (from, to) = (batch.input(x.bytes()), batch.output(4 * n));
            let args = [Arg::Pointer(from), Arg::Pointer(to), Arg::Int(n as i64)];
            batch.call(objects.widen, &args);
            (format!("{steps} steps"), x.to_f32(), to)
        });
        widened.into()
    });
}

/// Views of a `[30, 26]` buffer that packing treats differently.
fn views() -> Vec<(&'static str, View)> {
    let x = View::contiguous([30, 26]);
    let fits = "fits [30, 26]";
    let flat = x.permute(&[1, 0]).expect(fits).reshape([780]).expect(fits);
    vec![
        ("steps next to each other", x.clone()),
        ("rows next to each other", x.permute(&[1, 0]).expect(fits)),
        (
            "every second",
            x.slice(0, 0, 30, 2)
                .expect(fits)
                .slice(1, 1, 26, 2)
                .expect(fits),
        ),
        ("backwards", x.flip(1).expect(fits)),
        (
            "padded",
            x.pad(0, 2, 3).expect(fits).pad(1, 1, 4).expect(fits),
        ),
        ("of two layers", flat.reshape([39, 20]).expect(fits)),
        (
            "one row repeated",
            x.slice(0, 3, 4, 1)
                .expect(fits)
                .reshape([26])
                .expect(fits)
                .insert(0, 17)
                .expect(fits),
        ),
    ]
}

/// `[panel][k][width]` with zeros behind the last row.
fn packed(x: &Array, view: &View, width: usize, (k, steps): (usize, usize)) -> Vec<f32> {
    let seen = view.resolve(&Symbols::new()).expect("static");
    let rows = seen.dims()[0];
    let data = x.to_f32();
    let mut out = Vec::new();
    for panel in 0..rows.div_ceil(width) {
        for step in k..k + steps {
            for row in panel * width..(panel + 1) * width {
                let index = if row < rows {
                    seen.index(&[row, step])
                } else {
                    None
                };
                out.push(index.map_or(0.0, |i| data[i]));
            }
        }
    }
    out
}

/// What a packing function is told, from its first number on.
fn told(gemm: &CompiledGemm, first: usize) -> Vec<u8> {
    let numbers = gemm.params()[first..].iter();
    let numbers = numbers.map(|told| told.as_const().expect("static sizes"));
    numbers.flat_map(i64::to_le_bytes).collect()
}

#[test]
fn packing_from_views_of_every_kind() {
    let Some(emulator) = Emulator::for_test("packing_from_views_of_every_kind") else {
        return;
    };
    for (name, model) in TARGETS {
        let target = Target::for_cpu(name).expect("a known target");
        let (mut batch, mut wanted) = (Batch::default(), Vec::new());
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            if dtype == DType::F16 && name != "x86-64-v4" {
                // Conversions use FP16 instructions there, which the emulator lacks.
                continue;
            }
            for (label, view) in views() {
                let gemm = compiled(&product(dtype, view.clone(), view.clone()), &target);
                let objects = gemm.objects();
                for (symbol, object) in objects.packs.iter().zip(objects.pack_objects) {
                    batch.object(symbol, object);
                }
                let x = spread(&[30, 26], 8, dtype);
                let widths = [objects.tile.rows, objects.tile.columns()];
                for ((symbol, width), first) in
                    objects.packs.iter().zip(widths).zip(objects.pack_params)
                {
                    let told = told(&gemm, first);
                    let all = view.dims()[1].as_usize().expect("static");
                    for part in [(0, all), (3, all - 5)] {
                        batch.label(label);
                        let want = packed(&x, &view, width as usize, part);
                        let (rows, source) = (
                            view.dims()[0].as_const().expect("static"),
                            batch.input(x.bytes()),
                        );
                        let (told, out) = (batch.input(&told), batch.output(want.len() * 4));
                        let args = [
                            Arg::Pointer(source),
                            Arg::Pointer(told),
                            Arg::Int(0),
                            Arg::Int(0),
                            Arg::Int(rows),
                            Arg::Int(part.0 as i64),
                            Arg::Int(part.1 as i64),
                            Arg::Pointer(out),
                        ];
                        batch.call(symbol, &args);
                        wanted.push((
                            format!("{label} of {dtype} in panels of {width}"),
                            want,
                            out,
                        ));
                    }
                }
            }
        }
        let after = batch.run(&emulator, model).expect("the emulator runs");
        for (label, want, place) in wanted {
            assert_eq!(after.floats(place), want, "{label} on {name}");
        }
    }
}
