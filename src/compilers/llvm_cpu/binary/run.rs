//! The loops around kernels of products of signs.

use std::borrow::Cow;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::after::{After, Limits, Operands};
use super::by_rows;
use super::code::{BLOCK, SignCode, TABLED};
use super::counts::{TABLES, splat};
use super::finish::Step;
use super::tables::RowFacts;
use crate::blocks::PANEL_ROWS;
use crate::exec::pool;
use crate::op::{KernelCall, NativeCode, Work};

/// The most rows of a kernel.
pub(super) const MOST_ROWS: usize = 8;

/// Scales and sizes of rows where there are none.
static ONES: [f32; PANEL_ROWS] = [1.0; PANEL_ROWS];

/// One call, as all threads see it.
pub(super) struct Run<'a> {
    pub(super) code: &'a SignCode,
    pub(super) work: Work,
    pub(super) m: usize,
    pub(super) x: *const u8,
    /// The numbers of the axes of windows.
    sizes_of_rows: &'a [i64],
    signs: *const u8,
    sizes: Option<*const f32>,
    /// What is multiplied or added by columns.
    after: Operands,
    out: *mut f32,
    /// Of rows of bits: these repeated, and limits. Of rows of bytes: facts of some rows, then their tables; or numbers as
    /// lanes.
    pub(super) scratch: *mut u8,
}

// SAFETY: operands are only read; each unit of work writes its own part of the scratch memory or of the result.
unsafe impl Sync for Run<'_> {}

/// Numbers as a slice; a copy where they lie between the places of numbers, which memory of another owner may.
///
/// # Safety
/// There are `n` numbers at `x` as long as the result lives.
pub(super) unsafe fn floats<'a>(x: *const f32, n: usize) -> Cow<'a, [f32]> {
    // SAFETY: the caller's promise; bytes are read where numbers cannot be.
    unsafe {
        match x.is_aligned() {
            true => Cow::Borrowed(std::slice::from_raw_parts(x, n)),
            false => (0..n).map(|i| x.add(i).read_unaligned()).collect(),
        }
    }
}

/// Some rows of bits, or of planes.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The first.
    pub(super) first: usize,
    /// Their bits as kernels read them, and bytes from one to the next.
    pub(super) bits: *const u8,
    pub(super) step: usize,
    /// For bits of results.
    pub(super) limits: Option<&'a [Limits]>,
}

// SAFETY: what it points to is only read.
unsafe impl Sync for Rows<'_> {}

impl<'a> Run<'a> {
    pub(super) fn new(code: &'a SignCode, call: &KernelCall<'a>) -> Run<'a> {
        let product = &code.product;
        let buffer = |at: usize| call.buffers[at].cast_const();
        // Behind the result is what is packed.
        let out = call.buffers.len() - 1 - code.packings().len();
        let signs = match product.windows {
            Some(_) => out + 1,
            None => product.signs,
        };
        let after = product.after.iter();
        Run {
            code,
            work: call.work,
            m: call.params[0].max(0) as usize,
            x: buffer(product.x),
            sizes_of_rows: &call.params[1..],
            signs: buffer(signs),
            sizes: product.sizes.map(|at| buffer(at).cast()),
            after: after
                .map(|&(op, at)| Step::new(op, buffer(at).cast()))
                .collect(),
            out: call.buffers[out].cast(),
            scratch: call.scratch,
        }
    }

    /// The product with rows of bits.
    pub(super) fn by_signs(&self) {
        let n_threads = self.work.n_threads;
        let limits = match self.code.has_limits(self.m) {
            true => self.limits(),
            false => None,
        };
        let bytes = self.code.product.row_bytes();
        let width = self.code.form.width();
        let round = self.code.repeated_rows(self.m);
        for first in (0..self.m).step_by(round) {
            let n = round.min(self.m - first);
            let bits = match self.code.reads_rows() {
                true => self.x.wrapping_add(first * bytes),
                false => {
                    pool::for_each_range(n_threads, n.div_ceil(BLOCK), &|blocks| {
                        let (start, end) = (blocks.start * BLOCK, n.min(blocks.end * BLOCK));
                        self.repeat(first + start, start, end - start);
                    });
                    self.scratch.cast_const()
                }
            };
            let rows = Rows {
                first,
                bits,
                step: width * bytes,
                limits,
            };
            self.each_block((n, BLOCK), |panel, range| self.counts(panel, &rows, range));
        }
    }

    /// Has every panel multiplied by every block of `n` rows. Neighbouring units have the panel in common.
    pub(super) fn each_block(
        &self,
        (n, block): (usize, usize),
        work: impl Fn(usize, Range<usize>) + Sync,
    ) {
        let (blocks, panels) = (n.div_ceil(block), self.code.product.matrix.panels());
        pool::for_each_range(self.work.n_threads, panels * blocks, &|units| {
            units.for_each(|unit| {
                let start = unit % blocks * block;
                work(unit / blocks, start..n.min(start + block));
            });
        });
    }

    /// Writes the bytes of `n` rows from row `row` on as kernels read them, to where rows from `to` on are.
    fn repeat(&self, row: usize, to: usize, n: usize) {
        let (product, width) = (&self.code.product, self.code.form.width());
        let bytes = product.row_bytes();
        // SAFETY: room in the scratch memory that is this piece's alone.
        let mut to = unsafe {
            let to = self.scratch.add(to * bytes * width);
            std::slice::from_raw_parts_mut(to, n * bytes * width)
        };
        let mut write = |from: &[u8]| {
            let (here, rest) = std::mem::take(&mut to).split_at_mut(from.len() * width);
            match width {
                1 => here.copy_from_slice(from),
                _ => splat(from, here),
            }
            to = rest;
        };
        // SAFETY: rows of x.
        unsafe {
            match &product.windows {
                Some(windows) => {
                    windows.for_each_run(self.x, self.sizes_of_rows, row..row + n, write);
                }
                None => write(std::slice::from_raw_parts(
                    self.x.add(row * bytes),
                    n * bytes,
                )),
            }
        }
    }

    /// The limits of all panels, if all columns have one.
    fn limits(&self) -> Option<&[Limits]> {
        let matrix = self.code.product.matrix;
        let all = AtomicBool::new(true);
        pool::for_each_range(self.work.n_threads, matrix.panels(), &|mut panels| {
            let found = panels.all(|panel| {
                let limits = self.after(panel).limits(matrix.columns());
                // SAFETY: there is room for the limits of every panel; this one's are written by nobody else.
                limits.is_some_and(|limits| unsafe {
                    self.limits_start().add(panel).write(limits);
                    true
                })
            });
            if !found {
                all.store(false, Ordering::Relaxed);
            }
        });
        // SAFETY: all of them were written, and nobody writes there again.
        let limits = || unsafe { std::slice::from_raw_parts(self.limits_start(), matrix.panels()) };
        all.into_inner().then(limits)
    }

    /// Where limits are kept.
    fn limits_start(&self) -> *mut Limits {
        let at = self.code.repeated_bytes(self.m);
        self.scratch.wrapping_add(at).cast()
    }

    /// What is done to the results of a panel.
    fn after(&self, panel: usize) -> After {
        let base = self.code.product.bases[0];
        let (first, columns) = self.columns(panel);
        // SAFETY: 64 scales, and operands with a number for every column.
        unsafe { After::new(self.part(panel, base).0, &self.after, (first, columns)) }
    }

    /// The first column of the result that a panel makes, and how many.
    pub(super) fn columns(&self, panel: usize) -> (usize, usize) {
        let first = panel * PANEL_ROWS;
        let n = self.code.product.matrix.rows();
        (first, PANEL_ROWS.min(n - first))
    }

    /// Scales and bits of one base of a panel.
    pub(super) fn part(&self, panel: usize, base: usize) -> (*const f32, *const u8) {
        let product = &self.code.product;
        let at = (panel * product.matrix.bases() + base) * product.base_bytes();
        let start = self.signs.wrapping_add(at);
        let scales = match self.code.product.scaled {
            true => start.cast(),
            false => ONES.as_ptr(),
        };
        (scales, start.wrapping_add(4 * PANEL_ROWS))
    }

    fn sizes(&self, row: usize) -> *const f32 {
        match self.sizes {
            Some(sizes) => sizes.wrapping_add(row),
            None => ONES.as_ptr(),
        }
    }

    /// The size of a row.
    pub(super) fn size(&self, row: usize) -> f32 {
        match self.sizes {
            // SAFETY: there is one for every row, which may lie anywhere.
            Some(sizes) => unsafe { sizes.add(row).read_unaligned() },
            None => 1.0,
        }
    }

    /// Has `rows` rows of a panel's results from row `row` on written by `write`, which gets an address and the numbers from
    /// one row to the next, and finishes them.
    pub(super) fn results(
        &self,
        panel: usize,
        (row, rows): (usize, usize),
        write: impl Fn(*mut f32, usize),
    ) {
        let product = &self.code.product;
        let n = product.matrix.rows();
        let (first, columns) = self.columns(panel);
        let is_plain = !product.packed && self.after.is_empty();
        if columns == PANEL_ROWS && is_plain {
            return write(self.out.wrapping_add(row * n + first), n);
        }
        let mut results = MaybeUninit::<[[f32; PANEL_ROWS]; MOST_ROWS]>::uninit();
        let results: *mut f32 = results.as_mut_ptr().cast();
        write(results, PANEL_ROWS);
        for i in 0..rows {
            // SAFETY: `write` wrote 64 numbers of each row.
            unsafe { self.finish((panel, row + i), results.add(i * PANEL_ROWS)) };
        }
    }

    /// Stores what a panel's results for a row become.
    ///
    /// # Safety
    /// There are 64 results.
    unsafe fn finish(&self, (panel, row): (usize, usize), results: *const f32) {
        let (first, columns) = self.columns(panel);
        let is_packed = self.code.product.packed;
        let call = |out: *mut u8| {
            let function = self.code.finish[usize::from(is_packed)];
            let (n, steps) = (self.after.len() as i64, self.after.as_ptr());
            // SAFETY: 64 results; operands with a number for every column; room for the columns that there are, or a word.
            unsafe { function(columns as i64, results, n, steps, first as i64, out) };
        };
        if is_packed {
            let mut word = 0u64;
            call((&raw mut word).cast());
            return self.store_word(row, (first, columns), word);
        }
        let n = self.code.product.matrix.rows();
        call(self.out.wrapping_add(row * n + first).cast());
    }

    /// What is done by columns.
    pub(super) fn steps(&self) -> &[Step] {
        &self.after
    }

    /// Stores a row's numbers of columns from `first` on.
    pub(super) fn store(&self, (row, first): (usize, usize), results: &[f32]) {
        let n = self.code.product.matrix.rows();
        let out = self.out.wrapping_add(row * n + first);
        // SAFETY: elements of the result that are this unit's alone.
        unsafe { out.copy_from_nonoverlapping(results.as_ptr(), results.len()) };
    }

    /// Where the bits of a row from column `first`, a multiple of 64, on are stored.
    fn bits(&self, row: usize, first: usize) -> *mut u8 {
        let bytes = self.code.product.matrix.rows().div_ceil(8);
        self.out.cast::<u8>().wrapping_add(row * bytes + first / 8)
    }

    /// Stores the signs of `columns` results of a row.
    pub(super) fn store_word(&self, row: usize, (first, columns): (usize, usize), word: u64) {
        let word = word & (u64::MAX >> (PANEL_ROWS - columns));
        let (bytes, to) = (word.to_le_bytes(), self.bits(row, first));
        // SAFETY: bytes of the result that are this unit's alone.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), columns.div_ceil(8)) };
    }

    /// A panel by some rows of bits.
    fn counts(&self, panel: usize, rows: &Rows<'_>, range: Range<usize>) {
        let product = &self.code.product;
        let kernels = match rows.limits {
            Some(_) => &self.code.bits,
            None => &self.code.numbers,
        };
        let mut at = range.start;
        while at < range.end {
            let (n, function) = by_rows::for_rows(kernels, range.end - at);
            let row = rows.first + at;
            let call = |out, step, (by_column, by_row), (number, bits)| {
                let bytes = product.row_bytes() as i64;
                let a = rows.bits.wrapping_add(at * rows.step);
                let columns = product.matrix.columns() as i64;
                let counted = product.row_bits() as i64;
                let (a_step, step) = (rows.step as i64, step as i64);
                // SAFETY: whole rows of bits, a panel's bits and scales or limits, room for the results.
                unsafe {
                    function(
                        bytes, a, a_step, bits, out, step, by_column, by_row, columns, number,
                        &TABLES, counted,
                    )
                };
            };
            if let Some(limits) = rows.limits {
                let limits = &limits[panel];
                let by = (
                    limits.limits.as_ptr().cast(),
                    (&raw const limits.flips).cast(),
                );
                let mut words = [0u64; MOST_ROWS];
                call(
                    words.as_mut_ptr().cast(),
                    8,
                    by,
                    (0, self.part(panel, product.bases[0]).1),
                );
                for (i, word) in words.iter().take(n).enumerate() {
                    self.store_word(row + i, self.columns(panel), *word);
                }
            } else {
                self.results(panel, (row, n), |out, step| {
                    for (number, &base) in product.bases.iter().enumerate() {
                        let (scales, bits) = self.part(panel, base);
                        let by = (scales.cast(), self.sizes_of(number, row).cast());
                        call(out.cast(), step, by, (number as i64, bits));
                    }
                });
            }
            at += n;
        }
    }

    /// What results of a base are multiplied by, of rows from `row` on: only the last one's sum is.
    fn sizes_of(&self, number: usize, row: usize) -> *const f32 {
        match number + 1 == self.code.product.bases.len() {
            true => self.sizes(row),
            false => ONES.as_ptr(),
        }
    }

    /// The product with rows of bytes.
    pub(super) fn by_bytes(&self) {
        let (n_threads, panels) = (self.work.n_threads, self.code.product.matrix.panels());
        let lanes = self.code.lanes(self.m);
        self.by_lanes(lanes);
        for first in (lanes..self.m).step_by(TABLED) {
            let rows = TABLED.min(self.m - first);
            let builders = if rows == 1 { 1 } else { n_threads };
            pool::for_each_range(builders, rows, &|rows| {
                rows.for_each(|row| self.build(first, row));
            });
            pool::for_each_range(n_threads, panels, &|panels| {
                panels.for_each(|panel| self.lookups(panel, first, rows));
            });
        }
    }

    fn facts(&self, at: usize) -> *mut RowFacts {
        self.scratch.cast::<RowFacts>().wrapping_add(at)
    }

    fn tables(&self, at: usize) -> *mut u8 {
        let rows = self.m - self.code.lanes(self.m);
        let facts = SignCode::facts_bytes(TABLED.min(rows));
        self.scratch
            .wrapping_add(facts + at * self.code.table_bytes())
    }

    /// A row of numbers.
    ///
    /// # Safety
    /// There is such a row.
    pub(super) unsafe fn row(&self, row: usize) -> Cow<'_, [f32]> {
        let k = self.code.product.matrix.columns();
        // SAFETY: the caller's promise.
        unsafe { floats(self.x.cast::<f32>().wrapping_add(row * k), k) }
    }

    /// The tables of one row.
    fn build(&self, first: usize, at: usize) {
        // SAFETY: a row of x; its own tables and facts in the scratch memory.
        unsafe {
            let x = self.row(first + at);
            let tables = std::slice::from_raw_parts_mut(self.tables(at), self.code.table_bytes());
            self.facts(at).write(self.code.builder.tables(&x, tables));
        }
    }

    /// A panel by the rows of which there are tables.
    fn lookups(&self, panel: usize, first: usize, rows: usize) {
        let product = &self.code.product;
        for at in 0..rows {
            let row = first + at;
            self.results(panel, (row, 1), |out, _| {
                for (number, &base) in product.bases.iter().enumerate() {
                    let (scales, bits) = self.part(panel, base);
                    // SAFETY: a row's tables and facts, a panel's bits and scales, room for the results.
                    unsafe {
                        (self.code.lookup)(
                            product.matrix.row_bytes() as i64,
                            self.tables(at),
                            bits,
                            out,
                            scales,
                            self.sizes_of(number, row),
                            self.facts(at),
                            number as i64,
                        )
                    };
                }
            });
        }
    }
}
