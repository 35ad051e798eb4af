//! Products with weights in blocks against the machine's limit for products of `f32`.
//!
//! `cargo bench --bench blocks` prints a line for each type and number of rows: multiply-adds a second, and how many times the
//! peak of fused multiply-adds of `f32` that is, which is measured in the same run with the same threads. Activations are
//! rounded in the same execution; weights are brought into the order of kernels before. Arguments choose types by name
//! (`q4_0`), rows by number with an `m` (`128m`), sizes of the weights (`9216x2304`), numbers of threads, or what to compile for
//! (`cpu=x86-64-v3`).

use std::time::{Duration, Instant};

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::llvm_cpu::limits::Limits;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::op::ActivationScheme;
use brain_blitz::prelude::*;

/// Types that have kernels of their own kind.
const TYPES: [BlockType; 6] = [
    BlockType::Q8_0,
    BlockType::Q4_0,
    BlockType::Q4_1,
    BlockType::Q4_K,
    BlockType::Q6_K,
    BlockType::Q1_0,
];

/// Rows of activations, and sizes `[n, k]` of the weights.
const ROWS: [usize; 3] = [1, 16, 128];
const SIZES: [[usize; 2]; 2] = [[2304, 9216], [9216, 2304]];

/// Any blocks whose scales are numbers.
fn weights(ty: BlockType, n: usize, k: usize) -> Vec<u8> {
    let bytes = n * k / ty.block_len() * ty.block_bytes();
    let mut bytes: Vec<u8> = (0..bytes).map(|i| (i * 89 % 251) as u8).collect();
    for block in bytes.chunks_exact_mut(ty.block_bytes()) {
        for &at in ty.scale_offsets() {
            block[at..at + 2].copy_from_slice(&half::f16::from_f32(0.01).to_le_bytes());
        }
    }
    bytes
}

/// The shortest time of an execution, in seconds.
fn best(cx: &mut Graph) -> f64 {
    cx.execute();
    let (start, mut best, mut rounds) = (Instant::now(), f64::MAX, 0);
    while rounds < 5 || start.elapsed() < Duration::from_millis(300) {
        let round = Instant::now();
        cx.execute();
        best = best.min(round.elapsed().as_secs_f64());
        rounds += 1;
    }
    best
}

/// Seconds that the product `[m, n, k]` takes.
fn measure(ty: BlockType, [m, n, k]: [usize; 3], (cpu, threads): (&str, usize)) -> f64 {
    let mut cx = Graph::new();
    cx.set_threads(threads);
    let x: Vec<f32> = (0..m * k).map(|i| (i * 37 % 251) as f32 - 125.0).collect();
    let x = cx.input((m, k), DType::F32).set(x);
    let x = x.fake_quantize(ActivationScheme::for_weights(ty));
    let bytes = weights(ty, n, k);
    let w = cx.input((n, bytes.len() / n), DType::U8).set(bytes);
    x.matmul(w.dequantize(ty).transpose(0, 1)).retrieve();
    cx.compile((Generic, LlvmCpu::for_cpu(cpu).pack_weights(true)), ());
    best(&mut cx)
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let numbers = |end: &str| -> Vec<usize> {
        let words = wanted.iter().filter_map(|word| word.strip_suffix(end));
        words.flat_map(str::parse).collect()
    };
    let chosen = |numbers: Vec<usize>, otherwise: &[usize]| match numbers.is_empty() {
        true => otherwise.to_vec(),
        false => numbers,
    };
    let (threads, rows) = (chosen(numbers(""), &[1]), chosen(numbers("m"), &ROWS));
    let sizes = wanted.iter().filter_map(|word| word.split_once('x'));
    let mut sizes: Vec<[usize; 2]> = sizes
        .filter_map(|(n, k)| Some([n.parse().ok()?, k.parse().ok()?]))
        .collect();
    if sizes.is_empty() {
        sizes = SIZES.to_vec();
    }
    let named: Vec<BlockType> = wanted.iter().flat_map(|word| word.parse()).collect();
    let types = if named.is_empty() { &TYPES[..] } else { &named };
    let cpu = wanted.iter().find_map(|word| word.strip_prefix("cpu="));
    let cpu = cpu.unwrap_or("native");
    let limits = Limits::new(&Target::native()).expect("the kernels compile");
    for threads in threads {
        let peak = limits.fma(threads) / 2.0;
        println!(
            "{threads} threads: {:.1} G multiply-adds a second of f32",
            peak / 1e9
        );
        for &ty in types {
            for (&m, &[n, k]) in rows
                .iter()
                .flat_map(|m| sizes.iter().map(move |size| (m, size)))
            {
                let time = measure(ty, [m, n, k], (cpu, threads));
                let rate = (m * n * k) as f64 / time;
                println!(
                    "{:36} {threads}T {:9.1} us {:7.1} G/s {:5.2} of the peak of f32",
                    format!("{ty} {:?} {cpu}", [m, n, k]),
                    time * 1e6,
                    rate / 1e9,
                    rate / peak,
                );
            }
        }
    }
}
