//! The first steps: record a graph, compile it, run it, change its input, run it again.
//!
//!     cargo run --release --example quickstart

use brain_blitz::nn::{Linear, Module};
use brain_blitz::prelude::*;

fn main() {
    // Shapes that rustc checks: a product of tensors that do not fit does not compile.
    let mut cx = Graph::new();
    let a = cx.tensor::<R2<3, 1>>().set([[1.0], [2.0], [3.0]]);
    let b = cx.tensor::<R2<1, 4>>().set([[1.0, 2.0, 3.0, 4.0]]);
    let mut c = a.matmul(b).retrieve();
    compile(&mut cx, &mut c);
    cx.execute();
    println!("{c:?}");

    // The same graph with other numbers: nothing is compiled again.
    a.set([[10.0], [20.0], [30.0]]);
    cx.execute();
    println!("{c:?}");

    // A layer over a batch whose size is only known when executing.
    let mut cx = Graph::new();
    let layer = Linear::new(&mut cx, 2, 3, true);
    for (name, parameter) in layer.parameters().iter() {
        println!("{name}: {}", parameter.ty());
    }
    layer.weight.set([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]);
    layer.bias.expect("made with a bias").set([0.0, 0.0, 0.5]);
    let x = cx.input(('s', 2), DType::F32);
    let mut y = layer.forward(x).relu().retrieve();
    compile(&mut cx, &mut y);
    for rows in [vec![1.0, -1.0], vec![1.0, 2.0, 3.0, 4.0]] {
        cx.set_dim('s', rows.len() / 2);
        x.set(rows);
        cx.execute();
        println!("{y:?}");
    }
}

/// Machine code for this CPU, or the reference executor when the crate is built without LLVM.
fn compile(cx: &mut Graph, keep: &mut GraphTensor<impl brain_blitz::graph::Shape>) {
    #[cfg(feature = "llvm-backend")]
    let report = cx.compile(<(Generic, LlvmCpu)>::default(), keep);
    #[cfg(not(feature = "llvm-backend"))]
    let report = cx.compile(Generic, keep);
    println!(
        "{} nodes became {}",
        report.nodes_before, report.nodes_after
    );
}
