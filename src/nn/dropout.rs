//! Dropout.

use super::module::{Module, Visitor};
use crate::graph::{GraphTensor, Shape};
use crate::shape::RUN;

/// Sets elements to 0 with probability `p` and divides the others by `1 - p` (Srivastava et al. 2014). Every execution
/// draws anew; for inference, record the graph without it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dropout {
    /// The probability of a 0.
    pub p: f64,
    /// Which random numbers; layers of one model need different ones.
    pub seed: u64,
}

impl Dropout {
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::nn::Dropout;
    /// let mut cx = Graph::new();
    /// let x = cx.full(1000, 1.0, DType::F32);
    /// let y = Dropout { p: 0.5, seed: 1 }.forward(x).retrieve();
    /// cx.execute();
    /// let first = y.data();
    /// assert!(first.iter().all(|&y| y == 0.0 || y == 2.0));
    /// cx.execute();
    /// assert_ne!(y.data(), first);
    /// ```
    ///
    /// # Panics
    /// If `p` is no probability, or the format is not a floating-point one.
    #[track_caller]
    pub fn forward<S: Shape>(&self, x: GraphTensor<S>) -> GraphTensor<S> {
        x.dropout(self.p, self.seed, RUN)
    }
}

/// Without parameters.
impl Module for Dropout {
    fn visit(&self, _: &mut Visitor<'_>) {}
}
