//! Loop nests called in a row → one function that calls them all.
//!
//! A small graph takes a few microseconds, of which starting its kernels one by one is a good part. Before: one table
//! of buffers, parameters, units and an error slot per kernel. After: the same tables, one behind the other, and
//!
//! ```text
//! sequence(buffers, params, units, errors):
//!     nest_0(buffers, params, 0, units[0], errors)
//!     nest_1(buffers + .., params + .., 0, units[1], errors + 1)
//!     ...
//! ```
//!
//! The nests are those that were compiled for the kernels, so the bits are the same. Sizes may be symbolic. There are no threads in a
//! sequence: it is for graphs that are too small for any.

use std::sync::Arc;

use inkwell::AddressSpace;
use inkwell::context::Context;
use inkwell::module::Module;

use super::cache::{Key, ObjectCache};
use super::code::reported;
use super::emit::{BUILT, Emit};
use super::jit::{Jit, compile_module_cached};
use super::target::Target;
use crate::error::{Error, Result};
use crate::op::{NativeSequence, SequenceCall, SequencePart};

/// Where linked code lives, and for which machine it is.
#[derive(Debug)]
pub struct Linker {
    /// The code.
    pub jit: Arc<Jit>,
    /// The machine.
    pub target: Target,
}

/// Arguments: the buffers, parameters, units and error slots of all parts.
type SequenceFn = unsafe extern "C" fn(*const *mut u8, *const i64, *const i64, *mut i64);

/// A linked sequence.
pub struct Sequence {
    function: SequenceFn,
    n_buffers: usize,
    n_params: usize,
    n_parts: usize,
    /// Keeps the code alive.
    _linker: Arc<Linker>,
}

impl std::fmt::Debug for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sequence({} parts)", self.n_parts)
    }
}

/// Links one function for these parts.
///
/// # Errors
/// If a part's function is not linked in the same place, or LLVM fails.
pub fn link(linker: &Arc<Linker>, parts: &[SequencePart<'_>]) -> Result<Sequence> {
    for part in parts {
        // An object with an unknown symbol would spoil all later look-ups.
        linker.jit.address(part.symbol)?;
    }
    let symbol = format!("sequence_{}", Key::of(&[format!("{parts:?}").as_bytes()]));
    let cache = ObjectCache::from_knobs();
    let object = compile_module_cached(&linker.target, &cache, |context, module| {
        emit(context, module, &symbol, parts);
        Ok(())
    })?;
    linker.jit.add_once(&symbol, &object)?;
    let address = linker.jit.address(&symbol)?;
    Ok(Sequence {
        // SAFETY: the symbol is of the function that `emit` wrote, with this signature.
        function: unsafe { std::mem::transmute::<*const (), SequenceFn>(address) },
        n_buffers: parts.iter().map(|part| part.n_buffers).sum(),
        n_params: parts.iter().map(|part| part.n_params).sum(),
        n_parts: parts.len(),
        _linker: linker.clone(),
    })
}

/// Writes the function.
fn emit<'c>(context: &'c Context, module: &Module<'c>, symbol: &str, parts: &[SequencePart<'_>]) {
    let pointer = context.ptr_type(AddressSpace::default());
    let word = context.i64_type();
    let emit = Emit::function(context, module, symbol, &[pointer.into(); 4]);
    let [buffers, params, units, errors] = [0, 1, 2, 3].map(|i| emit.pointer_argument(i));
    let arguments = [
        pointer.into(),
        pointer.into(),
        word.into(),
        word.into(),
        pointer.into(),
    ];
    let nest = context.void_type().fn_type(&arguments, false);
    let (mut buffer, mut param) = (0, 0);
    for (number, part) in parts.iter().enumerate() {
        let function = module.get_function(part.symbol);
        let function = function.unwrap_or_else(|| module.add_function(part.symbol, nest, None));
        let number = emit.int(number as i64);
        let units = emit.load(word, emit.at(word, units, number), 8);
        let arguments = [
            emit.at(pointer, buffers, emit.int(buffer)).into(),
            emit.at(word, params, emit.int(param)).into(),
            emit.int(0).into(),
            units.into(),
            emit.at(word, errors, number).into(),
        ];
        emit.builder
            .build_call(function, &arguments, "")
            .expect(BUILT);
        buffer += part.n_buffers as i64;
        param += part.n_params as i64;
    }
    emit.finish();
}

impl NativeSequence for Sequence {
    // SAFETY: the trait's contract: the buffers fit the types of their parts and do not overlap.
    unsafe fn run(&self, call: SequenceCall<'_>) -> Result<(), (usize, Error)> {
        let lengths = [call.buffers.len(), call.params.len()];
        assert_eq!(lengths, [self.n_buffers, self.n_params], "tables");
        let lengths = [call.units.len(), call.errors.len()];
        assert_eq!(lengths, [self.n_parts; 2], "units and errors");
        call.errors.fill(0);
        // SAFETY: the tables have the lengths that the function was written for; the rest is the caller's promise.
        unsafe {
            (self.function)(
                call.buffers.as_ptr(),
                call.params.as_ptr(),
                call.units.as_ptr(),
                call.errors.as_mut_ptr(),
            );
        }
        for (part, &slot) in call.errors.iter().enumerate() {
            reported(slot).map_err(|e| (part, e))?;
        }
        Ok(())
    }
}
