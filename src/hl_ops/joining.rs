//! Several tensors put together to one.
//!
//! Each part is padded to the whole size, a view, and an element is chosen by its coordinate (`Select`). Nothing is
//! added, so that an infinity or NaN in one part does not reach another.

use super::axes::{AxisIndex, axis_of_rank, one_axis};
use super::coordinates::{coordinate, int, less, pick};
use super::operand::fail;
use crate::graph::GraphTensor;
use crate::shape::{Expr, same_size};

impl GraphTensor {
    /// Tensors one after another along an axis; they agree on the others.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R1<2>>().set([1.0, 2.0]).dynamic();
    /// let b = cx.tensor::<R1<1>>().set([f32::INFINITY]).dynamic();
    /// let c = GraphTensor::concat(&[a, b], 0).retrieve();
    /// cx.execute();
    /// assert_eq!(c.data(), [1.0, 2.0, f32::INFINITY]);
    /// ```
    ///
    /// # Panics
    /// If there are none, there is no such axis, or formats or other sizes differ.
    #[track_caller]
    pub fn concat(tensors: &[GraphTensor], axis: impl AxisIndex) -> GraphTensor {
        let Some(first) = tensors.first() else {
            fail("concat", "no tensors".into());
        };
        let ty = first.ty();
        let axis = one_axis("concat", &ty, axis);
        let (mut ends, mut total) = (Vec::new(), Expr::from(0));
        for tensor in tensors {
            let other = tensor.ty();
            let fits = |i: usize| i == axis || same_size(other.dims[i], ty.dims[i]);
            let same_rank = other.dims.len() == ty.dims.len();
            if !same_rank || other.dtype != ty.dtype || !(0..ty.dims.len()).all(fits) {
                fail("concat", format!("{ty} and {other} on axis {axis}"));
            }
            total += other.dims[axis];
            ends.push(total);
        }
        let mut dims = ty.dims.clone();
        dims[axis] = total;
        let mut out: Option<GraphTensor> = None;
        for (i, tensor) in tensors.iter().enumerate().rev() {
            let start = i.checked_sub(1).map_or(Expr::from(0), |i| ends[i]);
            let placed = tensor.pad(axis, start, total - ends[i]);
            out = match out {
                None => Some(placed),
                Some(after) => {
                    let at = coordinate(first.graph, &dims, axis);
                    let before = less("concat", at, int(first.graph, ends[i]));
                    Some(pick("concat", before, placed, after))
                }
            };
        }
        out.expect("there is a first tensor")
    }

    /// Tensors of one shape side by side on a new axis.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let (a, b) = (cx.input(3, DType::F32), cx.input(3, DType::F32));
    /// assert_eq!(GraphTensor::stack(&[a, b], -1).ty().to_string(), "f32[3, 2]");
    /// ```
    ///
    /// # Panics
    /// If there are none, `axis` is more than the rank, or shapes or formats differ.
    #[track_caller]
    pub fn stack(tensors: &[GraphTensor], axis: impl AxisIndex) -> GraphTensor {
        let Some(first) = tensors.first() else {
            fail("stack", "no tensors".into());
        };
        let ty = first.ty();
        let axis = axis_of_rank("stack", &ty, ty.dims.len() + 1, axis);
        let mut slices = Vec::new();
        for tensor in tensors {
            let other = tensor.ty();
            if other != ty {
                fail("stack", format!("{ty} and {other}"));
            }
            slices.push(tensor.unsqueeze(axis));
        }
        GraphTensor::concat(&slices, axis)
    }
}
