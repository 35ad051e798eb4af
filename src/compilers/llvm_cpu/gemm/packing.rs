//! The packing functions of a product's operands: compiled, linked, called.
//!
//! Before: an operand. After: code that depends on how it lies (which steps are neighbours, where padding is), and the
//! sizes and distances that it is told, which follow those of the product in one table. So products of other sizes,
//! whose operands lie alike, share it.

use std::sync::Arc;

use inkwell::context::Context;
use inkwell::module::Module;

use super::ir::Contraction;
use super::micro::Tile;
use super::pack::{Operand, PackFn, emit_pack};
use crate::compilers::llvm_cpu::cache::{Key, ObjectCache};
use crate::compilers::llvm_cpu::emit_view::Params;
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;

/// An operand's packing function, ready to be linked.
#[derive(Clone, Debug)]
pub(super) struct CompiledPack {
    /// Equal names have equal code.
    pub(super) symbol: String,
    pub(super) object: Vec<u8>,
    /// Where what it is told begins in the product's table.
    pub(super) first: usize,
    /// What it is told, if that follows from no symbol.
    fixed: Option<Arc<[i64]>>,
}

impl CompiledPack {
    /// That of the left operand (`side` 0) or the right one (1). What it is told goes to the end of `params`.
    pub(super) fn new(
        (c, side): (&Contraction, usize),
        (target, tile): (&Target, Tile),
        cache: &ObjectCache,
        params: &mut Params,
    ) -> Result<CompiledPack> {
        let (mut symbol, mut own) = (String::new(), Params::default());
        let object = compile_module_cached(target, cache, |context, module| {
            symbol = emit_side(context, module, (c, side), (target, tile), &mut own);
            Ok(())
        })?;
        let fixed = own.exprs().iter().map(|told| told.as_const()).collect();
        Ok(CompiledPack {
            symbol,
            object,
            first: params.append(&own),
            fixed,
        })
    }

    pub(super) fn link(&self, jit: &Jit) -> Result<PackCode> {
        jit.add_once(&self.symbol, &self.object)?;
        let address = jit.address(&self.symbol)?;
        Ok(PackCode {
            // SAFETY: the symbol is of a function that `emit_pack` wrote, with this signature.
            function: unsafe { std::mem::transmute::<*const (), PackFn>(address) },
            first: self.first,
            fixed: self.fixed.clone(),
        })
    }
}

/// Writes the packing function of a side into a module; gives its name, which follows from its code.
pub(super) fn emit_side<'c>(
    context: &'c Context,
    module: &Module<'c>,
    (c, side): (&Contraction, usize),
    (target, tile): (&Target, Tile),
    params: &mut Params,
) -> String {
    let (access, rows, width) = match side {
        0 => (&c.lhs, &c.m, tile.rows),
        _ => (&c.rhs, &c.n, tile.columns()),
    };
    let operand = Operand {
        access,
        batch: &c.batch,
        rows,
        k: &c.k,
        width,
        lanes: target.lanes(),
    };
    let name = ["gemm_pack_lhs", "gemm_pack_rhs"][side];
    emit_pack(context, module, name, &operand, params);
    let symbol = format!("{name}_{}", Key::of(&[module.print_to_string().to_bytes()]));
    let function = module.get_function(name);
    let function = function.expect("the function was just made");
    function.as_global_value().set_name(&symbol);
    symbol
}

/// A packing function that can be called.
#[derive(Clone, Debug)]
pub(super) struct PackCode {
    function: PackFn,
    first: usize,
    fixed: Option<Arc<[i64]>>,
}

/// What is packed: rows `row .. row + rows` and steps `k .. k + steps` of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) batch: usize,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) k: usize,
    pub(super) steps: usize,
}

impl PackCode {
    /// Packs a part of the operand at `from`, given the product's table, which an operand without symbols does not need.
    ///
    /// # Panics
    /// If the table is too short.
    ///
    /// # Safety
    /// `from` holds every element that the view reads with these parameters; `to` has room for the panels of as many
    /// rows and steps.
    pub(super) unsafe fn run(&self, from: *const u8, params: &[i64], part: Part, to: *mut f32) {
        let Part {
            batch,
            row,
            rows,
            k,
            steps,
        } = part;
        let [batch, row, rows, k, steps] = [batch, row, rows, k, steps].map(|i| i as i64);
        let told = self.fixed.as_deref();
        let told = told.unwrap_or_else(|| &params[self.first..]).as_ptr();
        // SAFETY: the caller's promise; the function reads as many parameters as were appended for it.
        unsafe { (self.function)(from, told, batch, row, rows, k, steps, to) };
    }
}
