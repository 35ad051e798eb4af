//! The graph that users record and compilers rewrite.
//!
//! [`Graph`] owns a DAG of ops ([`dag`]), the inputs' data and the executable program. Users hold [`GraphTensor`]s:
//! `Copy` handles made of two integers, valid wherever the graph goes. Passes see the [`Dag`] and change it through
//! [`Patch`]es only; [`verify()`] states and checks the invariants; [`text`] prints and [`parse`] reads the DAG.
//!
//! This layer computes nothing and knows no compiler.

pub mod dag;
mod display;
mod handle;
pub mod parse;
mod patch;
mod quantized;
mod record;
mod registry;
mod set;
pub mod state;
mod stored;
pub mod text;
mod typed;
mod values;
mod verify;

pub use dag::{Dag, Edge, Node, NodeIndex, Source, Turn, ValueEntry, ValueId};
pub use display::{Stage, layered_svg, listing, to_dot, to_html, to_svg};
pub use handle::{Dyn, GraphTensor};
pub use patch::{NodeRef, Patch};
pub use quantized::{SignedTensor, StoredTensor};
pub use registry::Graph;
pub use set::IntoData;
pub(crate) use stored::StoredAs;
pub use typed::{R0, R1, R2, R3, R4, R5, R6, Shape};
pub use verify::verify;

pub(crate) use registry::Inner;
