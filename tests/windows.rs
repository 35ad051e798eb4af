//! Small convolutions and their gradients, computed where the image lies: against loops, and bit for bit on every machine,
//! with any number of threads, and as packed products.

#![cfg(feature = "llvm-backend")]

use brain_blitz::compilers::Report;
use brain_blitz::hl_ops::{Conv, Padding};
use brain_blitz::prelude::*;

#[path = "support/small.rs"]
mod small;

use small::{input, numbers};

/// Images of `c` channels, a convolution to `out` channels with square windows.
#[derive(Clone, Copy)]
struct Case {
    n: usize,
    c: usize,
    out: usize,
    size: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
}

const PLAIN: Case = Case {
    n: 6,
    c: 6,
    out: 16,
    size: [14, 13],
    kernel: 5,
    stride: 1,
    padding: 0,
    dilation: 1,
};

/// What sums of up to a few thousand products of numbers below 1 may be off.
const ERROR: f64 = 1e-3;

impl Case {
    fn rule(self) -> Conv {
        Conv {
            stride: self.stride.into(),
            padding: Padding::By(self.padding.into()),
            dilation: self.dilation.into(),
            ..Conv::default()
        }
    }

    fn x_dims(self) -> [usize; 4] {
        [self.n, self.c, self.size[0], self.size[1]]
    }

    fn weight_dims(self) -> [usize; 4] {
        [self.out, self.c, self.kernel, self.kernel]
    }

    fn y_dims(self) -> [usize; 4] {
        let reach = self.dilation * (self.kernel - 1) + 1;
        let size = self
            .size
            .map(|size| (size + 2 * self.padding - reach) / self.stride + 1);
        [self.n, self.out, size[0], size[1]]
    }

    /// Calls `f` with the positions of every product's output, input and weight.
    fn each_product(self, mut f: impl FnMut(usize, usize, usize)) {
        let ([_, _, oh, ow], [h, w], k) = (self.y_dims(), self.size, self.kernel);
        let place =
            |o: usize, i: usize| (o * self.stride + i * self.dilation).checked_sub(self.padding);
        let pairs = |a: usize, b: usize| (0..a).flat_map(move |i| (0..b).map(move |j| (i, j)));
        for (n, (o, c)) in (0..self.n).flat_map(|n| pairs(self.out, self.c).map(move |p| (n, p))) {
            for ((y, x), (i, j)) in pairs(oh, ow).flat_map(|p| pairs(k, k).map(move |q| (p, q))) {
                let (Some(from_y), Some(from_x)) = (place(y, i), place(x, j)) else {
                    continue;
                };
                if from_y < h && from_x < w {
                    f(
                        ((n * self.out + o) * oh + y) * ow + x,
                        ((n * self.c + c) * h + from_y) * w + from_x,
                        ((o * self.c + c) * k + i) * k + j,
                    );
                }
            }
        }
    }

    /// The output, the gradient by the weight and that by the image, of loops.
    fn expected(self) -> [Vec<f64>; 3] {
        let len = |dims: [usize; 4]| dims.iter().product::<usize>();
        let dims = [self.y_dims(), self.weight_dims(), self.x_dims()];
        let [mut y, mut by_weight, mut by_x] = dims.map(|dims| vec![0f64; len(dims)]);
        let [factor, weight, x] = [(0, 2), (1, 1), (2, 0)]
            .map(|(i, phase)| numbers(len(dims[i]), phase))
            .map(|x| x.into_iter().map(f64::from).collect::<Vec<f64>>());
        self.each_product(|to, from, at| {
            y[to] += x[from] * weight[at];
            by_weight[at] += factor[to] * x[from];
            by_x[from] += factor[to] * weight[at];
        });
        [y, by_weight, by_x]
    }

    /// The same, compiled.
    fn compiled(self, cpu: &str, threads: usize, symbolic: bool) -> ([Vec<f32>; 3], Report) {
        let mut cx = Graph::new();
        let batch = |dims: [usize; 4]| -> Vec<Expr> {
            let mut dims = dims.map(Expr::from).to_vec();
            if symbolic {
                dims[0] = 'b'.into();
            }
            dims
        };
        let x = cx.input(batch(self.x_dims()), DType::F32);
        let x = x.set(numbers(self.x_dims().iter().product(), 0));
        let weight = input(&mut cx, &self.weight_dims(), 1);
        let factor = cx.input(batch(self.y_dims()), DType::F32);
        let factor = factor.set(numbers(self.y_dims().iter().product(), 2));
        let y = x.conv(weight, None, &self.rule()).retrieve();
        let loss = (y * factor).sum(..);
        let grads = cx.compile(Autograd::new([weight, x], loss), ());
        let results = [y, grads[0].retrieve(), grads[1].retrieve()];
        let report = cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
        for note in report.notes() {
            assert!(!note.contains("reference executor"), "{cpu}: {note}");
        }
        cx.set_threads(threads);
        cx.set_dim('b', self.n);
        cx.execute();
        (results.map(|result| result.data()), report)
    }
}

/// How many products were computed where the image lies.
fn windows(report: &Report) -> usize {
    let notes = report.notes();
    let mut before = notes
        .iter()
        .filter_map(|note| note.split_once(" products of windows"));
    let number = before
        .next()
        .and_then(|(before, _)| before.split_whitespace().last());
    number.map_or(0, |number| number.parse().expect("the note says how many"))
}

/// Checks the numbers of a convolution and its gradients, their bits on several machines, and how many of the three
/// products are computed where the image lies.
fn check(case: Case, expected: usize) {
    let (first, report) = case.compiled("native", 1, false);
    assert_eq!(windows(&report), expected, "{report}");
    for (got, want) in first.iter().zip(case.expected()) {
        assert_eq!(got.len(), want.len());
        for (i, (&got, want)) in got.iter().zip(want).enumerate() {
            assert!(
                (f64::from(got) - want).abs() < ERROR,
                "element {i}: {got}, not {want}"
            );
        }
    }
    check_bits(case, expected);
    // So many products that threads share them.
    check_bits(
        Case {
            n: 8 * case.n,
            ..case
        },
        expected,
    );
}

/// Checks the bits on several machines with several numbers of threads, and how many products are computed where the image
/// lies.
fn check_bits(case: Case, expected: usize) {
    let (first, _) = case.compiled("native", 1, false);
    for (cpu, threads) in [
        ("native", 2),
        ("native", 3),
        ("x86-64-v3", 1),
        ("x86-64-v3", 2),
    ] {
        let (now, report) = case.compiled(cpu, threads, false);
        assert_eq!(now, first, "{cpu}, {threads} threads");
        assert_eq!(windows(&report), expected, "{cpu}");
    }
    let (now, _) = case.compiled("scalar", 1, false);
    assert_eq!(now, first, "one element at a time");
}

#[test]
fn a_small_convolution_and_its_gradients_are_products_of_windows() {
    check(PLAIN, 3);
    // Rows of outputs that are longer than what is in registers at once, with and without a rest.
    check(
        Case {
            n: 2,
            c: 1,
            out: 7,
            size: [20, 100],
            kernel: 3,
            ..PLAIN
        },
        2,
    );
}

#[test]
fn zeros_around_the_image_are_written_out_once() {
    let case = Case {
        n: 2,
        c: 1,
        out: 6,
        size: [28, 28],
        padding: 2,
        ..PLAIN
    };
    check(case, 2);
    let (_, report) = case.compiled("native", 1, false);
    assert_eq!(
        report.hits("border"),
        2,
        "the convolution and the gradient by its weight: {report}"
    );
    let (_, report) = Case { padding: 0, ..case }.compiled("native", 1, false);
    assert_eq!(report.hits("border"), 0, "nothing is padding: {report}");
}

#[test]
fn the_gradient_by_the_image_is_one_product() {
    let shifted = |case: Case| case.compiled("native", 1, false).1.hits("shifted");
    assert_eq!(shifted(PLAIN), 1);
    assert_eq!(
        shifted(Case {
            padding: 1,
            ..PLAIN
        }),
        1
    );
    let spread = Case {
        dilation: 2,
        kernel: 3,
        ..PLAIN
    };
    check(spread, 3);
    assert_eq!(shifted(spread), 1);
    assert_eq!(shifted(Case { stride: 2, ..PLAIN }), 0, "windows lie apart");
    assert_eq!(shifted(Case { c: 40, ..PLAIN }), 0, "it has many rows");
}

#[test]
fn other_products_stay_packed() {
    let one = |case: Case| windows(&case.compiled("native", 1, false).1);
    assert_eq!(one(Case { kernel: 1, ..PLAIN }), 0, "nothing is seen twice");
    assert_eq!(
        one(Case {
            c: 40,
            out: 40,
            ..PLAIN
        }),
        0,
        "packing is worth it"
    );
    // The gradient by the weight reads single elements of the image, whatever their distance.
    let strided = Case {
        n: 24,
        stride: 2,
        ..PLAIN
    };
    check(strided, 1);
    assert_eq!(
        windows(&PLAIN.compiled("native", 1, true).1),
        0,
        "a symbolic batch"
    );
    let mut cx = Graph::new();
    let product = input(&mut cx, &[16, 600], 0).matmul(input(&mut cx, &[600, 25], 1));
    product.retrieve();
    assert_eq!(windows(&cx.compile((Generic, LlvmCpu::native()), ())), 0);
}

#[test]
fn bits_are_those_of_packed_products() {
    for case in [
        PLAIN,
        Case {
            padding: 2,
            ..PLAIN
        },
    ] {
        let (direct, report) = case.compiled("native", 1, false);
        let (packed, other) = case.compiled("native", 1, true);
        assert!(windows(&report) >= 2 && windows(&other) == 0);
        // The gradient by the image is another sum.
        assert_eq!(direct[..2], packed[..2]);
    }
}

/// The gradient by the image of a convolution whose result is seen at places that a factor repeats: there is no zero around
/// what is the same everywhere.
#[test]
fn windows_that_nothing_bounds_are_not_one_product() {
    for repeated in [[true, false], [false, true], [true, true]] {
        for padding in [0, 2] {
            let run = |cpu: Option<&str>| {
                let mut cx = Graph::new();
                let (h, w, k) = (12 + 2 * padding, 16 + 2 * padding, 5);
                let x = input(&mut cx, &[2, 6, 12, 16], 0);
                let weight = input(&mut cx, &[16, 6, k, k], 1);
                let [o, p] = [h - k + 1, w - k + 1];
                let sizes = [(o, repeated[0]), (p, repeated[1])];
                let [oh, ow] = sizes.map(|(size, is)| if is { 1 } else { size });
                let factor = input(&mut cx, &[2, 16, oh, ow], 2);
                let rule = Conv {
                    padding: Padding::By(padding.into()),
                    ..Conv::default()
                };
                let loss = (factor * x.conv(weight, None, &rule)).sum(..);
                let grads = cx.compile(Autograd::new([x], loss), ());
                let by_x = grads[0].retrieve();
                if let Some(cpu) = cpu {
                    cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
                }
                cx.execute();
                by_x.data()
            };
            let expected: Vec<f32> = run(None);
            for (got, want) in run(Some("native")).into_iter().zip(expected) {
                assert!((got - want).abs() < 1e-3, "{got}, not {want}");
            }
        }
    }
}
