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
mod channel_norm;
mod compare;
mod conv;
pub(crate) mod coordinates;
mod creation;
mod distance;
mod edges;
mod einsum;
mod embedding_bag;
mod gamma;
mod grid_sample;
mod indexing;
mod joining;
mod linalg;
mod loss;
mod loss_class;
mod low_bit;
pub(crate) mod matmul;
pub(crate) mod movement;
mod movement_parts;
mod normalisation;
mod operand;
mod pool;
mod pool_adaptive;
mod qr;
mod random;
mod reduction;
mod resize;
mod rounding;
mod scan;
mod signs;
mod slices;
mod sort;
mod statistics;
mod transcendental;
mod trigonometric;
pub mod typed;
mod unary;
mod window;

pub use axes::{Axes, AxisIndex, IntoAxes};
pub use conv::{Conv, Padding};
pub use distance::Triplet;
pub use edges::Edge;
pub use embedding_bag::{BagMode, EmbeddingBag};
pub use grid_sample::{Outside, Sampling};
pub use loss::Reduction;
pub use loss_class::CrossEntropy;
pub use operand::{Operand, Term};
pub use pool::{Divisor, Pool};
pub use resize::Interpolation;
pub use signs::SignEstimator;
pub use slices::{Bounds, IntoBounds, IntoSlices};
pub use window::PerAxis;
