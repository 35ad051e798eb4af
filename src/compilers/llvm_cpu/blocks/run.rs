//! The loops around kernels of products with block weights.

use std::ops::Range;

use super::code::BlockCode;
use super::compiled::Lookups;
use super::form::COLUMNS;
use super::ir::{Part, Place};
use super::lookup::{LookupFn, PANELS};
use super::panel;
use super::tile::{HIGHEST, TileFn};

/// Bytes of panels that stay in the second cache while rows of activations pass.
const STAYING: usize = 256 << 10;

/// One call, as all threads see it.
pub(super) struct Run<'a> {
    pub(super) code: &'a BlockCode,
    pub(super) m: usize,
    pub(super) activations: *const f32,
    /// The buffers of all operands; weights are among them.
    pub(super) operands: &'a [*mut u8],
    /// Of each part; null where none are kept.
    pub(super) panels: &'a [*mut u8],
    pub(super) out: *mut f32,
    /// Each thread's room for panels that are not kept.
    pub(super) rooms: *mut u8,
    /// All rows' records; of each thread, where products are looked up, all rows' records and tables.
    pub(super) scratch: *mut u8,
}

// SAFETY: operands are only read; each unit of work writes its own records or columns of the result, each thread its own
// panels, records and tables.
unsafe impl Sync for Run<'_> {}

/// Weights to be packed, as all threads see them.
pub(super) struct Pack<'a> {
    pub(super) code: &'a BlockCode,
    pub(super) part: Part,
    pub(super) rows: *const u8,
    pub(super) panels: *mut u8,
    /// For how many panels there is room.
    pub(super) n_panels: usize,
}

// SAFETY: rows are only read; each panel is written by one thread.
unsafe impl Sync for Pack<'_> {}

impl Pack<'_> {
    /// Lays a panel of the part out as panel `to` of the room.
    pub(super) fn panel(&self, at: usize, to: usize) {
        let (code, product) = (self.code, &self.code.product);
        let (bytes, n_blocks) = (product.row_bytes(), product.n_blocks());
        let first = at * COLUMNS;
        let left = self.part.n - first;
        let rows = |first: usize| self.rows.wrapping_add(first * bytes);
        let starts = code.panel(self.n_panels, to);
        let [numbers, _, scales] = starts.map(|start| self.panels.wrapping_add(start));
        if let Some(turn) = code.functions.turn
            && left >= COLUMNS
        {
            let following = if left < 2 * COLUMNS { 0 } else { COLUMNS };
            let (from, next) = (rows(first), rows(first + following));
            // SAFETY: rows of the weights, as many as a panel has; a panel that is this call's alone.
            unsafe { turn(n_blocks as i64, from, bytes as i64, next, numbers, scales) };
            return;
        }
        let sizes = code.form.panel_bytes(n_blocks);
        // SAFETY: as above, as many rows as there are.
        let (rows, panel) = unsafe {
            let region = |i: usize| {
                std::slice::from_raw_parts_mut(self.panels.wrapping_add(starts[i]), sizes[i])
            };
            (
                std::slice::from_raw_parts(rows(first), left.min(COLUMNS) * bytes),
                [0, 1, 2].map(region),
            )
        };
        panel::pack(product.ty, rows, n_blocks, panel);
    }
}

impl Run<'_> {
    /// Whether panels of some part are not kept.
    fn waits(&self) -> bool {
        self.panels.iter().any(|panels| panels.is_null())
    }

    /// A thread's room for panels.
    fn room(&self, thread: usize) -> *mut u8 {
        self.rooms.wrapping_add(thread * self.code.room_bytes())
    }

    /// Lays some panels out in a thread's room, unless they are kept.
    fn provide(&self, thread: usize, place: &Place, n: usize) {
        if !self.panels[place.number].is_null() {
            return;
        }
        let pack = Pack {
            code: self.code,
            part: place.part,
            rows: self.operands[place.part.weights],
            panels: self.room(thread),
            n_panels: self.code.room(),
        };
        (0..n).for_each(|i| pack.panel(place.at + i, i));
    }

    /// The regions of a panel, which is kept or the first in a thread's room.
    fn regions(&self, thread: usize, place: &Place) -> [*const u8; 3] {
        let (panels, starts) = match self.panels[place.number] {
            none if none.is_null() => (self.room(thread), self.code.panel(self.code.room(), 0)),
            kept => (kept, self.code.panel(place.part.n_panels(), place.at)),
        };
        starts.map(|start| panels.wrapping_add(start).cast_const())
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
        unsafe { (self.code.functions.round)(product.n_groups() as i64, from, record) };
    }

    /// A thread's record of a row, and the tables behind it.
    fn looked_up(&self, thread: usize, row: usize) -> [*mut u8; 2] {
        let code = self.code;
        let from = thread * code.looked_up_bytes(self.m) + row * code.looked_up_row();
        [from, from + code.record_bytes()].map(|at| self.scratch.wrapping_add(at))
    }

    /// Makes a thread's own tables of some rows: they are in its cache then, and nobody waits for another thread's.
    pub(super) fn make_tables(&self, lookups: &Lookups, thread: usize, rows: Range<usize>) {
        let n_groups = self.code.product.n_groups() as i64;
        for (i, row) in rows.enumerate() {
            let [record, tables] = self.looked_up(thread, i);
            self.round_to(row, record);
            // SAFETY: the numbers lie at the record's beginning; room for the tables of a row.
            unsafe { (lookups.tables)(n_groups, record, tables) };
        }
    }

    /// Some panels of weights, by some rows of activations: the next rows find a panel in a cache.
    pub(super) fn look_up(
        &self,
        lookups: &Lookups,
        thread: usize,
        (rows, panels): (Range<usize>, Range<usize>),
    ) {
        let mut at = panels.start;
        while at < panels.end {
            let place = self.code.product.place(at);
            let n = PANELS.min(place.left).min(panels.end - at);
            self.provide(thread, &place, n);
            let regions = self.regions(thread, &place);
            let mut i = 0;
            while i < rows.len() {
                let height = 2.min(rows.len() - i);
                let row = (rows.start + i, self.looked_up(thread, i));
                let mut done = 0;
                while done < n {
                    let mut kernels = lookups.kernels.iter();
                    let fits = |((rows, panels), _): &&((usize, usize), LookupFn)| {
                        *rows == height && *panels <= n - done
                    };
                    let (size, function) = kernels.find(fits).expect("one takes one panel");
                    self.look_up_some((&place, regions), row, (done, *size), *function);
                    done += size.1;
                }
                i += height;
            }
            at += n;
        }
    }

    /// As many rows and panels as a kernel takes, so many panels behind a place.
    fn look_up_some(
        &self,
        (place, regions): (&Place, [*const u8; 3]),
        (row, [record, tables]): (usize, [*mut u8; 2]),
        (before, (height, n)): (usize, (usize, usize)),
        function: LookupFn,
    ) {
        let (code, product) = (self.code, &self.code.product);
        let bytes = code.form.panel_bytes(product.n_blocks());
        let [numbers, _, scales] =
            std::array::from_fn(|i| regions[i].wrapping_add(before * bytes[i]));
        let each = code.looked_up_row() as i64;
        // SAFETY: so many panels of so many blocks, rows' records and their tables; below is room for the results.
        let look_up = |out, width: usize| unsafe {
            let (n_blocks, width) = (product.n_blocks() as i64, width as i64);
            function(n_blocks, numbers, scales, record, tables, each, out, width);
        };
        let column = place.column + before * COLUMNS;
        let to = self.out.wrapping_add(row * product.n() + column);
        let columns = (place.columns(before + n)) - before * COLUMNS;
        if columns == n * COLUMNS {
            return look_up(to, product.n());
        }
        let mut results = [[0f32; PANELS * COLUMNS]; 2];
        look_up(results.as_mut_ptr().cast(), PANELS * COLUMNS);
        for (i, results) in results[..height].iter().enumerate() {
            let to = to.wrapping_add(i * product.n());
            // SAFETY: elements of the result that are these panels' alone.
            unsafe { std::ptr::copy_nonoverlapping(results.as_ptr(), to, columns) };
        }
    }

    /// Some panels of weights, by all rows of activations: some rows by all panels that fit a cache, then the next rows.
    pub(super) fn multiply(&self, thread: usize, panels: Range<usize>) {
        let fitting = match self.waits() {
            true => 1,
            false => (STAYING / self.code.panel_bytes()).max(1),
        };
        for first in panels.clone().step_by(fitting) {
            let near = first..(first + fitting).min(panels.end);
            self.provide(thread, &self.code.product.place(first), 1);
            let mut row = 0;
            while row < self.m {
                let mut kernels = self.code.functions.tiles.iter();
                let fits = kernels.find(|(rows, _)| *rows <= self.m - row);
                let (rows, function) = fits.expect("there is a kernel for one row");
                near.clone()
                    .for_each(|at| self.tile((thread, at), row..row + rows, *function));
                row += rows;
            }
        }
    }

    /// A panel of weights by some rows of activations, as many as a kernel takes.
    fn tile(&self, (thread, at): (usize, usize), rows: Range<usize>, function: TileFn) {
        let (code, product) = (self.code, &self.code.product);
        let (place, width) = (product.place(at), product.n());
        let [numbers, factors, scales] = self.regions(thread, &place);
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
