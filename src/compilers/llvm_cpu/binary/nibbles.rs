//! Halves of bytes as indices of tables of 16 bytes.
//!
//! ```text
//! bytes b0 b1 ..  ->  b0 & 15, b1 & 15, ..  and  b0 >> 4, b1 >> 4, ..  ->  table[..]      one `vpshufb` each
//! ```
//! Tables are repeated in every 16 bytes of a vector, which is how the instruction reads them. Targets without it have no such
//! kernels.

use inkwell::values::{PointerValue, VectorValue};

use crate::compilers::llvm_cpu::emit::{BUILT, Emit};

/// The four lower and the four upper bits of every byte.
pub(in crate::compilers::llvm_cpu) fn halves<'c>(
    e: &Emit<'_, 'c>,
    b: VectorValue<'c>,
) -> [VectorValue<'c>; 2] {
    let (lanes, build) = (b.get_type().get_size(), &e.builder);
    let mask = e.constants(8, 15, lanes);
    let words = e.context.i16_type().vec_type(lanes / 2);
    let four = e.constants(16, 4, lanes / 2);
    let moved = build.build_bit_cast(b, words, "").expect(BUILT);
    let moved = build.build_right_shift(moved.into_vector_value(), four, false, "");
    let moved = build.build_bit_cast(moved.expect(BUILT), b.get_type(), "");
    let moved = moved.expect(BUILT).into_vector_value();
    [b, moved].map(|x| build.build_and(x, mask, "").expect(BUILT))
}

/// 16 bytes, in every 16 bytes of a vector.
pub(super) fn table<'c>(e: &Emit<'_, 'c>, from: PointerValue<'c>, lanes: u32) -> VectorValue<'c> {
    let one = e.load(e.context.i8_type().vec_type(16), from, 16);
    let all: Vec<u32> = (0..lanes).map(|i| i % 16).collect();
    e.shuffle(one, one, &all).into_vector_value()
}

/// For every byte of `index`, below 16, that byte of the table.
pub(in crate::compilers::llvm_cpu) fn look_up<'c>(
    e: &Emit<'_, 'c>,
    table: VectorValue<'c>,
    index: VectorValue<'c>,
) -> VectorValue<'c> {
    let name = match table.get_type().get_size() {
        64 => "llvm.x86.avx512.pshuf.b.512",
        _ => "llvm.x86.avx2.pshuf.b",
    };
    let found = e.intrinsic(name, &[], &[table.into(), index.into()]);
    found.expect("it has a result").into_vector_value()
}
