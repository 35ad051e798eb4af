//! The code of a product of windows, and calling it.
//!
//! All sizes are constants, so a call has no parameters. Where the other operand is written out first, threads share that,
//! then the sums.

use std::sync::Arc;

use super::rows::{self, RowsFn};
use super::taps::{self, PackFn, TapsFn};
use super::{Kind, Windows};
use crate::compilers::llvm_cpu::cache::{Key, ObjectCache};
use crate::compilers::llvm_cpu::jit::{Jit, compile_module_cached};
use crate::compilers::llvm_cpu::target::Target;
use crate::error::Result;
use crate::exec::pool;
use crate::op::{KernelCall, NativeCode, Work};
use crate::shape::Symbols;

/// Multiply-adds below which a second thread costs more than it brings.
const SERIAL: usize = 1 << 20;

/// The linked functions.
#[derive(Clone, Copy)]
enum Functions {
    Rows(RowsFn),
    Taps(PackFn, TapsFn),
}

/// A product of windows that can be run.
pub struct WindowsCode {
    name: String,
    key: u64,
    windows: Windows,
    functions: Functions,
    units: usize,
    scratch: usize,
    /// Keeps the code alive.
    _jit: Arc<Jit>,
}

impl std::fmt::Debug for WindowsCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WindowsCode({})", self.name)
    }
}

/// The assembly of the functions, for reading.
///
/// # Errors
/// Failure of LLVM.
pub fn assembly(windows: &Windows, target: &Target) -> Result<String> {
    crate::compilers::llvm_cpu::jit::assembly(target, |context, module| {
        let [pack, sums] = symbols(windows, target);
        emit(context, module, windows, target, [&pack, &sums]);
        Ok(())
    })
}

fn symbols(windows: &Windows, target: &Target) -> [String; 2] {
    let hash = Key::of(&[format!("{windows:?} {target:?}").as_bytes()]);
    ["pack", "sums"].map(|part| format!("windows_{part}_{hash}"))
}

fn emit<'c>(
    context: &'c inkwell::context::Context,
    module: &inkwell::module::Module<'c>,
    windows: &Windows,
    target: &Target,
    [pack, sums]: [&str; 2],
) {
    let lanes = target.lanes();
    match windows.kind {
        Kind::Rows => rows::emit(context, module, sums, windows, lanes),
        Kind::Taps => {
            let plan = taps::Plan::of(windows, lanes);
            taps::emit_pack(context, module, pack, (windows, &plan));
            taps::emit(context, module, sums, (windows, &plan));
        }
    }
}

impl WindowsCode {
    /// Compiles and links a product, all of whose operands lie in memory as the views' top layers say.
    ///
    /// # Errors
    /// Failure of LLVM.
    pub fn new(
        (name, key): (String, u64),
        windows: Windows,
        target: &Target,
        cache: &ObjectCache,
        jit: &Arc<Jit>,
    ) -> Result<WindowsCode> {
        let [pack, sums] = symbols(&windows, target);
        let object = compile_module_cached(target, cache, |context, module| {
            emit(context, module, &windows, target, [&pack, &sums]);
            Ok(())
        })?;
        jit.add_once(&sums, &object)?;
        let address = jit.address(&sums)?;
        let (functions, units, scratch) = match windows.kind {
            Kind::Rows => {
                // SAFETY: the symbol is of a function that `rows::emit` wrote, with this signature.
                let function = unsafe { std::mem::transmute::<*const (), RowsFn>(address) };
                let units = rows::units(&windows, target.lanes());
                (Functions::Rows(function), units, 0)
            }
            Kind::Taps => {
                // SAFETY: the symbols are of functions that `taps` wrote, with these signatures.
                let functions = unsafe {
                    Functions::Taps(
                        std::mem::transmute::<*const (), PackFn>(jit.address(&pack)?),
                        std::mem::transmute::<*const (), TapsFn>(address),
                    )
                };
                let plan = taps::Plan::of(&windows, target.lanes());
                (functions, plan.units(&windows), plan.packed(&windows) * 4)
            }
        };
        Ok(WindowsCode {
            name,
            key,
            windows,
            functions,
            units,
            scratch,
            _jit: jit.clone(),
        })
    }
}

/// The buffers of a call, as all threads see them.
struct Buffers {
    image: *const f32,
    other: *const f32,
    out: *mut f32,
    packed: *mut f32,
}

// SAFETY: the operands are only read; units write elements of the output, or vectors of the written operand, of their
// own.
unsafe impl Sync for Buffers {}

impl NativeCode for WindowsCode {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(
        &self,
        _symbols: &Symbols,
        n_threads: usize,
        _params: &mut Vec<i64>,
    ) -> Result<Work> {
        let cost = self.windows.n_products();
        Ok(Work {
            units: self.units,
            cost,
            n_threads: if cost < SERIAL { 1 } else { n_threads },
            scratch_bytes: self.scratch,
        })
    }

    fn depends_on(&self, _symbol: char) -> bool {
        false
    }

    // SAFETY: the trait's contract: the buffers fit the types and do not overlap.
    unsafe fn run(&self, call: &KernelCall<'_>) -> Result<()> {
        let [image, other] = self.windows.inputs;
        let buffers = Buffers {
            image: call.buffers[image].cast_const().cast(),
            other: call.buffers[other].cast_const().cast(),
            out: call.buffers[image.max(other) + 1].cast(),
            packed: call.scratch.cast(),
        };
        let (buffers, n_threads) = (&buffers, call.work.n_threads);
        match self.functions {
            Functions::Rows(sums) => {
                pool::for_each_range(n_threads, self.units, &|units| {
                    let (first, end) = (units.start as i64, units.end as i64);
                    // SAFETY: the code reads what the views reach and writes what the output's strides reach, which
                    // the caller's buffers hold; units have different outputs.
                    unsafe { sums(buffers.image, buffers.other, buffers.out, first, end) };
                });
            }
            Functions::Taps(pack, sums) => {
                let n_first = self.windows.steps[0].size as usize;
                pool::for_each_range(n_threads, n_first, &|units| {
                    let (first, end) = (units.start as i64, units.end as i64);
                    // SAFETY: as above; the scratch memory has the length that `prepare` gave.
                    unsafe { pack(buffers.other, buffers.packed, first, end) };
                });
                pool::for_each_range(n_threads, self.units, &|units| {
                    let (first, end) = (units.start as i64, units.end as i64);
                    // SAFETY: as above; everything was packed before.
                    unsafe { sums(buffers.image, buffers.packed, buffers.out, first, end) };
                });
            }
        }
        Ok(())
    }

    fn code_key(&self) -> u64 {
        self.key
    }
}
