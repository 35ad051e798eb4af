//! Nests chosen for one property each.

use super::random::{Rng, buffer};
use super::{check, execute};
use crate::compilers::llvm_cpu::ir::{
    Access, BinaryOp, Literal, Nest, ReduceOp, Reduction, Scalar, UnaryOp,
};
use crate::compilers::llvm_cpu::lower::plan::{Along, Plan};
use crate::compilers::llvm_cpu::lower::{assembly, ir_text, lower};
use crate::compilers::llvm_cpu::target::Target;
use crate::dtype::DType;
use crate::shape::{Dims, Expr, IntoDims, Symbols, View};

/// A nest over `f32` views.
pub fn nest(space: impl IntoDims, reduce: impl IntoDims, views: &[View], body: &[Scalar]) -> Nest {
    let loads = views.iter().enumerate();
    let loads = loads.map(|(input, view)| Access {
        input,
        dtype: DType::F32,
        view: view.clone(),
    });
    Nest {
        space: space.into_dims(),
        reduce: reduce.into_dims(),
        loads: loads.collect(),
        body: body.to_vec(),
        stages: vec![],
        per_point: false,
        result: body.len() - 1,
        dtype: DType::F32,
        n_inputs: views.len(),
    }
}

fn sum_of(value: usize) -> Vec<Reduction> {
    let kind = ReduceOp::Sum;
    vec![Reduction { kind, value }]
}

fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn ints(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// `exp(x - max)` with a broadcast maximum, over symbolic dims.
fn softmax_numerator() -> Nest {
    let dims = ['p', 's'];
    let max = View::contiguous('p').insert(1, 's').unwrap();
    nest(
        dims,
        (),
        &[View::contiguous(dims), max],
        &[
            Scalar::Load(0),
            Scalar::Load(1),
            Scalar::Const(Literal::new(DType::F32, -1.0)),
            Scalar::Binary(BinaryOp::Mul, 1, 2),
            Scalar::Binary(BinaryOp::Add, 0, 3),
            Scalar::Const(Literal::new(DType::F32, std::f64::consts::LOG2_E)),
            Scalar::Binary(BinaryOp::Mul, 4, 5),
            Scalar::Unary(UnaryOp::Exp2, 6),
        ],
    )
}

/// Symbols with values.
pub fn binding(values: &[(char, i64)]) -> Symbols {
    values.iter().copied().collect()
}

#[test]
fn one_kernel_serves_every_binding() {
    let rng = &mut Rng::new(1);
    let mut case = |p: i64, s: i64| {
        let inputs = [p * s, p].map(|n| buffer(rng, DType::F32, n as usize));
        (binding(&[('p', p), ('s', s)]), inputs.to_vec())
    };
    let cases = [
        case(3, 5),
        case(1, 1),
        case(2, 4097),
        case(7, 16),
        case(0, 4),
        case(4, 0),
        case(2, 9000),
    ];
    check(&softmax_numerator(), &cases);
}

#[test]
fn symbolic_reduction_with_an_epilogue() {
    // 1 / (sum of squares over s + bias): one kernel, many sizes.
    let mut nest = nest(
        'p',
        's',
        &[View::contiguous(('p', 's')), View::contiguous('p')],
        &[
            Scalar::Load(0),
            Scalar::Binary(BinaryOp::Mul, 0, 0),
            Scalar::Reduced(0),
            Scalar::Load(1),
            Scalar::Binary(BinaryOp::Add, 2, 3),
            Scalar::Unary(UnaryOp::Recip, 4),
        ],
    );
    nest.stages = sum_of(1);
    let plan = Plan::new(&nest).unwrap();
    assert_eq!(
        (plan.turns[0].factors, plan.along()),
        (Some((0, 0)), Along::Reduced)
    );
    let rng = &mut Rng::new(2);
    let mut case = |p: i64, s: i64| {
        let inputs = [p * s, p].map(|n| buffer(rng, DType::F32, n as usize));
        (binding(&[('p', p), ('s', s)]), inputs.to_vec())
    };
    let cases = [
        case(3, 5),
        case(1, 1000),
        case(2, 16),
        case(5, 0),
        case(0, 3),
        case(9, 33),
    ];
    check(&nest, &cases);
}

#[test]
fn columns_are_summed_in_sequence() {
    // Sum over the first dim of [r, c]: contiguous along the kept dim.
    for (r, c) in [(5, 100), (40, 7), (3, 64), (1, 1), (0, 20), (17, 16)] {
        let view = View::contiguous([r, c]).permute(&[1, 0]).unwrap();
        let mut nest = nest([c], [r], &[view], &[Scalar::Load(0), Scalar::Reduced(0)]);
        nest.stages = sum_of(0);
        if r > 1 && c > 3 {
            assert_eq!(Plan::new(&nest).unwrap().along(), Along::Kept);
        }
        let inputs = vec![buffer(&mut Rng::new(3), DType::F32, r * c)];
        check(&nest, &[(Symbols::new(), inputs)]);
    }
}

#[test]
fn a_vector_times_a_matrix_runs_along_its_rows() {
    // out[j] = sum over k of x[k] * a[k, j]: only j is contiguous in the matrix.
    let (k, j) = (13, 50);
    let x = View::contiguous([k]).insert(0, j).unwrap();
    let a = View::contiguous([k, j]).permute(&[1, 0]).unwrap();
    let product = Scalar::Binary(BinaryOp::Mul, 0, 1);
    let body = [
        Scalar::Load(0),
        Scalar::Load(1),
        product,
        Scalar::Reduced(0),
    ];
    let mut nest = nest([j], [k], &[x, a], &body);
    nest.stages = sum_of(2);
    assert_eq!(Plan::new(&nest).unwrap().along(), Along::Kept);
    let rng = &mut Rng::new(6);
    let inputs = [k, k * j].map(|n| buffer(rng, DType::F32, n)).to_vec();
    check(&nest, &[(Symbols::new(), inputs)]);
}

#[test]
fn sums_are_close_to_exact() {
    let n = 10_007;
    let mut nest = nest(
        (),
        [n],
        &[View::contiguous([n])],
        &[Scalar::Load(0), Scalar::Reduced(0)],
    );
    nest.stages = sum_of(0);
    let values: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
    let exact: f64 = values.iter().map(|&v| f64::from(v)).sum();
    let lowered = lower(&nest, &Target::native()).unwrap();
    let (out, _) = execute(&nest, &lowered, &Symbols::new(), &[floats(values)], 1);
    let got = f32::from_le_bytes(out.try_into().unwrap());
    assert!(
        (f64::from(got) - exact).abs() < 1e-3,
        "{got}, exactly {exact}"
    );
}

/// Rows of a `[vocabulary, width]` table.
fn embedding(rows: usize, vocabulary: usize, width: usize) -> Nest {
    let indices = View::contiguous([rows]).insert(1, width).unwrap();
    let table = View::contiguous([vocabulary, width]);
    let mut nest = nest(
        [rows, width],
        (),
        &[indices, table],
        &[
            Scalar::Load(0),
            Scalar::Gather {
                access: 1,
                axis: 0,
                index: 0,
            },
        ],
    );
    nest.loads[0].dtype = DType::I32;
    nest
}

#[test]
fn embeddings_are_gathered_and_bad_indices_reported() {
    for width in [1, 7, 64] {
        let table = || floats((0..10 * width).map(|i| i as f32));
        let good = vec![ints(&[3, 0, 9, 3]), table()];
        let bad = vec![ints(&[3, -1, 9, 3]), table()];
        let worse = vec![ints(&[i32::MIN, 10, i32::MAX, 0]), table()];
        let cases = [good, bad, worse].map(|inputs| (Symbols::new(), inputs));
        check(&embedding(4, 10, width), &cases);
    }
    // An empty table: every index is bad, nothing is read.
    check(
        &embedding(2, 0, 5),
        &[(Symbols::new(), vec![ints(&[0, 1]), vec![]])],
    );
}

#[test]
fn threads_may_report_bad_indices_at_the_same_time() {
    let reports = |nest: &Nest| {
        let text = ir_text(nest, &Target::for_cpu("x86-64-v3").unwrap()).unwrap();
        text.matches("store atomic i64").count()
    };
    assert!(reports(&embedding(4, 10, 8)) > 0);
    assert_eq!(reports(&softmax_numerator()), 0);
}

#[test]
fn padding_of_an_empty_buffer_is_zero() {
    let view = View::contiguous([0]).pad(0, 2, 35).unwrap();
    check(
        &nest([37], (), &[view], &[Scalar::Load(0)]),
        &[(Symbols::new(), vec![vec![]])],
    );
    // The same with a size that is zero only in this binding.
    let view = View::contiguous('n').pad(0, 2, 35).unwrap();
    let symbolic = nest([Expr::from('n') + 37], (), &[view], &[Scalar::Load(0)]);
    let case = |n: usize| {
        (
            binding(&[('n', n as i64)]),
            vec![buffer(&mut Rng::new(4), DType::F32, n)],
        )
    };
    check(&symbolic, &[case(0), case(1), case(50)]);
}

#[test]
fn layers_that_divide_work_on_symbolic_sizes() {
    // The transpose of [p, s] as one flat dim.
    let view = View::contiguous(('p', 's')).permute(&[1, 0]).unwrap();
    let view = view.merge(0, 2).unwrap();
    let nest = nest(
        Dims::from_slice(view.dims()),
        (),
        &[view],
        &[Scalar::Load(0)],
    );
    let rng = &mut Rng::new(5);
    let mut case = |p: i64, s: i64| {
        (
            binding(&[('p', p), ('s', s)]),
            vec![buffer(rng, DType::F32, (p * s) as usize)],
        )
    };
    let cases = [case(3, 5), case(0, 4), case(4, 0), case(33, 2), case(1, 1)];
    check(&nest, &cases);
}

#[test]
fn neighbouring_dims_become_one() {
    let nest = nest(
        [4, 1, 3, 5],
        (),
        &[View::contiguous([4, 1, 3, 5])],
        &[Scalar::Load(0)],
    );
    assert_eq!(Plan::new(&nest).unwrap().space, vec![Expr::from(60)]);
}

#[test]
fn wide_targets_use_wide_registers() {
    for (cpu, register) in [
        ("x86-64-v4", "zmm"),
        ("sapphirerapids", "zmm"),
        ("x86-64-v3", "ymm"),
    ] {
        let text = assembly(&softmax_numerator(), &Target::for_cpu(cpu).unwrap()).unwrap();
        assert!(
            text.contains(register) && text.contains("vfmadd"),
            "{cpu}:\n{text}"
        );
        assert!(!text.contains("call"), "{cpu} calls a library:\n{text}");
    }
}

#[test]
fn functions_have_the_bits_of_their_definitions() {
    // A stride of all floats, and all exponents with the ends of their mantissas.
    let strided = (0..u32::MAX).step_by(40_961);
    let ends = (0..512u32).flat_map(|e| [e << 23, (e << 23) + 1, (e << 23) | 0x7f_ffff]);
    let values: Vec<f32> = strided.chain(ends).map(f32::from_bits).collect();
    let n = values.len();
    let load = [View::contiguous([n])];
    let inputs = vec![floats(values)];
    let ops = [
        UnaryOp::Log2,
        UnaryOp::Exp2,
        UnaryOp::Sin,
        UnaryOp::Sqrt,
        UnaryOp::Recip,
    ];
    for op in ops {
        let nest = nest([n], (), &load, &[Scalar::Load(0), Scalar::Unary(op, 0)]);
        check(&nest, &[(Symbols::new(), inputs.clone())]);
    }
    let log2_e = Literal::new(DType::F32, std::f64::consts::LOG2_E);
    let product = Scalar::Binary(BinaryOp::Mul, 1, 0);
    let exp = [
        Scalar::Load(0),
        Scalar::Const(log2_e),
        product,
        Scalar::Unary(UnaryOp::Exp2, 2),
    ];
    check(
        &nest([n], (), &load, &exp),
        &[(Symbols::new(), inputs.clone())],
    );
    for dtype in [DType::I32, DType::Bool, DType::BF16, DType::F16, DType::F64] {
        let mut nest = nest([n], (), &load, &[Scalar::Load(0), Scalar::Cast(dtype, 0)]);
        nest.dtype = dtype;
        check(&nest, &[(Symbols::new(), inputs.clone())]);
    }
}

#[test]
fn a_padded_convolution_is_a_reduction_over_windows() {
    // [c, h, w] * [o, c, 3, 3] -> [o, h, w], with stride 1 and padding 1.
    let (o, c, h, w) = (4, 3, 9, 20);
    let image = View::contiguous([c, h, w])
        .pad(1, 1, 1)
        .unwrap()
        .pad(2, 1, 1)
        .unwrap();
    // [c, h, w, 3, 3] -> [h, w, c, 3, 3] -> [o, h, w, c, 3, 3]
    let windows = image
        .unfold(1, 3, 1, 1)
        .unwrap()
        .unfold(2, 3, 1, 1)
        .unwrap();
    let windows = windows
        .permute(&[1, 2, 0, 3, 4])
        .unwrap()
        .insert(0, o)
        .unwrap();
    let weights = View::contiguous([o, c, 3, 3])
        .insert(1, h)
        .unwrap()
        .insert(2, w)
        .unwrap();
    let product = Scalar::Binary(BinaryOp::Mul, 0, 1);
    let body = [
        Scalar::Load(0),
        Scalar::Load(1),
        product,
        Scalar::Reduced(0),
    ];
    let mut nest = nest([o, h, w], [c, 3, 3], &[windows, weights], &body);
    nest.stages = sum_of(2);
    let rng = &mut Rng::new(7);
    let inputs = [c * h * w, o * c * 9]
        .map(|n| buffer(rng, DType::F32, n))
        .to_vec();
    check(&nest, &[(Symbols::new(), inputs)]);
}

#[test]
fn only_known_library_functions_are_called() {
    let x = View::contiguous(['s']);
    let half = Scalar::Cast(DType::F16, 1);
    let body = [
        Scalar::Load(0),
        Scalar::Unary(UnaryOp::Sin, 0),
        half,
        Scalar::Cast(DType::F32, 2),
    ];
    let sin = nest(['s'], (), std::slice::from_ref(&x), &body);
    let modulo = nest(
        ['s'],
        (),
        &[x.clone(), x],
        &[
            Scalar::Load(0),
            Scalar::Load(1),
            Scalar::Binary(BinaryOp::Mod, 0, 1),
        ],
    );
    for cpu in ["x86-64", "x86-64-v3", "x86-64-v4"] {
        let target = Target::for_cpu(cpu).unwrap();
        for nest in [&sin, &modulo, &softmax_numerator()] {
            let text = assembly(nest, &target).unwrap();
            for called in text.lines().filter_map(|line| line.split("call").nth(1)) {
                let name = called
                    .trim_start_matches('q')
                    .trim()
                    .trim_end_matches("@PLT");
                assert!(
                    ["fmaf", "fma", "fmodf", "fmod"].contains(&name),
                    "{cpu} calls {name}"
                );
            }
        }
    }
}

#[test]
fn half_precision_needs_no_library() {
    let mut nest = nest(
        [100],
        (),
        &[View::contiguous([100])],
        &[Scalar::Load(0), Scalar::Binary(BinaryOp::Mul, 0, 0)],
    );
    (nest.loads[0].dtype, nest.dtype) = (DType::F16, DType::F16);
    let text = assembly(&nest, &Target::for_cpu("x86-64").unwrap()).unwrap();
    assert!(!text.contains("call"), "{text}");
}

#[test]
fn half_precision_conversions_are_exact_without_instructions() {
    // All 2^16 halves doubled, on a target that converts by integer operations.
    let bits: Vec<u16> = (0..=u16::MAX).collect();
    let n = bits.len();
    let mut nest = nest(
        [n],
        (),
        &[View::contiguous([n])],
        &[Scalar::Load(0), Scalar::Binary(BinaryOp::Add, 0, 0)],
    );
    (nest.loads[0].dtype, nest.dtype) = (DType::F16, DType::F16);
    let input: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    let lowered = lower(&nest, &Target::for_cpu("x86-64-v2").unwrap()).unwrap();
    let (out, _) = execute(&nest, &lowered, &Symbols::new(), &[input], 1);
    for (bits, out) in bits.iter().zip(out.chunks(2)) {
        let x = half::f16::from_bits(*bits).to_f32();
        let want = half::f16::from_f32(x + x);
        let got = half::f16::from_bits(u16::from_le_bytes([out[0], out[1]]));
        assert!(
            got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
            "{x} doubled: {got}"
        );
    }
}

#[test]
fn what_cannot_be_lowered_is_an_error() {
    let load = [View::contiguous([4])];
    let target = Target::native();
    let mut double = nest(
        [4],
        (),
        &load,
        &[Scalar::Load(0), Scalar::Unary(UnaryOp::Sin, 0)],
    );
    (double.loads[0].dtype, double.dtype) = (DType::F64, DType::F64);
    assert!(
        lower(&double, &target)
            .unwrap_err()
            .to_string()
            .contains("Sin")
    );
    let forward = nest([4], (), &load, &[Scalar::Unary(UnaryOp::Sqrt, 0)]);
    assert!(lower(&forward, &target).is_err());
    let wrong_dims = nest([5], (), &load, &[Scalar::Load(0)]);
    assert!(lower(&wrong_dims, &target).is_err());
    let mixed = nest(
        [4],
        (),
        &load,
        &[
            Scalar::Load(0),
            Scalar::Coord(0),
            Scalar::Binary(BinaryOp::Add, 0, 1),
        ],
    );
    assert!(lower(&mixed, &target).is_err());
}
