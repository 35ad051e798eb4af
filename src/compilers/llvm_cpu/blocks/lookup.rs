//! A row of activations by the [`COLUMNS`] rows of signs of a panel: fours of products are looked up in tables.
//!
//! The sum of four activations with the signs of four bits is one of 16. These are computed first, for all fours of the row:
//!
//! ```text
//! numbers: i8[groups, 8, 4]  ->  tables: u8[groups, 2 halves, 2 parts, 4, 16]
//! ```
//! A four is made of the numbers at place `j` of four neighbouring fours of the record, so that its bits are half of byte `j` of
//! a column ([`form`](super::form)). Of a sum `s`, from -508 to 508, one part is `s & 15`, the other `(s >> 4) + 32`, from 0 to 63.
//!
//! Lanes are bytes, for each `j` the bytes of all columns, and one instruction looks up as many (`vpshufb`). Bounds: of a block
//! of 128, a lane adds up eight lower parts, at most 120, in 8 bits, and four upper ones, at most 252, before these become
//! 16 bits. There a sum of all parts is at most `4064 + 32 * 16 * 8 = 8160`, and those of all four `j` 32640.
//!
//! Bits: the sums are those of [`tile`](super::tile), and are scaled and added like them.

use inkwell::IntPredicate;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue, VectorValue};

use super::activations::SCALES;
use super::form::{COLUMNS, Form, GROUP};
use crate::compilers::llvm_cpu::binary::nibbles::{halves, look_up};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// `fn(groups, numbers, tables)`: the tables of a row.
pub type TablesFn = unsafe extern "C" fn(groups: i64, numbers: *const u8, tables: *mut u8);

/// `fn(blocks, numbers, scales, record, tables, out)`: neighbouring panels, a row's record and tables; results go to
/// `out[panel][16]`.
pub type LookupFn = unsafe extern "C" fn(
    blocks: i64,
    numbers: *const u8,
    scales: *const u8,
    record: *const u8,
    tables: *const u8,
    out: *mut f32,
);

/// Panels of the kernels, the most first: the more share a table's vectors, and the more places memory is read at, the faster.
pub const PANELS: [usize; 3] = [4, 2, 1];

/// Bytes of the tables of a group.
pub const TABLE_BYTES: usize = 256;

/// Groups in a block.
const GROUPS: usize = 4;

/// What is added to upper parts.
const OFFSET: i64 = 32;

/// How many blocks ahead memory is asked for: into the second cache, for the first one has tables to hold.
const AHEAD: i64 = 16;

/// Whether a target has kernels for such blocks, of which the products of so many groups are added up as whole numbers.
pub fn fits(target: &Target, form: &Form, summed: usize) -> bool {
    target.lanes() >= 8 && form.is_signs() && summed == GROUPS
}

/// Writes [`TablesFn`] into `module`.
pub fn emit_tables<'c>(context: &'c Context, module: &Module<'c>, name: &str) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr]);
    (1..3).for_each(|pointer| e.noalias(pointer));
    let (b, byte, word) = (&e.builder, context.i8_type(), context.i16_type());
    let lanes = 64;
    e.each(e.int(0), e.int_argument(0), 1, |group| {
        let from = e.mul(group, e.int(GROUP as i64));
        let numbers = e.load(
            byte.vec_type(GROUP as u32),
            e.at(byte, e.pointer_argument(1), from),
            1,
        );
        let numbers = numbers.into_vector_value();
        let wide = b.build_int_s_extend(numbers, word.vec_type(GROUP as u32), "");
        let wide: BasicValueEnum<'c> = wide.expect(BUILT).into();
        for half in 0..2 {
            let terms = (0..4u32).map(|bit| {
                let number = |lane: u32| 4 * (4 * half + bit) + lane / 16;
                let order: Vec<u32> = (0..lanes).map(number).collect();
                let x = e.shuffle(wide, wide, &order).into_vector_value();
                let sign = |lane: u32| {
                    word.const_int(if lane >> bit & 1 == 1 { 0 } else { u64::MAX }, true)
                };
                let signs: Vec<IntValue<'c>> = (0..lanes).map(sign).collect();
                let signs = inkwell::types::VectorType::const_vector(&signs);
                // `(x ^ -1) - -1` is `-x`.
                let turned = b.build_xor(x, signs, "").expect(BUILT);
                b.build_int_sub(turned, signs, "").expect(BUILT)
            });
            let add = |x, y| b.build_int_add(x, y, "").expect(BUILT);
            let sum = terms.reduce(add).expect("there are four");
            let low = b
                .build_and(sum, e.constants(16, 15, lanes), "")
                .expect(BUILT);
            let high = b
                .build_right_shift(sum, e.constants(16, 4, lanes), true, "")
                .expect(BUILT);
            let high = add(high, e.constants(16, OFFSET, lanes));
            for (part, x) in [low, high].into_iter().enumerate() {
                let narrow = b.build_int_truncate(x, byte.vec_type(lanes), "");
                let at = e.mul(group, e.int(TABLE_BYTES as i64));
                let at = e.add(at, e.int(i64::from(half) * 128 + part as i64 * 64));
                let to = e.at(byte, e.pointer_argument(2), at);
                e.store(narrow.expect(BUILT), to, 64);
            }
        }
    });
    e.finish();
}

/// Writes [`LookupFn`] for so many panels into `module`.
pub fn emit_lookup<'c>(
    context: &'c Context,
    module: &Module<'c>,
    name: &str,
    lanes: u32,
    panels: usize,
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(context, module, name, &[int, ptr, ptr, ptr, ptr, ptr]);
    (1..6).for_each(|pointer| e.noalias(pointer));
    let kernel = Kernel {
        e: &e,
        bytes: (4 * lanes).min(64),
        panels,
    };
    let zeros = vec![e.vector(COLUMNS as u32).const_zero(); panels];
    let range = (e.int(0), e.int_argument(0), 1);
    let sums = e.carry(range, zeros, |block, sums| kernel.block(block, sums));
    for (i, sum) in sums.into_iter().enumerate() {
        let to = e.at(e.f32(), e.pointer_argument(5), e.int((i * COLUMNS) as i64));
        e.store(sum, to, 4);
    }
    e.finish();
}

struct Kernel<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    /// Bytes of a vector.
    bytes: u32,
    panels: usize,
}

/// Sums of parts on their way: upper ones of even and of odd lanes in 16 bits, lower ones in 8.
struct Parts<'c> {
    upper: [VectorValue<'c>; 2],
    lower: VectorValue<'c>,
}

impl<'c> Kernel<'_, '_, 'c> {
    fn plus(&self, a: VectorValue<'c>, b: VectorValue<'c>) -> VectorValue<'c> {
        self.e.builder.build_int_add(a, b, "").expect(BUILT)
    }

    /// Where a panel has its share of a block in a region, given by its argument: `each` bytes for every block before.
    fn place(
        &self,
        (region, panel): (u32, usize),
        (index, each): (IntValue<'c>, usize),
    ) -> PointerValue<'c> {
        let e = self.e;
        let before = e.mul(e.int_argument(0), e.int(panel as i64));
        let at = e.mul(e.add(before, index), e.int(each as i64));
        e.at(e.context.i8_type(), e.pointer_argument(region), at)
    }

    /// Adds a block's sums, scaled, to those of every panel.
    fn block(&self, block: IntValue<'c>, sums: &[BasicValueEnum<'c>]) -> Vec<BasicValueEnum<'c>> {
        let e = self.e;
        let numbers: Vec<_> = (0..self.panels)
            .map(|panel| self.place((1, panel), (block, GROUPS * 4 * COLUMNS)))
            .collect();
        self.ask_ahead(block);
        let mut totals: Vec<Option<[VectorValue<'c>; 2]>> = vec![None; self.panels];
        for vector in 0..64 / self.bytes {
            for (total, parts) in totals.iter_mut().zip(self.parts(block, &numbers, vector)) {
                let here = self.whole(parts);
                *total = Some(match *total {
                    None => here,
                    Some(before) => [0, 1].map(|odd| self.plus(before[odd], here[odd])),
                });
            }
        }
        let groups = e.mul(e.int_argument(0), e.int(GROUPS as i64));
        let first = e.mul(block, e.int(GROUPS as i64));
        let by = SCALES.of(e, e.pointer_argument(3), groups, first);
        let by = e.splat(e.load(e.f32(), by, 4), COLUMNS as u32);
        let all = sums.iter().zip(totals).enumerate();
        all.map(|(panel, (sum, total))| {
            let value = self.columns(total.expect("there is a vector"));
            let scales = self.place((2, panel), (block, 2 * COLUMNS));
            e.fma(self.scaled(value, scales), by, *sum)
        })
        .collect()
    }

    /// Asks for what is read [`AHEAD`] blocks later: of these panels, or of those behind them.
    fn ask_ahead(&self, block: IntValue<'c>) {
        let e = self.e;
        let (blocks, later) = (e.int_argument(0), e.add(block, e.int(AHEAD)));
        let is_behind = e.compare(IntPredicate::SGE, later, blocks);
        let others = e.mul(blocks, e.int(self.panels as i64 - 1));
        let behind = e.add(later, others);
        let later = e.select(is_behind.into(), behind.into(), later.into());
        for panel in 0..self.panels {
            let at = (later.into_int_value(), GROUPS * 4 * COLUMNS);
            let numbers = self.place((1, panel), at);
            (0..GROUPS as i64).for_each(|line| e.prefetch(numbers, 64 * line, 2));
            let at = (later.into_int_value(), 2 * COLUMNS);
            e.prefetch(self.place((2, panel), at), 0, 2);
        }
    }

    /// What all fours of a block choose in one vector of each panel.
    fn parts(
        &self,
        block: IntValue<'c>,
        numbers: &[PointerValue<'c>],
        vector: u32,
    ) -> Vec<Parts<'c>> {
        let (e, byte) = (self.e, self.e.context.i8_type());
        let kind = byte.vec_type(self.bytes);
        let tables = self.place((4, 0), (block, GROUPS * TABLE_BYTES));
        let from = i64::from(vector * self.bytes);
        let words = self.e.constants(16, 0, self.bytes / 2);
        let mut all: Vec<Parts<'c>> = numbers
            .iter()
            .map(|_| Parts {
                upper: [words; 2],
                lower: kind.const_zero(),
            })
            .collect();
        for two in 0..GROUPS as i64 / 2 {
            let mut upper = vec![kind.const_zero(); self.panels];
            for group in 2 * two..2 * two + 2 {
                let bits = numbers.iter().map(|numbers| {
                    let at = e.at(byte, *numbers, e.int(64 * group + from));
                    halves(e, e.load(kind, at, self.bytes).into_vector_value())
                });
                let bits: Vec<[VectorValue<'c>; 2]> = bits.collect();
                for half in 0..2 {
                    let table = |part: i64| {
                        let at = group * TABLE_BYTES as i64 + half as i64 * 128 + part * 64 + from;
                        let at = e.at(byte, tables, e.int(at));
                        e.load(kind, at, self.bytes).into_vector_value()
                    };
                    let (low, high) = (table(0), table(1));
                    for (panel, bits) in bits.iter().enumerate() {
                        let parts = &mut all[panel];
                        parts.lower = self.plus(parts.lower, look_up(e, low, bits[half]));
                        upper[panel] = self.plus(upper[panel], look_up(e, high, bits[half]));
                    }
                }
            }
            for (parts, upper) in all.iter_mut().zip(upper) {
                let more = self.words(upper);
                parts.upper = [0, 1].map(|odd| self.plus(parts.upper[odd], more[odd]));
            }
        }
        all
    }

    /// Even and odd bytes as words.
    fn words(&self, bytes: VectorValue<'c>) -> [VectorValue<'c>; 2] {
        let (b, n) = (&self.e.builder, self.bytes / 2);
        let kind = self.e.context.i16_type().vec_type(n);
        let words = b.build_bit_cast(bytes, kind, "").expect(BUILT);
        let words = words.into_vector_value();
        let even = b.build_and(words, self.e.constants(16, 0xff, n), "");
        let odd = b.build_right_shift(words, self.e.constants(16, 8, n), false, "");
        [even.expect(BUILT), odd.expect(BUILT)]
    }

    /// Lower parts plus 16 times upper ones, of even and of odd lanes.
    fn whole(&self, parts: Parts<'c>) -> [VectorValue<'c>; 2] {
        let four = self.e.constants(16, 4, self.bytes / 2);
        let lower = self.words(parts.lower);
        [0, 1].map(|odd| {
            let upper = self.e.builder.build_left_shift(parts.upper[odd], four, "");
            self.plus(upper.expect(BUILT), lower[odd])
        })
    }

    /// The sums of all `j` of each column, as `i32`.
    fn columns(&self, words: [VectorValue<'c>; 2]) -> VectorValue<'c> {
        let (e, b, n) = (self.e, &self.e.builder, COLUMNS as u32);
        let added = words.map(|mut words| {
            while words.get_type().get_size() > n / 2 {
                let half = words.get_type().get_size() / 2;
                let part = |first: u32| {
                    let lanes: Vec<u32> = (first..first + half).collect();
                    e.shuffle(words.into(), words.into(), &lanes)
                        .into_vector_value()
                };
                words = self.plus(part(0), part(half));
            }
            words
        });
        let order: Vec<u32> = (0..n).map(|i| i / 2 + i % 2 * (n / 2)).collect();
        let all = e.shuffle(added[0].into(), added[1].into(), &order);
        let kind = e.context.i32_type().vec_type(n);
        let all = b
            .build_int_z_extend(all.into_vector_value(), kind, "")
            .expect(BUILT);
        // Every part that was looked up had its share.
        let taken = self
            .e
            .constants(32, OFFSET * 16 * (GROUPS * GROUP / 4) as i64, n);
        b.build_int_sub(all, taken, "").expect(BUILT)
    }

    /// Whole numbers times a block's scales.
    fn scaled(&self, whole: VectorValue<'c>, scales: PointerValue<'c>) -> BasicValueEnum<'c> {
        let (e, b, n) = (self.e, &self.e.builder, COLUMNS as u32);
        let wide = e.context.f32_type().vec_type(n);
        let halves = e.load(e.context.f16_type().vec_type(n), scales, 16);
        let scales = b.build_float_ext(halves.into_vector_value(), wide, "");
        let value = b.build_signed_int_to_float(whole, wide, "").expect(BUILT);
        let value = b.build_float_mul(value, scales.expect(BUILT), "");
        value.expect(BUILT).into()
    }
}
