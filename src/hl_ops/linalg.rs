//! Systems of linear equations, as elimination written out step by step.
//!
//! A step takes one column of every matrix of a batch at once: it looks for the largest element at or below the diagonal
//! (partial pivoting), exchanges two rows by looking rows up, and takes multiples of one row from the others. So a matrix of
//! `n` rows becomes about `20 n` ops, whatever the batch, and sizes have to be known. This is for small matrices;
//! nothing here is blocked.

use super::coordinates::{constant_like, coordinate};
use super::movement::expand_view;
use super::operand::fail;
use crate::graph::GraphTensor;
use crate::op::Op;
use crate::shape::{Dims, Expr};

/// The number of rows of square matrices `[.., n, n]`.
#[track_caller]
fn order(op: &str, x: GraphTensor) -> i64 {
    let ty = x.ty();
    let [.., rows, columns] = ty.dims[..] else {
        fail(op, format!("{ty} is no matrix"));
    };
    match (rows.as_const(), columns.as_const()) {
        (Some(n), Some(m)) if n == m => n,
        _ => fail(op, format!("{ty} is no square matrix of a known size")),
    }
}

/// `0, 1, .. n - 1` as a column `[n, 1]`.
#[track_caller]
pub(super) fn column_of_rows(x: GraphTensor, n: i64) -> GraphTensor {
    GraphTensor::leaf(x.graph, Op::Iota { len: n.into() }).unsqueeze(1)
}

/// Row `i` of matrices, `[.., 1, m]`.
#[track_caller]
fn row(x: GraphTensor, i: i64) -> GraphTensor {
    x.slice_axis(-2, i, i + 1)
}

/// Column `i` of matrices, `[.., n, 1]`.
#[track_caller]
pub(super) fn column(x: GraphTensor, i: i64) -> GraphTensor {
    x.slice_axis(-1, i, i + 1)
}

/// A matrix and what is to be done to it in the same way.
struct Elimination {
    /// `[.., n, n + m]`: the matrix, and further columns.
    rows: GraphTensor,
    n: i64,
    /// `[.., 1, 1]`: 1, or -1 after an odd number of exchanges.
    sign: GraphTensor,
}

impl Elimination {
    #[track_caller]
    fn new(rows: GraphTensor, n: i64) -> Elimination {
        let mut dims = rows.dims();
        let rank = dims.len();
        (dims[rank - 2], dims[rank - 1]) = (Expr::from(1), Expr::from(1));
        let sign = constant_like(rows, 1.0).expand(dims);
        Elimination { rows, n, sign }
    }

    /// Puts the row with the largest element of column `i` at or below row `i` in its place.
    #[track_caller]
    fn pivot(&mut self, i: i64) {
        let x = self.rows;
        let at = column_of_rows(x, self.n);
        let own = column(x, i).abs().detach();
        let candidates = at.lt(i as i32).where_(-1.0, own);
        let best = candidates.argmax(-2).unsqueeze(-1); // [.., 1, 1]
        let here = at.eq(i as i32);
        let index = here.where_(best, at.eq(best).where_(i as i32, at)); // [.., n, 1]
        let dims = x.dims();
        let index = index.look("linalg", |view| expand_view(view, &dims));
        self.rows = x.gather(-2, index);
        let minus = constant_like(x, -1.0);
        self.sign *= best.eq(i as i32).where_(constant_like(x, 1.0), minus);
    }

    /// Takes multiples of row `i` from the rows below, or from all others, so that column `i` becomes 0 there.
    #[track_caller]
    fn clear(&mut self, i: i64, above_too: bool) {
        let x = self.rows;
        let at = column_of_rows(x, self.n);
        let (own, pivot) = (row(x, i), column(row(x, i), i));
        let others = match above_too {
            true => at.ne(i as i32),
            false => at.gt(i as i32),
        };
        // Everything below a pivot of 0 is 0: nothing is to be taken away.
        let divisor = match above_too {
            true => pivot,
            false => pivot.eq(0.0).where_(1.0, pivot),
        };
        let factor = others.where_(column(x, i) / divisor, constant_like(x, 0.0));
        self.rows = x - factor * own;
    }

    /// The diagonal `[.., n]` of the matrix after elimination.
    #[track_caller]
    fn diagonal(mut self) -> (GraphTensor, GraphTensor) {
        for i in 0..self.n {
            self.pivot(i);
            self.clear(i, false);
        }
        let diagonal = self.rows.diagonal(0, -2, -1);
        (diagonal, self.sign.squeeze([-2, -1]))
    }

    /// The further columns once the matrix is the identity.
    #[track_caller]
    fn solved(mut self) -> GraphTensor {
        for i in 0..self.n {
            self.pivot(i);
            self.clear(i, true);
        }
        let columns = self.rows.dims()[self.rows.rank() - 1];
        let diagonal = self.rows.diagonal(0, -2, -1).unsqueeze(-1);
        self.rows.slice_axis(-1, self.n, columns) / diagonal
    }
}

impl GraphTensor {
    /// The determinants of square matrices `[.., n, n]`; 1 for matrices of no rows.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[0.0, 2.0], [3.0, 4.0]]).dynamic();
    /// let y = x.det().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [-6.0]);
    /// ```
    ///
    /// # Panics
    /// If these are no square matrices of a known size, or the format is not a floating-point one.
    #[track_caller]
    pub fn det(self) -> GraphTensor {
        let x = self.wide("det");
        let (diagonal, sign) = Elimination::new(x, order("det", x)).diagonal();
        (diagonal.prod(-1) * sign).narrowed(self)
    }

    /// The signs of the determinants of `[.., n, n]`, and the logarithms of their magnitudes, which do not overflow.
    ///
    /// # Panics
    /// If these are no square matrices of a known size, or the format is not a floating-point one.
    #[track_caller]
    pub fn slogdet(self) -> (GraphTensor, GraphTensor) {
        let x = self.wide("slogdet");
        let (diagonal, sign) = Elimination::new(x, order("slogdet", x)).diagonal();
        let signs = diagonal.sign().detach().prod(-1) * sign;
        let logarithm = diagonal.abs().log().sum(-1);
        (signs.narrowed(self), logarithm.narrowed(self))
    }

    /// `x` with `self · x = rhs`, for square matrices `[.., n, n]` and right sides `[.., n, m]`; leading axes broadcast. Of a
    /// singular matrix the result is infinite or NaN.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R2<2, 2>>().set([[0.0, 2.0], [4.0, 4.0]]).dynamic();
    /// let b = cx.tensor::<R2<2, 1>>().set([[2.0], [8.0]]).dynamic();
    /// let x = a.solve(b).retrieve();
    /// cx.execute();
    /// assert_eq!(x.data(), [1.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If these are no square matrices of a known size, shapes do not fit, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn solve(self, rhs: GraphTensor) -> GraphTensor {
        let (x, rhs) = (self.wide("solve"), rhs.wide("solve"));
        let n = order("solve", x);
        let (ty, right) = (x.ty(), rhs.ty());
        let lead = |dims: &Dims| Dims::from(&dims[..dims.len().saturating_sub(2)]);
        let batch = super::operand::broadcast_dims(&lead(&ty.dims), &lead(&right.dims));
        let (Some(batch), [.., rows, columns]) = (batch, &right.dims[..]) else {
            fail("solve", format!("{ty} with {right}"));
        };
        if *rows != Expr::from(n) || ty.dtype != right.dtype {
            fail("solve", format!("{ty} with {right}"));
        }
        let matrices = |x: GraphTensor, columns: Expr| {
            let last = [Expr::from(n), columns];
            x.expand(batch.iter().copied().chain(last).collect::<Dims>())
        };
        let whole = [matrices(x, Expr::from(n)), matrices(rhs, *columns)];
        let rows = GraphTensor::concat(&whole, -1);
        Elimination::new(rows, n).solved().narrowed(self)
    }

    /// The inverses of square matrices `[.., n, n]`. Of a singular matrix the result is infinite or NaN.
    ///
    /// # Panics
    /// If these are no square matrices of a known size, or the format is not a floating-point one.
    #[track_caller]
    pub fn inverse(self) -> GraphTensor {
        let x = self.wide("inverse");
        let n = Expr::from(order("inverse", x));
        let rows = GraphTensor::leaf(x.graph, Op::Iota { len: n });
        x.solve(rows.one_hot(n, x.dtype())).narrowed(self)
    }

    /// `x` with `self · x = rhs`, for triangular matrices `[.., n, n]` of which the other half is not read, nor, where
    /// `unit`, the diagonal, which then counts as 1.
    ///
    /// # Panics
    /// If these are no square matrices of a known size, shapes do not fit, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn solve_triangular(self, rhs: GraphTensor, upper: bool, unit: bool) -> GraphTensor {
        let (a, mut x) = (self.wide("solve_triangular"), rhs.wide("solve_triangular"));
        let n = order("solve_triangular", a);
        let at = column_of_rows(a, n);
        for step in 0..n {
            let i = if upper { n - 1 - step } else { step };
            let own = match unit {
                true => row(x, i),
                false => row(x, i) / column(row(a, i), i),
            };
            let rest = match upper {
                true => at.lt(i as i32),
                false => at.gt(i as i32),
            };
            let factor = rest.where_(column(a, i), constant_like(a, 0.0));
            let next = x - factor * own;
            x = at.eq(i as i32).where_(own, next);
        }
        x.narrowed(self)
    }

    /// The lower triangular `l` with `self = l · lᵀ`, for symmetric positive definite matrices `[.., n, n]`, NaN for others. Both
    /// halves are read and their mean taken, so that the gradient is symmetric too.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R2<2, 2>>().set([[4.0, 2.0], [2.0, 10.0]]).dynamic();
    /// let l = a.cholesky().retrieve();
    /// cx.execute();
    /// assert_eq!(l.data(), [2.0, 0.0, 1.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If these are no square matrices of a known size, or the format is not a floating-point one.
    #[track_caller]
    pub fn cholesky(self) -> GraphTensor {
        let x = self.wide("cholesky");
        let n = order("cholesky", x);
        let mut x = (x + x.transpose(-1, -2)) * 0.5;
        let dims = x.dims();
        let plane = &dims[dims.len() - 2..];
        let across = coordinate(x.graph, plane, 1);
        let mut out = constant_like(x, 0.0).expand(&dims);
        for i in 0..n {
            let at = column_of_rows(x, n);
            let scale = column(row(x, i), i).rsqrt();
            let own = at
                .ge(i as i32)
                .where_(column(x, i) * scale, constant_like(x, 0.0));
            out = across.eq(i as i32).where_(own.expand(&dims), out);
            // What the columns so far explain goes.
            x -= own * own.transpose(-1, -2);
        }
        out.narrowed(self)
    }
}
