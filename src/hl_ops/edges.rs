//! Padding with what the tensor itself holds, and rearranging between channels and pixels. Views, joined where parts
//! come from different places.

use super::axes::{AxisIndex, one_axis};
use super::operand::fail;
use super::window::pad_or_cut;
use crate::graph::{GraphTensor, Shape};
use crate::shape::{Dims, Expr};

/// What stands around an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Edge {
    /// This number.
    Constant(f64),
    /// The axis reversed, without its end: `c b | a b c | b a`.
    Reflect,
    /// Its first and last element: `a a | a b c | c c`.
    Replicate,
    /// The axis again: `b c | a b c | a b`.
    Circular,
}

/// The coordinates `start..end` of an axis, in reverse.
#[track_caller]
fn reversed(x: GraphTensor, axis: usize, start: Expr, end: Expr) -> GraphTensor {
    x.slice_axis(axis, start, end).flip(axis)
}

/// Whether the axis has too few elements to give `wanted`.
fn is_short(n: Expr, wanted: i64) -> bool {
    n.as_const().is_some_and(|n| n < wanted)
}

impl<S: Shape> GraphTensor<S> {
    /// An axis with so many elements before and after it; negative numbers cut elements off first.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Edge;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<3>>().set([1.0, 2.0, 3.0]);
    /// let y = x.pad_edge(0, 2, 1, Edge::Reflect).retrieve();
    /// let z = x.pad_edge(0, 2, -1, Edge::Circular).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [3.0, 2.0, 1.0, 2.0, 3.0, 2.0]);
    /// assert_eq!(z.data(), [1.0, 2.0, 1.0, 2.0]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or it has fewer elements than are to be repeated.
    #[track_caller]
    pub fn pad_edge(
        self,
        axis: impl AxisIndex,
        before: i64,
        after: i64,
        edge: Edge,
    ) -> GraphTensor {
        let axis = one_axis("pad", &self.ty(), axis);
        if let Edge::Constant(value) = edge {
            return pad_or_cut(self.dynamic(), axis, (before, after), value);
        }
        let x = pad_or_cut(self.dynamic(), axis, (before.min(0), after.min(0)), 0.0);
        let (low, high, n) = (before.max(0), after.max(0), x.dims()[axis]);
        let least = match edge {
            Edge::Reflect => low.max(high) + 1,
            Edge::Circular => low.max(high),
            _ => i64::from(low + high > 0),
        };
        if is_short(n, least) && low + high > 0 {
            let ty = x.ty();
            fail(
                "pad",
                format!("{before} and {after} elements ({edge:?}) around axis {axis} of {ty}"),
            );
        }
        match edge {
            _ if low + high == 0 => x,
            Edge::Circular => x.look("pad", |view| {
                view.repeat(axis, 3i64)?
                    .slice(axis, n - low, n * 2 + high, 1)
            }),
            Edge::Reflect => {
                let left = reversed(x, axis, Expr::from(1), Expr::from(1 + low));
                let right = reversed(x, axis, n - 1 - high, n - 1);
                GraphTensor::concat(&[left, x, right], axis)
            }
            Edge::Replicate | Edge::Constant(_) => {
                let line = |at: Expr, times: i64| {
                    let end = x.slice_axis(axis, at, at + 1);
                    end.look("pad", |view| view.expand(axis, times))
                };
                let parts = [line(Expr::from(0), low), x, line(n - 1, high)];
                GraphTensor::concat(&parts, axis)
            }
        }
    }
}

impl GraphTensor {
    /// Channels turned into pixels: `[.., c r², h, w]` to `[.., c, h r, w r]` (Shi et al. 2016).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R3<4, 1, 1>>().set([[[1.0]], [[2.0]], [[3.0]], [[4.0]]]).dynamic();
    /// let y = x.pixel_shuffle(2).retrieve();
    /// cx.execute();
    /// assert_eq!(y.ty().to_string(), "f32[1, 2, 2]");
    /// assert_eq!(y.data(), [1.0, 2.0, 3.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If there are not three axes, or `r²` does not divide the channels.
    #[track_caller]
    pub fn pixel_shuffle(self, r: usize) -> GraphTensor {
        let (ty, r) = (self.ty(), r as i64);
        let Some(at) = ty.dims.len().checked_sub(3).filter(|_| r > 0) else {
            fail("pixel_shuffle", format!("{ty} by {r}"));
        };
        let (c, h, w) = (
            ty.dims[at].floor_div(r * r),
            ty.dims[at + 1],
            ty.dims[at + 2],
        );
        let lead = &ty.dims[..at];
        let dims = |last: &[Expr]| lead.iter().chain(last).copied().collect::<Dims>();
        let r = Expr::from(r);
        let x = self.reshape(dims(&[c, r, r, h, w]));
        let order = (0..=at).chain([at + 3, at + 1, at + 4, at + 2]);
        let x = x.permute(order.collect::<Vec<usize>>());
        x.reshape(dims(&[c, h * r, w * r]))
    }

    /// Pixels turned into channels: `[.., c, h r, w r]` to `[.., c r², h, w]`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((3, 4, 6), DType::F32);
    /// assert_eq!(x.pixel_unshuffle(2).ty().to_string(), "f32[12, 2, 3]");
    /// ```
    ///
    /// # Panics
    /// If there are not three axes, or `r` does not divide the last two.
    #[track_caller]
    pub fn pixel_unshuffle(self, r: usize) -> GraphTensor {
        let (ty, r) = (self.ty(), r as i64);
        let Some(at) = ty.dims.len().checked_sub(3).filter(|_| r > 0) else {
            fail("pixel_unshuffle", format!("{ty} by {r}"));
        };
        let (c, h, w) = (
            ty.dims[at],
            ty.dims[at + 1].floor_div(r),
            ty.dims[at + 2].floor_div(r),
        );
        let lead = &ty.dims[..at];
        let dims = |last: &[Expr]| lead.iter().chain(last).copied().collect::<Dims>();
        let r = Expr::from(r);
        let x = self.reshape(dims(&[c, h, r, w, r]));
        let order = (0..=at).chain([at + 2, at + 4, at + 1, at + 3]);
        let x = x.permute(order.collect::<Vec<usize>>());
        x.reshape(dims(&[c * r * r, h, w]))
    }
}
