//! Blocks of kept panels in 16 bits → the same in F32.
//!
//! Before: numbers in BF16, in the order of panels. After: as many floats, which micro-kernels read. A block is widened
//! when it is needed, once for all rows that it meets: a micro-kernel that widened what it loads would do so for every
//! tile, in the registers that it multiplies with.
//!
//! # ABI
//! [`WidenFn`]: `fn(from, to, n)`; both aligned to a vector, `n` a multiple of the tile's columns.

use inkwell::context::Context;
use inkwell::module::Module;

use super::micro::Tile;
use crate::compilers::llvm_cpu::emit::Emit;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;

/// A compiled function; see the module's documentation.
pub type WidenFn = unsafe extern "C" fn(from: *const u8, to: *mut f32, n: i64);

/// How far ahead memory is asked for, in bytes.
const AHEAD: i64 = 2048;

/// The symbol of the function for a tile.
pub(super) fn symbol(tile: Tile, target: &Target) -> String {
    let isa = target.symbol_part();
    format!("gemm_widen_bf16_{}_{isa}", tile.columns())
}

/// Writes it into a module.
pub(super) fn emit<'c>(context: &'c Context, module: &Module<'c>, symbol: &str, tile: Tile) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, symbol, &[ptr, ptr, int]);
    (0..2).for_each(|pointer| e.noalias(pointer));
    let (from, to, n) = (
        e.pointer_argument(0),
        e.pointer_argument(1),
        e.int_argument(2),
    );
    let lanes = i64::from(tile.lanes);
    e.each(e.int(0), n, tile.columns().into(), |at| {
        let from = e.at(context.i16_type(), from, at);
        let to = e.at(e.f32(), to, at);
        e.prefetch(from, AHEAD, 3);
        for vector in 0..i64::from(tile.vectors) {
            let first = e.int(vector * lanes);
            let values = e.read_f32(
                DType::BF16,
                e.at(context.i16_type(), from, first),
                tile.lanes,
            );
            e.store(values, e.at(e.f32(), to, first), tile.lanes * 4);
        }
    });
    e.finish();
}
