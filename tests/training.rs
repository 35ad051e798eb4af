//! The examples that train learn what they should; on the reference executor the first steps are the same.

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/cfc_sine.rs"]
mod cfc_sine;
#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/mnist_cnn.rs"]
mod mnist_cnn;
#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/sine.rs"]
mod sine;
#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../examples/xor.rs"]
mod xor;

#[test]
fn exclusive_or() {
    let (losses, outputs) = xor::train(300);
    assert!(losses[0] > 0.2, "{}", losses[0]);
    assert!(losses[299] < 2e-3, "{}", losses[299]);
    let bits: Vec<bool> = outputs.iter().map(|x| *x > 0.5).collect();
    assert_eq!(bits, [false, true, true, false]);
    assert_eq!(xor::train(300).0, losses, "the same bits again");
}

#[test]
fn a_sine() {
    let fit = sine::train(1000);
    let (first, last) = (fit.table[0], fit.table[fit.table.len() - 1]);
    assert!(first.2 > 0.1, "{first:?}");
    assert!(last.2 < 1e-4, "{last:?}");
    assert!(
        (first.1 - 0.001).abs() < 1e-12 && last.1 < 2e-5,
        "{:?}",
        fit.table
    );
    for (x, y) in fit.x.iter().zip(&fit.y) {
        assert!((x.sin() - y).abs() < 0.05, "sin {x} is not {y}");
    }
}

#[test]
fn a_sine_at_irregular_times() {
    let (with, without) = (cfc_sine::train(300, true), cfc_sine::train(300, false));
    let [first, last] = [0, with.table.len() - 1].map(|i| with.table[i].1);
    let blind = without.table[without.table.len() - 1].1;
    assert!(
        first > 0.3 && with.still > 0.3,
        "{first} before training, {}",
        with.still
    );
    assert!(last < 0.1 * with.still, "{last} of {}", with.still);
    assert!(
        blind > 3.0 * last,
        "without times {blind}, with them {last}"
    );
}

#[test]
fn stripes_by_convolutions() {
    let mut trainer = mnist_cnn::Trainer::new(20, 40, 1);
    // A product for each of five layers, for the gradient of its weight, and of its input but the first one's.
    if cfg!(feature = "llvm-backend") {
        assert_eq!(trainer.report.hits("contraction"), 14, "{}", trainer.report);
        let listing = trainer.graph.display_string(false);
        assert!(listing.contains("contraction"), "{listing}");
        assert!(!listing.contains("scatter"), "{listing}");
    }
    let (images, labels) = mnist_cnn::stripes(20);
    let mut step = || trainer.step(&images, &labels);
    let losses: Vec<f32> = (0..40).map(|_| step()).collect();
    assert!((2.0..2.6).contains(&losses[0]), "{losses:?}");
    assert!(losses[39] < 0.5, "{losses:?}");
}
