//! What llvm-mca says of the innermost loops, for machines that need not be here: a table in Markdown.
//!
//! `cargo bench --bench mca > benches/results/mca.md`. Needs llvm-mca of the same LLVM on PATH (Debian: llvm-22).
//!
//! A row is the hottest loop of one kernel for one machine: vector registers, multiply-adds, instructions that touch
//! the stack, and the cycles that one turn takes in LLVM's model of that machine, in steady state and with all loads in
//! the first cache.

use std::io::Write;
use std::process::{Command, Stdio};

use brain_blitz::compilers::llvm_cpu::contraction::contraction_of;
use brain_blitz::compilers::llvm_cpu::gemm::CompiledGemm;
use brain_blitz::compilers::llvm_cpu::gemm::asm::{HotLoop, hot_loop};
use brain_blitz::compilers::llvm_cpu::gemm::micro::Tile;
use brain_blitz::compilers::llvm_cpu::lower;
use brain_blitz::compilers::llvm_cpu::nest::nest_of;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::op::{Kernel, Op};
use brain_blitz::prelude::*;

const TARGETS: [(&str, &str); 4] = [
    ("znver3", "ymm"),
    ("znver4", "zmm"),
    ("sapphirerapids", "zmm"),
    ("icelake-server", "zmm"),
];

type Build = fn(&mut Graph) -> GraphTensor;

const FAMILIES: [(&str, Build); 6] = [
    ("matrix product", |cx| {
        let (a, b) = (
            cx.input((512, 512), DType::F32),
            cx.input((512, 512), DType::F32),
        );
        a.matmul(b)
    }),
    ("matvec f32", |cx| matvec(cx, DType::F32)),
    ("matvec bf16", |cx| matvec(cx, DType::BF16)),
    ("gelu(x * w + b) * sigmoid(z)", |cx| {
        let [x, w, b, z] = [0; 4].map(|_| cx.input((1024, 1024), DType::F32));
        (x * w + b).gelu() * z.sigmoid()
    }),
    ("softmax", |cx| {
        cx.input((1024, 1024), DType::F32).softmax(-1)
    }),
    ("rms norm", |cx| {
        cx.input((1024, 1024), DType::F32).rms_norm(-1, None, 1e-6)
    }),
];

fn matvec(cx: &mut Graph, dtype: DType) -> GraphTensor {
    let (x, w) = (
        cx.input((1, 2304), DType::F32),
        cx.input((9216, 2304), dtype),
    );
    x.matmul(w.cast(DType::F32).transpose(0, 1))
}

fn kernels(build: Build, cpu: &str) -> Vec<Kernel> {
    let mut cx = Graph::new();
    build(&mut cx).retrieve();
    cx.compile((Generic, LlvmCpu::for_cpu(cpu).emit_only()), ());
    cx.inspect(|dag| {
        let kernels = dag.ids().filter_map(|id| match &dag.node(id).op {
            Op::Kernel(kernel) => Some((**kernel).clone()),
            _ => None,
        });
        kernels.collect()
    })
}

/// The loop of a kernel with the most multiply-adds.
fn hottest(kernel: &Kernel, target: &Target) -> Option<HotLoop> {
    let nest = nest_of(kernel).ok()?;
    if let Some(product) = contraction_of(kernel)
        && nest.space.iter().all(|dim| !dim.is_one())
    {
        let tile = Tile::of(target);
        let text = CompiledGemm::assembly(&product, target).ok()?;
        return hot_loop(&text, &tile.symbol((tile.rows, tile.vectors), target));
    }
    let text = lower::assembly(&nest, target).ok()?;
    let label = text.lines().find(|line| line.starts_with("nest_"))?;
    hot_loop(&text, label.split(':').next()?)
}

/// Cycles of one turn of a loop.
fn cycles(hot: &HotLoop, cpu: &str) -> Option<f64> {
    let mut child = Command::new("llvm-mca-22")
        .args([&format!("-mcpu={cpu}"), "-iterations=100"])
        .args(["--instruction-info=0", "--resource-pressure=0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = child.stdin.take()?;
    input.write_all(hot.text.as_bytes()).ok()?;
    drop(input);
    let output = child.wait_with_output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Total Cycles:"))?;
    line.trim().parse::<f64>().ok().map(|total| total / 100.0)
}

fn main() {
    println!(
        "| kernel | machine | multiply-adds | stack | cycles a turn | multiply-adds a cycle |"
    );
    println!("|---|---|---|---|---|---|");
    for (family, build) in FAMILIES {
        for (cpu, register) in TARGETS {
            let target = Target::for_cpu(cpu).expect("LLVM knows these machines");
            let loops = kernels(build, cpu)
                .into_iter()
                .filter_map(|k| hottest(&k, &target));
            let Some(hot) = loops.max_by_key(|hot| hot.fused(register)) else {
                println!("| {family} | {cpu} | no loop | | | |");
                continue;
            };
            let fused = hot.fused(register);
            let (turn, rate) = match cycles(&hot, cpu) {
                Some(turn) => (format!("{turn:.1}"), format!("{:.2}", fused as f64 / turn)),
                None => ("llvm-mca is missing".into(), String::new()),
            };
            println!(
                "| {family} | {cpu} | {fused} {register} | {} | {turn} | {rate} |",
                hot.spills()
            );
        }
    }
}
