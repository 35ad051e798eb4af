//! Operands of matrix products that are packed once: when they are, when they are not, and what happens when they
//! change.
#![cfg(feature = "llvm-backend")]

use std::fs;
use std::path::Path;

use brain_blitz::prelude::*;
use half::bf16;

const TARGETS: [&str; 3] = ["native", "x86-64-v3", "scalar"];

fn numbers(n: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| ((i * 37 + seed * 11) % 101) as f32 / 7.0 - 6.0;
    (0..n).map(number).collect()
}

/// What `x[m, k] * w[n, k]` is: fused multiply-adds in the order of k.
fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0f32, |sum, (a, b)| a.mul_add(*b, sum));
    let rows = x.chunks(k);
    rows.flat_map(|x| w.chunks(k).map(move |w| dot(x, w)))
        .collect()
}

/// `x[s, k]` times weights `[n, k]`, for any s.
struct Net {
    cpu: &'static str,
    cx: Graph,
    x: GraphTensor,
    w: GraphTensor,
    y: GraphTensor,
    n: usize,
    k: usize,
}

impl Net {
    fn new(cpu: &'static str, compiler: LlvmCpu, (n, k): (usize, usize), dtype: DType) -> Net {
        let mut cx = Graph::new();
        let x = cx.input(('s', k), DType::F32);
        let w = cx.input((n, k), dtype);
        let wide = if dtype == DType::F32 {
            w
        } else {
            w.cast(DType::F32)
        };
        let y = x.matmul(wide.transpose(0, 1)).retrieve();
        cx.compile((Generic, compiler), ());
        Net {
            cpu,
            cx,
            x,
            w,
            y,
            n,
            k,
        }
    }

    /// What a compiler gives that packs nothing once: few rows have another order of summation.
    fn unpacked(&self, x: Vec<f32>, weights: &[f32], m: usize) -> Vec<f32> {
        let plain = LlvmCpu::for_cpu(self.cpu).pack_weights(false);
        let mut net = Net::new(self.cpu, plain, (self.n, self.k), self.w.dtype());
        net.x.set(x);
        net.w.set(weights.to_vec());
        net.cx.set_dim('s', m);
        net.cx.execute();
        assert_eq!(net.cx.stats().packings, 0);
        net.y.data()
    }

    /// Executes with `m` rows and checks the result; how many operands were packed, and how many of them were read.
    fn check(&mut self, m: usize, weights: &[f32]) -> (usize, usize) {
        let x = numbers(m * self.k, m);
        self.x.set(x.clone());
        self.cx.set_dim('s', m);
        self.cx.execute();
        let (n, k, got) = (self.n, self.k, self.y.data());
        if m > 32 {
            assert_eq!(got, product(&x, weights, k), "{m} x {n} x {k}");
        } else {
            assert_eq!(got, self.unpacked(x, weights, m), "{m} x {n} x {k}");
        }
        (self.cx.stats().packings, self.cx.stats().packings_read)
    }
}

fn packing(cpu: &str) -> LlvmCpu {
    LlvmCpu::for_cpu(cpu).pack_weights(true)
}

#[test]
fn weights_are_packed_once_for_all_numbers_of_rows() {
    for cpu in TARGETS {
        for (n, k) in [(70, 33), (32, 600), (5, 7)] {
            let mut net = Net::new(cpu, packing(cpu), (n, k), DType::F32);
            let weights = numbers(n * k, 1);
            net.w.set(weights.clone());
            let packings = [40, 40, 1, 13, 100].map(|m| net.check(m, &weights));
            assert_eq!(packings, [(1, 0), (0, 0), (0, 0), (0, 0), (0, 0)], "{cpu}");
            assert!(net.cx.stats().packed_bytes >= n * k * 4);
        }
    }
}

#[test]
fn weights_are_packed_before_the_first_execution_if_asked() {
    let (m, n, k) = (40, 50, 30);
    let mut net = Net::new("native", packing("native"), (n, k), DType::F32);
    let (x, weights) = (numbers(m * k, 2), numbers(n * k, 1));
    net.x.set(x.clone());
    net.w.set(weights.clone());
    net.cx.set_dim('s', m);
    net.cx.try_prepare().unwrap();
    assert!(net.cx.stats().packed_bytes >= n * k * 4);
    assert!(net.y.try_array().is_err(), "nothing is computed");
    net.cx.execute();
    assert_eq!(net.y.data(), product(&x, &weights, k));
    assert_eq!(net.cx.stats().packings, 1, "those before the execution");
    let others = numbers(n * k, 3);
    net.w.set(others.clone());
    net.cx.try_prepare().unwrap();
    net.cx.execute();
    assert_eq!(net.y.data(), product(&x, &others, k));
    net.cx.execute();
    assert_eq!(net.cx.stats().packings, 0);
}

#[test]
fn preparing_for_other_sizes_leaves_no_stale_result() {
    let (n, k) = (50, 30);
    let mut net = Net::new("native", packing("native"), (n, k), DType::F32);
    let (x, weights) = (numbers(80 * k, 2), numbers(n * k, 1));
    net.x.set(x[..40 * k].to_vec());
    net.w.set(weights.clone());
    net.cx.set_dim('s', 40);
    net.cx.execute();
    net.x.set(x.clone());
    net.cx.set_dim('s', 80);
    net.cx.try_prepare().unwrap();
    let stale = net
        .y
        .try_array()
        .expect_err("it was laid out for other sizes");
    assert!(stale.to_string().contains("execut"), "{stale}");
    net.cx.execute();
    assert_eq!(net.y.data(), product(&x, &weights, k));
}

#[test]
fn random_numbers_can_be_prepared_for() {
    let draw = |prepares: bool| {
        let mut cx = Graph::new();
        let x = cx.rand_uniform(64, 3, brain_blitz::shape::RUN).retrieve();
        cx.compile((Generic, LlvmCpu::native()), ());
        if prepares {
            cx.try_prepare().unwrap();
        }
        let mut one = || {
            cx.execute();
            x.data()
        };
        [one(), one()]
    };
    let [first, second] = draw(true);
    assert_ne!(first, second);
    assert_eq!([first, second], draw(false));
}

#[test]
fn weights_in_bf16_are_packed_in_bf16() {
    for cpu in TARGETS {
        let (n, k) = (70, 533);
        let mut net = Net::new(cpu, packing(cpu), (n, k), DType::BF16);
        let weights: Vec<f32> = numbers(n * k, 1)
            .into_iter()
            .map(|w| bf16::from_f32(w / 3.0).to_f32())
            .collect();
        net.w.set(weights.clone());
        assert_eq!([40, 1, 7].map(|m| net.check(m, &weights).0), [1, 0, 0]);
        let bytes = net.cx.stats().packed_bytes;
        assert!((n * k * 2..n * k * 4).contains(&bytes), "{bytes} on {cpu}");
    }
}

#[test]
fn changed_weights_are_packed_again() {
    let (n, k) = (70, 33);
    let mut net = Net::new("native", packing("native"), (n, k), DType::F32);
    for seed in [1, 2, 3] {
        let weights = numbers(n * k, seed);
        // Of the same size, over the old ones.
        net.w.set(weights.clone());
        assert_eq!([40, 2].map(|m| net.check(m, &weights).0), [1, 0]);
    }
    let weights = numbers(n * k, 4);
    let bytes: Vec<u8> = weights.iter().flat_map(|w| w.to_ne_bytes()).collect();
    net.w.try_set_shared(std::sync::Arc::new(bytes)).unwrap();
    assert_eq!([40, 2].map(|m| net.check(m, &weights).0), [1, 0]);
    let weights = numbers(n * k, 5);
    net.w.set(weights.clone());
    net.w.set(weights.clone());
    assert_eq!(net.check(2, &weights).0, 1);
}

#[test]
fn nothing_is_packed_unless_asked_for() {
    let (n, k) = (70, 33);
    for compiler in [
        LlvmCpu::for_cpu("native").pack_weights(false),
        packing("native").pack_weights(false),
    ] {
        let mut net = Net::new("native", compiler, (n, k), DType::F32);
        let weights = numbers(n * k, 1);
        net.w.set(weights.clone());
        assert_eq!(net.check(40, &weights), (0, 0));
        assert_eq!(net.cx.stats().packed_bytes, 0);
    }
}

#[test]
fn what_is_no_constant_input_is_not_packed_once() {
    let mut cx = Graph::new();
    let x = cx.input((40, 64), DType::F32).set(numbers(40 * 64, 1));
    let computed = cx.input((64, 64), DType::F32).set(numbers(64 * 64, 2));
    let state = cx.input((64, 64), DType::F32).set(numbers(64 * 64, 3));
    let half = cx.input((64, 64), DType::F16).set(numbers(64 * 64, 4));
    let few = cx.input((64, 64), DType::F32).set(numbers(64 * 64, 5));
    state.assign(state * 1.0);
    let _kept = [
        x.matmul((computed + 1.0).contiguous()),
        x.matmul(state),
        x.matmul(half.cast(DType::F32)),
        // Both operands are one.
        few.matmul(few),
        // Never many rows.
        x.slice((..8, ..)).matmul(few),
    ]
    .map(|y| y.retrieve());
    cx.compile((Generic, packing("native")), ());
    cx.execute();
    assert_eq!(cx.stats().packings, 0);
}

#[test]
fn products_with_the_same_weights_share_packed_ones() {
    let (n, k) = (48, 40);
    let mut cx = Graph::new();
    let (a, b) = (numbers(50 * k, 1), numbers(60 * k, 2));
    let weights = numbers(n * k, 3);
    let x = cx.input((50, k), DType::F32).set(a.clone());
    let z = cx.input((60, k), DType::F32).set(b.clone());
    let w = cx.input((n, k), DType::F32).set(weights.clone());
    let first = x.matmul(w.transpose(0, 1)).retrieve();
    let second = z.matmul(w.transpose(0, 1)).retrieve();
    cx.compile((Generic, packing("native")), ());
    cx.execute();
    assert_eq!(cx.stats().packings, 1);
    assert_eq!(first.data(), product(&a, &weights, k));
    assert_eq!(second.data(), product(&b, &weights, k));
}

#[test]
fn packed_weights_are_found_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let (n, k) = (70, 533);
    let weights = numbers(n * k, 1);
    let first = |weights: &[f32]| {
        let compiler = packing("native").packed_folder(folder.path());
        let mut net = Net::new("native", compiler, (n, k), DType::F32);
        net.w.set(weights.to_vec());
        let counts = net.check(40, weights);
        assert_eq!(net.check(40, weights), (0, 0));
        counts
    };
    let files = || -> Vec<_> {
        let entries = fs::read_dir(folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    assert_eq!(first(&weights), (1, 0), "packed");
    assert_eq!(first(&weights), (1, 1), "read");
    let [file] = &files()[..] else {
        panic!("{:?}", files())
    };
    let damage = |file: &Path| {
        let mut bytes = fs::read(file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::remove_file(file).unwrap();
        fs::write(file, bytes).unwrap();
    };
    damage(file);
    assert_eq!(first(&weights), (1, 0), "a damaged file is a miss");
    assert_eq!(first(&weights), (1, 1), "and was replaced");
    assert_eq!(first(&numbers(n * k, 2)), (1, 0), "other weights");
    assert_eq!(files().len(), 2);
}

#[test]
fn bits_do_not_depend_on_threads() {
    let (n, k) = (300, 700);
    let run = |threads: usize| {
        let mut net = Net::new("native", packing("native"), (n, k), DType::F32);
        net.cx.set_threads(threads);
        net.w.set(numbers(n * k, 1));
        let x = numbers(64 * k, 2);
        net.x.set(x);
        net.cx.set_dim('s', 64);
        net.cx.execute();
        assert_eq!(net.cx.stats().packings, 1);
        net.y.data()
    };
    let one = run(1);
    assert_eq!(one, product(&numbers(64 * k, 2), &numbers(n * k, 1), k));
    for threads in [2, 3] {
        assert_eq!(run(threads), one);
    }
}

/// Sixteen partial sums, added up pairwise: the order of dot products.
fn striped(x: &[f32], w: &[f32], k: usize) -> Vec<f32> {
    let dot = |x: &[f32], w: &[f32]| {
        let mut sums = [0f32; 16];
        for (i, (a, b)) in x.iter().zip(w).enumerate() {
            sums[i % 16] = a.mul_add(*b, sums[i % 16]);
        }
        for half in [8, 4, 2, 1] {
            (0..half).for_each(|i| sums[i] += sums[i + half]);
        }
        sums[0]
    };
    let rows = x.chunks(k);
    rows.flat_map(|x| w.chunks(k).map(move |w| dot(x, w)))
        .collect()
}

#[test]
fn few_long_rows_are_dot_products_and_short_ones_are_not() {
    for cpu in TARGETS {
        for (m, k, is_dots) in [
            (16, 512, true),
            (16, 511, false),
            (5, 160, true),
            (5, 33, false),
        ] {
            let n = 70;
            let mut net = Net::new(cpu, LlvmCpu::for_cpu(cpu), (n, k), DType::F32);
            let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
            let (chain, stripes) = (product(&x, &w, k), striped(&x, &w, k));
            assert_ne!(chain, stripes, "the order can be told");
            net.x.set(x);
            net.w.set(w);
            net.cx.set_dim('s', m);
            net.cx.execute();
            let expected = if is_dots { stripes } else { chain };
            assert_eq!(net.y.data(), expected, "{m} x {n} x {k} on {cpu}");
        }
    }
}

/// `x`, and `relu(x wᵀ + b)` or `gelu(x gᵀ) * (x uᵀ)`, for any number of rows; the weights are `[n, k]`.
fn mapped(cx: &mut Graph, (n, k): (usize, usize), dtype: DType, gated: bool) -> [GraphTensor; 2] {
    let x = cx.input(('s', k), DType::F32);
    let product = |cx: &mut Graph, seed: usize| {
        let w = cx.input((n, k), dtype).set(numbers(n * k, seed));
        x.matmul(w.cast(DType::F32).transpose(0, 1))
    };
    let y = product(cx, 1);
    let bias = cx.input(n, DType::F32).set(numbers(n, 3));
    let y = match gated {
        true => y.gelu() * product(cx, 2),
        false => (y + bias.expand(('s', n))).relu(),
    };
    [x, y]
}

#[test]
fn products_in_one_kernel_with_a_map_have_their_weights_packed_once() {
    let (n, k) = (133, 533);
    let rows = [40, 40, 1, 7, 100, 1500];
    for (cpu, dtype, gated) in TARGETS.into_iter().flat_map(|cpu| {
        let dtypes = [DType::F32, DType::BF16];
        let all = dtypes.map(|dtype| [(cpu, dtype, false), (cpu, dtype, true)]);
        all.into_iter().flatten()
    }) {
        let rows = if cpu == "scalar" { &rows[..5] } else { &rows };
        let run = |packs: bool, threads: usize| {
            let mut cx = Graph::new();
            let [x, y] = mapped(&mut cx, (n, k), dtype, gated);
            y.retrieve();
            cx.set_threads(threads);
            cx.compile((Generic, LlvmCpu::for_cpu(cpu).pack_weights(packs)), ());
            let each = rows.iter().map(|&m| {
                x.set(numbers(m * k, m));
                cx.set_dim('s', m);
                cx.execute();
                let stats = cx.stats();
                assert_eq!(stats.steps, 1, "{cpu}: one kernel");
                (stats.packings, y.data())
            });
            each.unzip::<usize, Vec<f32>, Vec<_>, Vec<_>>()
        };
        let (packings, plain) = run(false, 1);
        assert!(packings.iter().all(|&count| count == 0));
        for threads in [1, 2] {
            let (packings, packed) = run(true, threads);
            let first = if gated { 2 } else { 1 };
            assert_eq!(packings[0], first, "{cpu} {dtype} {gated}");
            assert!(
                packings[1..].iter().all(|&count| count == 0),
                "{packings:?}"
            );
            assert!(packed == plain, "{cpu} {dtype} {gated} {threads}");
        }
    }
}

#[test]
fn a_pair_of_products_is_packed_once_only_if_both_weights_are_constants() {
    for other in ["constant", "state", "computed"] {
        let mut cx = Graph::new();
        let x = cx.input((40, 64), DType::F32).set(numbers(40 * 64, 1));
        let gate = cx.input((48, 64), DType::F32).set(numbers(48 * 64, 2));
        let up = cx.input((48, 64), DType::F32).set(numbers(48 * 64, 3));
        if other == "state" {
            up.assign(up * 1.0);
        }
        let up = match other {
            "computed" => (up + 1.0).contiguous(),
            _ => up,
        };
        let [gate, up] = [gate, up].map(|w| x.matmul(w.transpose(0, 1)));
        let _kept = (gate.gelu() * up).retrieve();
        cx.compile((Generic, packing("native")), ());
        cx.execute();
        let expected = if other == "constant" { 2 } else { 0 };
        assert_eq!(cx.stats().packings, expected, "{other}");
    }
}

/// Weights in blocks that are many are read as they are at first, then packed a part at a time, with the same results.
#[test]
fn many_weights_in_blocks_do_not_keep_the_first_execution_waiting() {
    use brain_blitz::blocks::BlockType;
    use brain_blitz::op::ActivationScheme;
    let (ty, n, k) = (BlockType::Q8_0, 6400, 4096);
    let mut cx = Graph::new();
    let x = cx.input(('s', k), DType::F32).set(numbers(2 * k, 1));
    let rounded = x.fake_quantize(ActivationScheme::A8G32);
    let results: Vec<GraphTensor> = (0u8..3)
        .map(|i| {
            // Scales of one, other numbers in each.
            let block = |at: usize| match at % 34 {
                0 => 0,
                1 => 0x3c,
                _ => (at % 113) as u8 ^ i,
            };
            let w = cx.input((n, k / 32 * 34), DType::U8);
            w.set((0..n * k / 32 * 34).map(block).collect::<Vec<u8>>());
            rounded
                .matmul(w.dequantize(ty).transpose(0, 1))
                .slice_axis(1, usize::from(i), n)
                .retrieve()
        })
        .collect();
    cx.set_dim('s', 2);
    cx.compile((Generic, LlvmCpu::default()), ());
    let executed = |cx: &mut Graph| {
        cx.execute();
        let stats = cx.stats();
        let values: Vec<Vec<f32>> = results.iter().map(|y| y.data()).collect();
        ((stats.packings, stats.packings_waiting), values)
    };
    let (counts, first) = executed(&mut cx);
    assert_eq!((counts, cx.stats().packed_bytes), ((0, 3), 0));
    assert!(first[0].iter().any(|y| *y != 0.0) && first[0][1..] != first[1][..n - 1]);
    for expected in [(2, 1), (1, 0), (0, 0)] {
        let (counts, values) = executed(&mut cx);
        assert_eq!(counts, expected);
        assert!(values == first);
    }
    cx.try_prepare().unwrap();
    assert_eq!(executed(&mut cx).0, (0, 0));
}
