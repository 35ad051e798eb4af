//! Layers of one bit and of three values: their numbers and gradients against plain loops, and that `Binarize` stores what was
//! trained.

use brain_blitz::blocks::SignFit;
use brain_blitz::compilers::binarize::SignActivations;
use brain_blitz::hl_ops::{Conv, Padding, SignEstimator};
use brain_blitz::nn::{BinaryConv2d, BinaryLinear, LowBit, Module, SignInputs};
use brain_blitz::op::Op;
use brain_blitz::prelude::*;

#[allow(dead_code, reason = "tests of kernels use it")]
#[path = "support/inputs.rs"]
mod inputs;
use inputs::numbers;

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/mnist_binary.rs"]
mod mnist_binary;

const ESTIMATORS: [SignEstimator; 3] = [
    SignEstimator::Identity,
    SignEstimator::Clipped,
    SignEstimator::ApproxSign,
];

/// The estimated slope of a sign.
fn slope(estimator: SignEstimator, x: f64) -> f64 {
    match estimator {
        SignEstimator::Identity => 1.0,
        _ if x.abs() > 1.0 => 0.0,
        SignEstimator::Clipped => 1.0,
        SignEstimator::ApproxSign => 2.0 - 2.0 * x.abs(),
    }
}

fn sign(x: f64) -> f64 {
    if x < 0.0 { -1.0 } else { 1.0 }
}

#[test]
fn signs_have_the_slopes_of_their_estimators() {
    let at = [
        -3.0f32, -1.0, -0.75, -0.125, -0.0, 0.0, 0.25, 1.0, 1.0625, 9.0,
    ];
    for estimator in ESTIMATORS {
        let mut cx = Graph::new();
        let x = cx.input(at.len(), DType::F32).set(at);
        let y = x.binary_sign_with(estimator).retrieve();
        let weighted = y * cx.arange(at.len()).cast(DType::F32);
        let dx = cx.compile(Autograd::new(x, weighted), ())[0].retrieve();
        cx.compile(Generic, ());
        cx.execute();
        let expected = at.map(|x| sign(x.into()) as f32);
        assert_eq!(y.data(), expected, "{estimator:?}");
        let slopes = at.iter().enumerate();
        let slopes = slopes.map(|(i, x)| (i as f64 * slope(estimator, (*x).into())) as f32);
        assert_eq!(dx.data(), slopes.collect::<Vec<_>>(), "{estimator:?}");
    }
}

/// What a row of weights becomes: units, and the scale.
fn rounded(w: &[f64], fit: SignFit) -> (Vec<f64>, f64) {
    let mean = |w: &[f64]| w.iter().map(|w| w.abs()).sum::<f64>() / w.len().max(1) as f64;
    let limit = if fit.ternary { 0.75 * mean(w) } else { -1.0 };
    let large: Vec<f64> = w.iter().copied().filter(|w| w.abs() > limit).collect();
    let stored = |scale: f64| match fit.half_scales {
        true => f64::from(half::f16::from_f32(scale as f32)),
        false => f64::from(scale as f32),
    };
    let scale = match fit.ternary {
        true => 2.0 * stored(mean(&large) / 2.0),
        false => stored(mean(&large)),
    };
    let unit = |w: &f64| if w.abs() > limit { sign(*w) } else { 0.0 };
    (w.iter().map(unit).collect(), scale)
}

/// What a row of inputs becomes.
fn rounded_inputs(x: &[f64], inputs: SignInputs) -> Vec<f64> {
    let largest = x.iter().fold(0f64, |max, x| max.max(x.abs()));
    let mean = x.iter().map(|x| x.abs()).sum::<f64>() / x.len() as f64;
    let step = largest / 127.0;
    let round = |x: &f64| match inputs {
        SignInputs::Kept => *x,
        SignInputs::Bytes => (x / step).round_ties_even() * step,
        SignInputs::FourBits => level(*x, mean * 4.0 / 15.0, 16.0),
        SignInputs::TwoBits => level(*x, mean / 1.5, 4.0),
        SignInputs::Signs => sign(*x),
        SignInputs::ScaledSigns => mean * sign(*x),
    };
    x.iter().map(round).collect()
}

/// The nearest of so many levels, odd numbers times this.
fn level(x: f64, size: f64, levels: f64) -> f64 {
    let odd = 2.0 * (x / (2.0 * size)).floor() + 1.0;
    size * odd.clamp(1.0 - levels, levels - 1.0)
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0f64, |size, x| size.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 2e-6 * size, "{what} {i}: {found}, not {expected}");
    }
}

/// Every kind of weights with every kind of inputs.
fn schemes() -> Vec<LowBit> {
    let mut out = Vec::new();
    for ternary in [false, true] {
        for half_scales in [false, true] {
            for inputs in SignInputs::ALL {
                let fit = SignFit {
                    ternary,
                    half_scales,
                };
                out.push(LowBit {
                    fit,
                    inputs,
                    ..LowBit::w1a1()
                });
            }
        }
    }
    out
}

const ROWS: usize = 4;
const K: usize = 37;
const N: usize = 9;

/// Inputs, weights and gradients of results; a row of the weights is all zeros.
fn linear_data() -> [Vec<f32>; 3] {
    let mut w = numbers(N * K, 2);
    w[3 * K..4 * K].fill(0.0);
    [numbers(ROWS * K, 1), w, numbers(ROWS * N, 3)]
}

#[test]
fn linear_layers_are_what_loops_compute() {
    let [x, w, _] = linear_data();
    for low_bit in schemes() {
        let mut cx = Graph::new();
        let layer = BinaryLinear::new(&mut cx, K, N, low_bit).with_bias(&mut cx);
        layer.weight.set(w.clone());
        layer.bias.unwrap().set(numbers(N, 4));
        let input = cx.input((ROWS, K), DType::F32).set(x.clone());
        let y = layer.forward(input).retrieve();
        cx.compile(Generic, ());
        cx.execute();
        let (x, w, bias) = (wide(&x), wide(&w), wide(&numbers(N, 4)));
        let mut expected = Vec::new();
        for x in x.chunks(K) {
            let x = rounded_inputs(x, low_bit.inputs);
            for (w, bias) in w.chunks(K).zip(&bias) {
                let (units, scale) = rounded(w, low_bit.fit);
                let dot: f64 = x.iter().zip(&units).map(|(x, w)| x * w).sum();
                expected.push(dot * scale + bias);
            }
        }
        assert_close(&y.data(), &expected, &format!("{low_bit:?}"));
    }
}

#[test]
fn gradients_are_those_of_the_estimators() {
    let [x, w, dy] = linear_data();
    for ternary in [false, true] {
        for estimator in ESTIMATORS {
            let mut low_bit = LowBit::w1a1().estimators(estimator, estimator);
            low_bit.fit.ternary = ternary;
            let mut cx = Graph::new();
            let layer = BinaryLinear::new(&mut cx, K, N, low_bit);
            layer.weight.set(w.clone());
            let input = cx.input((ROWS, K), DType::F32).set(x.clone());
            let weights = cx.input((ROWS, N), DType::F32).set(dy.clone());
            let loss = (layer.forward(input) * weights).sum(..);
            let grads = cx.compile(Autograd::new([input, layer.weight], loss), ());
            let grads = [grads[0].retrieve(), grads[1].retrieve()];
            cx.compile(Generic, ());
            cx.execute();
            let expected = gradients(&low_bit, estimator, [&x, &w, &dy].map(|x| wide(x)));
            let what = format!("{estimator:?} ternary {ternary}");
            assert_close(&grads[0].data(), &expected[0], &format!("{what}: x"));
            assert_close(&grads[1].data(), &expected[1], &format!("{what}: w"));
        }
    }
}

/// Of inputs and weights: by hand, `dw = dW slope(w / scale) + (sum dW units) dscale/dw`.
fn gradients(
    low_bit: &LowBit,
    estimator: SignEstimator,
    [x, w, dy]: [Vec<f64>; 3],
) -> [Vec<f64>; 2] {
    let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    for n in 0..N {
        let row = &w[n * K..][..K];
        let (units, scale) = rounded(row, low_bit.fit);
        let count = units.iter().filter(|unit| **unit != 0.0).count().max(1) as f64;
        let mut effective = vec![0.0; K];
        for m in 0..ROWS {
            let dy = dy[m * N + n];
            for k in 0..K {
                let at = x[m * K + k];
                effective[k] += dy * sign(at);
                dx[m * K + k] += dy * scale * units[k] * slope(estimator, at);
            }
        }
        let of_scale: f64 = effective.iter().zip(&units).map(|(d, u)| d * u).sum();
        for k in 0..K {
            let through = of_scale * units[k] / count;
            // A row of zeros has a scale of 0, and its numbers lie at 0 / 0 = 0.
            let (relative, part) = match scale == 0.0 {
                true => (0.0, 0.0),
                false => (row[k] / scale, 1.0),
            };
            dw[n * K + k] = part * effective[k] * slope(estimator, relative) + through;
        }
    }
    [dx, dw]
}

#[test]
fn a_norm_comes_first() {
    let [x, w, _] = linear_data();
    let mut cx = Graph::new();
    let layer = BinaryLinear::new(&mut cx, K, N, LowBit::w1a8()).with_norm(&mut cx, 1e-6);
    layer.weight.set(w.clone());
    layer.norm.unwrap().weight.set(numbers(K, 5));
    let input = cx.input((ROWS, K), DType::F32).set(x.clone());
    let y = layer.forward(input).retrieve();
    cx.execute();
    let (gain, w) = (wide(&numbers(K, 5)), wide(&w));
    let mut expected = Vec::new();
    for x in wide(&x).chunks(K) {
        let size = (x.iter().map(|x| x * x).sum::<f64>() / K as f64 + 1e-6).sqrt();
        let normed: Vec<f64> = x.iter().zip(&gain).map(|(x, g)| x / size * g).collect();
        let x = rounded_inputs(&normed, SignInputs::Bytes);
        for w in w.chunks(K) {
            let (units, scale) = rounded(w, SignFit::default());
            let dot: f64 = x.iter().zip(&units).map(|(x, w)| x * w).sum();
            expected.push(dot * scale);
        }
    }
    assert_close(&y.data(), &expected, "norm");
}

#[test]
fn parameters_have_their_names() {
    let mut cx = Graph::new();
    let layer = BinaryLinear::new(&mut cx, 4, 2, LowBit::w1a1());
    let layer = layer.with_bias(&mut cx).with_norm(&mut cx, 1e-6);
    let names = |module: &dyn Module| -> Vec<String> {
        let parameters = module.parameters();
        parameters
            .iter()
            .map(|(name, _)| name.to_string())
            .collect()
    };
    assert_eq!(names(&layer), ["weight", "bias", "norm.weight"]);
    let conv = BinaryConv2d::new(&mut cx, 2, 3, 3, Conv::default(), LowBit::w1a1());
    assert_eq!(names(&conv), ["weight"]);
    assert_eq!(names(&conv.with_bias(&mut cx)), ["weight", "bias"]);
    assert!(layer.state().is_empty());
}

const CHANNELS: usize = 3;
const SIDES: [usize; 2] = [7, 6];

/// A convolution of `[2, 3, 7, 6]` by windows of 3 x 2.
fn conv_by_hand(x: &[f64], w: &[f64], rule: [usize; 3], low_bit: &LowBit) -> Vec<f64> {
    let [stride, pad, dilation] = rule;
    let columns = CHANNELS * 6;
    let reach = [2 * dilation + 1, dilation + 1];
    let count = [0, 1].map(|i| (SIDES[i] + 2 * pad - reach[i]) / stride + 1);
    let mut out = Vec::new();
    for image in x.chunks(CHANNELS * SIDES[0] * SIDES[1]) {
        for w in w.chunks(columns) {
            let (units, scale) = rounded(w, low_bit.fit);
            for o in 0..count[0] {
                for p in 0..count[1] {
                    let number = |at: usize| {
                        let (c, i, j) = (at / 6, at % 6 / 2, at % 2);
                        let row = (o * stride + i * dilation).checked_sub(pad);
                        let column = (p * stride + j * dilation).checked_sub(pad);
                        match (row, column) {
                            (Some(row), Some(column)) if row < SIDES[0] && column < SIDES[1] => {
                                image[(c * SIDES[0] + row) * SIDES[1] + column]
                            }
                            _ => 0.0,
                        }
                    };
                    let window: Vec<f64> = (0..columns).map(number).collect();
                    let window = rounded_inputs(&window, low_bit.inputs);
                    let dot: f64 = window.iter().zip(&units).map(|(x, w)| x * w).sum();
                    out.push(dot * scale);
                }
            }
        }
    }
    out
}

#[test]
fn convolutions_are_what_loops_compute() {
    let (x, w) = (numbers(2 * CHANNELS * 42, 1), numbers(5 * CHANNELS * 6, 2));
    for low_bit in schemes() {
        for rule in [[1, 0, 1], [2, 1, 1], [1, 2, 2]] {
            let mut cx = Graph::new();
            let [stride, pad, dilation] = rule;
            let how = Conv {
                stride: stride.into(),
                padding: Padding::By(pad.into()),
                dilation: dilation.into(),
                groups: 1,
            };
            let layer = BinaryConv2d::new(&mut cx, CHANNELS, 5, [3, 2], how, low_bit);
            layer.weight.set(w.clone());
            let input = cx.input((2, CHANNELS, SIDES[0], SIDES[1]), DType::F32);
            let y = layer.forward(input.set(x.clone())).retrieve();
            cx.compile(Generic, ());
            cx.execute();
            let expected = conv_by_hand(&wide(&x), &wide(&w), rule, &low_bit);
            assert_close(&y.data(), &expected, &format!("{low_bit:?} {rule:?}"));
        }
    }
}

#[test]
#[should_panic(expected = "no groups")]
fn groups_are_refused() {
    let rule = Conv {
        groups: 2,
        ..Conv::default()
    };
    BinaryConv2d::new(&mut Graph::new(), 2, 2, 3, rule, LowBit::w1a1());
}

/// What `Binarize` has to be told of a scheme: what the graph does not say.
fn binarize(low_bit: &LowBit) -> Binarize {
    let binarize = match low_bit.inputs {
        SignInputs::Kept => Binarize::w1a1().activations(SignActivations::Kept),
        _ => Binarize::w1a1(),
    };
    let binarize = if low_bit.fit.ternary {
        binarize.ternary()
    } else {
        binarize
    };
    let binarize = if low_bit.fit.half_scales {
        binarize.half_scales()
    } else {
        binarize
    };
    binarize.with_ends()
}

/// A convolution and a linear layer with a bias behind it, rounding or latent.
fn two_layers(cx: &mut Graph, low_bit: LowBit, rounds: bool) -> GraphTensor {
    let rule = Conv {
        padding: Padding::Same,
        ..Conv::default()
    };
    let mut conv = BinaryConv2d::new(cx, 2, 4, 3, rule, low_bit);
    let mut linear = BinaryLinear::new(cx, 4 * 25, 7, low_bit).with_bias(cx);
    (conv.rounds, linear.rounds) = (rounds, rounds);
    conv.weight.set(numbers(4 * 18, 1));
    linear.weight.set(numbers(7 * 100, 2));
    linear.bias.unwrap().set(numbers(7, 3));
    let x = cx.input((3, 2, 5, 5), DType::F32).set(numbers(150, 4));
    linear
        .forward(conv.forward(x).tanh().flatten(1, 3))
        .retrieve()
}

fn count(cx: &Graph, is: impl Fn(&Op) -> bool) -> usize {
    cx.inspect(|dag| dag.ids().filter(|&id| is(&dag.node(id).op)).count())
}

#[test]
fn binarized_latent_weights_are_the_rounded_ones() {
    for low_bit in schemes() {
        let mut rounding = Graph::new();
        let expected = two_layers(&mut rounding, low_bit, true);
        // Weights that the graph rounds itself are no constants that rows are multiplied by.
        let report = rounding.compile((Generic, binarize(&low_bit), Generic), ());
        assert!(report.signed.is_empty(), "{report}");
        rounding.execute();

        let mut latent = Graph::new();
        let y = two_layers(&mut latent, low_bit, false);
        latent.execute();
        let far = y.data();
        let report = latent.compile((Generic, binarize(&low_bit), Generic), ());
        assert_eq!(report.signed.len(), 2, "{report}");
        let once = usize::from(low_bit.inputs == SignInputs::Bytes);
        let is_rounding = |op: &Op| matches!(op, Op::FakeQuantize(_));
        assert_eq!(count(&latent, is_rounding), 2 * once, "{low_bit:?}");
        latent.execute();
        let what = format!("{low_bit:?}");
        let is_whole = !matches!(low_bit.inputs, SignInputs::Kept | SignInputs::Bytes);
        // Sums of two bases are rounded, unless there are bits to spare.
        if is_whole && (!low_bit.fit.ternary || low_bit.fit.half_scales) {
            assert_eq!(y.data(), expected.data(), "{what}");
        } else {
            assert_close(&y.data(), &wide(&expected.data()), &what);
        }
        assert!(
            far.iter().zip(y.data()).any(|(a, b)| (a - b).abs() > 0.1),
            "latent weights are others: {what}"
        );
    }
}

#[cfg(feature = "llvm-backend")]
mod trained {
    use super::*;
    use mnist_binary::{Judge, Shape, Stage, Trainer, stripes};

    fn shape(is_cnn: bool) -> Shape {
        Shape {
            is_cnn,
            width: 72,
            low_bit: Some(LowBit::w1a1()),
            first: None,
        }
    }

    /// Trains on stripes; the losses.
    fn train(shape: &Shape, steps: usize) -> (Trainer, Vec<f32>) {
        let mut trainer = Trainer::new(shape, 20, steps as u32, 3e-3, 5);
        let (images, labels) = stripes(20);
        let losses = (0..steps).map(|_| trainer.step(images.clone(), labels.clone()));
        let losses = losses.collect();
        (trainer, losses)
    }

    #[test]
    fn training_falls_and_is_the_same_again() {
        let (_, losses) = train(&shape(false), 40);
        assert!(losses[0] > 2.0, "{losses:?}");
        assert!(losses[39] < 0.05, "{losses:?}");
        assert_eq!(train(&shape(false), 40).1, losses);
    }

    #[test]
    fn a_first_layer_of_few_bits_answers_the_same() {
        let few = [LowBit::w1a8, LowBit::w1a4, LowBit::w1a2, LowBit::w1a1];
        few.into_iter().for_each(|first| answers_the_same(first()));
    }

    /// Of a first layer with inputs of 8 bits, the order of additions is another one.
    fn answers_the_same(first: LowBit) {
        let shape = Shape {
            first: Some(first),
            ..shape(false)
        };
        let (trainer, losses) = train(&shape, 40);
        assert!(losses[39] < 0.1, "{losses:?}");
        for batch in [1, 64] {
            let (mut stored, report) = Judge::stored(&shape, &trainer.model, batch).unwrap();
            assert_eq!(report.hits("sign-products"), 3, "{report}");
            let (images, labels) = stripes(batch);
            let scores = stored.answer(images);
            for (scores, label) in scores.chunks(10).zip(labels) {
                let best = (0..10).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
                assert_eq!(best, Some(label as usize), "{scores:?}");
            }
        }
    }

    #[test]
    fn stored_networks_have_the_bits_of_training() {
        for (is_cnn, n_layers) in [(false, 2), (true, 3)] {
            let shape = shape(is_cnn);
            let (trainer, losses) = train(&shape, 6);
            assert!(losses[5] < losses[0], "{losses:?}");
            let images = stripes(10).0;
            let mut judge = Judge::new(&shape, Stage::Judged, 10);
            judge.take(&trainer.model).unwrap();
            let expected = judge.answer(images.clone());
            let (mut stored, report) = Judge::stored(&shape, &trainer.model, 10).unwrap();
            assert_eq!(report.signed.len(), n_layers, "{report}");
            assert_eq!(report.hits("sign-products"), n_layers, "{report}");
            assert_eq!(stored.answer(images.clone()), expected);
            // Latent weights as they are give something else.
            let mut latent = Judge::new(&shape, Stage::Stored, 10);
            latent.take(&trainer.model).unwrap();
            assert_ne!(latent.answer(images), expected);
        }
    }
}
