//! What llvm-mca says of the innermost loops, for machines that need not be here: a table in Markdown.
//!
//! `cargo bench --bench mca > benches/results/mca.md`. Needs llvm-mca of the same LLVM on PATH (Debian: llvm-22).
//!
//! A row is the hottest loop of one kernel for one machine: vector registers, multiply-adds (of products of signs the
//! instructions that count or look up), instructions that touch the stack, and the cycles that one turn takes in LLVM's
//! model of that machine, in steady state and with all loads in the first cache.

use std::io::Write;
use std::process::{Command, Stdio};

use brain_blitz::blocks::BlockType;
use brain_blitz::compilers::llvm_cpu::attention::parts_of;
use brain_blitz::compilers::llvm_cpu::blocks::form::{Dots, Form};
use brain_blitz::compilers::llvm_cpu::blocks::ir::{BlockProduct, Part};
use brain_blitz::compilers::llvm_cpu::contraction::contraction_of;
use brain_blitz::compilers::llvm_cpu::gemm::CompiledGemm;
use brain_blitz::compilers::llvm_cpu::gemm::asm::{HotLoop, hot_loop, hot_loop_of, is_fused};
use brain_blitz::compilers::llvm_cpu::gemm::micro::Tile;
use brain_blitz::compilers::llvm_cpu::lower;
use brain_blitz::compilers::llvm_cpu::nest::nest_of;
use brain_blitz::compilers::llvm_cpu::target::Target;
use brain_blitz::compilers::llvm_cpu::{binary, blocks};
use brain_blitz::op::{ActivationScheme, Kernel, Op};
use brain_blitz::prelude::*;

const TARGETS: [(&str, &str); 4] = [
    ("znver3", "ymm"),
    ("znver4", "zmm"),
    ("sapphirerapids", "zmm"),
    ("icelake-server", "zmm"),
];

type Build = fn(&mut Graph) -> GraphTensor;

const FAMILIES: [(&str, Build); 7] = [
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
    ("weights of attention", |cx| {
        let [q, k, v] = [0; 3].map(|_| cx.input((8, 1024, 64), DType::F32));
        q.matmul(k.transpose(-1, -2)).softmax(-1).matmul(v)
    }),
];

/// Products with weights in blocks.
const BLOCKS: [BlockType; 4] = [
    BlockType::Q8_0,
    BlockType::Q4_0,
    BlockType::Q4_K,
    BlockType::Q1_0,
];

/// Products of signs: what a kernel's name has in it, and the instructions that count.
const SIGNS: [(&str, &str, &[&str]); 2] = [
    (
        "signs times signs",
        "_numbers_",
        &["vpopcntq", "vpopcntd", "vpopcntb", "vpshufb", "vpsadbw"],
    ),
    (
        "signs times bytes, one row",
        "signs_lookup",
        &["vpshufb", "vpermb"],
    ),
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
    let nest = match parts_of(kernel) {
        Some(parts) => parts.nest,
        None => nest_of(kernel).ok()?,
    };
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

/// Whether a line has one of these instructions.
fn has<'a>(instructions: &'a [&str]) -> impl Fn(&str) -> bool + 'a {
    |line| {
        let first = line.split_whitespace().next();
        first.is_some_and(|first| instructions.contains(&first))
    }
}

/// The first kernel in some assembly whose name has this in it.
fn first_symbol<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    let label = text
        .lines()
        .find(|line| line.ends_with(':') && !line.starts_with('.') && line.contains(part))?;
    label.split(':').next()
}

/// What a product with blocks is computed by: a part of its kernel's name, and the instruction.
fn by(ty: BlockType, target: &Target) -> (String, &'static str) {
    let form = Form::of(ty).expect("a type with kernels");
    let tile = format!("blocks_{}_", ty.name());
    match Dots::of(target, &form) {
        Dots::Vnni => (tile, "vpdpbusd"),
        Dots::Pairs if form.is_signs() => (format!("block_lookup_{}_2x2x", ty.name()), "vpshufb"),
        Dots::Pairs => (tile, "vpmaddubsw"),
        Dots::Words | Dots::Plain => (tile, "vpmaddwd"),
    }
}

/// The loop of a product with blocks over many rows.
fn of_blocks(ty: BlockType, target: &Target) -> Option<HotLoop> {
    let product = BlockProduct {
        ty,
        scheme: ActivationScheme::for_weights(ty),
        m: 128.into(),
        k: 2304,
        activations: 0,
        parts: [Part {
            weights: 1,
            n: 2304,
        }]
        .into_iter()
        .collect(),
    };
    let text = blocks::compiled::assembly(&product, target).ok()?;
    let (name, instruction) = by(ty, target);
    let hot = hot_loop_of(&text, first_symbol(&text, &name)?, has(&[instruction]))?;
    // Loops over fours or groups are inside that over blocks.
    let inside: Vec<&str> = hot.text.lines().skip(1).collect();
    let inside = inside[..inside.len() - 1].join("\n");
    let inner = hot_loop_of(&format!("f:\n{inside}"), "f", has(&[instruction]));
    Some(inner.unwrap_or(hot))
}

/// A loop's row of the table.
fn print(
    family: &str,
    cpu: &str,
    hot: Option<HotLoop>,
    count: impl Fn(&HotLoop) -> (usize, &'static str),
) {
    let Some(hot) = hot else {
        return println!("| {family} | {cpu} | no loop | | | |");
    };
    let (count, register) = count(&hot);
    let (turn, rate) = match cycles(&hot, cpu) {
        Some(turn) => (format!("{turn:.1}"), format!("{:.2}", count as f64 / turn)),
        None => ("llvm-mca is missing".into(), String::new()),
    };
    println!(
        "| {family} | {cpu} | {count} {register} | {} | {turn} | {rate} |",
        hot.spills()
    );
}

fn main() {
    println!(
        "| kernel | machine | multiply-adds | stack | cycles a turn | multiply-adds a cycle |"
    );
    println!("|---|---|---|---|---|---|");
    let each = |print: &dyn Fn(&'static str, &'static str, &Target)| {
        for (cpu, register) in TARGETS {
            let target = Target::for_cpu(cpu).expect("LLVM knows these machines");
            print(cpu, register, &target);
        }
    };
    for (family, build) in FAMILIES {
        each(&|cpu, register, target| {
            let loops = kernels(build, cpu).into_iter();
            let loops = loops.filter_map(|kernel| hottest(&kernel, target));
            let hot = loops.max_by_key(|hot| hot.fused(register));
            print(family, cpu, hot, |hot| {
                (hot.count(is_fused, register), register)
            });
        });
    }
    for ty in BLOCKS {
        each(&|cpu, register, target| {
            let family = format!("{ty} times rows");
            let hot = of_blocks(ty, target);
            print(&family, cpu, hot, |hot| {
                (hot.count(has(&[by(ty, target).1]), register), register)
            });
        });
    }
    for (family, name, instructions) in SIGNS {
        each(&|cpu, register, target| {
            let text = binary::code::assembly(target).ok();
            let hot = text.and_then(|text| {
                let symbol = first_symbol(&text, name)?;
                hot_loop_of(&text, symbol, has(instructions))
            });
            print(family, cpu, hot, |hot| {
                let counts =
                    [register, "ymm"].map(|kind| (hot.count(has(instructions), kind), kind));
                counts
                    .into_iter()
                    .max_by_key(|(count, _)| *count)
                    .expect("two kinds")
            });
        });
    }
}
