//! Ranges as users write them: `x.slice((0..2, .., 1..))`.
//!
//! A bound is a number, a symbol or an expression. A negative number counts from the end. Nothing is clamped: a bound
//! outside its axis is an error.

use std::ops::{Range, RangeFrom, RangeFull, RangeTo};

use super::operand::fail;
use crate::graph::{GraphTensor, Shape};
use crate::shape::Expr;

/// The part of an axis between two bounds; a missing one is the axis' end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first coordinate.
    pub start: Option<Expr>,
    /// One past the last coordinate.
    pub end: Option<Expr>,
}

impl Bounds {
    /// Both bounds in an axis of `dim`, counted from the front.
    fn within(self, dim: Expr) -> (Expr, Expr) {
        let from_front = |bound: Expr| match bound.as_const() {
            Some(..0) => dim + bound,
            _ => bound,
        };
        let start = self.start.map_or(Expr::from(0), from_front);
        (start, self.end.map_or(dim, from_front))
    }
}

/// One range: `..`, `1..`, `..'s'`, `0..2`.
pub trait IntoBounds {
    /// Its bounds.
    fn into_bounds(self) -> Bounds;
}

impl IntoBounds for Bounds {
    fn into_bounds(self) -> Bounds {
        self
    }
}

impl IntoBounds for RangeFull {
    fn into_bounds(self) -> Bounds {
        Bounds::default()
    }
}

impl<T: Into<Expr>> IntoBounds for Range<T> {
    fn into_bounds(self) -> Bounds {
        Bounds {
            start: Some(self.start.into()),
            end: Some(self.end.into()),
        }
    }
}

impl<T: Into<Expr>> IntoBounds for RangeFrom<T> {
    fn into_bounds(self) -> Bounds {
        Bounds {
            start: Some(self.start.into()),
            end: None,
        }
    }
}

impl<T: Into<Expr>> IntoBounds for RangeTo<T> {
    fn into_bounds(self) -> Bounds {
        Bounds {
            start: None,
            end: Some(self.end.into()),
        }
    }
}

/// What `slice` takes: one range for the first axis, or a tuple, array or vector of ranges for the first few.
pub trait IntoSlices {
    /// The ranges of the first axes.
    fn into_slices(self) -> Vec<Bounds>;
}

impl<T: IntoBounds> IntoSlices for T {
    fn into_slices(self) -> Vec<Bounds> {
        vec![self.into_bounds()]
    }
}

impl<T: IntoBounds, const N: usize> IntoSlices for [T; N] {
    fn into_slices(self) -> Vec<Bounds> {
        self.into_iter().map(IntoBounds::into_bounds).collect()
    }
}

impl<T: IntoBounds> IntoSlices for Vec<T> {
    fn into_slices(self) -> Vec<Bounds> {
        self.into_iter().map(IntoBounds::into_bounds).collect()
    }
}

macro_rules! tuple_slices {
    ($($name:ident)+) => {
        impl<$($name: IntoBounds),+> IntoSlices for ($($name,)+) {
            #[allow(non_snake_case)]
            fn into_slices(self) -> Vec<Bounds> {
                let ($($name,)+) = self;
                vec![$($name.into_bounds()),+]
            }
        }
    };
}

tuple_slices!(A);
tuple_slices!(A B);
tuple_slices!(A B C);
tuple_slices!(A B C D);
tuple_slices!(A B C D E);
tuple_slices!(A B C D E F);

impl<S: Shape> GraphTensor<S> {
    /// A part of each of the first axes; the others stay whole. A view, as all movement.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 4>>().set([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]);
    /// let y = x.slice((.., 1..-1)).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 5.0, 6.0]);
    /// let cache = cx.input((64, 8), DType::F32);
    /// assert_eq!(cache.slice(..Expr::from('p') + 's').ty().to_string(), "f32[p + s, 8]");
    /// ```
    ///
    /// # Panics
    /// If there are more ranges than axes, or a range leaves its axis for all values of the symbols; what depends on
    /// them is checked when executed.
    #[track_caller]
    pub fn slice(self, ranges: impl IntoSlices) -> GraphTensor {
        let (ranges, ty) = (ranges.into_slices(), self.ty());
        if ranges.len() > ty.dims.len() {
            fail("slice", format!("{} ranges for {ty}", ranges.len()));
        }
        let mut out = self.dynamic();
        for (axis, bounds) in ranges.into_iter().enumerate() {
            let (start, end) = bounds.within(ty.dims[axis]);
            if (start, end) != (Expr::from(0), ty.dims[axis]) {
                out = out.slice_axis(axis, start, end);
            }
        }
        out
    }
}
