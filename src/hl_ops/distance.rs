//! Distances and angles between vectors, and the losses made of them.

use super::axes::{AxisIndex, one_axis};
use super::loss::Reduction;
use super::operand::{broadcast, fail};
use crate::graph::{GraphTensor, Shape};

impl<S: Shape> GraphTensor<S> {
    /// `x / max(norm_p(x), eps)` along an axis.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([3.0, 4.0]);
    /// let y = x.normalize(2.0, 0, 1e-12).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [0.6, 0.8]);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, or the format is not a floating-point one.
    #[track_caller]
    pub fn normalize(self, p: f64, axis: impl AxisIndex, eps: f64) -> GraphTensor<S> {
        let axis = one_axis("normalize", &self.ty(), axis);
        let x = self.wide("normalize");
        (x / x.norm_keepdim(axis, p).maximum(eps)).narrowed(self)
    }
}

impl GraphTensor {
    /// The cosine of the angle between vectors along an axis: `a · b / (max(|a|, eps) max(|b|, eps))`. The operands are
    /// broadcast; the axis is counted after that, and goes.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R1<2>>().set([3.0, 4.0]).dynamic();
    /// let b = cx.tensor::<R1<2>>().set([4.0, 3.0]).dynamic();
    /// let y = a.cosine_similarity(b, 0, 1e-8).retrieve();
    /// cx.execute();
    /// assert!((y.data()[0] - 0.96).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// If there is no such axis, shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn cosine_similarity(
        self,
        other: GraphTensor,
        axis: impl AxisIndex,
        eps: f64,
    ) -> GraphTensor {
        let op = "cosine_similarity";
        let [a, b] = broadcast(op, [self.wide(op), other.wide(op)]);
        let axis = one_axis(op, &a.ty(), axis);
        let unit = |x: GraphTensor| x / x.norm_keepdim(axis, 2).maximum(eps);
        (unit(a) * unit(b)).sum(axis).narrowed(self)
    }

    /// `norm_p(a - b + eps)` over the last axis, which goes. The operands are broadcast.
    ///
    /// # Panics
    /// If there is no axis, shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn pairwise_distance(self, other: GraphTensor, p: f64, eps: f64) -> GraphTensor {
        let op = "pairwise_distance";
        let [a, b] = broadcast(op, [self.wide(op), other.wide(op)]);
        (a - b + eps).norm(-1, p).narrowed(self)
    }

    /// The distance of every row of `self [.., m, d]` from every row of `other [.., n, d]`: `[.., m, n]`. Differences are
    /// taken before they are squared, so that near rows lose no digits.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let a = cx.tensor::<R2<1, 2>>().set([[0.0, 0.0]]).dynamic();
    /// let b = cx.tensor::<R2<2, 2>>().set([[3.0, 4.0], [1.0, 0.0]]).dynamic();
    /// let y = a.cdist(b, 2.0).retrieve();
    /// cx.execute();
    /// assert_eq!(y.data(), [5.0, 1.0]);
    /// ```
    ///
    /// # Panics
    /// If there are not two axes, shapes do not fit, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn cdist(self, other: GraphTensor, p: f64) -> GraphTensor {
        if self.rank() < 2 || other.rank() < 2 {
            let (a, b) = (self.ty(), other.ty());
            fail("cdist", format!("{a} and {b}: both need two axes"));
        }
        let (a, b) = (self.wide("cdist"), other.wide("cdist"));
        let difference = a.unsqueeze(-2) - b.unsqueeze(-3);
        difference.norm(-1, p).narrowed(self)
    }

    /// `1 - cos(a, b)` for pairs that are alike (`y = 1`), `max(0, cos(a, b) - margin)` for those that are not (`y = -1`).
    /// Vectors stand on the last axis.
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn cosine_embedding_loss(
        self,
        other: GraphTensor,
        target: GraphTensor,
        margin: f64,
        reduction: Reduction,
    ) -> GraphTensor {
        let op = "cosine_embedding_loss";
        let [a, b] = broadcast(op, [self.wide(op), other.wide(op)]);
        // What keeps the root away from 0.
        let square = |x: GraphTensor| x.square().sum(-1) + 1e-12;
        let cosine = (a * b).sum(-1) * (square(a) * square(b)).rsqrt();
        let [target, cosine] = broadcast(op, [target.cast(a.dtype()), cosine]);
        let alike = target.eq(1.0).where_(1.0 - cosine, 0.0);
        let apart = target.eq(-1.0).where_((cosine - margin).maximum(0.0), 0.0);
        reduction.of(alike + apart).narrowed(self)
    }

    /// `max(0, d(x, positive) - d(x, negative) + margin)` with the distance of [`GraphTensor::pairwise_distance`]. With
    /// `swap`, the negative's distance from the nearer of `x` and the positive counts (Balntas et al. 2016).
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn triplet_margin_loss(
        self,
        positive: GraphTensor,
        negative: GraphTensor,
        rule: Triplet,
        reduction: Reduction,
    ) -> GraphTensor {
        let x = self.wide("triplet_margin_loss");
        let [positive, negative] = [positive, negative].map(|other| other.cast(x.dtype()));
        let distance = |a: GraphTensor, b| a.pairwise_distance(b, rule.p, rule.eps);
        let mut far = distance(x, negative);
        if rule.swap {
            far = far.minimum(distance(positive, negative));
        }
        let losses = (distance(x, positive) - far + rule.margin).maximum(0.0);
        reduction.of(losses).narrowed(self)
    }

    /// `y[o] = a · W[o] · b + bias[o]` for vectors `a [.., i]`, `b [.., j]` and a weight `[o, i, j]`.
    ///
    /// # Panics
    /// If shapes do not fit.
    #[track_caller]
    pub fn bilinear(
        self,
        other: GraphTensor,
        weight: GraphTensor,
        bias: Option<GraphTensor>,
    ) -> GraphTensor {
        let half = GraphTensor::einsum("...i,oij->...oj", &[self, weight]);
        let out = GraphTensor::einsum("...oj,...j->...o", &[half, other]);
        match bias {
            Some(bias) => out + bias,
            None => out,
        }
    }
}

/// What a triplet loss measures with.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Triplet {
    /// How much farther away the negative should be.
    pub margin: f64,
    /// Which norm.
    pub p: f64,
    /// What is added to differences.
    pub eps: f64,
    /// Whether the positive's distance from the negative may count too.
    pub swap: bool,
}

impl Default for Triplet {
    fn default() -> Triplet {
        Triplet {
            margin: 1.0,
            p: 2.0,
            eps: 1e-6,
            swap: false,
        }
    }
}
