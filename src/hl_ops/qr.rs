//! The QR decomposition, as reflections written out step by step.
//!
//! A step takes one column of every matrix of a batch at once and reflects all columns so that this one becomes 0 below
//! the diagonal (Householder 1958). So `n` columns become about `30 n` ops, whatever the batch, and sizes have to be
//! known; nothing here is blocked. Signs are LAPACK's: a step turns the sign of the diagonal's element, unless the column
//! is 0 below it already.

use super::coordinates::constant_like;
use super::linalg::{column, column_of_rows};
use super::movement::expand_view;
use super::operand::fail;
use crate::graph::GraphTensor;
use crate::op::Op;
use crate::shape::Expr;

/// What mirrors vectors: `x - v * (scale * (v · x))`.
struct Reflection {
    /// `[.., m, 1]`.
    v: GraphTensor,
    /// `[.., 1, 1]`: `2 / (v · v)`, or 0 where nothing is to be mirrored.
    scale: GraphTensor,
}

impl Reflection {
    /// The one that makes `column`, `[.., m, 1]`, 0 below row `i`.
    #[track_caller]
    fn of(column: GraphTensor, i: i64, m: i64) -> Reflection {
        let at = column_of_rows(column, m);
        let (zero, one) = (constant_like(column, 0.0), constant_like(column, 1.0));
        let head = column.slice_axis(-2, i, i + 1);
        let below = at.gt(i as i32).where_(column, zero);
        let tail = (below * below).sum(-2).unsqueeze(-2);
        let is_needed = tail.ne(0.0);
        // Where it is not needed its parts are still numbers, for the gradient's sake.
        let size = is_needed.where_(tail + head * head, one).sqrt();
        let first = head + head.lt(0.0).where_(-size, size);
        Reflection {
            v: at.eq(i as i32).where_(first, below),
            scale: is_needed.where_(2.0 / (tail + first * first), zero),
        }
    }

    /// Every column of `x`, `[.., m, k]`, mirrored.
    #[track_caller]
    fn apply(&self, x: GraphTensor) -> GraphTensor {
        let along = (self.v * x).sum(-2).unsqueeze(-2);
        x - self.v * (along * self.scale)
    }
}

impl GraphTensor {
    /// Matrices `[.., m, n]` as `q` times `r`: columns at right angles and of length 1, `[.., m, k]`, and an upper
    /// triangle, `[.., k, n]`, with `k` the smaller of `m` and `n`. A gradient only means something where the first `k`
    /// columns do not depend on each other.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[3.0, 1.0], [4.0, 2.0]]).dynamic();
    /// let (q, r) = x.qr();
    /// let (product, r) = (q.matmul(r).retrieve(), r.retrieve());
    /// cx.execute();
    /// assert_eq!(r.data()[..1], [-5.0]);
    /// assert_eq!(r.data()[2], 0.0);
    /// for (a, b) in product.data().iter().zip([3.0f32, 1.0, 4.0, 2.0]) {
    ///     assert!((a - b).abs() < 1e-6);
    /// }
    /// ```
    ///
    /// # Panics
    /// If these are no matrices of a known size, or the format is not a floating-point one.
    #[track_caller]
    pub fn qr(self) -> (GraphTensor, GraphTensor) {
        let ty = self.ty();
        let size = |axis: usize| ty.dims.get(axis)?.as_const();
        let rank = ty.dims.len();
        let sizes = rank
            .checked_sub(2)
            .and_then(|at| size(at).zip(size(at + 1)));
        let Some((m, n)) = sizes else {
            fail("qr", format!("{ty} is no matrix of a known size"));
        };
        let k = m.min(n);
        let mut r = self.wide("qr");
        let mut reflections = Vec::new();
        for i in 0..k.min(m - 1) {
            let reflection = Reflection::of(column(r, i), i, m);
            r = reflection.apply(r);
            reflections.push(reflection);
        }
        let columns = GraphTensor::leaf(r.graph, Op::Iota { len: k.into() });
        let diagonal = column_of_rows(r, m).eq(columns.unsqueeze(0));
        let mut dims = r.dims();
        dims[rank - 1] = Expr::from(k);
        let mut q = diagonal
            .cast(r.dtype())
            .look("qr", |view| expand_view(view, &dims));
        for reflection in reflections.iter().rev() {
            q = reflection.apply(q);
        }
        let r = r.slice_axis(-2, 0, k).triu(0);
        (q.narrowed(self), r.narrowed(self))
    }
}
