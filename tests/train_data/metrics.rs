//! Metrics: lines that survive, resuming, and the guard.

use std::fs::{self, OpenOptions};
use std::io::Write;

use brain_blitz::train::metrics::log::{self, MetricsLog};
use brain_blitz::train::metrics::{LossGuard, Record};
use tempfile::tempdir;

fn steps(records: &[Record]) -> Vec<u64> {
    records.iter().map(|record| record.step).collect()
}

#[test]
fn numbers_are_read_as_they_were_written() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("m.jsonl");
    let mut metrics = MetricsLog::create(&file).unwrap();
    metrics
        .write(1, 0.25, &[("loss", 0.1 + 0.2), ("lr", 1e-300)])
        .unwrap();
    metrics
        .write(2, 0.5, &[("loss", f64::NAN), ("norm", f64::INFINITY)])
        .unwrap();
    // Every line is there while the file is still open.
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.starts_with("{\"step\":1,\"epoch\":0.25,\"time\":"),
        "{text}"
    );
    let records = log::read(&file).unwrap();
    assert_eq!(
        records[0].values["loss"].to_bits(),
        (0.1f64 + 0.2).to_bits()
    );
    assert_eq!((records[0].epoch, records[0].values["lr"]), (0.25, 1e-300));
    assert!(records[1].values["loss"].is_nan() && records[1].values["norm"].is_nan());
    assert!(records[0].time >= 0.0 && records[1].time >= records[0].time);
}

#[test]
fn a_resumed_run_continues_its_file() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("m.jsonl");
    let mut metrics = MetricsLog::resume(&file, 7).unwrap();
    for step in 1..=5 {
        metrics.write(step, 0.0, &[("loss", 1.0)]).unwrap();
    }
    // The process is killed in the middle of a line.
    let mut raw = OpenOptions::new().append(true).open(&file).unwrap();
    raw.write_all(b"{\"step\":6,\"ep").unwrap();
    assert_eq!(steps(&log::read(&file).unwrap()), [1, 2, 3, 4, 5]);

    let before = log::read(&file).unwrap()[2].time;
    let mut metrics = MetricsLog::resume(&file, 3).unwrap();
    metrics.write(4, 0.0, &[("loss", 2.0)]).unwrap();
    let records = log::read(&file).unwrap();
    assert_eq!(steps(&records), [1, 2, 3, 4]);
    assert_eq!(records[3].values["loss"], 2.0);
    assert!(records[3].time >= before, "time goes on where it stopped");
    MetricsLog::create(&file).unwrap();
    assert!(log::read(&file).unwrap().is_empty());
}

#[test]
fn the_clock_of_a_resumed_run_goes_on() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("m.jsonl");
    fs::write(
        &file,
        "{\"step\":1,\"epoch\":0.0,\"time\":5000.0,\"loss\":1}\n",
    )
    .unwrap();
    let mut metrics = MetricsLog::resume(&file, 1).unwrap();
    metrics.write(2, 0.0, &[]).unwrap();
    let time = log::read(&file).unwrap()[1].time;
    assert!((5000.0..6000.0).contains(&time), "{time}");
}

#[test]
fn lines_that_are_no_records_are_errors_with_their_place() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("m.jsonl");
    let good = "{\"step\":1,\"epoch\":0.0,\"time\":0.5}\n";
    for bad in [
        "nonsense\n",
        "{\"step\":-1,\"epoch\":0,\"time\":0}\n",
        "\n",
        "{\"step\":1,\"epoch\":0,\"time\":0,\"loss\":\"x\"}\n",
    ] {
        let text = format!("{good}{bad}{good}");
        fs::write(&file, &text).unwrap();
        let expected = format!("m.jsonl: line 2 at byte {}: ", good.len());
        for error in [
            log::read(&file).unwrap_err(),
            MetricsLog::resume(&file, 1).unwrap_err(),
        ] {
            assert!(error.to_string().contains(&expected), "{error}");
        }
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            text,
            "the file stays as it was"
        );
    }
}

#[test]
fn names_are_unique() {
    let folder = tempdir().unwrap();
    let mut metrics = MetricsLog::create(folder.path().join("m.jsonl")).unwrap();
    for values in [
        [("loss", 1.0), ("loss", 2.0)],
        [("loss", 1.0), ("step", 2.0)],
    ] {
        let error = metrics.write(1, 0.0, &values).unwrap_err().to_string();
        assert!(error.starts_with("two metrics have the name"), "{error}");
    }
    assert!(log::read(folder.path().join("m.jsonl")).unwrap().is_empty());
}

#[test]
fn the_guard_refuses_what_is_not_finite_at_once() {
    for loss in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = LossGuard::new(2.0, 8)
            .check(3, loss)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("step 3: the loss is {loss}; ")),
            "{error}"
        );
    }
}

#[test]
fn the_guard_compares_with_the_median_of_a_full_window() {
    let mut guard = LossGuard::new(3.0, 5);
    // A window that is not full refuses nothing; one large loss does not move the median.
    for loss in [1.0, 1.0, 900.0, 1.0, 1.0] {
        guard.check(0, loss).unwrap();
    }
    guard.check(1, 3.0).unwrap();
    assert!(guard.check(2, 3.1).is_err());
    // A refused loss does not count.
    assert!(guard.check(3, 3.1).is_err());
    // A loss that rises slowly is no leap: the window moves with it.
    for step in 0..40 {
        guard.check(step, 1.1f64.powi(step as i32)).unwrap();
    }
}

#[test]
fn the_guard_leaves_losses_around_zero_alone() {
    let mut guard = LossGuard::new(2.0, 3);
    for loss in [-5.0, -4.0, 0.0, 100.0, -3.0, -2.0, 50.0] {
        guard.check(0, loss).unwrap();
    }
}
