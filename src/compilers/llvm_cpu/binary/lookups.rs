//! Signs by bytes: a row of 8-bit numbers, as [`super::tables`], by a panel of 64 rows of the matrix.
//!
//! With bits instead of signs, `Σ s q = 2 Σ_{set} q - Σ q`. Lanes are bytes, one for each row of the panel; four columns of it choose
//! one of the 16 sums in a table (`vpshufb`; targets without it use [`plain`]).
//!
//! Bounds: two bytes of columns give four sums of at most 60, so at most 240, which a byte holds. Bytes are added to 16-bit
//! words, pairwise: `low + 256 high` in one, modulo 2^16, and `high` in the other. These are taken apart after 512 bytes of columns at
//! the latest, when a word has at most 256 * 240 = 61440.

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, VectorValue};

use super::counts::{Place, finish};
use super::nibbles::{halves, look_up, table};
use super::tables::{OFFSET, RowFacts, TABLE_BYTES};
use crate::blocks::PANEL_ROWS;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};
use crate::compilers::llvm_cpu::target::Target;

/// Writes `out[..64]`.
///
/// Arguments: bytes of columns; their tables; a panel's bits; the result; 64 scales; the size of the row; its facts; whether
/// the result is added to what is there.
pub type LookupFn = unsafe extern "C" fn(
    bytes: i64,
    tables: *const u8,
    bits: *const u8,
    out: *mut f32,
    scales: *const f32,
    size: *const f32,
    facts: *const RowFacts,
    add: i64,
);

/// Bytes of columns until words are taken apart.
const FLUSH: i64 = 512;

/// Bytes of the vectors: tables are 16 bytes in each half, so that wider vectors would load no less.
pub const LANES: u32 = 32;

/// How far ahead a panel's bits are asked for, in bytes.
const AHEAD: i64 = 8192;

/// Whether a target looks up bytes in tables; others use [`plain`].
pub fn has_lookups(target: &Target) -> bool {
    target.lanes() >= 8
}

/// Writes the kernel into `module`.
pub fn emit_lookup<'c>(context: &'c Context, module: &Module<'c>, name: &str, lanes: u32) {
    let (int, ptr) = (
        context.i64_type().into(),
        context.ptr_type(Default::default()).into(),
    );
    let e = Emit::function(
        context,
        module,
        name,
        &[int, ptr, ptr, ptr, ptr, ptr, ptr, int],
    );
    e.noalias(3);
    let kernel = Kernel { e: &e, lanes };
    let n = PANEL_ROWS / lanes as usize;
    let bytes = e.int_argument(0);
    let zero = context.i32_type().vec_type(lanes / 2).const_zero();
    let sums = vec![zero.into(); 2 * n];
    let sums = e.carry((e.int(0), bytes, FLUSH), sums, |from, sums| {
        let to = e.min(e.add(from, e.int(FLUSH)), bytes);
        let words = context.i16_type().vec_type(lanes / 2).const_zero();
        let words = vec![words.into(); 4 * n];
        let pairs = e
            .builder
            .build_and(e.sub(to, from), e.int(-2), "")
            .expect(BUILT);
        let middle = e.add(from, pairs);
        let words = e.carry((from, middle, 2), words, |at, words| {
            let next = e.add(at, e.int(1));
            let (here, more) = (kernel.sums(at), kernel.sums(next));
            let both = here.into_iter().zip(more).map(|(a, b)| kernel.plus(a, b));
            kernel.widen(words, both.collect())
        });
        let words = e.carry((middle, to, 1), words, |at, words| {
            kernel.widen(words, kernel.sums(at))
        });
        kernel.apart(&words, sums)
    });
    kernel.store(&sums);
    e.finish();
}

/// The same one number at a time.
///
/// # Safety
/// `bytes` tables and bytes of bits of each of 64 rows, room for 64 results, 64 scales.
pub unsafe extern "C" fn plain(
    bytes: i64,
    tables: *const u8,
    bits: *const u8,
    out: *mut f32,
    scales: *const f32,
    size: *const f32,
    facts: *const RowFacts,
    add: i64,
) {
    let bytes = bytes as usize;
    // SAFETY: the caller's.
    let (tables, bits, out, scales, size, facts) = unsafe {
        (
            std::slice::from_raw_parts(tables, bytes * TABLE_BYTES),
            std::slice::from_raw_parts(bits, bytes * PANEL_ROWS),
            std::slice::from_raw_parts_mut(out, PANEL_ROWS),
            // Scales are part of a matrix's bytes, which may lie anywhere.
            scales.cast::<[f32; PANEL_ROWS]>().read_unaligned(),
            *size,
            *facts,
        )
    };
    for (row, (out, scale)) in out.iter_mut().zip(&scales).enumerate() {
        let mut chosen = 0;
        for (tables, bits) in tables.chunks(TABLE_BYTES).zip(bits.chunks(PANEL_ROWS)) {
            let halves = [bits[row] & 15, bits[row] >> 4].map(usize::from);
            for (half, two) in halves.into_iter().zip(tables.chunks(32)) {
                chosen += i32::from(two[half]) + 16 * (i32::from(two[16 + half]) - OFFSET);
            }
        }
        let term = (2 * chosen - facts.total) as f32 * facts.scale * scale;
        let before = if add == 0 { -0.0 } else { *out };
        *out = (before + term) * size;
    }
}

struct Kernel<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    lanes: u32,
}

impl<'c> Kernel<'_, '_, 'c> {
    fn n(&self) -> usize {
        PANEL_ROWS / self.lanes as usize
    }

    fn plus(&self, a: VectorValue<'c>, b: VectorValue<'c>) -> VectorValue<'c> {
        self.e.builder.build_int_add(a, b, "").expect(BUILT)
    }

    /// For each vector of the panel, the sums of lower and of upper parts of a byte of columns.
    fn sums(&self, at: IntValue<'c>) -> Vec<VectorValue<'c>> {
        let (e, byte) = (self.e, self.e.context.i8_type());
        let tables = e.at(
            byte,
            e.pointer_argument(1),
            e.mul(at, e.int(TABLE_BYTES as i64)),
        );
        let [low, high, low_2, high_2] = [0, 16, 32, 48].map(|from| {
            let from = e.at(byte, tables, e.int(from));
            table(e, from, self.lanes)
        });
        let panel = e.at(
            byte,
            e.pointer_argument(2),
            e.mul(at, e.int(PANEL_ROWS as i64)),
        );
        // Into the second cache: what is on its way to the first one waits in a few places, which tables need as well.
        e.prefetch(panel, AHEAD, 2);
        let mut out = Vec::with_capacity(2 * self.n());
        for j in 0..self.n() {
            let from = e.at(byte, panel, e.int(j as i64 * i64::from(self.lanes)));
            let bits = e.load(byte.vec_type(self.lanes), from, 1);
            let [four, four_2] = halves(e, bits.into_vector_value());
            for (table, table_2) in [(low, low_2), (high, high_2)] {
                let (a, b) = (look_up(e, table, four), look_up(e, table_2, four_2));
                out.push(self.plus(a, b));
            }
        }
        out
    }

    /// Words with bytes added: for each vector of bytes all of them as words, and the upper bytes.
    fn widen(
        &self,
        words: &[BasicValueEnum<'c>],
        bytes: Vec<VectorValue<'c>>,
    ) -> Vec<BasicValueEnum<'c>> {
        let (e, b) = (self.e, &self.e.builder);
        let eight = e.constants(16, 8, self.lanes / 2);
        let mut next = Vec::with_capacity(words.len());
        for (two, bytes) in words.chunks(2).zip(bytes) {
            let (all, upper) = (two[0].into_vector_value(), two[1].into_vector_value());
            let both = b.build_bit_cast(bytes, all.get_type(), "").expect(BUILT);
            let both = both.into_vector_value();
            let odd = b.build_right_shift(both, eight, false, "").expect(BUILT);
            next.push(self.plus(all, both).into());
            next.push(self.plus(upper, odd).into());
        }
        next
    }

    /// Sums in 32 bits with words added: for each vector of the panel those of even and of odd lanes, of lower parts plus 16
    /// times upper parts.
    fn apart(
        &self,
        words: &[BasicValueEnum<'c>],
        sums: &[BasicValueEnum<'c>],
    ) -> Vec<BasicValueEnum<'c>> {
        let (e, b) = (self.e, &self.e.builder);
        let constant = |bits, value| e.constants(bits, value, self.lanes / 2);
        let kind = e.context.i32_type().vec_type(self.lanes / 2);
        let wide = |x| b.build_int_z_extend(x, kind, "").expect(BUILT);
        let mut next = Vec::with_capacity(sums.len());
        // Words of lower parts, then of upper parts.
        for (four, sums) in words.chunks(4).zip(sums.chunks(2)) {
            let parts: Vec<[VectorValue<'c>; 2]> = four
                .chunks(2)
                .map(|two| {
                    let (all, odd) = (two[0].into_vector_value(), two[1].into_vector_value());
                    let moved = b.build_left_shift(odd, constant(16, 8), "").expect(BUILT);
                    let even = b.build_int_sub(all, moved, "").expect(BUILT);
                    [wide(even), wide(odd)]
                })
                .collect();
            for (lane, sum) in sums.iter().enumerate() {
                let high = b
                    .build_left_shift(parts[1][lane], constant(32, 4), "")
                    .expect(BUILT);
                let both = self.plus(parts[0][lane], high);
                next.push(self.plus(sum.into_vector_value(), both).into());
            }
        }
        next
    }

    /// Twice the sums of set bits without what was added to upper parts, minus the sum of all; scaled.
    fn store(&self, sums: &[BasicValueEnum<'c>]) {
        let (e, b) = (self.e, &self.e.builder);
        let (byte, word) = (e.context.i8_type(), e.context.i32_type());
        let scale = e.load(e.f32(), e.pointer_argument(6), 4);
        let total = e.at(byte, e.pointer_argument(6), e.int(4));
        let total = e.load(word, total, 4).into_int_value();
        // Two lookups for a byte, times 16, times 2.
        let offset = e.mul(e.int_argument(0), e.int(2 * i64::from(OFFSET) * 16 * 2));
        let offset = b.build_int_truncate(offset, word, "").expect(BUILT);
        let taken = b.build_int_add(total, offset, "").expect(BUILT);
        let taken = e.splat(taken.into(), self.lanes).into_vector_value();
        let scale = e.splat(scale, self.lanes).into_vector_value();
        let size = e.splat(e.load(e.f32(), e.pointer_argument(5), 4), self.lanes);
        let half = self.lanes / 2;
        let order: Vec<u32> = (0..self.lanes).map(|i| i / 2 + i % 2 * half).collect();
        for (j, two) in sums.chunks(2).enumerate() {
            let all = e.shuffle(two[0], two[1], &order).into_vector_value();
            let twice = self.plus(all, all);
            let whole = b.build_int_sub(twice, taken, "").expect(BUILT);
            let kind = e.context.f32_type().vec_type(self.lanes);
            let whole = b.build_signed_int_to_float(whole, kind, "").expect(BUILT);
            let whole = b.build_float_mul(whole, scale, "").expect(BUILT);
            let place = Place {
                out: e.pointer_argument(3),
                scales: e.pointer_argument(4),
                lane: j as i64 * i64::from(self.lanes),
                add: e.int_argument(7),
            };
            finish(e, whole, place, size.into_vector_value());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compilers::llvm_cpu::jit::assembly;

    #[test]
    fn bits_are_asked_for_ahead() {
        for name in ["x86-64-v3", "x86-64-v4"] {
            let target = Target::for_cpu(name).unwrap();
            let text = assembly(&target, |context, module| {
                emit_lookup(context, module, "lookup", LANES);
                Ok(())
            });
            let text = text.unwrap();
            let asked = |line: &&str| line.trim_start().starts_with("prefetcht1");
            // Two in the loop over pairs of bytes of columns, one for the last byte.
            assert_eq!(text.lines().filter(asked).count(), 3, "{name}");
        }
    }
}
