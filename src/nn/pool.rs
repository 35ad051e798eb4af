//! Pools as layers. Over how many of the last axes they go, their sizes say.

use super::module::{Module, Visitor};
use crate::graph::GraphTensor;
use crate::hl_ops::{Divisor, Pool};

/// The largest element of every window.
#[derive(Clone, Debug)]
pub struct MaxPool {
    /// How windows lie.
    pub rule: Pool,
}

/// The mean of every window.
#[derive(Clone, Debug)]
pub struct AvgPool {
    /// How windows lie.
    pub rule: Pool,
    /// What sums are divided by.
    pub divisor: Divisor,
}

/// The largest element of each of so many windows.
#[derive(Clone, Debug)]
pub struct AdaptiveMaxPool {
    /// Sizes of the last axes of the result.
    pub sizes: Vec<usize>,
}

/// The mean of each of so many windows.
#[derive(Clone, Debug)]
pub struct AdaptiveAvgPool {
    /// Sizes of the last axes of the result.
    pub sizes: Vec<usize>,
}

impl MaxPool {
    /// See [`GraphTensor::max_pool`].
    ///
    /// ```
    /// # use brain_blitz::prelude::*;
    /// use brain_blitz::{hl_ops::Pool, nn::MaxPool};
    /// let mut cx = Graph::new();
    /// let pool = MaxPool { rule: Pool::new([2, 2]) };
    /// let x = cx.input((1, 3, 8, 6), DType::F32);
    /// assert_eq!(pool.forward(x).ty().to_string(), "f32[1, 3, 4, 3]");
    /// ```
    ///
    /// # Panics
    /// If no window fits.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        x.max_pool(&self.rule)
    }
}

impl AvgPool {
    /// See [`GraphTensor::avg_pool`].
    ///
    /// # Panics
    /// If no window fits, or the format is not a floating-point one.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        x.avg_pool(&self.rule, self.divisor)
    }
}

impl AdaptiveMaxPool {
    /// See [`GraphTensor::adaptive_max_pool`].
    ///
    /// # Panics
    /// If an axis is symbolic or empty.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        x.adaptive_max_pool(&self.sizes)
    }
}

impl AdaptiveAvgPool {
    /// See [`GraphTensor::adaptive_avg_pool`].
    ///
    /// # Panics
    /// If an axis is symbolic or empty, or the format is not a floating-point one.
    #[track_caller]
    pub fn forward(&self, x: GraphTensor) -> GraphTensor {
        x.adaptive_avg_pool(&self.sizes)
    }
}

macro_rules! without_parameters {
    ($($layer:ty),*) => {
        $(
            /// Without parameters.
            impl Module for $layer {
                fn visit(&self, _: &mut Visitor<'_>) {}
            }
        )*
    };
}

without_parameters!(MaxPool, AvgPool, AdaptiveMaxPool, AdaptiveAvgPool);
