//! Compiling a session's graph: for a machine, or for nobody but the reference executor.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::session::{Info, Options, Progress};
use crate::compilers::Report;
use crate::error::Result;
use crate::graph::Graph;
use crate::op::Op;

/// Compiles the graph for the machine that the options name, or leaves it to the reference executor.
pub(crate) fn compile(
    graph: &mut Graph,
    options: &Options,
    info: &mut Info,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<()> {
    if let Some(quant) = options.quant {
        progress(Progress::Compiling { pass: "quantize" });
        let report = quant.compile(graph, options.embedding, &options.calibration)?;
        let stored = report.stored.iter().map(|t| (t.bytes_before, t.bytes));
        let signed = report.signed.iter().map(|t| (t.bytes_before, t.bytes));
        for (before, after) in stored.chain(signed) {
            info.replaced(before, after);
        }
        info.report = report;
    }
    if options.cpu != "reference" {
        let before = std::mem::take(&mut info.report);
        info.report = compile_native(graph, options, progress)?;
        (info.report.stored, info.report.signed) = (before.stored, before.signed);
    }
    info.nodes_compiled = graph.n_nodes();
    (info.kernels, info.distinct_kernels) = graph.inspect(|dag| {
        let codes = dag.ids().filter_map(|id| match &dag.node(id).op {
            Op::Kernel(kernel) => kernel.code().map(Arc::as_ptr),
            _ => None,
        });
        let codes: Vec<_> = codes.map(<*const _>::cast::<u8>).collect();
        let distinct: BTreeSet<_> = codes.iter().collect();
        (codes.len(), distinct.len())
    });
    Ok(())
}

#[cfg(feature = "llvm-backend")]
fn compile_native(
    graph: &mut Graph,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report> {
    use crate::compilers::Generic;
    use crate::compilers::llvm_cpu::LlvmCpu;
    let machine = match options.cpu.as_str() {
        "native" => LlvmCpu::native(),
        name => LlvmCpu::for_cpu(name),
    };
    let mut machine = machine.math(options.math);
    if let Some(folder) = &options.packed {
        machine = machine.packed_folder(folder);
    }
    progress(Progress::Compiling { pass: "llvm-cpu" });
    if !options.tune {
        return graph.try_compile((Generic, machine), ());
    }
    // Compiled in another thread: what measuring tells comes from there, and `progress` stays in this one.
    let (sender, told) = std::sync::mpsc::channel();
    let machine = machine.tune(true).on_tuning(move |done, total| {
        // Nobody listens any more if this thread panicked.
        let _ = sender.send((done, total));
    });
    std::thread::scope(|scope| {
        let compiled = scope.spawn(|| graph.try_compile((Generic, machine), ()));
        for (done, total) in told {
            progress(Progress::Tuning { done, total });
        }
        match compiled.join() {
            Ok(report) => report,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

#[cfg(not(feature = "llvm-backend"))]
fn compile_native(
    _: &mut Graph,
    options: &Options,
    _: &mut dyn FnMut(Progress<'_>),
) -> Result<Report> {
    let cpu = &options.cpu;
    Err(crate::Error::msg(format!(
        "cannot compile for `{cpu}`: this program was built without LLVM; `reference` needs none"
    )))
}
