//! Static shapes.
//!
//! `R2<3, 4>` stands for the shape `[3, 4]`. A handle's static shape is a promise that rustc checks: the methods in
//! `hl_ops::typed` have signatures in which mismatching shapes are type errors. Everything is computed by the same
//! code as for shapes known only at run time.

use super::handle::Dyn;
use crate::shape::{Dims, Expr};

/// A shape known at compile time, or [`Dyn`].
pub trait Shape: Copy + std::fmt::Debug + 'static {
    /// The dimensions; `None` for [`Dyn`].
    fn dims() -> Option<Dims>;
}

impl Shape for Dyn {
    fn dims() -> Option<Dims> {
        None
    }
}

macro_rules! shapes {
    ($($(#[$doc:meta])* $name:ident<$($dim:ident),*>;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name<$(const $dim: usize),*>;

            impl<$(const $dim: usize),*> Shape for $name<$($dim),*> {
                fn dims() -> Option<Dims> {
                    Some([$(Expr::from($dim)),*].into_iter().collect())
                }
            }
        )*
    };
}

shapes! {
    /// A single number.
    R0<>;
    /// `[A]`.
    R1<A>;
    /// `[A, B]`.
    R2<A, B>;
    /// `[A, B, C]`.
    R3<A, B, C>;
    /// `[A, B, C, D]`.
    R4<A, B, C, D>;
    /// `[A, B, C, D, E]`.
    R5<A, B, C, D, E>;
    /// `[A, B, C, D, E, F]`.
    R6<A, B, C, D, E, F>;
}
