//! Compiled nests against a naive interpreter, bit by bit, on several targets.

mod abreast;
mod big;
mod fixed;
mod interpret;
mod near;
mod random;
mod rows;

use std::fs::File;

use interpret::{Interpreter, Val, decode};
use memmap2::{MmapMut, MmapOptions};

use super::plan::Plan;
use super::{Lowered, lower};
use crate::compilers::llvm_cpu::ir::Nest;
use crate::compilers::llvm_cpu::jit::Jit;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::{Symbols, numel};

const PAGE: usize = 4096;

/// Memory that ends where nothing is mapped: reading past the end is a fault.
struct Guarded {
    map: MmapMut,
    start: usize,
    len: usize,
}

impl Guarded {
    fn new(bytes: &[u8]) -> Guarded {
        let pages = bytes.len().div_ceil(PAGE).max(1) * PAGE;
        let file: File = tempfile::tempfile().unwrap();
        file.set_len(pages as u64).unwrap();
        // SAFETY: the file is private to this process and has no name.
        let mut map = unsafe {
            MmapOptions::new()
                .len(pages + PAGE)
                .map_copy(&file)
                .unwrap()
        };
        let start = pages - bytes.len();
        map[start..pages].copy_from_slice(bytes);
        Guarded {
            map,
            start,
            len: bytes.len(),
        }
    }

    fn pointer(&mut self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.start)
    }

    fn bytes(&self) -> &[u8] {
        &self.map[self.start..self.start + self.len]
    }
}

/// The targets whose code runs here, of all vector widths.
fn targets() -> Vec<Target> {
    let names = ["native", "scalar", "x86-64-v3", "x86-64-v2", "x86-64-v4"];
    names
        .iter()
        .map(|name| Target::for_cpu(name).unwrap())
        .filter(Target::can_run_here)
        .collect()
}

/// Runs compiled code over `splits` (a partition of the units); gives output and error.
fn execute(
    nest: &Nest,
    lowered: &Lowered,
    symbols: &Symbols,
    inputs: &[Vec<u8>],
    parts: i64,
) -> (Vec<u8>, i64) {
    let jit = Jit::new().unwrap();
    jit.add_object(&lowered.object).unwrap();
    let kernel = jit.lookup(&lowered.symbol).unwrap();
    let size = usize::try_from(numel(&nest.output()).eval(symbols).unwrap()).unwrap();
    let mut buffers: Vec<Guarded> = inputs.iter().map(|bytes| Guarded::new(bytes)).collect();
    buffers.push(Guarded::new(&vec![0xa5; size * nest.dtype.size()]));
    let pointers: Vec<*mut u8> = buffers.iter_mut().map(Guarded::pointer).collect();
    let params: Vec<i64> = lowered
        .params
        .iter()
        .map(|e| e.eval(symbols).unwrap())
        .collect();
    let units = lowered.units.eval(symbols).unwrap();
    let mut error = 0;
    // The last part first: the order must not matter.
    for part in (0..parts).rev() {
        let (begin, end) = (units * part / parts, units * (part + 1) / parts);
        // SAFETY: the function was compiled from `nest`; the buffers are as long as its
        // views need, the parameters are those it asks for.
        unsafe { kernel(pointers.as_ptr(), params.as_ptr(), begin, end, &mut error) };
    }
    (buffers.pop().unwrap().bytes().to_vec(), error)
}

/// Equal bits; any NaN equals any other.
fn same(a: Val, b: Val) -> bool {
    match (a, b) {
        (Val::F(a), Val::F(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
        (Val::D(a), Val::D(b)) => a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
        (Val::I(a), Val::I(b)) => a == b,
        (Val::B(a), Val::B(b)) => a == b,
        _ => false,
    }
}

/// Checks a nest on all targets, for all bindings, whole and in parts.
fn check(nest: &Nest, cases: &[(Symbols, Vec<Vec<u8>>)]) {
    let plan = Plan::new(nest).unwrap();
    let wanted: Vec<_> = cases
        .iter()
        .map(|(symbols, inputs)| {
            let mut interpreter = Interpreter::new(&plan, symbols, inputs);
            (interpreter.run(), interpreter.bad)
        })
        .collect();
    for target in targets() {
        let lowered = lower(nest, &target).unwrap();
        for ((symbols, inputs), (want, bad)) in cases.iter().zip(&wanted) {
            for parts in [1, 3] {
                let (bytes, error) = execute(nest, &lowered, symbols, inputs, parts);
                compare(nest, &target, &bytes, want);
                let index = error - (1 << 32);
                let fine = if bad.is_empty() {
                    error == 0
                } else {
                    bad.iter().any(|&i| i64::from(i) == index)
                };
                assert!(fine, "{target}: error slot {error}, bad indices {bad:?}");
            }
        }
    }
}

fn compare(nest: &Nest, target: &Target, bytes: &[u8], want: &[Val]) {
    let got: Vec<Val> = bytes
        .chunks(nest.dtype.size())
        .map(|b| decode(nest.dtype, b))
        .collect();
    assert_eq!(got.len(), want.len());
    for (i, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!(
            same(got, want),
            "{target}, element {i}: {got:?}, wanted {want:?}\n{nest:#?}"
        );
    }
    if nest.dtype == DType::Bool {
        assert!(bytes.iter().all(|&b| b < 2), "{target}: a Bool is 0 or 1");
    }
}
