//! The generic passes on the files of `tests/data/passes/<pass>`, see `support/filetest.rs`. A file whose name starts
//! with `keeps_` shows where the pass must not act.

#[allow(dead_code)] // Each test program uses a part of it.
#[path = "support/filetest.rs"]
mod filetest;

use std::path::{Path, PathBuf};

use brain_blitz::array::Array;
use brain_blitz::compilers::generic::{Algebra, ConstantFolding, Cse, DeadCode, ViewElimination};
use brain_blitz::compilers::{Pass, PassList};
use brain_blitz::prelude::*;

/// One pass, and the removal of what it left behind.
struct Tidy<P>(P);

impl<P: Pass + Copy + 'static> Compiler for Tidy<P> {
    type Output = brain_blitz::compilers::Report;

    fn passes(&self, list: &mut PassList) {
        list.push(self.0);
        list.push(DeadCode);
    }
}

const SPECIAL: [f64; 12] = [
    -0.0,
    0.0,
    f64::NAN,
    1.5,
    f64::NEG_INFINITY,
    -1.0,
    0.0,
    3e38,
    f64::INFINITY,
    -0.0,
    1e-40,
    2.0,
];

/// The graph of a file before the pass, with data in its inputs: special values, but small indices.
fn before(path: &Path) -> Graph {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let graph = text.split("\n---").next().expect("split gives one piece");
    let mut cx = Graph::from_text(graph).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let sizes = [('s', 3), ('t', 2)];
    sizes
        .iter()
        .for_each(|&(symbol, size)| cx.set_dim(symbol, size));
    for (i, input) in cx.inputs().into_iter().enumerate() {
        let dims = input.dims();
        let known = |d: &Expr| {
            d.as_usize()
                .unwrap_or_else(|| if *d == Expr::from('s') { 3 } else { 2 })
        };
        let n: usize = dims.iter().map(known).product();
        let special = (0..n).map(|k| SPECIAL[(k * 5 + i) % SPECIAL.len()]);
        match input.dtype() {
            DType::I32 => input.set((0..n).map(|k| k % 2).collect::<Vec<_>>()),
            _ => input.set(special.collect::<Vec<_>>()),
        };
    }
    cx
}

fn results(cx: &mut Graph) -> Vec<Array> {
    cx.execute();
    cx.outputs()
        .into_iter()
        .map(|value| value.array())
        .collect()
}

/// Whether two arrays hold the same bits, any NaN being equal to any other. Every format fits `f64` exactly.
fn same_bits(a: &Array, b: &Array) -> bool {
    let same = |(x, y): (f64, f64)| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    a.dims() == b.dims()
        && a.dtype() == b.dtype()
        && a.to_f64().into_iter().zip(b.to_f64()).all(same)
}

fn files(pass: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/passes")
        .join(pass);
    let entries = std::fs::read_dir(folder).expect("the folder of the pass");
    entries
        .map(|entry| entry.expect("a readable folder").path())
        .collect()
}

/// The files' graphs, whether the pass acted, and the bits of every output.
fn check<P: Pass + Copy + 'static>(pass: P) {
    filetest::check(pass.name(), || Tidy(pass));
    for path in files(pass.name()) {
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        let (mut plain, mut compiled) = (before(&path), before(&path));
        let report = compiled.compile(Tidy(pass), ());
        let acted = report.hits(pass.name()) > 0;
        assert_eq!(acted, !name.starts_with("keeps_"), "{name}: {report}");
        for (a, b) in results(&mut plain).iter().zip(&results(&mut compiled)) {
            assert!(same_bits(a, b), "{name}: {a} became {b}");
        }
    }
}

#[test]
fn dead_code() {
    check(DeadCode);
}

#[test]
fn cse() {
    check(Cse);
}

#[test]
fn constant_folding() {
    check(ConstantFolding);
}

#[test]
fn algebra() {
    check(Algebra);
}

#[test]
fn view_elimination() {
    check(ViewElimination);
}

#[test]
fn the_passes_of_generic_are_those_tested_here() {
    let names = PassList::of(&Generic).names();
    let tested = [
        DeadCode.name(),
        Cse.name(),
        ConstantFolding.name(),
        Algebra.name(),
        ViewElimination.name(),
    ];
    assert_eq!(names, tested);
}

#[test]
fn hits_count_replaced_and_removed_nodes_once() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    // Three nodes and a constant; the constant of the second product equals that of the first.
    let y = (x.exp2() * 1.0 + x.exp2() * 1.0).retrieve();
    let report = cx.compile(Generic, ());
    assert_eq!(
        report.hits("cse"),
        3,
        "an exp2, a constant and a product: {report}"
    );
    assert_eq!(
        report.hits("algebra"),
        1,
        "the product that is left: {report}"
    );
    assert_eq!(
        report.hits("dead-code"),
        5,
        "those four and the other constant: {report}"
    );
    assert_eq!(report.nodes_after, 3);
    cx.execute();
    assert_eq!(y.data(), [4.0, 8.0]);
    let again = cx.compile(Generic, ());
    assert!(
        again
            .passes
            .iter()
            .all(|pass| pass.hits == 0 && pass.runs == 1)
    );
}

#[test]
fn a_removed_value_can_no_longer_be_used_and_says_why() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    let removed = x.exp2();
    let kept = x.recip();
    cx.compile(Generic, kept);
    let error = removed
        .try_array()
        .expect_err("nothing kept it")
        .to_string();
    assert!(error.contains("optimized away"), "{error}");
    assert!(error.contains(file!()), "{error}");
    assert_eq!(
        kept.try_array().expect_err("not yet").to_string(),
        "not computed yet: call `execute` first"
    );
    cx.execute();
    assert_eq!(kept.data(), [1.0, 0.5]);
}

#[test]
fn a_hundred_thousand_nodes_compile() {
    let mut cx = Graph::new();
    let x = cx.tensor::<R1<2>>().set([1.0, 4.0]);
    let mut y = x;
    let mut number = cx.scalar(2.0, DType::F32);
    while cx.n_nodes() < 100_000 {
        y = (y.sqrt() * y.sqrt()) * 1.0;
        number = number.sqrt() + 1.0;
        y.recip();
    }
    let y = (y + number.expand([2]).typed()).retrieve();
    let report = cx.compile(Generic, ());
    assert!(report.nodes_after < 40_000, "{report}");
    cx.execute();
    assert!(y.data().iter().all(|y| y.is_finite()));
}
