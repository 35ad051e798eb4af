//! From LLVM IR to callable code, in two independent steps.
//!
//! [`compile_module`] builds IR in a context of its own and returns an object file: it shares no
//! state, so any number of threads may compile at once. [`Jit`] links object files into the
//! process and finds functions in them. Objects, not IR, are what is cached on disk.
//!
//! A light pass pipeline is enough: the code generators emit explicit vectors and unrolled loops,
//! and the full pipelines would only unroll further and spill.

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char};
use std::sync::{Mutex, OnceLock};

use inkwell::context::Context;
use inkwell::module::Module;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{FileType, TargetMachine};

use super::cache::{Key, ObjectCache};
use super::llvm_sys::core::LLVMCreateMemoryBufferWithMemoryRangeCopy;
use super::llvm_sys::error::{LLVMDisposeErrorMessage, LLVMErrorRef, LLVMGetErrorMessage};
use super::llvm_sys::orc2::lljit::{
    LLVMOrcCreateLLJIT, LLVMOrcDisposeLLJIT, LLVMOrcLLJITAddObjectFile,
    LLVMOrcLLJITGetGlobalPrefix, LLVMOrcLLJITGetMainJITDylib, LLVMOrcLLJITLookup, LLVMOrcLLJITRef,
};
use super::llvm_sys::orc2::{
    LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess, LLVMOrcJITDylibAddGenerator,
};
use super::target::{Target, initialize};
use crate::error::{Error, Result};

/// The passes run over every module.
const PASSES: &str = "function(instcombine<no-verify-fixpoint>,early-cse,simplifycfg)";

/// The function type of compiled loop nests.
///
/// Arguments: `ptrs` (inputs, then the output), `params` (values of symbolic expressions),
/// `begin..end` (a range of the kernel's units of work), `errors` (one slot for a bad index).
pub type KernelFn = unsafe extern "C" fn(
    ptrs: *const *mut u8,
    params: *const i64,
    begin: i64,
    end: i64,
    errors: *mut i64,
);

/// A module and the machine it is compiled for.
fn with_module<T>(
    target: &Target,
    build: impl for<'c> FnOnce(&'c Context, &Module<'c>) -> Result<()>,
    finish: impl FnOnce(&Module<'_>, &TargetMachine) -> Result<T>,
) -> Result<T> {
    target.with_machine(|machine| {
        let context = Context::create();
        let module = context.create_module("kernel");
        module.set_triple(&machine.get_triple());
        module.set_data_layout(&machine.get_target_data().get_data_layout());
        build(&context, &module)?;
        finish(&module, machine)
    })
}

/// # Errors
/// IR that breaks LLVM's rules.
fn verify(module: &Module<'_>) -> Result<()> {
    let rejected = |why: &str| Error::Message(format!("LLVM rejects a kernel: {why}"));
    let verified = module.verify();
    verified.map_err(|why| rejected(&why.to_string_lossy()))
}

/// Machine code of a module, verified and optimized, as an object file or as assembly text. An object that is found was
/// verified when it was made.
fn emit(module: &Module<'_>, machine: &TargetMachine, kind: FileType) -> Result<Vec<u8>> {
    verify(module)?;
    let failed = |why: String| Error::Message(format!("LLVM cannot compile a kernel: {why}"));
    module
        .run_passes(PASSES, machine, PassBuilderOptions::create())
        .map_err(|why| failed(why.to_string()))?;
    let buffer = machine
        .write_to_memory_buffer(module, kind)
        .map_err(|why| failed(why.to_string()))?;
    Ok(buffer.as_slice().to_vec())
}

/// Compiles what `build` puts into an empty module to an object file.
///
/// # Errors
/// Whatever `build` returns; IR that does not verify; failure of LLVM's code generator.
pub fn compile_module(
    target: &Target,
    build: impl for<'c> FnOnce(&'c Context, &Module<'c>) -> Result<()>,
) -> Result<Vec<u8>> {
    with_module(target, build, |module, machine| {
        emit(module, machine, FileType::Object)
    })
}

/// [`compile_module`], except that an object compiled earlier from the same IR for the same
/// target is taken from `cache`, and a new one is put there.
///
/// # Errors
/// Those of [`compile_module`]. Trouble with the cache is a miss, never an error.
pub fn compile_module_cached(
    target: &Target,
    cache: &ObjectCache,
    build: impl for<'c> FnOnce(&'c Context, &Module<'c>) -> Result<()>,
) -> Result<Vec<u8>> {
    with_module(target, build, |module, machine| {
        let ir = module.print_to_string();
        let key = Key::of(&[
            ir.to_bytes(),
            target.cpu().as_bytes(),
            target.features().as_bytes(),
            llvm_version().as_bytes(),
            PASSES.as_bytes(),
        ]);
        let object = cache.get_or_make(key, || emit(module, machine, FileType::Object))?;
        Ok(object.to_vec())
    })
}

/// The assembly text of the same code, for debugging and for tests of code quality.
///
/// # Errors
/// Those of [`compile_module`].
pub fn assembly(
    target: &Target,
    build: impl for<'c> FnOnce(&'c Context, &Module<'c>) -> Result<()>,
) -> Result<String> {
    let text = with_module(target, build, |module, machine| {
        emit(module, machine, FileType::Assembly)
    })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The LLVM IR text as built, before any pass.
///
/// # Errors
/// Whatever `build` returns; IR that does not verify.
pub fn ir_text(
    target: &Target,
    build: impl for<'c> FnOnce(&'c Context, &Module<'c>) -> Result<()>,
) -> Result<String> {
    with_module(target, build, |module, _| {
        verify(module)?;
        Ok(module.print_to_string().to_string())
    })
}

/// The version of the LLVM library in this process, such as `22.1.8`.
pub fn llvm_version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let (major, minor, patch) = inkwell::support::get_llvm_version();
        format!("{major}.{minor}.{patch}")
    })
}

/// Object files linked into this process.
///
/// Functions found by [`Jit::lookup`] are valid as long as the `Jit` lives; dropping it frees all
/// of their code. Symbols must be unique within one `Jit`. Undefined symbols of an object (`fmaf`
/// where the target has no fused multiply-add) resolve to those of the process.
pub struct Jit {
    raw: LLVMOrcLLJITRef,
    /// Names given to [`Jit::add_once`].
    added: Mutex<HashSet<String>>,
}

// SAFETY: LLJIT is documented as safe to use from several threads at once: the execution session
// has its own lock. The handle is not tied to the thread that made it.
unsafe impl Send for Jit {}
// SAFETY: as above; `&Jit` gives access to adding objects and lookup only, which lock.
unsafe impl Sync for Jit {}

impl std::fmt::Debug for Jit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Jit")
    }
}

impl Jit {
    /// An empty linker that sees the symbols of the process.
    ///
    /// # Errors
    /// When LLVM has no JIT for this machine.
    pub fn new() -> Result<Jit> {
        initialize();
        let mut raw = std::ptr::null_mut();
        // SAFETY: `raw` is valid for writing; a null builder asks for the defaults.
        check("create a JIT", unsafe {
            LLVMOrcCreateLLJIT(&mut raw, std::ptr::null_mut())
        })?;
        let jit = Jit {
            raw,
            added: Mutex::default(),
        };
        let mut symbols = std::ptr::null_mut();
        // SAFETY: `jit.raw` is the live JIT made above; no filter, so no filter context.
        let error = unsafe {
            LLVMOrcCreateDynamicLibrarySearchGeneratorForProcess(
                &mut symbols,
                LLVMOrcLLJITGetGlobalPrefix(jit.raw),
                None,
                std::ptr::null_mut(),
            )
        };
        check("see the symbols of the process", error)?;
        // SAFETY: both are live; the library takes ownership of the generator.
        unsafe { LLVMOrcJITDylibAddGenerator(LLVMOrcLLJITGetMainJITDylib(jit.raw), symbols) };
        Ok(jit)
    }

    /// Adds an object file; it is linked when one of its symbols is first looked up.
    ///
    /// # Errors
    /// Bytes that are no object file of this machine, or a symbol that is already defined.
    pub fn add_object(&self, object: &[u8]) -> Result<()> {
        // SAFETY: the bytes are copied before the call returns; the name is a C string; the JIT is
        // live and takes ownership of the buffer.
        let error = unsafe {
            let buffer = LLVMCreateMemoryBufferWithMemoryRangeCopy(
                object.as_ptr().cast::<c_char>(),
                object.len(),
                c"kernel".as_ptr(),
            );
            LLVMOrcLLJITAddObjectFile(self.raw, LLVMOrcLLJITGetMainJITDylib(self.raw), buffer)
        };
        check("add an object file", error)
    }

    /// Adds an object file unless one was added under the same name.
    ///
    /// # Errors
    /// Those of [`Jit::add_object`].
    pub fn add_once(&self, name: &str, object: &[u8]) -> Result<()> {
        let mut added = self
            .added
            .lock()
            .expect("nothing panics while holding this lock");
        if !added.contains(name) {
            self.add_object(object)?;
            added.insert(name.to_owned());
        }
        Ok(())
    }

    /// The address of a symbol.
    ///
    /// # Errors
    /// An unknown symbol, or an object that cannot be linked.
    pub fn address(&self, symbol: &str) -> Result<*const ()> {
        let name = CString::new(symbol)
            .map_err(|_| Error::Message(format!("symbol {symbol:?} contains a zero byte")))?;
        let mut address = 0u64;
        // SAFETY: `address` is valid for writing and `name` is a C string; the JIT is live.
        let error = unsafe { LLVMOrcLLJITLookup(self.raw, &mut address, name.as_ptr()) };
        check(&format!("look up `{symbol}`"), error)?;
        match address {
            0 => Err(Error::Message(format!("symbol `{symbol}` is null"))),
            address => Ok(std::ptr::with_exposed_provenance(address as usize)),
        }
    }

    /// Adds an object once and gives the functions of its symbols, each with what it is for.
    ///
    /// # Errors
    /// Those of [`Jit::add_once`] and [`Jit::address`].
    ///
    /// # Safety
    /// `F` is the type of a pointer to a function, and the symbols are of functions with this signature.
    pub unsafe fn functions<K: Copy, F: Copy>(
        &self,
        object: &[u8],
        symbols: &[(K, String)],
    ) -> Result<Vec<(K, F)>> {
        const { assert!(size_of::<F>() == size_of::<*const ()>()) }
        if let Some((_, first)) = symbols.first() {
            self.add_once(first, object)?;
        }
        let function = |(of, symbol): &(K, String)| {
            let address = self.address(symbol)?;
            // SAFETY: the caller's promise; the address is not null.
            Ok((*of, unsafe { std::mem::transmute_copy(&address) }))
        };
        symbols.iter().map(function).collect()
    }

    /// A loop nest's function by its symbol.
    ///
    /// # Errors
    /// Those of [`Jit::address`].
    pub fn lookup(&self, symbol: &str) -> Result<KernelFn> {
        let address = self.address(symbol)?;
        // SAFETY: the address is not null and of a function. That it has this signature is the
        // claim of whoever compiled it, and is relied on only by the (unsafe) call.
        Ok(unsafe { std::mem::transmute::<*const (), KernelFn>(address) })
    }
}

impl Drop for Jit {
    fn drop(&mut self) {
        // SAFETY: the handle is live and not used afterwards. Nothing can be done about an error
        // while freeing; `check` releases it.
        let _ = check("free a JIT", unsafe { LLVMOrcDisposeLLJIT(self.raw) });
    }
}

/// Turns LLVM's error, which it consumes, into ours.
fn check(what: &str, error: LLVMErrorRef) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: `error` is a live error; getting the message consumes it; the message is a C string
    // to be freed by the function made for it.
    let message = unsafe {
        let text = LLVMGetErrorMessage(error);
        let message = CStr::from_ptr(text).to_string_lossy().into_owned();
        LLVMDisposeErrorMessage(text);
        message
    };
    Err(Error::Message(format!("cannot {what}: {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use inkwell::AddressSpace;

    /// A kernel that stores `begin + end` in the error slot.
    fn adder<'c>(context: &'c Context, module: &Module<'c>) -> Result<()> {
        let (ptr, int) = (
            context.ptr_type(AddressSpace::default()),
            context.i64_type(),
        );
        let kind = context.void_type().fn_type(
            &[ptr.into(), ptr.into(), int.into(), int.into(), ptr.into()],
            false,
        );
        let function = module.add_function("adder", kind, None);
        let builder = context.create_builder();
        builder.position_at_end(context.append_basic_block(function, "entry"));
        let begin = function.get_nth_param(2).unwrap().into_int_value();
        let end = function.get_nth_param(3).unwrap().into_int_value();
        let sum = builder.build_int_add(begin, end, "sum").unwrap();
        let slot = function.get_nth_param(4).unwrap().into_pointer_value();
        builder.build_store(slot, sum).unwrap();
        builder.build_return(None).unwrap();
        Ok(())
    }

    fn run(jit: &Jit) -> i64 {
        let kernel = jit.lookup("adder").unwrap();
        let mut out = 0;
        // SAFETY: `adder` has this signature and touches the last argument only.
        unsafe { kernel(std::ptr::null(), std::ptr::null(), 40, 2, &mut out) };
        out
    }

    #[test]
    fn compiled_code_runs() {
        let jit = Jit::new().unwrap();
        jit.add_object(&compile_module(&Target::native(), adder).unwrap())
            .unwrap();
        assert_eq!(run(&jit), 42);
    }

    #[test]
    fn the_cache_gives_the_same_object_and_a_corrupt_one_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        // What a cache has in memory ends with it.
        let cache = || ObjectCache::in_dir(dir.path());
        let target = Target::native();
        let first = compile_module_cached(&target, &cache(), adder).unwrap();
        let file = std::fs::read_dir(dir.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        std::fs::write(&file, b"not an object").unwrap();
        let again = compile_module_cached(&target, &cache(), adder).unwrap();
        assert_eq!(
            std::fs::metadata(&file).unwrap().len() as usize,
            first.len() + 40
        );
        let cached = compile_module_cached(&target, &cache(), adder).unwrap();
        assert!(first == again && first == cached);
        let jit = Jit::new().unwrap();
        jit.add_object(&cached).unwrap();
        assert_eq!(run(&jit), 42);
    }

    #[test]
    fn threads_compile_and_link_at_once() {
        let jit = Jit::new().unwrap();
        std::thread::scope(|scope| {
            for i in 0..4 {
                let jit = &jit;
                scope.spawn(move || {
                    let name = format!("adder{i}");
                    let object = compile_module(&Target::native(), |context, module| {
                        adder(context, module)?;
                        let function = module.get_function("adder").unwrap();
                        function.as_global_value().set_name(&name);
                        Ok(())
                    });
                    jit.add_object(&object.unwrap()).unwrap();
                    jit.lookup(&name).unwrap();
                });
            }
        });
    }

    #[test]
    fn bad_input_is_an_error() {
        let jit = Jit::new().unwrap();
        assert!(jit.add_object(b"garbage").is_err());
        assert!(
            jit.lookup("nothing")
                .unwrap_err()
                .to_string()
                .contains("nothing")
        );
        assert!(jit.lookup("a\0b").is_err());
        let object = compile_module(&Target::native(), adder).unwrap();
        jit.add_object(&object).unwrap();
        assert!(
            jit.add_object(&object).is_err(),
            "the symbol is defined already"
        );
        assert_eq!(run(&jit), 42);
    }

    #[test]
    fn ir_that_does_not_verify_is_an_error() {
        let failed = compile_module(&Target::native(), |context, module| {
            let kind = context.void_type().fn_type(&[], false);
            let function = module.add_function("f", kind, None);
            context.append_basic_block(function, "entry");
            Ok(())
        });
        assert!(failed.is_err());
    }

    #[test]
    fn texts_show_the_function() {
        let target = Target::for_cpu("x86-64-v3").unwrap();
        assert!(assembly(&target, adder).unwrap().contains("adder:"));
        assert!(ir_text(&target, adder).unwrap().contains("@adder("));
    }
}
