//! Losses over classes, which stand on axis 1 (on axis 0 of a single sample).
//!
//! A class is an `I32` index; its score is looked up with a gather, which reads one score of each sample. Ignored samples
//! read class 0 and count nothing.

use super::coordinates::int;
use super::loss::Reduction;
use super::operand::fail;
use crate::dtype::DType;
use crate::graph::GraphTensor;
use crate::op::Op;
use crate::shape::Expr;

/// What a cross entropy takes into account.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrossEntropy {
    /// `[classes]`: how much a sample of a class counts.
    pub weight: Option<GraphTensor>,
    /// Samples of this class do not count.
    pub ignore_index: Option<i32>,
    /// The share of the probability that is spread over all classes evenly (Szegedy et al. 2016).
    pub label_smoothing: f64,
    /// What becomes of the samples' losses. A mean is weighted, over the samples that count.
    pub reduction: Reduction,
}

/// Samples whose classes are known.
struct Labelled {
    /// The scores, in a format to compute in.
    scores: GraphTensor,
    /// The axis of classes.
    axis: usize,
    /// Each sample's class, `I32`; 0 where ignored. With an axis of size 1 for the classes.
    class: GraphTensor,
    /// How much each sample counts, without the axis of classes.
    weight: GraphTensor,
}

impl Labelled {
    #[track_caller]
    fn new(op: &str, scores: GraphTensor, target: GraphTensor, rule: &CrossEntropy) -> Labelled {
        let ty = scores.ty();
        if ty.dims.is_empty() || target.dtype() != DType::I32 {
            fail(
                op,
                format!("scores {ty} with classes {}; classes are i32", target.ty()),
            );
        }
        let axis = usize::from(ty.dims.len() > 1);
        let (scores, class) = (scores.wide(op), target.unsqueeze(axis));
        let counts = rule.ignore_index.map(|ignored| class.ne(ignored));
        let class = match counts {
            Some(counts) => counts.where_(class, 0),
            None => class,
        };
        let mut weight = match rule.weight {
            Some(weight) => {
                let weight = weight.cast(scores.dtype());
                weight.index_select(0, class.squeeze(axis))
            }
            None => class.squeeze(axis).cast(scores.dtype()).ones_like(),
        };
        if let Some(counts) = counts {
            weight = counts.squeeze(axis).where_(weight, 0.0);
        }
        Labelled {
            scores,
            axis,
            class,
            weight,
        }
    }

    /// The score of each sample's own class.
    #[track_caller]
    fn own(&self) -> GraphTensor {
        self.scores.gather(self.axis, self.class)
    }

    /// `x [n, ..]` times the weights; what has none counts nothing, whatever it is.
    #[track_caller]
    fn weighted(&self, x: GraphTensor) -> GraphTensor {
        self.weight.eq(0.0).where_(0.0, x * self.weight)
    }

    /// The losses reduced; a mean is over weights.
    #[track_caller]
    fn reduce(&self, losses: GraphTensor, reduction: Reduction) -> GraphTensor {
        match reduction {
            Reduction::Mean => losses.sum(..) / self.weight.sum(..),
            other => other.of(losses),
        }
    }
}

/// A vector of classes along an axis of `x`.
#[track_caller]
fn along_axis(x: GraphTensor, vector: GraphTensor, axis: usize) -> GraphTensor {
    let mut dims: Vec<Expr> = vec![Expr::from(1); x.rank()];
    dims[axis] = vector.dims()[0];
    vector.cast(x.dtype()).reshape(dims)
}

impl GraphTensor {
    /// The negative log-probability of each sample's class, from log-probabilities `[n, classes, ..]` (or `[classes]`) and
    /// classes `I32 [n, ..]`.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::CrossEntropy;
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[-1.0, -2.0], [-3.0, -4.0]]).dynamic();
    /// let classes = cx.input(2, DType::I32).set([1, 0]);
    /// let loss = x.nll_loss(classes, &CrossEntropy::default()).retrieve();
    /// cx.execute();
    /// assert_eq!(loss.data(), [2.5]);
    /// ```
    ///
    /// # Panics
    /// If classes are not `I32`, shapes do not fit, or the rule smooths labels.
    #[track_caller]
    pub fn nll_loss(self, target: GraphTensor, rule: &CrossEntropy) -> GraphTensor {
        if rule.label_smoothing != 0.0 {
            fail("nll_loss", "labels are smoothed by `cross_entropy`".into());
        }
        let samples = Labelled::new("nll_loss", self, target, rule);
        let losses = -samples.weighted(samples.own().squeeze(samples.axis));
        samples.reduce(losses, rule.reduction).narrowed(self)
    }

    /// The cross entropy of `softmax(x)` against a class `I32 [n, ..]` or against probabilities of the shape of `x`,
    /// which is `[n, classes, ..]` or `[classes]`; computed from logits, so that it stays finite.
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::hl_ops::{CrossEntropy, Reduction};
    /// let mut cx = Graph::new();
    /// let x = cx.tensor::<R2<2, 2>>().set([[0.0, 1000.0], [5.0, 5.0]]).dynamic();
    /// let classes = cx.input(2, DType::I32).set([0, 1]);
    /// let rule = CrossEntropy { reduction: Reduction::None, ..Default::default() };
    /// let loss = x.cross_entropy(classes, &rule).retrieve();
    /// cx.execute();
    /// assert_eq!(loss.data()[0], 1000.0);
    /// assert!((loss.data()[1] - 2f32.ln()).abs() < 1e-6);
    /// ```
    ///
    /// # Panics
    /// If shapes do not fit, or the target is neither `I32` nor of the scores' format.
    #[track_caller]
    pub fn cross_entropy(self, target: GraphTensor, rule: &CrossEntropy) -> GraphTensor {
        let axis = usize::from(self.rank() > 1);
        let log = self.wide("cross_entropy").log_softmax(axis);
        if target.dtype() != DType::I32 {
            return soft_cross_entropy(log, target, axis, rule).narrowed(self);
        }
        let samples = Labelled::new("cross_entropy", log, target, rule);
        let mut losses = -samples.weighted(samples.own().squeeze(axis));
        if rule.label_smoothing != 0.0 {
            let share = rule.label_smoothing;
            let spread = match rule.weight {
                Some(weight) => log * along_axis(log, weight, axis),
                None => log,
            };
            let mut even = -spread.mean(axis);
            if let Some(ignored) = rule.ignore_index {
                even = target.ne(ignored).where_(even, 0.0);
            }
            losses = losses * (1.0 - share) + even * share;
        }
        samples.reduce(losses, rule.reduction).narrowed(self)
    }

    /// `sum over other classes of max(0, margin - x[y] + x[j])^p`, divided by the number of classes, times the own class's
    /// weight; scores `[n, classes]` (or `[classes]`), classes `I32 [n]`.
    ///
    /// # Panics
    /// If classes are not `I32`, or shapes do not fit.
    #[track_caller]
    pub fn multi_margin_loss(
        self,
        target: GraphTensor,
        p: i32,
        margin: f64,
        weight: Option<GraphTensor>,
        reduction: Reduction,
    ) -> GraphTensor {
        let rule = CrossEntropy {
            weight,
            ..CrossEntropy::default()
        };
        let samples = Labelled::new("multi_margin_loss", self, target, &rule);
        let (x, axis) = (samples.scores, samples.axis);
        let hinge = (x - samples.own() + margin).maximum(0.0);
        let len = x.dims()[axis];
        let classes = GraphTensor::leaf(x.graph, Op::Iota { len });
        let is_own = samples.class.eq(classes);
        let terms = is_own.where_(0.0, hinge.pow(p));
        reduction
            .of(samples.weighted(terms.mean(axis)))
            .narrowed(self)
    }
}

/// The cross entropy against probabilities.
#[track_caller]
fn soft_cross_entropy(
    log: GraphTensor,
    target: GraphTensor,
    axis: usize,
    rule: &CrossEntropy,
) -> GraphTensor {
    let mut target = target.cast(log.dtype());
    if target.dims() != log.dims() {
        let (x, target) = (log.ty(), target.ty());
        fail(
            "cross_entropy",
            format!("scores {x} with probabilities {target}"),
        );
    }
    let classes = log.dims()[axis];
    if rule.label_smoothing != 0.0 {
        let share = rule.label_smoothing;
        let even = int(log.graph, classes).cast(log.dtype()).recip();
        target = target * (1.0 - share) + even * share;
    }
    let mut terms = log * target;
    if let Some(weight) = rule.weight {
        terms *= along_axis(log, weight, axis);
    }
    let losses = -terms.sum(axis);
    rule.reduction.of(losses)
}
