//! Packing of operands whose steps are next to each other in memory.
//!
//! Before: rows, each with its steps as neighbours. After: a panel `[k][width]` in f32.
//!
//! A whole panel with enough steps is turned in squares of as many rows as a vector has lanes: each row is read a cache
//! line at a time where vectors are that long, and each step of the square is written in one piece. Two numbers of bf16 are
//! turned as one of 32 bits and taken apart behind that, so they need half the shuffles. Shuffles that stay in 16 bytes
//! come first, whole pieces of 16 bytes are exchanged then.
//!
//! Few steps, and panels with fewer rows than they have room for, are turned 4 x 4: what is not there is not read and
//! becomes zero.

use inkwell::IntPredicate;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::pack::{Pack, Panel, Walk};
use crate::compilers::llvm_cpu::emit::BUILT;
use crate::dtype::DType;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;

/// Lanes of the vectors that turn fewer rows than the widest ones have lanes.
const NARROW: u32 = 8;

fn lanes_of(values: BasicValueEnum<'_>) -> u32 {
    values.get_type().into_vector_type().get_size()
}

impl<'c> Pack<'_, '_, 'c> {
    /// A panel whose steps are neighbours in memory. `whole` if all rows are there.
    pub(super) fn transposed(
        &self,
        src: PointerValue<'c>,
        panel: &Panel<'c>,
        row_walk: &Walk<'c>,
        whole: bool,
    ) {
        let e = self.e;
        let src = e.at(self.storage(), src, self.k_begin());
        let narrow = || self.in_fours(src, panel, row_walk, whole);
        if !whole {
            return narrow();
        }
        let enough = e.compare(
            IntPredicate::SGE,
            self.steps(),
            e.int(self.square_steps(self.operand.lanes)),
        );
        e.branch(enough, || self.in_squares(src, panel, row_walk), narrow);
    }

    // ---- squares

    /// How many steps a vector of so many lanes has.
    fn square_steps(&self, lanes: u32) -> i64 {
        match self.operand.access.dtype {
            DType::BF16 => 2 * i64::from(lanes),
            _ => lanes.into(),
        }
    }

    /// Neighbouring columns of a panel that are turned together: the first, the end and how many at a time. What is less
    /// than the widest vectors needs fewer shuffles in narrower ones.
    fn strips(&self) -> Vec<[u32; 3]> {
        let (width, lanes) = (self.operand.width, self.operand.lanes);
        let narrow = lanes.min(NARROW);
        let (full, most) = (width / lanes * lanes, width / narrow * narrow);
        let all = [
            [0, full, lanes],
            [full, most, narrow],
            [most, width, width - most],
        ];
        all.into_iter()
            .filter(|[begin, end, _]| begin < end)
            .collect()
    }

    /// A whole panel with at least the steps of a square.
    fn in_squares(&self, src: PointerValue<'c>, panel: &Panel<'c>, row_walk: &Walk<'c>) {
        let (e, strips) = (self.e, self.strips());
        for (at, &[begin, end, size]) in strips.iter().enumerate() {
            let following = match end - begin > size {
                true => size,
                false => strips[(at + 1) % strips.len()][2],
            };
            let [begin, end] = [begin, end].map(|column| e.int(column.into()));
            e.each(begin, end, size.into(), |first| {
                let row = |row: u32| {
                    let column = e.add(first, e.int(row.into()));
                    let offset = self.walk_offset(row_walk, e.add(panel.first, column));
                    e.at(self.storage(), src, offset)
                };
                let rows: Vec<_> = (0..size).map(row).collect();
                let ahead: Vec<_> = (size..size + following).map(row).collect();
                self.rows_in_squares(&rows, &ahead, panel, first);
            });
        }
    }

    /// Some rows of a panel, given where the rows behind them are: those are asked for, and may be nowhere.
    fn rows_in_squares(
        &self,
        rows: &[PointerValue<'c>],
        ahead: &[PointerValue<'c>],
        panel: &Panel<'c>,
        first: IntValue<'c>,
    ) {
        let (e, kind, steps) = (self.e, self.storage(), self.steps());
        let lanes = match rows.len() as u32 {
            all if all == self.operand.lanes => all,
            _ => self.operand.lanes.min(NARROW),
        };
        let square = self.square_steps(lanes);
        let line = (LINE / self.operand.access.dtype.size()) as i64;
        let last = e.sub(steps, e.int(square));
        let turn = |step| self.square(rows, lanes, panel, (first, step));
        // The last square overlaps the one before, unless it is a whole one.
        let each = |begin, end| {
            e.each(begin, end, square, |step| turn(e.min(step, last)));
        };
        e.each(e.int(0), steps, line.max(square), |begin| {
            for row in ahead {
                e.prefetch(e.at(kind, *row, begin), 0, 2);
            }
            match line <= square {
                true => turn(e.min(begin, last)),
                false => each(begin, e.min(e.add(begin, e.int(line)), steps)),
            }
        });
    }

    /// Turns the steps of a square of some rows, in vectors of so many lanes.
    fn square(
        &self,
        rows: &[PointerValue<'c>],
        lanes: u32,
        panel: &Panel<'c>,
        (first, step): (IntValue<'c>, IntValue<'c>),
    ) {
        let (e, kind) = (self.e, self.storage());
        let words = e.context.i32_type().vec_type(lanes);
        let pairs = self.operand.access.dtype == DType::BF16;
        let read = |row: &PointerValue<'c>| match e.at(kind, *row, step) {
            from if pairs => e.load(words, from, 2),
            from => self.read(from, lanes),
        };
        let turned = self.turned(rows.iter().map(read).collect());
        let store = |values, number: usize| {
            let step = e.add(step, e.int(number as i64));
            self.store_first(values, rows.len() as u32, self.slot(panel, step, first));
        };
        for (number, values) in turned.into_iter().enumerate() {
            if !pairs {
                store(values, number);
                continue;
            }
            // A bf16 is the upper half of an f32; the first of two is in the lower half.
            let (both, b) = (values.into_vector_value(), &e.builder);
            let lower = b.build_left_shift(both, e.constants(32, 16, lanes), "");
            let upper = b.build_and(both, e.constants(32, 0xffff_0000, lanes), "");
            store(lower.expect(BUILT).into(), 2 * number);
            store(upper.expect(BUILT).into(), 2 * number + 1);
        }
    }

    /// Stores the first `count` lanes of a vector, an even number.
    fn store_first(&self, values: BasicValueEnum<'c>, count: u32, to: PointerValue<'c>) {
        let e = self.e;
        let mut first = 0;
        while first < count {
            let size = 1 << (count - first).ilog2();
            let part = match size == lanes_of(values) {
                true => values,
                false => e.shuffle(values, values, &Vec::from_iter(first..first + size)),
            };
            e.store(part, e.at(e.f32(), to, e.int(first.into())), 4);
            first += size;
        }
    }

    /// From at most as many vectors as they have lanes, of four bytes each, the vectors of their first, second ...
    /// elements.
    fn turned(&self, mut rows: Vec<BasicValueEnum<'c>>) -> Vec<BasicValueEnum<'c>> {
        let (e, lanes) = (self.e, lanes_of(rows[0]));
        let nothing = rows[0].get_type().into_vector_type().get_poison();
        rows.resize(lanes as usize, nothing.into());
        // Two elements of each piece of 16 bytes of `a` and of `b`.
        let mix = |a, b, [low, high]: [[u32; 2]; 2]| {
            let of = |piece: u32| {
                [low, high]
                    .concat()
                    .into_iter()
                    .map(move |lane| (piece, lane))
            };
            let lane = |(piece, lane): (u32, u32)| lane % 4 + 4 * piece + lane / 4 * lanes;
            let chosen: Vec<u32> = (0..lanes / 4).flat_map(of).map(lane).collect();
            e.shuffle(a, b, &chosen)
        };
        // Of each four rows, what pieces hold in their four places.
        let four = |rows: &[BasicValueEnum<'c>]| {
            let pair = |a, b| [mix(a, b, [[0, 4], [1, 5]]), mix(a, b, [[2, 6], [3, 7]])];
            let (ab, cd) = (pair(rows[0], rows[1]), pair(rows[2], rows[3]));
            let halves = |i: usize| {
                [
                    mix(ab[i], cd[i], [[0, 1], [4, 5]]),
                    mix(ab[i], cd[i], [[2, 3], [6, 7]]),
                ]
            };
            [halves(0), halves(1)].concat()
        };
        let fours: Vec<_> = rows.chunks_exact(4).map(four).collect();
        let place = |place: usize| {
            let groups = fours.iter().map(|places| places[place]).collect();
            self.turned_pieces(groups)
        };
        let places: Vec<_> = (0..4).map(place).collect();
        let of = |piece: usize| places.iter().map(move |pieces| pieces[piece]);
        (0..lanes as usize / 4).flat_map(of).collect()
    }

    /// From as many vectors as they have pieces of 16 bytes, the vectors of their first, second ... pieces.
    fn turned_pieces(&self, vectors: Vec<BasicValueEnum<'c>>) -> Vec<BasicValueEnum<'c>> {
        if vectors.len() == 1 {
            return vectors;
        }
        let (e, lanes) = (self.e, lanes_of(vectors[0]));
        // Every other piece of two vectors.
        let every_other = |first: u32| {
            let pieces = (first..lanes / 2).step_by(2);
            let chosen: Vec<u32> = pieces.flat_map(|piece| 4 * piece..4 * piece + 4).collect();
            let each = vectors.chunks_exact(2);
            self.turned_pieces(each.map(|two| e.shuffle(two[0], two[1], &chosen)).collect())
        };
        let both = every_other(0).into_iter().zip(every_other(1));
        both.flat_map(|(even, odd)| [even, odd]).collect()
    }

    // ---- fours

    /// Groups of rows, four steps at a time.
    fn in_fours(&self, src: PointerValue<'c>, panel: &Panel<'c>, row_walk: &Walk<'c>, whole: bool) {
        let e = self.e;
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
        match rows[..] {
            [a, b] => (0..4).map(|i| self.e.shuffle(a, b, &[i, i + 4])).collect(),
            _ => self.turned(rows),
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
