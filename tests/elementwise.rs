//! What PyTorch's numbers (`tests/golden`) do not tell about elementwise functions: accuracy over whole ranges, every
//! number format, symbolic shapes, who is blamed for mistakes.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

use brain_blitz::array::{Array, Data};
use brain_blitz::prelude::*;
use half::{bf16, f16};

type Function = fn(GraphTensor) -> GraphTensor;
type Exact = fn(f64) -> f64;

/// Runs `f` on numbers of one format.
fn run(f: impl Fn(GraphTensor) -> GraphTensor, data: Data) -> Array {
    let mut cx = Graph::new();
    let array = {
        let n = brain_blitz::each_dtype!(&data, v => v.len());
        Array::new(vec![n], data)
    };
    let x = cx.input(array.dims(), array.dtype()).set(array);
    let y = f(x).retrieve();
    cx.execute();
    y.array()
}

/// Numbers between `low` and `high`, the ends included.
fn grid(low: f64, high: f64) -> Vec<f64> {
    let n = 4001;
    let step = (high - low) / f64::from(n - 1);
    (0..n).map(|i| low + f64::from(i) * step).collect()
}

/// The largest relative error of `f` in `F32` against `exact` on the grid.
fn worst(f: Function, exact: Exact, low: f64, high: f64) -> (f64, f32) {
    let xs: Vec<f32> = grid(low, high).into_iter().map(|x| x as f32).collect();
    let ys = run(f, Data::F32(xs.clone())).to_f64();
    let error = |(&x, y): (&f32, f64)| {
        let want = exact(f64::from(x));
        let size = want.abs().max(f64::from(f32::MIN_POSITIVE));
        ((y - want).abs() / size, x)
    };
    let errors = xs.iter().zip(ys).map(error);
    errors.fold((0.0, 0.0), |a, b| if a.0 > b.0 { a } else { b })
}

/// erf by its series, for the sizes at which that converges quickly.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}

#[test]
fn functions_keep_their_digits_over_whole_ranges() {
    // Function, its definition, the range, the bound in units of 2^-24 (half a unit in the last place).
    type Row = (&'static str, Function, Exact, f64, f64, f64);
    let rows: &[Row] = &[
        ("exp", |x| x.exp(), f64::exp, -2.0, 2.0, 5.0),
        ("exp", |x| x.exp(), f64::exp, -87.0, 88.0, 130.0),
        ("log", |x| x.log(), f64::ln, 1e-3, 1e3, 5.0),
        ("log1p", |x| x.log1p(), f64::ln_1p, -0.9, 0.9, 8.0),
        ("log1p", |x| x.log1p(), f64::ln_1p, -1e-4, 1e-4, 8.0),
        ("expm1", |x| x.expm1(), f64::exp_m1, -3.0, 3.0, 12.0),
        ("expm1", |x| x.expm1(), f64::exp_m1, -1e-4, 1e-4, 4.0),
        ("tanh", |x| x.tanh(), f64::tanh, -12.0, 12.0, 8.0),
        ("tanh", |x| x.tanh(), f64::tanh, -1e-3, 1e-3, 8.0),
        ("erf", |x| x.erf(), erf, -3.0, 3.0, 8.0),
        ("erf", |x| x.erf(), erf, -1e-3, 1e-3, 8.0),
        (
            "sigmoid",
            |x| x.sigmoid(),
            |x| 1.0 / (1.0 + (-x).exp()),
            -20.0,
            20.0,
            40.0,
        ),
        (
            "softplus",
            |x| x.softplus(),
            |x| x.exp().ln_1p(),
            -20.0,
            20.0,
            40.0,
        ),
        ("sin", |x| x.sin(), f64::sin, -3.0, 3.0, 4.0),
        ("tan", |x| x.tan(), f64::tan, -7.0, 7.0, 1.01),
        ("atan", |x| x.atan(), f64::atan, -7.0, 7.0, 1.01),
        ("asin", |x| x.asin(), f64::asin, -1.0, 1.0, 1.01),
        ("asinh", |x| x.asinh(), f64::asinh, -50.0, 50.0, 1.01),
        ("atanh", |x| x.atanh(), f64::atanh, -0.99, 0.99, 1.01),
        ("sinh", |x| x.sinh(), f64::sinh, -50.0, 50.0, 1.01),
    ];
    for &(name, f, exact, low, high, units) in rows {
        let (error, x) = worst(f, exact, low, high);
        let units_lost = error * 2f64.powi(24);
        assert!(
            units_lost <= units,
            "{name}({x:e}) is {units_lost:.1} half units off"
        );
    }
}

#[test]
fn tanh_ends_at_one_and_never_leaves_its_range() {
    let floats = |low: f32, high: f32| (low.to_bits()..high.to_bits()).step_by(7);
    let near: Vec<f32> = floats(7.5, 9.1).map(f32::from_bits).collect();
    let far = [9.02, 50.0, f32::MAX, f32::INFINITY];
    let xs: Vec<f32> = near.iter().copied().chain(far).collect();
    let both: Vec<f32> = xs.iter().flat_map(|&x| [x, -x]).collect();
    let ys = run(|x| x.tanh(), Data::F32(both)).to_f64();
    for (&x, y) in xs.iter().zip(ys.chunks(2)) {
        assert_eq!(y[0], -y[1], "tanh({x:e})");
        assert!(y[0] <= 1.0, "tanh({x:e}) is {:e}", y[0]);
        assert!(x < 7.846 || y[0] == 1.0, "tanh({x:e}) is {:e}", y[0]);
        let units = (y[0] - f64::from(x).tanh()).abs() * 2f64.powi(24);
        assert!(units <= 8.0, "tanh({x:e}) is {units:.1} half units off");
    }
    assert!(ys[0] < 1.0, "the range begins below the end");
    assert!(run(|x| x.tanh(), Data::F32(vec![f32::NAN])).to_f64()[0].is_nan());
}

#[test]
fn double_precision_is_more_precise() {
    let rows: &[(&str, Function, Exact, f64)] = &[
        ("tanh", |x| x.tanh(), f64::tanh, 1e-15),
        ("erf", |x| x.erf(), erf, 1e-13),
        ("log1p", |x| x.log1p(), f64::ln_1p, 1e-15),
        ("expm1", |x| x.expm1(), f64::exp_m1, 2e-15),
        ("exp", |x| x.exp(), f64::exp, 2e-15),
        ("floor", |x| x.floor(), f64::floor, 0.0),
        ("round", |x| x.round(), f64::round_ties_even, 0.0),
    ];
    let xs = grid(-0.99, 1.5);
    for (name, f, exact, bound) in rows {
        let ys = run(f, Data::F64(xs.clone())).to_f64();
        for (&x, y) in xs.iter().zip(ys) {
            let error = (y - exact(x)).abs();
            assert!(
                error <= bound * exact(x).abs(),
                "{name}({x:e}) is {error:e} off"
            );
        }
    }
}

#[test]
fn sixteen_bit_formats_are_rounded_once() {
    let rows: &[(&str, Function, Exact)] = &[
        ("exp", |x| x.exp(), f64::exp),
        ("tanh", |x| x.tanh(), f64::tanh),
        ("sigmoid", |x| x.sigmoid(), |x| 1.0 / (1.0 + (-x).exp())),
        ("log1p", |x| x.log1p(), f64::ln_1p),
        ("silu", |x| x.silu(), |x| x / (1.0 + (-x).exp())),
        ("pow", |x| x.pow(3), |x| x * x * x),
    ];
    let halves: Vec<f16> = grid(0.01, 5.0).into_iter().map(f16::from_f64).collect();
    let brains: Vec<bf16> = grid(0.01, 5.0).into_iter().map(bf16::from_f64).collect();
    for (name, f, exact) in rows {
        for (y, x) in run(f, Data::F16(halves.clone()))
            .to_f64()
            .iter()
            .zip(&halves)
        {
            let want = exact(x.to_f64());
            let unit = (want * 2f64.powi(-11)).max(2f64.powi(-25));
            assert!((y - want).abs() <= unit * 1.01, "{name}({x})");
        }
        for (y, x) in run(f, Data::BF16(brains.clone()))
            .to_f64()
            .iter()
            .zip(&brains)
        {
            let want = exact(x.to_f64());
            assert!(
                (y - want).abs() <= want * 2f64.powi(-8) * 1.01,
                "{name}({x})"
            );
        }
    }
}

#[test]
fn integer_division_is_exact_at_the_extremes() {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let numbers = [
        i32::MIN,
        i32::MIN + 1,
        -7,
        -1,
        1,
        2,
        3,
        7,
        46341,
        i32::MAX - 1,
        i32::MAX,
    ];
    for x in numbers {
        for y in numbers.into_iter().filter(|&y| (x, y) != (i32::MIN, -1)) {
            a.push(x);
            b.push(y);
        }
    }
    let mut cx = Graph::new();
    let x = cx.input(a.len(), DType::I32).set(&a);
    let y = cx.input(b.len(), DType::I32).set(&b);
    let floor = (x / y).retrieve();
    let trunc = x.trunc_divide(y).retrieve();
    let remainder = x.remainder(y).retrieve();
    let fmod = (x % y).retrieve();
    cx.execute();
    let (floor, trunc) = (floor.array().to_i32(), trunc.array().to_i32());
    let (remainder, fmod) = (remainder.array().to_i32(), fmod.array().to_i32());
    for (i, (&x, &y)) in a.iter().zip(&b).enumerate() {
        let down = (i64::from(x)).div_euclid(i64::from(y));
        let down = if y < 0 && i64::from(x).rem_euclid(i64::from(y)) != 0 {
            down - 1
        } else {
            down
        };
        assert_eq!(i64::from(floor[i]), down, "{x} // {y}");
        assert_eq!(trunc[i], x / y, "{x} / {y}");
        assert_eq!(fmod[i], x % y, "{x} % {y}");
        assert_eq!(
            i64::from(remainder[i]),
            i64::from(x) - down * i64::from(y),
            "{x} mod {y}"
        );
    }
}

#[test]
fn numbers_stand_on_either_side() {
    let f: Function = |x| {
        let mut y = 1.0 - 2.0 * x;
        y += 3;
        y -= 1.5f32;
        y *= x;
        y /= 2.0;
        y %= 7.0;
        6 / (y + 1.0 / x) + 5 % x
    };
    let exact = |x: f64| {
        let y = ((1.0 - 2.0 * x + 3.0 - 1.5) * x / 2.0) % 7.0;
        6.0 / (y + 1.0 / x) + 5.0 % x
    };
    let ys = run(f, Data::F64(vec![0.5, 1.25, -3.0])).to_f64();
    for (x, y) in [0.5, 1.25, -3.0].into_iter().zip(ys) {
        assert!((y - exact(x)).abs() < 1e-12, "{x}: {y}, not {}", exact(x));
    }
}

#[test]
fn no_size_is_negative() {
    let ys = run(|x| x.abs().recip(), Data::F32(vec![0.0, -0.0, -2.0, 4.0]));
    assert_eq!(ys.to_f32(), [f32::INFINITY, f32::INFINITY, 0.5, 0.25]);
    let ys = run(|x| x.abs(), Data::I32(vec![-3, 0, i32::MAX]));
    assert_eq!(ys.to_i32(), [3, 0, i32::MAX]);
}

#[test]
fn symbolic_shapes_broadcast() {
    let mut cx = Graph::new();
    let x = cx.input(('s', 1, 3), DType::F32);
    let y = cx.input(('t', 1), DType::F32);
    let z = (x * 10.0 + y).retrieve();
    assert_eq!(z.ty().to_string(), "f32[s, t, 3]");
    x.set(vec![0.0, 1.0, 2.0]);
    y.set(vec![1.0, 2.0]);
    cx.set_dim('s', 1);
    cx.set_dim('t', 2);
    cx.execute();
    assert_eq!(z.data(), [1.0, 11.0, 21.0, 2.0, 12.0, 22.0]);
}

thread_local! {
    static BLAMED: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
}

/// The message of the panic in `f`, and the file and line that it names.
fn blame(f: impl FnOnce() -> GraphTensor) -> (String, String, u32) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info
                .location()
                .map(|at| (at.file().to_string().leak() as &str, at.line()));
            BLAMED.set(place);
            before(info);
        }));
    });
    let payload = panic::catch_unwind(panic::AssertUnwindSafe(f)).expect_err("this should panic");
    let text = payload.downcast_ref::<String>().expect("a text").clone();
    let (file, line) = BLAMED.get().expect("a panic has a place");
    (text, file.to_string(), line)
}

#[test]
fn mistakes_name_the_users_line_and_both_types() {
    let mut cx = Graph::new();
    let x = cx.input((2, 3), DType::F32);
    let y = cx.input(4, DType::F32);
    let i = cx.input(3, DType::I32);
    type Row<'a> = (&'a dyn Fn() -> GraphTensor, &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        (&|| x + y, &["add", "f32[2, 3]", "f32[4]"]),
        (&|| x.maximum(y), &["maximum", "f32[2, 3]", "f32[4]"]),
        (&|| x - i, &["sub", "i32[3]", "cast"]),
        (&|| x / i, &["div", "i32[3]", "cast"]),
        (&|| i + 1.5, &["add", "i32", "1.5"]),
        (&|| i.exp(), &["exp", "i32[3]", "cast"]),
        (&|| i.tanh(), &["tanh", "i32[3]"]),
        (&|| !x, &["not", "f32[2, 3]"]),
        (&|| x & x, &["and", "f32[2, 3]"]),
        (&|| x.lt(0.0) - x.lt(1.0), &["sub", "bool[2, 3]"]),
        (&|| x.where_(x, x), &["where", "f32[2, 3]"]),
        (&|| x.dropout(1.5, 0, 0), &["dropout", "1.5"]),
        (&|| x.glu(1), &["glu", "f32[2, 3]"]),
        (&|| x.prelu(y), &["prelu", "f32[2, 3]", "f32[4]"]),
    ];
    for (mistake, words) in rows {
        let (text, file, _) = blame(mistake);
        assert!(file.ends_with("elementwise.rs"), "`{text}` blames {file}");
        for word in *words {
            assert!(text.contains(word), "`{text}` does not name {word}");
        }
    }
}

#[test]
fn every_op_remembers_the_line_that_called_the_method() {
    let functions: &[Function] = &[
        |x| x.exp().log() + x.cos() + x.log10(),
        |x| x.log1p() + x.expm1() + x.tanh() + x.erf() + x.sigmoid() + x.erfc() + x.logit(),
        |x| x.tan() + x.asin() + x.acos() + x.atan() + x.sinh() + x.cosh() + x.sech(),
        |x| x.asinh() + x.acosh() + x.atanh() + x.atan2(x) + x.lgamma() + x.digamma(),
        |x| x.floor() + x.ceil() + x.round() + x.trunc() + x.round_to(2) + x.sign() + x.abs(),
        |x| x.remainder(x) + x.floor_divide(x) + x.trunc_divide(2.0) + x % x + 1.0 / x - x,
        |x| x.pow(5) + x.pow(-2) + x.pow(x) + x.lerp(x, x) + x.hypot(x) + x.logaddexp(x),
        |x| x.xlogy(x) + x.copysign(x) + x.maximum(x) + x.fmin(x) + x.clamp(0.0, x),
        |x| x.masked_fill(x.isnan() | x.isinf() ^ x.ge(x), 0.0) + x.nan_to_num(0.0, 1.0, 2.0),
        |x| x.masked_fill(x.isclose(x, 0.1, 0.1) & x.logical_or(x), 0.0) + x.full_like(2.0),
        |x| x.relu() + x.elu(1.0) + x.celu(2.0) + x.selu() + x.gelu() + x.gelu_tanh() + x.silu(),
        |x| x.softplus() + x.logsigmoid() + x.mish() + x.leaky_relu(0.1) + x.prelu(x * 0.0),
        |x| x.hardswish() + x.softsign() + x.softshrink(0.5) + x.hardshrink(0.5) + x.relu6(),
        |x| x.tanhshrink() + x.threshold(0.0, 1.0) + x.dropout(0.5, 0, 0),
    ];
    for dtype in [DType::F32, DType::BF16, DType::F64] {
        for f in functions {
            let mut cx = Graph::new();
            f(cx.input(3, dtype));
            cx.rand_normal(3, 0, 0);
            cx.linspace(0.0, 1.0, 3);
            cx.eye(3, 3, dtype);
            cx.inspect(|dag| {
                for id in dag.ids() {
                    let file = dag.node(id).location.file();
                    assert!(file.ends_with("elementwise.rs"), "{}", dag.describe(id));
                }
                for (_, value) in dag.values() {
                    let at = value.location;
                    assert!(
                        at.file().ends_with("elementwise.rs"),
                        "a view recorded at {at}"
                    );
                }
            });
        }
    }
}

#[test]
fn random_numbers_depend_on_seed_and_step_only() {
    let draw = |seed, step: i64| {
        let mut cx = Graph::new();
        let x = cx.rand_normal((3, 5), seed, step).retrieve();
        let y = cx.rand_uniform((3, 5), seed, step).retrieve();
        cx.execute();
        (x.data(), y.data())
    };
    assert_eq!(draw(1, 0), draw(1, 0));
    let (a, b, c) = (draw(1, 0), draw(1, 1), draw(2, 0));
    assert!(a.0 != b.0 && a.1 != b.1, "another step draws other numbers");
    assert!(a.0 != c.0 && a.1 != c.1, "another seed draws other numbers");
}
