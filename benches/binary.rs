//! Products of signs against the machine's limit for products of `f32`.
//!
//! `cargo bench --bench binary` prints a line for each product and target: multiplications a second (a sign times a sign, or
//! times a byte, is one), and how many times the peak of fused multiply-adds of `f32` that is, which is measured in the same
//! run with the same threads; for weights that only memory holds, also what part of the measured bandwidth. `bits` are
//! products of signs that are packed already; `signs` are packed in the same execution; `bytes` are rounded to 8 bits in it, and
//! activations of `w1a4`, `w1a2` and `w2a2` to levels of 4 and 2 bits. Of these, a weight times an activation is one
//! multiplication, however many bits both have. Arguments choose products by name, or numbers of threads.
//!
//! `BB_SIGNS=popcount` and `BB_SIGNS=table` measure ways of counting that are not the target's best; names say which it was.

use std::time::{Duration, Instant};

use brain_blitz::blocks::SignMatrix;
use brain_blitz::compilers::llvm_cpu::binary::counts::Form;
use brain_blitz::compilers::llvm_cpu::limits::Limits;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::op::{ActivationScheme, PlanePart, Planes, SignPart};
use brain_blitz::prelude::*;

/// What a matrix of signs, with scales, is multiplied by.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Factor {
    Bits,
    Signs,
    Bytes,
    /// Levels, and bases of the weights.
    Levels(Planes, usize),
    /// No signs at all: the same product of `f32`.
    Floats,
}

/// Name, factor, and sizes `[m, n, k]`.
const CASES: [(&str, Factor, [usize; 3]); 21] = [
    ("bits", Factor::Bits, [1024, 1024, 1024]),
    ("bits", Factor::Bits, [256, 4096, 4096]),
    ("bits", Factor::Bits, [64, 512, 512]),
    ("bits-row", Factor::Bits, [1, 4096, 4096]),
    ("bits-row", Factor::Bits, [4, 4096, 4096]),
    ("signs", Factor::Signs, [1024, 1024, 1024]),
    ("signs", Factor::Signs, [256, 4096, 4096]),
    ("bytes-row", Factor::Bytes, [1, 2048, 2048]),
    ("bytes-row", Factor::Bytes, [1, 1536, 4096]),
    ("bytes-row", Factor::Bytes, [1, 9216, 2304]),
    // More bits than caches hold.
    ("bytes-memory", Factor::Bytes, [1, 65536, 16384]),
    ("bytes-memory", Factor::Bytes, [1, 262_144, 4096]),
    ("bytes", Factor::Bytes, [64, 2048, 2048]),
    ("bytes", Factor::Bytes, [1024, 1024, 1024]),
    ("w1a4", Factor::Levels(Planes::Four, 1), [1024, 1024, 1024]),
    ("w1a2", Factor::Levels(Planes::Two, 1), [1024, 1024, 1024]),
    ("w2a2", Factor::Levels(Planes::Two, 2), [1024, 1024, 1024]),
    ("w1a4-row", Factor::Levels(Planes::Four, 1), [1, 4096, 4096]),
    ("w1a2-row", Factor::Levels(Planes::Two, 1), [1, 4096, 4096]),
    ("w2a2-row", Factor::Levels(Planes::Two, 2), [1, 4096, 4096]),
    ("floats", Factor::Floats, [1024, 1024, 1024]),
];

/// Bytes whose words are ordinary numbers of any format, and whose bits are mixed.
fn bytes(n: usize) -> Vec<u8> {
    (0..n)
        .map(|i| [(i * 37 % 251) as u8, 0x3f][i % 2])
        .collect()
}

fn record(cx: &mut Graph, factor: Factor, [m, n, k]: [usize; 3]) {
    if factor == Factor::Floats {
        let x = cx.input((m, k), DType::F32).set(vec![0.5; m * k]);
        let w = cx.input((n, k), DType::F32).set(vec![0.5; n * k]);
        x.matmul(w.transpose(0, 1)).retrieve();
        return;
    }
    let bases = match factor {
        Factor::Levels(_, bases) => bases,
        _ => 1,
    };
    let matrix = SignMatrix::new(n, k, bases).expect("such sizes are possible");
    let w = cx.input((matrix.panels(), matrix.panel_bytes()), DType::U8);
    w.set(bytes(matrix.bytes()));
    let floats = |cx: &mut Graph| {
        let x: Vec<f32> = (0..m * k).map(|i| (i * 37 % 251) as f32 - 125.0).collect();
        cx.input((m, k), DType::F32).set(x)
    };
    let mut sizes = None;
    let x = match factor {
        Factor::Levels(planes, _) => {
            let rows = floats(cx).pack_planes(planes);
            let part = |part| rows.unpack_planes(k, planes, part);
            sizes = Some(part(PlanePart::Scales).unsqueeze(-1));
            part(PlanePart::Levels)
        }
        Factor::Bits => {
            let bits = cx.input((m, k.div_ceil(8)), DType::U8);
            bits.set(bytes(m * k.div_ceil(8))).unpack_signs(k)
        }
        Factor::Signs => floats(cx).pack_signs().unpack_signs(k),
        _ => floats(cx).fake_quantize(ActivationScheme::A8Tok),
    };
    let term = |base| {
        let signs = w.sign_matrix(matrix, SignPart::Signs(base));
        x.matmul(signs.transpose(0, 1)) * w.sign_matrix(matrix, SignPart::Scales(base))
    };
    let y = (1..bases).fold(term(0), |sum, base| sum + term(base));
    match sizes {
        Some(sizes) => (y * sizes).retrieve(),
        None => y.retrieve(),
    };
}

/// The shortest time of an execution.
fn best(cx: &mut Graph) -> f64 {
    cx.execute();
    let (start, mut best, mut rounds) = (Instant::now(), f64::MAX, 0);
    while rounds < 3 || start.elapsed() < Duration::from_millis(200) {
        let round = Instant::now();
        cx.execute();
        best = best.min(round.elapsed().as_secs_f64());
        rounds += 1;
    }
    best
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let (numbers, names): (Vec<String>, Vec<String>) = wanted
        .into_iter()
        .partition(|word| word.parse::<usize>().is_ok());
    let mut threads: Vec<usize> = numbers.iter().flat_map(|word| word.parse()).collect();
    if threads.is_empty() {
        threads = vec![1, 2];
    }
    let mut limits = Limits::new(&Target::native()).expect("the kernels compile");
    for threads in threads {
        let peak = limits.fma(threads) / 2.0;
        println!(
            "{threads} threads: {:.1} G multiply-adds a second of f32",
            peak / 1e9
        );
        for (name, factor, sizes) in CASES {
            if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
                continue;
            }
            for cpu in ["native", "x86-64-v3"] {
                let mut cx = Graph::new();
                cx.set_threads(threads);
                record(&mut cx, factor, sizes);
                cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ());
                let time = best(&mut cx);
                let rate = sizes.iter().product::<usize>() as f64 / time;
                let form = Form::of(&Target::for_cpu(cpu).expect("a known target"));
                let label = format!("{name} {sizes:?} {cpu} {}", form.name());
                println!(
                    "{label:44} {threads}T {:9.1} us {:7.1} G/s {:5.2} of the peak of f32",
                    time * 1e6,
                    rate / 1e9,
                    rate / peak,
                );
                if name == "bytes-memory" {
                    let bytes =
                        SignMatrix::new(sizes[1], sizes[2], 1).expect("such sizes are possible");
                    let bytes = bytes.bytes() as f64 / time;
                    let limit = limits.read(threads).expect("there is memory for that");
                    println!(
                        "{label:44} {threads}T {:.1} GB/s of {:.1} read from memory: {:.2}",
                        bytes / 1e9,
                        limit / 1e9,
                        bytes / limit,
                    );
                }
            }
        }
    }
}
