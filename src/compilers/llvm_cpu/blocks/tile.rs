//! Many rows of activations: tiles of some rows by [`COLUMNS`] rows of weights, which were laid out in a panel first.
//!
//! Lanes are rows of weights: four (or, as words, two) numbers of each next to each other, so that the same numbers of a
//! row of activations are multiplied in every lane, and nothing has to be added across lanes.
//!
//! A block of a panel:
//!
//! | from byte | bytes: [`Dots::Vnni`], [`Dots::Nibbles`] | words |
//! |---|---|---|
//! | 0 | `[8 groups of four][16 columns][4] u8` | `[16 pairs][16 columns][2] i16` |
//! | 512, 1024 | `[16 columns] f32`, scales | the same |
//!
//! Bits: a block's sum is exact; as `f32`, times the weights' scale, it is added times the activations' scale by a
//! fused multiply-add, block after block.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue, VectorValue};

use super::activations::{NUMBERS, SCALES, TOTALS, WORDS};
use super::dot::{Dots, Whole};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// `fn(blocks, panel, records, out)`: addresses of records of activations; results go to `out[row][16]`.
pub type TileFn =
    unsafe extern "C" fn(blocks: i64, panel: *const u8, records: *const *const u8, out: *mut f32);

/// Rows of weights in a panel.
pub const COLUMNS: usize = 16;

/// Rows of activations of the kernels of a target, the largest first.
pub fn heights(target: &Target) -> &'static [usize] {
    match target.lanes() {
        16 => &[12, 6, 3, 1],
        _ => &[4, 2, 1],
    }
}

/// Bytes of a block of a panel.
pub const fn block_bytes(words: bool) -> usize {
    (if words { 1024 } else { 512 }) + 4 * COLUMNS
}

/// Writes a kernel into `module`.
pub fn emit_tile<'c>(
    context: &'c Context,
    module: &Module<'c>,
    name: &str,
    (dots, lanes): (Dots, u32),
    rows: usize,
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr, ptr]);
    (1..4).for_each(|pointer| e.noalias(pointer));
    let table = e.pointer_argument(2);
    let row = |i: usize| e.load(e.ptr(), e.at(e.ptr(), table, e.int(i as i64)), 8);
    // A vector of `i32` has a lane for a row of weights.
    let lanes = if lanes >= 16 && dots == Dots::Vnni {
        16
    } else {
        8
    };
    let kernel = Kernel {
        whole: Whole { e: &e, dots },
        records: (0..rows).map(|i| row(i).into_pointer_value()).collect(),
        lanes,
    };
    let n = COLUMNS / lanes as usize;
    let zeros = vec![e.vector(lanes).const_zero(); rows * n];
    let range = (e.int(0), e.int_argument(0), 1);
    let sums = e.carry(range, zeros, |block, sums| kernel.block(block, sums));
    for (i, sum) in sums.into_iter().enumerate() {
        let at = e.int(i as i64 * i64::from(lanes));
        e.store(sum, e.at(e.f32(), e.pointer_argument(3), at), 4);
    }
    e.finish();
}

struct Kernel<'e, 'm, 'c> {
    whole: Whole<'e, 'm, 'c>,
    records: Vec<PointerValue<'c>>,
    lanes: u32,
}

impl<'c> Kernel<'_, '_, 'c> {
    /// Vectors in a row of a panel.
    fn n(&self) -> usize {
        COLUMNS / self.lanes as usize
    }

    fn block(&self, block: IntValue<'c>, sums: &[BasicValueEnum<'c>]) -> Vec<BasicValueEnum<'c>> {
        let (e, words) = (self.whole.e, self.whole.dots.has_words());
        let byte = e.context.i8_type();
        let start = e.mul(block, e.int(block_bytes(words) as i64));
        let panel = e.at(byte, e.pointer_argument(1), start);
        let whole = self.sums(block, panel);
        let scales = block_bytes(words) - 4 * COLUMNS;
        let mut next = sums.to_vec();
        for (j, scale) in self.vectors(panel, scales).into_iter().enumerate() {
            for (i, record) in self.records.iter().enumerate() {
                let sum = &mut next[i * self.n() + j];
                let by = SCALES.of(e, *record, block);
                let by = e.splat(e.load(e.f32(), by, 4), self.lanes);
                let value = self.whole.to_float(whole[i * self.n() + j]);
                let value = e.builder.build_float_mul(
                    value.into_vector_value(),
                    scale.into_vector_value(),
                    "",
                );
                *sum = e.fma(value.expect(BUILT).into(), by, *sum);
            }
        }
        next
    }

    /// The vectors of scales at a byte of a block of the panel.
    fn vectors(&self, panel: PointerValue<'c>, from: usize) -> Vec<BasicValueEnum<'c>> {
        let e = self.whole.e;
        let bytes = 4 * self.lanes as usize;
        let vector = |j: usize| {
            let at = e.at(e.context.i8_type(), panel, e.int((from + j * bytes) as i64));
            e.load(e.vector(self.lanes), at, 4)
        };
        (0..self.n()).map(vector).collect()
    }

    /// The block's exact sums.
    fn sums(&self, block: IntValue<'c>, panel: PointerValue<'c>) -> Vec<VectorValue<'c>> {
        let (e, b) = (self.whole.e, &self.whole.e.builder);
        let (dots, n) = (self.whole.dots, self.n());
        let total = |record: &PointerValue<'c>| {
            let from = TOTALS.of(e, *record, block);
            let total = e.load(e.context.i32_type(), from, 4);
            e.splat(total, self.lanes).into_vector_value()
        };
        let start = |record| match dots {
            Dots::Vnni => total(record),
            Dots::Nibbles => e.context.i16_type().vec_type(2 * self.lanes).const_zero(),
            _ => e.context.i32_type().vec_type(self.lanes).const_zero(),
        };
        let starts = self.records.iter().map(start);
        let mut sums: Vec<_> = starts.flat_map(|start| vec![start; n]).collect();
        for group in 0..if dots.has_words() { 16 } else { 8 } {
            let weights: Vec<_> = (0..n).map(|j| self.weights(panel, group, j)).collect();
            for (i, record) in self.records.iter().enumerate() {
                let a = self.activations(*record, block, group);
                for (j, w) in weights.iter().enumerate() {
                    let sum = &mut sums[i * n + j];
                    let add = |x| b.build_int_add(*sum, x, "").expect(BUILT);
                    *sum = match dots {
                        Dots::Vnni => self.whole.vnni(*sum, *w, a),
                        Dots::Nibbles => add(self.whole.pairs(*w, a)),
                        Dots::Words | Dots::Plain => add(self.whole.words(*w, a)),
                    };
                }
            }
        }
        if dots == Dots::Nibbles {
            let ones = self.whole.splat(16, 1, 2 * self.lanes);
            for (i, sum) in sums.iter_mut().enumerate() {
                let fours = self.whole.words(*sum, ones);
                let total = total(&self.records[i / n]);
                *sum = b.build_int_add(fours, total, "").expect(BUILT);
            }
        }
        sums
    }

    /// Vector `j` of a group of weights.
    fn weights(&self, panel: PointerValue<'c>, group: usize, j: usize) -> VectorValue<'c> {
        let e = self.whole.e;
        let bytes = 4 * self.lanes as usize;
        let from = e.int((group * 4 * COLUMNS + j * bytes) as i64);
        let from = e.at(e.context.i8_type(), panel, from);
        e.load(self.kind(), from, 4).into_vector_value()
    }

    /// Bytes or words of a vector.
    fn kind(&self) -> inkwell::types::VectorType<'c> {
        let context = self.whole.e.context;
        match self.whole.dots.has_words() {
            true => context.i16_type().vec_type(2 * self.lanes),
            false => context.i8_type().vec_type(4 * self.lanes),
        }
    }

    /// A group of a row of activations, in every lane.
    fn activations(
        &self,
        record: PointerValue<'c>,
        block: IntValue<'c>,
        group: usize,
    ) -> VectorValue<'c> {
        let e = self.whole.e;
        let part = match self.whole.dots.has_words() {
            true => WORDS,
            false => NUMBERS,
        };
        let from = part.of(e, record, block);
        let from = e.at(e.context.i8_type(), from, e.int(4 * group as i64));
        let four = e.load(e.context.i32_type(), from, 4);
        let all = e.splat(four, self.lanes);
        let all = e.builder.build_bit_cast(all, self.kind(), "").expect(BUILT);
        all.into_vector_value()
    }
}
