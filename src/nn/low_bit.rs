//! How layers of a few bits round their weights and inputs, while they are trained and afterwards.
//!
//! ```text
//! latent w: f32[rows, k]  →  units [rows, k] of -1, (0,) 1, and scales [rows]  →  w ≈ scales * units
//! inputs x: f32[.., k]    →  signs, signs and sizes of rows, or 8, 4 or 2 bits with a scale for each row
//! ```
//! The *latent* weights are `f32` numbers that an optimizer moves by small steps; what is multiplied is their signs, so
//! most steps change nothing, and their sum does (Courbariaux et al. 2015). Scales are mean magnitudes of rows, computed
//! in `F64` and rounded as they are stored, so a network is trained with the numbers that it will have.
//!
//! Gradients: `scales * units` is taken as a function of `w` whose slope is that of the estimator at `w / scale`; the scale's
//! own gradient flows too. So an estimator that clips holds back weights that are larger than their row's scale, whatever
//! the size of the row.
//!
//! Invariants: units and scales are those that [`SignMatrix`](crate::blocks::SignMatrix) stores for the same numbers (but
//! for means that lie so near the middle of two `f32` that the order of additions in `F64` decides). What it deliberately
//! does not do: choose layers, move weights, several bases.

use crate::blocks::SignFit;
use crate::dtype::DType;
use crate::graph::GraphTensor;
use crate::hl_ops::SignEstimator;
use crate::op::{ActivationScheme, PlanePart, Planes};

/// What the inputs of a layer become.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SignInputs {
    /// What they are.
    Kept,
    /// 8 bits with a scale for each row; gradients flow as if nothing were rounded.
    Bytes,
    /// 16 levels with a scale for each row ([`Planes`]); gradients flow to all within the levels.
    FourBits,
    /// 4 levels, alike.
    TwoBits,
    /// Signs.
    #[default]
    Signs,
    /// Signs times the mean magnitude of the row (Rastegari et al. 2016, section 3.2).
    ScaledSigns,
}

impl SignInputs {
    /// All of them, from many bits to few.
    pub const ALL: [SignInputs; 6] = [
        SignInputs::Kept,
        SignInputs::Bytes,
        SignInputs::FourBits,
        SignInputs::TwoBits,
        SignInputs::ScaledSigns,
        SignInputs::Signs,
    ];

    /// How numbers are rounded, where they are not kept and do not become signs.
    pub fn scheme(self) -> Option<ActivationScheme> {
        match self {
            SignInputs::Bytes => Some(ActivationScheme::A8Tok),
            SignInputs::FourBits => Some(ActivationScheme::A4Tok),
            SignInputs::TwoBits => Some(ActivationScheme::A2Tok),
            SignInputs::Kept | SignInputs::Signs | SignInputs::ScaledSigns => None,
        }
    }

    /// The inputs that are rounded so, if a layer of signs can have them.
    pub fn of_scheme(scheme: ActivationScheme) -> Option<SignInputs> {
        let mut all = SignInputs::ALL.into_iter();
        all.find(|inputs| inputs.scheme() == Some(scheme))
    }
}

/// How a layer rounds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct LowBit {
    /// How weights become signs, or three values, and scales.
    pub fit: SignFit,
    /// What is multiplied by them.
    pub inputs: SignInputs,
    /// The gradient of a weight's sign, at the weight over its scale.
    pub weight_estimator: SignEstimator,
    /// The gradient of an input's sign.
    pub input_estimator: SignEstimator,
}

impl LowBit {
    /// Signs by signs. Gradients reach all weights, and inputs between -1 and 1.
    pub fn w1a1() -> LowBit {
        LowBit {
            weight_estimator: SignEstimator::Identity,
            ..LowBit::default()
        }
    }

    /// Signs by inputs of 8 bits.
    pub fn w1a8() -> LowBit {
        LowBit {
            inputs: SignInputs::Bytes,
            ..LowBit::w1a1()
        }
    }

    /// Signs by inputs of 4 bits.
    pub fn w1a4() -> LowBit {
        LowBit::w1a1().inputs(SignInputs::FourBits)
    }

    /// Signs by inputs of 2 bits.
    pub fn w1a2() -> LowBit {
        LowBit::w1a1().inputs(SignInputs::TwoBits)
    }

    /// Weights of three values, 0 among them.
    ///
    /// ```
    /// use brain_blitz::nn::{LowBit, SignInputs};
    /// let ternary = LowBit::w1a8().ternary();
    /// assert!(ternary.fit.ternary && ternary.inputs == SignInputs::Bytes);
    /// ```
    pub fn ternary(mut self) -> LowBit {
        self.fit.ternary = true;
        self
    }

    /// Scales of weights are rounded to `f16`.
    pub fn half_scales(mut self) -> LowBit {
        self.fit.half_scales = true;
        self
    }

    /// Other inputs.
    pub fn inputs(mut self, inputs: SignInputs) -> LowBit {
        self.inputs = inputs;
        self
    }

    /// Other gradients of signs: of weights, and of inputs.
    pub fn estimators(mut self, weights: SignEstimator, inputs: SignEstimator) -> LowBit {
        (self.weight_estimator, self.input_estimator) = (weights, inputs);
        self
    }

    /// Units `[rows, k]` and scales `[rows]` of latent weights `[rows, k]`.
    ///
    /// # Panics
    /// If it is no matrix of `F32` of known sizes.
    #[track_caller]
    pub fn weight(&self, w: GraphTensor) -> (GraphTensor, GraphTensor) {
        let sign = w.raw_sign();
        let (units, scales) = match self.fit.ternary {
            true => self.three_values(w, sign),
            false => (sign, self.mean_magnitudes(w, sign)),
        };
        // A row of zeros has scale 0.
        let scale = scales.detach().maximum(f64::from(f32::MIN_POSITIVE));
        let relative = w * scale.recip().unsqueeze(-1);
        let units = relative.straight_through_sign(units, self.weight_estimator);
        (units, scales)
    }

    /// Scales of signs.
    fn mean_magnitudes(&self, w: GraphTensor, sign: GraphTensor) -> GraphTensor {
        let k = w.dims()[1].as_usize().expect("a weight's sizes are known") as f64;
        let sizes = w.detach().cast(DType::F64).abs();
        let value = self.stored(sizes.sum(-1) * k.recip());
        (w * sign).mean(-1).straight_through(value)
    }

    /// Units of which those near 0 are 0, and their scales.
    fn three_values(&self, w: GraphTensor, sign: GraphTensor) -> (GraphTensor, GraphTensor) {
        let k = w.dims()[1].as_usize().expect("a weight's sizes are known") as f64;
        let sizes = w.detach().cast(DType::F64).abs();
        let limit = sizes.sum(-1) * k.recip() * 0.75;
        let is_large = sizes.gt(limit.unsqueeze(-1));
        let units = is_large.where_(sign, sign.zeros_like());
        let mask = is_large.cast(DType::F64);
        let n = mask.sum(-1).maximum(1.0);
        // Stored are two bases of half the scale.
        let value = self.stored((sizes * mask).sum(-1) / n * 0.5) * 2.0;
        let mean = (w * units).sum(-1) / n.cast(DType::F32);
        (units, mean.straight_through(value))
    }

    /// Rounded as scales are stored.
    fn stored(&self, scale: GraphTensor) -> GraphTensor {
        let scale = scale.cast(DType::F32);
        match self.fit.half_scales {
            true => scale.cast(DType::F16).cast(DType::F32),
            false => scale,
        }
    }

    /// What rows of inputs `[.., k]` become, and what products with them are multiplied by, `[.., 1]`.
    #[track_caller]
    pub(super) fn rows(&self, x: GraphTensor) -> (GraphTensor, Option<GraphTensor>) {
        match self.inputs {
            SignInputs::Kept => (x, None),
            SignInputs::Bytes => (x.fake_quantize(ActivationScheme::A8Tok), None),
            SignInputs::FourBits => levels(x, Planes::Four),
            SignInputs::TwoBits => levels(x, Planes::Two),
            SignInputs::Signs => (x.binary_sign_with(self.input_estimator), None),
            SignInputs::ScaledSigns => {
                let signs = x.binary_sign_with(self.input_estimator);
                (signs, Some(x.abs().mean(-1).unsqueeze(-1)))
            }
        }
    }
}

/// Levels of rows, and their scales: multiplied afterwards, so that sums of products with units are whole numbers here too, and
/// those that are 0 have the same sign wherever they are computed. No gradient flows through the scales.
#[track_caller]
fn levels(x: GraphTensor, planes: Planes) -> (GraphTensor, Option<GraphTensor>) {
    let k = x.dims().last().and_then(|dim| dim.as_usize());
    let k = k.expect("rows of inputs have a known length");
    let rows = x.pack_planes(planes);
    let levels = rows.unpack_planes(k, planes, PlanePart::Levels);
    let scales = rows.unpack_planes(k, planes, PlanePart::Scales);
    let scales = scales.unsqueeze(-1);
    // A row of zeros has scale 0.
    let steps = x * scales.maximum(f64::from(f32::MIN_POSITIVE)).recip();
    let is_within = steps.abs().le(planes.levels() as f64);
    let passed = is_within.where_(steps, steps.detach());
    (passed.straight_through(levels), Some(scales))
}
