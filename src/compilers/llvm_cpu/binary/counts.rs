//! Signs by signs: some rows of bits by a panel of 64 rows of the matrix.
//!
//! Lanes are bytes, one for each row of the panel: eight columns of it, against the same eight of a row of bits in every
//! lane. Nothing has to be added across lanes. For every byte of a row
//! - [`Form::Popcount`]: `popcount(a ^ b)` of the byte, however the target counts (`vpopcntb`, or what LLVM makes of it);
//! - [`Form::Table`]: for each half of the byte one `vpshufb`, whose table holds `popcount(a4 ^ i)` for all 16 values of
//!   the four columns of b. Which table, a says: so nothing is computed but the sum.
//!
//! With [`Form::Popcount`] each byte of a row comes four times ([`splat`]): an operand in memory can be repeated in all lanes of a
//! vector as a word of 32 bits, but not as a byte.
//!
//! What is written is numbers, or for each row and panel a word of 64 bits: whether the count is below the column's limit
//! ([`super::after`]). Rows of levels are several rows of bits, plane after plane: each is counted, and their sums are added as
//! heavy as the planes are, `Σ_p 2^p (k - 2 count_p) = (2^planes - 1) k - Σ_p 2^(p + 1) count_p`.
//!
//! Bounds: a byte of counts grows by at most 8 in a step and is moved to 16 bits after 31 steps, at 248 at most; there are
//! at most 65535 columns, which 16 bits count. Sums of levels are at most 15 * 65535 in magnitude, which `f32` has exactly.

use inkwell::IntPredicate;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue, VectorValue};

use super::nibbles::{halves, look_up, table};
use crate::blocks::PANEL_ROWS;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;
use crate::op::Planes;

/// Writes `out[r, ..64]` for some rows of bits.
///
/// Arguments: bytes of a row; rows of bits, as [`Form::width`] says, and bytes from one to the next; a panel's bits; the
/// result and what is from one row to the next; what there is for the columns, and for the rows; columns; whether the result is
/// added to what is there; [`TABLES`]; bits of a row that count, all of its bytes or those of its columns.
///
/// - [`Output::Numbers`]: the result is `f32`, steps are numbers; 64 scales, and sizes of the rows.
/// - [`Output::Planes`]: the same, of rows of planes.
/// - [`Output::Bits`]: the result is 64 bits of each row, steps are bytes; 64 limits (`u16`), and 64 bits that are turned.
pub type CountFn = unsafe extern "C" fn(
    bytes: i64,
    a: *const u8,
    a_step: i64,
    bits: *const u8,
    out: *mut u8,
    out_step: i64,
    by_column: *const u8,
    by_row: *const u8,
    columns: i64,
    add: i64,
    tables: *const Tables,
    counted: i64,
);

/// What a kernel writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Output {
    /// Scaled sums.
    Numbers,
    /// Which counts are below a limit.
    Bits,
    /// Scaled sums of levels: a row is so many planes of bits, one after the other.
    Planes(Planes),
}

impl Output {
    /// For symbols.
    pub fn name(self) -> &'static str {
        match self {
            Output::Numbers => "numbers",
            Output::Bits => "bits",
            Output::Planes(Planes::Two) => "planes_2",
            Output::Planes(Planes::Four) => "planes_4",
        }
    }

    /// Rows of bits that make one row of results.
    pub fn lines(self) -> usize {
        match self {
            Output::Planes(planes) => planes.n(),
            _ => 1,
        }
    }
}

/// Every byte four times.
///
/// # Panics
/// If `to` has not four bytes for each of `from`.
pub fn splat(from: &[u8], to: &mut [u8]) {
    assert_eq!(4 * from.len(), to.len());
    let repeat = |from: &[u8], to: &mut [u8]| {
        for (byte, word) in from.iter().zip(to.as_chunks_mut::<4>().0) {
            *word = (u32::from(*byte) * 0x0101_0101).to_ne_bytes();
        }
    };
    // As many at a time as windows of few channels have: a length that is known becomes a few vectors.
    let (fours, rest) = from.as_chunks::<4>();
    let (to, to_rest) = to.split_at_mut(16 * fours.len());
    for (four, to) in fours.iter().zip(to.as_chunks_mut::<16>().0) {
        repeat(four, to);
    }
    repeat(rest, to_rest);
}

/// `popcount(a ^ i)` for all `i` below 16, for all `a` below 16.
#[repr(align(64))]
pub struct Tables(pub [[u8; 16]; 16]);

/// The tables.
pub static TABLES: Tables = tables();

const fn tables() -> Tables {
    let mut out = [[0; 16]; 16];
    let mut at = 0;
    while at < 256 {
        out[at / 16][at % 16] = ((at / 16) ^ (at % 16)).count_ones() as u8;
        at += 1;
    }
    Tables(out)
}

/// Steps until counts are moved from 8 bits to 16.
pub const FLUSH: i64 = 31;

/// How bits are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Form {
    /// With an instruction, or what LLVM makes of `ctpop`.
    Popcount,
    /// With tables of four columns.
    Table,
}

impl Form {
    /// How a target counts: as it does best, or as `BB_SIGNS` says where it can.
    pub fn of(target: &Target) -> Form {
        let (has_tables, told) = (target.lanes() >= 8, crate::knobs::signs());
        match told.as_deref() {
            Some("popcount") => Form::Popcount,
            Some("table") if has_tables => Form::Table,
            _ if has_tables && !target.has("avx512bitalg") => Form::Table,
            _ => Form::Popcount,
        }
    }

    /// Bytes that a byte of a row takes where kernels read it.
    pub fn width(self) -> usize {
        match self {
            Form::Popcount => 4,
            Form::Table => 1,
        }
    }

    /// For symbols.
    pub fn name(self) -> &'static str {
        match self {
            Form::Popcount => "popcount",
            Form::Table => "table",
        }
    }
}

/// Bytes of the vectors of a target.
pub fn lanes(target: &Target) -> u32 {
    (4 * target.lanes()).max(16)
}

/// Rows of bits of the kernels of a target, the largest first.
pub fn heights(target: &Target) -> &'static [usize] {
    match target.lanes() {
        16 => &[8, 4, 2, 1],
        8 => &[4, 2, 1],
        _ => &[2, 1],
    }
}

/// Writes a kernel into `module`.
pub fn emit_count<'c>(
    context: &'c Context,
    module: &Module<'c>,
    name: &str,
    (form, lanes): (Form, u32),
    (rows, output): (usize, Output),
) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let arguments = [int, ptr, int, ptr, ptr, int, ptr, ptr, int, int, ptr, int];
    let e = Emit::function(context, module, name, &arguments);
    e.noalias(4);
    let kernel = Kernel {
        e: &e,
        form,
        lanes,
        rows,
        planes: output.lines(),
    };
    let words = context.i16_type().vec_type(lanes).const_zero();
    let zeros = vec![words.into(); kernel.none().len()];
    let (bytes, counted) = (e.int_argument(0), e.int_argument(11));
    let whole = e.builder.build_right_shift(counted, e.int(3), false, "");
    let whole = whole.expect(BUILT);
    let counts = e.carry((e.int(0), whole, FLUSH), zeros, |from, counts| {
        let to = e.min(e.add(from, e.int(FLUSH)), whole);
        kernel.flush(counts, kernel.steps(from, to))
    });
    // Of a byte that is not full, whatever else is in it does not count.
    let counts = e.carry((whole, bytes, 1), counts, |at, counts| {
        kernel.flush(counts, kernel.step(at, &kernel.none(), Some(kernel.mask())))
    });
    match output {
        Output::Numbers | Output::Planes(_) => kernel.store(&counts),
        Output::Bits => kernel.store_bits(&counts),
    }
    e.finish();
}

struct Kernel<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    form: Form,
    lanes: u32,
    /// Rows of results.
    rows: usize,
    /// Rows of bits for each of them.
    planes: usize,
}

impl<'c> Kernel<'_, '_, 'c> {
    /// Vectors of a panel.
    fn n(&self) -> usize {
        PANEL_ROWS / self.lanes as usize
    }

    fn bytes(&self) -> inkwell::types::VectorType<'c> {
        self.e.context.i8_type().vec_type(self.lanes)
    }

    /// Counts of some bytes of the rows.
    fn steps(&self, from: IntValue<'c>, to: IntValue<'c>) -> Vec<BasicValueEnum<'c>> {
        self.e.carry((from, to, 1), self.none(), |at, counts| {
            self.step(at, counts, None)
        })
    }

    /// Counts of nothing.
    fn none(&self) -> Vec<BasicValueEnum<'c>> {
        vec![self.bytes().const_zero().into(); self.rows * self.planes * self.n()]
    }

    /// The bits of the last byte that count, if it is not full.
    fn mask(&self) -> IntValue<'c> {
        let (e, b) = (self.e, &self.e.builder);
        let byte = e.context.i8_type();
        let counted = b.build_int_truncate(e.int_argument(11), byte, "");
        let seven = byte.const_int(7, false);
        let n = b.build_and(counted.expect(BUILT), seven, "").expect(BUILT);
        let one = byte.const_int(1, false);
        let more = b.build_left_shift(one, n, "").expect(BUILT);
        b.build_int_sub(more, one, "").expect(BUILT)
    }

    /// Vector `j` of a byte of a panel.
    fn bits(
        &self,
        panel: PointerValue<'c>,
        j: usize,
        mask: Option<IntValue<'c>>,
    ) -> VectorValue<'c> {
        let e = self.e;
        let from = e.int(j as i64 * i64::from(self.lanes));
        let from = e.at(e.context.i8_type(), panel, from);
        let bits = e.load(self.bytes(), from, 1).into_vector_value();
        let Some(mask) = mask else {
            return bits;
        };
        let mask = e.splat(mask.into(), self.lanes).into_vector_value();
        e.builder.build_and(bits, mask, "").expect(BUILT)
    }

    /// Counts with those of one byte of the rows, of which only the bits of a mask count.
    fn step(
        &self,
        at: IntValue<'c>,
        counts: &[BasicValueEnum<'c>],
        mask: Option<IntValue<'c>>,
    ) -> Vec<BasicValueEnum<'c>> {
        let (e, byte) = (self.e, self.e.context.i8_type());
        let panel = e.at(
            byte,
            e.pointer_argument(3),
            e.mul(at, e.int(PANEL_ROWS as i64)),
        );
        let b: Vec<VectorValue<'c>> = (0..self.n()).map(|j| self.bits(panel, j, mask)).collect();
        let halves: Vec<[VectorValue<'c>; 2]> = match self.form {
            Form::Table => b.iter().map(|&b| halves(e, b)).collect(),
            Form::Popcount => vec![],
        };
        let mut next = counts.to_vec();
        for row in 0..self.rows * self.planes {
            let from = e.at(byte, e.pointer_argument(1), self.start(row));
            let (tables, all) = match self.form {
                Form::Table => {
                    let a = e.load(byte, e.at(byte, from, at), 1).into_int_value();
                    let a = mask.map_or(a, |mask| e.builder.build_and(a, mask, "").expect(BUILT));
                    (Some(self.tables(a)), None)
                }
                Form::Popcount => (None, Some(self.repeated(from, at))),
            };
            for j in 0..self.n() {
                let count = &mut next[row * self.n() + j];
                let add = |count: BasicValueEnum<'c>, more: VectorValue<'c>| {
                    let sum = e.builder.build_int_add(count.into_vector_value(), more, "");
                    sum.expect(BUILT).into()
                };
                if let Some(all) = all {
                    *count = add(*count, self.ones(all, b[j], mask));
                }
                for (table, half) in tables
                    .iter()
                    .flatten()
                    .zip(halves.get(j).into_iter().flatten())
                {
                    *count = add(*count, look_up(e, *table, *half));
                }
            }
        }
        next
    }

    /// Where a row of bits begins.
    fn start(&self, row: usize) -> IntValue<'c> {
        let e = self.e;
        let start = e.mul(e.int_argument(2), e.int((row / self.planes) as i64));
        let bytes = self.form.width() * (row % self.planes);
        match bytes {
            0 => start,
            _ => e.add(start, e.mul(e.int_argument(0), e.int(bytes as i64))),
        }
    }

    /// A word of a row, in every four lanes.
    fn repeated(&self, row: PointerValue<'c>, at: IntValue<'c>) -> VectorValue<'c> {
        let (e, word) = (self.e, self.e.context.i32_type());
        let a = e.load(word, e.at(word, row, at), 4);
        e.splat(a, self.lanes / 4).into_vector_value()
    }

    /// For every byte how many bits differ, of those of a mask.
    fn ones(
        &self,
        a: VectorValue<'c>,
        b: VectorValue<'c>,
        mask: Option<IntValue<'c>>,
    ) -> VectorValue<'c> {
        let (e, build) = (self.e, &self.e.builder);
        let b = build.build_bit_cast(b, a.get_type(), "").expect(BUILT);
        let differ = build.build_xor(a, b.into_vector_value(), "").expect(BUILT);
        let differ = build.build_bit_cast(differ, self.bytes(), "");
        let mut differ = differ.expect(BUILT).into_vector_value();
        if let Some(mask) = mask {
            let mask = e.splat(mask.into(), self.lanes).into_vector_value();
            differ = build.build_and(differ, mask, "").expect(BUILT);
        }
        let ones = e.intrinsic("llvm.ctpop", &[self.bytes().into()], &[differ.into()]);
        ones.expect("it has a result").into_vector_value()
    }

    /// The tables of the four lower and the four upper bits of a byte.
    fn tables(&self, a: IntValue<'c>) -> [VectorValue<'c>; 2] {
        let (e, b) = (self.e, &self.e.builder);
        let a = b.build_int_z_extend(a, e.i64(), "").expect(BUILT);
        let low = b.build_and(a, e.int(15), "").expect(BUILT);
        let low = b.build_left_shift(low, e.int(4), "").expect(BUILT);
        let high = b.build_and(a, e.int(0xf0), "").expect(BUILT);
        [low, high].map(|offset| {
            let from = e.at(e.context.i8_type(), e.pointer_argument(10), offset);
            table(e, from, self.lanes)
        })
    }

    /// Counts in 16 bits, with these of 8 bits added.
    fn flush(
        &self,
        counts: &[BasicValueEnum<'c>],
        more: Vec<BasicValueEnum<'c>>,
    ) -> Vec<BasicValueEnum<'c>> {
        let b = &self.e.builder;
        let sums = counts.iter().zip(more).map(|(count, more)| {
            let count = count.into_vector_value();
            let wide = b.build_int_z_extend(more.into_vector_value(), count.get_type(), "");
            b.build_int_add(count, wide.expect(BUILT), "")
                .expect(BUILT)
                .into()
        });
        sums.collect()
    }

    /// Which counts are below their limits, some of that turned.
    fn store_bits(&self, counts: &[BasicValueEnum<'c>]) {
        let (e, b) = (self.e, &self.e.builder);
        let kind = e.context.i16_type().vec_type(self.lanes);
        let bits = std::num::NonZeroU32::new(self.lanes).expect("a vector has lanes");
        let some = e.context.custom_width_int_type(bits);
        let some = some.expect("LLVM has integers of any width");
        let flips = e.load(e.i64(), e.pointer_argument(7), 8).into_int_value();
        for row in 0..self.rows {
            let mut word = flips;
            for j in 0..self.n() {
                let lane = j as i64 * i64::from(self.lanes);
                let limits = e.at(e.context.i16_type(), e.pointer_argument(6), e.int(lane));
                let limits = e.load(kind, limits, 2).into_vector_value();
                let count = counts[row * self.n() + j].into_vector_value();
                let below = b.build_int_compare(IntPredicate::ULT, count, limits, "");
                let bits = b
                    .build_bit_cast(below.expect(BUILT), some, "")
                    .expect(BUILT);
                let bits = b.build_int_z_extend_or_bit_cast(bits.into_int_value(), e.i64(), "");
                let bits = b.build_left_shift(bits.expect(BUILT), e.int(lane), "");
                word = b.build_xor(word, bits.expect(BUILT), "").expect(BUILT);
            }
            let start = e.mul(e.int_argument(5), e.int(row as i64));
            let out = e.at(e.context.i8_type(), e.pointer_argument(4), start);
            e.store(word, out, 1);
        }
    }

    /// `(columns - 2 count) * scale`, of planes with their weights, added to what is there, times the row's size.
    fn store(&self, counts: &[BasicValueEnum<'c>]) {
        let (e, b) = (self.e, &self.e.builder);
        let word = e.context.i32_type();
        let columns = b
            .build_int_truncate(e.int_argument(8), word, "")
            .expect(BUILT);
        let weights = word.const_int((1 << self.planes) - 1, false);
        let most = b.build_int_mul(columns, weights, "").expect(BUILT);
        let most = e.splat(most.into(), self.lanes).into_vector_value();
        for row in 0..self.rows {
            let size = e.at(e.f32(), e.pointer_argument(7), e.int(row as i64));
            let size = e.splat(e.load(e.f32(), size, 4), self.lanes);
            let start = e.mul(e.int_argument(5), e.int(row as i64));
            let out = e.at(e.f32(), e.pointer_argument(4), start);
            for j in 0..self.n() {
                let whole = (0..self.planes).fold(most, |sum, plane| {
                    let count = counts[(row * self.planes + plane) * self.n() + j];
                    let kind = word.vec_type(self.lanes);
                    let wide = b.build_int_z_extend(count.into_vector_value(), kind, "");
                    let weight = e.constants(32, plane as i64 + 1, self.lanes);
                    let heavy = b.build_left_shift(wide.expect(BUILT), weight, "");
                    b.build_int_sub(sum, heavy.expect(BUILT), "").expect(BUILT)
                });
                let place = Place {
                    out,
                    scales: e.pointer_argument(6),
                    lane: j as i64 * i64::from(self.lanes),
                    add: e.int_argument(9),
                };
                let kind = e.context.f32_type().vec_type(self.lanes);
                let whole = b.build_signed_int_to_float(whole, kind, "").expect(BUILT);
                finish(e, whole, place, size.into_vector_value());
            }
        }
    }
}

/// Where some results go.
pub(super) struct Place<'c> {
    pub(super) out: PointerValue<'c>,
    pub(super) scales: PointerValue<'c>,
    /// The first of them.
    pub(super) lane: i64,
    /// Not 0 if they are added.
    pub(super) add: IntValue<'c>,
}

/// Stores `whole * scale`, added to what is there, times the row's size.
pub(super) fn finish<'c>(
    e: &Emit<'_, 'c>,
    whole: VectorValue<'c>,
    place: Place<'c>,
    size: VectorValue<'c>,
) {
    let (b, kind) = (&e.builder, whole.get_type());
    let out = e.at(e.f32(), place.out, e.int(place.lane));
    let scales = e.at(e.f32(), place.scales, e.int(place.lane));
    let scales = e.load(kind, scales, 4).into_vector_value();
    let term = b.build_float_mul(whole, scales, "").expect(BUILT);
    // Of all numbers, only -0.0 changes nothing when it is added.
    let nothing = e.splat(
        e.context.f32_type().const_float(-0.0).into(),
        kind.get_size(),
    );
    let adds = e.compare(IntPredicate::NE, place.add, e.int(0));
    let before = e.select(adds.into(), e.load(kind, out, 4), nothing);
    let sum = e.fadd(before, term.into()).into_vector_value();
    let result = b.build_float_mul(sum, size, "").expect(BUILT);
    e.store(result, out, 4);
}
