//! Pools whose number of windows is given: window `i` of `m` over `n` elements covers `floor(i n / m) .. ceil((i + 1) n / m)`.
//!
//! Where `m` divides `n`, windows are the parts of a split, a view. Elsewhere windows differ in size and overlap: their
//! elements are looked up, the smaller windows filled up with what does not count.

use super::coordinates::constant_like;
use super::operand::fail;
use super::pool::{largest_with_place, last, lowest, places};
use crate::graph::GraphTensor;
use crate::op::Op;
use crate::shape::{Dims, Expr};

/// Windows over one axis: `m` of `n` elements.
#[derive(Clone, Copy)]
struct Parts {
    n: i64,
    m: i64,
}

impl Parts {
    /// The size of the largest window.
    fn widest(self) -> i64 {
        let size = |i: i64| ((i + 1) * self.n + self.m - 1) / self.m - i * self.n / self.m;
        (0..self.m).map(size).max().unwrap_or(1)
    }

    /// The first element of each window, and how many it has: `I32 [m]`.
    #[track_caller]
    fn bounds(self, graph: u32) -> (GraphTensor, GraphTensor) {
        let len = Expr::from(self.m);
        let i = GraphTensor::leaf(graph, Op::Iota { len });
        let (n, m) = (self.n as i32, self.m as i32);
        let start = (i * n).floor_divide(m);
        let end = (i * n + (n + m - 1)).floor_divide(m);
        (start, end - start)
    }

    fn is_even(self) -> bool {
        self.m > 0 && self.n % self.m == 0
    }
}

#[track_caller]
fn parts(op: &str, x: GraphTensor, sizes: &[usize]) -> Vec<Parts> {
    let ty = x.ty();
    let Some(first) = ty.dims.len().checked_sub(sizes.len()) else {
        fail(op, format!("{} axes of {ty}", sizes.len()));
    };
    let part = |(i, &m): (usize, &usize)| match ty.dims[first + i].as_const() {
        Some(n) if n > 0 => Parts { n, m: m as i64 },
        _ => fail(op, format!("{sizes:?} windows over the last axes of {ty}")),
    };
    sizes.iter().enumerate().map(part).collect()
}

/// The windows of the last axes of `x`, `[.., m.., k..]`, with `fill` where a window has fewer than the widest.
#[track_caller]
fn divide(x: GraphTensor, parts: &[Parts], fill: f64) -> GraphTensor {
    let first = x.rank() - parts.len();
    let mut out = x;
    for (i, part) in parts.iter().enumerate() {
        let axis = first + i;
        let cut = match part.is_even() {
            true => out.look("adaptive_pool", |view| {
                view.split(axis, part.m, part.n / part.m)
            }),
            false => look_up(out, axis, *part, fill),
        };
        let mut order: Vec<usize> = (0..cut.rank()).filter(|&at| at != axis + 1).collect();
        order.push(axis + 1);
        out = cut.permute(order);
    }
    out
}

/// The axis as windows of the widest's size, `[.., m, k, ..]`.
#[track_caller]
fn look_up(x: GraphTensor, axis: usize, part: Parts, fill: f64) -> GraphTensor {
    let (start, size) = part.bounds(x.graph);
    let len = Expr::from(part.widest());
    let k = GraphTensor::leaf(x.graph, Op::Iota { len });
    let index = (start.unsqueeze(1) + k).minimum(part.n as i32 - 1); // [m, k]
    let inside = k.lt(size.unsqueeze(1));
    let seen = x.index_select(axis, index);
    let mut dims: Dims = seen.dims().iter().map(|_| Expr::from(1)).collect();
    dims[axis] = Expr::from(part.m);
    dims[axis + 1] = len;
    inside.reshape(dims).where_(seen, constant_like(x, fill))
}

impl GraphTensor {
    /// The mean of each of so many windows over the last axes.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<5>>().set([1.0, 2.0, 3.0, 4.0, 5.0]).dynamic();
    /// let y = x.adaptive_avg_pool(&[2]).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [2.0, 4.0]);
    /// ```
    ///
    /// # Panics
    /// If there are not as many axes, one is symbolic or empty, or the format is not a floating-point one.
    #[track_caller]
    pub fn adaptive_avg_pool(self, sizes: &[usize]) -> GraphTensor {
        let x = self.wide("adaptive_avg_pool");
        let parts = parts("adaptive_avg_pool", x, sizes);
        let mut out = divide(x, &parts, 0.0).sum(last(sizes.len()));
        for (i, part) in parts.iter().enumerate() {
            if part.is_even() {
                out *= part.m as f64 / part.n as f64;
                continue;
            }
            let mut dims: Dims = sizes.iter().map(|_| Expr::from(1)).collect();
            dims[i] = Expr::from(part.m);
            let (_, size) = part.bounds(x.graph);
            out *= size.cast(x.dtype()).recip().reshape(dims);
        }
        out.narrowed(self)
    }

    /// The largest element of each of so many windows over the last axes.
    ///
    /// # Panics
    /// If there are not as many axes, or one is symbolic or empty.
    #[track_caller]
    pub fn adaptive_max_pool(self, sizes: &[usize]) -> GraphTensor {
        let parts = parts("adaptive_max_pool", self, sizes);
        divide(self, &parts, lowest(self.dtype())).max(last(sizes.len()))
    }

    /// [`GraphTensor::adaptive_max_pool`], and where each largest element is in the last axes, as a row-major index `I32`.
    ///
    /// # Panics
    /// As [`GraphTensor::adaptive_max_pool`].
    #[track_caller]
    pub fn adaptive_max_pool_with_index(self, sizes: &[usize]) -> (GraphTensor, GraphTensor) {
        let (d, parts) = (sizes.len(), parts("adaptive_max_pool", self, sizes));
        let seen = divide(self, &parts, lowest(self.dtype()));
        largest_with_place(seen, divide(places(self, d), &parts, 0.0), d)
    }
}
