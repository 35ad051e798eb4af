//! Kernels of products of signs, and the loops around them.

use std::borrow::Cow;
use std::sync::Arc;

use super::counts::{self, CountFn, Form, TABLES, emit_count};
use super::ir::{Factor, SignProduct};
use super::lookups::{self, LookupFn, emit_lookup, has_lookups};
use super::rows::{PackFn, emit_pack};
use super::tables::{self, BuildFn, Builder, LargestFn, RowFacts, TABLE_BYTES};
use smallvec::SmallVec;

use crate::blocks::PANEL_ROWS;
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::code::{evaluate, has};
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::exec::pool;
use crate::op::{BinaryOp, KernelCall, NativeCode, Work, pack_signs};
use crate::shape::Symbols;

/// Products of signs below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 22;

/// Rows of x that a thread takes at a time: their bits, or tables, stay in a cache while it goes through a panel.
const BLOCK: usize = 64;

/// Rows of x of which there are tables at once.
const TABLED: usize = 32;

/// The most rows of a kernel.
const MOST_ROWS: usize = 8;

/// Scales and sizes of rows where there are none.
static ONES: [f32; PANEL_ROWS] = [1.0; PANEL_ROWS];

/// The compiled kernels of a target.
#[derive(Debug)]
pub struct CompiledSigns {
    target: Target,
    form: Form,
    object: Vec<u8>,
}

fn count_symbol(target: &Target, form: Form, rows: usize) -> String {
    format!(
        "signs_{rows}x{PANEL_ROWS}_{}_{}",
        form.name(),
        target.symbol_part()
    )
}

fn lookup_symbol(target: &Target) -> String {
    format!("signs_by_bytes_1x{PANEL_ROWS}_{}", target.symbol_part())
}

/// Everything for rows of bytes, and for results that are bits.
fn emit_lookups<'c>(
    context: &'c inkwell::context::Context,
    module: &inkwell::module::Module<'c>,
    target: &Target,
) {
    emit_pack(context, module, &pack_symbol(target));
    let [largest, build] = table_symbols(target);
    tables::emit_largest(context, module, &largest);
    tables::emit_build(context, module, &build);
    if has_lookups(target) {
        emit_lookup(context, module, &lookup_symbol(target), lookups::LANES);
    }
}

fn pack_symbol(target: &Target) -> String {
    format!("signs_packed_{}", target.symbol_part())
}

fn table_symbols(target: &Target) -> [String; 2] {
    ["largest", "tables"].map(|what| format!("signs_{what}_{}", target.symbol_part()))
}

impl CompiledSigns {
    /// The kernels for a target, compiled once per process.
    ///
    /// # Errors
    /// Failure of LLVM.
    pub fn of(target: &Target, cache: &ObjectCache) -> Result<Arc<CompiledSigns>> {
        CompiledSigns::with_form(target, Form::of(target), cache)
    }

    /// The kernels for a target that count in some way.
    ///
    /// # Errors
    /// Failure of LLVM.
    pub fn with_form(
        target: &Target,
        form: Form,
        cache: &ObjectCache,
    ) -> Result<Arc<CompiledSigns>> {
        static MADE: OncePerProcess<(Target, Form), CompiledSigns> = OncePerProcess::new();
        MADE.get_or_make((target.clone(), form), |(target, form)| {
            let object = compile_module_cached(target, cache, |context, module| {
                let lanes = counts::lanes(target);
                for &rows in counts::heights(target) {
                    let symbol = count_symbol(target, *form, rows);
                    emit_count(context, module, &symbol, (*form, lanes), rows);
                }
                emit_lookups(context, module, target);
                Ok(())
            })?;
            Ok(CompiledSigns {
                target: target.clone(),
                form: *form,
                object,
            })
        })
    }

    /// The code of a product.
    ///
    /// # Errors
    /// Failure of the linker.
    pub fn link(
        &self,
        product: &SignProduct,
        (name, key): (String, u64),
        jit: &Arc<Jit>,
    ) -> Result<SignCode> {
        let Self {
            target,
            form,
            object,
        } = self;
        jit.add_once(&count_symbol(target, *form, 1), object)?;
        let mut kernels = Vec::new();
        for &rows in counts::heights(target) {
            let address = jit.address(&count_symbol(target, *form, rows))?;
            // SAFETY: the symbol is of a function that `emit_count` wrote, with this signature.
            kernels.push((rows, unsafe {
                std::mem::transmute::<*const (), CountFn>(address)
            }));
        }
        let lookup = match has_lookups(target) {
            true => {
                let address = jit.address(&lookup_symbol(target))?;
                // SAFETY: the symbol is of the function that `emit_lookup` wrote, with this signature.
                unsafe { std::mem::transmute::<*const (), LookupFn>(address) }
            }
            false => lookups::plain as LookupFn,
        };
        let [largest, build] = table_symbols(target);
        let (largest, build) = (jit.address(&largest)?, jit.address(&build)?);
        // SAFETY: the symbols are of functions that `emit_largest` and `emit_build` wrote, with these signatures.
        let builder = unsafe {
            Builder {
                largest: std::mem::transmute::<*const (), LargestFn>(largest),
                build: std::mem::transmute::<*const (), BuildFn>(build),
            }
        };
        let pack = jit.address(&pack_symbol(target))?;
        // SAFETY: the symbol is of the function that `emit_pack` wrote, with this signature.
        let pack = unsafe { std::mem::transmute::<*const (), PackFn>(pack) };
        Ok(SignCode {
            name,
            key,
            product: product.clone(),
            kernels,
            lookup,
            builder,
            pack,
            _jit: jit.clone(),
        })
    }
}

/// The assembly of all kernels of a target, for reading.
///
/// # Errors
/// Failure of LLVM.
pub fn assembly(target: &Target) -> Result<String> {
    crate::compilers::llvm_cpu::jit::assembly(target, |context, module| {
        let lanes = counts::lanes(target);
        for &rows in counts::heights(target) {
            let form = Form::of(target);
            let symbol = count_symbol(target, form, rows);
            emit_count(context, module, &symbol, (form, lanes), rows);
        }
        emit_lookups(context, module, target);
        Ok(())
    })
}

/// A product of signs that can be run.
#[derive(Debug)]
pub struct SignCode {
    name: String,
    key: u64,
    product: SignProduct,
    kernels: Vec<(usize, CountFn)>,
    lookup: LookupFn,
    builder: Builder,
    pack: PackFn,
    _jit: Arc<Jit>,
}

/// One call, as all threads see it.
struct Run<'a> {
    code: &'a SignCode,
    m: usize,
    x: *const u8,
    signs: *const u8,
    sizes: Option<*const f32>,
    /// What is multiplied or added by columns, of [`SignProduct::after`].
    after: SmallVec<[*const f32; 2]>,
    out: *mut f32,
    /// Facts of some rows, then their tables.
    scratch: *mut u8,
}

// SAFETY: operands are only read; each unit of work writes its own tables or elements of the result.
unsafe impl Sync for Run<'_> {}

impl SignCode {
    fn table_bytes(&self) -> usize {
        TABLE_BYTES * self.product.matrix.row_bytes()
    }

    /// Bytes of facts in front of the tables.
    fn facts_bytes(rows: usize) -> usize {
        (rows * size_of::<RowFacts>()).next_multiple_of(64)
    }
}

impl NativeCode for SignCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        evaluate(&[self.product.m], symbols, params)?;
        let m = params[start].max(0) as usize;
        let matrix = self.product.matrix;
        let products = m
            .saturating_mul(matrix.rows() * matrix.columns())
            .saturating_mul(self.product.bases.len());
        let scratch_bytes = match self.product.factor {
            Factor::Signs => 0,
            Factor::Bytes => {
                let rows = m.min(TABLED);
                SignCode::facts_bytes(rows) + rows * self.table_bytes()
            }
        };
        Ok(Work {
            units: matrix.panels() * m.div_ceil(BLOCK),
            cost: products / 16,
            n_threads: if products < SERIAL { 1 } else { n_threads },
            scratch_bytes,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&[self.product.m], symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let sizes = self.product.sizes;
        let run = Run {
            code: self,
            m: call.params[0].max(0) as usize,
            x: call.buffers[self.product.x].cast_const(),
            signs: call.buffers[self.product.signs].cast_const(),
            sizes: sizes.map(|at| call.buffers[at].cast_const().cast()),
            after: self
                .product
                .after
                .iter()
                .map(|(_, at)| call.buffers[*at].cast_const().cast())
                .collect(),
            out: call.buffers[call.buffers.len() - 1].cast(),
            scratch: call.scratch,
        };
        let (work, panels) = (call.work, self.product.matrix.panels());
        match self.product.factor {
            Factor::Signs => {
                // Neighbouring units have the panel in common.
                let blocks = run.m.div_ceil(BLOCK);
                pool::for_each_range(work.n_threads, work.units, &|units| {
                    units.for_each(|unit| run.counts(unit / blocks, unit % blocks * BLOCK));
                });
            }
            Factor::Bytes => {
                for first in (0..run.m).step_by(TABLED) {
                    let rows = TABLED.min(run.m - first);
                    let builders = if rows == 1 { 1 } else { work.n_threads };
                    pool::for_each_range(builders, rows, &|rows| {
                        rows.for_each(|row| run.build(first, row));
                    });
                    pool::for_each_range(work.n_threads, panels, &|panels| {
                        panels.for_each(|panel| run.lookups(panel, first, rows));
                    });
                }
            }
        }
        Ok(())
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}

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

impl Run<'_> {
    /// Scales and bits of one base of a panel.
    fn part(&self, panel: usize, base: usize) -> (*const f32, *const u8) {
        let matrix = self.code.product.matrix;
        let at = panel * matrix.panel_bytes() + base * matrix.base_bytes();
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

    /// Has `rows` rows of a panel's results from row `row` on written by `write`, which gets an address and the numbers from
    /// one row to the next.
    fn results(&self, panel: usize, (row, rows): (usize, usize), write: impl Fn(*mut f32, usize)) {
        let product = &self.code.product;
        let n = product.matrix.rows();
        let first = panel * PANEL_ROWS;
        let columns = PANEL_ROWS.min(n - first);
        let out = self.out.wrapping_add(row * n + first);
        if columns == PANEL_ROWS && product.after.is_empty() && !product.packed {
            return write(out, n);
        }
        let mut results = [0f32; MOST_ROWS * PANEL_ROWS];
        write(results.as_mut_ptr(), PANEL_ROWS);
        for (i, results) in results.chunks_exact_mut(PANEL_ROWS).take(rows).enumerate() {
            let results = &mut results[..columns];
            self.by_columns(first, results);
            if product.packed {
                self.store_signs((row + i, first), results);
                continue;
            }
            // SAFETY: elements of the result that are this unit's alone.
            unsafe { std::ptr::copy_nonoverlapping(results.as_ptr(), out.add(i * n), columns) };
        }
    }

    /// What is multiplied and added by columns, of results from column `first` on.
    fn by_columns(&self, first: usize, results: &mut [f32]) {
        for ((op, _), numbers) in self.code.product.after.iter().zip(&self.after) {
            for (i, x) in results.iter_mut().enumerate() {
                // SAFETY: there is a number for every column; it may lie anywhere.
                let y = unsafe { numbers.add(first + i).read_unaligned() };
                match op {
                    BinaryOp::Mul => *x *= y,
                    _ => *x += y,
                }
            }
        }
    }

    /// Stores the signs of results from column `first`, a multiple of 64, on.
    fn store_signs(&self, (row, first): (usize, usize), results: &[f32]) {
        let bytes = self.code.product.matrix.rows().div_ceil(8);
        let bits = self.out.cast::<u8>().wrapping_add(row * bytes + first / 8);
        // SAFETY: bytes of the result that are this unit's alone.
        unsafe {
            if results.len() == PANEL_ROWS {
                return (self.code.pack)(PANEL_ROWS as i64 / 32, results.as_ptr(), bits);
            }
            let bits = std::slice::from_raw_parts_mut(bits, results.len().div_ceil(8));
            pack_signs(results, bits);
        }
    }

    /// A panel by some rows of bits.
    fn counts(&self, panel: usize, first: usize) {
        let product = &self.code.product;
        let (columns, bytes) = (product.matrix.columns(), product.matrix.row_bytes());
        let end = (first + BLOCK).min(self.m);
        let mut row = first;
        while row < end {
            let mut kernels = self.code.kernels.iter();
            let fits = kernels.find(|(rows, _)| *rows <= end - row);
            let (rows, function) = fits.expect("there is a kernel for one row");
            let a = self.x.wrapping_add(row * bytes);
            self.results(panel, (row, *rows), |out, step| {
                for (at, &base) in product.bases.iter().enumerate() {
                    let (scales, bits) = self.part(panel, base);
                    let is_last = at + 1 == product.bases.len();
                    let sizes = if is_last {
                        self.sizes(row)
                    } else {
                        ONES.as_ptr()
                    };
                    // SAFETY: whole rows of bits, a panel's bits and scales, room for the results.
                    unsafe {
                        function(
                            bytes as i64,
                            a,
                            bytes as i64,
                            bits,
                            out,
                            step as i64,
                            scales,
                            sizes,
                            columns as i64,
                            at as i64,
                            &TABLES,
                        )
                    };
                }
            });
            row += rows;
        }
    }

    fn facts(&self, at: usize) -> *mut RowFacts {
        self.scratch.cast::<RowFacts>().wrapping_add(at)
    }

    fn tables(&self, at: usize) -> *mut u8 {
        let facts = SignCode::facts_bytes(TABLED.min(self.m));
        self.scratch
            .wrapping_add(facts + at * self.code.table_bytes())
    }

    /// The tables of one row.
    fn build(&self, first: usize, at: usize) {
        let k = self.code.product.matrix.columns();
        let x = self.x.cast::<f32>().wrapping_add((first + at) * k);
        // SAFETY: a row of x; its own tables and facts in the scratch memory.
        unsafe {
            let x = floats(x, k);
            let tables = std::slice::from_raw_parts_mut(self.tables(at), self.code.table_bytes());
            self.facts(at).write(self.code.builder.tables(&x, tables));
        }
    }

    /// A panel by the rows of which there are tables.
    fn lookups(&self, panel: usize, first: usize, rows: usize) {
        let product = &self.code.product;
        let function = self.code.lookup;
        for at in 0..rows {
            let row = first + at;
            self.results(panel, (row, 1), |out, _| {
                for (number, &base) in product.bases.iter().enumerate() {
                    let (scales, bits) = self.part(panel, base);
                    let is_last = number + 1 == product.bases.len();
                    let size = if is_last {
                        self.sizes(row)
                    } else {
                        ONES.as_ptr()
                    };
                    // SAFETY: a row's tables and facts, a panel's bits and scales, room for the results.
                    unsafe {
                        function(
                            product.matrix.row_bytes() as i64,
                            self.tables(at),
                            bits,
                            out,
                            scales,
                            size,
                            self.facts(at),
                            number as i64,
                        )
                    };
                }
            });
        }
    }
}
