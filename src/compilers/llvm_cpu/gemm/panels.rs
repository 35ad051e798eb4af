//! Packing of linear forms without padding in vectors.
//!
//! Before: rows, or steps, next to each other in memory. After: a panel `[k][width]` in f32.
//!
//! In a panel with fewer rows than it has room for, what is not there is not read and becomes zero.

use inkwell::IntPredicate;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::pack::{Pack, Panel, Walk};
use crate::compilers::llvm_cpu::emit::BUILT;
use crate::compilers::llvm_cpu::emit_masked::has_masks;

/// Bytes of a cache line.
const LINE: usize = 64;

impl<'c> Pack<'_, '_, 'c> {
    /// Whether vectors of the elements can be read under a mask.
    pub(super) fn has_masks(&self) -> bool {
        has_masks(self.operand.lanes, self.operand.access.dtype)
    }

    /// A full panel whose rows are neighbours in memory.
    pub(super) fn copied(&self, src: PointerValue<'c>, panel: &Panel<'c>, k_walk: &Walk<'c>) {
        let (e, kind) = (self.e, self.storage());
        let src = e.at(kind, src, panel.first);
        e.each(e.int(0), self.steps(), 1, |step| {
            let from = self.walk_offset(k_walk, e.add(self.k_begin(), step));
            let from = e.at(kind, src, from);
            let bytes = i64::from(self.operand.width) * self.operand.access.dtype.size() as i64;
            // The same step of the next panel.
            for line in (0..bytes).step_by(LINE) {
                e.prefetch(from, bytes + line, 2);
            }
            let values = self.read(from, self.operand.width);
            e.store(values, self.slot(panel, step, e.int(0)), 4);
        });
    }

    /// Any panel whose rows are neighbours in memory.
    pub(super) fn copied_in_part(
        &self,
        src: PointerValue<'c>,
        panel: &Panel<'c>,
        k_walk: &Walk<'c>,
    ) {
        let (e, kind, o) = (self.e, self.storage(), self.operand);
        let src = e.at(kind, src, panel.first);
        let mut chunks = Vec::new();
        let mut column = 0;
        while column < o.width {
            let fits = |lanes: &u32| *lanes <= o.lanes && column + lanes <= o.width;
            let lanes = [16, 8, 4, 2].into_iter().find(fits);
            let lanes = lanes.expect("panels have an even width");
            let rest = e.sub(panel.rows, e.int(column.into()));
            chunks.push((column, lanes, e.lanes_below(lanes, rest)));
            column += lanes;
        }
        e.each(e.int(0), self.steps(), 1, |step| {
            let from = self.walk_offset(k_walk, e.add(self.k_begin(), step));
            let from = e.at(kind, src, from);
            for &(column, lanes, valid) in &chunks {
                let column = e.int(column.into());
                let from = e.at(kind, from, column);
                let values = e.masked_read_f32(o.access.dtype, from, lanes, valid);
                e.store(values, self.slot(panel, step, column), 4);
            }
        });
    }

    /// A panel whose steps are neighbours in memory: groups of rows, four steps at a time. `whole` if all rows are
    /// there.
    pub(super) fn transposed(
        &self,
        src: PointerValue<'c>,
        panel: &Panel<'c>,
        row_walk: &Walk<'c>,
        whole: bool,
    ) {
        let e = self.e;
        let src = e.at(self.storage(), src, self.k_begin());
        let fours = self.operand.width / 4 * 4;
        for (begin, end, size) in [(0, fours, 4), (fours, self.operand.width, 2)] {
            if begin == end {
                continue;
            }
            let (begin, end) = (e.int(begin.into()), e.int(end.into()));
            let used = if whole { end } else { e.min(end, panel.rows) };
            e.each(begin, used, size, |first| {
                let group = Group {
                    first,
                    size: size as u32,
                    valid: (!whole).then(|| e.sub(panel.rows, first)),
                    ahead: vec![],
                };
                let last = e.sub(panel.rows, e.int(1));
                let row = |column: i64| {
                    let mut column = e.add(first, e.int(column));
                    if !whole {
                        // Behind the last row, that one is read again.
                        column = e.min(column, last);
                    }
                    let index = e.add(panel.first, column);
                    e.at(self.storage(), src, self.walk_offset(row_walk, index))
                };
                let rows: Vec<_> = (0..size).map(row).collect();
                let ahead = (size..2 * size).map(row).collect();
                self.transpose_rows(&rows, panel, &Group { ahead, ..group });
            });
            if !whole {
                self.clear(panel, (begin, end, size));
            }
        }
    }

    /// Writes zeros into the groups of columns that have no row at all.
    fn clear(&self, panel: &Panel<'c>, (begin, end, size): (IntValue<'c>, IntValue<'c>, i64)) {
        let e = self.e;
        let zero = e.vector(size as u32).const_zero();
        let free = e.add(e.sub(panel.rows, begin), e.int(size - 1));
        let free = e.builder.build_and(free, e.int(-size), "").expect(BUILT);
        // Fewer rows than `begin` leave all groups free.
        let none = e.compare(IntPredicate::SLT, panel.rows, begin);
        let free = e
            .builder
            .build_select(none, e.int(0), free, "")
            .expect(BUILT);
        let free = e.add(begin, free.into_int_value());
        e.each(e.int(0), self.steps(), 1, |step| {
            e.each(free, end, size, |column| {
                e.store(zero, self.slot(panel, step, column), 4);
            });
        });
    }

    /// Transposes 2 or 4 rows into the columns of a panel.
    fn transpose_rows(&self, rows: &[PointerValue<'c>], panel: &Panel<'c>, group: &Group<'c>) {
        let (e, kind) = (self.e, self.storage());
        let valid = group.valid.map(|end| e.lanes_below(group.size, end));
        let four = |step: IntValue<'c>| {
            let loaded = rows
                .iter()
                .map(|row| self.read(e.at(kind, *row, step), 4))
                .collect();
            for (index, values) in self.transpose4(loaded).into_iter().enumerate() {
                let zero = values.get_type().const_zero();
                let values = valid.map_or(values, |valid| e.select(valid, values, zero));
                let step = e.add(step, e.int(index as i64));
                e.store(values, self.slot(panel, step, group.first), 4);
            }
        };
        let one = |step: IntValue<'c>| {
            for (index, row) in rows.iter().enumerate() {
                let index = e.int(index as i64);
                let mut value = self.read(e.at(kind, *row, step), 1);
                if let Some(end) = group.valid {
                    let valid = e.compare(IntPredicate::SLT, index, end);
                    value = e.select(valid.into(), value, e.f32().const_zero().into());
                }
                e.store(value, self.slot(panel, step, e.add(group.first, index)), 4);
            }
        };
        let steps = self.steps();
        let blocks = e.builder.build_and(steps, e.int(-4), "").expect(BUILT);
        // The rows are short pieces far apart, which the machine does not foresee: those of the next group are asked for
        // a cache line at a time.
        let line = (LINE / self.operand.access.dtype.size()) as i64;
        e.each(e.int(0), blocks, line, |begin| {
            for row in &group.ahead {
                e.prefetch(e.at(kind, *row, begin), 0, 3);
            }
            let end = e.min(e.add(begin, e.int(line)), blocks);
            e.each(begin, end, 4, four);
        });
        let rest = e.compare(IntPredicate::SLT, blocks, steps);
        let some = e.compare(IntPredicate::SGT, blocks, e.int(0));
        let last = || {
            e.branch(
                some,
                || four(e.sub(steps, e.int(4))),
                || e.each(e.int(0), steps, 1, one),
            )
        };
        e.branch(rest, last, || ());
    }

    /// From 2 or 4 vectors of four, the four vectors of their first, second ... elements.
    fn transpose4(&self, rows: Vec<BasicValueEnum<'c>>) -> Vec<BasicValueEnum<'c>> {
        let e = self.e;
        match rows[..] {
            [a, b] => (0..4).map(|i| e.shuffle(a, b, &[i, i + 4])).collect(),
            [a, b, c, d] => {
                let (ab, cd) = (
                    e.shuffle(a, b, &[0, 4, 1, 5]),
                    e.shuffle(c, d, &[0, 4, 1, 5]),
                );
                let (ef, gh) = (
                    e.shuffle(a, b, &[2, 6, 3, 7]),
                    e.shuffle(c, d, &[2, 6, 3, 7]),
                );
                vec![
                    e.shuffle(ab, cd, &[0, 1, 4, 5]),
                    e.shuffle(ab, cd, &[2, 3, 6, 7]),
                    e.shuffle(ef, gh, &[0, 1, 4, 5]),
                    e.shuffle(ef, gh, &[2, 3, 6, 7]),
                ]
            }
            _ => unreachable!("rows come in groups of 2 and 4"),
        }
    }
}

/// Neighbouring columns of a panel that are transposed together.
struct Group<'c> {
    first: IntValue<'c>,
    size: u32,
    /// How many of them have a row, or more; nothing if all have one.
    valid: Option<IntValue<'c>>,
    /// Where the group behind this one is, which may be nowhere.
    ahead: Vec<PointerValue<'c>>,
}
