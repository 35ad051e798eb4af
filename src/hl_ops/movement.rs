//! Movement: the same numbers in other places. All of these are views; no number is copied or computed.

use super::axes::{AxisIndex, IntoAxes, axis_list, axis_of_rank, axis_set, one_axis};
use super::operand::fail;
use crate::graph::{GraphTensor, Shape};
use crate::shape::{Dims, Expr, IntoDims, ShapeError, View, numel, same_size};

/// `dims` with a -1 replaced by what makes the number of elements `n`.
fn infer_dim(dims: &Dims, n: Expr) -> Dims {
    let unknown = Expr::from(-1);
    let Some(at) = dims.iter().position(|&dim| dim == unknown) else {
        return dims.clone();
    };
    let mut dims = dims.clone();
    dims[at] = Expr::from(1);
    let rest = numel(&dims);
    let (quotient, left) = n.div_poly(rest);
    dims[at] = if left.is_zero() && !rest.is_zero() {
        quotient
    } else {
        n.floor_div(rest)
    };
    dims
}

/// `view` broadcast to `dims`: aligned at the right, axes of size 1 repeated, missing ones added. A -1 keeps a size.
pub(crate) fn expand_view(view: &View, dims: &Dims) -> Result<View, ShapeError> {
    let mismatch = || ShapeError::Mismatch {
        expected: dims.iter().copied().collect(),
        found: view.dims().into(),
    };
    let n_new = dims.len().checked_sub(view.rank()).ok_or_else(mismatch)?;
    let mut out = view.clone();
    for (axis, &size) in dims.iter().enumerate() {
        if axis < n_new {
            out = out.insert(axis, size)?;
            continue;
        }
        let have = out.dims()[axis];
        if size == Expr::from(-1) || have == size {
            continue;
        }
        if have.is_one() {
            out = out.expand(axis, size)?;
        } else if same_size(have, size) {
            let mut renamed = Dims::from(out.dims());
            renamed[axis] = size;
            out = out.reshape(renamed)?;
        } else {
            return Err(mismatch());
        }
    }
    Ok(out)
}

impl<S: Shape> GraphTensor<S> {
    /// The elements in row-major order under other dims. One of them may be -1: it is what the others leave.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((4, 's'), DType::F32);
    /// assert_eq!(x.reshape((2, -1, 's')).ty().to_string(), "f32[2, 2, s]");
    /// ```
    ///
    /// # Panics
    /// If the number of elements differs for all values of the symbols; where it depends on them, it is checked when
    /// executed.
    #[track_caller]
    pub fn reshape(self, dims: impl IntoDims) -> GraphTensor {
        let dims = dims.into_dims();
        self.dynamic().look("reshape", |view| {
            view.reshape(infer_dim(&dims, view.numel()))
        })
    }

    /// The axes in another order: axis `i` of the result is axis `order[i]`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((2, 3, 4), DType::F32);
    /// assert_eq!(x.permute([-1, 0, 1]).ty().to_string(), "f32[4, 2, 3]");
    /// ```
    ///
    /// # Panics
    /// If `order` is not a permutation of all axes.
    #[track_caller]
    pub fn permute(self, order: impl IntoAxes) -> GraphTensor {
        let order = axis_list("permute", &self.ty(), order);
        self.dynamic().look("permute", |view| view.permute(&order))
    }

    /// Two axes exchanged.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((2, 3, 4), DType::F32);
    /// assert_eq!(x.transpose(0, -1).ty().to_string(), "f32[4, 3, 2]");
    /// ```
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn transpose(self, a: impl AxisIndex, b: impl AxisIndex) -> GraphTensor {
        let ty = self.ty();
        let (a, b) = (one_axis("transpose", &ty, a), one_axis("transpose", &ty, b));
        let mut order: Vec<usize> = (0..ty.dims.len()).collect();
        order.swap(a, b);
        self.dynamic()
            .look("transpose", |view| view.permute(&order))
    }

    /// Without these axes, which must have size 1.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 3, 1), DType::F32);
    /// assert_eq!(x.squeeze([0, -1]).ty().to_string(), "f32[3]");
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or its size is not 1.
    #[track_caller]
    pub fn squeeze(self, axes: impl IntoAxes) -> GraphTensor {
        let axes = axis_set("squeeze", &self.ty(), axes);
        self.dynamic().look("squeeze", |view| {
            let mut view = view.clone();
            for &axis in axes.iter().rev() {
                view = view.squeeze(axis)?;
            }
            Ok(view)
        })
    }

    /// With a new axis of size 1 in front of axis `axis` (-1: at the end).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((2, 3), DType::F32);
    /// assert_eq!(x.unsqueeze(1).ty().to_string(), "f32[2, 1, 3]");
    /// assert_eq!(x.unsqueeze(-1).ty().to_string(), "f32[2, 3, 1]");
    /// ```
    ///
    /// # Panics
    /// If `axis` is more than the rank.
    #[track_caller]
    pub fn unsqueeze(self, axis: impl AxisIndex) -> GraphTensor {
        let ty = self.ty();
        let axis = axis_of_rank("unsqueeze", &ty, ty.dims.len() + 1, axis);
        self.dynamic()
            .look("unsqueeze", |view| view.insert(axis, 1i64))
    }

    /// Broadcast to these dims: aligned at the right, axes of size 1 repeat, missing ones are added in front. A -1
    /// keeps the size that is there.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((3, 1), DType::F32);
    /// assert_eq!(x.expand((2, -1, 's')).ty().to_string(), "f32[2, 3, s]");
    /// ```
    ///
    /// # Panics
    /// If a size other than 1 would have to change, or an axis to go.
    #[track_caller]
    pub fn expand(self, dims: impl IntoDims) -> GraphTensor {
        let dims = dims.into_dims();
        self.dynamic()
            .look("expand", |view| expand_view(view, &dims))
    }

    /// With a new axis of `size` in front of axis `axis` (-1: at the end), along which nothing changes.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((2, 3), DType::F32);
    /// assert_eq!(x.insert_axis(0, 's').ty().to_string(), "f32[s, 2, 3]");
    /// ```
    ///
    /// # Panics
    /// If `axis` is more than the rank.
    #[track_caller]
    pub fn insert_axis(self, axis: impl AxisIndex, size: impl Into<Expr>) -> GraphTensor {
        let (ty, size) = (self.ty(), size.into());
        let axis = axis_of_rank("insert_axis", &ty, ty.dims.len() + 1, axis);
        self.dynamic()
            .look("insert_axis", |view| view.insert(axis, size))
    }

    /// The coordinates `start..end` of one axis.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((8, 4), DType::F32);
    /// assert_eq!(x.slice_axis(0, 1, 's').ty().to_string(), "f32[s - 1, 4]");
    /// ```
    ///
    /// # Panics
    /// If the range leaves the axis for all values of the symbols; what depends on them is checked when executed.
    #[track_caller]
    pub fn slice_axis(
        self,
        axis: impl AxisIndex,
        start: impl Into<Expr>,
        end: impl Into<Expr>,
    ) -> GraphTensor {
        self.slice_step(axis, start, end, 1)
    }

    /// The coordinates `start, start + step, ..` before `end` of one axis. With a negative step, `start` is the
    /// highest coordinate and `end` (at least -1) one below the lowest.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<5>>().set([0.0, 1.0, 2.0, 3.0, 4.0]);
    /// let (even, back) = (x.slice_step(0, 0, 5, 2).retrieve(), x.slice_step(0, 4, -1, -2).retrieve());
    /// cx.execute();
    /// assert_eq!((even.data(), back.data()), (vec![0.0, 2.0, 4.0], vec![4.0, 2.0, 0.0]));
    /// ```
    ///
    /// # Panics
    /// If the step is 0, or the range leaves the axis for all values of the symbols.
    #[track_caller]
    pub fn slice_step(
        self,
        axis: impl AxisIndex,
        start: impl Into<Expr>,
        end: impl Into<Expr>,
        step: i64,
    ) -> GraphTensor {
        let axis = one_axis("slice", &self.ty(), axis);
        self.dynamic()
            .look("slice", |view| view.slice(axis, start, end, step))
    }

    /// The axes `first` to `last`, both included, as one.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((2, 's', 4), DType::F32);
    /// assert_eq!(x.flatten(0, 1).ty().to_string(), "f32[2*s, 4]");
    /// assert_eq!(x.flatten(0, -1).ty().to_string(), "f32[8*s]");
    /// ```
    ///
    /// # Panics
    /// If there are no such axes, or `last` comes before `first`. A number alone becomes an axis of size 1.
    #[track_caller]
    pub fn flatten(self, first: impl AxisIndex, last: impl AxisIndex) -> GraphTensor {
        let ty = self.ty();
        if ty.dims.is_empty() {
            return self.unsqueeze(0);
        }
        let first = one_axis("flatten", &ty, first);
        let last = one_axis("flatten", &ty, last);
        if last < first {
            fail(
                "flatten",
                format!("axes {first} to {last} of {ty} run backwards"),
            );
        }
        self.dynamic()
            .look("flatten", |view| view.merge(first, last - first + 1))
    }
}
