//! A few rows of activations: dot products straight from the blocks of weights.
//!
//! The time goes into reading weights, so each block is used for all rows of activations while it is in a register.
//!
//! Bits: of each block, elements 4 i to 4 i + 3 give one exact sum; as `f32`, times the product of both scales, it is
//! added to partial sum i by a fused multiply-add, block after block. In the end partial sum i is added to `i + half`,
//! 8 -> 4 -> 2 -> 1.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue, VectorValue};

use super::activations::{NUMBERS, SCALES, SUMS};
use super::dot::{Dots, Whole};
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// `fn(blocks, weights, records, out, next)`: addresses of rows of weights and of records of activations; the results
/// go to `out[row of activations][row of weights]`. `next` is what will be read after this; it is only asked for.
pub type FewFn = unsafe extern "C" fn(
    blocks: i64,
    weights: *const *const u8,
    records: *const *const u8,
    out: *mut f32,
    next: *const u8,
);

/// Rows of weights of the larger kernels; the others have one.
pub const ROWS: usize = 4;

/// Rows of activations of the largest kernel.
pub fn most(target: &Target) -> usize {
    if target.lanes() >= 16 { 4 } else { 2 }
}

/// The sizes that kernels are made for: rows of activations and of weights.
pub fn shapes(target: &Target) -> impl Iterator<Item = (usize, usize)> {
    (1..=most(target)).flat_map(|few| [(few, ROWS), (few, 1)])
}

/// Writes a kernel into `module`.
pub fn emit_few<'c>(
    context: &'c Context,
    module: &Module<'c>,
    name: &str,
    (ty, dots): (BlockType, Dots),
    (few, rows): (usize, usize),
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr, ptr, ptr]);
    (1..4).for_each(|pointer| e.noalias(pointer));
    let pointers = |table: u32, n: usize| -> Vec<PointerValue<'c>> {
        let table = e.pointer_argument(table);
        let load = |i| e.load(e.ptr(), e.at(e.ptr(), table, e.int(i as i64)), 8);
        (0..n).map(|i| load(i).into_pointer_value()).collect()
    };
    let kernel = Few {
        whole: Whole { e: &e, dots },
        ty,
        weights: pointers(1, rows),
        records: pointers(2, few),
    };
    let zeros = vec![e.vector(8).const_zero(); few * rows];
    let range = (e.int(0), e.int_argument(0), 1);
    let sums = e.carry(range, zeros, |block, sums| {
        kernel.prefetch(block);
        kernel.block(block, sums)
    });
    for (i, sum) in sums.into_iter().enumerate() {
        let to = e.at(e.f32(), e.pointer_argument(3), e.int(i as i64));
        e.store(kernel.folded(sum), to, 4);
    }
    e.finish();
}

struct Few<'e, 'm, 'c> {
    whole: Whole<'e, 'm, 'c>,
    ty: BlockType,
    weights: Vec<PointerValue<'c>>,
    records: Vec<PointerValue<'c>>,
}

impl<'c> Few<'_, '_, 'c> {
    /// Asks for memory behind `next` as fast as weights are used: one stream of neighbouring lines.
    fn prefetch(&self, block: IntValue<'c>) {
        let e = self.whole.e;
        let bytes = (self.ty.block_bytes() * self.weights.len()) as i64;
        let from = e.mul(block, e.int(bytes));
        let from = e.at(e.context.i8_type(), e.pointer_argument(4), from);
        for line in (0..bytes).step_by(64) {
            e.prefetch(from, line, 2);
        }
    }

    fn block(&self, block: IntValue<'c>, sums: &[BasicValueEnum<'c>]) -> Vec<BasicValueEnum<'c>> {
        let e = self.whole.e;
        let load = |kind: inkwell::types::VectorType<'c>, from| -> VectorValue<'c> {
            e.load(kind, from, 4).into_vector_value()
        };
        let (bytes, ints) = (
            e.context.i8_type().vec_type(32),
            e.context.i32_type().vec_type(8),
        );
        let step = self.ty.block_bytes() as i64;
        let weights = self.weights.iter().map(|row| {
            let from = e.at(e.context.i8_type(), *row, e.mul(block, e.int(step)));
            (self.whole.weights(self.ty, from), from)
        });
        let (weights, places): (Vec<_>, Vec<_>) = weights.unzip();
        let scales = self.scales(&places);
        let mut next = sums.to_vec();
        for (i, record) in self.records.iter().enumerate() {
            let a = load(bytes, NUMBERS.of(e, *record, block));
            let taken = load(ints, SUMS.of(e, *record, block));
            let scale = e.load(e.f32(), SCALES.of(e, *record, block), 4);
            let both = e.splat(scale, ROWS as u32).into_vector_value();
            let both = e.builder.build_float_mul(scales, both, "").expect(BUILT);
            for (j, w) in weights.iter().enumerate() {
                let sum = &mut next[i * weights.len() + j];
                let whole = self.whole.of_block(*w, a, taken);
                let by = e.shuffle(both.into(), both.into(), &[j as u32; 8]);
                *sum = e.fma(self.whole.to_float(whole), by, *sum);
            }
        }
        next
    }

    /// The scales of blocks of up to [`ROWS`] rows, as one vector: it is converted and multiplied at once.
    fn scales(&self, places: &[PointerValue<'c>]) -> VectorValue<'c> {
        let e = self.whole.e;
        let (word, long) = (e.context.i16_type(), e.i64());
        // Put together from integers: a load into a lane of a vector would wait for whatever that register held.
        let mut all = e.int(0);
        for (i, place) in places.iter().enumerate() {
            let one = e.load(word, *place, 2).into_int_value();
            let one = e.builder.build_int_z_extend(one, long, "").expect(BUILT);
            let by = e.int(16 * i as i64);
            let one = e.builder.build_left_shift(one, by, "").expect(BUILT);
            all = e.builder.build_or(all, one, "").expect(BUILT);
        }
        let halves = e.context.f16_type().vec_type(ROWS as u32);
        let all = e.builder.build_bit_cast(all, halves, "").expect(BUILT);
        let all = all.into_vector_value();
        let kind = e.context.f32_type().vec_type(ROWS as u32);
        let wide = e.builder.build_float_ext(all, kind, "");
        wide.expect(BUILT)
    }

    /// The eight partial sums, added.
    fn folded(&self, sums: BasicValueEnum<'c>) -> BasicValueEnum<'c> {
        let e = self.whole.e;
        let mut sums = sums;
        for half in [4, 2, 1] {
            let (low, high): (Vec<u32>, Vec<u32>) =
                ((0..half).collect(), (half..2 * half).collect());
            sums = e.fadd(e.shuffle(sums, sums, &low), e.shuffle(sums, sums, &high));
        }
        e.extract(sums, 0)
    }
}
