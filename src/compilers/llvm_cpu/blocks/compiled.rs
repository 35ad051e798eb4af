//! Kernels of products with block weights, compiled: what [`super::code`] calls.

use std::sync::Arc;

use super::activations::{RoundFn, RowForm, emit_round};
use super::code::BlockCode;
use super::form::{COLUMNS, Dots, Form};
use super::ir::{BlockProduct, Part};
use super::lookup::{self, KERNELS, LookupFn, TablesFn, emit_lookup, emit_tables};
use super::tile::{self, TileFn, emit_tile};
use super::turn::{self, TurnFn, emit_turn};
use crate::blocks::BlockType;
use crate::compilers::llvm_cpu::cache::{Key, ObjectCache};
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::op::{ActivationScheme, Packing};

/// The functions of a product.
#[derive(Clone, Debug)]
pub(super) struct Functions {
    pub(super) round: RoundFn,
    /// Of so many rows each, the most first.
    pub(super) tiles: Vec<(usize, TileFn)>,
    /// What multiplies few rows, if something else does.
    pub(super) lookups: Option<Lookups>,
    /// What lays whole panels out, if the target has it.
    pub(super) turn: Option<TurnFn>,
}

/// Kernels that look products up.
#[derive(Clone, Debug)]
pub(super) struct Lookups {
    pub(super) tables: TablesFn,
    /// Of so many rows and panels each.
    pub(super) kernels: Vec<((usize, usize), LookupFn)>,
}

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
        let form = kind.form();
        Ok(BlockCode {
            name,
            key,
            dots: kind.dots(),
            packings: (product.parts.iter())
                .map(|part| kind.packing(product, part))
                .collect(),
            form,
            product: product.clone(),
            functions: kind.functions(product.scheme, jit)?,
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
        Dots::of(&self.target, &self.form())
    }

    /// Rows of the kernels that multiply.
    fn heights(&self) -> &'static [usize] {
        tile::heights(&self.target, self.dots(), self.summed)
    }

    /// How some of a product's weights are laid out.
    fn packing(&self, product: &BlockProduct, part: &Part) -> Packing {
        let (form, blocks) = (self.form(), product.n_blocks());
        let version = env!("CARGO_PKG_VERSION");
        let what = format!("{version} panels {} {blocks} {}", self.ty, part.n);
        Packing {
            operand: part.weights,
            bytes: part.n_panels() * form.panel_bytes(blocks).iter().sum::<usize>(),
            layout: Key::of(&[what.as_bytes()]).short(),
            folder: None,
            can_wait: self.turns(),
        }
    }

    /// The linked functions.
    fn functions(&self, scheme: ActivationScheme, jit: &Jit) -> Result<Functions> {
        let address = |symbol: String| jit.address(&symbol);
        // SAFETY: the symbols are of functions that `emit` wrote, with these signatures.
        unsafe {
            let round = std::mem::transmute::<*const (), RoundFn>(address(self.round(scheme))?);
            let mut tiles = Vec::new();
            for &rows in self.heights() {
                let function = std::mem::transmute::<*const (), TileFn>(address(self.tile(rows))?);
                tiles.push((rows, function));
            }
            let mut lookups = None;
            if self.looks_up() {
                let tables = address(self.tables())?;
                let tables = std::mem::transmute::<*const (), TablesFn>(tables);
                let function = |size| {
                    let function = address(self.lookup(size))?;
                    Ok((size, std::mem::transmute::<*const (), LookupFn>(function)))
                };
                let kernels = KERNELS.into_iter().map(function);
                lookups = Some(Lookups {
                    tables,
                    kernels: kernels.collect::<Result<_>>()?,
                });
            }
            let mut turn = None;
            if self.turns() {
                let function = address(self.turn())?;
                turn = Some(std::mem::transmute::<*const (), TurnFn>(function));
            }
            Ok(Functions {
                round,
                tiles,
                lookups,
                turn,
            })
        }
    }

    /// Whether whole panels are laid out by a function.
    fn turns(&self) -> bool {
        turn::fits(&self.target, self.ty)
    }

    fn turn(&self) -> String {
        let (ty, isa) = (self.ty.name(), self.isa());
        format!("block_turn_{ty}_{COLUMNS}_{isa}")
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

    fn lookup(&self, (rows, panels): (usize, usize)) -> String {
        let (ty, isa) = (self.ty.name(), self.isa());
        format!("block_lookup_{ty}_{rows}x{panels}x{COLUMNS}_{isa}")
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
        for &rows in self.heights() {
            let form = (form, dots, self.target.lanes());
            let kind = (rows, self.summed, self.has_outliers);
            emit_tile(context, module, &self.tile(rows), form, kind);
        }
        if self.turns() {
            emit_turn(context, module, &self.turn(), self.ty);
        }
        if self.looks_up() {
            emit_tables(context, module, &self.tables());
            let lanes = self.target.lanes();
            for size in KERNELS {
                emit_lookup(context, module, &self.lookup(size), lanes, size);
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
