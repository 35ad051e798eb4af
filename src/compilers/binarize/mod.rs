//! `Binarize`: weights of one bit (or a few), activations of one bit, two, four or eight.
//!
//! | pass | before → after |
//! |---|---|
//! | [`SignWeights`] | a weight of a layer that the plan picks → signs and scales, and what they stand for |
//! | [`SignFactors`] | a product with such a weight → products of signs, times scales |
//!
//! Both are *annotation*: after them the graph says what is lost, and the reference executor computes with exactly that.
//! Products of signs are of ones, so they are whole numbers that every order of additions gives; `LlvmCpu` counts bits instead
//! (its pass `sign-products`) and gives the same bits of every result. Activations of 4 and of 2 bits are levels, whole numbers
//! that planes of bits hold, times a scale that is multiplied last: there native code has the reference's bits too
//! (`pack_planes`, `unpack_planes`). With activations of 8 bits the whole numbers are exact, and the result differs by the rounding
//! of the reference's additions.
//!
//! ```text
//! %0 = input<0> : f32[9, 64] "up.weight"       %0 = input<0> : u8[1, 768] "up.weight"
//! %2 = mul(%1 {..}, %0 {..})                →  %2 = pack_signs(%1) : u8[s, 8]; %3 = unpack_signs<64>(%2) : f32[s, 64]
//! %3 = sum_reduce<2>(%2) : f32[s, 9]           %4 = sign_matrix<9, 64, 1, signs 0>(%0) : f32[9, 64]
//!                                              %5 = mul(%3 {..}, %4 {..}); %6 = sum_reduce<2>(%5) : f32[s, 9]
//!                                              %7 = sign_matrix<9, 64, 1, scales 0>(%0) : f32[9]
//!                                              %8 = mul(%6, %7 {..}); %9 = mul(%8, mean |%1| {..})
//! ```
//! A *layer* is a constant input `[rows, columns]` that is only multiplied by whole rows. Which are stored so, the plan says
//! ([`Layer`], [`Choice`]); the report has every decision with its reason. Unless told otherwise the first and the last
//! products stay as they are (Rastegari et al. 2016, section 4), and activations that cannot be negative get eight
//! bits instead of one or two: all their signs are the same. Activations that the graph rounds itself, to signs or to a few bits, are taken as they are,
//! wherever the layer is.
//!
//! Signs without training are far from the numbers: [`Binarize::round_for_training`] writes the same rounding into a graph that
//! is to be trained, with gradients that flow through it.
//!
//! What it deliberately does not do: measure what a layer loses,
//! convolutions (padding is neither +1 nor -1), scales for groups of a row (`Quantize` with `Q1_0`).

mod layers;
mod one_signed;
mod products;
mod rounding;
mod site;
mod weights;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub use products::SignFactors;
pub use rounding::TrainedWeights;
pub use weights::SignWeights;

use super::{Compiler, Group, PassList, Report};
use crate::blocks::SignFit;
use crate::formats::Calibration;
pub use crate::nn::SignInputs as SignActivations;

/// How a layer is computed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SignScheme {
    /// How many bits a weight has, 1 to 4.
    pub bases: usize,
    /// How they are found.
    pub fit: SignFit,
    /// What the other factor becomes.
    pub activations: SignActivations,
}

/// A layer, as plans see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layer {
    /// The weight's name, empty if it has none.
    pub name: String,
    /// The weight's rows.
    pub rows: usize,
    /// The weight's columns.
    pub columns: usize,
    /// Whether what it multiplies comes from no other layer.
    pub is_first: bool,
    /// Whether its result reaches no other layer.
    pub is_last: bool,
    /// Whether what it multiplies is known to have no negative numbers.
    pub is_one_signed: bool,
    /// What the graph itself rounds its activations to, signs or a few bits: such a layer is meant to be binary.
    pub rounded: Option<SignActivations>,
}

/// What becomes of a layer, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// It stays as it is.
    Stay(String),
    /// It is computed so.
    Binarize(SignScheme, String),
}

type Plan = Arc<dyn Fn(&Layer, Choice) -> Choice + Send + Sync>;

/// What becomes of the activations of layers, by the numbers of the weights' inputs.
type Chosen = Arc<Mutex<BTreeMap<u32, SignActivations>>>;

/// Stores weights as signs; see the [module](self). Without further words: one bit for weights and for activations, both with
/// scales for rows.
///
/// ```
/// use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// let x = cx.input(('s', 32), DType::F32).set(vec![1.0; 64]);
/// let layer = |cx: &mut Graph, x: GraphTensor, name: &str| {
///     let w = cx.input((32, 32), DType::F32).set_name(name).set(vec![-0.5; 1024]);
///     x.matmul(w.transpose(0, 1))
/// };
/// let x = layer(&mut cx, x, "first");
/// let x = layer(&mut cx, x, "middle");
/// let y = layer(&mut cx, x, "last").retrieve();
/// let report = cx.compile(<(Generic, Binarize, LlvmCpu)>::default(), ());
/// assert_eq!((report.signed.len(), report.signed[0].name.as_str()), (1, "middle"));
/// cx.set_dim('s', 2);
/// cx.execute();
/// assert_eq!(y.data(), [-4096.0; 64]);
/// ```
#[derive(Clone)]
pub struct Binarize {
    scheme: SignScheme,
    spares_ends: bool,
    plan: Option<Plan>,
    calibration: Arc<Calibration>,
}

impl Default for Binarize {
    fn default() -> Binarize {
        Binarize::w1a1()
    }
}

impl Binarize {
    /// A bit for weights and activations.
    pub fn w1a1() -> Binarize {
        Binarize {
            scheme: SignScheme {
                bases: 1,
                fit: SignFit::default(),
                activations: SignActivations::ScaledSigns,
            },
            spares_ends: true,
            plan: None,
            calibration: Arc::default(),
        }
    }

    /// A bit for weights, eight for activations.
    pub fn w1a8() -> Binarize {
        Binarize::w1a1().activations(SignActivations::Bytes)
    }

    /// A bit for weights, four for activations.
    pub fn w1a4() -> Binarize {
        Binarize::w1a1().activations(SignActivations::FourBits)
    }

    /// A bit for weights, two for activations.
    ///
    /// ```
    /// use brain_blitz::prelude::*;
    /// let mut cx = Graph::new();
    /// let x = cx.input((1, 4), DType::F32).set([[0.5, -1.0, 9.0, 1.5]]); // 2 * [1, -1, 3, 1]
    /// let w = cx.input((2, 4), DType::F32).set([[0.5, 0.5, -0.5, 0.5], [3.0; 4]]);
    /// let y = x.matmul(w.transpose(0, 1)).retrieve();
    /// cx.compile((Generic, Binarize::w1a2().with_ends(), LlvmCpu::default()), ());
    /// cx.execute();
    /// assert_eq!(y.data(), [-2.0, 24.0]);
    /// ```
    pub fn w1a2() -> Binarize {
        Binarize::w1a1().activations(SignActivations::TwoBits)
    }

    /// Two bits for weights, the sum of two bases of signs, and two for activations: four products of signs.
    pub fn w2a2() -> Binarize {
        Binarize::w1a2().bases(2)
    }

    /// Other activations.
    pub fn activations(mut self, activations: SignActivations) -> Binarize {
        self.scheme.activations = activations;
        self
    }

    /// Weights are sums of this many scaled signs, 1 to 4.
    ///
    /// # Panics
    /// If there are more or none.
    #[track_caller]
    pub fn bases(mut self, bases: usize) -> Binarize {
        assert!(
            (1..=4).contains(&bases),
            "signs have 1 to 4 bases, not {bases}"
        );
        (self.scheme.bases, self.scheme.fit.ternary) = (bases, false);
        self
    }

    /// Weights have three values, 0 among them, and take two bits.
    pub fn ternary(mut self) -> Binarize {
        (self.scheme.bases, self.scheme.fit.ternary) = (2, true);
        self
    }

    /// Rounds scales of weights to `f16`.
    pub fn half_scales(mut self) -> Binarize {
        self.scheme.fit.half_scales = true;
        self
    }

    /// Takes the first and the last layers too.
    pub fn with_ends(mut self) -> Binarize {
        self.spares_ends = false;
        self
    }

    /// Chooses signs and scales of weights that `calibration` knows for the least error in what the graph computes: with
    /// mean squares by weighing errors, with mean products by making up for errors in other columns too (GPTQ: Frantar et al.
    /// 2022).
    ///
    /// ```
    /// use brain_blitz::compilers::Calibrate;
    /// use brain_blitz::prelude::*;
    /// let layer = |cx: &mut Graph| {
    ///     let w = cx.input((2, 2), DType::F32).set_name("w").set([[1.0, 3.0], [2.0, 2.0]]);
    ///     let x = cx.input(('s', 2), DType::F32).set([[1.0, 2.0]]);
    ///     x.matmul(w.transpose(0, 1)).retrieve()
    /// };
    /// let mut cx = Graph::new();
    /// layer(&mut cx);
    /// let mut calibrator = Calibrate::default().with_products(1024).add_to(&mut cx)?;
    /// cx.set_dim('s', 1);
    /// cx.execute();
    /// calibrator.observe(&cx)?;
    /// let mut cx = Graph::new();
    /// let y = layer(&mut cx);
    /// let signs = Binarize::w1a8().with_ends().calibrated(calibrator.finish()?);
    /// let report = cx.compile((Generic, signs), ());
    /// assert!(report.signed[0].output_error.unwrap() < 1e-3); // 1 * 1 + 2 * 3 is 7, and so is (1 + 2) * 7 / 3
    /// # Ok::<(), brain_blitz::Error>(())
    /// ```
    pub fn calibrated(mut self, calibration: impl Into<Arc<Calibration>>) -> Binarize {
        self.calibration = calibration.into();
        self
    }

    /// Lets `plan` change what becomes of each layer: it is told the layer and what would be done.
    ///
    /// ```
    /// use brain_blitz::compilers::binarize::Choice;
    /// use brain_blitz::prelude::*;
    /// let keep_gates = Binarize::w1a8().with_ends().plan(|layer, choice| match layer.name.contains("gate") {
    ///     true => Choice::Stay("gates are sensitive".into()),
    ///     false => choice,
    /// });
    /// # let mut cx = Graph::new();
    /// # let x = cx.input(('s', 32), DType::F32);
    /// # let w = cx.input((9, 32), DType::F32).set_name("gate.weight");
    /// # x.matmul(w.transpose(0, 1)).retrieve();
    /// let report = cx.compile((Generic, keep_gates), ());
    /// assert!(report.to_string().contains("gate.weight [9, 32] stays: gates are sensitive"));
    /// ```
    pub fn plan(
        mut self,
        plan: impl Fn(&Layer, Choice) -> Choice + Send + Sync + 'static,
    ) -> Binarize {
        self.plan = Some(Arc::new(plan));
        self
    }

    /// What becomes of a layer.
    fn choose(&self, layer: &Layer) -> Choice {
        let choice = self.proposal(layer);
        match &self.plan {
            Some(plan) => plan(layer, choice),
            None => choice,
        }
    }

    fn proposal(&self, layer: &Layer) -> Choice {
        let ends = [
            (layer.is_first, "no other layer comes before it"),
            (layer.is_last, "no other layer comes after it"),
        ];
        if let Some(activations) = layer.rounded {
            let scheme = SignScheme {
                activations,
                ..self.scheme
            };
            let why = "the graph rounds its activations itself";
            return Choice::Binarize(scheme, why.into());
        }
        if let Some((_, why)) = ends.iter().find(|(is, _)| *is && self.spares_ends) {
            return Choice::Stay((*why).into());
        }
        let mut scheme = self.scheme;
        let is_mostly_sign = matches!(
            scheme.activations,
            SignActivations::Signs | SignActivations::ScaledSigns | SignActivations::TwoBits
        );
        if is_mostly_sign && layer.is_one_signed {
            scheme.activations = SignActivations::Bytes;
            let why = "8-bit activations, for these are never negative";
            return Choice::Binarize(scheme, why.into());
        }
        Choice::Binarize(scheme, "a layer in the middle".into())
    }
}

impl std::fmt::Debug for Binarize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (spared, planned) = (self.spares_ends, self.plan.is_some());
        let scheme = self.scheme;
        write!(
            f,
            "Binarize({scheme:?}, ends spared: {spared}, planned: {planned})"
        )
    }
}

impl Compiler for Binarize {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        let chosen = Chosen::default();
        list.push(SignWeights::new(self.clone(), chosen.clone()));
        list.push(SignFactors::new(chosen));
        let clean: Vec<Box<dyn super::Pass>> = vec![
            Box::new(super::generic::DeadCode),
            Box::new(super::generic::Cse),
        ];
        list.group(Group::Fixpoint, clean);
    }
}
