//! Packing of rows whose steps are neighbours, in squares.

use super::check::{Case, check_run, data, linked, product, targets};
use crate::compilers::llvm_cpu::gemm::CompiledGemm;
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::View;

/// All numbers of steps around one and two squares, in whole panels and in others.
#[test]
fn whole_panels_are_turned_in_squares_of_any_number_of_steps() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let view = |row: char| (dtype, View::contiguous([row, 'k']));
        let contraction = product(((), 'm', 'n', 'k'), view('m'), view('n'));
        let gemms: Vec<_> = targets().iter().map(|t| linked(&contraction, t)).collect();
        for (m, n, k) in [7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 65].map(|k| (25, 70, k)) {
            let symbols = [('m', m), ('n', n), ('k', k)].into_iter().collect();
            let case = Case::new(dtype.name(), contraction.clone(), symbols);
            let data = data(&case);
            gemms
                .iter()
                .for_each(|gemm| check_run(&case, &data, gemm, (1, false)));
        }
    }
}

#[test]
fn squares_are_turned_in_whole_registers() {
    let view = |rows: usize| (DType::BF16, View::contiguous((rows, 64)));
    let contraction = product(((), 24, 64, 64), view(24), view(64));
    for (name, register, shuffles) in [("x86-64-v4", "zmm", 32), ("x86-64-v3", "ymm", 16)] {
        let target = Target::for_cpu(name).unwrap();
        let text = CompiledGemm::assembly(&contraction, &target).unwrap();
        let unpacks = |line: &&str| {
            let line = line.trim_start();
            (line.starts_with("vpunpck") || line.starts_with("vunpck")) && line.contains(register)
        };
        let count = text.lines().filter(unpacks).count();
        assert!(count >= shuffles, "{name}: {count}");
    }
}
