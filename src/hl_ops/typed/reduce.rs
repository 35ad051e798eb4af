//! Static shapes of reductions.

use crate::graph::{Dyn, GraphTensor, R0, R1, R2, R3, R4, R5, R6, Shape};

/// Shapes that have an axis `AXIS`.
///
/// ```
/// # use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// let x = cx.tensor::<R2<2, 3>>();
/// let rows: GraphTensor<R1<2>> = x.sum_axis::<1>();
/// let columns: GraphTensor<R2<1, 3>> = x.max_axis_keepdim::<0>();
/// let all: GraphTensor<R0> = x.mean_all();
/// # assert_eq!((rows.rank(), columns.rank(), all.rank()), (1, 2, 0));
/// ```
/// ```compile_fail
/// # use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// cx.tensor::<R2<2, 3>>().sum_axis::<2>();
/// ```
#[diagnostic::on_unimplemented(message = "`{Self}` has no axis `{AXIS}`")]
pub trait ReduceAxis<const AXIS: usize>: Shape {
    /// The shape without the axis.
    type Reduced: Shape;
    /// The shape with the axis of size 1.
    type Kept: Shape;
}

impl<const AXIS: usize> ReduceAxis<AXIS> for Dyn {
    type Reduced = Dyn;
    type Kept = Dyn;
}

macro_rules! reduced {
    ($([$($dim:ident),*] $from:ty, $axis:literal => $reduced:ty, $kept:ty;)*) => {
        $(impl<$(const $dim: usize),*> ReduceAxis<$axis> for $from {
            type Reduced = $reduced;
            type Kept = $kept;
        })*
    };
}

reduced! {
    [A] R1<A>, 0 => R0, R1<1>;
    [A, B] R2<A, B>, 0 => R1<B>, R2<1, B>;
    [A, B] R2<A, B>, 1 => R1<A>, R2<A, 1>;
    [A, B, C] R3<A, B, C>, 0 => R2<B, C>, R3<1, B, C>;
    [A, B, C] R3<A, B, C>, 1 => R2<A, C>, R3<A, 1, C>;
    [A, B, C] R3<A, B, C>, 2 => R2<A, B>, R3<A, B, 1>;
    [A, B, C, D] R4<A, B, C, D>, 0 => R3<B, C, D>, R4<1, B, C, D>;
    [A, B, C, D] R4<A, B, C, D>, 1 => R3<A, C, D>, R4<A, 1, C, D>;
    [A, B, C, D] R4<A, B, C, D>, 2 => R3<A, B, D>, R4<A, B, 1, D>;
    [A, B, C, D] R4<A, B, C, D>, 3 => R3<A, B, C>, R4<A, B, C, 1>;
    [A, B, C, D, E] R5<A, B, C, D, E>, 0 => R4<B, C, D, E>, R5<1, B, C, D, E>;
    [A, B, C, D, E] R5<A, B, C, D, E>, 1 => R4<A, C, D, E>, R5<A, 1, C, D, E>;
    [A, B, C, D, E] R5<A, B, C, D, E>, 2 => R4<A, B, D, E>, R5<A, B, 1, D, E>;
    [A, B, C, D, E] R5<A, B, C, D, E>, 3 => R4<A, B, C, E>, R5<A, B, C, 1, E>;
    [A, B, C, D, E] R5<A, B, C, D, E>, 4 => R4<A, B, C, D>, R5<A, B, C, D, 1>;
    [A, B, C, D, E, F] R6<A, B, C, D, E, F>, 0 => R5<B, C, D, E, F>, R6<1, B, C, D, E, F>;
    [A, B, C, D, E, F] R6<A, B, C, D, E, F>, 1 => R5<A, C, D, E, F>, R6<A, 1, C, D, E, F>;
    [A, B, C, D, E, F] R6<A, B, C, D, E, F>, 2 => R5<A, B, D, E, F>, R6<A, B, 1, D, E, F>;
    [A, B, C, D, E, F] R6<A, B, C, D, E, F>, 3 => R5<A, B, C, E, F>, R6<A, B, C, 1, E, F>;
    [A, B, C, D, E, F] R6<A, B, C, D, E, F>, 4 => R5<A, B, C, D, F>, R6<A, B, C, D, 1, F>;
    [A, B, C, D, E, F] R6<A, B, C, D, E, F>, 5 => R5<A, B, C, D, E>, R6<A, B, C, D, E, 1>;
}

/// Forms of a reduction whose axis is part of the type.
macro_rules! typed_reductions {
    ($($name:ident: $axis:ident, $keepdim:ident, $all:ident;)*) => {
        impl<S: Shape> GraphTensor<S> {
            $(
                #[doc = concat!("[`GraphTensor::", stringify!($name), "`] over axis `AXIS`.")]
                ///
                /// # Panics
                /// As that one.
                #[track_caller]
                pub fn $axis<const AXIS: usize>(self) -> GraphTensor<S::Reduced>
                where
                    S: ReduceAxis<AXIS>,
                {
                    self.$name(AXIS).retag()
                }

                #[doc = concat!("[`GraphTensor::", stringify!($name), "`] over axis `AXIS`, which stays with size 1.")]
                ///
                /// # Panics
                /// As that one.
                #[track_caller]
                pub fn $keepdim<const AXIS: usize>(self) -> GraphTensor<S::Kept>
                where
                    S: ReduceAxis<AXIS>,
                {
                    self.$name(AXIS).unsqueeze(AXIS).retag()
                }

                #[doc = concat!("[`GraphTensor::", stringify!($name), "`] over all axes.")]
                ///
                /// # Panics
                /// As that one.
                #[track_caller]
                pub fn $all(self) -> GraphTensor<R0> {
                    self.$name(..).retag()
                }
            )*
        }
    };
}

typed_reductions! {
    sum: sum_axis, sum_axis_keepdim, sum_all;
    mean: mean_axis, mean_axis_keepdim, mean_all;
    max: max_axis, max_axis_keepdim, max_all;
    min: min_axis, min_axis_keepdim, min_all;
    prod: prod_axis, prod_axis_keepdim, prod_all;
    logsumexp: logsumexp_axis, logsumexp_axis_keepdim, logsumexp_all;
    argmax: argmax_axis, argmax_axis_keepdim, argmax_all;
    argmin: argmin_axis, argmin_axis_keepdim, argmin_all;
}
