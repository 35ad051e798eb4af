//! Symbolic sizes: every method gives, for several values of the symbols and without recording anew, what it gives on
//! static sizes.
//!
//! The data are small whole and quarter numbers, so that sums and products are exact in any order and results can be
//! compared exactly; functions that round are compared within a few units in the last place.

use brain_blitz::array::Array;
use brain_blitz::prelude::*;

/// Values of `p` and `s`.
const SIZES: &[(usize, usize)] = &[(1, 1), (2, 3), (5, 2), (3, 8), (4, 5), (0, 2), (2, 0)];

/// A size: symbolic in one graph, its value in the other.
#[derive(Clone, Copy)]
struct Sizes {
    p: Expr,
    s: Expr,
}

/// Data that depend on the position only.
fn numbers(n: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 7 + i / 3 + 3) % 11) as f32 * 0.25 - 1.0;
    (0..n).map(number).collect()
}

/// What a case gets: tensors to work on, and the sizes to build with.
struct Given<'a> {
    cx: &'a mut Graph,
    sizes: Sizes,
    inputs: Vec<(GraphTensor, Kind)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Numbers,
    /// Indices below this.
    Indices(usize),
}

impl Given<'_> {
    fn input<const N: usize>(&mut self, dims: [Expr; N]) -> GraphTensor {
        let tensor = self.cx.input(dims, DType::F32);
        self.inputs.push((tensor, Kind::Numbers));
        tensor
    }

    fn index<const N: usize>(&mut self, dims: [Expr; N], below: usize) -> GraphTensor {
        let tensor = self.cx.input(dims, DType::I32);
        self.inputs.push((tensor, Kind::Indices(below)));
        tensor
    }

    fn fill(&self, values: &impl Fn(Expr) -> usize) {
        for &(tensor, kind) in &self.inputs {
            let n = tensor.dims().iter().map(|&dim| values(dim)).product();
            match kind {
                Kind::Numbers => tensor.set(numbers(n)),
                Kind::Indices(below) => tensor.set(Vec::from_iter((0..n).map(|i| i * 5 % below))),
            };
        }
    }
}

type Build = fn(&mut Given<'_>) -> GraphTensor;

fn on_static_sizes(build: Build, p: usize, s: usize) -> Array {
    let mut cx = Graph::new();
    let sizes = Sizes {
        p: p.into(),
        s: s.into(),
    };
    let inputs = Vec::new();
    let mut given = Given {
        cx: &mut cx,
        sizes,
        inputs,
    };
    let out = build(&mut given).retrieve();
    given.fill(&|dim| dim.as_usize().unwrap());
    cx.execute();
    out.array()
}

/// Compares the symbolic graph with static ones, for those sizes where `p >= least_p` and `s >= least_s`.
fn check_from(name: &str, least_p: usize, least_s: usize, ulps: f32, build: Build) {
    let mut cx = Graph::new();
    let sizes = Sizes {
        p: 'p'.into(),
        s: 's'.into(),
    };
    let inputs = Vec::new();
    let mut given = Given {
        cx: &mut cx,
        sizes,
        inputs,
    };
    let out = build(&mut given).retrieve();
    let inputs = given.inputs;
    let mut n_checked = 0;
    let usable = |&&(p, s): &&(usize, usize)| p >= least_p && s >= least_s;
    for &(p, s) in SIZES.iter().filter(usable) {
        cx.set_dim('p', p);
        cx.set_dim('s', s);
        let symbols = [('p', p as i64), ('s', s as i64)].into_iter().collect();
        let given = Given {
            cx: &mut cx,
            sizes,
            inputs: inputs.clone(),
        };
        given.fill(&|dim| dim.eval(&symbols).unwrap() as usize);
        cx.execute();
        let (got, want) = (out.array(), on_static_sizes(build, p, s));
        assert_eq!(got.dims(), want.dims(), "{name} with p = {p}, s = {s}");
        for (g, w) in got.to_f32().into_iter().zip(want.to_f32()) {
            let close = (g - w).abs() <= ulps * f32::EPSILON * w.abs().max(1.0);
            let same = g == w || (g.is_nan() && w.is_nan()) || close;
            assert!(same, "{name} with p = {p}, s = {s}: {g}, not {w}");
        }
        n_checked += 1;
    }
    assert!(n_checked >= 2, "{name} is hardly tested");
}

fn check(name: &str, build: Build) {
    check_from(name, 0, 0, 0.0, build);
}

/// Shorthand for `[a, b, ..]` of mixed sizes.
macro_rules! dims {
    ($($dim:expr),*) => { [$(Expr::from($dim)),*] };
}

#[test]
fn products() {
    check("rows", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![s, 3]).matmul(g.input(dims![3, p]))
    });
    check("the inner axis", |g| {
        let s = g.sizes.s;
        g.input(dims![2, s]).matmul(g.input(dims![s, 3]))
    });
    check("batches", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![p, 1, 2, s]).matmul(g.input(dims![3, s, 4]))
    });
    check("sizes with arithmetic", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let (query, keys) = (g.input(dims![2, s, 4]), g.input(dims![2, p + s, 4]));
        query.matmul(keys.transpose(1, 2))
    });
    check("vectors", |g| {
        let s = g.sizes.s;
        let (a, b) = (g.input(dims![s]), g.input(dims![s]));
        a.outer(b).matmul(a) + a.dot(b)
    });
    check("einsum", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let operands = [g.input(dims![p, s, 2]), g.input(dims![p, s])];
        GraphTensor::einsum("bij,bi->jb", &operands)
    });
    check("einsum with a diagonal", |g| {
        let s = g.sizes.s;
        GraphTensor::einsum("ii,i->i", &[g.input(dims![s, s]), g.input(dims![s])])
    });
}

#[test]
fn slices() {
    check("a cache's used part", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![16, 2]).slice(..p + s)
    });
    check("from p on", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![p + s, 2]).slice((p.., 1..))
    });
    check_from("the last element", 0, 1, 0.0, |g| {
        let s = g.sizes.s;
        g.input(dims![2, s]).slice((.., -1..))
    });
    check("every second", |g| {
        let s = g.sizes.s;
        g.input(dims![s, 2]).slice_step(0, 0, s, 2)
    });
    check("backwards", |g| {
        let s = g.sizes.s;
        g.input(dims![s, 2]).flip([0, 1])
    });
    check_from("windows", 0, 1, 0.0, |g| {
        let s = g.sizes.s;
        g.input(dims![s + 2, 2]).unfold(0, 3, 1)
    });
    check("two halves", |g| {
        let s = g.sizes.s;
        let halves = g.input(dims![2, s * 2]).chunk(2, 1);
        halves[1] - halves[0]
    });
    check("parts of given sizes", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![p + s]).split_sizes([p, s], 0)[1]
    });
}

#[test]
fn joining_and_repeating() {
    check("concat of symbolic axes", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let parts = [
            g.input(dims![2, p]),
            g.input(dims![2, s]),
            g.input(dims![2, 3]),
        ];
        GraphTensor::concat(&parts, -1)
    });
    check("stack", |g| {
        let s = g.sizes.s;
        GraphTensor::stack(&[g.input(dims![s]), g.input(dims![s])], 1)
    });
    check("roll", |g| {
        let s = g.sizes.s;
        g.input(dims![s, 2]).roll(-3, 0)
    });
    check("roll by a size", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![s, 2]).roll(p, 0)
    });
    check("padding", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![s]).pad(0, p, 1).pad_with(0, 1, p, -2.0)
    });
    check("repeating", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![s, 2]).repeat(dims![p, 2])
    });
    check("repeating each", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![s, 2]).repeat_interleave(p, 0)
    });
    check("triangles", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let x = g.input(dims![s, p + s]);
        x.tril(p) - x.triu(p - 1) * 2.0
    });
    check("the diagonal", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![s, p + s]).diagonal(0, 0, 1)
    });
    check("reshape and expand", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let x = g.input(dims![s, 4]).reshape(dims![-1, 2]).flatten(0, -1);
        x.unsqueeze(0).expand(dims![p, -1])
    });
}

#[test]
fn reductions() {
    check("sum, max, min", |g| {
        let x = g.input(dims![3, g.sizes.s]);
        x.sum(1) + x.max(-1) * x.min(1)
    });
    check("any, all", |g| {
        let x = g.input(dims![3, g.sizes.s]);
        GraphTensor::stack(&[x.any(1), x.all(1)], 0)
    });
    check_from("argmax, argmin", 0, 1, 0.0, |g| {
        let x = g.input(dims![g.sizes.s, 3]);
        GraphTensor::stack(&[x.argmax(0), x.argmin(0), x.argmax(..).expand([3])], 0)
    });
    check("prod", |g| {
        let s = g.sizes.s;
        g.input(dims![s, 2]).prod(0)
    });
    check_from("mean", 0, 0, 2.0, |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![p + 1, s, 2]).mean([0, 1])
    });
    check_from("variance", 0, 0, 2.0, |g| {
        let x = g.input(dims![2, g.sizes.s + 1]);
        x.var(1, 1) + x.std(1, 0)
    });
    check_from("norms", 0, 0, 4.0, |g| {
        let x = g.input(dims![2, g.sizes.s]);
        x.norm(1, 2) + x.norm(1, 1) + x.norm(1, f64::INFINITY)
    });
    check_from("logsumexp", 0, 0, 2.0, |g| {
        let s = g.sizes.s;
        g.input(dims![s, 2]).logsumexp(0)
    });
    check("cumsum", |g| {
        let s = g.sizes.s;
        g.input(dims![2, s]).cumsum(1)
    });
    check("cumprod", |g| {
        let s = g.sizes.s;
        g.input(dims![s, 2]).cumprod(0)
    });
}

#[test]
fn normalisation() {
    check_from("softmax", 0, 0, 2.0, |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        g.input(dims![s, p + s]).softmax(-1)
    });
    check_from("log_softmax", 0, 0, 2.0, |g| {
        let s = g.sizes.s;
        g.input(dims![s, 2]).log_softmax(0)
    });
    check_from("layer_norm", 0, 0, 4.0, |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let weight = g.input(dims![s + 1]);
        g.input(dims![p, s + 1])
            .layer_norm(-1, Some(weight), Some(weight), 1e-3)
    });
    check_from("rms_norm", 0, 0, 4.0, |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let weight = g.input(dims![s]);
        g.input(dims![p, s]).rms_norm(-1, Some(weight), 1e-3)
    });
}

#[test]
fn indexing_and_sorting() {
    check("rows of a table", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let ids = g.index(dims![p, s], 7);
        g.input(dims![7, 2]).index_select(0, ids)
    });
    check("gather", |g| {
        let s = g.sizes.s;
        let index = g.index(dims![s, 2], 7);
        g.input(dims![s, 7]).gather(1, index)
    });
    check("take_along", |g| {
        let s = g.sizes.s;
        let index = g.index(dims![1, 2], 3);
        g.input(dims![s, 3]).take_along(1, index)
    });
    check("scatter_add", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let (index, new) = (g.index(dims![s, p], 7), g.input(dims![s, p]));
        g.input(dims![s, 7]).scatter_add(1, index, new)
    });
    check("scatter into the first rows", |g| {
        let (p, s) = (g.sizes.p, g.sizes.s);
        let (index, new) = (g.index(dims![p, 2], 3), g.input(dims![p, 2]));
        g.input(dims![p + s, 3]).scatter(1, index, new)
    });
    check("sort", |g| {
        let s = g.sizes.s;
        let x = g.input(dims![2, s]);
        x.sort(1, true).0 - x.sort(1, false).0
    });
    check("argsort", |g| {
        let s = g.sizes.s;
        g.input(dims![s, 2]).argsort(0, false)
    });
    check_from("topk", 0, 2, 0.0, |g| {
        let s = g.sizes.s;
        g.input(dims![2, s]).topk(2, 1).0
    });
}

/// What depends on the values of symbols is an error when executed, and recording goes on otherwise.
#[test]
fn impossible_sizes_are_errors_at_execution() {
    let mut cx = Graph::new();
    let x = cx.input((4, 2), DType::F32).set(numbers(8));
    let y = x.slice(..'s').sum(0).retrieve();
    cx.set_dim('s', 5);
    let error = cx.try_execute().unwrap_err().to_string();
    assert!(
        error.contains("4 - s") || error.contains("-s + 4"),
        "{error}"
    );
    cx.set_dim('s', 4);
    cx.execute();
    assert_eq!(y.data().len(), 2);
}
