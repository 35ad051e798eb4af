//! Compilers: values that rewrite a graph.
//!
//! A [`Compiler`] is a flat list of [`Pass`]es; tuples compose, `()` does nothing, and a user's crate can add its own
//! (see the example below). The [`driver`] runs the passes: it applies their patches, verifies the graph in between,
//! times, counts, dumps and checks. Passes read the graph and return patches; they never change it themselves.
//!
//! # Writing one
//! ```
//! use brain_blitz::prelude::*;
//! use brain_blitz::compilers::{Compiler, Pass, PassList, Report};
//! use brain_blitz::graph::{Dag, NodeRef, Patch};
//! use brain_blitz::op::{Op, UnaryOp};
//!
//! /// `recip(recip(x))` → `x` (which is not exact: a *lossy* rewrite that a user may want).
//! struct DoubleRecip;
//!
//! impl Pass for DoubleRecip {
//!     fn name(&self) -> &str { "double-recip" }
//!     fn run(&self, dag: &Dag) -> brain_blitz::Result<Patch> {
//!         let recip = Op::Unary(UnaryOp::Recip);
//!         let mut patch = Patch::new();
//!         for outer in dag.ids().filter(|&id| dag.node(id).op == recip) {
//!             let (inner, outer_view) = dag.operands(outer)[0];
//!             if dag.node(inner).op == recip {
//!                 let (x, inner_view) = dag.operands(inner)[0];
//!                 patch.replace(outer, NodeRef::Old(x), inner_view.compose(outer_view));
//!             }
//!         }
//!         Ok(patch)
//!     }
//! }
//!
//! #[derive(Default)]
//! struct Cancel;
//!
//! impl Compiler for Cancel {
//!     type Output = Report;
//!     fn passes(&self, list: &mut PassList) { list.push(DoubleRecip); }
//! }
//!
//! let mut cx = Graph::new();
//! let x = cx.tensor::<R1<2>>().set([2.0, 4.0]);
//! let y = (x.recip().recip() + 1.0).retrieve();
//! let report = cx.compile(<(Cancel, Generic)>::default(), ());
//! assert_eq!(report.hits("double-recip"), 1);
//! cx.execute();
//! assert_eq!(y.data(), [3.0, 5.0]);
//! ```

pub mod autograd;
pub mod binarize;
pub mod calibrate;
mod check;
pub mod driver;
pub mod forget_gradients;
pub mod generic;
pub mod keep;
#[cfg(not(feature = "llvm-backend"))]
mod llvm_absent;
#[cfg(feature = "llvm-backend")]
pub mod llvm_cpu;
pub mod math;
pub mod precision;
pub mod quantize;
pub mod remat;
pub mod report;

pub use autograd::Autograd;
pub use binarize::Binarize;
pub use calibrate::{Calibrate, Calibrator, RowFactors};
pub use driver::{Group, PassList};
pub use generic::Generic;
pub use keep::Keep;
#[cfg(not(feature = "llvm-backend"))]
pub use llvm_absent::LlvmCpu;
#[cfg(feature = "llvm-backend")]
pub use llvm_cpu::LlvmCpu;
pub use math::Math;
pub use precision::Precision;
pub use quantize::Quantize;
pub use remat::Remat;
pub use report::{PassReport, Report};

use crate::error::Result;
use crate::graph::{Dag, Graph, Patch, ValueId};
use crate::shape::Symbols;

/// One rewrite of the graph.
pub trait Pass {
    /// Kebab-case name, unique in the pipeline.
    fn name(&self) -> &str;

    /// Reads the graph and says what to change.
    ///
    /// # Errors
    /// What makes the whole compilation fail; the driver adds the pass's name.
    fn run(&self, dag: &Dag) -> Result<Patch>;

    /// [`Pass::run`] for a pass that asks which sizes the symbols have when the graph is compiled.
    ///
    /// # Errors
    /// As [`Pass::run`].
    fn run_sized(&self, dag: &Dag, _symbols: &Symbols) -> Result<Patch> {
        self.run(dag)
    }

    /// What the pass wants to say about its last run, a line each (what it could not lower, say).
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether results may change: such a pass is not compared with what was before it (`BB_CHECK`).
    fn is_lossy(&self) -> bool {
        false
    }

    /// Generated code of the last run, for `BB_DEBUG` 5 and 6 (`asm` tells which).
    fn code(&self, _asm: bool) -> Option<String> {
        None
    }
}

/// A list of passes as a value.
pub trait Compiler {
    /// What [`Graph::compile`] gives back: a [`Report`], or what can be made of one.
    type Output: From<Report>;

    /// Appends the passes, in order.
    fn passes(&self, list: &mut PassList);

    /// Graph and value of each handle that the passes were given: they have to be there when the passes run.
    fn handles(&self) -> Vec<(u32, ValueId)> {
        Vec::new()
    }
}

impl Compiler for () {
    type Output = Report;

    fn passes(&self, _: &mut PassList) {}
}

macro_rules! tuple_compiler {
    ($($name:ident . $index:tt),+) => {
        impl<$($name: Compiler),+> Compiler for ($($name,)+) {
            type Output = Report;

            fn handles(&self) -> Vec<(u32, ValueId)> {
                [$(self.$index.handles()),+].concat()
            }

            fn passes(&self, list: &mut PassList) {
                $(self.$index.passes(list);)+
            }
        }
    };
}

tuple_compiler!(A.0);
tuple_compiler!(A.0, B.1);
tuple_compiler!(A.0, B.1, C.2);
tuple_compiler!(A.0, B.1, C.2, D.3);
tuple_compiler!(A.0, B.1, C.2, D.3, E.4);
tuple_compiler!(A.0, B.1, C.2, D.3, E.4, F.5);
tuple_compiler!(A.0, B.1, C.2, D.3, E.4, F.5, G.6);
tuple_compiler!(A.0, B.1, C.2, D.3, E.4, F.5, G.6, H.7);

impl Graph {
    /// Rewrites the graph. The values in `keep` (a handle, a tuple or vector of handles, `()`) survive, as do those
    /// that [`retrieve`](crate::graph::GraphTensor::retrieve) named and the states.
    ///
    /// # Panics
    /// With the message of [`Graph::try_compile`].
    #[track_caller]
    pub fn compile<C: Compiler>(&mut self, compiler: C, keep: impl Keep) -> C::Output {
        match self.try_compile(compiler, keep) {
            Ok(done) => done,
            Err(e) => e.raise(),
        }
    }

    /// Rewrites the graph; see [`Graph::compile`].
    ///
    /// # Errors
    /// If a pass fails, or a kept value belongs to another graph or was optimized away before.
    pub fn try_compile<C: Compiler>(&mut self, compiler: C, keep: impl Keep) -> Result<C::Output> {
        let mut values = Vec::new();
        keep.collect(&mut values);
        let id = self.id();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let given = compiler.handles();
        for &(graph, value) in values.iter().chain(&given) {
            if graph != id {
                return Err(crate::Error::msg(
                    "a value given to `compile` belongs to another graph",
                ));
            }
            inner.dag.source(value)?;
        }
        for (_, value) in values {
            inner.dag.add_output(value);
        }
        if inner.stages.is_empty() {
            inner.stages.push(("recorded".into(), inner.dag.clone()));
        }
        let mut list = PassList::default();
        compiler.passes(&mut list);
        if list.len() > 1 {
            given
                .iter()
                .for_each(|&(_, value)| inner.dag.add_output(value));
        }
        let report = driver::run(&list, id, inner)?;
        inner.program = None;
        Ok(report.into())
    }
}
