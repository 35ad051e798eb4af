//! `Quantize`: weights in blocks of a few bits, activations in 8.
//!
//! | pass | before → after |
//! |---|---|
//! | [`WeightBlocks`] | a weight that is multiplied along its last axis, or looked up by rows → bytes, and a `dequantize` |
//! | [`NarrowCasts`] | numbers of blocks rounded to the format that the weight had, and back → the numbers |
//! | [`BlockRows`] | rows looked up in decoded numbers → decoded rows |
//! | [`RoundActivations`] | the other factor of a product with blocks → the same rounded to 8 bits |
//!
//! All of it is *annotation*: after it the graph says what is lost, and the reference executor computes with exactly
//! that. `LlvmCpu` then multiplies whole numbers without changing what the graph says (its pass `block-products`).
//!
//! ```text
//! %0 = input<0> : f32[9, 64] "up.weight"         %0 = input<0> : u8[9, 68] "up.weight"
//! %2 = mul(%1 {..}, %0 {..})                  →  %1 = dequantize<Q8_0>(%0) : f32[9, 64]
//! %3 = sum_reduce<2>(%2)                         %3 = fake_quantize<a8_g32>(%2) : f32[s, 64]
//!                                                %4 = mul(%3 {..}, %1 {..}); %5 = sum_reduce<2>(%4)
//! ```
//! Weights are found by their use, not by a model's names: any constant input of static size whose only readers multiply
//! whole rows of it or look rows up. The report lists what was stored how, with what error.
//!
//! With a [`Calibration`] (see [`Calibrate`](super::Calibrate)) scales are those of least error in what the graph computes; the
//! blocks are of the same formats.
//!
//! What it deliberately does not do: round states or products of two computed values, choose types by itself (a plan says
//! them: by name, or made from measurements).

mod activations;
pub mod plan;
pub(in crate::compilers) mod weights;

use std::sync::Arc;

pub use activations::RoundActivations;
pub use plan::{Candidate, Measured, Plan, Planned};
pub(super) use weights::check_columns;
pub use weights::{BlockRows, NarrowCasts, WeightBlocks};

use super::{Compiler, Group, PassList, Report};
use crate::blocks::BlockType;
use crate::formats::Calibration;
use crate::op::ActivationScheme;

/// The type of the blocks for the weight of this name; `None` leaves it as it is.
pub(crate) type Choice = Arc<dyn Fn(&str) -> Option<BlockType> + Send + Sync>;

/// Stores weights in blocks of a few bits; see the [module](self).
///
/// ```
/// use brain_blitz::prelude::*;
/// use brain_blitz::compilers::Quantize;
/// let mut cx = Graph::new();
/// let x = cx.input(('s', 32), DType::F32).set(vec![1.0; 64]);
/// let w = cx.input((3, 32), DType::F32).set_name("w.weight").set(vec![0.5; 96]);
/// let y = x.matmul(w.transpose(0, 1)).retrieve();
/// let report = cx.compile((Generic, Quantize::q8_0(), LlvmCpu::native()), ());
/// assert_eq!((report.stored.len(), report.stored[0].bytes), (1, 3 * 34));
/// cx.set_dim('s', 2);
/// cx.execute();
/// assert!(y.data().iter().all(|y| (y - 16.0).abs() < 0.01));
/// ```
#[derive(Clone)]
pub struct Quantize {
    plan: Choice,
    activations: Rounding,
    calibration: Arc<Calibration>,
    /// Whether data is encoded.
    encodes: bool,
}

/// How activations are rounded.
#[derive(Clone, Copy, Debug)]
enum Rounding {
    None,
    /// As fits the weights.
    ByType,
    All(ActivationScheme),
}

impl Quantize {
    /// Every weight in blocks of one type.
    pub fn blocks(ty: BlockType) -> Quantize {
        Quantize::mixed(move |_| Some(ty))
    }

    /// 8 bits and a scale for 32 weights: 8.5 bits a weight.
    pub fn q8_0() -> Quantize {
        Quantize::blocks(BlockType::Q8_0)
    }

    /// 4 bits and a scale for 32 weights: 4.5 bits a weight.
    pub fn q4_0() -> Quantize {
        Quantize::blocks(BlockType::Q4_0)
    }

    /// 4 bits with 6-bit scales and minima for 32 of 256 weights: 4.5 bits a weight.
    pub fn q4_k() -> Quantize {
        Quantize::blocks(BlockType::Q4_K)
    }

    /// Each weight in the type that `plan` says for its name (empty if it has none), or as it is.
    pub fn mixed(plan: impl Fn(&str) -> Option<BlockType> + Send + Sync + 'static) -> Quantize {
        Quantize {
            plan: Arc::new(plan),
            activations: Rounding::ByType,
            calibration: Arc::default(),
            encodes: true,
        }
    }

    /// Chooses the scales of weights that `calibration` knows so that errors in columns matter as much as what these are
    /// multiplied by: with mean squares, as llama.cpp does with its importance matrices.
    pub fn calibrated(self, calibration: impl Into<Arc<Calibration>>) -> Quantize {
        Quantize {
            calibration: calibration.into(),
            ..self
        }
    }

    /// Takes types without an encoder too, for data that comes in blocks.
    pub fn stored(self) -> Quantize {
        Quantize {
            encodes: false,
            ..self
        }
    }

    /// Rounds activations by one scheme, not by that of the weights' type ([`ActivationScheme::for_weights`]).
    pub fn activations(self, scheme: ActivationScheme) -> Quantize {
        Quantize {
            activations: Rounding::All(scheme),
            ..self
        }
    }

    /// Leaves activations as they are: products then read decoded numbers.
    pub fn weights_only(self) -> Quantize {
        Quantize {
            activations: Rounding::None,
            ..self
        }
    }
}

impl std::fmt::Debug for Quantize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Quantize({:?})", self.activations)
    }
}

impl Compiler for Quantize {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        let weights = WeightBlocks::new(self.plan.clone(), self.calibration.clone(), self.encodes);
        list.push(weights);
        list.group(
            Group::Fixpoint,
            vec![
                Box::new(NarrowCasts),
                Box::new(BlockRows),
                Box::new(super::generic::DeadCode),
            ],
        );
        match self.activations {
            Rounding::None => {}
            Rounding::ByType => list.push(RoundActivations::new(None)),
            Rounding::All(scheme) => list.push(RoundActivations::new(Some(scheme))),
        }
    }
}
