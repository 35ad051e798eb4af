//! The loops around kernels of products with block weights.

use std::ops::Range;

use super::code::{BlockCode, Lookups};
use super::form::COLUMNS;
use super::ir::{Part, Place};
use super::lookup::PANELS;
use super::panel;
use super::tile::{HIGHEST, TileFn};

/// Bytes of panels that stay in the second cache while rows of activations pass.
const STAYING: usize = 256 << 10;

/// One call, as all threads see it.
pub(super) struct Run<'a> {
    pub(super) code: &'a BlockCode,
    pub(super) m: usize,
    pub(super) activations: *const f32,
    /// Of each part.
    pub(super) panels: &'a [*mut u8],
    pub(super) out: *mut f32,
    /// All rows' records; of each thread, where products are looked up, all rows' records and tables.
    pub(super) scratch: *mut u8,
}

// SAFETY: operands are only read; each unit of work writes its own records or columns of the result, each thread its own
// records and tables.
unsafe impl Sync for Run<'_> {}

/// Weights to be packed, as all threads see them.
pub(super) struct Pack<'a> {
    pub(super) code: &'a BlockCode,
    pub(super) part: Part,
    pub(super) rows: *const u8,
    pub(super) panels: *mut u8,
}

// SAFETY: rows are only read; each panel is written by one thread.
unsafe impl Sync for Pack<'_> {}

impl Pack<'_> {
    /// Lays a panel out.
    pub(super) fn panel(&self, at: usize) {
        let (code, product) = (self.code, &self.code.product);
        let bytes = product.row_bytes();
        let first = at * COLUMNS;
        let columns = COLUMNS.min(self.part.n - first);
        // SAFETY: rows of the weights; a panel that is this call's alone.
        let (rows, panel) = unsafe {
            let region = |(from, n)| std::slice::from_raw_parts_mut(self.panels.add(from), n);
            (
                std::slice::from_raw_parts(self.rows.add(first * bytes), columns * bytes),
                code.panel(&self.part, at).map(region),
            )
        };
        panel::pack(product.ty, code.signed, rows, product.n_blocks(), panel);
    }
}

impl Run<'_> {
    /// The regions of a panel.
    fn regions(&self, place: &Place) -> [*const u8; 3] {
        let panels = self.panels[place.number].cast_const();
        let regions = self.code.panel(&place.part, place.at);
        regions.map(|(from, _)| panels.wrapping_add(from))
    }

    fn record(&self, row: usize) -> *mut u8 {
        self.scratch.wrapping_add(row * self.code.record_bytes())
    }

    /// Rounds a row.
    pub(super) fn round(&self, row: usize) {
        self.round_to(row, self.record(row));
    }

    /// Rounds a row into a record that is the caller's alone.
    fn round_to(&self, row: usize, record: *mut u8) {
        let product = &self.code.product;
        let from = self.activations.wrapping_add(row * product.k);
        // SAFETY: row `row` of the activations, and room for a record.
        unsafe { (self.code.round)(product.n_groups() as i64, from, record) };
    }

    /// A thread's record of a row, and the tables behind it.
    fn looked_up(&self, thread: usize, row: usize) -> [*mut u8; 2] {
        let code = self.code;
        let from = thread * code.looked_up_bytes(self.m) + row * code.looked_up_row();
        [from, from + code.record_bytes()].map(|at| self.scratch.wrapping_add(at))
    }

    /// Makes a thread's own tables of a row: they are in its cache then, and nobody waits for another thread's.
    pub(super) fn make_tables(&self, lookups: &Lookups, thread: usize, row: usize) {
        let [record, tables] = self.looked_up(thread, row);
        self.round_to(row, record);
        let n_groups = self.code.product.n_groups() as i64;
        // SAFETY: the numbers lie at the record's beginning; room for the tables of a row.
        unsafe { (lookups.tables)(n_groups, record, tables) };
    }

    /// Some panels of weights, by all rows of activations: the next row finds a panel in a cache.
    pub(super) fn look_up(&self, lookups: &Lookups, thread: usize, panels: Range<usize>) {
        let product = &self.code.product;
        let mut at = panels.start;
        while at < panels.end {
            let place = product.place(at);
            let mut kernels = PANELS.into_iter().zip(lookups.kernels);
            let fits = kernels.find(|(n, _)| *n <= place.left.min(panels.end - at));
            let (n, function) = fits.expect("there is a kernel for one panel");
            let [numbers, _, scales] = self.regions(&place);
            for row in 0..self.m {
                let [record, tables] = self.looked_up(thread, row);
                let mut results = [0f32; PANELS[0] * COLUMNS];
                // SAFETY: so many panels of so many blocks, a row's record and its tables, room for the results.
                unsafe {
                    function(
                        product.n_blocks() as i64,
                        numbers,
                        scales,
                        record,
                        tables,
                        results.as_mut_ptr(),
                    )
                };
                let to = self.out.wrapping_add(row * product.n() + place.column);
                // SAFETY: elements of the result that are these panels' alone.
                unsafe { std::ptr::copy_nonoverlapping(results.as_ptr(), to, place.columns(n)) };
            }
            at += n;
        }
    }

    /// Some panels of weights, by all rows of activations: some rows by all panels that fit a cache, then the next rows.
    pub(super) fn multiply(&self, panels: Range<usize>) {
        let fitting = (STAYING / self.code.panel_bytes()).max(1);
        for first in panels.clone().step_by(fitting) {
            let near = first..(first + fitting).min(panels.end);
            let mut row = 0;
            while row < self.m {
                let mut kernels = self.code.tiles.iter();
                let fits = kernels.find(|(rows, _)| *rows <= self.m - row);
                let (rows, function) = fits.expect("there is a kernel for one row");
                near.clone()
                    .for_each(|at| self.tile(at, row..row + rows, *function));
                row += rows;
            }
        }
    }

    /// A panel of weights by some rows of activations, as many as a kernel takes.
    fn tile(&self, at: usize, rows: Range<usize>, function: TileFn) {
        let (code, product) = (self.code, &self.code.product);
        let (place, width) = (product.place(at), product.n());
        let [numbers, factors, scales] = self.regions(&place);
        let records = self.record(rows.start).cast_const();
        let (n_blocks, each) = (product.n_blocks() as i64, code.record_bytes() as i64);
        // SAFETY: a panel of so many blocks and records of these rows; below is room for what they give.
        let multiply = |out, width: usize| unsafe {
            let width = width as i64;
            function(
                n_blocks, numbers, factors, scales, records, each, out, width,
            );
        };
        let to = self.out.wrapping_add(rows.start * width + place.column);
        let columns = place.columns(1);
        if columns == COLUMNS {
            return multiply(to, width);
        }
        let mut results = [[0f32; COLUMNS]; HIGHEST];
        multiply(results.as_mut_ptr().cast(), COLUMNS);
        for (i, results) in results[..rows.len()].iter().enumerate() {
            // SAFETY: elements of the result that are this panel's alone.
            unsafe {
                std::ptr::copy_nonoverlapping(results.as_ptr(), to.wrapping_add(i * width), columns)
            };
        }
    }
}
