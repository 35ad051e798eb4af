//! Random numbers: pure functions of a seed and a step, the same on every machine and for any number of threads.
//!
//! The step is a size expression evaluated at each execution: a constant draws the same numbers every time,
//! `Expr::from(RUN)` (the index of the execution) draws new ones. Tensors with the same seed and step hold the same
//! numbers, so every use needs a seed of its own.

use std::f64::consts;

use super::operand::fail;
use crate::graph::{Graph, GraphTensor, Shape};
use crate::op::Op;
use crate::shape::{Dims, Expr, IntoDims};

#[track_caller]
fn uniform(graph: u32, dims: Dims, seed: u64, step: Expr) -> GraphTensor {
    GraphTensor::leaf(graph, Op::Random { dims, seed, step })
}

impl Graph {
    /// `F32` numbers spread evenly over [0, 1), multiples of 2^-24.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::shape::RUN;
    /// let mut cx = Graph::new();
    /// let (x, y) = (cx.rand_uniform(100, 7, 0), cx.rand_uniform(100, 7, RUN));
    /// let (x, y) = (x.retrieve(), y.retrieve());
    /// cx.execute();
    /// let first = (x.data(), y.data());
    /// cx.execute();
    /// assert_eq!(x.data(), first.0);
    /// assert_ne!(y.data(), first.1);
    /// assert!(x.data().iter().all(|x| (0.0..1.0).contains(x)));
    /// ```
    ///
    /// # Panics
    /// Never.
    #[track_caller]
    pub fn rand_uniform(
        &mut self,
        dims: impl IntoDims,
        seed: u64,
        step: impl Into<Expr>,
    ) -> GraphTensor {
        uniform(self.id(), dims.into_dims(), seed, step.into())
    }

    /// `F32` numbers of the normal distribution with mean 0 and standard deviation 1, by the transform of Box and
    /// Muller (1958). None is further from 0 than 5.77.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.rand_normal(1000, 7, 0).retrieve();
    /// cx.execute();
    /// let mean = x.data().iter().sum::<f32>() / 1000.0;
    /// let variance = x.data().iter().map(|x| x * x).sum::<f32>() / 1000.0;
    /// assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.2);
    /// ```
    ///
    /// # Panics
    /// Never.
    #[track_caller]
    pub fn rand_normal(
        &mut self,
        dims: impl IntoDims,
        seed: u64,
        step: impl Into<Expr>,
    ) -> GraphTensor {
        let dims = dims.into_dims();
        let mut both = Dims::from_iter([Expr::from(2)]);
        both.extend_from_slice(&dims);
        let numbers = uniform(self.id(), both, seed, step.into());
        let first = numbers.look("rand_normal", |view| view.slice(0, 0, 1, 1)?.reshape(&dims));
        let second = numbers.look("rand_normal", |view| view.slice(0, 1, 2, 1)?.reshape(&dims));
        // 1 - u is never 0.
        let radius = ((1.0 - first).log() * -2.0).sqrt();
        radius * (second * (2.0 * consts::PI)).sin()
    }
}

impl<S: Shape> GraphTensor<S> {
    /// Elements set to 0 with probability `p`; the others are divided by `1 - p`, which keeps the expected value.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.full(1000, 1.0, DType::F32);
    /// let y = x.dropout(0.25, 7, 0).retrieve();
    /// cx.execute();
    /// let kept = y.data().iter().filter(|&&y| y == 1.0 / 0.75).count();
    /// let dropped = y.data().iter().filter(|&&y| y == 0.0).count();
    /// assert_eq!(kept + dropped, 1000);
    /// assert!((700..800).contains(&kept));
    /// ```
    ///
    /// # Panics
    /// If `p` is no probability, or the format is not a floating-point one.
    #[track_caller]
    pub fn dropout(self, p: f64, seed: u64, step: impl Into<Expr>) -> GraphTensor<S> {
        if !(0.0..=1.0).contains(&p) {
            fail("dropout", format!("{p} is no probability"));
        }
        let x = self.dynamic();
        super::unary::floating("dropout", x);
        if p == 0.0 {
            return self;
        }
        if p == 1.0 {
            return self.zeros_like();
        }
        let dropped = uniform(x.graph, x.dims(), seed, step.into()).lt(p);
        (x / (1.0 - p)).masked_fill(dropped, 0.0).retag()
    }
}
