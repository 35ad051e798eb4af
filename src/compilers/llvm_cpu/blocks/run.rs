//! The loops around kernels of products with block weights.

use std::ops::Range;

use smallvec::SmallVec;

use super::code::{BlockCode, Lookups};
use super::form::COLUMNS;
use super::lookup::PANELS;
use super::panel;
use super::tile::HIGHEST;

/// One call, as all threads see it.
pub(super) struct Run<'a> {
    pub(super) code: &'a BlockCode,
    pub(super) m: usize,
    pub(super) activations: *const f32,
    pub(super) panels: *const u8,
    pub(super) out: *mut f32,
    pub(super) records: *mut u8,
    /// Of rows whose products are looked up.
    pub(super) tables: *mut u8,
}

// SAFETY: operands are only read; each unit of work writes its own records or columns of the result.
unsafe impl Sync for Run<'_> {}

/// Weights to be packed, as all threads see them.
pub(super) struct Pack<'a> {
    pub(super) code: &'a BlockCode,
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
        let columns = COLUMNS.min(product.n - first);
        // SAFETY: rows of the weights; a panel that is this call's alone.
        let (rows, panel) = unsafe {
            let region = |(from, n)| std::slice::from_raw_parts_mut(self.panels.add(from), n);
            (
                std::slice::from_raw_parts(self.rows.add(first * bytes), columns * bytes),
                code.panel(at).map(region),
            )
        };
        panel::pack(product.ty, code.signed, rows, product.n_blocks(), panel);
    }
}

impl Run<'_> {
    fn record(&self, row: usize) -> *mut u8 {
        self.records.wrapping_add(row * self.code.record_bytes())
    }

    /// Rounds a row, and makes its tables if it needs them.
    pub(super) fn round(&self, row: usize) {
        let product = &self.code.product;
        let from = self.activations.wrapping_add(row * product.k);
        // SAFETY: row `row` of the activations, and its own record.
        unsafe { (self.code.round)(product.n_groups() as i64, from, self.record(row)) };
        if let Some(lookups) = self.code.lookups(self.m) {
            // SAFETY: the numbers lie at the record's beginning; the row's own tables.
            unsafe {
                (lookups.tables)(
                    product.n_groups() as i64,
                    self.record(row),
                    self.tables(row),
                )
            };
        }
    }

    fn tables(&self, row: usize) -> *mut u8 {
        self.tables.wrapping_add(row * self.code.table_bytes())
    }

    /// Some panels of weights, by all rows of activations: the next row finds a panel in a cache.
    fn look_up(&self, lookups: &Lookups, panels: Range<usize>) {
        let (code, product) = (self.code, &self.code.product);
        let mut at = panels.start;
        while at < panels.end {
            let mut kernels = PANELS.into_iter().zip(lookups.kernels);
            let fits = kernels.find(|(n, _)| *n <= panels.end - at);
            let (n, function) = fits.expect("there is a kernel for one panel");
            let region = |(from, _)| self.panels.wrapping_add(from);
            let [numbers, _, scales] = code.panel(at).map(region);
            let first = at * COLUMNS;
            let columns = (n * COLUMNS).min(product.n - first);
            for row in 0..self.m {
                let mut results = [0f32; PANELS[0] * COLUMNS];
                // SAFETY: so many panels of so many blocks, a row's record and its tables, room for the results.
                unsafe {
                    function(
                        product.n_blocks() as i64,
                        numbers,
                        scales,
                        self.record(row),
                        self.tables(row),
                        results.as_mut_ptr(),
                    )
                };
                let to = self.out.wrapping_add(row * product.n + first);
                // SAFETY: elements of the result that are these panels' alone.
                unsafe { std::ptr::copy_nonoverlapping(results.as_ptr(), to, columns) };
            }
            at += n;
        }
    }

    /// Some panels of weights, by all rows of activations.
    pub(super) fn panels(&self, panels: Range<usize>) {
        match self.code.lookups(self.m) {
            Some(lookups) => self.look_up(lookups, panels),
            None => panels.for_each(|at| self.panel(at)),
        }
    }

    /// A panel of weights, by all rows of activations.
    fn panel(&self, at: usize) {
        let (code, product) = (self.code, &self.code.product);
        let first = at * COLUMNS;
        let columns = COLUMNS.min(product.n - first);
        let region = |(from, _)| self.panels.wrapping_add(from);
        let [numbers, factors, scales] = code.panel(at).map(region);
        let mut row = 0;
        while row < self.m {
            let mut kernels = code.tiles.iter();
            let fits = kernels.find(|(rows, _)| *rows <= self.m - row);
            let (rows, function) = fits.expect("there is a kernel for one row");
            let records: SmallVec<[*const u8; HIGHEST]> = (row..row + rows)
                .map(|row| self.record(row).cast_const())
                .collect();
            let mut results = [0f32; HIGHEST * COLUMNS];
            // SAFETY: a panel of so many blocks, records of these rows, room for the results.
            unsafe {
                function(
                    product.n_blocks() as i64,
                    numbers,
                    factors,
                    scales,
                    records.as_ptr(),
                    results.as_mut_ptr(),
                )
            };
            for (i, results) in results.chunks_exact(COLUMNS).take(*rows).enumerate() {
                let to = self.out.wrapping_add((row + i) * product.n + first);
                // SAFETY: elements of the result that are this panel's alone.
                unsafe { std::ptr::copy_nonoverlapping(results.as_ptr(), to, columns) };
            }
            row += rows;
        }
    }
}
