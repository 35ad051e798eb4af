//! The loops around kernels that count planes: rows of levels by signs.
//!
//! ```text
//! rows: u8[m, 4 + planes * bytes]  ->  (their planes' bytes four times, where the target wants that)  ->  out[m, 64] a panel
//! ```
//! A row of levels is some rows of bits, each of which is multiplied with the same signs: so a kernel takes all planes of some
//! rows, and the panel's bits are loaded once for all of them. Rows are taken in blocks whose bits stay in a cache while a thread goes
//! through a panel. Their scales are read from their bytes.
//!
//! What it deliberately does not do: telling signs of results from counts ([`super::after`]), for what is compared would be a sum
//! of counts; these are packed from numbers.

use std::ops::Range;

use super::code::{BLOCK, SignCode, rows_at_once};
use super::counts::{TABLES, splat};
use super::ir::Factor;
use super::planes::PlaneKernels;
use super::run::{MOST_ROWS, Rows, Run};
use crate::exec::pool;
use crate::op::planes::{SCALE_BYTES, scale_of_row};

impl SignCode {
    /// Bytes of all planes of a row, as kernels read them.
    fn line_bytes(&self, kernels: &PlaneKernels) -> usize {
        self.form.width() * kernels.planes().n() * self.product.matrix.row_bytes()
    }

    /// Rows of a block.
    pub(super) fn block_rows(kernels: &PlaneKernels) -> usize {
        BLOCK / kernels.planes().n()
    }

    /// Rows of planes that are repeated at once; all where none are.
    fn repeated_lines(&self, kernels: &PlaneKernels, m: usize) -> usize {
        match self.form.width() {
            1 => m.max(1),
            _ => rows_at_once((self.line_bytes(kernels), SignCode::block_rows(kernels)), m),
        }
    }

    /// Bytes of scratch memory for `m` rows of planes.
    pub(super) fn repeated_line_bytes(&self, kernels: &PlaneKernels, m: usize) -> usize {
        match self.form.width() {
            1 => 0,
            _ => self.repeated_lines(kernels, m) * self.line_bytes(kernels),
        }
    }
}

impl Run<'_> {
    /// The product with rows of planes.
    pub(super) fn by_planes(&self, kernels: &PlaneKernels) {
        let row_bytes = self.row_of_planes(kernels);
        let block = SignCode::block_rows(kernels);
        let round = self.code.repeated_lines(kernels, self.m);
        for first in (0..self.m).step_by(round) {
            let n = round.min(self.m - first);
            let (bits, step) = match self.code.form.width() {
                1 => (
                    self.x.wrapping_add(first * row_bytes + SCALE_BYTES),
                    row_bytes,
                ),
                _ => {
                    pool::for_each_range(self.work.n_threads, n, &|rows| {
                        self.repeat_planes(kernels, first, rows);
                    });
                    (self.scratch.cast_const(), self.code.line_bytes(kernels))
                }
            };
            let rows = Rows {
                first,
                bits,
                step,
                limits: None,
            };
            self.each_block((n, block), |panel, range| {
                self.planes_by_panel(kernels, panel, &rows, range);
            });
        }
    }

    /// Bytes from one row of planes to the next.
    fn row_of_planes(&self, kernels: &PlaneKernels) -> usize {
        kernels
            .planes()
            .row_bytes(self.code.product.matrix.columns())
    }

    /// Repeats the bytes of some rows behind row `first`, to the same place of the scratch memory.
    fn repeat_planes(&self, kernels: &PlaneKernels, first: usize, rows: Range<usize>) {
        let row_bytes = self.row_of_planes(kernels);
        let words = row_bytes - SCALE_BYTES;
        for row in rows {
            let from = (first + row) * row_bytes + SCALE_BYTES;
            // SAFETY: a row of x; words of the scratch memory that are this row's alone.
            unsafe {
                let from = std::slice::from_raw_parts(self.x.add(from), words);
                let to = self.scratch.add(4 * row * words);
                splat(from, std::slice::from_raw_parts_mut(to, 4 * words));
            }
        }
    }

    /// A panel by some rows of planes.
    fn planes_by_panel(
        &self,
        kernels: &PlaneKernels,
        panel: usize,
        rows: &Rows<'_>,
        range: Range<usize>,
    ) {
        let product = &self.code.product;
        let (bytes, columns) = (product.matrix.row_bytes(), product.matrix.columns());
        let mut at = range.start;
        while at < range.end {
            let (n, function) = kernels.for_rows(range.end - at);
            let row = rows.first + at;
            let a = rows.bits.wrapping_add(at * rows.step);
            let (sizes, ones) = (self.sizes_of_planes(kernels, row, n), [1.0; MOST_ROWS]);
            self.results(panel, (row, n), |out, step| {
                for (number, &base) in product.bases.iter().enumerate() {
                    let (scales, bits) = self.part(panel, base);
                    let is_last = number + 1 == product.bases.len();
                    let sizes = if is_last { &sizes } else { &ones };
                    // SAFETY: whole rows of planes, a panel's bits and scales, a size for each row, room for the results.
                    unsafe {
                        function(
                            bytes as i64,
                            a,
                            rows.step as i64,
                            bits,
                            out.cast(),
                            step as i64,
                            scales.cast(),
                            sizes.as_ptr().cast(),
                            columns as i64,
                            number as i64,
                            &TABLES,
                            columns as i64,
                        )
                    };
                }
            });
            at += n;
        }
    }

    /// What results of `n` rows from `row` on are multiplied by.
    fn sizes_of_planes(&self, kernels: &PlaneKernels, row: usize, n: usize) -> [f32; MOST_ROWS] {
        let is_scaled = matches!(
            self.code.product.factor,
            Factor::Planes { scaled: true, .. }
        );
        let row_bytes = self.row_of_planes(kernels);
        let mut sizes = [1.0; MOST_ROWS];
        for (i, size) in sizes.iter_mut().enumerate().take(n) {
            *size = match is_scaled {
                // SAFETY: each row of x begins with four bytes of its scale.
                true => unsafe {
                    let from = self.x.add((row + i) * row_bytes);
                    scale_of_row(std::slice::from_raw_parts(from, SCALE_BYTES))
                },
                false => self.size(row + i),
            };
        }
        sizes
    }
}
