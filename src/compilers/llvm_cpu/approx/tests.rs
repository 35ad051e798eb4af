//! The bounds that [`crate::compilers::math`] states, over all kinds of numbers; that modes do what they say, and only
//! that.

use super::*;
use crate::compilers::llvm_cpu::nest::nest_of;
use crate::compilers::llvm_cpu::{Target, lower};
use crate::nn::attention::{Mask, ScoreRule};
use crate::op::Kernel;
use crate::prelude::*;

const MODES: [Math; 2] = [Math::Lut, Math::Approx];
/// Vectors of 1, 4, 8 and 16 lanes.
const TARGETS: [&str; 4] = ["scalar", "x86-64-v2", "x86-64-v3", "x86-64-v4"];

/// What a table says of a function: its value, and its errors under [`MODES`].
struct Stated {
    function: Function,
    exact: fn(f64) -> f64,
    relative: bool,
    errors: [f64; 2],
}

/// The table of `compilers::math`.
const STATED: [Stated; 6] = [
    stated(Function::Exp, f64::exp, true, [6.5e-5, 1.1e-4]),
    stated(Function::Sigmoid, sigmoid, true, [6.5e-5, 1.1e-4]),
    stated(Function::Tanh, f64::tanh, false, [1.3e-4, 1.4e-4]),
    stated(Function::Gelu, gelu, false, [2e-5, 3.5e-5]),
    stated(Function::GeluTanh, gelu_tanh, false, [2e-5, 2.5e-5]),
    stated(Function::Rsqrt, |x| 1.0 / x.sqrt(), true, [2.5e-6, 5e-6]),
];

const fn stated(
    function: Function,
    exact: fn(f64) -> f64,
    relative: bool,
    errors: [f64; 2],
) -> Stated {
    Stated {
        function,
        exact,
        relative,
        errors,
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_tanh(x: f64) -> f64 {
    match x {
        f64::NEG_INFINITY => 0.0,
        _ => x * sigmoid((8.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)),
    }
}

/// By the series of the error function, whose terms are all positive.
fn gelu(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return x.max(0.0);
    }
    let z = x * std::f64::consts::FRAC_1_SQRT_2;
    let (mut term, mut sum, mut n) = (z, z, 1.0);
    while (term / sum).abs() > 1e-17 {
        term *= 2.0 * z * z / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    let erf = std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * sum;
    0.5 * x * (1.0 + erf)
}

/// Numbers of every size and sign, their ends, and more of them where functions bend.
fn numbers() -> Vec<f32> {
    let all = (0..=u32::MAX).step_by(8191).map(f32::from_bits);
    let near = (-60_000..60_000).map(|i| i as f32 / 5000.0);
    let ends = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let more = [
        1e-45,
        -1e-45,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::MIN,
        88.7,
        -103.9,
    ];
    all.chain(near).chain(ends).chain(more).collect()
}

/// What a function gives, compiled by `llvm`.
fn run(function: Function, xs: &[f32], llvm: LlvmCpu, threads: usize) -> Vec<f32> {
    let mut cx = Graph::new();
    cx.set_threads(threads);
    let x = cx.input('n', DType::F32).set(xs.to_vec());
    let y = function.of(x).retrieve();
    cx.compile((Generic, llvm), ());
    cx.set_dim('n', xs.len());
    cx.execute();
    y.data()
}

/// The kernels of a graph.
fn kernels(build: impl Fn(&mut Graph) -> GraphTensor) -> Vec<Kernel> {
    let mut cx = Graph::new();
    build(&mut cx).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    cx.inspect(|dag| {
        let kernel = |id| match &dag.node(id).op {
            Op::Kernel(kernel) => Some((**kernel).clone()),
            _ => None,
        };
        dag.ids().filter_map(kernel).collect()
    })
}

fn nest(function: Function) -> Nest {
    let kernels = kernels(|cx| function.of(cx.input(64, DType::F32)));
    assert_eq!(kernels.len(), 1, "{function:?}");
    nest_of(&kernels[0]).unwrap()
}

/// How many functions a compiler says that it approximated.
fn replaced(math: Math, build: impl Fn(&mut Graph) -> GraphTensor) -> usize {
    let mut cx = Graph::new();
    build(&mut cx).retrieve();
    let report = cx.compile((Generic, LlvmCpu::native().math(math)), ());
    let notes = report.notes();
    let note = notes.into_iter().find(|note| note.contains("in the mode"));
    note.map_or(0, |note| {
        let number = note.split(' ').find_map(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("{note}"))
    })
}

#[test]
fn errors_are_within_what_is_stated() {
    let xs = numbers();
    for stated in &STATED {
        let exactly = run(stated.function, &xs, LlvmCpu::native(), 2);
        for (math, bound) in MODES.into_iter().zip(stated.errors) {
            let ys = run(stated.function, &xs, LlvmCpu::native().math(math), 2);
            let differ = ys.iter().zip(&exactly).filter(|(y, exact)| y != exact);
            assert!(differ.count() > 10_000, "{:?} {math}", stated.function);
            for (&x, &y) in xs.iter().zip(&ys) {
                stated.check(math, bound, x, y);
            }
        }
    }
}

impl Stated {
    #[track_caller]
    fn check(&self, math: Math, bound: f64, x: f32, y: f32) {
        let what = || format!("{math} {:?}({x:e}) is {y:e}", self.function);
        let want = (self.exact)(f64::from(x));
        if want.is_nan() {
            return assert!(y.is_nan(), "{}", what());
        }
        if (want as f32).is_infinite() || y.is_infinite() {
            // Only where the two round to different sides of the largest number.
            let near = want.abs() > f64::from(f32::MAX) * (1.0 - bound) && want.is_finite();
            return assert!(y == want as f32 || near, "{}", what());
        }
        // A few of the smallest steps, or all of a number that is not normal.
        let smallest = match self.function {
            Function::Sigmoid => f64::from(f32::MIN_POSITIVE),
            _ => 4.0 * f64::from(f32::from_bits(1)),
        };
        let scale = if self.relative { want.abs() } else { 1.0 };
        let error = (f64::from(y) - want).abs();
        // Far from zero, gelu is its operand, to whose last place nothing is added.
        let allowed = (bound * scale).max(smallest);
        assert!(error <= allowed, "{}, {error:e} from {want:e}", what());
    }
}

#[test]
fn ends_are_exact() {
    let at = |function, math, x: f32| run(function, &[x; 17], LlvmCpu::native().math(math), 1)[16];
    for math in MODES {
        for (x, want) in [
            (0.0, 1.0),
            (f32::NEG_INFINITY, 0.0),
            (f32::INFINITY, f32::INFINITY),
        ] {
            assert_eq!(at(Function::Exp, math, x), want, "{math} {x}");
        }
        assert_eq!(at(Function::Sigmoid, math, f32::NEG_INFINITY), 0.0);
        assert_eq!(at(Function::Sigmoid, math, 40.0), 1.0);
        assert_eq!(at(Function::Rsqrt, math, -0.0), f32::NEG_INFINITY);
        assert_eq!(at(Function::Rsqrt, math, f32::INFINITY), 0.0);
        for gelu in [Function::Gelu, Function::GeluTanh] {
            assert_eq!(at(gelu, math, 9.5), 9.5);
            assert_eq!(at(gelu, math, -9.5), 0.0);
        }
        let end = at(Function::Tanh, math, f32::INFINITY);
        assert!((0.9998..=1.0).contains(&end), "{math} {end}");
    }
}

#[test]
fn bits_are_the_same_on_every_target_and_number_of_threads() {
    let mut xs = numbers();
    xs.truncate(xs.len() / 16 * 16 - 3);
    let bits = |ys: Vec<f32>| -> Vec<u32> {
        let of = |y: f32| if y.is_nan() { 0x7fc0_0000 } else { y.to_bits() };
        ys.into_iter().map(of).collect()
    };
    let runs_here = |name: &&str| Target::for_cpu(name).unwrap().can_run_here();
    for (function, math) in Function::ALL
        .into_iter()
        .flat_map(|function| MODES.map(|math| (function, math)))
    {
        let wanted = bits(run(function, &xs, LlvmCpu::scalar().math(math), 1));
        for target in TARGETS.into_iter().filter(runs_here) {
            for threads in [1, 3] {
                let llvm = LlvmCpu::for_cpu(target).math(math);
                let found = bits(run(function, &xs, llvm, threads));
                let differs = found.iter().zip(&wanted).position(|(a, b)| a != b);
                let at = differs.map(|at| xs[at]);
                assert_eq!(
                    at, None,
                    "{math} {function:?} on {target} with {threads} threads"
                );
            }
        }
    }
}

#[test]
fn code_looks_into_tables_or_computes_polynomials() {
    let target = |name: &str| Target::for_cpu(name).unwrap();
    let looks = ["@table_", "@table_", "@llvm.x86.avx2.permps", "vpermi2var"];
    for function in Function::ALL {
        let exact = nest(function);
        assert_eq!(approximate(&mut exact.clone(), Math::Exact), 0);
        for math in MODES {
            let mut nest = exact.clone();
            assert_eq!(approximate(&mut nest, math), 1, "{function:?}");
            let wanted = Approximation { function, math };
            let replaced =
                |node: &Scalar| matches!(node, Scalar::Approx(what, _) if *what == wanted);
            assert_eq!(nest.body.iter().filter(|node| replaced(node)).count(), 1);
            assert!(
                nest.body.len() <= 2,
                "{function:?}: the rest is gone: {:?}",
                nest.body
            );
            for (name, look) in TARGETS.into_iter().zip(looks) {
                let text = lower::ir_text(&nest, &target(name)).unwrap();
                assert_eq!(
                    text.contains(look),
                    math == Math::Lut,
                    "{function:?} {name} {math}"
                );
                let plain = lower::ir_text(&exact, &target(name)).unwrap();
                assert!(!plain.contains(look), "{function:?} {name}");
            }
        }
    }
}

#[test]
fn functions_are_found_in_softmax_norms_activations_and_attention() {
    type Build = fn(&mut Graph) -> GraphTensor;
    let rows: [(&str, Build, usize); 7] = [
        ("softmax", |cx| cx.input((8, 40), DType::F32).softmax(1), 1),
        (
            "norm",
            |cx| cx.input((8, 40), DType::F32).rms_norm(1, None, 1e-6),
            1,
        ),
        ("silu", |cx| cx.input((8, 40), DType::F32).silu(), 1),
        (
            "gelu in bf16",
            |cx| cx.input((8, 40), DType::BF16).gelu_tanh(),
            1,
        ),
        (
            "gelu of a product",
            |cx| {
                let [x, w] = [0; 2].map(|_| cx.input((64, 64), DType::F32));
                x.matmul(w).gelu()
            },
            1,
        ),
        ("attention", attention, 2),
        (
            "none",
            |cx| {
                let x = cx.input((8, 40), DType::F32);
                x.cast(DType::F64).exp().cast(DType::F32) + x.sin() + x.exp2() + x.abs().log2()
            },
            0,
        ),
    ];
    for (name, build, wanted) in rows {
        assert_eq!(replaced(Math::Exact, build), 0, "{name}");
        for math in MODES {
            assert_eq!(replaced(math, build), wanted, "{name} {math}");
        }
    }
}

/// A soft cap and a softmax, of which a mask hides most.
fn attention(cx: &mut Graph) -> GraphTensor {
    let [q, k, v] = [0; 3].map(|at| {
        let data = (0..2 * 256 * 8).map(|i| ((i * 37 + at) % 29) as f32 / 9.0 - 1.5);
        cx.input((2, 256, 8), DType::F32)
            .set(data.collect::<Vec<f32>>())
    });
    let rule = ScoreRule {
        scale: 0.5,
        soft_cap: Some(3.0),
        mask: Mask::SlidingWindow(30),
    };
    rule.attend(q, k, v, 0)
}

#[test]
fn attention_is_near_the_exact_one() {
    let run = |compiler: LlvmCpu| {
        let mut cx = Graph::new();
        let y = attention(&mut cx).retrieve();
        cx.compile((Generic, compiler), ());
        cx.execute();
        y.data()
    };
    let exact = run(LlvmCpu::native());
    for math in MODES {
        let near = run(LlvmCpu::native().math(math));
        assert_ne!(near, exact, "{math}");
        let errors = near.iter().zip(&exact).map(|(a, b)| (a - b).abs());
        let worst = errors.fold(0.0, f32::max);
        assert!(worst < 2e-3, "{math}: {worst:e}");
        assert_eq!(
            near,
            run(LlvmCpu::for_cpu("x86-64-v3").math(math)),
            "{math}"
        );
    }
}
