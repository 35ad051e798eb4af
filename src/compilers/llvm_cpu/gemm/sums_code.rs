//! Writing the code of weighted sums of rows, of blocks or of `f32`, which the module `sums` calls.
//!
//! Of `f32`, as many numbers as a block has are called a block too.
//!
//! # ABI
//! [`SumsFn`]: `fn(k, rows, stride, weights, out, distance, next, step)`: to some rows of `out`, `distance` floats apart, `k` rows of blocks
//! are added, `stride` bytes apart; `weights` has the addresses of their weights. A kernel is made for a number of rows of
//! `out` and of blocks side by side: their sums stay in registers. With each of the `k` rows, as many bytes as it has here are asked for
//! from `next` on, `step` bytes further each time; they are not read.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::stored::{LEN, Stored};
use crate::compilers::llvm_cpu::emit::Emit;
use crate::compilers::llvm_cpu::target::Target;

/// A compiled kernel; see the module's documentation.
pub type SumsFn = unsafe extern "C" fn(
    k: i64,
    rows: *const u8,
    stride: i64,
    weights: *const *const f32,
    out: *mut f32,
    distance: i64,
    next: *const u8,
    step: i64,
);

/// The most rows of the output, and for one row the most blocks, of a kernel of a target: as many sums as half of the registers
/// hold.
fn most(target: &Target) -> (usize, usize) {
    match target.lanes() {
        16 => (4, 8),
        8 => (2, 2),
        _ => (1, 1),
    }
}

/// The sizes that kernels are made for, as rows and blocks: those of most rows first, and for each number of rows those of
/// most blocks.
pub fn shapes(target: &Target) -> impl Iterator<Item = (usize, usize)> {
    let (rows, blocks) = most(target);
    (1..=rows).rev().flat_map(move |rows| {
        let widest = (blocks / rows.next_power_of_two()).max(1);
        let halves = std::iter::successors(Some(widest), |&n| (n > 1).then_some(n / 2));
        halves.map(move |blocks| (rows, blocks))
    })
}

/// The symbol of a kernel.
pub fn symbol(stored: Stored, (rows, blocks): (usize, usize), target: &Target) -> String {
    let (kind, isa) = (stored.name(), target.symbol_part());
    format!("sums_{kind}_{rows}x{blocks}_{isa}")
}

/// Writes a kernel into `module`.
pub fn emit_sums<'c>(
    context: &'c Context,
    module: &Module<'c>,
    stored: Stored,
    shape: (usize, usize),
    target: &Target,
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let name = symbol(stored, shape, target);
    let e = Emit::function(
        context,
        module,
        &name,
        &[int, ptr, int, ptr, ptr, int, ptr, int],
    );
    [1, 3, 4].into_iter().for_each(|pointer| e.noalias(pointer));
    let lanes = target.lanes();
    Sums {
        e: &e,
        stored,
        shape,
        lanes,
    }
    .emit();
    e.finish();
}

struct Sums<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    stored: Stored,
    shape: (usize, usize),
    lanes: u32,
}

impl<'c> Sums<'_, '_, 'c> {
    /// Vectors of a row of the output.
    fn vectors(&self) -> usize {
        self.shape.1 * LEN / self.lanes as usize
    }

    /// Where the vectors of the output are, row by row.
    fn places(&self) -> Vec<PointerValue<'c>> {
        let e = self.e;
        let place = |row: usize, vector: usize| {
            let row = e.mul(e.int(row as i64), e.int_argument(5));
            let column = e.int(vector as i64 * i64::from(self.lanes));
            e.at(e.f32(), e.pointer_argument(4), e.add(row, column))
        };
        let vectors = self.vectors();
        let all = (0..self.shape.0).flat_map(|row| (0..vectors).map(move |v| (row, v)));
        all.map(|(row, vector)| place(row, vector)).collect()
    }

    fn emit(&self) {
        let e = self.e;
        let weight = |row: usize| {
            let from = e.at(e.ptr(), e.pointer_argument(3), e.int(row as i64));
            e.load(e.ptr(), from, 8).into_pointer_value()
        };
        let weights: Vec<_> = (0..self.shape.0).map(weight).collect();
        let places = self.places();
        let kind = e.vector(self.lanes);
        let before = places.iter().map(|&place| e.load(kind, place, 4)).collect();
        let range = (e.int(0), e.int_argument(0), 1);
        let after = e.carry(range, before, |k, sums| self.add(k, &weights, sums));
        for (place, sum) in places.into_iter().zip(after) {
            e.store(sum, place, 4);
        }
    }

    /// Adds row `k` of the blocks.
    fn add(
        &self,
        k: IntValue<'c>,
        weights: &[PointerValue<'c>],
        sums: &[BasicValueEnum<'c>],
    ) -> Vec<BasicValueEnum<'c>> {
        let (e, stride) = (self.e, self.e.int_argument(2));
        let byte = e.context.i8_type();
        let row = e.at(byte, e.pointer_argument(1), e.mul(k, stride));
        let ahead = e.mul(k, e.int_argument(7));
        // SAFETY: not marked `inbounds`, and only asked for: it may lie behind the last row.
        let ahead = unsafe {
            e.builder
                .build_gep(byte, e.pointer_argument(6), &[ahead], "")
        };
        let ahead = ahead.expect(crate::compilers::llvm_cpu::emit::BUILT);
        // Numbers are asked for long before: into the second cache.
        let level = if self.stored == Stored::Q8_0 { 3 } else { 2 };
        for line in (0..self.stored.row_bytes(self.shape.1 * LEN)).step_by(64) {
            e.prefetch(ahead, line as i64, level);
        }
        let weights = weights.iter().map(|&row| {
            let weight = e.load(e.f32(), e.at(e.f32(), row, k), 4);
            e.splat(weight, self.lanes)
        });
        let weights: Vec<_> = weights.collect();
        let (mut next, vectors) = (sums.to_vec(), self.vectors());
        for vector in 0..vectors {
            let value = self.numbers(row, vector);
            for (i, &weight) in weights.iter().enumerate() {
                let sum = &mut next[i * vectors + vector];
                *sum = e.fma(weight, value, *sum);
            }
        }
        next
    }

    /// A vector of a row.
    fn numbers(&self, row: PointerValue<'c>, vector: usize) -> BasicValueEnum<'c> {
        let (e, first) = (self.e, vector * self.lanes as usize);
        match self.stored {
            Stored::Q8_0 => {
                let block = e.block(row, e.int(0), first / LEN);
                e.numbers(block, e.int((first % LEN) as i64), self.lanes)
            }
            Stored::Number(_) => {
                let from = e.at(e.f32(), row, e.int(first as i64));
                e.load(e.vector(self.lanes), from, 4)
            }
        }
    }
}
