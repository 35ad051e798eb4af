//! Movement that takes tensors apart or repeats parts of them.
//!
//! Views all, except what fills in numbers: padding with something else than zero, and triangles, which choose by the
//! coordinate (`Select`), never by adding zeros: an infinity or NaN stays where it is.

use super::axes::{AxisIndex, IntoAxes, axis_set, one_axis};
use super::coordinates::{constant_like, coordinate, fill_outside, int, less, pick};
use super::operand::{broadcast, fail};
use crate::graph::{GraphTensor, Shape};
use crate::op::{BinaryOp, Op};
use crate::shape::{Dims, Expr, IntoDims, same_size};

impl<S: Shape> GraphTensor<S> {
    /// These axes in reverse order.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let y = x.flip(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [3.0, 2.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn flip(self, axes: impl IntoAxes) -> GraphTensor<S> {
        let axes = axis_set("flip", &self.ty(), axes);
        let out = self.dynamic().look("flip", |view| {
            axes.iter()
                .try_fold(view.clone(), |view, &axis| view.flip(axis))
        });
        out.retag()
    }

    /// One axis moved on by `shift`, what leaves at the end coming in at the start. A negative shift moves back.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 2.0, 3.0, 4.0]);
    /// let y = x.roll(1, 0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [4.0, 1.0, 2.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis.
    #[track_caller]
    pub fn roll(self, shift: impl Into<Expr>, axis: impl AxisIndex) -> GraphTensor<S> {
        let ty = self.ty();
        let axis = one_axis("roll", &ty, axis);
        let dim = ty.dims[axis];
        // An axis without elements has nothing to roll; as a symbol it may turn out to be one.
        let start = (-shift.into()).rem(dim.max(1));
        if start.is_zero() {
            return self;
        }
        let out = self.dynamic().look("roll", |view| {
            view.repeat(axis, 2i64)?.slice(axis, start, start + dim, 1)
        });
        out.retag()
    }

    /// The whole tensor `times[i]` times along axis `i`, in a row. With more times than axes, axes of size 1 are
    /// added in front first.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.repeat([2, 2]).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If there are fewer times than axes, or one is negative.
    #[track_caller]
    pub fn repeat(self, times: impl IntoDims) -> GraphTensor {
        let (ty, times) = (self.ty(), times.into_dims());
        let Some(n_new) = times.len().checked_sub(ty.dims.len()) else {
            fail("repeat", format!("{} times for {ty}", times.len()));
        };
        self.dynamic().look("repeat", |view| {
            let mut view = view.clone();
            for _ in 0..n_new {
                view = view.insert(0, 1i64)?;
            }
            view.tile(&times)
        })
    }

    /// [`GraphTensor::repeat`] that also takes fewer times than axes: the first axes stay then.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((2, 3), DType::F32);
    /// assert_eq!(x.tile([2]).ty().to_string(), "f32[2, 6]");
    /// ```
    ///
    /// # Panics
    /// If a number of times is negative.
    #[track_caller]
    pub fn tile(self, times: impl IntoDims) -> GraphTensor {
        let mut times = times.into_dims();
        while times.len() < self.rank() {
            times.insert(0, Expr::from(1));
        }
        self.repeat(times)
    }

    /// Each element of an axis `times` times: `a b` becomes `a a b b`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.repeat_interleave(2, 0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 1.0, 2.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or `times` is negative.
    #[track_caller]
    pub fn repeat_interleave(self, times: impl Into<Expr>, axis: impl AxisIndex) -> GraphTensor {
        let (axis, times) = (
            one_axis("repeat_interleave", &self.ty(), axis),
            times.into(),
        );
        self.dynamic()
            .look("repeat_interleave", |view| view.repeat_each(axis, times))
    }

    /// Sliding windows of `size` along an axis, `step` apart: the axis becomes the number of windows, and a new last
    /// axis walks inside them.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<4>>().set([1.0, 2.0, 3.0, 4.0]);
    /// let y = x.unfold(0, 2, 1).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 2.0, 3.0, 3.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, `size` or `step` is not positive, or no window fits.
    #[track_caller]
    pub fn unfold(self, axis: impl AxisIndex, size: impl Into<Expr>, step: i64) -> GraphTensor {
        self.unfold_dilated(axis, size, step, 1)
    }

    /// [`GraphTensor::unfold`] with the elements of a window `dilation` apart.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input(('s', 2), DType::F32);
    /// assert_eq!(x.unfold_dilated(0, 3, 1, 2).ty().to_string(), "f32[s - 4, 2, 3]");
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, `size`, `step` or `dilation` is not positive, or no window fits.
    #[track_caller]
    pub fn unfold_dilated(
        self,
        axis: impl AxisIndex,
        size: impl Into<Expr>,
        step: i64,
        dilation: i64,
    ) -> GraphTensor {
        let axis = one_axis("unfold", &self.ty(), axis);
        self.dynamic()
            .look("unfold", |view| view.unfold(axis, size, step, dilation))
    }

    /// The elements whose coordinate on `second` is that on `first` plus `offset`. Both axes are replaced by a new last
    /// one.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [3.0, 4.0]]);
    /// let y = x.diagonal(0, 0, 1).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, or they are the same.
    #[track_caller]
    pub fn diagonal(
        self,
        offset: i64,
        first: impl AxisIndex,
        second: impl AxisIndex,
    ) -> GraphTensor {
        let ty = self.ty();
        let first = one_axis("diagonal", &ty, first);
        let second = one_axis("diagonal", &ty, second);
        self.dynamic()
            .look("diagonal", |view| view.diagonal(first, second, offset))
    }

    /// An axis with `before` and `after` zeros around it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.pad(0, 1, 2).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 1.0, 2.0, 0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or a size is negative.
    #[track_caller]
    pub fn pad(
        self,
        axis: impl AxisIndex,
        before: impl Into<Expr>,
        after: impl Into<Expr>,
    ) -> GraphTensor {
        let axis = one_axis("pad", &self.ty(), axis);
        self.dynamic()
            .look("pad", |view| view.pad(axis, before, after))
    }

    /// An axis with `before` and `after` times `value` around it.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.pad_with(0, 1, 0, f64::NEG_INFINITY).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [f32::NEG_INFINITY, 1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or a size is negative.
    #[track_caller]
    pub fn pad_with(
        self,
        axis: impl AxisIndex,
        before: impl Into<Expr>,
        after: impl Into<Expr>,
        value: impl Into<f64>,
    ) -> GraphTensor {
        let (ty, before, value) = (self.ty(), before.into(), value.into());
        let axis = one_axis("pad", &ty, axis);
        let padded = self.pad(axis, before, after);
        if value == 0.0 && value.is_sign_positive() {
            return padded;
        }
        fill_outside("pad", padded, axis, (before, before + ty.dims[axis]), value)
    }

    /// Parts of `size` along an axis; the last one may be smaller.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((5, 2), DType::F32);
    /// let sizes: Vec<String> = x.split(2, 0).iter().map(|x| x.ty().to_string()).collect();
    /// assert_eq!(sizes, ["f32[2, 2]", "f32[2, 2]", "f32[1, 2]"]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, its size is symbolic, or `size` is 0.
    #[track_caller]
    pub fn split(self, size: usize, axis: impl AxisIndex) -> Vec<GraphTensor> {
        let ty = self.ty();
        let axis = one_axis("split", &ty, axis);
        let Some(dim) = ty.dims[axis].as_usize().filter(|_| size > 0) else {
            fail(
                "split",
                format!("axis {axis} of {ty} in parts of {size}: use `split_sizes`"),
            );
        };
        let starts = (0..dim.max(1)).step_by(size);
        let sizes: Dims = starts
            .map(|start| Expr::from(size.min(dim - start)))
            .collect();
        self.split_sizes(sizes, axis)
    }

    /// Parts of these sizes along an axis.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input(('s', 6), DType::F32);
    /// let qkv = x.split_sizes([4, 1, 1], -1);
    /// assert_eq!(qkv[0].ty().to_string(), "f32[s, 4]");
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or the sizes do not add up to it.
    #[track_caller]
    pub fn split_sizes(self, sizes: impl IntoDims, axis: impl AxisIndex) -> Vec<GraphTensor> {
        let (ty, sizes) = (self.ty(), sizes.into_dims());
        let axis = one_axis("split", &ty, axis);
        let total = sizes.iter().fold(Expr::from(0), |sum, &size| sum + size);
        if !same_size(total, ty.dims[axis]) {
            fail(
                "split",
                format!("parts of {total} in all for axis {axis} of {ty}"),
            );
        }
        let (mut parts, mut start) = (Vec::new(), Expr::from(0));
        for size in sizes {
            parts.push(self.slice_axis(axis, start, start + size));
            start += size;
        }
        parts
    }

    /// At most `n` parts of one size along an axis, of which the last may be smaller. A symbolic axis gives exactly
    /// `n` equal parts; that they fit is checked when executed.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((5, 's'), DType::F32);
    /// assert_eq!(x.chunk(2, 0)[1].ty().to_string(), "f32[2, s]");
    /// assert_eq!(x.chunk(2, 1)[1].ty().to_string(), "f32[5, s/2]");
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or `n` is 0.
    #[track_caller]
    pub fn chunk(self, n: usize, axis: impl AxisIndex) -> Vec<GraphTensor> {
        let ty = self.ty();
        let axis = one_axis("chunk", &ty, axis);
        if n == 0 {
            fail("chunk", format!("{ty} in 0 parts"));
        }
        if let Some(dim) = ty.dims[axis].as_usize() {
            let size = dim.div_ceil(n);
            return match size {
                0 => self.split_sizes(vec![0usize; n], axis),
                _ => self.split(size, axis),
            };
        }
        let x = self.dynamic().look("chunk", |view| {
            view.split(axis, n, ty.dims[axis].floor_div(n))
        });
        let mut parts = Vec::new();
        for part in 0..n {
            parts.push(x.slice_axis(axis, part, part + 1).squeeze(axis));
        }
        parts
    }

    /// The last two axes where the column is at most the row plus `offset`, zero elsewhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [3.0, 4.0]]);
    /// let y = x.tril(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, 3.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If there are not two axes.
    #[track_caller]
    pub fn tril(self, offset: impl Into<Expr>) -> GraphTensor<S> {
        let x = self.dynamic();
        let above = above_diagonal("tril", x, offset.into());
        pick("tril", above, constant_like(x, 0.0), x).retag()
    }

    /// The last two axes where the column is at least the row plus `offset`, zero elsewhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [3.0, 4.0]]);
    /// let y = x.triu(0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 0.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If there are not two axes.
    #[track_caller]
    pub fn triu(self, offset: impl Into<Expr>) -> GraphTensor<S> {
        let x = self.dynamic();
        let above = above_diagonal("triu", x, offset.into() - 1);
        pick("triu", above, x, constant_like(x, 0.0)).retag()
    }
}

/// Where, on the last two axes of `x`, row + offset < column.
#[track_caller]
fn above_diagonal(op: &str, x: GraphTensor, offset: Expr) -> GraphTensor {
    let ty = x.ty();
    let Some(row) = ty.dims.len().checked_sub(2) else {
        fail(op, format!("{ty} has no two axes"));
    };
    let plane = &ty.dims[row..];
    let (rows, columns) = (coordinate(x.graph, plane, 0), coordinate(x.graph, plane, 1));
    let offset = int(x.graph, offset);
    let operands = broadcast(op, [rows, offset]);
    let diagonal = GraphTensor::record(Op::Binary(BinaryOp::Add), &operands);
    less(op, diagonal, columns)
}
