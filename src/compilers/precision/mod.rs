//! `Precision`: numbers stored in 16 bits, computed and added in `F32`.
//!
//! | pass | before → after |
//! |---|---|
//! | [`MixedPrecision`] | a value that a back end would write to memory → the same rounded to 16 bits |
//! | [`WeightStorage`] | a weight of 32 bits → one of 16 bits, its data converted |
//!
//! Both are *annotations*: the loss is explicit in the graph as `cast`s, so the reference executor shows what it costs
//! and a back end has nothing to decide. `LlvmCpu` takes the casts into the kernels that read or write the values: no
//! kernel is there only to convert, and a sum of products adds in `F32`, whatever its operands are stored in.
//!
//! Which values are rounded follows the idea of automatic mixed precision (Micikevicius et al. 2018): products of
//! matrices take 16 bits well, reductions, exponentials and logarithms do not. Types of inputs and results do not
//! change, so code around the graph stays as it is. Numbers beyond the format's range become infinite: 65504 for
//! `F16`; `BF16` has the range of `F32`.
//!
//! What it deliberately does not do: scale losses or numbers (that is a trainer's business), round states (a key-value
//! cache has the format that the model gave it), compute in 16 bits.

mod mixed_precision;
mod weight_storage;

use std::sync::Arc;

pub use mixed_precision::MixedPrecision;
pub use weight_storage::WeightStorage;

use super::{Compiler, PassList, Report};
use crate::dtype::DType;

/// Whether the input of this name is a weight.
pub(crate) type IsWeight = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What of a graph is stored in 16 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Values,
    Weights,
    Both,
}

/// Stores numbers in 16 bits; see the [module](self).
///
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::compilers::Precision;
/// let mut cx = Graph::new();
/// let x = cx.tensor::<R2<1, 2>>().set([[1.0, 2.0]]);
/// let w = cx.tensor::<R2<2, 2>>().set_name("layer.weight").set([[1.0, 0.5], [1.0 / 3.0, 2.0]]);
/// let y = x.matmul(w).retrieve();
/// let report = cx.compile((Generic, Precision::bf16().weights_only(), Generic), ());
/// assert_eq!(report.hits("weight-storage"), 1);
/// cx.execute();
/// assert_eq!(y.data(), [1.0 + 2.0 * 0.333984375, 4.5], "a third has 8 significant bits");
/// ```
#[derive(Clone)]
pub struct Precision {
    dtype: DType,
    scope: Scope,
    is_weight: IsWeight,
}

impl Precision {
    /// Values in `BF16`; weights stay as they are.
    pub fn bf16() -> Precision {
        Precision::of(DType::BF16)
    }

    /// Values in `F16`; weights stay as they are.
    pub fn f16() -> Precision {
        Precision::of(DType::F16)
    }

    fn of(dtype: DType) -> Precision {
        Precision {
            dtype,
            scope: Scope::Values,
            is_weight: Arc::new(is_named_weight),
        }
    }

    /// Weights in 16 bits, and nothing else. Data that they have is converted, data that they are given later too.
    pub fn weights_only(self) -> Precision {
        Precision {
            scope: Scope::Weights,
            ..self
        }
    }

    /// Weights in 16 bits too.
    pub fn with_weights(self) -> Precision {
        Precision {
            scope: Scope::Both,
            ..self
        }
    }

    /// Says by name which inputs are weights. Otherwise those are whose name ends in `weight`, as parameters of
    /// [`nn`](crate::nn) and of checkpoints are called.
    pub fn weights_named(
        self,
        is_weight: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Precision {
        Precision {
            is_weight: Arc::new(is_weight),
            ..self
        }
    }
}

impl std::fmt::Debug for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Precision({}, {:?})", self.dtype, self.scope)
    }
}

impl Compiler for Precision {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        if self.scope != Scope::Values {
            list.push(WeightStorage::new(self.dtype, self.is_weight.clone()));
        }
        if self.scope != Scope::Weights {
            list.push(MixedPrecision::new(self.dtype));
        }
    }
}

fn is_named_weight(name: &str) -> bool {
    name.ends_with("weight")
}

/// Whether a format has 16 bits.
fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}
