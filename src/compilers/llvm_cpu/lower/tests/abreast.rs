//! Sums of products of several rows at once.

use super::check;
use super::fixed::nest;
use super::random::{Rng, buffer};
use crate::compilers::llvm_cpu::gemm::asm::hot_loop;
use crate::compilers::llvm_cpu::ir::{BinaryOp, Nest, ReduceOp, Reduction, Scalar};
use crate::compilers::llvm_cpu::lower::plan::Plan;
use crate::compilers::llvm_cpu::lower::{assembly, ir_text, lower};
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::{Symbols, View};

/// `x[m, k] * w[n, k] + bias[n]`, summed over k.
fn product(m: usize, n: usize, k: usize) -> Nest {
    let x = View::contiguous([m, k]).insert(1, n).unwrap();
    let w = View::contiguous([n, k]).insert(0, m).unwrap();
    let bias = View::contiguous([n]).insert(0, m).unwrap();
    let body = [
        Scalar::Load(0),
        Scalar::Load(1),
        Scalar::Binary(BinaryOp::Mul, 0, 1),
        Scalar::Reduced(0),
        Scalar::Load(2),
        Scalar::Binary(BinaryOp::Add, 3, 4),
    ];
    let mut nest = nest([m, n], [k], &[x, w, bias], &body);
    let kind = ReduceOp::Sum;
    nest.stages = vec![Reduction { kind, value: 2 }];
    nest
}

/// Also where threads split four rows, and where rows of the result end among four.
#[test]
fn rows_abreast_have_the_bits_of_rows_alone() {
    let rng = &mut Rng::new(3);
    for (m, n, k) in [(1, 10, 32), (3, 5, 64), (2, 4, 48), (1, 3, 32), (7, 1, 96)] {
        let inputs = [m * k, n * k, n].map(|n| buffer(rng, DType::F32, n));
        check(&product(m, n, k), &[(Symbols::new(), inputs.to_vec())]);
    }
}

#[test]
fn four_rows_share_what_they_read() {
    for (cpu, register, parts) in [("x86-64-v3", "ymm", 2), ("x86-64-v4", "zmm", 1)] {
        let target = Target::for_cpu(cpu).unwrap();
        let inner = |k: usize| {
            let nest = product(1, 16, k);
            let symbol = lower(&nest, &target).unwrap().symbol;
            hot_loop(&assembly(&nest, &target).unwrap(), &symbol).unwrap()
        };
        let four = inner(784);
        assert_eq!(four.fused(register), 4 * parts, "{cpu}: {}", four.text);
        assert!(!four.text.contains("(%rsp"), "{cpu}: {}", four.text);
        // What is multiplied by four rows of weights is loaded once.
        let loads = four.text.matches("vmovups").count();
        assert_eq!(loads, parts, "{cpu}: {}", four.text);
    }
    // Large weights are asked for four rows ahead, small ones are not.
    let target = Target::for_cpu("x86-64-v4").unwrap();
    let prefetches = |n| {
        let text = ir_text(&product(1, n, 1024), &target).unwrap();
        text.matches("call void @llvm.prefetch").count()
    };
    assert_eq!([prefetches(64), prefetches(1024)], [0, 4]);
    // A rest of a few numbers has a loop of its own, for each row.
    assert!(Plan::new(&product(1, 16, 784)).unwrap().sums_abreast());
    assert!(!Plan::new(&product(1, 16, 785)).unwrap().sums_abreast());
}
