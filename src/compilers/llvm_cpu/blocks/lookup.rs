//! Rows of activations by the [`COLUMNS`] rows of signs of a panel: fours of products are looked up in tables.
//!
//! The sum of four activations with the signs of four bits is one of 16. These are computed first, for all fours of the row:
//!
//! ```text
//! numbers: i8[groups, 8, 4]  ->  tables: u8[groups, 2 halves, 2 parts, 4, 16]
//! ```
//! A four is made of the numbers at place `j` of four neighbouring fours of the record, so that its bits are half of byte `j` of
//! a column ([`form`](super::form)). Of a sum `s`, from -508 to 508, one part is `s & 31`, the other `(s >> 5) + 16`, both from 0
//! to 31.
//!
//! Lanes are bytes, for each `j` the bytes of all columns, and one instruction looks up as many (`vpshufb`). Bounds: of a block
//! of 128, a lane adds up eight parts of either kind, at most 248, in 8 bits; then the sum of both kinds is at most
//! `248 + 32 * 248 = 8184` in 16 bits (`vpmaddubsw` of pairs with 1 and 32), and those of all four `j` 32736.
//!
//! Bits: the sums are those of [`tile`](super::tile), and are scaled and added like them.

use inkwell::IntPredicate;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::types::VectorType;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue, VectorValue};

use super::activations::SCALES;
use super::form::{COLUMNS, Form, GROUP};
use crate::compilers::llvm_cpu::binary::nibbles::{halves, look_up};
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// `fn(groups, numbers, tables)`: the tables of a row.
pub type TablesFn = unsafe extern "C" fn(groups: i64, numbers: *const u8, tables: *mut u8);

/// `fn(blocks, numbers, scales, record, tables, each, out, width)`: neighbouring panels, a row's record and tables, `each` bytes
/// from those of one row to those of the next; results go to 16 columns for each panel of rows that are `width` elements apart.
pub type LookupFn = unsafe extern "C" fn(
    blocks: i64,
    numbers: *const u8,
    scales: *const u8,
    record: *const u8,
    tables: *const u8,
    each: i64,
    out: *mut f32,
    width: i64,
);

/// Rows and panels of the kernels, the most first. The more panels share a table's vectors, and the more places memory is read
/// at, the faster; the more rows share a panel's indices, too, but registers hold the sums of four.
pub const KERNELS: [(usize, usize); 5] = [(2, 2), (2, 1), (1, 4), (1, 2), (1, 1)];

/// Panels of the largest kernel.
pub const PANELS: usize = 4;

/// Bytes of the tables of a group.
pub const TABLE_BYTES: usize = 256;

/// Groups in a block.
const GROUPS: usize = 4;

/// Bits of a lower part.
const PART: i64 = 5;

/// What is added to upper parts.
const OFFSET: i64 = 16;

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
    let byte = context.i8_type();
    let room = context.i32_type().array_type(GROUP as u32);
    let room = e.builder.build_alloca(room, "numbers").expect(BUILT);
    let tables = Tables { e: &e, room };
    e.each(e.int(0), e.int_argument(0), 1, |group| {
        let from = e.mul(group, e.int(GROUP as i64));
        tables.widen(e.at(byte, e.pointer_argument(1), from));
        let to = e.mul(group, e.int(TABLE_BYTES as i64));
        let to = e.at(byte, e.pointer_argument(2), to);
        for (half, two) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let [low, high] = tables.parts([0, 1].map(|j| tables.sums(half, 2 * two + j)));
            for (part, x) in [low, high].into_iter().enumerate() {
                let at = e.int((half * 128 + part * 64 + two * 32) as i64);
                e.store(x, e.at(byte, to, at), 32);
            }
        }
    });
    e.finish();
}

/// Makes tables of a group.
struct Tables<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    /// A group's numbers as words, each twice.
    room: PointerValue<'c>,
}

impl<'c> Tables<'_, '_, 'c> {
    /// Numbers as words, each twice, so that one instruction reads one into all lanes.
    fn widen(&self, from: PointerValue<'c>) {
        let (e, n) = (self.e, GROUP as u32);
        let numbers = e.load(e.context.i8_type().vec_type(n), from, 1);
        let kind = e.context.i16_type().vec_type(n);
        let wide = e
            .builder
            .build_int_s_extend(numbers.into_vector_value(), kind, "");
        let wide: BasicValueEnum<'c> = wide.expect(BUILT).into();
        let twice: Vec<u32> = (0..2 * n).map(|i| i / 2).collect();
        e.store(e.shuffle(wide, wide, &twice), self.room, 4);
    }

    /// The sums of a four with the signs of 0 to 15, as words.
    fn sums(&self, half: usize, j: usize) -> VectorValue<'c> {
        let (e, word) = (self.e, self.e.context.i16_type());
        let terms = (0..4).map(|bit| {
            let at = e.int((4 * (4 * half + bit) + j) as i64);
            let twice = e.context.i32_type();
            let x = e.splat(e.load(twice, e.at(twice, self.room, at), 4), 8);
            let x = e.builder.build_bit_cast(x, word.vec_type(16), "");
            let sign = |i: u32| word.const_int(if i >> bit & 1 == 1 { 1 } else { u64::MAX }, true);
            let signs: Vec<IntValue<'c>> = (0..16).map(sign).collect();
            let signs = VectorType::const_vector(&signs);
            let with = [x.expect(BUILT).into(), signs.into()];
            let term = e.intrinsic("llvm.x86.avx2.psign.w", &[], &with);
            term.expect("it has a result").into_vector_value()
        });
        let add = |x, y| e.builder.build_int_add(x, y, "").expect(BUILT);
        terms.reduce(add).expect("there are four")
    }

    /// Both parts of sums, byte by byte.
    fn parts(&self, [x, y]: [VectorValue<'c>; 2]) -> [VectorValue<'c>; 2] {
        let (e, b, n) = (self.e, &self.e.builder, 32);
        let all = |x: i64| e.constants(16, x, n);
        let order: Vec<u32> = (0..n).collect();
        let sums = e.shuffle(x.into(), y.into(), &order).into_vector_value();
        let low = b.build_and(sums, all((1 << PART) - 1), "").expect(BUILT);
        let high = b.build_int_add(sums, all(OFFSET << PART), "").expect(BUILT);
        let high = b.build_right_shift(high, all(PART), false, "");
        let narrow = e.context.i8_type().vec_type(n);
        [low, high.expect(BUILT)].map(|x| b.build_int_truncate(x, narrow, "").expect(BUILT))
    }
}

/// Writes [`LookupFn`] for so many rows and panels into `module`.
pub fn emit_lookup<'c>(
    context: &'c Context,
    module: &Module<'c>,
    name: &str,
    lanes: u32,
    (rows, panels): (usize, usize),
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let arguments = [int, ptr, ptr, ptr, ptr, int, ptr, int];
    let e = Emit::function(context, module, name, &arguments);
    [1, 2, 3, 4, 6]
        .into_iter()
        .for_each(|pointer| e.noalias(pointer));
    let kernel = Kernel {
        e: &e,
        bytes: (4 * lanes).min(64),
        rows,
        panels,
    };
    let zeros = vec![e.vector(COLUMNS as u32).const_zero(); rows * panels];
    let range = (e.int(0), e.int_argument(0), 1);
    let sums = e.carry(range, zeros, |block, sums| kernel.block(block, sums));
    for (i, sum) in sums.into_iter().enumerate() {
        let row = e.mul(e.int_argument(7), e.int((i / panels) as i64));
        let to = e.add(row, e.int((i % panels * COLUMNS) as i64));
        let to = e.at(e.f32(), e.pointer_argument(6), to);
        e.store(sum, to, 4);
    }
    e.finish();
}

struct Kernel<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    /// Bytes of a vector.
    bytes: u32,
    rows: usize,
    panels: usize,
}

/// Sums of parts on their way, byte by byte.
struct Parts<'c> {
    lower: VectorValue<'c>,
    upper: VectorValue<'c>,
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

    /// A row's record or tables, which an argument says for the first row.
    fn of_row(&self, argument: u32, row: usize) -> PointerValue<'c> {
        let e = self.e;
        let before = e.mul(e.int_argument(5), e.int(row as i64));
        e.at(e.context.i8_type(), e.pointer_argument(argument), before)
    }

    /// Adds a block's sums, scaled, to those of every row and panel.
    fn block(&self, block: IntValue<'c>, sums: &[BasicValueEnum<'c>]) -> Vec<BasicValueEnum<'c>> {
        let e = self.e;
        let numbers: Vec<_> = (0..self.panels)
            .map(|panel| self.place((1, panel), (block, GROUPS * 4 * COLUMNS)))
            .collect();
        self.ask_ahead(block);
        let mut totals: Vec<Option<[VectorValue<'c>; 2]>> = vec![None; sums.len()];
        for vector in 0..64 / self.bytes {
            for (total, parts) in totals.iter_mut().zip(self.parts(block, &numbers, vector)) {
                let here = self.whole(parts);
                *total = Some(match *total {
                    None => here,
                    Some(before) => [0, 1].map(|i| self.plus(before[i], here[i])),
                });
            }
        }
        let groups = e.mul(e.int_argument(0), e.int(GROUPS as i64));
        let first = e.mul(block, e.int(GROUPS as i64));
        let by = |row| {
            let by = SCALES.of(e, self.of_row(3, row), groups, first);
            e.splat(e.load(e.f32(), by, 4), COLUMNS as u32)
        };
        let by: Vec<_> = (0..self.rows).map(by).collect();
        let all = sums.iter().zip(totals).enumerate();
        all.map(|(i, (sum, total))| {
            let (row, panel) = (i / self.panels, i % self.panels);
            let value = self.columns(total.expect("there is a vector"));
            let scales = self.place((2, panel), (block, 2 * COLUMNS));
            e.fma(self.scaled(value, scales), by[row], *sum)
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

    /// What all fours of a block choose in one vector of each panel, for each row.
    fn parts(
        &self,
        block: IntValue<'c>,
        numbers: &[PointerValue<'c>],
        vector: u32,
    ) -> Vec<Parts<'c>> {
        let (e, byte) = (self.e, self.e.context.i8_type());
        let kind = byte.vec_type(self.bytes);
        let from = e.int(i64::from(vector * self.bytes));
        let tables = e.mul(block, e.int((GROUPS * TABLE_BYTES) as i64));
        let tables = e.add(tables, from);
        let tables = |row| e.at(byte, self.of_row(4, row), tables);
        let tables: Vec<_> = (0..self.rows).map(tables).collect();
        let zeros = vec![kind.const_zero().into(); 2 * self.rows * self.panels];
        // A loop, or all indices would be made before they are looked up, more than there are registers.
        let range = (e.int(0), e.int(GROUPS as i64), 1);
        let sums = e.carry(range, zeros, |group, sums| {
            let mut sums = sums.to_vec();
            let before = e.mul(group, e.int(TABLE_BYTES as i64));
            let tables: Vec<_> = (tables.iter().map(|at| e.at(byte, *at, before))).collect();
            let table = |row: usize, half: usize| {
                [0, 64].map(|part| {
                    let at = e.int(128 * half as i64 + part);
                    e.load(kind, e.at(byte, tables[row], at), self.bytes)
                        .into_vector_value()
                })
            };
            let at = e.add(e.mul(group, e.int(64)), from);
            for half in 0..2 {
                let tables: Vec<_> = (0..self.rows).map(|row| table(row, half)).collect();
                for (panel, numbers) in numbers.iter().enumerate() {
                    let bits = e.load(kind, e.at(byte, *numbers, at), self.bytes);
                    let bits = halves(e, bits.into_vector_value())[half];
                    for (row, table) in tables.iter().enumerate() {
                        let first = 2 * (row * self.panels + panel);
                        for (sum, table) in sums[first..].iter_mut().zip(table) {
                            let found = look_up(e, *table, bits);
                            *sum = self.plus(sum.into_vector_value(), found).into();
                        }
                    }
                }
            }
            sums
        });
        let vector = |sum: &BasicValueEnum<'c>| sum.into_vector_value();
        let parts = |sums: &[BasicValueEnum<'c>]| Parts {
            lower: vector(&sums[0]),
            upper: vector(&sums[1]),
        };
        sums.chunks(2).map(parts).collect()
    }

    /// Lower parts plus 32 times upper ones as words: of the first and of the last eight lanes of every 16.
    fn whole(&self, parts: Parts<'c>) -> [VectorValue<'c>; 2] {
        let (e, n) = (self.e, self.bytes);
        let name = match n {
            64 => "llvm.x86.avx512.pmaddubs.w.512",
            _ => "llvm.x86.avx2.pmadd.ub.sw",
        };
        let byte = |part: u32| {
            let worth = [1, 1 << PART][part as usize];
            e.context.i8_type().const_int(worth, false)
        };
        let worth: Vec<IntValue<'c>> = (0..n).map(|i| byte(i % 2)).collect();
        let worth = VectorType::const_vector(&worth);
        [0, 8].map(|first| {
            let from = |i: u32| i / 16 * 16 + first + i % 16 / 2 + i % 2 * n;
            let order: Vec<u32> = (0..n).map(from).collect();
            let pairs = e.shuffle(parts.lower.into(), parts.upper.into(), &order);
            let words = e.intrinsic(name, &[], &[pairs.into_vector_value().into(), worth.into()]);
            words.expect("it has a result").into_vector_value()
        })
    }

    /// The sums of all `j` of each column, as `i32`.
    fn columns(&self, [first, last]: [VectorValue<'c>; 2]) -> VectorValue<'c> {
        let (e, b, n) = (self.e, &self.e.builder, COLUMNS as u32);
        // Eights of columns, for each `j` that is in a vector.
        let eights = first.get_type().get_size() / 8;
        let of_j = (0..eights).map(|j| {
            let lane = |i: u32| i / 8 * 8 * eights + 8 * j + i % 8;
            let order: Vec<u32> = (0..n).map(lane).collect();
            e.shuffle(first.into(), last.into(), &order)
                .into_vector_value()
        });
        let all = of_j.reduce(|a, b| self.plus(a, b)).expect("there is one");
        // Every upper part that was looked up had its share.
        let taken = (OFFSET << PART) * (GROUPS * GROUP / 4) as i64;
        let all = b.build_int_sub(all, e.constants(16, taken, n), "");
        let kind = e.context.i32_type().vec_type(n);
        b.build_int_s_extend(all.expect(BUILT), kind, "")
            .expect(BUILT)
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
