//! The micro-kernels of a tile on a target, and what widens panels and asks for memory for them, compiled once per
//! process.

use std::sync::Arc;

use inkwell::context::Context;
use inkwell::module::Module;

use super::ahead::{self, AskFn};
use super::micro::{MicroFn, Tile, emit_micro};
use super::widen::{self, WidenFn};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::once::OncePerProcess;
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;

/// The micro-kernels of a tile.
#[derive(Debug)]
pub(super) struct Micros {
    pub(super) tile: Tile,
    /// Rows, vectors and symbol of each.
    pub(super) symbols: Vec<(u32, u32, String)>,
    /// The symbol of the widening function.
    pub(super) widen: String,
    /// The symbol of the function that asks for memory.
    ask: String,
    pub(super) object: Vec<u8>,
}

impl Micros {
    /// Those of a tile on a target.
    pub(super) fn of(target: &Target, tile: Tile, cache: &ObjectCache) -> Result<Arc<Micros>> {
        static MADE: OncePerProcess<(Target, Tile), Micros> = OncePerProcess::new();
        MADE.get_or_make((target.clone(), tile), |_| {
            let (symbols, widen) = (micro_symbols(tile, target), widen::symbol(tile, target));
            // Every tile has one: objects are linked whole.
            let ask = format!("{}_{}", ahead::symbol(target), tile.columns());
            let object = compile_module_cached(target, cache, |context, module| {
                emit_micros(context, module, tile, &symbols);
                widen::emit(context, module, &widen, tile);
                ahead::emit(context, module, &ask);
                Ok(())
            })?;
            Ok(Micros {
                tile,
                symbols,
                widen,
                ask,
                object,
            })
        })
    }

    /// The kernel for each number of rows, and within that for each number of vectors; the function that widens, and the
    /// one that asks for memory.
    pub(super) fn link(&self, jit: &Jit) -> Result<(Vec<MicroFn>, WidenFn, AskFn)> {
        jit.add_once(&self.symbols[0].2, &self.object)?;
        let tile = self.tile;
        let mut micro = Vec::new();
        for (rows, vectors) in tile.parts() {
            let mut fits = self.symbols.iter();
            let fits = fits.find(|(most, exactly, _)| *most >= rows && *exactly == vectors);
            let (_, _, symbol) = fits.expect("no part of a tile is larger than the tile");
            // SAFETY: the symbol is of a function that `emit_micro` wrote, with this signature.
            micro.push(unsafe { std::mem::transmute::<*const (), MicroFn>(jit.address(symbol)?) });
        }
        // SAFETY: the symbol is of a function that `widen::emit` wrote, with this signature.
        let widen = unsafe { std::mem::transmute::<*const (), WidenFn>(jit.address(&self.widen)?) };
        // SAFETY: the symbol is of a function that `ahead::emit` wrote, with this signature.
        let ask = unsafe { std::mem::transmute::<*const (), AskFn>(jit.address(&self.ask)?) };
        Ok((micro, widen, ask))
    }
}

/// Rows, vectors and symbol of each micro-kernel of a tile.
pub(super) fn micro_symbols(tile: Tile, target: &Target) -> Vec<(u32, u32, String)> {
    tile.kernels()
        .map(|size| (size.0, size.1, tile.symbol(size, target)))
        .collect()
}

/// Writes them into a module.
pub(super) fn emit_micros<'c>(
    context: &'c Context,
    module: &Module<'c>,
    tile: Tile,
    symbols: &[(u32, u32, String)],
) {
    for (rows, vectors, symbol) in symbols {
        emit_micro(context, module, symbol, tile, (*rows, *vectors));
    }
}
