//! Rows of numbers ↔ lanes, in registers.
//!
//! ```text
//! 32 rows of f32[k]     ->   i16[k, 32], rounded        a row's numbers in a lane
//! sums i32[64, 32]      ->   f32[64, 32], scaled, and what is done by columns
//! ```
//! Rounding is that of [`super::tables::quantized`], the operations on results are those of [`super::after`], in its order: bit
//! for bit, on every target.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, VectorValue};

use super::finish::Step;
use super::sums::ROWS;
use crate::compilers::llvm_cpu::blocks::activations::rounded;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};

/// Columns that are turned at a time.
pub const COLUMNS: usize = 16;

/// Rounds and turns so many times 16 columns.
///
/// Arguments: how many; where each of 32 rows begins, at any address; a factor for each; `i16[.., 32]`, aligned to 64 bytes.
pub type TurnFn =
    unsafe extern "C" fn(sixteens: i64, rows: *const *const f32, factors: *const f32, to: *mut i16);

/// Makes results of sums, in their place.
///
/// Arguments: columns; their sums `[64, 32]`, aligned to 64 bytes; a scale for each lane; one for each column, at any address; a
/// size for each lane; how many steps, and these; the first column of all.
pub type ResultsFn = unsafe extern "C" fn(
    columns: i64,
    sums: *mut i32,
    scales: *const f32,
    by_column: *const f32,
    sizes: *const f32,
    n_steps: i64,
    steps: *const Step,
    first: i64,
);

/// Writes [`TurnFn`] into `module`.
pub fn emit_turn<'c>(context: &'c Context, module: &Module<'c>, name: &str) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr, ptr]);
    e.noalias(3);
    let lanes = COLUMNS as u32;
    let narrow = context.i16_type().vec_type(lanes);
    e.each(e.int(0), e.int_argument(0), 1, |at| {
        let column = e.mul(at, e.int(COLUMNS as i64));
        for half in 0..ROWS / COLUMNS {
            let row = |i: usize| {
                let i = e.int((half * COLUMNS + i) as i64);
                let start = e.load(e.ptr(), e.at(e.ptr(), e.pointer_argument(1), i), 8);
                let from = e.at(e.f32(), start.into_pointer_value(), column);
                let factor = e.load(e.f32(), e.at(e.f32(), e.pointer_argument(2), i), 4);
                let whole = rounded(&e, e.load(e.vector(lanes), from, 1), factor);
                let whole = whole.into_vector_value();
                e.builder
                    .build_int_truncate(whole, narrow, "")
                    .expect(BUILT)
            };
            let rows: Vec<VectorValue<'c>> = (0..COLUMNS).map(row).collect();
            for (k, turned) in transposed(&e, rows).into_iter().enumerate() {
                let column = e.add(column, e.int(k as i64));
                let to = e.add(e.mul(column, e.int(2)), e.int(half as i64));
                e.store(turned, e.at(narrow, e.pointer_argument(3), to), 32);
            }
        }
    });
    e.finish();
}

/// Exchanges rows and lanes of as many vectors as each has lanes, a power of two. Each round interleaves the first half of them
/// with the second, which moves every bit of an element's place by one.
fn transposed<'c>(e: &Emit<'_, 'c>, mut rows: Vec<VectorValue<'c>>) -> Vec<VectorValue<'c>> {
    let n = rows.len() as u32;
    let half = |first: u32| -> Vec<u32> { (0..n).map(|i| first + i / 2 + i % 2 * n).collect() };
    let both = [half(0), half(n / 2)];
    for _ in 0..n.ilog2() {
        let (a, b) = rows.split_at(n as usize / 2);
        let pairs = a.iter().zip(b);
        let next = pairs.flat_map(|(a, b)| {
            both.iter().map(|lanes| {
                e.shuffle((*a).into(), (*b).into(), lanes)
                    .into_vector_value()
            })
        });
        rows = next.collect();
    }
    rows
}

/// Writes [`ResultsFn`] into `module`.
pub fn emit_results<'c>(context: &'c Context, module: &Module<'c>, name: &str) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let arguments = [int, ptr, ptr, ptr, ptr, int, ptr, int];
    let e = Emit::function(context, module, name, &arguments);
    e.noalias(1);
    let b = &e.builder;
    let kind = context.f32_type().vec_type(ROWS as u32);
    let place = |column: IntValue<'c>| e.at(kind, e.pointer_argument(1), column);
    let number = |of: u32, at: IntValue<'c>| {
        let from = e.at(e.f32(), e.pointer_argument(of), at);
        e.splat(e.load(e.f32(), from, 1), ROWS as u32)
            .into_vector_value()
    };
    let lanes = |of: u32| e.load(kind, e.pointer_argument(of), 4).into_vector_value();
    let times = |x: VectorValue<'c>, y| b.build_float_mul(x, y, "").expect(BUILT);
    let (scales, sizes) = (lanes(2), lanes(4));
    e.each(e.int(0), e.int_argument(0), 1, |column| {
        let whole = context.i32_type().vec_type(ROWS as u32);
        let sums = e.load(whole, place(column), 64).into_vector_value();
        let sums = b.build_signed_int_to_float(sums, kind, "").expect(BUILT);
        let x = times(times(times(sums, scales), number(3, column)), sizes);
        e.store(x, place(column), 64);
    });
    e.each(e.int(0), e.int_argument(5), 1, |at| {
        let (is_product, numbers) = Step::read(&e, e.pointer_argument(6), (at, e.int_argument(7)));
        let each_column =
            |apply: &dyn Fn(VectorValue<'c>, VectorValue<'c>) -> BasicValueEnum<'c>| {
                e.each(e.int(0), e.int_argument(0), 1, |column| {
                    let y = e.load(e.f32(), e.at(e.f32(), numbers, column), 1);
                    let y = e.splat(y, ROWS as u32).into_vector_value();
                    let x = e.load(kind, place(column), 64).into_vector_value();
                    e.store(apply(x, y), place(column), 64);
                });
            };
        e.branch(
            is_product,
            || each_column(&|x, y| times(x, y).into()),
            || each_column(&|x, y| e.fadd(x.into(), y.into())),
        );
    });
    e.finish();
}
