//! Rows of bytes as lanes, and the loops around [`super::sums`].
//!
//! For each 32 rows of x: their 8-bit numbers, turned so that rows are lanes. Then for each of these blocks and each [`PANELS`] of
//! the matrix, one unit of work: 64 columns after 64 columns tables of sums, and for each panel the sums that its bits
//! choose. At last results are scaled, and what is to be done by columns is done to 32 rows at a time.

use super::code::{Sums, TURNED};
use super::run::Run;
use super::sums::{BYTES, ROWS, STEPS, TABLES};
use super::tables::quantized;
use super::turned::COLUMNS;
use crate::blocks::PANEL_ROWS;
use crate::exec::pool;

/// Panels that use a table as long as it is there.
const PANELS: usize = 8;

/// Working memory of a unit.
#[repr(C, align(64))]
struct Space {
    tables: [[i16; ROWS]; TABLES],
    sums: [[[i16; ROWS]; PANEL_ROWS]; PANELS],
    wide: [[[i32; ROWS]; PANEL_ROWS]; PANELS],
}

impl Run<'_> {
    /// Bytes of a block's numbers.
    fn lane_bytes(&self) -> usize {
        2 * ROWS * 8 * self.code.product.matrix.row_bytes()
    }

    /// The numbers of a block `i16[k, 32]`, and the scales of its rows.
    fn block(&self, at: usize) -> (*mut i16, *mut f32) {
        let start = self.scratch.wrapping_add(at * self.code.turned_bytes());
        (start.cast(), start.wrapping_add(self.lane_bytes()).cast())
    }

    /// The product with the first `rows` rows of bytes.
    pub(super) fn by_lanes(&self, rows: usize) {
        let Some(sums) = self.code.sums else { return };
        let n_threads = self.work.n_threads;
        let groups = self.code.product.matrix.panels().div_ceil(PANELS);
        for first in (0..rows).step_by(TURNED * ROWS) {
            let blocks = (rows - first).div_ceil(ROWS).min(TURNED);
            let rows_of = |block: usize| {
                let row = first + block * ROWS;
                (row, ROWS.min(rows - row))
            };
            pool::for_each_range(n_threads, blocks, &|some| {
                some.for_each(|block| self.turn(&sums, block, rows_of(block)));
            });
            pool::for_each_range(n_threads, blocks * groups, &|units| {
                units.for_each(|unit| {
                    let block = unit / groups;
                    self.group(&sums, unit % groups * PANELS, (block, rows_of(block)));
                });
            });
        }
    }

    /// Rounds `n` rows from row `row` on, and turns them to lanes. Other lanes are those of the last row; columns that are not there
    /// are 0.
    fn turn(&self, sums: &Sums, block: usize, (row, n): (usize, usize)) {
        let (to, scales) = self.block(block);
        let columns = self.code.product.matrix.columns();
        // SAFETY: the block's own memory, aligned to 64 bytes; rows of x that are there.
        unsafe {
            if !columns.is_multiple_of(8) {
                // Some columns of the last byte are not there.
                to.add(columns / 8 * 8 * ROWS).write_bytes(0, 8 * ROWS);
            }
            let x: [_; ROWS] = std::array::from_fn(|i| self.row(row + i.min(n - 1)));
            let (mut found, mut factors) = ((0.0, 0.0), [0.0; ROWS]);
            for (i, x) in x.iter().enumerate() {
                if i < n {
                    found = self.code.builder.scale(x);
                }
                factors[i] = found.1;
                scales.add(i).write(found.0);
            }
            let starts = x.each_ref().map(|x| x.as_ptr());
            let whole = columns / COLUMNS * COLUMNS;
            (sums.turn)(
                (whole / COLUMNS) as i64,
                starts.as_ptr(),
                factors.as_ptr(),
                to,
            );
            for (i, x) in x.iter().enumerate() {
                let mut numbers = [0; COLUMNS];
                quantized(&x[whole..], factors[i], &mut numbers);
                for (k, number) in (whole..columns).zip(numbers) {
                    to.add(k * ROWS + i).write(number);
                }
            }
        }
    }

    /// Panels from `panel` on by a block of rows.
    fn group(&self, sums: &Sums, panel: usize, (block, rows): (usize, (usize, usize))) {
        let matrix = self.code.product.matrix;
        let panels = PANELS.min(matrix.panels() - panel);
        let (q, scales) = self.block(block);
        let mut space = std::mem::MaybeUninit::<Space>::uninit();
        // SAFETY: zeros are numbers; the sums of the panels that there are.
        let space = unsafe {
            let at = space.as_mut_ptr();
            (&raw mut (*at).sums)
                .cast::<[[i16; ROWS]; PANEL_ROWS]>()
                .write_bytes(0, panels);
            (&raw mut (*at).wide)
                .cast::<[[i32; ROWS]; PANEL_ROWS]>()
                .write_bytes(0, panels);
            at
        };
        let bytes = matrix.row_bytes();
        for (step, start) in (0..bytes).step_by(BYTES).enumerate() {
            let n = BYTES.min(bytes - start);
            let is_wide = step % STEPS == STEPS - 1 || start + n == bytes;
            let add = if is_wide { sums.add_wide } else { sums.add };
            // SAFETY: `n` bytes of columns have 8 n numbers, which have 2 n tables; a panel's bits from these columns on; its
            // sums.
            unsafe {
                let tables = (&raw mut (*space).tables).cast::<i16>();
                (sums.tables)(2 * n as i64, q.add(start * 8 * ROWS), tables);
                for i in 0..panels {
                    let (_, bits) = self.part(panel + i, self.code.product.bases[0]);
                    let bits = bits.add(start * PANEL_ROWS);
                    let narrow = (&raw mut (*space).sums[i]).cast();
                    add(
                        n as i64,
                        bits,
                        tables,
                        narrow,
                        (&raw mut (*space).wide[i]).cast(),
                    );
                }
            }
        }
        for i in 0..panels {
            // SAFETY: they were set to 0 at least; so many scales.
            unsafe {
                let wide = &raw mut (*space).wide[i];
                self.lane_results(sums, panel + i, (wide.cast(), scales), rows);
            }
        }
    }

    /// Stores what a panel's sums are to become.
    ///
    /// # Safety
    /// The sums of 64 columns, aligned to 64 bytes, which are written over, and the scales of lanes.
    unsafe fn lane_results(
        &self,
        functions: &Sums,
        panel: usize,
        (sums, scales): (*mut i32, *const f32),
        (row, n): (usize, usize),
    ) {
        let columns = self.columns(panel);
        let sizes: [f32; ROWS] = std::array::from_fn(|i| self.size(row + i.min(n - 1)));
        let (by_column, _) = self.part(panel, self.code.product.bases[0]);
        let steps = self.steps();
        // SAFETY: the caller's; operands with a number for every column.
        let results = unsafe {
            (functions.results)(
                columns.1 as i64,
                sums,
                scales,
                by_column,
                sizes.as_ptr(),
                steps.len() as i64,
                steps.as_ptr(),
                columns.0 as i64,
            );
            &*sums.cast::<[[f32; ROWS]; PANEL_ROWS]>()
        };
        if !self.code.product.packed {
            let mut of_row = [0.0; PANEL_ROWS];
            for (row, lane) in (row..row + n).zip(0..) {
                for (y, column) in of_row.iter_mut().zip(results) {
                    *y = column[lane];
                }
                self.store((row, columns.0), &of_row[..columns.1]);
            }
            return;
        }
        let mut masks = [0u32; PANEL_ROWS];
        // SAFETY: as many words as there are columns, of 32 numbers each.
        unsafe {
            let from = results.as_ptr().cast();
            (self.code.pack)(columns.1 as i64, from, masks.as_mut_ptr().cast());
        }
        let (low, high) = masks.split_at_mut(ROWS);
        for half in [&mut *low, &mut *high] {
            turn_bits(half.try_into().expect("half of 64"));
        }
        for i in 0..n {
            let word = u64::from(low[i]) | u64::from(high[i]) << 32;
            self.store_word(row + i, columns, word);
        }
    }
}

/// Exchanges rows and columns of 32 rows of 32 bits (Warren 2002, figure 7-6): halves of blocks, of their quarters, ...
fn turn_bits(rows: &mut [u32; 32]) {
    let (mut width, mut mask) = (16, 0x0000_ffffu32);
    while width > 0 {
        for i in (0..32).filter(|i| i & width == 0) {
            let other = (rows[i] >> width ^ rows[i + width]) & mask;
            rows[i] ^= other << width;
            rows[i + width] ^= other;
        }
        width /= 2;
        mask ^= mask << width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_turned() {
        let mut rows: [u32; 32] = std::array::from_fn(|i| (i as u32 + 1).wrapping_mul(0x9e37_79b9));
        let before = rows;
        turn_bits(&mut rows);
        for (i, row) in rows.iter().enumerate() {
            for (j, other) in before.iter().enumerate() {
                assert_eq!(row >> j & 1, other >> i & 1, "{i} {j}");
            }
        }
    }
}
