//! Matrix products: expanded views, one `Mul`, one `SumReduce` over the last axis.
//!
//! `a [.., m, k]` times `b [.., k, n]` is `SumReduce(Mul(a', b'))` over `[.., m, n, k]`, where `a'` repeats along `n`
//! and `b'` along `m` with stride 0. Compilers find the contraction in that index structure; nothing here names a
//! kernel.

use super::movement::expand_view;
use super::operand::{broadcast_dims, fail};
use super::typed::{Dot, MatMul, Outer};
use crate::graph::{GraphTensor, Shape};
use crate::op::{BinaryOp, Op, ReduceOp};
use crate::shape::{Dims, same_size};

/// Sum of `a * b` over the last `n` axes, which both have.
#[track_caller]
pub(crate) fn contract(a: GraphTensor, b: GraphTensor, n: usize) -> GraphTensor {
    let product = GraphTensor::record(Op::Binary(BinaryOp::Mul), &[a, b]);
    let rank = product.rank();
    product.fold(ReduceOp::Sum, &(rank - n..rank).collect())
}

#[track_caller]
fn matmul_dyn(a: GraphTensor, b: GraphTensor) -> GraphTensor {
    let (a_ty, b_ty) = (a.ty(), b.ty());
    if a_ty.dims.is_empty() || b_ty.dims.is_empty() {
        fail(
            "matmul",
            format!("{a_ty} times {b_ty}: both need at least one axis"),
        );
    }
    if a_ty.dtype != b_ty.dtype {
        fail(
            "matmul",
            format!("{a_ty} times {b_ty}: use `.cast(..)` on one of them"),
        );
    }
    let (a_is_vector, b_is_vector) = (a_ty.dims.len() == 1, b_ty.dims.len() == 1);
    let a = if a_is_vector { a.unsqueeze(0) } else { a };
    let b = if b_is_vector { b.unsqueeze(1) } else { b };
    let (a_dims, b_dims) = (a.dims(), b.dims());
    let (a_rank, b_rank) = (a_dims.len(), b_dims.len());
    let (m, k, n) = (a_dims[a_rank - 2], a_dims[a_rank - 1], b_dims[b_rank - 1]);
    if !same_size(k, b_dims[b_rank - 2]) {
        let other = b_dims[b_rank - 2];
        fail(
            "matmul",
            format!("{a_ty} times {b_ty}: inner sizes {k} and {other} differ"),
        );
    }
    let Some(batch) = broadcast_dims(&a_dims[..a_rank - 2], &b_dims[..b_rank - 2]) else {
        fail(
            "matmul",
            format!("{a_ty} times {b_ty}: leading axes do not broadcast"),
        );
    };
    let whole: Dims = batch.iter().copied().chain([m, n, k]).collect();
    let a = a.look("matmul", |view| {
        expand_view(&view.insert(a_rank - 1, 1i64)?, &whole)
    });
    let b = b.transpose(-1, -2).look("matmul", |view| {
        expand_view(&view.insert(b_rank - 2, 1i64)?, &whole)
    });
    let out = contract(a, b, 1);
    let out = if b_is_vector { out.squeeze(-1) } else { out };
    match (a_is_vector, b_is_vector) {
        (true, true) => out.squeeze(-1),
        (true, false) => out.squeeze(-2),
        _ => out,
    }
}

impl<S: Shape> GraphTensor<S> {
    /// Matrix product over the last axis of `self` and the last but one of `rhs`; leading axes broadcast. A vector on
    /// the left is a row, on the right a column, and its axis does not appear in the result.
    ///
    /// With static shapes, mismatches do not compile:
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R2<3, 1>>().set([[1.0], [2.0], [3.0]]);
    /// let b = cx.tensor::<R2<1, 2>>().set([[1.0, 2.0]]);
    /// let c: GraphTensor<R2<3, 2>> = a.matmul(b).retrieve();
    /// cx.execute();
    /// assert_eq!(c.data(), [1.0, 2.0, 2.0, 4.0, 3.0, 6.0]);
    /// ```
    /// ```compile_fail
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R2<3, 1>>();
    /// let b = cx.tensor::<R2<2, 4>>();
    /// a.matmul(b);
    /// ```
    ///
    /// # Panics
    /// If formats or inner sizes differ, or leading axes do not broadcast.
    #[track_caller]
    pub fn matmul<T: Shape>(self, rhs: GraphTensor<T>) -> GraphTensor<S::Output>
    where
        S: MatMul<T>,
    {
        matmul_dyn(self.dynamic(), rhs.dynamic()).retag()
    }

    /// Sum of the products of two vectors' elements.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = a.dot(a).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [5.0]);
    /// ```
    /// ```compile_fail
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let (a, b) = (cx.tensor::<R1<2>>(), cx.tensor::<R1<3>>());
    /// a.dot(b);
    /// ```
    ///
    /// # Panics
    /// If these are no vectors of one size and format.
    #[track_caller]
    pub fn dot<T: Shape>(self, rhs: GraphTensor<T>) -> GraphTensor<S::Output>
    where
        S: Dot<T>,
    {
        let (a, b) = (self.ty(), rhs.ty());
        if a.dims.len() != 1 || b.dims.len() != 1 {
            fail("dot", format!("{a} and {b}: both must be vectors"));
        }
        matmul_dyn(self.dynamic(), rhs.dynamic()).retag()
    }

    /// The product of every element of one vector with every element of another.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y: GraphTensor<R2<2, 2>> = a.outer(a).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 2.0, 4.0]);
    /// ```
    /// ```compile_fail
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let (a, b) = (cx.tensor::<R1<2>>(), cx.tensor::<R2<3, 1>>());
    /// a.outer(b);
    /// ```
    ///
    /// # Panics
    /// If these are no vectors of one format.
    #[track_caller]
    pub fn outer<T: Shape>(self, rhs: GraphTensor<T>) -> GraphTensor<S::Output>
    where
        S: Outer<T>,
    {
        let (a, b) = (self.ty(), rhs.ty());
        if a.dims.len() != 1 || b.dims.len() != 1 {
            fail("outer", format!("{a} and {b}: both must be vectors"));
        }
        let product = self.dynamic().unsqueeze(1) * rhs.dynamic();
        product.retag()
    }
}
