//! The stages of a student whose activations get fewer and fewer bits.
//!
//! ```text
//! [Bytes, FourBits, TwoBits, ScaledSigns]  →  W8A8, W1A8, W1A4, W1A2, W1A1
//! ```
//! Fewer bits of activations are harder than fewer bits of weights, and each stage starts near where it ends if the one before had
//! little more (Liu et al. 2022, "BiT", section 3.3). What it deliberately does not do: choose layers, or measure when a
//! stage is done.

use super::Stage;
use crate::compilers::Binarize;
use crate::compilers::binarize::TrainedWeights;
use crate::nn::{LowBit, SignInputs};

/// A twentieth of the steps with weights and activations of 8 bits, at a tenth of the rate; then weights of `low_bit` with what
/// `path` says of their inputs, one stage after the other. The last one takes twice as many steps as each before it.
/// `layers` says which layers are rounded when inputs become this.
///
/// ```
/// use brain_blitz::nn::{LowBit, SignInputs};
/// use brain_blitz::prelude::*;
/// use brain_blitz::train::distill::stages;
/// let path = [SignInputs::Bytes, SignInputs::FourBits, SignInputs::TwoBits];
/// let layers = |inputs| Binarize::w1a1().activations(inputs);
/// let stages = stages(&path, LowBit::w1a1(), (200, 2e-3), &layers);
/// let told: Vec<(&str, u32)> = stages.iter().map(|stage| (&stage.name[..], stage.steps)).collect();
/// assert_eq!(told, [("W8A8", 10), ("W1A8", 47), ("W1A4", 47), ("W1A2", 96)]);
/// ```
///
/// # Panics
/// If the path is empty.
#[track_caller]
pub fn stages(
    path: &[SignInputs],
    low_bit: LowBit,
    (steps, rate): (u32, f64),
    layers: &dyn Fn(SignInputs) -> Binarize,
) -> Vec<Stage> {
    assert!(!path.is_empty(), "a student's inputs become something");
    let first = steps / 20;
    let left = steps - first;
    let each = left / (path.len() as u32 + 1);
    let mut out = vec![Stage {
        name: "W8A8".into(),
        layers: layers(SignInputs::Bytes),
        weights: TrainedWeights::Bytes,
        steps: first,
        rate: rate / 10.0,
    }];
    for (at, &inputs) in path.iter().enumerate() {
        let before = path.len() as u32 - 1;
        let is_last = at as u32 == before;
        out.push(Stage {
            name: name(low_bit, inputs),
            layers: layers(inputs),
            weights: TrainedWeights::Signs(low_bit),
            steps: if is_last { left - before * each } else { each },
            rate,
        });
    }
    out
}

/// As the literature calls it: bits of weights, then of activations.
fn name(low_bit: LowBit, inputs: SignInputs) -> String {
    let weights = if low_bit.fit.ternary { "W1.58" } else { "W1" };
    let activations = match inputs {
        SignInputs::Kept => "A32",
        SignInputs::Bytes => "A8",
        SignInputs::FourBits => "A4",
        SignInputs::TwoBits => "A2",
        SignInputs::Signs | SignInputs::ScaledSigns => "A1",
    };
    format!("{weights}{activations}")
}
