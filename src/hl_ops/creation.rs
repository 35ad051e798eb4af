//! Tensors made of nothing: constants, ranges, identity matrices.
//!
//! A constant tensor is one number seen many times through a view; a range is an `Iota`, scaled.

use super::operand::{fail, number};
use crate::dtype::DType;
use crate::graph::{Graph, GraphTensor, Shape};
use crate::op::Op;
use crate::shape::{Expr, IntoDims};

impl Graph {
    /// A number, of no dimensions.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = (cx.scalar(2.0, DType::F32) + 1.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [3.0]);
    /// ```
    ///
    /// # Panics
    /// If the format cannot hold the number.
    #[track_caller]
    pub fn scalar(&mut self, value: f64, dtype: DType) -> GraphTensor {
        number(self.id(), dtype, value, "scalar")
    }

    /// The value of a size at execution, as an `I32` of no dimensions.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.size(Expr::from('s') + 1).retrieve();
    /// cx.set_dim('s', 4);
    /// cx.execute();
    /// assert_eq!(y.data(), [5.0]);
    /// ```
    ///
    /// # Panics
    /// Never.
    #[track_caller]
    pub fn size(&mut self, expr: impl Into<Expr>) -> GraphTensor {
        GraphTensor::size(self.id(), expr.into())
    }

    /// `value` everywhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.full((2, 2), 7.0, DType::I32).retrieve();
    /// cx.execute();
    /// assert_eq!(y.array().to_i32(), [7; 4]);
    /// ```
    ///
    /// # Panics
    /// If the format cannot hold the number.
    #[track_caller]
    pub fn full(&mut self, dims: impl IntoDims, value: f64, dtype: DType) -> GraphTensor {
        self.scalar(value, dtype)
            .broadcast_to("full", &dims.into_dims())
    }

    /// 0 everywhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.zeros((2, 2), DType::F32).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0; 4]);
    /// ```
    ///
    /// # Panics
    /// If a dimension is negative.
    #[track_caller]
    pub fn zeros(&mut self, dims: impl IntoDims, dtype: DType) -> GraphTensor {
        self.full(dims, 0.0, dtype)
    }

    /// 1 everywhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.ones((2, 2), DType::F32).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0; 4]);
    /// ```
    ///
    /// # Panics
    /// If a dimension is negative.
    #[track_caller]
    pub fn ones(&mut self, dims: impl IntoDims, dtype: DType) -> GraphTensor {
        self.full(dims, 1.0, dtype)
    }

    /// `0, 1, .. len - 1` as `I32`; the length may be symbolic.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.arange('s').retrieve();
    /// cx.set_dim('s', 3);
    /// cx.execute();
    /// assert_eq!(y.array().to_i32(), [0, 1, 2]);
    /// ```
    ///
    /// # Panics
    /// If the length is negative.
    #[track_caller]
    pub fn arange(&mut self, len: impl Into<Expr>) -> GraphTensor {
        let len = len.into();
        if len.as_const().is_some_and(|len| len < 0) {
            fail("arange", format!("a length of {len}"));
        }
        GraphTensor::leaf(self.id(), Op::Iota { len })
    }

    /// `start, start + step, ..` as far as they are before `end`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.arange_step(1.0, 0.0, -0.25, DType::F32).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.75, 0.5, 0.25]);
    /// ```
    ///
    /// # Panics
    /// If the step is 0, or leads away from the end, or the format cannot hold the numbers.
    #[track_caller]
    pub fn arange_step(&mut self, start: f64, end: f64, step: f64, dtype: DType) -> GraphTensor {
        let len = ((end - start) / step).ceil();
        if step == 0.0 || !len.is_finite() || len < 0.0 {
            fail(
                "arange",
                format!("no way from {start} to {end} in steps of {step}"),
            );
        }
        self.arange(len as i64).cast(dtype) * step + start
    }

    /// `len` numbers at equal distances from `start` to `end`, both included, as `F32`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.linspace(0.0, 1.0, 5).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.25, 0.5, 0.75, 1.0]);
    /// ```
    ///
    /// # Panics
    /// Never.
    #[track_caller]
    pub fn linspace(&mut self, start: f64, end: f64, len: usize) -> GraphTensor {
        let step = if len > 1 {
            (end - start) / (len - 1) as f64
        } else {
            0.0
        };
        // Counted from the nearer end, so that both ends are exact.
        let i = self.arange(len).cast(DType::F32);
        let from_start = i * step + start;
        let from_end = (i - len.saturating_sub(1)) * step + end;
        i.lt(len.div_ceil(2)).where_(from_start, from_end)
    }

    /// `base` to the powers of [`Graph::linspace`].
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.logspace(0.0, 3.0, 4, 2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 2.0, 4.0, 8.0]);
    /// ```
    ///
    /// # Panics
    /// Never.
    #[track_caller]
    pub fn logspace(&mut self, start: f64, end: f64, len: usize, base: f64) -> GraphTensor {
        let exponents = self.linspace(start, end, len);
        exponents.full_like(base).pow(exponents)
    }

    /// A matrix of `n_rows` times `n_columns` with 1 on its diagonal, 0 elsewhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let y = cx.eye(2, 3, DType::F32).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If a dimension is negative.
    #[track_caller]
    pub fn eye(
        &mut self,
        n_rows: impl Into<Expr>,
        n_columns: impl Into<Expr>,
        dtype: DType,
    ) -> GraphTensor {
        let rows = self.arange(n_rows);
        rows.one_hot(n_columns, dtype)
    }
}

impl GraphTensor {
    /// Integers as vectors of `n` numbers along a new last axis: 1 at the integer's place, 0 elsewhere (everywhere for
    /// integers outside `0..n`).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input(2, DType::I32).set([2, 0]);
    /// let y = x.one_hot(3, DType::F32).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If this is no `I32` tensor.
    #[track_caller]
    pub fn one_hot(self, n: impl Into<Expr>, dtype: DType) -> GraphTensor {
        if self.dtype() != DType::I32 {
            fail("one_hot", format!("needs integers, not {}", self.ty()));
        }
        let classes = GraphTensor::leaf(self.graph, Op::Iota { len: n.into() });
        let rank = self.rank();
        let column = self.look("one_hot", |view| view.insert(rank, 1));
        column.eq(classes).cast(dtype)
    }
}

impl<S: Shape> GraphTensor<S> {
    /// A tensor of this shape and format that holds `value` everywhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.full_like(3.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [3.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// If the format cannot hold the number.
    #[track_caller]
    pub fn full_like(self, value: f64) -> GraphTensor<S> {
        self.filled("full_like", value)
    }

    /// A tensor of this shape and format that holds 0 everywhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 2.0]);
    /// let y = x.zeros_like().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.0, 0.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn zeros_like(self) -> GraphTensor<S> {
        self.full_like(0.0)
    }

    /// A tensor of this shape and format that holds 1 everywhere.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([4.0, 2.0]);
    /// let y = x.ones_like().retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [1.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If the graph was dropped.
    #[track_caller]
    pub fn ones_like(self) -> GraphTensor<S> {
        self.full_like(1.0)
    }
}
