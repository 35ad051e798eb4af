//! Convolutions against loops over indices, and what they compile to: one contraction wherever there are rows and columns.

#![cfg(feature = "llvm-backend")]

use brain_blitz::hl_ops::{Conv, Padding, Pool};
use brain_blitz::prelude::*;

#[path = "support/small.rs"]
mod small;

use small::{input, numbers};

/// A convolution over two axes, as its definition says.
struct Case {
    n: usize,
    c: usize,
    out: usize,
    size: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
}

/// What most cases have in common.
const PLAIN: Case = Case {
    n: 2,
    c: 6,
    out: 8,
    size: [9, 7],
    kernel: [3, 3],
    stride: [1, 1],
    padding: [1, 1],
    dilation: [1, 1],
    groups: 1,
};

impl Case {
    fn rule(&self) -> Conv {
        Conv {
            stride: self.stride.into(),
            padding: Padding::By(self.padding.into()),
            dilation: self.dilation.into(),
            groups: self.groups,
        }
    }

    /// Calls `f` for every product of the convolution with the indices of the output, the input and the weight, all
    /// row-major, for outputs of these sizes.
    fn each_product(&self, o: [usize; 2], mut f: impl FnMut(usize, usize, usize)) {
        let (parts, cg) = (self.out / self.groups, self.c / self.groups);
        let [h, w] = self.size;
        let [kh, kw] = self.kernel;
        let place = |o: usize, k: usize, axis: usize| {
            (o * self.stride[axis] + k * self.dilation[axis]).checked_sub(self.padding[axis])
        };
        for n in 0..self.n {
            for out in 0..self.out {
                for c in 0..cg {
                    for (oy, ox) in (0..o[0]).flat_map(|y| (0..o[1]).map(move |x| (y, x))) {
                        for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
                            let (Some(y), Some(x)) = (place(oy, ky, 0), place(ox, kx, 1)) else {
                                continue;
                            };
                            if y < h && x < w {
                                let from = n * self.c + out / parts * cg + c;
                                let to = ((n * self.out + out) * o[0] + oy) * o[1] + ox;
                                let weight = ((out * cg + c) * kh + ky) * kw + kx;
                                f(to, (from * h + y) * w + x, weight);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Sizes of the output of a convolution over inputs of these sizes.
    fn sizes(&self) -> [usize; 2] {
        [0, 1].map(|i| {
            let reach = self.dilation[i] * (self.kernel[i] - 1) + 1;
            (self.size[i] + 2 * self.padding[i] - reach) / self.stride[i] + 1
        })
    }

    fn weight_dims(&self) -> [usize; 4] {
        let [kh, kw] = self.kernel;
        [self.out, self.c / self.groups, kh, kw]
    }
}

/// Compiles what `build` records for several machines; the result, and how many contractions there are.
fn compiled(build: impl Fn(&mut Graph) -> GraphTensor) -> (Vec<f32>, usize) {
    let mut found: Option<(Vec<f32>, usize)> = None;
    for cpu in ["native", "x86-64-v3"] {
        let mut cx = Graph::new();
        let out = build(&mut cx).retrieve();
        let report = cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
        for note in report.notes() {
            assert!(!note.contains("reference executor"), "{cpu}: {note}");
        }
        cx.set_dim('b', 2);
        cx.execute();
        let now = (out.data(), report.hits("contraction"));
        if let Some(before) = &found {
            assert_eq!(before.0, now.0, "{cpu}");
            assert_eq!(before.1, now.1, "{cpu}");
        }
        found = Some(now);
    }
    found.expect("there are machines")
}

fn close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-4, "element {i}: {got}, not {want}");
    }
}

/// Checks a convolution's numbers, and how many contractions it is.
fn check(case: &Case, contractions: usize) {
    let [h, w] = case.size;
    let o = case.sizes();
    let x_dims = [case.n, case.c, h, w];
    let (x, weight) = (
        numbers(x_dims.iter().product(), 0),
        numbers(case.weight_dims().iter().product(), 1),
    );
    let mut want = vec![0f32; case.n * case.out * o[0] * o[1]];
    case.each_product(o, |to, from, at| want[to] += x[from] * weight[at]);
    let (got, n) = compiled(|cx| {
        let x = input(cx, &x_dims, 0);
        let weight = input(cx, &case.weight_dims(), 1);
        x.conv(weight, None, &case.rule())
    });
    close(&got, &want);
    assert_eq!(n, contractions);
}

#[test]
fn a_convolution_is_one_contraction() {
    check(&PLAIN, 1);
    check(
        &Case {
            stride: [2, 3],
            padding: [2, 0],
            dilation: [2, 1],
            ..PLAIN
        },
        1,
    );
    check(
        &Case {
            groups: 2,
            kernel: [1, 2],
            padding: [0, 1],
            ..PLAIN
        },
        1,
    );
}

#[test]
fn a_convolution_of_each_channel_alone_has_no_rows_to_contract() {
    check(
        &Case {
            groups: 6,
            out: 6,
            ..PLAIN
        },
        0,
    );
}

#[test]
fn a_transposed_convolution_is_one_contraction_and_turns_the_convolution_around() {
    let cases = [
        PLAIN,
        Case {
            stride: [2, 3],
            dilation: [2, 1],
            groups: 2,
            ..PLAIN
        },
    ];
    for case in cases {
        let o = case.sizes();
        let y_dims = [case.n, case.out, o[0], o[1]];
        let (y, weight) = (
            numbers(y_dims.iter().product(), 2),
            numbers(case.weight_dims().iter().product(), 1),
        );
        let [h, w] = case.size;
        let mut want = vec![0f32; case.n * case.c * h * w];
        case.each_product(o, |to, from, at| want[from] += y[to] * weight[at]);
        // What the stride leaves over at the end.
        let extra = [0, 1].map(|i| {
            let reach = case.dilation[i] * (case.kernel[i] - 1) + 1;
            case.size[i] + 2 * case.padding[i] - ((o[i] - 1) * case.stride[i] + reach)
        });
        let (got, n) = compiled(|cx| {
            let y = input(cx, &y_dims, 2);
            let weight = input(cx, &case.weight_dims(), 1);
            y.conv_transpose(weight, None, &case.rule(), extra.into())
        });
        close(&got, &want);
        assert_eq!(n, 1);
    }
}

#[test]
fn batch_and_length_may_be_symbolic() {
    let mut results = Vec::new();
    for symbolic in [false, true] {
        let mut cx = Graph::new();
        let dims: Vec<Expr> = match symbolic {
            true => vec!['b'.into(), 3.into(), 's'.into()],
            false => vec![2.into(), 3.into(), 10.into()],
        };
        let x = cx.input(dims, DType::F32).set(numbers(60, 0));
        let weight = input(&mut cx, &[4, 3, 3], 1);
        let rule = Conv {
            padding: Padding::Same,
            stride: 2.into(),
            ..Conv::default()
        };
        let y = x.conv(weight, None, &rule).max_pool(&Pool::new([2]));
        let y = y.retrieve();
        let report = cx.compile(<(Generic, LlvmCpu)>::default(), ());
        assert_eq!(report.hits("contraction"), 1);
        cx.set_dim('b', 2);
        cx.set_dim('s', 10);
        cx.execute();
        results.push((y.array().dims().to_vec(), y.data()));
    }
    assert_eq!(results[0].0, [2, 4, 2]);
    assert_eq!(results[0], results[1]);
}

#[test]
#[should_panic(expected = "conv: f32[1, 6, 4] with weight f32[4, 2, 3] in 2 groups")]
fn groups_have_to_share_the_channels() {
    let mut cx = Graph::new();
    let (x, weight) = (input(&mut cx, &[1, 6, 4], 0), input(&mut cx, &[4, 2, 3], 1));
    let rule = Conv {
        groups: 2,
        ..Conv::default()
    };
    x.conv(weight, None, &rule);
}
