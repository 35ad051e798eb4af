//! Kernels of products with block weights, and the loops around them.

use std::sync::Arc;

use smallvec::SmallVec;

use super::activations::{RoundFn, RowForm, emit_round, record_bytes};
use super::form::{COLUMNS, Dots, Factors, Form};
use super::ir::BlockProduct;
use super::panel;
use super::tile::{self, HIGHEST, TileFn, emit_tile};
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::cache::{Key, ObjectCache};
use crate::compilers::llvm_cpu::code::{evaluate, has};
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::exec::pool;
use crate::op::{ActivationScheme, KernelCall, NativeCode, Packing, Work};
use crate::shape::Symbols;

/// Multiply-adds below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 18;

/// What kernels depend on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Kind {
    ty: BlockType,
    target: Target,
}

/// The compiled kernels of a kind.
#[derive(Debug)]
pub struct CompiledBlocks {
    kind: Kind,
    object: Vec<u8>,
}

impl CompiledBlocks {
    /// The kernels for a product's types, compiled once per process.
    ///
    /// # Errors
    /// Failure of LLVM.
    pub fn of(
        product: &BlockProduct,
        target: &Target,
        cache: &ObjectCache,
    ) -> Result<Arc<CompiledBlocks>> {
        static MADE: OncePerProcess<Kind, CompiledBlocks> = OncePerProcess::new();
        MADE.get_or_make(Kind::of(product, target), |kind| {
            let object = compile_module_cached(target, cache, |context, module| {
                kind.emit(context, module);
                Ok(())
            })?;
            Ok(CompiledBlocks {
                kind: kind.clone(),
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
        product: &BlockProduct,
        (name, key): (String, u64),
        jit: &Arc<Jit>,
    ) -> Result<BlockCode> {
        let kind = &self.kind;
        // One object for all ways of rounding: it is known by a symbol that every product of the kind has.
        jit.add_once(&kind.tile(1), &self.object)?;
        // SAFETY: the symbols are of functions that `emit_round` and `emit_tile` wrote, with these signatures.
        let (round, tiles) = unsafe {
            let address = |symbol: String| jit.address(&symbol);
            let round =
                std::mem::transmute::<*const (), RoundFn>(address(kind.round(product.scheme))?);
            let mut tiles = Vec::new();
            for &rows in tile::heights(&kind.target) {
                let function = std::mem::transmute::<*const (), TileFn>(address(kind.tile(rows))?);
                tiles.push((rows, function));
            }
            (round, tiles)
        };
        let form = kind.form();
        Ok(BlockCode {
            name,
            key,
            signed: kind.dots().is_signed(&form),
            packing: kind.packing(product),
            form,
            product: product.clone(),
            round,
            tiles,
            _jit: jit.clone(),
        })
    }
}

impl Kind {
    fn of(product: &BlockProduct, target: &Target) -> Kind {
        Kind {
            ty: product.ty,
            target: target.clone(),
        }
    }

    fn form(&self) -> Form {
        Form::of(self.ty).expect("products are only made of types with kernels")
    }

    fn dots(&self) -> Dots {
        Dots::of(&self.target)
    }

    /// How a product's weights are laid out.
    fn packing(&self, product: &BlockProduct) -> Packing {
        let (form, blocks) = (self.form(), product.n_blocks());
        let signed = self.dots().is_signed(&form);
        let version = env!("CARGO_PKG_VERSION");
        let what = format!(
            "{version} panels {} {signed} {blocks} {}",
            self.ty, product.n
        );
        Packing {
            operand: product.weights,
            bytes: product.n.div_ceil(COLUMNS) * form.panel_bytes(blocks).iter().sum::<usize>(),
            layout: Key::of(&[what.as_bytes()]).short(),
            folder: None,
        }
    }

    fn isa(&self) -> String {
        self.target.symbol_part()
    }

    fn round(&self, scheme: ActivationScheme) -> String {
        let (ty, scheme) = (self.ty.name(), scheme.name());
        format!("round_{scheme}_{ty}_{}", self.isa())
    }

    fn tile(&self, rows: usize) -> String {
        let (ty, isa) = (self.ty.name(), self.isa());
        format!("blocks_{ty}_{rows}x{COLUMNS}_{isa}")
    }

    fn emit<'c>(
        &self,
        context: &'c inkwell::context::Context,
        module: &inkwell::module::Module<'c>,
    ) {
        let (form, dots) = (self.form(), self.dots());
        let row = RowForm {
            factor: -dots.offset(&form),
            halves: form.factors == Factors::Halves,
        };
        for scheme in ActivationScheme::ALL {
            emit_round(context, module, &self.round(scheme), scheme, row);
        }
        for &rows in tile::heights(&self.target) {
            let form = (form, dots, self.target.lanes());
            emit_tile(context, module, &self.tile(rows), form, rows);
        }
    }
}

/// The assembly of all kernels that a product runs, for reading.
///
/// # Errors
/// Failure of LLVM.
pub fn assembly(product: &BlockProduct, target: &Target) -> Result<String> {
    let kind = Kind::of(product, target);
    crate::compilers::llvm_cpu::jit::assembly(target, |context, module| {
        kind.emit(context, module);
        Ok(())
    })
}

/// A product with block weights that can be run.
#[derive(Debug)]
pub struct BlockCode {
    name: String,
    key: u64,
    product: BlockProduct,
    form: Form,
    /// Whether numbers in panels are signed.
    signed: bool,
    packing: Packing,
    round: RoundFn,
    tiles: Vec<(usize, TileFn)>,
    _jit: Arc<Jit>,
}

/// One call, as all threads see it.
struct Run<'a> {
    code: &'a BlockCode,
    m: usize,
    activations: *const f32,
    panels: *const u8,
    out: *mut f32,
    records: *mut u8,
}

// SAFETY: operands are only read; each unit of work writes its own records or columns of the result.
unsafe impl Sync for Run<'_> {}

/// Weights to be packed, as all threads see them.
struct Pack<'a> {
    code: &'a BlockCode,
    rows: *const u8,
    panels: *mut u8,
}

// SAFETY: rows are only read; each panel is written by one thread.
unsafe impl Sync for Pack<'_> {}

impl BlockCode {
    fn record_bytes(&self) -> usize {
        record_bytes(self.product.n_groups())
    }

    fn n_panels(&self) -> usize {
        self.product.n.div_ceil(COLUMNS)
    }

    /// Where a panel begins in each region, from the beginning of all, and its bytes there.
    fn panel(&self, at: usize) -> [(usize, usize); 3] {
        let bytes = self.form.panel_bytes(self.product.n_blocks());
        let before = [0, bytes[0], bytes[0] + bytes[1]].map(|bytes| bytes * self.n_panels());
        std::array::from_fn(|i| (before[i] + at * bytes[i], bytes[i]))
    }
}

impl NativeCode for BlockCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, symbols: &Symbols, n_threads: usize, params: &mut Vec<i64>) -> Result<Work> {
        let start = params.len();
        evaluate(&[self.product.m], symbols, params)?;
        let m = params[start].max(0) as usize;
        let cost = m
            .saturating_mul(self.product.n)
            .saturating_mul(self.product.k);
        Ok(Work {
            units: self.n_panels(),
            cost,
            n_threads: if cost < SERIAL { 1 } else { n_threads },
            scratch_bytes: m * self.record_bytes(),
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&[self.product.m], symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let m = call.params[0].max(0) as usize;
        let [.., out, panels] = call.buffers else {
            unreachable!("operands, the result and the packed weights");
        };
        let run = Run {
            code: self,
            m,
            activations: call.buffers[self.product.activations].cast_const().cast(),
            panels: panels.cast_const(),
            out: out.cast(),
            records: call.scratch,
        };
        let n_threads = call.work.n_threads;
        // A single row is rounded faster than a thread starts.
        let rounding = if m * self.product.k < SERIAL {
            1
        } else {
            n_threads
        };
        pool::for_each_range(rounding, m, &|rows| rows.for_each(|row| run.round(row)));
        pool::for_each_range(n_threads, call.work.units, &|panels| {
            panels.for_each(|at| run.panel(at));
        });
        Ok(())
    }

    fn packings(&self) -> &[Packing] {
        std::slice::from_ref(&self.packing)
    }

    // SAFETY: the trait's contract: `from` has all rows, `to` room for all panels.
    unsafe fn pack(&self, _: usize, from: *const u8, to: *mut u8, n_threads: usize) {
        let all = Pack {
            code: self,
            rows: from,
            panels: to,
        };
        pool::for_each_range(n_threads, self.n_panels(), &|panels| {
            panels.for_each(|at| all.panel(at));
        });
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}

impl Pack<'_> {
    fn panel(&self, at: usize) {
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

    fn round(&self, row: usize) {
        let product = &self.code.product;
        let from = self.activations.wrapping_add(row * product.k);
        // SAFETY: row `row` of the activations, and its own record.
        unsafe { (self.code.round)(product.n_groups() as i64, from, self.record(row)) };
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
