//! What is known about inputs, used to lose less of products.

use super::*;

/// What is known about a network's inputs, with and without mean products, and the numbers of `up.weight`.
fn known_inputs() -> (Arc<Calibration>, Arc<Calibration>, Vec<f32>) {
    let mut known = net(DType::F32);
    let how = Calibrate::default().with_products(64);
    let mut calibrator = how.add_to(&mut known.cx).unwrap();
    calibrated(&mut known, &mut calibrator, 40);
    let products = calibrator.finish().unwrap();
    let squares = Arc::new(without_products(&products));
    let exact = known.weights[1].1.array().into_f32();
    (Arc::new(products), squares, exact)
}

/// The products of a layer are closer to what they were, the more is known about its inputs.
#[test]
fn signs_lose_less_of_the_products_the_more_is_known() {
    let (products, squares, exact) = known_inputs();
    let stats = products.get("up.weight").unwrap().clone();
    for (bases, ternary) in [(1, false), (2, false), (3, false), (2, true)] {
        let numbers = |known: Option<&Calibration>| {
            let stats = known.and_then(|known| known.get("up.weight"));
            as_signs((bases, ternary), stats.map(|stats| &**stats), &exact)
        };
        let (plain, bytes) = numbers(None);
        let (weighted, _) = numbers(Some(&squares));
        let (fed_back, _) = numbers(Some(&products));
        let columns = |x: &[f32]| stats.weighted_error(&exact, x);
        let output = |x: &[f32]| stats.output_error(&exact, x).unwrap();
        assert!(columns(&weighted) < columns(&plain), "{bases} {ternary}");
        assert!(
            output(&fed_back) < 0.7 * output(&weighted),
            "{bases} {ternary}"
        );
        // The compiler makes the same of a graph.
        for (known, lost) in [
            (
                &squares,
                columns(&weighted) / columns(&vec![0.0; exact.len()]),
            ),
            (
                &products,
                output(&fed_back) / output(&vec![0.0; exact.len()]),
            ),
        ] {
            let signs = Binarize::w1a8().with_ends();
            let signs = if ternary {
                signs.ternary()
            } else {
                signs.bases(bases)
            };
            let mut net = net(DType::F32);
            let report = net
                .cx
                .compile((Generic, signs.calibrated(known.clone())), ());
            let own = report
                .signed
                .iter()
                .find(|signed| signed.name == "up.weight");
            let own = own.unwrap();
            assert_eq!(own.bytes, bytes, "{report}");
            assert!(
                (own.output_error.unwrap() / lost - 1.0).abs() < 1e-6,
                "{report}"
            );
        }
    }
}

/// The same of blocks: what a column is off by is made up for in others.
#[test]
fn blocks_lose_less_of_the_products_the_more_is_known() {
    let (products, squares, exact) = known_inputs();
    let stats = products.get("up.weight").unwrap().clone();
    for ty in [BlockType::Q4_0, BlockType::Q5_1, BlockType::Q8_0] {
        let lost = |known: &Arc<Calibration>| {
            let mut net = net(DType::F32);
            let quantize = Quantize::blocks(ty).calibrated(known.clone());
            let report = net.cx.compile((Generic, quantize.weights_only()), ());
            let up = net.weights[1].1.retrieve();
            net.ids.set(sample(0));
            net.cx.set_dim('s', 3);
            net.cx.execute();
            let stored = report.stored.iter().find(|own| own.name == "up.weight");
            let told = stored.and_then(|own| own.output_error).unwrap();
            (stats.output_error(&exact, &up.data()).unwrap(), told)
        };
        let ((fed_back, told), (weighted, _)) = (lost(&products), lost(&squares));
        assert!(fed_back < 0.7 * weighted, "{ty}: {fed_back} {weighted}");
        let all = stats.output_error(&exact, &vec![0.0; exact.len()]);
        assert!((told * all.unwrap() / fed_back - 1.0).abs() < 1e-6);
    }
}

#[test]
fn products_are_taken_of_the_weights_that_are_named() {
    let mut net = net(DType::F32);
    let how = Calibrate::default().with_products(usize::MAX);
    let how = how.only(["up.weight".to_owned()]);
    let mut calibrator = how.add_to(&mut net.cx).unwrap();
    calibrated(&mut net, &mut calibrator, 2);
    let found = calibrator.finish().unwrap();
    assert!(found.len() > 1);
    for (name, stats) in found.iter() {
        assert_eq!(stats.products().is_some(), name == "up.weight", "{name}");
    }
}

/// The numbers of 96 rows of 64 as signs, and the bytes of these.
fn as_signs(
    (bases, ternary): (usize, bool),
    stats: Option<&ColumnStats>,
    x: &[f32],
) -> (Vec<f32>, usize) {
    let matrix = SignMatrix::new(96, 64, bases).unwrap();
    let fit = SignFit {
        ternary,
        half_scales: false,
    };
    let (mut bytes, mut y) = (vec![0; matrix.bytes()], vec![0.0; x.len()]);
    match stats {
        Some(stats) => matrix.encode_calibrated(fit, stats, x, &mut bytes),
        None => matrix.encode(fit, x, &mut bytes),
    }
    .unwrap();
    matrix.numbers(&bytes, &mut y);
    (y, bytes.len())
}

fn without_products(products: &Calibration) -> Calibration {
    let mut squares = Calibration::default();
    for (name, stats) in products.iter() {
        squares.insert(name, (**stats).clone().without_products());
    }
    squares
}
