//! `Precision`: which values it rounds, that kernels take the casts in, and what a rounded number is.

#[path = "support/filetest.rs"]
mod filetest;

use brain_blitz::array::Array;
use brain_blitz::compilers::generic::DeadCode;
use brain_blitz::compilers::{PassList, Precision, Report};
use brain_blitz::prelude::*;

/// A compiler, and the removal of what it left behind.
struct Tidy(Precision);

impl Compiler for Tidy {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        self.0.passes(list);
        list.push(DeadCode);
    }
}

fn check_files(pass: &str, precision: &Precision) {
    filetest::check(pass, || Tidy(precision.clone()));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/passes");
    for entry in std::fs::read_dir(root.join(pass)).expect("the folder of the pass") {
        let path = entry.expect("a readable folder").path();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let before = text.split("\n---").next().expect("split gives one piece");
        let mut cx = Graph::from_text(before).expect("a graph");
        let report = cx.compile(Tidy(precision.clone()), ());
        let keeps = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("keeps_"));
        assert_eq!(
            report.hits(pass) == 0,
            keeps,
            "{}: {report}",
            path.display()
        );
        let again = cx.compile(Tidy(precision.clone()), ());
        assert_eq!(again.hits(pass), 0, "{}: acts twice", path.display());
    }
}

#[test]
fn mixed_precision_files() {
    check_files("mixed-precision", &Precision::bf16());
}

#[test]
fn weight_storage_files() {
    check_files("weight-storage", &Precision::f16().weights_only());
}

/// Numbers in (-1, 1).
fn numbers(seed: u64, n: usize) -> Vec<f32> {
    let uniform = brain_blitz::op::random::uniform(seed, 0, n);
    uniform.into_iter().map(|x| 2.0 * x - 1.0).collect()
}

const SIZES: [usize; 4] = [24, 40, 56, 16];

/// Three layers with GELU between them: the input, the weights, the result.
fn mlp(cx: &mut Graph) -> (GraphTensor, Vec<GraphTensor>, GraphTensor) {
    let x = cx
        .input((32, SIZES[0]), DType::F32)
        .set(numbers(0, 32 * SIZES[0]));
    let mut weights = Vec::new();
    let mut y = x;
    for (i, pair) in SIZES.windows(2).enumerate() {
        let w = cx.input((pair[0], pair[1]), DType::F32);
        let w = w.set_name(&format!("{i}.weight"));
        weights.push(w.set(numbers(i as u64 + 1, pair[0] * pair[1])));
        y = y.matmul(w);
        if i + 2 < SIZES.len() {
            y = y.gelu_tanh();
        }
    }
    (x, weights, y.retrieve())
}

/// The largest difference, as a part of the largest number.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let largest = |mut v: Box<dyn Iterator<Item = f32> + '_>| v.by_ref().fold(0.0, f32::max);
    let scale = largest(Box::new(a.iter().map(|x| x.abs())));
    largest(Box::new(a.iter().zip(b).map(|(x, y)| (x - y).abs()))) / scale
}

fn mlp_result(compiler: impl Compiler) -> Vec<f32> {
    let mut cx = Graph::new();
    let (_, _, y) = mlp(&mut cx);
    cx.compile(compiler, ());
    cx.execute();
    y.data()
}

#[test]
fn results_are_near_those_of_f32_but_not_the_same() {
    let exact = mlp_result(Generic);
    let bf16 = [
        Precision::bf16(),
        Precision::bf16().weights_only(),
        Precision::bf16().with_weights(),
    ];
    let f16 = [
        Precision::f16(),
        Precision::f16().weights_only(),
        Precision::f16().with_weights(),
    ];
    // Half a unit in the last place, for each of the roundings on the way.
    for (precisions, unit) in [(bf16, 2f32.powi(-8)), (f16, 2f32.powi(-11))] {
        for precision in precisions {
            let rounded = mlp_result((Generic, precision.clone(), Generic));
            let error = distance(&exact, &rounded);
            assert!(
                error > unit / 16.0,
                "{precision:?} changed nothing: {error}"
            );
            assert!(error < unit * 4.0, "{precision:?} is off by {error}");
        }
    }
}

#[test]
fn data_of_weights_is_converted_before_and_after_compiling() {
    let mut cx = Graph::new();
    let (x, weights, y) = mlp(&mut cx);
    let report = cx.compile((Precision::bf16().weights_only(), Generic), ());
    assert_eq!(report.hits("weight-storage"), 3, "{report}");
    assert_eq!(report.notes(), Vec::<String>::new());
    for (i, w) in weights.iter().enumerate() {
        let n = SIZES[i] * SIZES[i + 1];
        let rounded = |x: f32| half::bf16::from_f32(x).to_f32();
        let wanted: Vec<f32> = numbers(i as u64 + 1, n).into_iter().map(rounded).collect();
        assert_eq!(w.data(), wanted);
        assert_eq!(w.array().bytes().len(), 2 * n, "two bytes a number");
        assert_eq!(w.dtype(), DType::F32, "as recorded");
    }
    assert_eq!(x.array().dtype(), DType::F32);
    cx.execute();
    let old = y.data();

    let n = SIZES[2] * SIZES[3];
    weights[2].set(numbers(9, n));
    assert_eq!(weights[2].array().bytes().len(), 2 * n, "rounded when set");
    cx.execute();
    assert!(
        distance(&old, &y.data()) > 0.1,
        "new data gives new results"
    );

    let sum = (weights[2] + 1.0).retrieve();
    cx.execute();
    let one_more: Vec<f32> = weights[2].data().iter().map(|w| w + 1.0).collect();
    assert_eq!(sum.data(), one_more, "recording goes on in f32");
}

#[test]
fn a_converted_input_is_no_state_any_more() {
    let mut cx = Graph::new();
    let w = cx.input((2, 2), DType::F32).set_name("weight").set_zeros();
    let state = cx.input((2, 2), DType::F32).set_zeros();
    let y = (w + state).retrieve();
    cx.compile(Precision::f16().weights_only(), ());
    for assign in [(w, y), (state, w)] {
        let outcome = std::panic::catch_unwind(|| assign.0.assign(assign.1));
        let message = outcome.expect_err("the formats differ");
        let message = message.downcast_ref::<String>().expect("a message");
        assert!(message.contains("changed the format"), "{message}");
    }
    state.assign(y);
    cx.execute();
}

#[test]
fn weights_are_chosen_by_name_and_a_compiler_without_any_says_so() {
    let mut cx = Graph::new();
    mlp(&mut cx);
    let only = |part: &'static str| {
        Precision::bf16()
            .weights_only()
            .weights_named(move |name| name.starts_with(part))
    };
    let report = cx.compile(only("2."), ());
    assert_eq!(report.hits("weight-storage"), 1);
    let report = cx.compile(only("nothing"), ());
    assert_eq!(report.hits("weight-storage"), 0);
    assert!(
        report.notes()[0].contains("no input was stored"),
        "{report}"
    );
}

/// `x` rounded to nearest, ties to even, in a format of so many bits after the point, its smallest normal exponent
/// and its largest number: from the definition, in `f64`, where every step is exact.
fn rounded(x: f32, bits: i32, smallest: i32, largest: f64) -> f64 {
    let x = f64::from(x);
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    // `f64`'s own exponent field; no `f32` is subnormal as an `f64`.
    let exponent = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let unit = 2f64.powi(exponent.max(smallest) - bits);
    let near = (x / unit).round_ties_even() * unit;
    match near.abs() > largest {
        true => f64::INFINITY.copysign(x),
        false => near.copysign(x),
    }
}

/// Numbers on, near and between those of the 16-bit formats, at all exponents: ties, subnormals, infinities, NaN.
fn delicate() -> Vec<f32> {
    let mut all = vec![
        f32::NAN,
        -f32::NAN,
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0xffbf_ffff),
    ];
    all.extend([
        65504.0,
        65519.996,
        65520.0,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::INFINITY,
        0.0,
    ]);
    let tails = [
        0, 1, 0x0fff, 0x1000, 0x1001, 0x2000, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0xffff,
    ];
    for high in (0u32..0x7f80).step_by(7) {
        all.extend(tails.map(|tail| f32::from_bits(high << 16 | tail)));
    }
    let negative: Vec<f32> = all.iter().map(|x| -x).collect();
    all.extend(negative);
    all
}

/// All pipelines: none, `Generic`, and native code for each machine that runs here.
fn compile_each(mut run: impl FnMut(&str, &dyn Fn(&mut Graph))) {
    run("reference", &|_| ());
    run("generic", &|cx| drop(cx.compile(Generic, ())));
    #[cfg(feature = "llvm-backend")]
    for cpu in ["scalar", "x86-64-v3", "native"] {
        run(cpu, &|cx| {
            let report = cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
            let notes = report.notes();
            assert!(
                notes[0].contains("1 kernels, 1 distinct"),
                "{cpu}: {notes:?}"
            );
        });
    }
}

#[test]
fn a_cast_rounds_to_nearest_even_on_every_pipeline() {
    let numbers = delicate();
    for (dtype, bits, smallest, largest) in [
        (DType::BF16, 7, -126, f64::from(half::bf16::MAX.to_f32())),
        (DType::F16, 10, -14, 65504.0),
    ] {
        compile_each(|pipeline, compile| {
            let mut cx = Graph::new();
            let x = cx.input(numbers.len(), DType::F32).set(numbers.clone());
            let y = x.cast(dtype).retrieve();
            compile(&mut cx);
            cx.execute();
            for (x, y) in numbers.iter().zip(y.array().to_f64()) {
                let wanted = rounded(*x, bits, smallest, largest);
                let same = wanted.to_bits() == y.to_bits() || (wanted.is_nan() && y.is_nan());
                assert!(
                    same,
                    "{pipeline}: {x:e} became {y:e} in {dtype}, not {wanted:e}"
                );
            }
        });
    }
}

#[test]
fn every_number_of_16_bits_widens_exactly_on_every_pipeline() {
    for dtype in [DType::BF16, DType::F16] {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
        let all = Array::from_bytes(vec![1 << 16], dtype, &bytes);
        compile_each(|pipeline, compile| {
            let mut cx = Graph::new();
            let x = cx.input(1 << 16, dtype);
            x.try_set_shared(std::sync::Arc::new(bytes.clone()))
                .expect("as many as needed");
            let y = x.cast(DType::F32).retrieve();
            compile(&mut cx);
            cx.execute();
            for (wanted, y) in all.to_f64().into_iter().zip(y.array().to_f64()) {
                let same = wanted.to_bits() == y.to_bits() || (wanted.is_nan() && y.is_nan());
                assert!(same, "{pipeline}: {wanted:e} became {y:e}");
            }
        });
    }
}

#[cfg(feature = "llvm-backend")]
mod native {
    use super::*;
    use brain_blitz::op::Op;

    /// Of each matrix product, the formats of what it reads; and the number of all kernels.
    fn products(cx: &Graph) -> (Vec<Vec<DType>>, usize) {
        cx.inspect(|dag| {
            let (mut products, mut kernels) = (Vec::new(), 0);
            for id in dag.ids() {
                if let Op::Kernel(kernel) = &dag.node(id).op {
                    assert!(kernel.code().is_some(), "{} has no code", kernel.name());
                    kernels += 1;
                    if kernel.name().contains("contraction") {
                        products.push(kernel.operands().iter().map(|ty| ty.dtype).collect());
                    }
                }
            }
            (products, kernels)
        })
    }

    const CPUS: [&str; 2] = ["x86-64-v3", "native"];

    #[test]
    fn contractions_take_the_casts_in_and_intermediate_results_are_smaller() {
        for cpu in CPUS {
            let compiled = |precision: Option<Precision>| {
                let mut cx = Graph::new();
                let (_, _, y) = mlp(&mut cx);
                match precision {
                    None => cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ()),
                    Some(p) => cx.compile((Generic, p, Generic, LlvmCpu::for_cpu(cpu)), ()),
                };
                cx.execute();
                let (formats, kernels) = products(&cx);
                (formats, kernels, cx.stats().arena_bytes, y.data())
            };
            let (formats, kernels, bytes, _) = compiled(None);
            assert_eq!(formats, vec![vec![DType::F32; 2]; 3]);
            for (precision, dtype) in [
                (Precision::bf16(), DType::BF16),
                (Precision::f16(), DType::F16),
            ] {
                let mixed = compiled(Some(precision.clone()));
                let mut narrow: Vec<usize> = mixed
                    .0
                    .iter()
                    .map(|f| f.iter().filter(|&&f| f == dtype).count())
                    .collect();
                narrow.sort_unstable();
                assert_eq!(
                    narrow,
                    [0, 1, 1],
                    "{cpu}: what was computed is read in 16 bits"
                );
                assert_eq!(mixed.1, kernels, "{cpu}: no kernel only converts");
                assert!(mixed.2 < bytes, "{cpu}: {} bytes, {bytes} before", mixed.2);

                let weights = compiled(Some(precision.clone().weights_only()));
                assert!(
                    weights.0.iter().all(|formats| formats.contains(&dtype)),
                    "{cpu}"
                );
                assert_eq!((weights.1, weights.2), (kernels, bytes), "{cpu}: as in f32");

                let both = compiled(Some(precision.clone().with_weights()));
                let all = both.0.iter().flatten().filter(|&&f| f == dtype).count();
                assert_eq!(all, 5, "{cpu}: all but the input");

                // The loss is in the graph: the reference computes the same numbers.
                for (result, p) in [
                    (&mixed.3, precision.clone()),
                    (&weights.3, precision.clone().weights_only()),
                    (&both.3, precision.clone().with_weights()),
                ] {
                    let reference = mlp_result((Generic, p.clone(), Generic));
                    let error = distance(&reference, result);
                    // A sum in another order may round to the next number of 16 bits.
                    let limit = if p_is_weights(&p) { 1e-5 } else { 8e-3 };
                    assert!(error < limit, "{cpu}, {p:?}: {error}");
                }
            }
        }
    }

    fn p_is_weights(p: &Precision) -> bool {
        format!("{p:?}").contains("Weights")
    }

    #[test]
    fn norms_and_softmax_compile_to_the_same_kernels() {
        let compiled = |precision: bool| {
            let mut cx = Graph::new();
            let x = cx.input((8, 64), DType::F32).set(numbers(3, 512));
            let y = x.layer_norm(-1, None, None, 1e-5).softmax(1).retrieve();
            let hits = match precision {
                false => {
                    cx.compile(<(Generic, LlvmCpu)>::default(), ());
                    0
                }
                true => {
                    let all = (Generic, Precision::bf16(), Generic, LlvmCpu::native());
                    cx.compile(all, ()).hits("mixed-precision")
                }
            };
            cx.execute();
            (hits, products(&cx).1, y.data())
        };
        let (hits, kernels, data) = compiled(true);
        assert_eq!(hits, 0);
        let (_, plain_kernels, plain) = compiled(false);
        assert_eq!((kernels, data), (plain_kernels, plain));
    }
}
