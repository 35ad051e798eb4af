//! Signs by bytes, for many rows at once: sums that rows of the matrix have in common are made once.
//!
//! Lanes are rows of x, [`ROWS`] at a time. Four of their 8-bit numbers can be added and subtracted in 16 ways; all of these are
//! computed first, by one addition each, and for every row of the matrix four of its bits choose one of them (the "four Russians":
//! Arlazarov et al. 1970). So four columns of a row of the matrix cost one addition of a vector that lies in the nearest cache.
//!
//! ```text
//! q: i16[k, 32]  →  per 64 columns: tables i16[16, 16, 32], 16 KB  →  sums i32[rows, 32]
//! ```
//! Bounds: numbers are at most 127 in magnitude, so 16 bits hold sums of 256 columns (32512); after [`STEPS`] times 64
//! columns they are added to 32 bits, which hold those of the 65535 columns that there are at most.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::VectorType;
use inkwell::values::{IntValue, PointerValue, VectorValue};

use crate::blocks::PANEL_ROWS;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};

/// Rows of x that are lanes.
pub const ROWS: usize = 32;

/// Bytes of columns of which there are tables at a time.
pub const BYTES: usize = 8;

/// How often sums of 64 columns are added in 16 bits.
pub const STEPS: usize = 4;

/// Sums of the tables of [`BYTES`] bytes of columns.
pub const TABLES: usize = 2 * BYTES * 16;

/// Writes the sums of so many times four columns.
///
/// Arguments: how many; their numbers `i16[.., 4, 32]`; `i16[.., 16, 32]`. All aligned to 64 bytes.
pub type TablesFn = unsafe extern "C" fn(fours: i64, q: *const i16, tables: *mut i16);

/// Adds the sums that a panel's bits choose.
///
/// Arguments: bytes of columns, [`BYTES`] at most; the panel's bits from the first of them on; their tables; sums in 16
/// bits `[64, 32]`; in 32 bits, to which those in 16 are added and set to 0 if the function says so.
pub type AddFn = unsafe extern "C" fn(
    bytes: i64,
    bits: *const u8,
    tables: *const i16,
    sums: *mut i16,
    wide: *mut i32,
);

/// Writes [`TablesFn`] into `module`.
pub fn emit_sum_tables<'c>(context: &'c Context, module: &Module<'c>, name: &str) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr]);
    (1..3).for_each(|pointer| e.noalias(pointer));
    let kind = context.i16_type().vec_type(ROWS as u32);
    let b = &e.builder;
    e.each(e.int(0), e.int_argument(0), 1, |at| {
        let from = |j: i64| {
            e.at(
                kind,
                e.pointer_argument(1),
                e.add(e.mul(at, e.int(4)), e.int(j)),
            )
        };
        let q = [0, 1, 2, 3].map(|j| e.load(kind, from(j), 64).into_vector_value());
        let add = |x, y| b.build_int_add(x, y, "").expect(BUILT);
        let all = add(add(q[0], q[1]), add(q[2], q[3]));
        let none = b.build_int_sub(kind.const_zero(), all, "").expect(BUILT);
        let twice = q.map(|q| add(q, q));
        let mut sums: Vec<VectorValue<'c>> = vec![none];
        for choice in 1..16usize {
            let last = choice.trailing_zeros() as usize;
            sums.push(add(sums[choice & (choice - 1)], twice[last]));
        }
        for (choice, sum) in sums.into_iter().enumerate() {
            let to = e.add(e.mul(at, e.int(16)), e.int(choice as i64));
            e.store(sum, e.at(kind, e.pointer_argument(2), to), 64);
        }
    });
    e.finish();
}

/// Writes [`AddFn`] into `module`, with additions to 32 bits or without.
pub fn emit_sum_add<'c>(context: &'c Context, module: &Module<'c>, name: &str, widens: bool) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr, ptr, ptr]);
    (3..5).for_each(|pointer| e.noalias(pointer));
    let kernel = Kernel { e: &e, widens };
    let is_full = e.compare(
        inkwell::IntPredicate::EQ,
        e.int_argument(0),
        e.int(BYTES as i64),
    );
    let each_row = |sum: &dyn Fn(IntValue<'c>) -> VectorValue<'c>| {
        e.each(e.int(0), e.int(PANEL_ROWS as i64), 1, |row| {
            kernel.store(row, sum(row));
        });
    };
    e.branch(
        is_full,
        || {
            each_row(&|row| {
                let zero = kernel.kind().const_zero();
                (0..BYTES as i64).fold(zero, |sum, byte| kernel.add(row, e.int(byte), sum))
            });
        },
        || {
            each_row(&|row| {
                let range = (e.int(0), e.int_argument(0), 1);
                let zero = kernel.kind().const_zero().into();
                let sum = e.carry(range, vec![zero], |byte, sum| {
                    vec![kernel.add(row, byte, sum[0].into_vector_value()).into()]
                });
                sum[0].into_vector_value()
            });
        },
    );
    e.finish();
}

struct Kernel<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    widens: bool,
}

impl<'c> Kernel<'_, '_, 'c> {
    fn kind(&self) -> VectorType<'c> {
        self.e.context.i16_type().vec_type(ROWS as u32)
    }

    /// A sum with what a byte of a row chooses.
    fn add(&self, row: IntValue<'c>, byte: IntValue<'c>, sum: VectorValue<'c>) -> VectorValue<'c> {
        let (e, b, kind) = (self.e, &self.e.builder, self.e.context.i8_type());
        let at = e.add(e.mul(byte, e.int(PANEL_ROWS as i64)), row);
        let bits = e.load(kind, e.at(kind, e.pointer_argument(1), at), 1);
        let bits = b.build_int_z_extend(bits.into_int_value(), e.i64(), "");
        let bits = bits.expect(BUILT);
        let low = b.build_and(bits, e.int(15), "").expect(BUILT);
        let high = b.build_right_shift(bits, e.int(4), false, "").expect(BUILT);
        let first = e.mul(byte, e.int(32));
        [low, e.add(high, e.int(16))]
            .into_iter()
            .fold(sum, |sum, choice| {
                let from = self.vector(e.pointer_argument(2), e.add(first, choice));
                let chosen = e.load(self.kind(), from, 64).into_vector_value();
                b.build_int_add(sum, chosen, "").expect(BUILT)
            })
    }

    fn vector(&self, base: PointerValue<'c>, at: IntValue<'c>) -> PointerValue<'c> {
        self.e.at(self.kind(), base, at)
    }

    /// Adds a row's sum to what is there.
    fn store(&self, row: IntValue<'c>, sum: VectorValue<'c>) {
        let (e, b) = (self.e, &self.e.builder);
        let to = self.vector(e.pointer_argument(3), row);
        let before = e.load(self.kind(), to, 64).into_vector_value();
        let sum = b.build_int_add(before, sum, "").expect(BUILT);
        if !self.widens {
            return e.store(sum, to, 64);
        }
        e.store(self.kind().const_zero(), to, 64);
        let kind = e.context.i32_type().vec_type(ROWS as u32);
        let to = e.at(kind, e.pointer_argument(4), row);
        let before = e.load(kind, to, 64).into_vector_value();
        let sum = b.build_int_s_extend(sum, kind, "").expect(BUILT);
        e.store(b.build_int_add(before, sum, "").expect(BUILT), to, 64);
    }
}
