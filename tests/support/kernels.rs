//! What tests of native products share.

use brain_blitz::compilers::llvm_cpu::Target;
use brain_blitz::op::Op;
use brain_blitz::prelude::*;

/// Numbers in (-1, 1) that look random.
pub fn noise(n: usize, seed: u32) -> Vec<f32> {
    let word = |i: u32| {
        (i ^ seed)
            .wrapping_mul(0x9e37_79b9)
            .rotate_left(15)
            .wrapping_mul(0x85eb_ca6b)
    };
    (0..n as u32)
        .map(|i| (word(i) >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

/// All targets whose code runs here.
pub fn targets() -> Vec<&'static str> {
    let all = [
        "native",
        "znver4",
        "x86-64-v4",
        "x86-64-v3",
        "x86-64",
        "scalar",
    ];
    all.into_iter()
        .filter(|name| Target::for_cpu(name).unwrap().can_run_here())
        .collect()
}

/// The names of the native code of all kernels.
pub fn kernels(cx: &Graph) -> Vec<String> {
    cx.inspect(|dag| {
        let ops = dag.topological().unwrap().into_iter();
        ops.filter_map(|id| match &dag.node(id).op {
            Op::Kernel(kernel) => kernel.code().map(|code| code.name().to_string()),
            _ => None,
        })
        .collect()
    })
}
