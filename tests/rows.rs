//! The rows that benchmarks measure compute what the reference executor does, in as few kernels as they should.
#![cfg(feature = "llvm-backend")]

#[path = "../benches/rows/mod.rs"]
mod rows;

use brain_blitz::prelude::*;
use rows::{ROWS, Row, Scale, Work};

fn built(row: &Row) -> (Graph, GraphTensor) {
    let mut cx = Graph::new();
    let out = (row.build)(&mut cx, Scale::Small).retrieve();
    (cx, out)
}

#[test]
fn rows_compute_what_the_reference_does() {
    for row in ROWS {
        let (mut reference, expected) = built(row);
        reference.execute();
        let expected = expected.data();
        assert!(expected.iter().any(|x| *x != 0.0), "{}", row.name);
        for cpu in ["x86-64-v3", "native"] {
            let (mut cx, out) = built(row);
            cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
            cx.execute();
            let found = out.data();
            assert_eq!(found.len(), expected.len());
            for (a, b) in found.iter().zip(&expected) {
                let close = (a - b).abs() <= 1e-4 * a.abs().max(b.abs()).max(1.0);
                assert!(close, "{} on {cpu}: {a} instead of {b}", row.name);
            }
            let stats = cx.stats();
            assert_eq!(stats.native_steps, stats.steps, "{} on {cpu}", row.name);
            assert!(
                stats.steps <= row.kernels,
                "{}: {} kernels",
                row.name,
                stats.steps
            );
        }
    }
}

#[test]
fn rows_have_names_of_their_own_and_work_to_do() {
    let mut names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ROWS.len());
    for row in ROWS {
        match ((row.work)(Scale::Full), (row.work)(Scale::Small)) {
            (Work::Flop(full), Work::Flop(small)) | (Work::Bytes(full), Work::Bytes(small)) => {
                assert!(full > small && small > 0.0, "{}", row.name);
            }
            (full, small) => assert_eq!(full, small, "{}", row.name),
        }
    }
}
