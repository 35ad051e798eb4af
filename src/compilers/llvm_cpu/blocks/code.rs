//! Kernels of products with block weights, and the loops around them.

use std::sync::Arc;

use smallvec::SmallVec;

use super::activations::{RoundFn, emit_round, record_bytes};
use super::dot::Dots;
use super::few::{self, FewFn, emit_few};
use super::ir::BlockProduct;
use super::panel;
use super::tile::{self, COLUMNS, TileFn, emit_tile};
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::code::{evaluate, has};
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::exec::pool;
use crate::op::{ActivationScheme, KernelCall, NativeCode, Work};
use crate::shape::Symbols;

/// Rows of activations from which laying weights out in panels pays.
const MANY: usize = 8;

/// Multiply-adds below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 18;

/// Rows of weights that a thread takes at a time.
const PIECE: usize = 64;

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
    dots: Dots,
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
            let dots = Dots::of(kind.ty, target);
            let object = compile_module_cached(target, cache, |context, module| {
                kind.emit(dots, context, module);
                Ok(())
            })?;
            Ok(CompiledBlocks {
                kind: kind.clone(),
                dots,
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
        jit.add_once(&kind.few((1, few::ROWS)), &self.object)?;
        // SAFETY: the symbols are of functions that `emit_round`, `emit_few` and `emit_tile` wrote, with these
        // signatures.
        let (round, few, tiles) = unsafe {
            let address = |symbol: String| jit.address(&symbol);
            let round =
                std::mem::transmute::<*const (), RoundFn>(address(kind.round(product.scheme))?);
            let mut few = Vec::new();
            for shape in few::shapes(&kind.target) {
                let function = std::mem::transmute::<*const (), FewFn>(address(kind.few(shape))?);
                few.push((shape, function));
            }
            let mut tiles = Vec::new();
            for &rows in tile::heights(&kind.target) {
                let function = std::mem::transmute::<*const (), TileFn>(address(kind.tile(rows))?);
                tiles.push((rows, function));
            }
            (round, few, tiles)
        };
        Ok(BlockCode {
            name,
            key,
            product: product.clone(),
            dots: self.dots,
            most: few::most(&kind.target),
            round,
            few,
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

    fn isa(&self) -> String {
        self.target.symbol_part()
    }

    fn round(&self, scheme: ActivationScheme) -> String {
        let (ty, scheme) = (self.ty.name(), scheme.name());
        format!("round_{scheme}_{ty}_{}", self.isa())
    }

    fn few(&self, (few, rows): (usize, usize)) -> String {
        format!("blocks_{}_{few}x{rows}_{}", self.ty.name(), self.isa())
    }

    fn tile(&self, rows: usize) -> String {
        format!(
            "blocks_{}_{rows}x{COLUMNS}_tile_{}",
            self.ty.name(),
            self.isa()
        )
    }

    fn emit<'c>(
        &self,
        dots: Dots,
        context: &'c inkwell::context::Context,
        module: &inkwell::module::Module<'c>,
    ) {
        let factor = dots.factor(self.ty);
        for scheme in ActivationScheme::ALL {
            emit_round(context, module, &self.round(scheme), scheme, factor);
        }
        for shape in few::shapes(&self.target) {
            emit_few(context, module, &self.few(shape), (self.ty, dots), shape);
        }
        for &rows in tile::heights(&self.target) {
            let form = (dots, self.target.lanes());
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
        kind.emit(Dots::of(kind.ty, target), context, module);
        Ok(())
    })
}

/// A product with block weights that can be run.
#[derive(Debug)]
pub struct BlockCode {
    name: String,
    key: u64,
    product: BlockProduct,
    dots: Dots,
    /// Rows of activations of the largest kernel for few.
    most: usize,
    round: RoundFn,
    few: Vec<((usize, usize), FewFn)>,
    tiles: Vec<(usize, TileFn)>,
    _jit: Arc<Jit>,
}

/// One call, as all threads see it.
struct Run<'a> {
    code: &'a BlockCode,
    m: usize,
    activations: *const f32,
    weights: *const u8,
    out: *mut f32,
    records: *mut u8,
    panels: *mut u8,
}

// SAFETY: operands are only read; each unit of work writes its own records, panel or columns of the result.
unsafe impl Sync for Run<'_> {}

impl BlockCode {
    fn is_many(&self, m: usize) -> bool {
        m >= MANY
    }

    fn record_bytes(&self) -> usize {
        record_bytes(self.product.n_blocks(), self.dots.has_words())
    }

    fn panel_bytes(&self) -> usize {
        let bytes = self.product.n_blocks() * tile::block_bytes(self.dots.has_words());
        bytes.next_multiple_of(64)
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
        let n_threads = if cost < SERIAL { 1 } else { n_threads };
        let panels = if self.is_many(m) {
            n_threads * self.panel_bytes()
        } else {
            0
        };
        Ok(Work {
            units: self.product.n.div_ceil(PIECE),
            cost,
            n_threads,
            scratch_bytes: m * self.record_bytes() + panels,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&[self.product.m], symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let m = call.params[0].max(0) as usize;
        let output = call.buffers.len() - 1;
        let run = Run {
            code: self,
            m,
            activations: call.buffers[self.product.activations].cast_const().cast(),
            weights: call.buffers[self.product.weights].cast_const(),
            out: call.buffers[output].cast(),
            records: call.scratch,
            // SAFETY: within the scratch memory that `prepare` asked for.
            panels: unsafe { call.scratch.add(m * self.record_bytes()) },
        };
        let n_threads = call.work.n_threads;
        // A single row is rounded faster than a thread starts.
        let rounding = if m * self.product.k < SERIAL {
            1
        } else {
            n_threads
        };
        pool::for_each_range(rounding, m, &|rows| rows.for_each(|row| run.round(row)));
        match self.is_many(m) {
            false => pool::for_each_range(n_threads, call.work.units, &|pieces| {
                pieces.for_each(|piece| run.few(piece));
            }),
            true => {
                let panels = self.product.n.div_ceil(COLUMNS);
                let next = std::sync::atomic::AtomicUsize::new(0);
                pool::broadcast(n_threads, &|thread, _| {
                    loop {
                        let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if at >= panels {
                            break;
                        }
                        run.panel(thread, at);
                    }
                });
            }
        }
        Ok(())
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}

impl Run<'_> {
    fn record(&self, row: usize) -> *mut u8 {
        self.records.wrapping_add(row * self.code.record_bytes())
    }

    fn round(&self, row: usize) {
        let product = &self.code.product;
        let words = i64::from(self.code.dots.has_words() && self.code.is_many(self.m));
        let from = self.activations.wrapping_add(row * product.k);
        // SAFETY: row `row` of the activations, and its own record.
        unsafe { (self.code.round)(product.n_blocks() as i64, from, self.record(row), words) };
    }

    /// Some rows of weights, by all rows of activations.
    fn few(&self, piece: usize) {
        let (code, product) = (self.code, &self.code.product);
        let end = ((piece + 1) * PIECE).min(product.n);
        let mut first = piece * PIECE;
        while first < end {
            let rows = if end - first >= few::ROWS {
                few::ROWS
            } else {
                1
            };
            for row in (0..self.m).step_by(code.most) {
                self.products((row, code.most.min(self.m - row)), (first, rows));
            }
            first += rows;
        }
    }

    fn products(&self, (row, few): (usize, usize), (first, rows): (usize, usize)) {
        let (code, product) = (self.code, &self.code.product);
        let bytes = product.row_bytes();
        let weights: [_; few::ROWS] =
            std::array::from_fn(|i| self.weights.wrapping_add((first + i) * bytes));
        let records: SmallVec<[*const u8; 4]> = (row..row + few)
            .map(|row| self.record(row).cast_const())
            .collect();
        let mut results = [0f32; 4 * few::ROWS];
        let function = code.few.iter().find(|(shape, _)| *shape == (few, rows));
        let function = function.expect("a kernel for every number of rows").1;
        // Only the first rows of activations read memory; the others find the weights in a cache.
        let ahead = if row == 0 { rows * bytes } else { 0 };
        let next = weights[0].wrapping_add(ahead);
        // SAFETY: whole rows of weights, records of all rows of activations, room for the results.
        unsafe {
            function(
                product.n_blocks() as i64,
                weights.as_ptr(),
                records.as_ptr(),
                results.as_mut_ptr(),
                next,
            )
        };
        for (i, results) in results.chunks_exact(rows).take(few).enumerate() {
            let to = self.out.wrapping_add((row + i) * product.n + first);
            // SAFETY: elements of the result that are this piece's alone.
            unsafe { std::ptr::copy_nonoverlapping(results.as_ptr(), to, rows) };
        }
    }

    /// A panel of weights, by all rows of activations.
    fn panel(&self, thread: usize, at: usize) {
        let (code, product) = (self.code, &self.code.product);
        let (blocks, bytes) = (product.n_blocks(), product.row_bytes());
        let first = at * COLUMNS;
        let columns = COLUMNS.min(product.n - first);
        let size = code.panel_bytes();
        // SAFETY: rows of the weights; the thread's own panel in the scratch memory.
        let (rows, panel) = unsafe {
            (
                std::slice::from_raw_parts(self.weights.add(first * bytes), columns * bytes),
                std::slice::from_raw_parts_mut(self.panels.add(thread * size), size),
            )
        };
        panel::pack(product.ty, code.dots, rows, blocks, panel);
        let mut row = 0;
        while row < self.m {
            let mut kernels = code.tiles.iter();
            let fits = kernels.find(|(rows, _)| *rows <= self.m - row);
            let (rows, function) = fits.expect("there is a kernel for one row");
            let records: SmallVec<[*const u8; 12]> = (row..row + rows)
                .map(|row| self.record(row).cast_const())
                .collect();
            let mut results = [0f32; 12 * COLUMNS];
            // SAFETY: a panel of `blocks` blocks, records of these rows, room for the results.
            unsafe {
                function(
                    blocks as i64,
                    panel.as_ptr(),
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
