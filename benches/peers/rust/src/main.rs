//! Rows of `benches/rows/mod.rs` as Rust crates compute them: `brain-blitz-peers PEER THREADS`.
//!
//! Speaks as `benches/peers/worker.py` does: reads lines `ROW SECONDS` and answers with a line of JSON, the milliseconds
//! of each run, after two that are not counted; `null` for a row that the peer does not have. An empty line frees the last
//! row's memory. The first line that it writes is the peer's version.
//!
//! Sizes and operations are those of the crate's file; the data's values do not matter to any of these programs.

use std::io::Write;
use std::time::Instant;

use candle_core::{D, DType, Device, Tensor};

/// Runs of a row at least and at most.
const RUNS: std::ops::Range<usize> = 5..20_000;

/// Rows and columns of what softmax and norms work on.
const N: usize = 4096;
/// Elements of the chain.
const CHAIN: usize = 16 << 20;
/// Heads, positions and width of attention.
const ATTENTION: [usize; 3] = [8, 1024, 64];

/// Computes a row once.
type Run = Box<dyn FnMut()>;

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

/// The size of a row `matmul_N`.
fn matmul_size(row: &str) -> Option<usize> {
    row.strip_prefix("matmul_")?.parse().ok()
}

fn gemm_row(row: &str, threads: usize) -> Option<Run> {
    let n = matmul_size(row)?;
    let (a, b, mut c) = (numbers(n * n), numbers(n * n), vec![0f32; n * n]);
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        more => gemm::Parallelism::Rayon(more),
    };
    Some(Box::new(move || {
        let (stride, n_rows) = (n as isize, n);
        // SAFETY: all three are row-major `[n, n]`, and the result overlaps neither operand.
        unsafe {
            gemm::gemm(
                n_rows,
                n,
                n,
                c.as_mut_ptr(),
                1,
                stride,
                false,
                a.as_ptr(),
                1,
                stride,
                b.as_ptr(),
                1,
                stride,
                0f32,
                1f32,
                false,
                false,
                false,
                parallelism,
            );
        }
    }))
}

fn matrixmultiply_row(row: &str) -> Option<Run> {
    let n = matmul_size(row)?;
    let (a, b, mut c) = (numbers(n * n), numbers(n * n), vec![0f32; n * n]);
    Some(Box::new(move || {
        let stride = n as isize;
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        // SAFETY: all three are row-major `[n, n]`, and the result overlaps neither operand.
        unsafe {
            matrixmultiply::sgemm(n, n, n, 1.0, a, stride, 1, b, stride, 1, 0.0, c, stride, 1);
        }
    }))
}

fn candle_row(row: &str) -> candle_core::Result<Option<Run>> {
    let random = |dims: &[usize]| Tensor::randn(0f32, 1f32, dims, &Device::Cpu);
    if let Some(n) = matmul_size(row) {
        let (a, b) = (random(&[n, n])?, random(&[n, n])?);
        return run(move || a.matmul(&b));
    }
    let vector = || random(&[N]);
    let square = || random(&[N, N]);
    match row {
        "softmax" => {
            let x = square()?;
            run(move || candle_nn::ops::softmax_last_dim(&x))
        }
        "layer_norm" => {
            let (x, w, b) = (square()?, vector()?, vector()?);
            run(move || candle_nn::ops::layer_norm(&x, &w, &b, 1e-5))
        }
        "rms_norm" => {
            let (x, w) = (square()?, vector()?);
            run(move || candle_nn::ops::rms_norm(&x, &w, 1e-6))
        }
        "gelu_chain" => {
            let many = || random(&[CHAIN]);
            let (x, w, b, z) = (many()?, many()?, many()?, many()?);
            run(move || (((&x * &w)? + &b)?.gelu()?).mul(&candle_nn::ops::sigmoid(&z)?))
        }
        "attention" => {
            let [q, k, v] = [
                random(&ATTENTION)?,
                random(&ATTENTION)?,
                random(&ATTENTION)?,
            ];
            let scale = 1.0 / (ATTENTION[2] as f64).sqrt();
            run(move || {
                let scores = (q.matmul(&k.transpose(D::Minus1, D::Minus2)?)? * scale)?;
                candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)
            })
        }
        "matvec_f32" | "matvec_bf16" => {
            let dtype = match row {
                "matvec_f32" => DType::F32,
                _ => DType::BF16,
            };
            let w = random(&[73_728, 2304])?.to_dtype(dtype)?;
            let x = random(&[1, 2304])?.to_dtype(dtype)?;
            run(move || x.matmul(&w.t()?))
        }
        _ => Ok(None),
    }
}

/// What computes a tensor, as what is measured.
fn run(
    compute: impl Fn() -> candle_core::Result<Tensor> + 'static,
) -> candle_core::Result<Option<Run>> {
    compute()?;
    Ok(Some(Box::new(move || {
        std::hint::black_box(compute().expect("it worked before"));
    })))
}

/// The row of a peer, if it has it.
fn row_of(peer: &str, row: &str, threads: usize) -> Option<Run> {
    match peer {
        "gemm" => gemm_row(row, threads),
        "matrixmultiply" => matrixmultiply_row(row),
        "candle" => candle_row(row).unwrap_or_else(|why| {
            eprintln!("candle cannot compute {row}: {why}");
            None
        }),
        other => panic!("no such peer: {other}"),
    }
}

/// The version in this program's lock file.
fn version(peer: &str) -> String {
    let name = match peer {
        "candle" => "candle-core",
        peer => peer,
    };
    let lock = include_str!("../Cargo.lock");
    let found = lock.split("[[package]]").filter(|entry| {
        let first = entry.trim_start().lines().next();
        first == Some(&format!("name = \"{name}\""))
    });
    let versions = found.filter_map(|entry| entry.split("version = \"").nth(1)?.split('"').next());
    versions.last().unwrap_or("unknown").to_string()
}

fn measured(run: &mut Run, seconds: f64) -> Vec<f64> {
    run();
    run();
    let (mut times, mut spent) = (Vec::new(), 0.0);
    while times.len() < RUNS.start || spent < seconds && times.len() < RUNS.end {
        let start = Instant::now();
        run();
        let one = start.elapsed().as_secs_f64();
        times.push(1e3 * one);
        spent += one;
    }
    times
}

fn main() {
    let mut args = std::env::args().skip(1);
    let usage = "usage: brain-blitz-peers PEER THREADS";
    let (peer, threads) = args.next().zip(args.next()).expect(usage);
    let n_threads: usize = threads.parse().expect(usage);
    let mut out = std::io::stdout();
    let mut answer = |line: &serde_json::Value| {
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .expect("somebody reads");
    };
    answer(&version(&peer).into());
    let mut known: Option<(String, Option<Run>)> = None;
    for line in std::io::stdin().lines() {
        let line = line.expect("lines of text");
        let Some((row, seconds)) = line.split_once(' ') else {
            known = None;
            continue;
        };
        if known.as_ref().is_none_or(|(name, _)| name != row) {
            drop(known.take());
            known = Some((row.to_string(), row_of(&peer, row, n_threads)));
        }
        let seconds: f64 = seconds.parse().expect("a number of seconds");
        let run = known.as_mut().and_then(|(_, run)| run.as_mut());
        answer(&run.map_or(serde_json::Value::Null, |run| measured(run, seconds).into()));
    }
}
