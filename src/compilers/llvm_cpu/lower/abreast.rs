//! Sums of products of several rows at once.
//!
//! A row's partial results are few registers, each of which waits for its last multiply-add; with the rows of one vector times a
//! matrix there is nothing else to do meanwhile, and the vector is read for every row again. Rows side by side share what they
//! read, and their sums do not wait for each other. Each row's order of additions, and so every bit, is that of the row alone.

use inkwell::IntPredicate;
use inkwell::values::IntValue;

use super::emitter::Emitter;
use super::frame::{At, Done};
use super::plan::Plan;
use super::reduce::STRIPES;
use super::vector::V;
use crate::shape::numel;

/// Rows side by side.
const ROWS: usize = 4;

/// Points that are more than the caches of a core hold numbers.
const FAR: i64 = 1 << 20;

/// A row's number and its coordinates.
type Unit<'c> = (IntValue<'c>, Vec<IntValue<'c>>);

impl Plan<'_> {
    /// Whether rows are summed up side by side: products only, of which whole vectors are read, and of as many that the loop
    /// is what takes time.
    pub fn sums_abreast(&self) -> bool {
        let stripes = i64::from(STRIPES);
        let fits = |n: i64| n % stripes == 0 && n >= 2 * stripes;
        let [length] = self.reduce[..] else {
            return false;
        };
        self.turns[0].factors.is_some() && length.as_const().is_some_and(fits)
    }

    /// Whether rows come from memory.
    fn reads_far(&self) -> bool {
        let points = numel(&self.space) * numel(&self.reduce);
        points.as_const().is_none_or(|n| n >= FAR)
    }
}

impl<'c> Emitter<'_, 'c> {
    /// Emits sums of products, [`ROWS`] at a time and the rest one by one.
    pub fn sum_abreast(&mut self) {
        let sizes = &self.plan.space;
        let (begin, end) = self.units();
        let some = self.icmp(IntPredicate::SLT, begin, end);
        // Without units a size may be zero.
        self.when(some, |e| {
            let first = e.unravel(begin, sizes);
            let first: Vec<_> = first.iter().map(|&c| e.ops.one(c.into())).collect();
            let whole = e.iand(e.isub(end, begin), e.int(-(ROWS as i64)));
            let middle = e.iadd(begin, whole);
            let mut coords = first;
            for (from, to, rows) in [(begin, middle, ROWS), (middle, end, 1)] {
                coords = e.repeat((from, to, rows as i64), coords, |e, unit, carried| {
                    let (units, next) = e.units_from(unit, &carried, rows);
                    e.sum_rows(units);
                    next
                });
            }
        });
    }

    /// So many rows from one on, whose coordinates are carried, and what is carried to the row behind them.
    fn units_from(
        &mut self,
        first: IntValue<'c>,
        carried: &[V<'c>],
        n: usize,
    ) -> (Vec<Unit<'c>>, Vec<V<'c>>) {
        let extract = |c: &V<'c>| self.ops.extract(*c, 0).into_int_value();
        let mut coords: Vec<_> = carried.iter().map(extract).collect();
        let sizes = &self.plan.space;
        let mut units = Vec::new();
        for row in 0..n {
            units.push((self.iadd(first, self.int(row as i64)), coords.clone()));
            coords = self.advance(&coords, sizes);
        }
        let next = coords.iter().map(|&c| self.ops.one(c.into())).collect();
        (units, next)
    }

    /// Some rows, from the first product to the stores.
    fn sum_rows(&mut self, units: Vec<Unit<'c>>) {
        let plan = self.plan;
        let n = self.expr(plan.reduce[0]);
        let row = Some(plan.rank() - 1);
        let frames: Vec<_> = units
            .iter()
            .map(|(_, coords)| {
                let coords = [&coords[..], &[self.int(0)]].concat();
                let mut frame = self.row(&plan.turns[0], row, &coords, &Done::default());
                // Several places are read at once, which a machine reads ahead of less well than of one. Behind the rest that is
                // summed one by one there are no rows.
                if plan.reads_far() && units.len() == ROWS {
                    frame.ahead = self.next_rows(&frame, ROWS as i64);
                }
                frame
            })
            .collect();
        let (lanes, parts) = (self.lanes, (STRIPES / self.lanes) as usize);
        let zeros = vec![self.identity(0, lanes); units.len() * parts];
        let range = (self.int(0), n, i64::from(STRIPES));
        let sums = self.repeat(range, zeros, |e, i, mut sums| {
            for (frame, sums) in frames.iter().zip(sums.chunks_exact_mut(parts)) {
                for (part, sum) in sums.iter_mut().enumerate() {
                    let at = At {
                        lanes,
                        col: e.iadd(i, e.int(part as i64 * i64::from(lanes))),
                        active: None,
                    };
                    *sum = e.accumulate(0, frame, &at, *sum);
                }
            }
            sums
        });
        for ((unit, coords), sums) in units.into_iter().zip(sums.chunks_exact(parts)) {
            let mut done = Done::default();
            done.reduced.push(self.folded(0, sums.to_vec()));
            self.value_of_row(unit, coords, &done);
        }
    }
}
