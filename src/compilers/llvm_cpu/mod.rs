//! The LLVM back end for CPUs.
//!
//! The pipeline, in order:
//! 1. [`materialize`]: operands that must lie in memory are written out;
//! 2. [`layout`]: factors of products whose steps lie apart are written out in rows; equal copies become one;
//! 3. [`contraction`]: sums of products that are matrix products become one kernel node;
//! 4. [`fusion`]: everything else is grouped into kernel nodes; reductions over the same [`rows`] share one;
//! 5. [`attention`]: two products with rows between them become one kernel, whose scores are never all in memory;
//! 6. [`epilogue`]: products and the elementwise kernel that alone reads them become one;
//! 7. [`codegen`]: kernel nodes get machine code, equal ones the same.
//!
//! A kernel is lowered from its steps: [`nest`] builds the loop IR ([`ir`]), [`lower`] turns that into LLVM IR with
//! explicit vectors; matrix products go through [`gemm`]. [`target`] describes the machine, [`jit`] compiles and
//! links, [`cache`] keeps objects on disk, [`code`] is what the executor calls, [`mod@sequence`] makes one function of a
//! small graph's kernels. [`limits`] measures what the machine can do at best.
//!
//! What has no machine code runs on the reference executor, and the compilation's report says which and why.

pub mod attention;
pub mod cache;
pub mod code;
pub mod codegen;
pub mod contraction;
pub mod emit;
mod emit_masked;
pub mod emit_view;
pub mod epilogue;
pub mod forget_gradients;
pub mod fusion;
pub mod gemm;
pub mod ir;
pub mod jit;
pub mod layout;
pub mod limits;
pub mod lower;
pub mod machine;
pub mod materialize;
pub mod nest;
pub mod rows;
pub mod sequence;
pub mod target;
pub mod vmath;

#[cfg(all(feature = "llvm19", not(feature = "llvm22")))]
use llvm_sys_19 as llvm_sys;
#[cfg(feature = "llvm22")]
use llvm_sys_22 as llvm_sys;

pub use target::Target;

use super::{Compiler, PassList, Report};
use crate::error::Result;

/// Compiles a graph to native code.
///
/// ```
/// use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
/// let y = (x.exp() * 2.0).retrieve();
/// let report = cx.compile(<(Generic, LlvmCpu)>::default(), ());
/// cx.execute();
/// assert_eq!(cx.stats().steps, 1, "one fused kernel: {report}");
/// assert!((y.data()[0] - 5.436_563_5).abs() < 1e-6);
/// ```
#[derive(Clone, Debug, Default)]
pub struct LlvmCpu {
    cpu: Option<String>,
    emit_only: bool,
}

impl LlvmCpu {
    /// For the machine that this runs on; `BB_CPU` overrides it.
    pub fn native() -> LlvmCpu {
        LlvmCpu::default()
    }

    /// For a named machine: `native`, `scalar`, `x86-64-v3`, `x86-64-v4`, `sapphirerapids`, `znver4` or any CPU that
    /// LLVM knows. The name is checked when compiling.
    pub fn for_cpu(name: impl Into<String>) -> LlvmCpu {
        LlvmCpu {
            cpu: Some(name.into()),
            emit_only: false,
        }
    }

    /// One element at a time.
    pub fn scalar() -> LlvmCpu {
        LlvmCpu::for_cpu("scalar")
    }

    /// Generates the code but does not use it: for machines whose instructions this one lacks.
    pub fn emit_only(self) -> LlvmCpu {
        LlvmCpu {
            emit_only: true,
            ..self
        }
    }

    fn target(&self) -> Result<Target> {
        match self.cpu.clone().or_else(crate::knobs::cpu).as_deref() {
            None | Some("native") => Ok(Target::native()),
            Some(name) => Target::for_cpu(name),
        }
    }
}

impl Compiler for LlvmCpu {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        list.push(forget_gradients::ForgetGradients);
        list.push(super::generic::DeadCode);
        list.push(materialize::Materialize);
        list.push(layout::Layout);
        list.push(super::generic::Cse);
        list.push(contraction::ContractionPass);
        list.push(fusion::Fusion);
        list.push(super::generic::DeadCode);
        list.push(attention::Attention);
        list.push(super::generic::DeadCode);
        list.push(epilogue::Epilogue);
        list.push(super::generic::DeadCode);
        list.push(codegen::Codegen::new(self.target(), self.emit_only));
    }
}
