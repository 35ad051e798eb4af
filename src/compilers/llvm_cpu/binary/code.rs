//! Kernels of products of signs, compiled and linked; what a call of them needs.

use std::sync::Arc;

use inkwell::context::Context;
use inkwell::module::Module;

use super::after::{LEAST_ROWS, Limits, has_limits};
use super::by_rows;
use super::counts::{self, CountFn, Form, Output, emit_count};
use super::finish::{FinishFn, emit_finish};
use super::ir::{Factor, SignProduct};
use super::lookups::{self, LookupFn, emit_lookup, has_lookups};
use super::planes::PlaneKernels;
use super::rows::{PackFn, WORD, emit_pack};
use super::run::Run;
use super::sums::{self, AddFn, TablesFn, emit_sum_add, emit_sum_tables};
use super::tables::{self, BuildFn, Builder, LargestFn, RowFacts, TABLE_BYTES};
use super::turned::{ResultsFn, TurnFn, emit_results, emit_turn};
use super::windows::Windows;
use crate::compilers::llvm_cpu::cache::{Key, ObjectCache};
use crate::compilers::llvm_cpu::code::{evaluate, has};
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::op::{KernelCall, NativeCode, Packing, Work};
use crate::shape::Symbols;

/// Products of signs below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 22;

/// Rows of x that a thread takes at a time: their bits, or tables, stay in a cache while it goes through a panel.
pub(super) const BLOCK: usize = 64;

/// Rows of x of which there are tables at once.
pub(super) const TABLED: usize = 32;

/// Blocks of rows whose numbers are turned to lanes at once.
pub(super) const TURNED: usize = 8;

/// Rows behind the last whole block of lanes that are worth one.
const LEAST_LANES: usize = 20;

/// Bytes of repeated bits that are there at once, about.
const REPEATED: usize = 1 << 19;

/// The compiled kernels of a target.
#[derive(Debug)]
pub struct CompiledSigns {
    target: Target,
    object: Vec<u8>,
}

/// The function of a target that does this.
fn symbol(target: &Target, what: &str) -> String {
    format!("signs_{what}_{}", target.symbol_part())
}

/// Every kernel of a target.
fn emit_all<'c>(context: &'c Context, module: &Module<'c>, target: &Target) {
    let form = (Form::of(target), counts::lanes(target));
    for &rows in counts::heights(target) {
        for output in [Output::Numbers, Output::Bits] {
            let name = by_rows::symbol(target, output, rows);
            emit_count(context, module, &name, form, (rows, output));
        }
    }
    emit_pack(context, module, &symbol(target, "packed"), WORD);
    for (packs, name) in [(false, "finished_numbers"), (true, "finished_bits")] {
        emit_finish(context, module, &symbol(target, name), packs);
    }
    tables::emit_largest(context, module, &symbol(target, "largest"));
    tables::emit_build(context, module, &symbol(target, "tables"));
    if has_lookups(target) {
        emit_lookup(context, module, &symbol(target, "lookup"), lookups::LANES);
        emit_sum_tables(context, module, &symbol(target, "sums"));
        emit_sum_add(context, module, &symbol(target, "add"), false);
        emit_sum_add(context, module, &symbol(target, "add_wide"), true);
        emit_turn(context, module, &symbol(target, "turned"));
        emit_results(context, module, &symbol(target, "results"));
    }
}

impl CompiledSigns {
    /// The kernels for a target, compiled once per process.
    ///
    /// # Errors
    /// Failure of LLVM.
    pub fn of(target: &Target, cache: &ObjectCache) -> Result<Arc<CompiledSigns>> {
        static MADE: OncePerProcess<Target, CompiledSigns> = OncePerProcess::new();
        MADE.get_or_make(target.clone(), |target| {
            let object = compile_module_cached(target, cache, |context, module| {
                emit_all(context, module, target);
                Ok(())
            })?;
            Ok(CompiledSigns {
                target: target.clone(),
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
        (jit, cache): (&Arc<Jit>, &ObjectCache),
    ) -> Result<SignCode> {
        let target = &self.target;
        jit.add_once(&by_rows::symbol(target, Output::Numbers, 1), &self.object)?;
        let address = |what: &str| jit.address(&symbol(target, what));
        let counts = |output| by_rows::linked(jit, (target, output), counts::heights(target));
        // SAFETY: the symbols are of functions that `emit_all` wrote by what has these signatures.
        let (builder, pack, finish) = unsafe {
            let builder = Builder {
                largest: std::mem::transmute::<*const (), LargestFn>(address("largest")?),
                build: std::mem::transmute::<*const (), BuildFn>(address("tables")?),
            };
            let pack = std::mem::transmute::<*const (), PackFn>(address("packed")?);
            let finish = std::mem::transmute::<[*const (); 2], [FinishFn; 2]>([
                address("finished_numbers")?,
                address("finished_bits")?,
            ]);
            (builder, pack, finish)
        };
        let (lookup, sums) = self.by_bytes(address)?;
        Ok(SignCode {
            name: match has_limits(product) {
                true => name.replacen("signs", "signs_limits", 1),
                false => name,
            },
            key,
            product: product.clone(),
            form: Form::of(target),
            numbers: counts(Output::Numbers)?,
            bits: counts(Output::Bits)?,
            planes: PlaneKernels::of(product, (target, cache), jit)?,
            lookup,
            sums: sums.filter(|_| product.bases.len() == 1),
            builder,
            pack,
            finish,
            packings: packings(product),
            _jit: jit.clone(),
        })
    }

    /// What multiplies by bytes: one row, and many.
    fn by_bytes(
        &self,
        address: impl Fn(&str) -> Result<*const ()>,
    ) -> Result<(LookupFn, Option<Sums>)> {
        if !has_lookups(&self.target) {
            return Ok((lookups::plain, None));
        }
        // SAFETY: the symbols are of functions that `emit_all` wrote by what has these signatures.
        unsafe {
            let lookup = std::mem::transmute::<*const (), LookupFn>(address("lookup")?);
            let sums = Sums {
                tables: std::mem::transmute::<*const (), TablesFn>(address("sums")?),
                add: std::mem::transmute::<*const (), AddFn>(address("add")?),
                add_wide: std::mem::transmute::<*const (), AddFn>(address("add_wide")?),
                turn: std::mem::transmute::<*const (), TurnFn>(address("turned")?),
                results: std::mem::transmute::<*const (), ResultsFn>(address("results")?),
            };
            Ok((lookup, Some(sums)))
        }
    }
}

/// The assembly of all kernels of a target, for reading.
///
/// # Errors
/// Failure of LLVM.
pub fn assembly(target: &Target) -> Result<String> {
    crate::compilers::llvm_cpu::jit::assembly(target, |context, module| {
        emit_all(context, module, target);
        Ok(())
    })
}

/// What adds sums that rows have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    pub(super) tables: TablesFn,
    pub(super) add: AddFn,
    pub(super) add_wide: AddFn,
    pub(super) turn: TurnFn,
    pub(super) results: ResultsFn,
}

/// A product of signs that can be run.
#[derive(Debug)]
pub struct SignCode {
    name: String,
    key: u64,
    pub(super) product: SignProduct,
    pub(super) form: Form,
    /// Kernels that write numbers, by rows.
    pub(super) numbers: Vec<(usize, CountFn)>,
    /// Kernels that write bits, by rows.
    pub(super) bits: Vec<(usize, CountFn)>,
    /// Kernels of rows of planes.
    planes: Option<PlaneKernels>,
    pub(super) lookup: LookupFn,
    pub(super) sums: Option<Sums>,
    pub(super) builder: Builder,
    pub(super) pack: PackFn,
    /// What finishes a row of numbers, and of bits.
    pub(super) finish: [FinishFn; 2],
    packings: Vec<Packing>,
    _jit: Arc<Jit>,
}

/// The matrix in the order of windows, if rows are such.
fn packings(product: &SignProduct) -> Vec<Packing> {
    let packing = |windows: &Windows| {
        let what = format!(
            "{} {} {windows:?}",
            env!("CARGO_PKG_VERSION"),
            product.matrix
        );
        Packing {
            operand: product.signs,
            bytes: product.matrix_bytes(),
            layout: Key::of(&[b"signs of windows", what.as_bytes()]).short(),
            folder: None,
            can_wait: false,
        }
    };
    product
        .windows
        .as_deref()
        .map(packing)
        .into_iter()
        .collect()
}

/// Of `m` rows of so many bytes, those that are there at once: whole blocks of rows.
pub(super) fn rows_at_once((bytes, block): (usize, usize), m: usize) -> usize {
    let rows = REPEATED / bytes.max(1);
    (rows / block * block).max(block).min(m.max(1))
}

impl SignCode {
    pub(super) fn table_bytes(&self) -> usize {
        TABLE_BYTES * self.product.matrix.row_bytes()
    }

    /// Bytes of facts in front of the tables.
    pub(super) fn facts_bytes(rows: usize) -> usize {
        (rows * size_of::<RowFacts>()).next_multiple_of(64)
    }

    /// How many of `m` rows of bytes are lanes; the others behind them have tables of their own.
    pub(super) fn lanes(&self, m: usize) -> usize {
        let rest = m % sums::ROWS;
        match self.sums {
            None => 0,
            Some(_) if rest >= LEAST_LANES => m,
            Some(_) => m - rest,
        }
    }

    /// Bytes of the numbers of a block of rows as lanes, and of their scales.
    pub(super) fn turned_bytes(&self) -> usize {
        sums::ROWS * (4 + 2 * 8 * self.product.matrix.row_bytes())
    }

    /// Whether kernels read rows of bits where they are.
    pub(super) fn reads_rows(&self) -> bool {
        self.form.width() == 1 && self.product.windows.is_none()
    }

    /// Rows of bits that are repeated, or taken from windows, at once; all where none are.
    pub(super) fn repeated_rows(&self, m: usize) -> usize {
        if self.reads_rows() {
            return m.max(1);
        }
        rows_at_once((self.form.width() * self.product.row_bytes(), BLOCK), m)
    }

    /// Bytes of these.
    pub(super) fn repeated_bytes(&self, m: usize) -> usize {
        let bytes = self.form.width() * self.product.row_bytes();
        match self.reads_rows() {
            true => 0,
            false => (self.repeated_rows(m) * bytes).next_multiple_of(64),
        }
    }

    /// Whether limits are looked for.
    pub(super) fn has_limits(&self, m: usize) -> bool {
        m >= LEAST_ROWS && has_limits(&self.product)
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
        if let Some(windows) = &self.product.windows {
            windows.evaluate(symbols, params)?;
        }
        let matrix = self.product.matrix;
        let planes = self.planes.as_ref();
        let products = m
            .saturating_mul(matrix.rows() * matrix.columns())
            .saturating_mul(self.product.bases.len())
            .saturating_mul(planes.map_or(1, |kernels| kernels.planes().n()));
        let scratch_bytes = match self.product.factor {
            Factor::Signs => {
                let limits = usize::from(self.has_limits(m)) * matrix.panels();
                self.repeated_bytes(m) + limits * size_of::<Limits>()
            }
            Factor::Planes { .. } => {
                planes.map_or(0, |kernels| self.repeated_line_bytes(kernels, m))
            }
            Factor::Bytes => {
                let lanes = self.lanes(m);
                let (rows, blocks) = ((m - lanes).min(TABLED), lanes.div_ceil(sums::ROWS));
                let tables = SignCode::facts_bytes(rows) + rows * self.table_bytes();
                tables.max(blocks.min(TURNED) * self.turned_bytes())
            }
        };
        Ok(Work {
            units: matrix.panels() * m.div_ceil(planes.map_or(BLOCK, SignCode::block_rows)),
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
        let run = Run::new(self, call);
        match self.product.factor {
            Factor::Signs => run.by_signs(),
            Factor::Bytes => run.by_bytes(),
            Factor::Planes { .. } => {
                let kernels = self
                    .planes
                    .as_ref()
                    .expect("they were linked with the code");
                run.by_planes(kernels);
            }
        }
        Ok(())
    }

    fn packings(&self) -> &[Packing] {
        &self.packings
    }

    // SAFETY: the trait's contract: an operand of its type's size, and room for the packing.
    unsafe fn pack(&self, _: usize, from: *const u8, to: *mut u8, _: usize) {
        let windows = self.product.windows.as_ref();
        let windows = windows.expect("only these have a packing");
        let matrix = self.product.matrix;
        // SAFETY: the contract again.
        let (from, to) = unsafe {
            (
                std::slice::from_raw_parts(from, matrix.bytes()),
                std::slice::from_raw_parts_mut(to, self.product.matrix_bytes()),
            )
        };
        windows.order(matrix, from, to);
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
