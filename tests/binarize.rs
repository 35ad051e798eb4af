//! `Binarize`: what it stores how and why, what the graph says afterwards, and that native code gives the same bits.

use brain_blitz::blocks::{BlockType, SignFit, SignMatrix};
use brain_blitz::compilers::binarize::{Choice, SignActivations};
use brain_blitz::op::{ActivationScheme, Op};
use brain_blitz::prelude::*;

#[path = "support/inputs.rs"]
mod inputs;
use inputs::{input, numbers};

/// Normal numbers, by Box and Muller's method from a fixed sequence.
fn normal(n: usize) -> Vec<f32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut out = Vec::with_capacity(n);
    while out.len() < n {
        let (u, v) = (1.0 - uniform(), uniform());
        out.push(((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32);
    }
    out
}

/// Root of the mean squared error, divided by the numbers' own.
fn relative_error(x: &[f32], y: &[f32]) -> f64 {
    let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let errors = squares(&mut x.iter().zip(y).map(|(x, y)| f64::from(*x) - f64::from(*y)));
    (errors / squares(&mut x.iter().map(|x| f64::from(*x)))).sqrt()
}

fn stored(x: &[f32], columns: usize, bases: usize, fit: SignFit) -> Vec<f32> {
    let matrix = SignMatrix::new(x.len() / columns, columns, bases).unwrap();
    let mut bytes = vec![0; matrix.bytes()];
    matrix.encode(fit, x, &mut bytes).unwrap();
    let mut y = vec![0.0; x.len()];
    matrix.numbers(&bytes, &mut y);
    y
}

#[test]
fn errors_on_normal_numbers_are_those_of_the_schemes() {
    let x = normal(1 << 17);
    let fits = [
        (1, false, 0.6028),
        (2, false, 0.3431),
        (3, false, 0.1925),
        (4, false, 0.1056),
        (2, true, 0.437),
    ];
    for (bases, ternary, expected) in fits {
        for half_scales in [false, true] {
            let fit = SignFit {
                ternary,
                half_scales,
            };
            let error = relative_error(&x, &stored(&x, 4096, bases, fit));
            assert!(
                (error / expected - 1.0).abs() < 0.02,
                "{bases} bases, {fit:?}: {error}, not {expected}"
            );
        }
    }
    let mut bytes = vec![0; BlockType::Q1_0.bytes_of(x.len()).unwrap()];
    BlockType::Q1_0.quantize(&x, &mut bytes).unwrap();
    let mut y = vec![0.0; x.len()];
    BlockType::Q1_0.dequantize(&bytes, &mut y).unwrap();
    let error = relative_error(&x, &y);
    assert!(
        (error / 0.6009 - 1.0).abs() < 0.02,
        "groups of 128: {error}"
    );
}

#[test]
fn scales_are_mean_magnitudes_and_zero_is_positive() {
    let x = [0.0, -0.0, 3.0, -1.0, 0.5, -0.5, 0.5, -0.5, 0.0, 0.0];
    let y = stored(&x, 5, 1, SignFit::default());
    assert_eq!(&y[..5], [0.9, 0.9, 0.9, -0.9, 0.9].map(|x: f64| x as f32));
    assert_eq!(&y[5..], [-0.3, 0.3, -0.3, 0.3, 0.3].map(|x: f64| x as f32));
    let ternary = SignFit {
        ternary: true,
        ..SignFit::default()
    };
    let y = stored(&[4.0, -0.5, 0.0, 0.25, -6.0, 0.25], 6, 2, ternary);
    assert_eq!(y, [5.0, 0.0, 0.0, 0.0, -5.0, 0.0]);
}

#[test]
fn numbers_of_few_values_are_kept_exactly() {
    let x: Vec<f32> = (0..70 * 8)
        .map(|i| [3.0, 1.0, -1.0, -3.0][i * 7 % 13 % 4])
        .collect();
    assert_eq!(stored(&x, 8, 2, SignFit::default()), x);
}

#[test]
fn numbers_without_sign_and_size_are_refused() {
    let matrix = SignMatrix::new(1, 3, 1).unwrap();
    let mut bytes = vec![0; matrix.bytes()];
    let why = matrix.encode(SignFit::default(), &[1.0, f32::NAN, 0.0], &mut bytes);
    assert!(why.unwrap_err().to_string().contains("element 1"));
    let half = SignFit {
        half_scales: true,
        ..SignFit::default()
    };
    assert!(matrix.encode(half, &[1e30; 3], &mut bytes).is_err());
    assert!(SignMatrix::new(1, 3, 5).is_err());
}

/// Three layers with a nonlinearity between them, and the middle one's weight.
struct Net {
    cx: Graph,
    y: GraphTensor,
}

const SIZES: [(&str, usize, usize); 4] = [
    ("first.weight", 70, 20),
    ("up.weight", 100, 70),
    ("down.weight", 37, 100),
    ("last.weight", 5, 37),
];

fn net(between: fn(GraphTensor) -> GraphTensor) -> Net {
    let mut cx = Graph::new();
    let mut x = cx.input(('s', 20), DType::F32).set(numbers(60, 3));
    for (at, (name, rows, columns)) in SIZES.into_iter().enumerate() {
        let w = cx.input((rows, columns), DType::F32).set_name(name);
        w.set(numbers(rows * columns, at + 7));
        x = x.matmul(w.transpose(0, 1));
        x = if at == 1 { between(x) } else { x };
    }
    cx.set_dim('s', 3);
    let y = x.retrieve();
    Net { cx, y }
}

/// What layers in the middle compute, from signs and scales that are numbers.
fn by_hand(
    between: fn(GraphTensor) -> GraphTensor,
    bases: usize,
    of: [SignActivations; 2],
) -> Vec<f32> {
    let mut cx = Graph::new();
    let mut x = cx.input((3, 20), DType::F32).set(numbers(60, 3));
    for (at, (_, rows, columns)) in SIZES.into_iter().enumerate() {
        let w = numbers(rows * columns, at + 7);
        x = match at {
            1 | 2 => signed_layer(&mut cx, x, &w, (rows, columns, bases), of[at - 1]),
            _ => {
                let w = cx.input((rows, columns), DType::F32).set(w);
                x.matmul(w.transpose(0, 1))
            }
        };
        x = if at == 1 { between(x) } else { x };
    }
    let y = x.retrieve();
    cx.execute();
    y.data()
}

fn signed_layer(
    cx: &mut Graph,
    x: GraphTensor,
    w: &[f32],
    (rows, columns, bases): (usize, usize, usize),
    activations: SignActivations,
) -> GraphTensor {
    let (levels, part) = match activations {
        SignActivations::FourBits => (16.0, 4.0 / 15.0),
        SignActivations::TwoBits => (4.0, 2.0 / 3.0),
        _ => (0.0, 1.0),
    };
    let size = x.abs().mean(-1).unsqueeze(-1) * part;
    let factor = match activations {
        SignActivations::Kept => x,
        SignActivations::Bytes => x.fake_quantize(ActivationScheme::A8Tok),
        SignActivations::FourBits | SignActivations::TwoBits => {
            let halves = (x * size.recip() * 0.5).floor();
            (halves * 2.0 + 1.0).clamp(1.0 - levels, levels - 1.0)
        }
        SignActivations::Signs | SignActivations::ScaledSigns => x.binary_sign(),
    };
    let matrix = SignMatrix::new(rows, columns, bases).unwrap();
    let mut bytes = vec![0; matrix.bytes()];
    matrix.encode(SignFit::default(), w, &mut bytes).unwrap();
    let terms = (0..bases).map(|base| {
        let (mut signs, mut scales) = (vec![0.0; w.len()], vec![0.0; rows]);
        matrix.signs(&bytes, base, &mut signs);
        matrix.scales(&bytes, base, &mut scales);
        let signs = cx.input((rows, columns), DType::F32).set(signs);
        let scales = cx.input(rows, DType::F32).set(scales);
        factor.matmul(signs.transpose(0, 1)) * scales
    });
    let terms: Vec<GraphTensor> = terms.collect();
    let sum = terms.into_iter().reduce(|sum, term| sum + term).unwrap();
    match activations {
        SignActivations::Kept | SignActivations::Bytes | SignActivations::Signs => sum,
        _ => sum * size,
    }
}

fn close(a: &[f32], b: &[f32]) -> bool {
    let size = b.iter().fold(0f32, |size, x| size.max(x.abs()));
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * size)
}

fn ops(cx: &Graph, is: impl Fn(&Op) -> bool) -> usize {
    cx.inspect(|dag| dag.ids().filter(|&id| is(&dag.node(id).op)).count())
}

#[test]
fn the_annotated_graph_multiplies_signs() {
    use SignActivations::{Bytes, FourBits, Kept, ScaledSigns, Signs, TwoBits};
    for activations in [Kept, Bytes, FourBits, TwoBits, Signs, ScaledSigns] {
        for bases in [1, 3] {
            let expected = by_hand(GraphTensor::tanh, bases, [activations; 2]);
            let mut net = net(GraphTensor::tanh);
            let binarize = Binarize::w1a1().activations(activations).bases(bases);
            let report = net.cx.compile((Generic, binarize, Generic), ());
            assert_eq!(report.hits("sign-weights"), 2, "{report}");
            net.cx.execute();
            let found = net.y.data();
            assert!(
                close(&found, &expected),
                "{activations:?} {bases}: {found:?} {expected:?}"
            );
            let packed = ops(&net.cx, |op| {
                matches!(op, Op::PackSigns | Op::PackPlanes(_))
            });
            let rounded = ops(&net.cx, |op| matches!(op, Op::FakeQuantize(_)));
            let expected = match activations {
                Kept => (0, 0),
                Bytes => (0, 2),
                Signs | ScaledSigns | FourBits | TwoBits => (2, 0),
            };
            assert_eq!((packed, rounded), expected, "{}", net.cx.to_text());
        }
    }
}

#[test]
fn every_decision_is_told_with_its_reason() {
    let mut net = net(GraphTensor::relu);
    let report = net.cx.compile((Generic, Binarize::default(), Generic), ());
    let text = report.to_string();
    for line in [
        "first.weight [70, 20] stays: no other layer comes before it",
        "up.weight [100, 70] becomes signs times signs times mean magnitudes: a layer in the middle",
        "down.weight [37, 100] becomes signs times activations of 8 bits: 8-bit activations, for these are never negative",
        "last.weight [5, 37] stays: no other layer comes after it",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let names: Vec<&str> = report
        .signed
        .iter()
        .map(|signed| signed.name.as_str())
        .collect();
    assert_eq!(names, ["up.weight", "down.weight"]);
    let bytes: Vec<usize> = report.signed.iter().map(|signed| signed.bytes).collect();
    // Panels of 64 rows, each a scale and whole bytes of bits.
    assert_eq!(bytes, [128 * (4 + 9), 64 * (4 + 13)]);
    assert!(
        report
            .signed
            .iter()
            .all(|signed| signed.rmse > 0.0 && signed.snr_db < 10.0)
    );
    net.cx.execute();
    let of = [SignActivations::ScaledSigns, SignActivations::Bytes];
    let expected = by_hand(GraphTensor::relu, 1, of);
    assert!(close(&net.y.data(), &expected));
}

#[test]
fn plans_and_other_uses_keep_weights_as_they_are() {
    let mut net = net(GraphTensor::tanh);
    let stay = Binarize::w1a1().with_ends().plan(|layer, _| {
        assert!(
            layer.is_first == (layer.name == "first.weight"),
            "{layer:?}"
        );
        Choice::Stay("told so".into())
    });
    let report = net.cx.compile(stay, ());
    assert_eq!(report.signed.len(), 0, "{report}");
    assert_eq!(ops(&net.cx, |op| matches!(op, Op::SignMatrix(..))), 0);

    let mut cx = Graph::new();
    let x = input(&mut cx, &[4, 16], 1);
    let table = input(&mut cx, &[50, 16], 2);
    let ids = cx.input(3, DType::I32).set(vec![3, 49, 0]);
    let looked_up = table.index_select(0, ids);
    let square = input(&mut cx, &[16, 16], 3);
    let y = x.matmul(table.transpose(0, 1)).retrieve();
    let z = (looked_up.matmul(square.transpose(0, 1)) + square.sum(0)).retrieve();
    cx.execute();
    let expected = [y, z].map(|t| t.data());
    let report = cx.compile((Generic, Binarize::w1a1().with_ends()), ());
    assert!(report.signed.is_empty(), "{report}");
    let notes = report.notes().join("\n");
    assert!(notes.contains("rows of it are looked up"), "{notes}");
    assert!(notes.contains("it is used otherwise too"), "{notes}");
    cx.execute();
    assert_eq!([y, z].map(|t| t.data()), expected);
}

#[test]
fn weights_of_16_bits_and_explicit_signs_are_taken() {
    let mut cx = Graph::new();
    let x = input(&mut cx, &[3, 24], 1);
    let w = cx
        .input((9, 24), DType::BF16)
        .set_name("w")
        .set(numbers(9 * 24, 2));
    let y = x
        .binary_sign()
        .matmul(w.cast(DType::F32).transpose(0, 1))
        .retrieve();
    let report = cx.compile((Generic, Binarize::w1a1().with_ends(), Generic), ());
    assert_eq!(report.signed.len(), 1, "{report}");
    // Signs have no size to scale by: there is no sum but the product's.
    assert_eq!(
        ops(&cx, |op| matches!(op, Op::Reduce(..))),
        1,
        "{}",
        cx.to_text()
    );
    assert_eq!(
        ops(&cx, |op| matches!(op, Op::Cast(_))),
        0,
        "{}",
        cx.to_text()
    );
    cx.execute();
    let x = cx_signs(&numbers(72, 1));
    let signs = stored(&w_bf16(&numbers(9 * 24, 2)), 24, 1, SignFit::default());
    let dot = |at: usize| -> f32 {
        let (x, w) = (&x[at / 9 * 24..][..24], &signs[at % 9 * 24..][..24]);
        let sum: f32 = x.iter().zip(w).map(|(x, w)| x * w.signum()).sum();
        sum * w[0].abs()
    };
    assert_eq!(y.data(), (0..27).map(dot).collect::<Vec<f32>>());
    assert!(
        w.try_set(numbers(9 * 24, 2)).is_err(),
        "there are only signs left"
    );
}

fn cx_signs(x: &[f32]) -> Vec<f32> {
    x.iter()
        .map(|x| if *x < 0.0 { -1.0 } else { 1.0 })
        .collect()
}

fn w_bf16(x: &[f32]) -> Vec<f32> {
    let array =
        brain_blitz::array::Array::new(vec![x.len()], brain_blitz::array::Data::F32(x.to_vec()));
    array.cast(DType::BF16).to_f32()
}

#[cfg(feature = "llvm-backend")]
mod native {
    use super::*;

    #[test]
    fn native_code_has_the_bits_of_the_annotated_graph() {
        let signs = || Binarize::w1a1().activations(SignActivations::Signs);
        // How many products of signs there are, and whether no others, whose sums native code adds in another order.
        for (binarize, n_products, exact) in [
            (signs().with_ends(), 4, true),
            (signs().with_ends().bases(2), 4, true),
            (signs().with_ends().ternary(), 4, true),
            (Binarize::w1a4().with_ends(), 4, false),
            (Binarize::w2a2().with_ends(), 4, false),
            (Binarize::w1a2().with_ends().ternary(), 4, false),
            (Binarize::w1a4(), 2, false),
            (Binarize::w1a1(), 2, false),
            (signs().bases(2), 2, false),
            (Binarize::w1a1().ternary(), 2, false),
            (Binarize::w1a8(), 2, false),
        ] {
            let mut annotated = net(GraphTensor::tanh);
            annotated
                .cx
                .compile((Generic, binarize.clone(), Generic), ());
            annotated.cx.execute();
            let expected = annotated.y.data();
            for target in ["native", "x86-64-v3", "scalar"] {
                let mut net = net(GraphTensor::tanh);
                let compilers = (Generic, binarize.clone(), LlvmCpu::for_cpu(target));
                let report = net.cx.compile(compilers, ());
                // A hit for each product, whatever there is of scales and bases.
                assert_eq!(report.hits("sign-products"), n_products, "{report}");
                net.cx.execute();
                let stats = net.cx.stats();
                assert_eq!(stats.steps, stats.native_steps, "{report}");
                let found = net.y.data();
                if exact {
                    assert_eq!(found, expected, "{target} {binarize:?}");
                } else {
                    // The first and the last layer add up in another order, and `tanh` follows.
                    assert!(close(&found, &expected), "{target} {binarize:?}");
                }
            }
        }
    }
}

/// Whole numbers have signs too.
#[test]
fn whole_numbers_below_zero_are_not_one_signed() {
    let is_one_signed = |limit: f64| {
        let mut cx = Graph::new();
        let x = input(&mut cx, &[2, 32], 1);
        let shift = x.zeros_like().cast(DType::I32) + limit;
        let x = x.relu() + shift.cast(DType::F32);
        let w = input(&mut cx, &[9, 32], 2);
        x.matmul(w.transpose(0, 1)).retrieve();
        let report = cx.compile((Generic, Binarize::w1a1().with_ends()), ());
        report.to_string().contains("never negative")
    };
    assert!(is_one_signed(3.0) && !is_one_signed(-3.0));
}
