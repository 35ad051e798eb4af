//! The LLVM back end for CPUs.
//!
//! The pipeline, in order:
//! 1. [`forget_gradients`](super::forget_gradients): what only matters to gradients goes;
//! 1. [`materialize`]: operands that must lie in memory are written out;
//! 2. [`layout`]: factors of products whose steps lie apart are written out in rows; [`windows::border`]: the zeros
//!    around an image are; equal copies become one. Before that, gradients by images become products of windows
//!    ([`windows::shifted`]);
//! 3. [`contraction`]: sums of products that are matrix products become one kernel node;
//!    Products with weights in [`blocks`] do before, and those of the same activations ([`blocks::joint`]) one together;
//! 4. [`fusion`]: everything else is grouped into kernel nodes; reductions over the same [`rows`] share one;
//! 5. [`attention`]: two products with rows between them become one kernel, whose scores are never all in memory;
//! 6. [`epilogue`]: products and the elementwise kernel that alone reads them become one;
//! 7. [`codegen`]: kernel nodes get machine code, equal ones the same.
//!
//! A kernel is lowered from its steps: [`nest`] builds the loop IR ([`ir`]), whose dims [`refine`] takes apart where views do, [`lower`] turns that into LLVM IR with
//! explicit vectors; matrix products go through [`gemm`], those of small convolutions through [`windows`]. [`approx`] has tables and polynomials for functions that need
//! not be exact. [`target`] describes the machine, [`jit`] compiles and
//! links, [`packed`] chooses operands that are packed once, [`cache`] keeps objects on disk, [`code`] is what the
//! executor calls, [`mod@sequence`] makes one function of a
//! small graph's kernels. [`mod@tune`] chooses tiles and blocks of products by measurement. [`limits`] measures what the machine can do at best.
//!
//! What has no machine code runs on the reference executor, and the compilation's report says which and why.

pub mod approx;
pub mod attention;
pub mod binary;
pub mod blocks;
pub mod cache;
pub mod code;
pub mod codegen;
pub mod contraction;
pub mod emit;
mod emit_masked;
pub mod emit_view;
pub mod epilogue;
pub mod fusion;
pub mod gemm;
pub mod ir;
pub mod jit;
pub mod layout;
pub mod limits;
pub mod lower;
pub mod machine;
mod make;
pub mod materialize;
pub mod nest;
mod once;
pub mod packed;
pub mod refine;
pub mod rows;
pub mod sequence;
pub mod target;
pub mod tune;
pub mod vmath;
pub mod windows;
mod work;

#[cfg(all(feature = "llvm19", not(feature = "llvm22")))]
use llvm_sys_19 as llvm_sys;
#[cfg(feature = "llvm22")]
use llvm_sys_22 as llvm_sys;

use std::path::PathBuf;

pub use target::Target;

use self::packed::Packs;
use self::tune::{Records, Told, Tuning};
use super::{Compiler, Math, PassList, Report};
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
    pack_weights: Option<bool>,
    packed_folder: Option<PathBuf>,
    records: Option<PathBuf>,
    tunes: bool,
    math: Math,
    told: Option<Told>,
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
            ..LlvmCpu::default()
        }
    }

    /// One element at a time.
    pub fn scalar() -> LlvmCpu {
        LlvmCpu::for_cpu("scalar")
    }

    /// For the machine that this runs on, measuring once with which tile and blocks each matrix product is computed: see
    /// [`mod@tune`]. Records of that are kept beside compiled objects, and every `LlvmCpu` uses them.
    pub fn tuned() -> LlvmCpu {
        LlvmCpu::native().tune(true)
    }

    /// Whether products without a record are measured, as [`LlvmCpu::tuned`] does. Off by default; `BB_TUNE` changes the
    /// default.
    pub fn tune(self, on: bool) -> LlvmCpu {
        LlvmCpu { tunes: on, ..self }
    }

    /// Tells `told` how many products of how many were measured: before the first, and after each.
    ///
    /// ```
    /// use brain_blitz::prelude::*;
    /// use std::sync::{Arc, Mutex};
    /// let mut cx = Graph::new();
    /// let x = cx.input((40, 8), DType::F32).set(vec![1.0; 320]);
    /// let y = x.matmul(cx.input((8, 16), DType::F32).set(vec![1.0; 128])).retrieve();
    /// let steps = Arc::new(Mutex::new(vec![]));
    /// let told = steps.clone();
    /// let folder = std::env::temp_dir().join(format!("records-{}", std::process::id()));
    /// let tuned = LlvmCpu::tuned().records_in(&folder);
    /// cx.compile((Generic, tuned.on_tuning(move |done, all| told.lock().unwrap().push((done, all)))), ());
    /// assert_eq!(*steps.lock().unwrap(), [(0, 1), (1, 1)]);
    /// # std::fs::remove_dir_all(folder).unwrap();
    /// ```
    pub fn on_tuning(self, told: impl Fn(usize, usize) + Send + Sync + 'static) -> LlvmCpu {
        LlvmCpu {
            told: Some(Told(std::sync::Arc::new(told))),
            ..self
        }
    }

    /// Keeps records of measurements in another folder.
    pub fn records_in(self, folder: impl Into<PathBuf>) -> LlvmCpu {
        LlvmCpu {
            records: Some(folder.into()),
            ..self
        }
    }

    /// Generates the code but does not use it: for machines whose instructions this one lacks.
    pub fn emit_only(self) -> LlvmCpu {
        LlvmCpu {
            emit_only: true,
            ..self
        }
    }

    /// Whether constant right operands of matrix products are packed once and kept: products with many rows do not pack
    /// them at every execution then. See [`packed`] for which these are and what memory it takes. Off by default;
    /// `BB_PACK` changes the default.
    ///
    /// ```
    /// use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input(('s', 2), DType::F32).set([[1.0, 2.0], [0.0, 1.0]]);
    /// let w = cx.input((2, 5), DType::F32).set([[1.0, 3.0, 5.0, 7.0, 9.0], [2.0; 5]]);
    /// let y = x.matmul(w).retrieve();
    /// cx.compile((Generic, LlvmCpu::native().pack_weights(true)), ());
    /// cx.set_dim('s', 2);
    /// cx.execute();
    /// assert_eq!((&y.data()[..5], cx.stats().packings), (&[5.0, 7.0, 9.0, 11.0, 13.0][..], 1));
    /// cx.execute();
    /// assert_eq!(cx.stats().packings, 0, "nothing changed");
    /// ```
    pub fn pack_weights(self, on: bool) -> LlvmCpu {
        LlvmCpu {
            pack_weights: Some(on),
            ..self
        }
    }

    /// Keeps packed operands in files of this folder, which are mapped the next time instead of packing again: weights in
    /// blocks, and what [`LlvmCpu::pack_weights`] packs. Their names are made from their contents. Nobody removes them.
    /// Off by default; `BB_PACK_DIR` changes the default.
    pub fn packed_folder(self, folder: impl Into<PathBuf>) -> LlvmCpu {
        LlvmCpu {
            packed_folder: Some(folder.into()),
            ..self
        }
    }

    /// How exponentials, activations and inverse roots are computed: see [`crate::compilers::math`] for what the modes
    /// change and by how much. Exactly, by default.
    ///
    /// ```
    /// use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let y = x.exp().retrieve();
    /// cx.compile((Generic, LlvmCpu::native().math(Math::Approx)), ());
    /// cx.execute();
    /// let error = (f64::from(y.data()[2]) / 3f64.exp() - 1.0).abs();
    /// assert!((1e-6..1.1e-4).contains(&error), "{error:e}");
    /// ```
    pub fn math(self, math: Math) -> LlvmCpu {
        LlvmCpu { math, ..self }
    }

    fn packs(&self) -> Packs {
        let folder = self.packed_folder.clone();
        Packs {
            wanted: self.pack_weights.unwrap_or_else(crate::knobs::pack),
            folder: folder.or_else(crate::knobs::pack_dir),
        }
    }

    fn target(&self) -> Result<Target> {
        match self.cpu.clone().or_else(crate::knobs::cpu).as_deref() {
            None | Some("native") => Ok(Target::native()),
            Some(name) => Target::for_cpu(name),
        }
    }
}

/// The passes that decide what the kernels are: everything but making code for them.
pub(super) fn kernels(list: &mut PassList) {
    list.push(super::forget_gradients::ForgetGradients);
    list.push(super::generic::DeadCode);
    list.push(materialize::Materialize);
    list.push(windows::shifted::Shifted);
    list.push(super::generic::DeadCode);
    list.push(layout::Layout);
    list.push(windows::border::Border);
    list.push(super::generic::Cse);
    list.push(binary::pixels::SignWindows);
    list.push(super::generic::DeadCode);
    list.push(blocks::RoundedRows);
    list.push(binary::SignProducts);
    list.push(blocks::BlockProducts);
    list.push(super::generic::DeadCode);
    list.push(blocks::joint::JointProducts);
    list.push(super::generic::DeadCode);
    list.push(contraction::ContractionPass);
    list.push(super::generic::DeadCode);
    list.push(blocks::DecodedRows);
    list.push(binary::SignRowsPass);
    list.push(super::generic::DeadCode);
    list.push(fusion::Fusion);
    list.push(super::generic::DeadCode);
    list.push(attention::Attention);
    list.push(super::generic::DeadCode);
    list.push(epilogue::Epilogue);
    list.push(super::generic::DeadCode);
}

impl Compiler for LlvmCpu {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        kernels(list);
        let records = self.records.as_deref();
        let tuning = Tuning {
            records: records.map_or_else(Records::from_knobs, Records::in_dir),
            measures: self.tunes || crate::knobs::tune(),
            told: self.told.clone(),
        };
        let (target, packs) = (self.target(), self.packs());
        let codegen = codegen::Codegen::new(target, self.emit_only, packs, tuning);
        list.push(codegen.with_math(self.math));
    }
}
