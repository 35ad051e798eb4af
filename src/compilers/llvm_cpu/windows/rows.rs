//! Windows with neighbouring outputs in the lanes.
//!
//! A unit is one row of the image's outputs and some rows of the other operand. Its sums are in registers: as many vectors of
//! neighbours as there are, times some rows. A step loads each vector from the image, where it lies one place further
//! than for the step before, and multiplies it by one element of each row. Where a row of outputs ends inside of a
//! vector, the other lanes are not loaded.

use inkwell::IntPredicate;
use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::values::{BasicValueEnum, IntValue, PointerValue};

use super::{Axis, Windows, function, pieces, place};
use crate::compilers::llvm_cpu::emit::Emit;

/// `fn(image, other, out, first unit, behind the last unit)`.
pub(super) type RowsFn = unsafe extern "C" fn(*const f32, *const f32, *mut f32, i64, i64);

/// Steps of the last dim up to which each has code of its own.
const UNROLLED: i64 = 16;

/// What is in registers at once.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    /// Rows of the other operand, in how many blocks they come, and how many the last one has.
    rows: i64,
    blocks: i64,
    last: i64,
    /// Vectors of neighbours.
    vectors: i64,
}

impl Tile {
    fn of(windows: &Windows, lanes: u32) -> Tile {
        let (sums, most) = if lanes == 16 { (24, 3) } else { (12, 2) };
        let n_vectors = pieces(neighbours(windows).size, lanes.into());
        let vectors = pieces(n_vectors, pieces(n_vectors, most));
        let all = windows.rows.size;
        let blocks = pieces(all, sums / vectors);
        let rows = pieces(all, blocks);
        let blocks = pieces(all, rows);
        Tile {
            rows,
            blocks,
            last: all - (blocks - 1) * rows,
            vectors,
        }
    }
}

fn neighbours(windows: &Windows) -> Axis {
    *windows.kept.last().expect("outputs are neighbours")
}

/// How many units there are.
pub(super) fn units(windows: &Windows, lanes: u32) -> usize {
    let rows = windows.n_kept() / neighbours(windows).size;
    (rows * Tile::of(windows, lanes).blocks) as usize
}

/// Writes the function.
pub(super) fn emit<'c>(
    context: &'c Context,
    module: &Module<'c>,
    symbol: &str,
    windows: &Windows,
    lanes: u32,
) {
    let e = function(context, module, symbol, 3);
    let tile = Tile::of(windows, lanes);
    let rows = Rows {
        e: &e,
        windows,
        tile,
        lanes,
    };
    e.each(e.int_argument(3), e.int_argument(4), 1, |unit| {
        let (row, block) = e.div_rem(unit, e.int(tile.blocks));
        let full = || rows.unit(row, block, tile.rows);
        if tile.last == tile.rows {
            return full();
        }
        let is_last = e.compare(IntPredicate::EQ, block, e.int(tile.blocks - 1));
        e.branch(is_last, || rows.unit(row, block, tile.last), full);
    });
    e.finish();
}

struct Rows<'e, 'm, 'c> {
    e: &'e Emit<'m, 'c>,
    windows: &'e Windows,
    tile: Tile,
    lanes: u32,
}

/// Where the sums of a block begin in the three buffers, how many rows it has and how many neighbours.
struct Block<'c> {
    image: PointerValue<'c>,
    other: PointerValue<'c>,
    out: PointerValue<'c>,
    rows: i64,
    neighbours: i64,
}

type Values<'c> = Vec<BasicValueEnum<'c>>;

impl<'c> Rows<'_, '_, 'c> {
    /// One row of outputs for some rows of the other operand.
    fn unit(&self, row: IntValue<'c>, block: IntValue<'c>, rows: i64) {
        let (e, w) = (self.e, self.windows);
        let outer = &w.kept[..w.kept.len() - 1];
        let [image, out] = place(e, row, outer, w.starts[0]);
        let first = e.mul(block, e.int(self.tile.rows));
        let other = e.add(e.int(w.starts[1]), e.mul(first, e.int(w.rows.from)));
        let out = e.add(out, e.mul(first, e.int(w.rows.to)));
        let [image, other, out] = [(0, image), (1, other), (2, out)]
            .map(|(argument, at)| e.at(e.f32(), e.pointer_argument(argument), at));
        let (all, each) = (
            neighbours(w).size,
            self.tile.vectors * i64::from(self.lanes),
        );
        let whole = all / each * each;
        let block = |x: IntValue<'c>, neighbours: i64| Block {
            image: e.at(e.f32(), image, x),
            other,
            out: e.at(e.f32(), out, x),
            rows,
            neighbours,
        };
        if whole > 0 {
            e.each(e.int(0), e.int(whole), each, |x| {
                self.block(&block(x, each))
            });
        }
        if whole < all {
            self.block(&block(e.int(whole), all - whole));
        }
    }

    /// Some neighbours, from the first step to the store.
    fn block(&self, block: &Block<'c>) {
        let (e, lanes) = (self.e, i64::from(self.lanes));
        let n_vectors = pieces(block.neighbours, lanes);
        let left = block.neighbours % lanes;
        let mask = (left > 0).then(|| e.lanes_below(self.lanes, e.int(left)));
        let mask_of = |vector: i64| mask.filter(|_| vector + 1 == n_vectors);
        let zero = e.vector(self.lanes).const_zero();
        let sums = vec![zero; (block.rows * n_vectors) as usize];
        let step = |image: PointerValue<'c>, other: PointerValue<'c>, sums: &mut Values<'c>| {
            let kind = e.vector(self.lanes);
            let load = |vector: i64| {
                let from = e.at(e.f32(), image, e.int(vector * lanes));
                match mask_of(vector) {
                    Some(mask) => e.masked_load(kind, from, mask),
                    None => e.load(kind, from, 4),
                }
            };
            let seen: Values<'c> = (0..n_vectors).map(load).collect();
            for row in 0..block.rows {
                let at = e.at(e.f32(), other, e.int(row * self.windows.rows.from));
                let factor = e.splat(e.load(e.f32(), at, 4), self.lanes);
                for (vector, &seen) in seen.iter().enumerate() {
                    let sum = &mut sums[row as usize * n_vectors as usize + vector];
                    *sum = e.fma(factor, seen, *sum);
                }
            }
        };
        let sums = self.steps(&self.windows.steps, (block.image, block.other), sums, &step);
        for (i, &sum) in sums.iter().enumerate() {
            let (row, vector) = (i as i64 / n_vectors, i as i64 % n_vectors);
            let at = row * self.windows.rows.to + vector * lanes;
            let to = e.at(e.f32(), block.out, e.int(at));
            match mask_of(vector) {
                Some(mask) => e.masked_store(sum, to, mask),
                None => e.store(sum, to, 4),
            }
        }
    }

    /// All steps of some summed dims, in order.
    fn steps(
        &self,
        axes: &[Axis],
        (image, other): (PointerValue<'c>, PointerValue<'c>),
        sums: Values<'c>,
        step: &dyn Fn(PointerValue<'c>, PointerValue<'c>, &mut Values<'c>),
    ) -> Values<'c> {
        let e = self.e;
        let Some((axis, rest)) = axes.split_first() else {
            let mut sums = sums;
            step(image, other, &mut sums);
            return sums;
        };
        let moved = |at: IntValue<'c>| {
            let image = e.at(e.f32(), image, e.mul(at, e.int(axis.from)));
            (image, e.at(e.f32(), other, e.mul(at, e.int(axis.to))))
        };
        if rest.is_empty() && axis.size <= UNROLLED {
            let all = 0..axis.size;
            return all.fold(sums, |sums, at| {
                self.steps(rest, moved(e.int(at)), sums, step)
            });
        }
        e.carry((e.int(0), e.int(axis.size), 1), sums, |at, sums| {
            self.steps(rest, moved(at), sums.to_vec(), step)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn tiles_fit_the_registers_and_cover_all_rows() {
        for (rows, n) in [(6, 28), (16, 10), (6, 14), (32, 224), (5, 9), (31, 33)] {
            let axis = |size, from, to| Axis { size, from, to };
            let windows = Windows {
                kind: Kind::Rows,
                inputs: [0, 1],
                starts: [0, 0],
                kept: vec![axis(n, 1, 1)],
                rows: axis(rows, 9, n),
                steps: vec![axis(9, 1, 1)],
            };
            for lanes in [1, 4, 8, 16] {
                let tile = Tile::of(&windows, lanes);
                let most = if lanes == 16 { 24 } else { 12 };
                assert!(tile.rows * tile.vectors <= most, "{tile:?}");
                assert!((1..=tile.rows).contains(&tile.last), "{tile:?}");
                assert_eq!((tile.blocks - 1) * tile.rows + tile.last, rows);
            }
        }
    }
}
