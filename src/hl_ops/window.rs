//! Windows that slide over the last axes: what convolutions and pools have in common.
//!
//! A window is a view ([`GraphTensor::unfold_dilated`]): an axis becomes the number of windows, and a new axis at the end
//! walks inside one. No number is copied.

use smallvec::SmallVec;

use super::operand::fail;
use crate::graph::GraphTensor;
use crate::shape::{Dims, Expr};

/// A number for each spatial axis, or one for all of them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PerAxis(SmallVec<[usize; 3]>);

impl PerAxis {
    /// One number for each of `n` axes.
    ///
    /// # Panics
    /// If there are other than 1 or `n` numbers.
    #[track_caller]
    pub fn each(&self, n: usize) -> SmallVec<[usize; 3]> {
        if self.0.len() != n && self.0.len() != 1 {
            fail("windows", format!("{:?} for {n} axes", &self.0[..]));
        }
        let number = |i: usize| self.0[i.min(self.0.len() - 1)];
        (0..n).map(number).collect()
    }

    /// [`PerAxis::each`], signed.
    #[track_caller]
    pub(super) fn numbers(&self, n: usize) -> SmallVec<[i64; 3]> {
        self.each(n).into_iter().map(|x| x as i64).collect()
    }

    /// How many numbers there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl From<usize> for PerAxis {
    fn from(number: usize) -> PerAxis {
        PerAxis(SmallVec::from_iter([number]))
    }
}

impl<const N: usize> From<[usize; N]> for PerAxis {
    fn from(numbers: [usize; N]) -> PerAxis {
        PerAxis(SmallVec::from_slice(&numbers))
    }
}

impl From<&[usize]> for PerAxis {
    fn from(numbers: &[usize]) -> PerAxis {
        PerAxis(SmallVec::from_slice(numbers))
    }
}

impl From<Vec<usize>> for PerAxis {
    fn from(numbers: Vec<usize>) -> PerAxis {
        PerAxis(SmallVec::from_vec(numbers))
    }
}

/// Windows of `size` along the axes from `first` on: `[.., n.., ..]` becomes `[.., windows.., .., size..]`.
#[track_caller]
pub(super) fn windows(
    x: GraphTensor,
    first: usize,
    size: &[Expr],
    step: &[i64],
    dilation: &[i64],
) -> GraphTensor {
    let mut out = x;
    for (i, &size) in size.iter().enumerate() {
        out = out.unfold_dilated(first + i, size, step[i], dilation[i]);
    }
    out
}

/// An axis with so many elements of `value` before and after it; fewer than none cut elements off.
#[track_caller]
pub(super) fn pad_or_cut(
    x: GraphTensor,
    axis: usize,
    (before, after): (i64, i64),
    value: f64,
) -> GraphTensor {
    let mut out = x;
    if before < 0 || after < 0 {
        let end = out.dims()[axis] + after.min(0);
        out = out.slice_axis(axis, (-before).max(0), end);
    }
    if before > 0 || after > 0 {
        out = out.pad_with(axis, before.max(0), after.max(0), value);
    }
    out
}

impl GraphTensor {
    /// The windows of `[n, channels, s..]` as columns, `[n, channels * size.., windows]`: what a convolution multiplies
    /// its weight with. Zeros are put around the axes first.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 2, 4, 4), DType::F32);
    /// let columns = x.window_columns([3, 3], 1.into(), 1.into(), 1.into());
    /// assert_eq!(columns.ty().to_string(), "f32[1, 18, 16]");
    /// ```
    ///
    /// # Panics
    /// If there are not as many axes, a step or dilation is 0, or no window fits.
    #[track_caller]
    pub fn window_columns(
        self,
        size: impl Into<PerAxis>,
        step: PerAxis,
        padding: PerAxis,
        dilation: PerAxis,
    ) -> GraphTensor {
        let (op, size, ty) = ("window_columns", size.into(), self.ty());
        let d = size.len();
        if ty.dims.len() != d + 2 {
            fail(op, format!("{ty} with windows over {d} axes"));
        }
        let [step, padding, dilation] = [step, padding, dilation].map(|x| x.numbers(d));
        let size: Dims = size.0.iter().map(|&size| Expr::from(size)).collect();
        let mut x = self;
        for (i, &padding) in padding.iter().enumerate() {
            x = x.pad(2 + i, padding, padding);
        }
        let seen = windows(x, 2, &size, &step, &dilation); // [n, c, o.., k..]
        let kernel = 2 + d..2 + 2 * d;
        let order: Vec<usize> = (0..2).chain(kernel).chain(2..2 + d).collect();
        let seen = seen.permute(order); // [n, c, k.., o..]
        let dims = seen.dims();
        let product = |dims: &[Expr]| crate::shape::numel(dims);
        seen.reshape([dims[0], product(&dims[1..2 + d]), product(&dims[2 + d..])])
    }
}
