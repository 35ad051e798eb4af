//! Kernels of products with block weights, compiled and linked; the module `run` has the loops around them.

use std::path::Path;
use std::sync::Arc;

use super::activations::{RoundFn, RowForm, emit_round, record_bytes};
use super::form::{COLUMNS, Dots, Form};
use super::ir::{BlockProduct, Part};
use super::lookup::{self, LookupFn, PANELS, TABLE_BYTES, TablesFn, emit_lookup, emit_tables};
use super::run::{Pack, Run};
use super::tile::{self, TileFn, emit_tile};
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
    /// Groups whose products are added up as whole numbers.
    summed: usize,
    /// Whether a four of each group of activations has more bits.
    has_outliers: bool,
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
        let (round, tiles, lookups) = unsafe {
            let address = |symbol: String| jit.address(&symbol);
            let round =
                std::mem::transmute::<*const (), RoundFn>(address(kind.round(product.scheme))?);
            let mut tiles = Vec::new();
            for &rows in tile::heights(&kind.target) {
                let function = std::mem::transmute::<*const (), TileFn>(address(kind.tile(rows))?);
                tiles.push((rows, function));
            }
            let mut lookups = None;
            if kind.looks_up() {
                let tables = address(kind.tables())?;
                let tables = std::mem::transmute::<*const (), TablesFn>(tables);
                let function = |panels| {
                    let function = address(kind.lookup(panels))?;
                    Ok(std::mem::transmute::<*const (), LookupFn>(function))
                };
                let [four, two, one] = PANELS.map(function);
                lookups = Some(Lookups {
                    tables,
                    kernels: [four?, two?, one?],
                });
            }
            (round, tiles, lookups)
        };
        let form = kind.form();
        Ok(BlockCode {
            name,
            key,
            signed: kind.dots().is_signed(&form),
            packings: (product.parts.iter())
                .map(|part| kind.packing(product, part))
                .collect(),
            form,
            product: product.clone(),
            round,
            tiles,
            lookups,
            _jit: jit.clone(),
        })
    }
}

impl Kind {
    fn of(product: &BlockProduct, target: &Target) -> Kind {
        Kind {
            ty: product.ty,
            summed: Form::of(product.ty).map_or(1, |form| form.summed(product.scheme)),
            has_outliers: product.scheme == ActivationScheme::A8G32Outlier,
            target: target.clone(),
        }
    }

    fn form(&self) -> Form {
        Form::of(self.ty).expect("products are only made of types with kernels")
    }

    fn dots(&self) -> Dots {
        Dots::of(&self.target)
    }

    /// How some of a product's weights are laid out.
    fn packing(&self, product: &BlockProduct, part: &Part) -> Packing {
        let (form, blocks) = (self.form(), product.n_blocks());
        let signed = self.dots().is_signed(&form);
        let version = env!("CARGO_PKG_VERSION");
        let what = format!("{version} panels {} {signed} {blocks} {}", self.ty, part.n);
        Packing {
            operand: part.weights,
            bytes: part.n_panels() * form.panel_bytes(blocks).iter().sum::<usize>(),
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
        let (ty, summed, isa) = (self.ty.name(), self.summed, self.isa());
        let outliers = if self.has_outliers { "o" } else { "" };
        format!("blocks_{ty}_{summed}{outliers}_{rows}x{COLUMNS}_{isa}")
    }

    fn tables(&self) -> String {
        format!("block_tables_{}", self.isa())
    }

    fn lookup(&self, panels: usize) -> String {
        let (ty, isa) = (self.ty.name(), self.isa());
        format!("block_lookup_{ty}_{panels}x{COLUMNS}_{isa}")
    }

    /// The schemes that activations of these kernels are rounded by.
    fn schemes(&self) -> impl Iterator<Item = ActivationScheme> {
        let (form, summed, has_outliers) = (self.form(), self.summed, self.has_outliers);
        let plain = ActivationScheme::BYTES.into_iter();
        let plain = plain.filter(move |scheme| !has_outliers && form.summed(*scheme) == summed);
        plain.chain(has_outliers.then_some(ActivationScheme::A8G32Outlier))
    }

    /// Whether there are kernels that look products up.
    fn looks_up(&self) -> bool {
        lookup::fits(&self.target, &self.form(), self.summed)
    }

    fn emit<'c>(
        &self,
        context: &'c inkwell::context::Context,
        module: &inkwell::module::Module<'c>,
    ) {
        let (form, dots) = (self.form(), self.dots());
        let row = RowForm::of(&form, dots, self.summed);
        for scheme in self.schemes() {
            emit_round(context, module, &self.round(scheme), scheme, row);
        }
        for &rows in tile::heights(&self.target) {
            let form = (form, dots, self.target.lanes());
            let kind = (rows, self.summed, self.has_outliers);
            emit_tile(context, module, &self.tile(rows), form, kind);
        }
        if self.looks_up() {
            emit_tables(context, module, &self.tables());
            let lanes = self.target.lanes();
            for panels in PANELS {
                emit_lookup(context, module, &self.lookup(panels), lanes, panels);
            }
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
    pub(super) product: BlockProduct,
    form: Form,
    /// Whether numbers in panels are signed.
    pub(super) signed: bool,
    /// Of each part.
    packings: Vec<Packing>,
    pub(super) round: RoundFn,
    pub(super) tiles: Vec<(usize, TileFn)>,
    /// What multiplies few rows, if something else does.
    lookups: Option<Lookups>,
    _jit: Arc<Jit>,
}

/// Kernels that look products up.
#[derive(Debug)]
pub(super) struct Lookups {
    pub(super) tables: TablesFn,
    /// As many as there are [`PANELS`].
    pub(super) kernels: [LookupFn; PANELS.len()],
}

/// The most rows of activations whose products are looked up: more are multiplied faster.
const LOOKED_UP: usize = 2;

impl BlockCode {
    /// The same code, whose panels are kept in files of a folder.
    pub fn with_folder(mut self, folder: Option<&Path>) -> BlockCode {
        for packing in &mut self.packings {
            packing.folder = folder.map(Path::to_path_buf);
        }
        self
    }

    pub(super) fn record_bytes(&self) -> usize {
        record_bytes(self.product.n_groups())
    }

    /// The kernels that look up the products of `m` rows, if they do.
    pub(super) fn lookups(&self, m: usize) -> Option<&Lookups> {
        self.lookups.as_ref().filter(|_| m <= LOOKED_UP)
    }

    /// Bytes of a row's record and the tables behind it.
    pub(super) fn looked_up_row(&self) -> usize {
        self.record_bytes() + self.product.n_groups() * TABLE_BYTES
    }

    /// Bytes of what a thread makes of `m` rows to look their products up.
    pub(super) fn looked_up_bytes(&self, m: usize) -> usize {
        m * self.looked_up_row()
    }

    fn n_panels(&self) -> usize {
        self.product.parts.iter().map(Part::n_panels).sum()
    }

    /// Bytes of a panel.
    pub(super) fn panel_bytes(&self) -> usize {
        let bytes = self.form.panel_bytes(self.product.n_blocks());
        bytes.iter().sum()
    }

    /// Where a panel begins in each region, from the beginning of its part, and its bytes there.
    pub(super) fn panel(&self, part: &Part, at: usize) -> [(usize, usize); 3] {
        let bytes = self.form.panel_bytes(self.product.n_blocks());
        let before = [0, bytes[0], bytes[0] + bytes[1]].map(|bytes| bytes * part.n_panels());
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
            .saturating_mul(self.product.n())
            .saturating_mul(self.product.k);
        let n_threads = if cost < SERIAL { 1 } else { n_threads };
        let scratch_bytes = match self.lookups(m) {
            Some(_) => n_threads * self.looked_up_bytes(m),
            None => m * self.record_bytes(),
        };
        Ok(Work {
            units: self.n_panels(),
            cost,
            n_threads,
            scratch_bytes,
        })
    }

    fn depends_on(&self, symbol: char) -> bool {
        has(&[self.product.m], symbol)
    }

    // SAFETY: the trait's contract: the buffers fit the types under the call's symbols and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let m = call.params[0].max(0) as usize;
        let n_parts = self.product.parts.len();
        let (operands, panels) = call.buffers.split_at(call.buffers.len() - n_parts);
        let [.., out] = operands else {
            unreachable!("operands and the result come before packed weights");
        };
        let run = Run {
            code: self,
            m,
            activations: call.buffers[self.product.activations].cast_const().cast(),
            panels,
            out: out.cast(),
            scratch: call.scratch,
        };
        let (n_threads, n_panels) = (call.work.n_threads, call.work.units);
        if let Some(lookups) = self.lookups(m) {
            let begin = |thread| (0..m).for_each(|row| run.make_tables(lookups, thread, row));
            let look_up = |thread, panels| run.look_up(lookups, thread, panels);
            pool::for_each_range_after(n_threads, n_panels, &begin, &look_up);
            return Ok(());
        }
        // A single row is rounded faster than a thread starts.
        let rounding = if m * self.product.k < SERIAL {
            1
        } else {
            n_threads
        };
        pool::for_each_range(rounding, m, &|rows| rows.for_each(|row| run.round(row)));
        pool::for_each_range(n_threads, n_panels, &|panels| run.multiply(panels));
        Ok(())
    }

    fn packings(&self) -> &[Packing] {
        &self.packings
    }

    // SAFETY: the trait's contract: `from` has all rows of a part, `to` room for all its panels.
    unsafe fn pack(&self, number: usize, from: *const u8, to: *mut u8, n_threads: usize) {
        let part = self.product.parts[number];
        let all = Pack {
            code: self,
            part,
            rows: from,
            panels: to,
        };
        pool::for_each_range(n_threads, part.n_panels(), &|panels| {
            panels.for_each(|at| all.panel(at));
        });
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::ActivationScheme as Scheme;

    fn product(scheme: Scheme, ty: BlockType, n: usize) -> BlockProduct {
        BlockProduct {
            ty,
            scheme,
            m: 's'.into(),
            k: 512,
            activations: 0,
            parts: [Part { weights: 1, n }].into_iter().collect(),
        }
    }

    fn code(scheme: Scheme, ty: BlockType, target: &str, n: usize) -> Option<BlockCode> {
        let target = Target::for_cpu(target).unwrap();
        let product = product(scheme, ty, n);
        let kernels = CompiledBlocks::of(&product, &target, &ObjectCache::disabled()).unwrap();
        let jit = Arc::new(Jit::new().unwrap());
        target
            .can_run_here()
            .then(|| kernels.link(&product, ("test".into(), 1), &jit).unwrap())
    }

    /// Bytes of scratch memory with so many rows, beyond their records.
    fn tables(code: &BlockCode, m: usize) -> usize {
        let mut symbols = Symbols::default();
        symbols.set('s', m as i64);
        let bytes = |n_threads| {
            let work = code.prepare(&symbols, n_threads, &mut Vec::new());
            work.unwrap().scratch_bytes
        };
        assert_eq!(bytes(1), bytes(3), "too little work for several");
        bytes(1) - m * code.record_bytes()
    }

    #[test]
    fn panels_are_looked_up_by_fours_and_blocks_are_asked_for_into_the_first_cache() {
        let target = Target::for_cpu("x86-64-v3").unwrap();
        let text = |ty| {
            let product = product(Scheme::for_weights(ty), ty, 40);
            assembly(&product, &target).unwrap()
        };
        let (signs, nibbles) = (text(BlockType::Q1_0), text(BlockType::Q4_0));
        assert!(signs.contains("\nblock_lookup_Q1_0_4x16_"), "{signs}");
        let asked = |text: &str, instruction| text.matches(instruction).count() > 0;
        assert!(asked(&nibbles, "prefetcht0") && !asked(&nibbles, "prefetcht1"));
        assert!(asked(&signs, "prefetcht1"), "tables are in the first cache");
    }

    #[test]
    fn what_pays_for_unsigned_numbers_is_added_once_for_a_block() {
        let target = Target::for_cpu("znver4").unwrap();
        let text = assembly(&product(Scheme::A8G128, BlockType::Q1_0, 40), &target).unwrap();
        let kernel = text.split("\nblocks_Q1_0_4_12x16_").nth(1).unwrap();
        let kernel = &kernel[..kernel.find("retq").unwrap()];
        let count = |instruction| kernel.matches(instruction).count();
        assert_eq!(count("vpdpbusd"), 12 * 8);
        // One for each row, before the loop over a block's groups, and nothing else is read into all lanes but activations.
        assert_eq!(count("vpbroadcastd"), 12);
        assert_eq!(count("{1to16}"), 12 * 8 + 12);
    }

    #[test]
    fn threads_that_share_a_product_have_tables_of_their_own() {
        let symbols = Symbols::from_iter([('s', 1)]);
        for (ty, of_each) in [(BlockType::Q1_0, 3), (BlockType::Q4_0, 1)] {
            let scheme = Scheme::for_weights(ty);
            let Some(code) = code(scheme, ty, "x86-64-v3", 1024) else {
                return;
            };
            let bytes = |n_threads| {
                let work = code.prepare(&symbols, n_threads, &mut Vec::new());
                work.unwrap().scratch_bytes
            };
            assert_eq!(bytes(3), of_each * bytes(1), "{ty}");
        }
    }

    #[test]
    fn products_of_few_rows_with_signs_are_looked_up() {
        let Some(code_of_signs) = code(Scheme::A8G128, BlockType::Q1_0, "x86-64-v3", 40) else {
            return;
        };
        assert_eq!(tables(&code_of_signs, 1), 512 / 32 * 256);
        assert_eq!(tables(&code_of_signs, 3), 0);
        // Scales for shorter groups; more than a bit; no vectors.
        for (scheme, ty, target) in [
            (Scheme::A8G32, BlockType::Q1_0, "x86-64-v3"),
            (Scheme::A8G256, BlockType::TQ2_0, "x86-64-v3"),
            (Scheme::A8G128, BlockType::Q1_0, "scalar"),
        ] {
            let code = code(scheme, ty, target, 40).expect("it runs here");
            assert_eq!(tables(&code, 1), 0, "{scheme:?} {ty} {target}");
        }
    }
}
