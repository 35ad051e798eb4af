//! Sizes and the ways a buffer is looked at.
//!
//! - [`Expr`]: integers that may contain symbols (`p + 2*s`), folded and hash-consed;
//! - [`Symbols`]: the values of symbols in one execution;
//! - [`Dims`] and [`IntoDims`]: lists of sizes and everything that converts to one;
//! - [`View`]: movement operations (permute, expand, slice, pad, reshape ...) as data.
//!
//! Nothing here knows of graphs, tensors or number formats.

mod dims;
mod error;
mod expr;
mod symbols;
pub mod view;

pub use dims::{Dims, IntoDims, numel, same_size};
pub use error::{ParseError, ResolveError, ShapeError, UnsetSymbol};
pub use expr::{Expr, RUN};
pub use symbols::Symbols;
pub use view::{ConcreteView, Layer, View};
