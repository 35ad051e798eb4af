//! Coordinates that are data.
//!
//! An index is an `I32` tensor. Its numbers count from the front and must lie inside the axis: a negative or too large
//! one is an error when executed, in every pipeline; nothing wraps around. Repeating an index along other axes is a
//! view of stride 0, so that looking rows up reads only those rows.

use super::axes::{AxisIndex, one_axis};
use super::coordinates::{fill_outside, pick};
use super::movement::expand_view;
use super::operand::{broadcast, fail};
use crate::dtype::DType;
use crate::graph::{GraphTensor, Shape};
use crate::op::{Op, ScatterMode, TensorType};
use crate::shape::{Dims, Expr, same_size};

/// Checks that an index can walk `axis` of `data`.
#[track_caller]
fn check_index(op: &str, data: &TensorType, index: &TensorType) {
    if index.dtype != DType::I32 {
        fail(op, format!("the index must be i32, not {index}"));
    }
    if index.dims.len() != data.dims.len() {
        fail(op, format!("index {index} and data {data} differ in rank"));
    }
}

/// The first `dims` of `x` on all axes but one.
#[track_caller]
fn cut(x: GraphTensor, dims: &[Expr], except: Option<usize>) -> GraphTensor {
    let have = x.dims();
    let mut out = x;
    for (axis, &size) in dims.iter().enumerate() {
        if Some(axis) != except && !same_size(size, have[axis]) {
            out = out.slice_axis(axis, 0, size);
        }
    }
    out
}

impl<S: Shape> GraphTensor<S> {
    /// `out[.., i, ..] = self[.., index[.., i, ..], ..]`: the index replaces the coordinate on one axis. It has the
    /// result's shape, which on other axes is at most that of `self`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [3.0, 4.0]]);
    /// let index = cx.input((2, 1), DType::I32).set([[1], [0]]);
    /// let y = x.gather(1, index).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If the index is not `I32`, of another rank, or larger on another axis.
    #[track_caller]
    pub fn gather(self, axis: impl AxisIndex, index: GraphTensor<impl Shape>) -> GraphTensor {
        let ty = self.ty();
        let axis = one_axis("gather", &ty, axis);
        check_index("gather", &ty, &index.ty());
        let data = cut(self.dynamic(), &index.dims(), Some(axis));
        GraphTensor::record(Op::Gather { axis }, &[data, index.dynamic()])
    }

    /// [`GraphTensor::gather`] after broadcasting `self` and the index to each other on the other axes.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[1.0, 2.0], [3.0, 4.0]]);
    /// let index = cx.input((1, 1), DType::I32).set([[1]]);
    /// let y = x.take_along(1, index).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If the index is not `I32`, of another rank, or does not broadcast.
    #[track_caller]
    pub fn take_along(self, axis: impl AxisIndex, index: GraphTensor<impl Shape>) -> GraphTensor {
        let (ty, index_ty) = (self.ty(), index.ty());
        let axis = one_axis("take_along", &ty, axis);
        check_index("take_along", &ty, &index_ty);
        let (mut data_dims, mut index_dims) = (ty.dims.clone(), index_ty.dims.clone());
        for other in (0..ty.dims.len()).filter(|&other| other != axis) {
            if data_dims[other].is_one() {
                data_dims[other] = index_dims[other];
            } else {
                index_dims[other] = data_dims[other];
            }
        }
        let data = self.dynamic().expand(data_dims);
        GraphTensor::record(Op::Gather { axis }, &[data, index.expand(index_dims)])
    }

    /// The parts of an axis that the index names, in its order; the axis is replaced by the index's axes. On a table
    /// of vectors (axis 0) this is an embedding.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let table = cx.tensor::<R2<3, 2>>().set([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    /// let ids = cx.input('s', DType::I32).set([2, 0]);
    /// let y = table.index_select(0, ids).retrieve();
    /// cx.set_dim('s', 2);
    /// cx.execute();
    /// assert_eq!(y.data(), [5.0, 6.0, 1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or the index is not `I32`.
    #[track_caller]
    pub fn index_select(self, axis: impl AxisIndex, index: GraphTensor<impl Shape>) -> GraphTensor {
        let (ty, index_dims) = (self.ty(), index.dims());
        let axis = one_axis("index_select", &ty, axis);
        let line = index.reshape([crate::shape::numel(&index_dims)]);
        let mut dims = ty.dims.clone();
        dims[axis] = line.dims()[0];
        let mut thin: Dims = dims.iter().map(|_| Expr::from(1)).collect();
        thin[axis] = dims[axis];
        let spread = line.look("index_select", |view| {
            expand_view(&view.reshape(&thin)?, &dims)
        });
        let rows = GraphTensor::record(Op::Gather { axis }, &[self.dynamic(), spread]);
        if index_dims.len() == 1 {
            return rows;
        }
        let out = ty.dims[..axis]
            .iter()
            .chain(&index_dims)
            .chain(&ty.dims[axis + 1..]);
        rows.reshape(out.copied().collect::<Dims>())
    }

    /// A copy with `updates[i..]` at `[i.. with coordinate axis = index[i..]]`; of several for one place the last in
    /// row-major order stays. The index may be smaller than `self` on other axes, `updates` larger than the index.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let (index, new) = (cx.input(1, DType::I32).set([2]), cx.input(1, DType::F32).set([9.0]));
    /// let y = x.scatter(0, index, new).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 9.0]);
    /// ```
    ///
    /// # Panics
    /// If the index is not `I32`, ranks or formats differ, or the index is larger than `self` on another axis, or than
    /// `updates` on any.
    #[track_caller]
    pub fn scatter(
        self,
        axis: impl AxisIndex,
        index: GraphTensor<impl Shape>,
        updates: GraphTensor<impl Shape>,
    ) -> GraphTensor<S> {
        scatter_dyn(
            self.dynamic(),
            axis,
            index.dynamic(),
            updates.dynamic(),
            ScatterMode::Set,
        )
        .retag()
    }

    /// [`GraphTensor::scatter`] that adds to what is there, in row-major order.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let index = cx.input(2, DType::I32).set([2, 2]);
    /// let y = x.scatter_add(0, index, cx.input(2, DType::F32).set([9.0, 1.0])).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 13.0]);
    /// ```
    ///
    /// # Panics
    /// As [`GraphTensor::scatter`].
    #[track_caller]
    pub fn scatter_add(
        self,
        axis: impl AxisIndex,
        index: GraphTensor<impl Shape>,
        updates: GraphTensor<impl Shape>,
    ) -> GraphTensor<S> {
        scatter_dyn(
            self.dynamic(),
            axis,
            index.dynamic(),
            updates.dynamic(),
            ScatterMode::Add,
        )
        .retag()
    }

    /// [`GraphTensor::scatter`] where the larger of old and new stays.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let index = cx.input(2, DType::I32).set([0, 1]);
    /// let y = x.scatter_max(0, index, cx.input(2, DType::F32).set([9.0, 1.0])).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [9.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// As [`GraphTensor::scatter`].
    #[track_caller]
    pub fn scatter_max(
        self,
        axis: impl AxisIndex,
        index: GraphTensor<impl Shape>,
        updates: GraphTensor<impl Shape>,
    ) -> GraphTensor<S> {
        scatter_dyn(
            self.dynamic(),
            axis,
            index.dynamic(),
            updates.dynamic(),
            ScatterMode::Max,
        )
        .retag()
    }
}

#[track_caller]
fn scatter_dyn(
    base: GraphTensor,
    axis: impl AxisIndex,
    index: GraphTensor,
    updates: GraphTensor,
    mode: ScatterMode,
) -> GraphTensor {
    let ty = base.ty();
    let axis = one_axis("scatter", &ty, axis);
    check_index("scatter", &ty, &index.ty());
    let dims = index.dims();
    if updates.rank() != dims.len() {
        let updates = updates.ty();
        fail(
            "scatter",
            format!("updates {updates} and data {ty} differ in rank"),
        );
    }
    let (updates, part) = (cut(updates, &dims, None), cut(base, &dims, Some(axis)));
    let operands = [part, index, updates];
    let written = GraphTensor::record(Op::Scatter { axis, mode }, &operands);
    let smaller = (0..dims.len()).filter(|&i| i != axis && !same_size(dims[i], ty.dims[i]));
    let mut out = written;
    let mut inside: Option<GraphTensor> = None;
    for other in smaller {
        out = out.pad(other, 0, ty.dims[other] - dims[other]);
        let yes = GraphTensor::scalar(base.graph, DType::Bool, 1.0);
        let [yes, _] = broadcast("scatter", [yes, base]);
        let here = fill_outside("scatter", yes, other, (Expr::from(0), dims[other]), 0.0);
        inside = Some(match inside {
            Some(before) => pick("scatter", before, here, before),
            None => here,
        });
    }
    match inside {
        Some(inside) => pick("scatter", inside, out, base),
        None => out,
    }
}
