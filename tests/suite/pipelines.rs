//! The pipelines that every test of the suite runs on.

use brain_blitz::compilers::Report;
use brain_blitz::prelude::*;

/// A way to compile a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipeline {
    /// No compiler at all: the definition.
    Reference,
    /// Machine-independent rewrites.
    Generic,
    /// Native code for this target; `None` is what `LlvmCpu::default()` chooses.
    #[cfg(feature = "llvm-backend")]
    Llvm(&'static str),
}

impl Pipeline {
    /// All that this machine can run.
    pub fn all() -> Vec<Pipeline> {
        #[allow(unused_mut)]
        let mut all = vec![Pipeline::Reference, Pipeline::Generic];
        #[cfg(feature = "llvm-backend")]
        for cpu in ["scalar", "x86-64-v3", "x86-64-v4", "native"] {
            let runs = brain_blitz::compilers::llvm_cpu::Target::for_cpu(cpu)
                .is_ok_and(|target| target.can_run_here());
            if runs {
                all.push(Pipeline::Llvm(cpu));
            } else {
                println!("skipped: this machine cannot run {cpu}");
            }
        }
        all
    }

    pub fn is_native(self) -> bool {
        !matches!(self, Pipeline::Reference | Pipeline::Generic)
    }

    pub fn compile(self, cx: &mut Graph) -> Report {
        match self {
            Pipeline::Reference => Report::default(),
            Pipeline::Generic => cx.compile(Generic, ()),
            #[cfg(feature = "llvm-backend")]
            Pipeline::Llvm(cpu) => cx.compile((Generic, LlvmCpu::for_cpu(cpu)), ()),
        }
    }
}
