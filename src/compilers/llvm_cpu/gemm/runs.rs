//! Packing columns that are neighbours in memory without gathering them one by one.
//!
//! ```text
//! offsets of a vector's columns   7  8  9 20 21 22 23 24   →   masks  11100000, 00011111   bases  7, 17
//! ```
//! Windows of an image walk rows of pixels: of the columns of a vector, a few runs are neighbours, in every step the same
//! ones, each moved by the same distance. They are found once for a panel; in a step, a run is one load under its mask, from
//! where the vector would begin if all of its columns were in the run.
//!
//! Lanes that are padding, or have no row, are not loaded and become zeros, as they do when they are gathered. Where a
//! vector has more runs than half its lanes, it is gathered.

use inkwell::IntPredicate;
use inkwell::values::{IntValue, PointerValue, VectorValue};

use super::gather::Chunk;
use crate::compilers::llvm_cpu::emit::{BUILT, Emit};

/// The runs of each vector of a panel's columns; those of a vector begin at its first column.
pub(super) struct Runs<'c> {
    /// The lanes of a run, as bits.
    lanes: PointerValue<'c>,
    /// The offset that lane 0 would have.
    bases: PointerValue<'c>,
    /// How many runs a vector has, at its first column.
    counts: PointerValue<'c>,
}

impl<'c> Runs<'c> {
    /// Reserves the tables; to be called outside of loops.
    pub(super) fn new(e: &Emit<'_, 'c>, width: u32) -> Runs<'c> {
        let table = e.i64().array_type(width);
        let [lanes, bases, counts] = ["lanes", "bases", "counts"]
            .map(|name| e.builder.build_alloca(table, name).expect(BUILT));
        Runs {
            lanes,
            bases,
            counts,
        }
    }

    /// Finds the runs of a vector, given the offsets of all columns and how many of them are rows.
    pub(super) fn find(
        &self,
        chunk: &Chunk<'_, '_, 'c>,
        offsets: PointerValue<'c>,
        rows: IntValue<'c>,
    ) {
        let (e, first) = (chunk.e, chunk.column);
        let b = &e.builder;
        let entry = |table, at| {
            e.load(e.i64(), e.at(e.i64(), table, at), 8)
                .into_int_value()
        };
        let count = e.at(e.i64(), self.counts, first);
        e.store(e.int(0), count, 8);
        e.each(e.int(0), e.int(chunk.lanes.into()), 1, |lane| {
            let column = e.add(first, lane);
            let starts = e.compare(IntPredicate::EQ, lane, e.int(0));
            let last = b.build_select(starts, column, e.sub(column, e.int(1)), "");
            let last = last.expect(BUILT).into_int_value();
            let (offset, before) = (entry(offsets, column), entry(offsets, last));
            let jumps = e.compare(IntPredicate::NE, offset, e.add(before, e.int(1)));
            let is_row = e.compare(IntPredicate::SLT, column, rows);
            let jumps = b.build_and(jumps, is_row, "").expect(BUILT);
            let is_new = b.build_or(starts, jumps, "").expect(BUILT);
            let more = b.build_int_z_extend(is_new, e.i64(), "").expect(BUILT);
            let n = e.add(e.load(e.i64(), count, 8).into_int_value(), more);
            e.store(n, count, 8);
            let at = e.sub(e.add(first, n), e.int(1));
            let put = |table, new, old| {
                let value = b.build_select(is_new, new, old, "").expect(BUILT);
                e.store(value, e.at(e.i64(), table, at), 8);
            };
            let bit = b.build_left_shift(e.int(1), lane, "").expect(BUILT);
            let bits = b.build_or(entry(self.lanes, at), bit, "").expect(BUILT);
            put(self.lanes, bit, bits);
            put(self.bases, e.sub(offset, lane), entry(self.bases, at));
        });
    }

    /// Whether loading the runs of a vector is less work than gathering it.
    pub(super) fn are_few(&self, chunk: &Chunk<'_, '_, 'c>) -> IntValue<'c> {
        let e = chunk.e;
        let half = e.int((chunk.lanes / 2).into());
        e.compare(IntPredicate::SLE, self.count(chunk), half)
    }

    fn count(&self, chunk: &Chunk<'_, '_, 'c>) -> IntValue<'c> {
        let e = chunk.e;
        let count = e.at(e.i64(), self.counts, chunk.column);
        e.load(e.i64(), count, 8).into_int_value()
    }

    /// Writes a vector: the elements `part` behind its offsets in `src` where `valid`, zeros elsewhere.
    pub(super) fn copy(
        &self,
        chunk: &Chunk<'_, '_, 'c>,
        src: PointerValue<'c>,
        part: IntValue<'c>,
        valid: VectorValue<'c>,
        to: PointerValue<'c>,
    ) {
        let (e, b) = (chunk.e, &chunk.e.builder);
        let kind = e.vector(chunk.lanes);
        let bits = std::num::NonZeroU32::new(chunk.lanes).expect("a vector has lanes");
        let bits = e.context.custom_width_int_type(bits);
        let bits = bits.expect("LLVM has integers of any width");
        let mask = e.context.bool_type().vec_type(chunk.lanes);
        e.store(kind.const_zero(), to, 4);
        e.each(e.int(0), self.count(chunk), 1, |run| {
            let at = e.add(chunk.column, run);
            let entry = |table| {
                e.load(e.i64(), e.at(e.i64(), table, at), 8)
                    .into_int_value()
            };
            let lanes = b
                .build_int_truncate(entry(self.lanes), bits, "")
                .expect(BUILT);
            let lanes = b.build_bit_cast(lanes, mask, "").expect(BUILT);
            let loaded = b
                .build_and(lanes.into_vector_value(), valid, "")
                .expect(BUILT);
            let offset = e.add(entry(self.bases), part);
            // SAFETY: not marked `inbounds`: where lane 0 is not in the run, its address may lie before the buffer. Lanes
            // are only loaded where they are valid elements.
            let from = unsafe { b.build_gep(e.f32(), src, &[offset], "").expect(BUILT) };
            let values = e.masked_load(kind, from, loaded.into());
            let others = e.load(kind, to, 4);
            let lanes = lanes.into_vector_value();
            let values = b.build_select(lanes, values, others, "").expect(BUILT);
            e.store(values, to, 4);
        });
    }
}
