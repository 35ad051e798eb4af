//! Axes as users write them, and the checks that every movement and reduction starts with.
//!
//! An axis may be counted from the end (`-1` is the last). Where an operation takes several, one number, an array, a
//! slice, a vector or `..` (all of them) will do. Everything here panics at the caller's line, naming the operation.

use std::ops::RangeFull;

use smallvec::SmallVec;

use super::operand::fail;
use crate::op::{AxisSet, TensorType};

/// A number that can name one axis; negative ones count from the end.
pub trait AxisIndex: Copy {
    /// The number, signed.
    fn axis_index(self) -> i64;
}

macro_rules! axis_index {
    ($($ty:ty),*) => {
        $(impl AxisIndex for $ty {
            fn axis_index(self) -> i64 {
                i64::try_from(self).unwrap_or(i64::MAX)
            }
        })*
    };
}

axis_index!(i32, i64, isize, usize, u32);

/// Axes before it is known of which tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Axes {
    /// Every axis.
    All,
    /// These, in this order; negative ones count from the end.
    List(SmallVec<[i64; 4]>),
}

/// What can be written where several axes are expected: `1`, `[0, -1]`, a slice, a vector, `..`.
pub trait IntoAxes {
    /// The axes.
    fn into_axes(self) -> Axes;
}

impl IntoAxes for Axes {
    fn into_axes(self) -> Axes {
        self
    }
}

impl IntoAxes for RangeFull {
    fn into_axes(self) -> Axes {
        Axes::All
    }
}

macro_rules! single_axis {
    ($($ty:ty),*) => {
        $(impl IntoAxes for $ty {
            fn into_axes(self) -> Axes {
                Axes::List(SmallVec::from_iter([self.axis_index()]))
            }
        })*
    };
}

single_axis!(i32, i64, isize, usize, u32);

impl<T: AxisIndex> IntoAxes for &[T] {
    fn into_axes(self) -> Axes {
        Axes::List(self.iter().map(|axis| axis.axis_index()).collect())
    }
}

impl<T: AxisIndex, const N: usize> IntoAxes for [T; N] {
    fn into_axes(self) -> Axes {
        self.as_slice().into_axes()
    }
}

impl<T: AxisIndex, const N: usize> IntoAxes for &[T; N] {
    fn into_axes(self) -> Axes {
        self.as_slice().into_axes()
    }
}

impl<T: AxisIndex> IntoAxes for Vec<T> {
    fn into_axes(self) -> Axes {
        self.as_slice().into_axes()
    }
}

impl<T: AxisIndex> IntoAxes for &Vec<T> {
    fn into_axes(self) -> Axes {
        self.as_slice().into_axes()
    }
}

/// An axis counted from the front, for a tensor that may get one more (`rank` counts that one).
#[track_caller]
pub(crate) fn axis_of_rank(op: &str, ty: &TensorType, rank: usize, axis: impl AxisIndex) -> usize {
    let given = axis.axis_index();
    let from_front = if given < 0 {
        given + rank as i64
    } else {
        given
    };
    match usize::try_from(from_front) {
        Ok(axis) if axis < rank => axis,
        _ => fail(op, format!("axis {given} of {ty} is out of range")),
    }
}

/// An axis counted from the front.
#[track_caller]
pub(crate) fn one_axis(op: &str, ty: &TensorType, axis: impl AxisIndex) -> usize {
    axis_of_rank(op, ty, ty.dims.len(), axis)
}

/// Axes in the order given, distinct.
#[track_caller]
pub(crate) fn axis_list(op: &str, ty: &TensorType, axes: impl IntoAxes) -> AxisSet {
    let list = match axes.into_axes() {
        Axes::All => return (0..ty.dims.len()).collect(),
        Axes::List(list) => list,
    };
    let mut found = AxisSet::new();
    for given in list {
        let axis = one_axis(op, ty, given);
        if found.contains(&axis) {
            fail(op, format!("axis {given} of {ty} is named twice"));
        }
        found.push(axis);
    }
    found
}

/// Axes in rising order, distinct.
#[track_caller]
pub(crate) fn axis_set(op: &str, ty: &TensorType, axes: impl IntoAxes) -> AxisSet {
    let mut found = axis_list(op, ty, axes);
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::shape::IntoDims;

    fn ty() -> TensorType {
        TensorType::new((2, 's', 4).into_dims(), DType::F32)
    }

    #[test]
    fn axes_come_in_many_forms_and_count_from_both_ends() {
        assert_eq!(axis_set("t", &ty(), -1)[..], [2]);
        assert_eq!(axis_set("t", &ty(), [2usize, 0])[..], [0, 2]);
        assert_eq!(axis_list("t", &ty(), [-1, 0])[..], [2, 0]);
        assert_eq!(axis_set("t", &ty(), ..)[..], [0, 1, 2]);
        assert_eq!(axis_set("t", &ty(), vec![1i64])[..], [1]);
        assert_eq!(axis_of_rank("t", &ty(), 4, -1), 3);
    }

    #[test]
    #[should_panic(expected = "t: axis 3 of f32[2, s, 4] is out of range")]
    fn an_axis_too_many_is_named() {
        axis_set("t", &ty(), 3);
    }

    #[test]
    #[should_panic(expected = "t: axis -3 of f32[2, s, 4] is named twice")]
    fn an_axis_twice_is_named() {
        axis_set("t", &ty(), [0, -3]);
    }
}
