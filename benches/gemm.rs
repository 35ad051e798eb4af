//! Matrix products against the limits of the machine.
//!
//! `cargo bench --bench gemm` prints a line for each shape: products limited by arithmetic as operations a second and
//! as a part of the peak of fused multiply-adds, products with few rows as bytes a second and as a part of the
//! bandwidth of reading. Both limits are measured in the same run, before each group and with the same threads.
//! Arguments choose groups by name: `cargo bench --bench gemm -- square narrow`; or they are sizes, `16x1000x64`, which
//! are multiplied in all layouts; or numbers of threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use brain_blitz::compilers::llvm_cpu::limits::Limits;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::prelude::*;
use memmap2::{Advice, MmapMut};

/// How the operands lie in memory.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// `[m, k]` times `[k, n]`.
    Plain,
    /// `[m, k]` times `[n, k]` transposed, as weights are stored.
    Weights,
    /// `[k, m]` transposed times `[k, n]`.
    Turned,
}

/// One product, or `batch` independent ones.
struct Case {
    group: &'static str,
    sizes: [usize; 4],
    layout: Layout,
    weights: DType,
}

const GROUPS: [&str; 10] = [
    "square", "odd", "edge", "shape", "batch", "layout", "prefill", "decode", "few", "narrow",
];

fn case(group: &'static str, batch: usize, [m, n, k]: [usize; 3], layout: Layout) -> Case {
    Case {
        group,
        sizes: [batch, m, n, k],
        layout,
        weights: DType::F32,
    }
}

fn cases() -> Vec<Case> {
    use Layout::{Plain, Turned, Weights};
    let mut all: Vec<Case> = Vec::new();
    for n in [64, 128, 256, 512, 1024, 2048] {
        all.push(case("square", 1, [n, n, n], Plain));
    }
    for n in [7, 17, 63, 129, 257, 513, 1000] {
        all.push(case("odd", 1, [n, n, n], Plain));
    }
    // Each with the size that whole vectors would have.
    for n in [7, 17, 63, 129, 1000] {
        let whole = usize::next_multiple_of(n, 16);
        for layout in [Plain, Weights] {
            for shape in [[1000, 1000, n], [1000, n, 1000], [n, 1000, 1000], [n, n, n]] {
                let round = |size: usize| if size == n { whole } else { size };
                all.push(case("edge", 1, shape, layout));
                all.push(case("edge", 1, shape.map(round), layout));
            }
        }
    }
    for shape in [
        [128, 9216, 2304],
        [128, 2304, 9216],
        [10000, 64, 64],
        [64, 10000, 64],
        [64, 64, 20000],
        [1000, 1000, 7],
        [1000, 7, 1000],
        [7, 1000, 1000],
    ] {
        all.push(case("shape", 1, shape, Plain));
    }
    all.push(case("shape", 1, [128, 9216, 2304], Weights));
    all.push(case("batch", 8, [128, 128, 64], Plain));
    all.push(case("batch", 8, [128, 64, 128], Plain));
    all.push(case("batch", 64, [32, 32, 32], Plain));
    all.push(case("batch", 8, [1024, 1024, 64], Weights));
    for layout in [Plain, Weights, Turned] {
        all.push(case("layout", 1, [768, 768, 768], layout));
        all.push(case("layout", 8, [128, 128, 64], layout));
    }
    all.extend(weight_cases());
    all
}

/// Products with weights.
fn weight_cases() -> Vec<Case> {
    use Layout::Weights;
    let mut all = Vec::new();
    // The products of Gemma 2 2B over a prompt.
    for weights in [DType::F32, DType::BF16] {
        for [n, k] in [[9216, 2304], [2304, 9216], [2048, 2304], [1024, 2304]] {
            let shape = case("prefill", 1, [512, n, k], Weights);
            all.push(Case { weights, ..shape });
        }
    }
    // The same over one token, as many at once as are larger than the caches.
    for [n, k] in [[9216, 2304], [2304, 9216], [2304, 2048], [1024, 2304]] {
        let shape = case("decode", 16, [1, n, k], Weights);
        let weights = DType::BF16;
        all.push(Case { weights, ..shape });
    }
    for weights in [DType::F32, DType::BF16] {
        for m in [5, 8, 16, 32] {
            let shape = case("few", 1, [m, 9216, 2304], Weights);
            all.push(Case { weights, ..shape });
        }
        for m in 1..=4 {
            let shape = case("narrow", 1, [m, 73728, 2304], Weights);
            all.push(Case { weights, ..shape });
        }
    }
    all
}

/// Memory in huge pages, with numbers in it that are neither zero nor denormal in any format.
fn memory(bytes: usize) -> Arc<MmapMut> {
    let mut map = MmapMut::map_anon(bytes.max(4)).expect("enough memory");
    let _ = map.advise(Advice::HugePage);
    for (index, two) in map.chunks_exact_mut(2).enumerate() {
        two.copy_from_slice(&[(index % 251) as u8, 0x3f]);
    }
    Arc::new(map)
}

fn input(cx: &mut Graph, dims: &[usize], dtype: DType) -> GraphTensor {
    let bytes = dims.iter().product::<usize>() * dtype.size();
    let tensor = cx.input(dims.to_vec(), dtype);
    tensor.try_set_shared(memory(bytes)).expect("the size fits");
    tensor
}

fn record(cx: &mut Graph, case: &Case) -> GraphTensor {
    let [batch, m, n, k] = case.sizes;
    let (lhs, rhs) = match case.layout {
        Layout::Plain => ([m, k], [k, n]),
        Layout::Weights => ([m, k], [n, k]),
        Layout::Turned => ([k, m], [k, n]),
    };
    let dims = |two: [usize; 2]| match batch {
        1 => two.to_vec(),
        _ => vec![batch, two[0], two[1]],
    };
    let (lhs, rhs) = (dims(lhs), dims(rhs));
    let axis = lhs.len() - 2;
    let a = input(cx, &lhs, DType::F32);
    let b = input(cx, &rhs, case.weights);
    let b = if case.weights == DType::F32 {
        b
    } else {
        b.cast(DType::F32)
    };
    match case.layout {
        Layout::Plain => a.matmul(b),
        Layout::Weights => a.matmul(b.transpose(axis, axis + 1)),
        Layout::Turned => a.transpose(axis, axis + 1).matmul(b),
    }
}

/// The shortest time of an execution, over about half a second.
fn best(cx: &mut Graph) -> f64 {
    cx.execute();
    let start = Instant::now();
    let mut best = f64::MAX;
    let mut rounds = 0;
    while rounds < 3 || start.elapsed() < Duration::from_millis(300) {
        let round = Instant::now();
        cx.execute();
        best = best.min(round.elapsed().as_secs_f64());
        rounds += 1;
    }
    best
}

fn run(case: &Case, threads: usize, (fma, read): (f64, f64)) {
    let mut cx = Graph::new();
    cx.set_threads(threads);
    let _ = record(&mut cx, case).retrieve();
    cx.compile(<(Generic, LlvmCpu)>::default(), ());
    let time = best(&mut cx);
    let [batch, m, n, k] = case.sizes;
    let rate = 2.0 * (batch * m * n * k) as f64 / time;
    let weights = (batch * n * k * case.weights.size()) as f64;
    let layout = match case.layout {
        Layout::Plain => "a b",
        Layout::Weights => "a b'",
        Layout::Turned => "a' b",
    };
    let name = format!(
        "{} {batch} x {m} x {n} x {k} {layout} {}",
        case.group, case.weights
    );
    println!(
        "{name:44} {threads}T {:9.1} us {:7.1} GFLOP/s {:4.2} of peak, {:5.1} GB/s {:4.2} of bandwidth",
        time * 1e6,
        rate / 1e9,
        rate / fma,
        weights / time / 1e9,
        weights / time / read,
    );
}

/// Three sizes, as in `16x1000x64`.
fn sizes(text: &str) -> Option<Vec<usize>> {
    let sizes: Option<Vec<usize>> = text.split('x').map(|size| size.parse().ok()).collect();
    sizes.filter(|sizes| sizes.len() == 3)
}

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let threads: Vec<usize> = match wanted
        .iter()
        .filter_map(|w| w.parse().ok())
        .collect::<Vec<_>>()
    {
        none if none.is_empty() => vec![1, 2],
        some => some,
    };
    let sizes: Vec<Vec<usize>> = wanted.iter().filter_map(|text| sizes(text)).collect();
    let mut limits = Limits::new(&Target::native()).expect("the kernels compile");
    for &threads in threads.iter().filter(|_| !sizes.is_empty()) {
        let limit = (limits.fma(threads), f64::INFINITY);
        for size in &sizes {
            for layout in [Layout::Plain, Layout::Weights, Layout::Turned] {
                let [m, n, k] = size[..] else { continue };
                run(&case("given", 1, [m, n, k], layout), threads, limit);
            }
        }
    }
    if !sizes.is_empty() {
        return;
    }
    for group in GROUPS {
        let named: Vec<_> = wanted
            .iter()
            .filter(|w| w.parse::<usize>().is_err())
            .collect();
        if !named.is_empty() && !named.iter().any(|w| *w == group) {
            continue;
        }
        for &threads in &threads {
            let read = match group {
                "decode" | "few" | "narrow" => limits.read(threads).expect("enough memory"),
                _ => f64::INFINITY,
            };
            let limit = (limits.fma(threads), read);
            println!(
                "{threads} threads: {:.1} GFLOP/s, {:.1} GB/s",
                limit.0 / 1e9,
                limit.1 / 1e9
            );
            for case in cases().iter().filter(|case| case.group == group) {
                run(case, threads, limit);
            }
        }
    }
}
