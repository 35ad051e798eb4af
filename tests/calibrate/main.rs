//! `Calibrate`: what it finds in which graphs, that its means are those of plain loops, and what follows from them: scales,
//! signs, plans and files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use brain_blitz::blocks::{BlockType, ColumnStats, SignFit, SignMatrix};
use brain_blitz::compilers::quantize::plan::{Weight, measure};
use brain_blitz::compilers::quantize::{Measured, Plan, Quantize};
use brain_blitz::compilers::{Calibrate, Calibrator};
use brain_blitz::formats::Calibration;
use brain_blitz::prelude::*;

#[path = "../support/inputs.rs"]
mod inputs;
use inputs::{input, numbers};

/// Two layers over a batch of sequences, and a table that is looked up and multiplied by.
struct Net {
    cx: Graph,
    weights: Vec<Weight>,
    ids: GraphTensor,
    y: GraphTensor,
}

fn net(dtype: DType) -> Net {
    let mut cx = Graph::new();
    let mut weights = Vec::new();
    let mut weight = |cx: &mut Graph, dims: (usize, usize), name: &str| {
        let w = cx.input(dims, dtype).set_name(name);
        let scale = |(i, x): (usize, f32)| x * if i.is_multiple_of(3) { 2.0 } else { 0.25 };
        let data = numbers(dims.0 * dims.1, dims.0).into_iter().enumerate();
        w.set(data.map(scale).collect::<Vec<f32>>());
        weights.push((name.to_string(), w));
        w.cast(DType::F32)
    };
    let table = weight(&mut cx, (50, 64), "table.weight");
    let up = weight(&mut cx, (96, 64), "up.weight");
    let down = weight(&mut cx, (64, 96), "down.weight");
    let ids = cx.input((2, 's'), DType::I32);
    let x = table.index_select(0, ids);
    let hidden = x.matmul(up.transpose(0, 1)).tanh();
    let x = x + hidden.matmul(down.transpose(0, 1));
    let y = x.matmul(table.transpose(0, 1)).retrieve();
    Net {
        cx,
        weights,
        ids,
        y,
    }
}

/// Different tokens in every sample.
fn sample(n: usize) -> Vec<i32> {
    (0..6).map(|i| ((i * 17 + n * 23) % 50) as i32).collect()
}

fn calibrated(net: &mut Net, calibrator: &mut Calibrator, samples: usize) {
    for n in 0..samples {
        net.ids.set(sample(n));
        net.cx.set_dim('s', 3);
        net.cx.execute();
        calibrator.observe(&net.cx).unwrap();
    }
}

/// The statistics by plain loops over the same numbers.
fn by_hand(dtype: DType, samples: usize) -> BTreeMap<&'static str, (Vec<f64>, Vec<f64>)> {
    let net = net(dtype);
    let [table, up, down] = [0, 1, 2].map(|i| net.weights[i].1.array().cast(DType::F32).into_f32());
    let times = |x: &[f64], w: &[f32]| -> Vec<f64> {
        let rows = w.chunks(x.len());
        rows.map(|w| w.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum())
            .collect()
    };
    let mut out: BTreeMap<&str, (Vec<f64>, Vec<f64>)> = BTreeMap::new();
    let n = (samples * 6) as f64;
    let mut count = |name, x: &[f64]| {
        let (k, sums) = (x.len(), out.entry(name).or_default());
        sums.0.resize(k, 0.0);
        sums.1.resize(k * k, 0.0);
        for (i, a) in x.iter().enumerate() {
            sums.0[i] += a * a / n;
            x.iter()
                .enumerate()
                .for_each(|(j, b)| sums.1[i * k + j] += a * b / n);
        }
    };
    for id in (0..samples).flat_map(sample) {
        let x: Vec<f64> = table[id as usize * 64..][..64]
            .iter()
            .map(|&x| x.into())
            .collect();
        count("up.weight", &x);
        let hidden: Vec<f64> = times(&x, &up).iter().map(|x| x.tanh()).collect();
        count("down.weight", &hidden);
        let more = times(&hidden, &down);
        let x: Vec<f64> = x.iter().zip(more).map(|(a, b)| a + b).collect();
        count("table.weight", &x);
    }
    out
}

fn assert_near(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let size = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    for (a, b) in found.iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() < 1e-4 * size, "{what}: {a} {b}");
    }
}

#[test]
fn means_are_those_of_plain_loops() {
    for dtype in [DType::F32, DType::BF16] {
        let expected = by_hand(dtype, 4);
        for native in [false, true] {
            let mut net = net(dtype);
            let mut calibrator = Calibrate::default()
                .with_products(64)
                .add_to(&mut net.cx)
                .unwrap();
            let mut names: Vec<&str> = calibrator.weights().collect();
            names.sort_unstable();
            assert_eq!(names, ["down.weight", "table.weight", "up.weight"]);
            if native {
                net.cx.compile(<(Generic, LlvmCpu)>::default(), ());
            }
            calibrated(&mut net, &mut calibrator, 4);
            let found = calibrator.finish().unwrap();
            assert_eq!(found.len(), 3);
            for (name, (squares, products)) in &expected {
                let stats = found.get(name).unwrap();
                assert_eq!(stats.rows(), 24, "{name}");
                assert_near(stats.mean_squares(), squares, name);
                match stats.products() {
                    Some(found) => assert_near(found, products, name),
                    // It is wider than was asked for.
                    None => assert_eq!(*name, "down.weight"),
                }
            }
        }
    }
}

#[test]
fn weights_in_blocks_are_calibrated_too() {
    let mut net = net(DType::F32);
    let quantize = Quantize::q8_0().weights_only();
    let report = net.cx.compile((Generic, quantize), ());
    assert_eq!(report.stored.len(), 3, "{report}");
    let mut calibrator = Calibrate::default().add_to(&mut net.cx).unwrap();
    calibrated(&mut net, &mut calibrator, 4);
    let found = calibrator.finish().unwrap();
    let expected = by_hand(DType::F32, 4);
    let (found, (expected, _)) = (found.get("up.weight").unwrap(), &expected["up.weight"]);
    for (a, b) in found.mean_squares().iter().zip(expected) {
        assert!((f64::from(*a) - b).abs() < 0.05 * (b + 0.1), "{a} {b}");
    }
}

#[test]
fn what_is_no_product_with_rows_is_not_found() {
    let mut cx = Graph::new();
    let x = cx.input(('s', 8), DType::F32);
    let columns = input(&mut cx, &[8, 4], 1);
    let factor = input(&mut cx, &[8], 2);
    (x.matmul(columns) + (x * factor).sum(-1).unsqueeze(-1)).retrieve();
    let n = cx.n_nodes();
    let calibrator = Calibrate::default().add_to(&mut cx).unwrap();
    assert_eq!((calibrator.weights().count(), cx.n_nodes()), (0, n));
    let why = calibrator.finish().unwrap_err().to_string();
    assert!(why.contains("nothing to calibrate"), "{why}");
}

#[test]
fn what_was_not_executed_or_is_not_finite_is_an_error() {
    let mut net = net(DType::F32);
    let mut calibrator = Calibrate::default().add_to(&mut net.cx).unwrap();
    assert!(calibrator.observe(&net.cx).is_err());
    assert!(calibrator.observe(&Graph::new()).is_err());
    net.weights[1].1.set(vec![f32::INFINITY; 96 * 64]);
    net.ids.set(sample(0));
    net.cx.set_dim('s', 3);
    net.cx.execute();
    let why = calibrator.observe(&net.cx).unwrap_err().to_string();
    assert!(why.contains("not finite"), "{why}");
    let mut net = self::net(DType::F32);
    let calibrator = Calibrate::default().add_to(&mut net.cx).unwrap();
    let why = calibrator.finish().unwrap_err().to_string();
    assert!(why.contains("nothing was observed"), "{why}");
}

#[test]
fn a_file_has_what_was_saved_and_no_other_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.importance");
    let mut calibration = Calibration::default();
    let squares = || vec![0.5, 2.0];
    let stats = ColumnStats::new(7, squares(), Some(vec![0.5, 0.1, 0.1, 2.0])).unwrap();
    calibration.insert("a.weight", stats);
    calibration.insert("b", ColumnStats::new(1 << 40, squares(), None).unwrap());
    calibration.save(&path).unwrap();
    assert_eq!(Calibration::open(&path).unwrap(), calibration);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/gemma2-shakespeare");
    let why = Calibration::open(model.join("model.safetensors")).unwrap_err();
    assert!(why.to_string().contains("--save-importance"), "{why}");
}

/// Mean squares that differ much from column to column.
fn skewed(columns: usize) -> ColumnStats {
    let square = |k: usize| if k.is_multiple_of(7) { 100.0 } else { 0.1 };
    ColumnStats::new(100, (0..columns).map(square).collect(), None).unwrap()
}

#[test]
fn calibrated_blocks_lose_less_of_the_products_and_are_of_the_same_format() {
    let mut calibration = Calibration::default();
    calibration.insert("up.weight", skewed(64));
    let calibration = Arc::new(calibration);
    for ty in [BlockType::Q8_0, BlockType::Q4_0, BlockType::Q5_1] {
        let decoded = |quantize: Quantize| {
            let mut net = net(DType::F32);
            let report = net.cx.compile((Generic, quantize.weights_only()), ());
            let arrays = [0, 1, 2].map(|i| net.weights[i].1.retrieve());
            net.ids.set(sample(0));
            net.cx.set_dim('s', 3);
            net.cx.execute();
            (report, arrays.map(|x| x.data()))
        };
        let (_, exact) = decoded(Quantize::mixed(|_| None));
        let (plain, a) = decoded(Quantize::blocks(ty));
        let (report, b) = decoded(Quantize::blocks(ty).calibrated(calibration.clone()));
        assert_eq!(
            (&a[0], &a[2]),
            (&b[0], &b[2]),
            "{ty}: nothing is known about these"
        );
        let lost = |x: &[f32]| skewed(64).weighted_error(&exact[1], x);
        assert!(
            lost(&b[1]) < 0.9 * lost(&a[1]),
            "{ty}: {} {}",
            lost(&b[1]),
            lost(&a[1])
        );
        let all = skewed(64).weighted_error(&exact[1], &vec![0.0; 96 * 64]);
        let told = |name: &str| {
            let stored = report.stored.iter().find(|stored| stored.name == name);
            stored.unwrap().output_error
        };
        assert!(
            (told("up.weight").unwrap() - lost(&b[1]) / all).abs() < 1e-9,
            "{report}"
        );
        assert_eq!(told("down.weight"), None);
        let bytes = |report: &brain_blitz::compilers::Report| -> usize {
            report.stored.iter().map(|stored| stored.bytes).sum()
        };
        assert_eq!(bytes(&plain), bytes(&report));
    }
}

#[test]
fn a_calibration_of_another_model_is_an_error() {
    let mut calibration = Calibration::default();
    calibration.insert("up.weight", skewed(32));
    let calibration = Arc::new(calibration);
    let quantize = Quantize::q4_0().calibrated(calibration.clone());
    let why = net(DType::F32)
        .cx
        .try_compile((Generic, quantize), ())
        .unwrap_err();
    assert!(why.to_string().contains("up.weight"), "{why}");
    let signs = Binarize::w1a8().with_ends().calibrated(calibration);
    let why = net(DType::F32)
        .cx
        .try_compile((Generic, signs), ())
        .unwrap_err();
    assert!(why.to_string().contains("32 columns"), "{why}");
}

#[test]
fn a_plan_spends_bits_where_they_are_worth_most() {
    let mut net = net(DType::F32);
    net.cx.compile((Generic,), ());
    net.ids.set(sample(0));
    net.cx.set_dim('s', 3);
    net.cx.execute();
    let exact = net.y.data();
    let before: Vec<Vec<f32>> = net
        .weights
        .iter()
        .map(|(_, w)| w.array().into_f32())
        .collect();
    let groups: Vec<Vec<Weight>> = net
        .weights
        .iter()
        .map(|weight| vec![weight.clone()])
        .collect();
    let types = [
        BlockType::F16,
        BlockType::Q8_0,
        BlockType::Q5_0,
        BlockType::Q4_0,
    ];
    let (y, cx) = (net.y, &mut net.cx);
    let mut error = || {
        cx.try_execute()?;
        let pairs = y
            .data()
            .into_iter()
            .zip(&exact)
            .map(|(a, b)| f64::from(a - b).powi(2));
        Ok(pairs.sum::<f64>())
    };
    let calibration = Calibration::default();
    let measured = measure(&groups, &types, &calibration, &mut error).unwrap();
    assert_eq!(measured.len(), 3);
    // Rows of 96 and 64 numbers take all of these; the weights are as they were.
    assert!(measured.iter().all(|m| m.candidates.len() == 4));
    let after: Vec<Vec<f32>> = groups.iter().map(|g| g[0].1.array().into_f32()).collect();
    assert_eq!(before, after);
    for bits in [4.5, 5.0, 6.0, 8.5] {
        let plan = Plan::within(bits, &measured).unwrap();
        assert!(plan.bits_per_weight() <= bits, "{plan}");
        let uniform = Plan::uniform(&measured);
        assert_eq!(uniform.len(), 4);
        for uniform in uniform.iter().filter(|plan| plan.bits_per_weight() <= bits) {
            assert!(plan.cost() <= uniform.cost(), "{bits}: {plan}\n{uniform}");
        }
    }
    check_types(&measured);
}

fn check_types(measured: &[Measured]) {
    let few = Plan::within(4.5, measured).unwrap();
    assert!(
        few.entries()
            .iter()
            .all(|entry| entry.chosen.ty == BlockType::Q4_0),
        "{few}"
    );
    let some = Plan::within(5.0, measured).unwrap();
    let types: std::collections::BTreeSet<_> =
        some.entries().iter().map(|entry| entry.chosen.ty).collect();
    assert!(types.len() > 1, "{some}");
    // The plan as a compiler.
    let mut fresh = net(DType::F32);
    let report = fresh.cx.compile((Generic, Quantize::planned(&some)), ());
    for stored in &report.stored {
        assert_eq!(Some(stored.ty), some.get(&stored.name), "{report}");
    }
    assert!(!report.stored.is_empty());
}

mod known;
#[cfg(feature = "llvm-backend")]
mod models;
mod rescale;
