//! What a student's layers become, and the stages on the way there.

use brain_blitz::compilers::binarize::{Choice, SignActivations, TrainedWeights};
use brain_blitz::formats::LowBitLayer;
use brain_blitz::nn::{LowBit, SignInputs};
use brain_blitz::prelude::*;
use brain_blitz::train::distill::Stage;

/// How few bits the student has. The embedding, which is the output layer too, keeps its numbers while it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Weights of three values, activations of 8 bits
    Ternary,
    /// Weights of one bit, activations of 8 bits
    W1a8,
    /// Weights and activations of one bit, but 8 bits for what `down_proj` reads
    W1a1,
}

impl Kind {
    /// The layers as they are stored.
    pub fn layers(self) -> Binarize {
        match self {
            Kind::Ternary => rounded(Binarize::w1a8().ternary()),
            Kind::W1a8 => rounded(Binarize::w1a8()),
            Kind::W1a1 => rounded(Binarize::w1a1()),
        }
    }

    /// What files declare of a layer.
    pub fn layer(self, name: &str) -> Option<LowBitLayer> {
        let inputs = match self {
            Kind::W1a1 if !name.contains("down_proj") => SignInputs::ScaledSigns,
            _ => SignInputs::Bytes,
        };
        let ternary = self == Kind::Ternary;
        let is_layer = name.contains("_proj");
        is_layer.then_some(LowBitLayer { ternary, inputs })
    }

    /// 8 bits for a twentieth of the steps; then the bits of weights, then those of activations.
    pub fn stages(self, steps: u32, rate: f64) -> Vec<Stage> {
        let stage = |name: &str, layers, weights, steps, rate| Stage {
            name: name.into(),
            layers,
            weights,
            steps,
            rate,
        };
        let first = steps / 20;
        let left = steps - first;
        let bytes = |layers| stage("W8A8", layers, TrainedWeights::Bytes, first, rate / 10.0);
        let low_bit = LowBit::w1a8().half_scales();
        let signs = TrainedWeights::Signs(low_bit);
        match self {
            Kind::Ternary => {
                let three = TrainedWeights::Signs(low_bit.ternary());
                vec![
                    bytes(self.layers()),
                    stage("ternary A8", self.layers(), three, left, rate),
                ]
            }
            Kind::W1a8 => vec![
                bytes(self.layers()),
                stage("W1A8", self.layers(), signs, left, rate),
            ],
            Kind::W1a1 => {
                let before = Kind::W1a8.layers();
                let second = left / 3;
                vec![
                    bytes(before.clone()),
                    stage("W1A8", before, signs, second, rate),
                    stage("W1A1", self.layers(), signs, left - second, rate),
                ]
            }
        }
    }
}

/// All projections; what `down_proj` reads has 8 bits always, for it is mostly of one sign.
fn rounded(layers: Binarize) -> Binarize {
    layers.half_scales().with_ends().plan(|layer, choice| {
        let is_down = layer.name.contains("down_proj");
        match choice {
            _ if layer.name.contains("embed_tokens") => {
                Choice::Stay("rows of it are looked up".into())
            }
            Choice::Binarize(mut scheme, _) if is_down => {
                scheme.activations = SignActivations::Bytes;
                Choice::Binarize(scheme, "8-bit activations, for its input is gated".into())
            }
            choice => choice,
        }
    })
}
