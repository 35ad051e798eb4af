//! Times of the rows of `rows/mod.rs` as JSON, for programs that compare them with others.
//!
//! `cargo bench --bench row_times -- --list` names the rows; `-- ROW [--threads N] [--seconds S]` prints one object:
//! the milliseconds of each execution, in order, after two that are not counted, and what a row has to do. Executions
//! alone are measured: data is there, and results are not read.

#[allow(dead_code, reason = "tests use the rest")]
#[path = "rows/mod.rs"]
mod rows;

use std::time::{Duration, Instant};

use brain_blitz::prelude::*;
use rows::{ROWS, Row, Scale, Work};

/// Executions that are measured at least.
const FEWEST: usize = 5;
/// Executions that are measured at most.
const MOST: usize = 20_000;

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let (mut name, mut threads, mut seconds) = (None, None, 0.5);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse::<f64>().ok());
        match arg.as_str() {
            "--list" => return ROWS.iter().for_each(|row| println!("{}", row.name)),
            "--threads" => threads = number().map(|n| n as usize),
            "--seconds" => seconds = number().unwrap_or(seconds),
            _ => name = Some(arg),
        }
    }
    let row = ROWS
        .iter()
        .find(|row| Some(row.name) == name.as_deref())
        .expect("the name of a row, one of those that --list shows");
    println!("{}", measured(row, threads, seconds));
}

fn measured(row: &Row, threads: Option<usize>, seconds: f64) -> serde_json::Value {
    let mut cx = Graph::new();
    if let Some(n) = threads {
        cx.set_threads(n);
    }
    let out = (row.build)(&mut cx, Scale::Full).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    let time = |cx: &mut Graph| {
        let start = Instant::now();
        cx.execute();
        start.elapsed()
    };
    let _warm = [time(&mut cx), time(&mut cx)];
    let limit = Duration::from_secs_f64(seconds);
    let mut times = Vec::new();
    let mut spent = Duration::ZERO;
    while times.len() < FEWEST || (spent < limit && times.len() < MOST) {
        let one = time(&mut cx);
        times.push(1e3 * one.as_secs_f64());
        spent += one;
    }
    let (unit, amount) = match (row.work)(Scale::Full) {
        Work::Flop(n) => ("flop", n),
        Work::Bytes(n) => ("bytes", n),
        Work::Latency => ("latency", 1.0),
    };
    let finite = out.array().to_f64().iter().all(|x| x.is_finite());
    serde_json::json!({
        "row": row.name,
        "unit": unit,
        "amount": amount,
        "kernels": cx.stats().steps,
        "finite": finite,
        "ms": times,
    })
}
