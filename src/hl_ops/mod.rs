//! Tensor methods. Sugar only: every method builds primitive ops and views, nothing else, so that what compilers see
//! is the small op set of [`crate::op`].
//!
//! Everything is written once, on shapes known at run time; methods that keep the shape also exist on static shapes.
//! Every method panics at the caller's line, naming the operation and the shapes, when its operands do not fit.

mod activation;
mod activation_hard;
mod arithmetic;
pub(crate) mod axes;
mod binary;
mod compare;
pub(crate) mod coordinates;
mod creation;
mod einsum;
mod gamma;
mod indexing;
mod joining;
pub(crate) mod matmul;
pub(crate) mod movement;
mod movement_parts;
mod normalisation;
mod operand;
mod random;
mod reduction;
mod rounding;
mod scan;
mod slices;
mod sort;
mod statistics;
mod transcendental;
mod trigonometric;
pub mod typed;
mod unary;

pub use axes::{Axes, AxisIndex, IntoAxes};
pub use operand::{Operand, Term};
pub use slices::{Bounds, IntoBounds, IntoSlices};
