//! From a loop nest to machine code.
//!
//! Before: a [`Nest`], what to compute. After: one function with the kernel ABI
//! ([`KernelFn`](super::jit::KernelFn)), as an object file.
//!
//! The steps: `plan` checks and simplifies, with `repeats`; `stages` says what is evaluated when;
//! `emitter` has the function, parameters and loops; `map`, `reduce`, `abreast` and `rows` the
//! shape of the loops; `frame` evaluates the body along a row; `access`, `near` and `big` read and
//! write memory; `scalar` and [`vmath`](super::vmath) compute.
//!
//! Invariants:
//! - The result's bits do not depend on the target, nor on how the units are split.
//! - Padding, bad indices and empty dims never cause a read outside of a buffer.
//! - Symbols stay symbolic: one object serves every binding. The host evaluates
//!   [`Lowered::params`] and [`Lowered::units`].
//! - Unresolved symbols are at most `fmaf`, `fma` (targets without the instruction),
//!   `fmodf`, `fmod` (`Mod` on floats), `memset` and `memcpy`.
//!
//! Contractions (matmul, convolution) deserve better loops than these; they have
//! their own kernels.

pub mod vector;

mod abreast;
mod access;
mod big;
mod check;
mod emitter;
mod frame;
mod map;
mod near;
mod plan;
mod random;
mod reduce;
mod repeats;
mod rows;
mod scalar;
mod stages;
#[cfg(test)]
mod tests;
pub mod tile;

pub use reduce::STRIPES;

use inkwell::context::Context;
use inkwell::module::Module;

use self::emitter::Emitter;
use self::plan::{Along, Plan};
use super::cache::ObjectCache;
use super::ir::Nest;
use super::jit;
use super::target::Target;
use crate::shape::Expr;

/// A compiled nest.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The function's name, derived from its code: equal names have equal code.
    pub symbol: String,
    /// The object file that defines it.
    pub object: Vec<u8>,
    /// The expressions whose values the `params` argument holds, in order.
    pub params: Vec<Expr>,
    /// How many units of work there are: `begin..end` is a part of `0..units`.
    pub units: Expr,
}

/// Why a nest was not lowered; the reference executor can run it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot lower: {0}")]
pub struct CannotLower(pub String);

impl From<crate::error::Error> for CannotLower {
    fn from(error: crate::error::Error) -> Self {
        CannotLower(error.to_string())
    }
}

/// Compiles a nest for a target.
///
/// # Errors
/// A malformed nest, an operation that has no code for its type, or a failure of LLVM.
pub fn lower(nest: &Nest, target: &Target) -> Result<Lowered, CannotLower> {
    lower_with(nest, target, None)
}

/// [`lower`], except that an object compiled earlier is taken from `cache`, and a new
/// one is put there.
///
/// # Errors
/// Those of [`lower`].
pub fn lower_cached(
    nest: &Nest,
    target: &Target,
    cache: &ObjectCache,
) -> Result<Lowered, CannotLower> {
    lower_with(nest, target, Some(cache))
}

/// Whether a nest with several reductions, or with reductions and a result per point, can be lowered row by row with
/// the bits of one nest per reduction and no slower.
pub fn runs_by_rows(nest: &Nest) -> bool {
    Plan::new(nest).is_ok_and(|plan| plan.runs_by_rows())
}

/// Whether the sums of a nest add up in the order of those of another one, so that both have the same bits. The
/// first may have several.
pub fn adds_like(nest: &Nest, single: &Nest) -> bool {
    let (Ok(plan), Ok(single)) = (Plan::new(nest), Plan::new(single)) else {
        return false;
    };
    if plan.reduce != single.reduce {
        return false;
    }
    match plan.is_by_rows() {
        true => plan.runs_by_rows() && single.along() == Along::Reduced,
        false => plan.along() == single.along(),
    }
}

/// The LLVM IR of a nest, before any pass.
///
/// # Errors
/// Those of [`lower`].
pub fn ir_text(nest: &Nest, target: &Target) -> Result<String, CannotLower> {
    let plan = Plan::new(nest)?;
    Ok(jit::ir_text(target, |context, module| {
        build(context, module, &plan, target);
        Ok(())
    })?)
}

/// The assembly of a nest.
///
/// # Errors
/// Those of [`lower`].
pub fn assembly(nest: &Nest, target: &Target) -> Result<String, CannotLower> {
    let plan = Plan::new(nest)?;
    Ok(jit::assembly(target, |context, module| {
        build(context, module, &plan, target);
        Ok(())
    })?)
}

fn lower_with(
    nest: &Nest,
    target: &Target,
    cache: Option<&ObjectCache>,
) -> Result<Lowered, CannotLower> {
    let plan = Plan::new(nest)?;
    let mut built = (String::new(), vec![]);
    let object = match cache {
        Some(cache) => jit::compile_module_cached(target, cache, |context, module| {
            built = build(context, module, &plan, target);
            Ok(())
        })?,
        None => jit::compile_module(target, |context, module| {
            built = build(context, module, &plan, target);
            Ok(())
        })?,
    };
    let (symbol, params) = built;
    let units = if nest.stages.is_empty() {
        map::units(&plan, map::BLOCK)
    } else {
        reduce::units(&plan)
    };
    Ok(Lowered {
        symbol,
        object,
        params,
        units,
    })
}

/// Fills `module`; gives the function's name and the expressions of its parameters.
fn build<'c>(
    context: &'c Context,
    module: &Module<'c>,
    plan: &Plan<'_>,
    target: &Target,
) -> (String, Vec<Expr>) {
    let mut emitter = Emitter::new(context, module, plan, target, ("nest", 0));
    match &plan.nest.stages[..] {
        [] => emitter.map(),
        _ if plan.is_by_rows() => emitter.by_rows(),
        _ => emitter.reduce(),
    }
    emitter.finish_stores();
    let params = emitter.finish();
    let text = module.print_to_string();
    let symbol = format!("nest_{:016x}", fnv(text.to_bytes()));
    let function = module
        .get_function("nest")
        .expect("the function was just made");
    function.as_global_value().set_name(&symbol);
    (symbol, params)
}

/// The 64-bit FNV-1a hash: the same in every process.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
