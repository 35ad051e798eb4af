//! The micro-kernels of a target, compiled once per process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use inkwell::context::Context;
use inkwell::module::Module;

use super::micro::{MicroFn, Tile, emit_micro};
use crate::compilers::llvm_cpu::cache::ObjectCache;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::error::Result;

/// The micro-kernels of a target for panels of the right operand in one format.
#[derive(Debug)]
pub(super) struct Micros {
    pub(super) tile: Tile,
    /// Rows, vectors and symbol of each.
    pub(super) symbols: Vec<(u32, u32, String)>,
    pub(super) object: Vec<u8>,
}

impl Micros {
    /// Those of `target` for panels in format `b`.
    pub(super) fn of(target: &Target, b: DType, cache: &ObjectCache) -> Result<Arc<Micros>> {
        type Made = HashMap<(Target, DType), Arc<Micros>>;
        static MADE: Mutex<Option<Made>> = Mutex::new(None);
        let mut made = MADE.lock().expect("nothing panics while holding this lock");
        let made = made.get_or_insert_default();
        let key = (target.clone(), b);
        if let Some(micros) = made.get(&key) {
            return Ok(micros.clone());
        }
        let tile = Tile::of(target);
        let symbols = micro_symbols(tile, b, target);
        let object = compile_module_cached(target, cache, |context, module| {
            emit_micros(context, module, tile, &symbols, b);
            Ok(())
        })?;
        let micros = Arc::new(Micros {
            tile,
            symbols,
            object,
        });
        made.insert(key, micros.clone());
        Ok(micros)
    }

    /// The kernel for each number of rows, and within that for each number of vectors.
    pub(super) fn link(&self, jit: &Jit) -> Result<Vec<MicroFn>> {
        jit.add_once(&self.symbols[0].2, &self.object)?;
        let tile = self.tile;
        let mut micro = Vec::new();
        for (rows, vectors) in (1..=tile.rows).flat_map(|r| (1..=tile.vectors).map(move |v| (r, v)))
        {
            let mut fits = self.symbols.iter();
            let fits = fits.find(|(most, exactly, _)| *most >= rows && *exactly == vectors);
            let (_, _, symbol) = fits.expect("no part of a tile is larger than the tile");
            // SAFETY: the symbol is of a function that `emit_micro` wrote, with this signature.
            micro.push(unsafe { std::mem::transmute::<*const (), MicroFn>(jit.address(symbol)?) });
        }
        Ok(micro)
    }
}

/// Rows, vectors and symbol of each micro-kernel of a target.
pub(super) fn micro_symbols(tile: Tile, b: DType, target: &Target) -> Vec<(u32, u32, String)> {
    tile.kernels()
        .map(|size| (size.0, size.1, tile.symbol(size, b, target)))
        .collect()
}

/// Writes them into a module.
pub(super) fn emit_micros<'c>(
    context: &'c Context,
    module: &Module<'c>,
    tile: Tile,
    symbols: &[(u32, u32, String)],
    b: DType,
) {
    for (rows, vectors, symbol) in symbols {
        emit_micro(context, module, symbol, tile, (*rows, *vectors), b);
    }
}
