//! Losses of single elements: how far a prediction is from its target.
//!
//! Every loss is elementwise arithmetic and one reduction, so that compilers make one kernel of it. The forms are those that
//! stay finite: logits go through `softplus`, never through the logarithm of a sigmoid. Prediction and target are
//! broadcast to each other; 16-bit formats are computed in `F32` and rounded once.
//!
//! Losses over classes are in [`super::loss_class`], losses between vectors in [`super::distance`].

use std::f64::consts;

use super::operand::{broadcast, fail};
use crate::graph::GraphTensor;

/// What becomes of the losses of single elements (or samples).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Reduction {
    /// They stay.
    None,
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

impl Reduction {
    /// The losses, reduced over all axes.
    #[track_caller]
    pub(super) fn of(self, losses: GraphTensor) -> GraphTensor {
        match self {
            Reduction::None => losses,
            Reduction::Mean => losses.mean(..),
            Reduction::Sum => losses.sum(..),
        }
    }
}

/// Prediction and target in a format to compute in, broadcast to each other.
#[track_caller]
fn operands(op: &str, x: GraphTensor, target: GraphTensor) -> [GraphTensor; 2] {
    if x.dtype() != target.dtype() {
        let (x, target) = (x.ty(), target.ty());
        fail(
            op,
            format!("{x} against {target}: use `.cast(..)` on the target"),
        );
    }
    broadcast(op, [x.wide(op), target.wide(op)])
}

impl GraphTensor {
    /// The squared difference, `(x - y)²`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Reduction;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 5.0]).dynamic();
    /// let y = cx.tensor::<R1<2>>().set([2.0, 2.0]).dynamic();
    /// let loss = x.mse_loss(y, Reduction::Mean).retrieve();
    /// cx.execute();
    /// assert_eq!(loss.data(), [5.0]);
    /// ```
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn mse_loss(self, target: GraphTensor, reduction: Reduction) -> GraphTensor {
        let [x, y] = operands("mse_loss", self, target);
        reduction.of((x - y).square()).narrowed(self)
    }

    /// The absolute difference, `|x - y|`.
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn l1_loss(self, target: GraphTensor, reduction: Reduction) -> GraphTensor {
        let [x, y] = operands("l1_loss", self, target);
        reduction.of((x - y).abs()).narrowed(self)
    }

    /// `d² / (2 beta)` for differences `d` below `beta`, `|d| - beta / 2` beyond (Girshick 2015); [`GraphTensor::l1_loss`]
    /// for a `beta` of 0.
    ///
    /// # Panics
    /// If `beta` is negative, shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn smooth_l1_loss(
        self,
        target: GraphTensor,
        beta: f64,
        reduction: Reduction,
    ) -> GraphTensor {
        let [x, y] = operands("smooth_l1_loss", self, target);
        let distance = (x - y).abs();
        let losses = match beta {
            0.0 => distance,
            0.0.. => {
                let near = distance.square() * (0.5 / beta);
                distance.lt(beta).where_(near, distance - 0.5 * beta)
            }
            _ => fail("smooth_l1_loss", format!("a beta of {beta}")),
        };
        reduction.of(losses).narrowed(self)
    }

    /// `d² / 2` for differences `d` up to `delta`, `delta (|d| - delta / 2)` beyond (Huber 1964).
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Reduction;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([1.0, 5.0]).dynamic();
    /// let loss = x.huber_loss(x.zeros_like(), 2.0, Reduction::None).retrieve();
    /// cx.execute();
    /// assert_eq!(loss.data(), [0.5, 8.0]);
    /// ```
    ///
    /// # Panics
    /// If `delta` is not positive, shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn huber_loss(self, target: GraphTensor, delta: f64, reduction: Reduction) -> GraphTensor {
        if delta.is_nan() || delta <= 0.0 {
            fail("huber_loss", format!("a delta of {delta}"));
        }
        let [x, y] = operands("huber_loss", self, target);
        let distance = (x - y).abs();
        let far = (distance - 0.5 * delta) * delta;
        let losses = distance.le(delta).where_(distance.square() * 0.5, far);
        reduction.of(losses).narrowed(self)
    }

    /// `-(y ln(x) + (1 - y) ln(1 - x))` of probabilities `x`, times `weight`; logarithms are at least -100, so that the loss
    /// is finite. [`GraphTensor::bce_with_logits`] is more exact.
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn bce_loss(
        self,
        target: GraphTensor,
        weight: Option<GraphTensor>,
        reduction: Reduction,
    ) -> GraphTensor {
        let [x, y] = operands("bce_loss", self, target);
        let floor = -100.0;
        // Chosen before and after, so that no gradient of ln(0) is multiplied by 0.
        let (never, always) = (x.eq(0.0), x.eq(1.0));
        let yes = never.where_(1.0, x).log().maximum(floor);
        let yes = never.where_(floor, yes);
        let no = always.where_(0.0, -x).log1p().maximum(floor);
        let no = always.where_(floor, no);
        let losses = (y - 1.0) * no - y * yes;
        reduction.of(weighted(losses, weight)).narrowed(self)
    }

    /// The loss of [`GraphTensor::bce_loss`] at `sigmoid(x)`, computed as `(1 - y) x + softplus(-x)`, which neither overflows
    /// nor rounds to 0. `pos_weight` multiplies the part of `y`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::Reduction;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R1<2>>().set([-1000.0, 1000.0]).dynamic();
    /// let loss = x.bce_with_logits(x.zeros_like(), None, None, Reduction::None).retrieve();
    /// cx.execute();
    /// assert_eq!(loss.data(), [0.0, 1000.0]);
    /// ```
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn bce_with_logits(
        self,
        target: GraphTensor,
        weight: Option<GraphTensor>,
        pos_weight: Option<GraphTensor>,
        reduction: Reduction,
    ) -> GraphTensor {
        let [x, y] = operands("bce_with_logits", self, target);
        let mut tail = (-x).softplus();
        if let Some(factor) = pos_weight {
            tail *= (factor.cast(x.dtype()) - 1.0) * y + 1.0;
        }
        let losses = (1.0 - y) * x + tail;
        reduction.of(weighted(losses, weight)).narrowed(self)
    }

    /// The divergence of Kullback and Leibler (1951) of log-probabilities from probabilities: `y (ln(y) - x)`, or
    /// `exp(y) (y - x)` where `log_target`. The mean per sample is the sum divided by the number of samples.
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn kl_div(
        self,
        target: GraphTensor,
        log_target: bool,
        reduction: Reduction,
    ) -> GraphTensor {
        let [x, y] = operands("kl_div", self, target);
        let losses = match log_target {
            true => y.exp() * (y - x),
            false => y.xlogy(y) - y * x,
        };
        reduction.of(losses).narrowed(self)
    }

    /// The negative logarithm of the probability of counts `y` under a Poisson distribution of mean `exp(x)` (or of mean `x`,
    /// unless `log_input`), without `ln(y!)`; with it by Stirling's formula for counts above 1, where `full`. `eps` keeps
    /// the logarithm of a mean of 0 finite.
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn poisson_nll_loss(
        self,
        target: GraphTensor,
        log_input: bool,
        full: bool,
        eps: f64,
        reduction: Reduction,
    ) -> GraphTensor {
        let [x, y] = operands("poisson_nll_loss", self, target);
        let mut losses = match log_input {
            true => x.exp() - y * x,
            false => x - y * (x + eps).log(),
        };
        if full {
            let large = y.gt(1.0);
            let count = large.where_(y, 1.0);
            let stirling = count * count.log() - count + (count * consts::TAU).log() * 0.5;
            losses += large.where_(stirling, 0.0);
        }
        reduction.of(losses).narrowed(self)
    }

    /// The negative logarithm of the probability of `y` under a normal distribution of mean `x` and this variance, at least
    /// `eps`: `(ln(v) + (x - y)² / v) / 2`, with the constant `ln(2 pi) / 2` where `full` (Nix and Weigend 1994).
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn gaussian_nll_loss(
        self,
        target: GraphTensor,
        variance: GraphTensor,
        full: bool,
        eps: f64,
        reduction: Reduction,
    ) -> GraphTensor {
        let [x, y] = operands("gaussian_nll_loss", self, target);
        let variance = variance.cast(x.dtype()).maximum(eps);
        let mut losses = (variance.log() + (x - y).square() / variance) * 0.5;
        if full {
            losses += 0.5 * consts::TAU.ln();
        }
        reduction.of(losses).narrowed(self)
    }

    /// The distance `x` itself for pairs that are alike (`y = 1`), `max(0, margin - x)` for those that are not (`y = -1`).
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn hinge_embedding_loss(
        self,
        target: GraphTensor,
        margin: f64,
        reduction: Reduction,
    ) -> GraphTensor {
        let [x, y] = operands("hinge_embedding_loss", self, target);
        let apart = y.ne(1.0).where_((margin - x).maximum(0.0), 0.0);
        let losses = apart + y.ne(-1.0).where_(x, 0.0);
        reduction.of(losses).narrowed(self)
    }

    /// `max(0, margin - y (x - other))`: `x` should rank above `other` where `y` is 1, below where it is -1.
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn margin_ranking_loss(
        self,
        other: GraphTensor,
        target: GraphTensor,
        margin: f64,
        reduction: Reduction,
    ) -> GraphTensor {
        let [x, other] = operands("margin_ranking_loss", self, other);
        let losses = (margin - target.cast(x.dtype()) * (x - other)).maximum(0.0);
        reduction.of(losses).narrowed(self)
    }

    /// `ln(1 + exp(-y x))` for classes `y` of 1 and -1.
    ///
    /// # Panics
    /// If shapes do not broadcast, or formats differ or are not floating-point ones.
    #[track_caller]
    pub fn soft_margin_loss(self, target: GraphTensor, reduction: Reduction) -> GraphTensor {
        let [x, y] = operands("soft_margin_loss", self, target);
        reduction.of((-y * x).softplus()).narrowed(self)
    }
}

/// The losses times their weights, which are broadcast.
#[track_caller]
fn weighted(losses: GraphTensor, weight: Option<GraphTensor>) -> GraphTensor {
    match weight {
        Some(weight) => losses * weight.cast(losses.dtype()),
        None => losses,
    }
}
