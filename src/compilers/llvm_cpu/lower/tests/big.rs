//! Results that no cache holds.

use super::execute;
use super::fixed::nest;
use crate::compilers::llvm_cpu::ir::{BinaryOp, Nest, Scalar};
use crate::compilers::llvm_cpu::lower::{assembly, lower};
use crate::compilers::llvm_cpu::target::Target;
use crate::shape::{Expr, Symbols, View};

/// `x + x`.
fn doubled(dims: [Expr; 2]) -> Nest {
    let body = [Scalar::Load(0), Scalar::Binary(BinaryOp::Add, 0, 0)];
    nest(dims, (), &[View::contiguous(dims)], &body)
}

#[test]
fn only_big_results_are_stored_past_the_caches() {
    for cpu in ["x86-64-v3", "x86-64-v4"] {
        let target = Target::for_cpu(cpu).unwrap();
        let past = |dims: [Expr; 2]| {
            let text = assembly(&doubled(dims), &target).unwrap();
            assert_eq!(text.contains("movnt"), text.contains("sfence"), "{cpu}");
            text.contains("movnt")
        };
        assert!(past([4096, 4096].map(Expr::from)), "{cpu}");
        assert!(!past([4096, 1024].map(Expr::from)), "{cpu}");
        assert!(!past([Expr::from('s'), Expr::from(4096)]), "{cpu}");
    }
}

#[test]
fn big_results_are_right_wherever_they_lie() {
    // The buffer ends where a page does, so one of the lengths is aligned and the other is not.
    for columns in [1 << 20, (1 << 20) + 1] {
        let nest = doubled([13, columns].map(Expr::from));
        let n = 13 * columns;
        let input: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
        for cpu in ["native", "x86-64-v3"] {
            let lowered = lower(&nest, &Target::for_cpu(cpu).unwrap()).unwrap();
            let inputs = std::slice::from_ref(&input);
            let (out, _) = execute(&nest, &lowered, &Symbols::new(), inputs, 3);
            let right = out
                .chunks_exact(4)
                .enumerate()
                .all(|(i, out)| out == (2.0 * i as f32).to_le_bytes());
            assert!(right && out.len() == 4 * n, "{cpu}, {columns}");
        }
    }
}
