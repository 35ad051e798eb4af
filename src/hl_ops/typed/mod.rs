//! What operations do to static shapes.
//!
//! Each trait is implemented for exactly the shapes that fit, so that a mismatch is a compile error; [`Dyn`] fits
//! everything and is checked when the operation is recorded. Nothing is computed here: the methods forward to those
//! that take axes and sizes at run time, which work on static shapes too but give a tensor without one.
//!
//! Elementwise operations need equal shapes:
//! ```compile_fail
//! # use brain_blitz::prelude::*;
//! let mut cx = Graph::new();
//! let (a, b) = (cx.tensor::<R2<2, 3>>(), cx.tensor::<R2<3, 2>>());
//! a + b;
//! ```
//!
//! [`Dyn`]: crate::graph::Dyn

mod movement;
mod product;
mod reduce;

pub use movement::{Static, SwapAxes, Transposed};
pub use product::{Dot, MatMul, Outer};
pub use reduce::ReduceAxis;
