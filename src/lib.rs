//! # brain-blitz
//!
//! A lazy-graph deep-learning framework for CPUs. Every operation is recorded as a node of a directed acyclic graph;
//! nothing is computed while the graph is built. *Compilers* are ordinary values that rewrite the graph and compose as
//! tuples; [`LlvmCpu`](compilers::LlvmCpu) turns the rewritten graph into native code for the machine it runs on.
//!
//! ```
//! use brain_blitz::prelude::*;
//! let mut cx = Graph::new();
//! let a = cx.tensor::<R2<3, 1>>().set([[1.0], [2.0], [3.0]]);
//! let b = cx.tensor::<R2<1, 4>>().set([[1.0, 2.0, 3.0, 4.0]]);
//! let mut c = a.matmul(b).retrieve();
//! cx.compile(<(Generic, LlvmCpu)>::default(), &mut c);
//! cx.execute();
//! println!("{c:?}");
//! cx.display();
//! # assert_eq!(c.data(), [1.0, 2.0, 3.0, 4.0, 2.0, 4.0, 6.0, 8.0, 3.0, 6.0, 9.0, 12.0]);
//! ```
//!
//! # Where things are
//!
//! In the order in which data flows through them; a module uses only those above it in this list.
//!
//! | module | what lives there |
//! |---|---|
//! | [`blocks`] | block formats of a few bits a weight |
//! | [`shape`] | symbolic sizes and views |
//! | [`op`] | what an operation is: the op table, with the reference `eval` of each |
//! | [`graph`] | the DAG, handles, text form, verifier, patches, display |
//! | [`exec`] | schedule, memory plan, executor, the reference |
//! | [`hl_ops`] | tensor methods, all made of primitive ops |
//! | [`nn`] | layers, and models made of them |
//! | [`formats`] | safetensors, npy, IDX, CSV, Hugging Face configuration and tokenizer |
//! | [`compilers`] | the pass driver, `Generic`, `Precision`, `LlvmCpu` |
//! | [`generation`] | loading a model, feeding it tokens, choosing the next |
//! | [`train`] | optimizers and schedules; data sets, loaders, checkpoints, metrics, plots |
//!
//! # Shapes
//!
//! Three kinds of dimension, one tensor type: *static* (`GraphTensor<R2<3, 4>>`, mismatches are compile errors),
//! *runtime* (`cx.input((3, 4), DType::F32)`, mismatches panic at the line that recorded the op), *symbolic*
//! (`cx.input(('s', 4), DType::F32)`, sizes that change between executions without recompiling, set with
//! [`Graph::set_dim`](graph::Graph::set_dim)).
//!
//! A mismatch of static shapes does not compile:
//! ```compile_fail
//! use brain_blitz::prelude::*;
//! let mut cx = Graph::new();
//! let a = cx.tensor::<R2<3, 2>>();
//! let b = cx.tensor::<R2<3, 4>>();
//! let c = a.matmul(b); // [3, 2] times [3, 4]
//! ```

#![deny(missing_docs)]

pub mod array;
pub mod atomic;
pub mod blocks;
pub mod compilers;
pub mod dtype;
pub mod error;
pub mod exec;
pub mod formats;
pub mod generation;
pub mod graph;
pub mod hl_ops;
pub mod knobs;
pub mod nn;
pub mod op;
pub mod shape;
pub mod storage;
pub mod train;

pub use error::{Error, Result};

/// What almost every program needs.
pub mod prelude {
    pub use crate::compilers::{Autograd, Binarize, Compiler, Generic, LlvmCpu, Math, Precision};
    pub use crate::dtype::DType;
    pub use crate::error::{Error, Result};
    pub use crate::graph::{Dyn, Graph, GraphTensor, R0, R1, R2, R3, R4, R5, R6, Shape};
    pub use crate::shape::Expr;
}
