//! `LlvmCpu` in a build without LLVM: compiles nothing, and says so.
//!
//! Programs that name [`LlvmCpu`] build and run either way; without the `llvm` feature everything runs on the
//! reference executor.

use super::{Compiler, Math, Pass, PassList, Report};
use crate::error::{Error, Result};
use crate::graph::{Dag, Patch};

/// Compiles a graph to native code, in builds with the `llvm` feature. This build has none: the graph stays on the
/// reference executor, and the report says so.
#[derive(Clone, Debug, Default)]
pub struct LlvmCpu {
    cpu: Option<String>,
}

impl LlvmCpu {
    /// For the machine that this runs on.
    pub fn native() -> LlvmCpu {
        LlvmCpu::default()
    }

    /// For a named machine: an error when compiling, since this build has no code generator.
    pub fn for_cpu(name: impl Into<String>) -> LlvmCpu {
        LlvmCpu {
            cpu: Some(name.into()),
        }
    }

    /// How functions are computed by code, of which this build makes none.
    pub fn math(self, _: Math) -> LlvmCpu {
        self
    }
}

struct Absent {
    cpu: Option<String>,
}

impl Pass for Absent {
    fn name(&self) -> &str {
        "codegen"
    }

    fn run(&self, _: &Dag) -> Result<Patch> {
        match &self.cpu {
            Some(cpu) if cpu != "native" => Err(Error::msg(format!(
                "built without LLVM, so there is no code for `{cpu}`: build with `--features llvm`"
            ))),
            _ => Ok(Patch::new()),
        }
    }

    fn notes(&self) -> Vec<String> {
        vec!["built without LLVM: everything runs on the reference executor".into()]
    }
}

impl Compiler for LlvmCpu {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        list.push(Absent {
            cpu: self.cpu.clone().or_else(crate::knobs::cpu),
        });
    }
}
