//! What the machine code of kernels looks like: vectors of the target's width, and nothing on the stack in hot loops.
//!
//! Assembly is made for targets that need not run here.
#![cfg(feature = "llvm-backend")]

use brain_blitz::compilers::llvm_cpu::cache::ObjectCache;
use brain_blitz::compilers::llvm_cpu::gemm::CompiledGemm;
use brain_blitz::compilers::llvm_cpu::gemm::asm::hot_loop;
use brain_blitz::compilers::llvm_cpu::gemm::ir::Contraction;
use brain_blitz::compilers::llvm_cpu::ir::{Access, BinaryOp, Literal, Nest, Scalar, UnaryOp};
use brain_blitz::compilers::llvm_cpu::lower::assembly;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::dtype::DType;
use brain_blitz::shape::{Dims, Expr, IntoDims, View};

const AVX512: [&str; 3] = ["x86-64-v4", "sapphirerapids", "znver4"];

fn target(name: &str) -> Target {
    Target::for_cpu(name).expect("a known target")
}

fn access(input: usize, view: View) -> Access {
    Access {
        input,
        dtype: DType::F32,
        view,
    }
}

/// `[m, k]` times `[k, n]`.
fn product() -> Contraction {
    let rhs = View::contiguous(['k', 'n'].map(Expr::from));
    Contraction {
        batch: ().into_dims(),
        m: 'm'.into_dims(),
        n: 'n'.into_dims(),
        k: 'k'.into_dims(),
        lhs: access(0, View::contiguous(['m', 'k'].map(Expr::from))),
        rhs: access(1, rhs.permute(&[1, 0]).expect("two axes")),
        out_strides: ['n'.into(), Expr::from(1)].into_dims(),
        dtype: DType::F32,
    }
}

/// `sigmoid(x) * y + x` over `n` elements.
fn fused(n: impl Into<Expr>) -> Nest {
    let dims = Dims::from_iter([n.into()]);
    let view = View::contiguous(dims.clone());
    let literal = |x| Scalar::Const(Literal::new(DType::F32, x));
    let body = vec![
        Scalar::Load(0),
        Scalar::Load(1),
        literal(-std::f64::consts::LOG2_E),
        literal(1.0),
        Scalar::Binary(BinaryOp::Mul, 0, 2),
        Scalar::Unary(UnaryOp::Exp2, 4),
        Scalar::Binary(BinaryOp::Add, 5, 3),
        Scalar::Unary(UnaryOp::Recip, 6),
        Scalar::Binary(BinaryOp::Mul, 7, 1),
        Scalar::Binary(BinaryOp::Add, 8, 0),
    ];
    Nest {
        space: dims,
        reduce: Dims::new(),
        loads: vec![access(0, view.clone()), access(1, view)],
        result: body.len() - 1,
        body,
        stages: vec![],
        per_point: false,
        dtype: DType::F32,
        n_inputs: 2,
    }
}

/// The function in a listing that holds one.
fn function(assembly: &str) -> &str {
    let label = assembly.lines().find(|line| line.starts_with("nest_"));
    label
        .and_then(|line| line.split(':').next())
        .expect("the function has a label")
}

#[test]
fn matrix_products_stay_in_wide_registers() {
    for name in AVX512 {
        let target = target(name);
        let text = CompiledGemm::assembly(&product(), &target).expect("it compiles");
        let gemm = CompiledGemm::new(&product(), &target, &ObjectCache::disabled());
        let gemm = gemm.expect("it compiles");
        let objects = gemm.objects();
        for (rows, vectors, symbol) in objects.micros {
            let inner = hot_loop(&text, symbol).expect("a loop of fused multiply-adds");
            let per_step = (rows * vectors) as usize;
            assert_eq!(
                inner.fused("zmm") % per_step,
                0,
                "whole steps in {symbol} for {name}:\n{}",
                inner.text
            );
            assert_eq!(inner.fused("ymm") + inner.fused("xmm"), 0, "{symbol}");
            assert_eq!(inner.spills(), 0, "{symbol} for {name}:\n{}", inner.text);
            assert_eq!(inner.calls(), 0, "{symbol} for {name}:\n{}", inner.text);
        }
    }
}

#[test]
fn fused_elementwise_loops_stay_in_wide_registers() {
    for name in AVX512 {
        for (size, nest) in [("static", fused(4096)), ("symbolic", fused('s'))] {
            let text = assembly(&nest, &target(name)).expect("it compiles");
            let inner = hot_loop(&text, function(&text)).expect("a loop of fused multiply-adds");
            let place = format!("{size} size for {name}:\n{}", inner.text);
            assert!(inner.fused("zmm") >= 5, "a polynomial in {place}");
            assert_eq!(inner.spills(), 0, "{place}");
            assert_eq!(inner.calls(), 0, "{place}");
        }
    }
}

#[test]
fn avx2_targets_use_their_own_width() {
    let text = assembly(&fused(4096), &target("x86-64-v3")).expect("it compiles");
    let inner = hot_loop(&text, function(&text)).expect("a loop of fused multiply-adds");
    assert!(inner.fused("ymm") >= 5, "{}", inner.text);
    assert_eq!(inner.spills(), 0, "{}", inner.text);
    assert!(!text.contains("%zmm"));
}

#[test]
fn scalar_code_has_no_vector_registers() {
    let target = target("scalar");
    let nest = assembly(&fused('s'), &target).expect("it compiles");
    let gemm = CompiledGemm::assembly(&product(), &target).expect("it compiles");
    for text in [nest, gemm] {
        for register in ["%ymm", "%zmm"] {
            let line = text.lines().find(|line| line.contains(register));
            assert_eq!(line, None);
        }
    }
}
