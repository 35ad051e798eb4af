//! Looking at a graph before and after compiling.
//!
//! `cargo run --example display -- FOLDER` writes `recorded.svg`, `compiled.svg` and `graph.html` there (default: the
//! current folder). The pictures in the README are made this way.

use std::path::PathBuf;

use brain_blitz::graph::layered_svg;
use brain_blitz::nn::Linear;
use brain_blitz::prelude::*;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| ".".into()));
    let mut cx = Graph::new();
    let x = cx.input(('s', 8), DType::F32).set_name("x");
    let hidden = Linear::new(&mut cx, 8, 16, true);
    let output = Linear::new(&mut cx, 16, 4, true);
    let y = output.forward(hidden.forward(x).relu()).retrieve();

    let recorded = cx.inspect(layered_svg);
    cx.compile(<(Generic, LlvmCpu)>::default(), y);
    let compiled = cx.inspect(layered_svg);

    for (name, svg) in [("recorded.svg", recorded), ("compiled.svg", compiled)] {
        let path = folder.join(name);
        std::fs::write(&path, svg).map_err(|source| Error::Io { path, source })?;
    }
    cx.save_display(folder.join("graph.html"))?;
    cx.display();
    Ok(())
}
