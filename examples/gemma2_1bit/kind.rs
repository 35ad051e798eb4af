//! What a student's layers become, and the stages on the way there.

use brain_blitz::compilers::binarize::{Choice, SignActivations};
use brain_blitz::formats::LowBitLayer;
use brain_blitz::nn::{LowBit, SignInputs};
use brain_blitz::prelude::*;
use brain_blitz::train::distill::{Stage, stages};

/// How few bits the student has. The embedding, which is the output layer too, keeps its numbers while it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Weights of three values, activations of 8 bits
    Ternary,
    /// Weights of one bit, activations of 8 bits
    W1a8,
    /// Weights of one bit, activations of 4, but 8 bits for what `down_proj` reads
    W1a4,
    /// The same with activations of 2 bits, after some steps with 4
    W1a2,
    /// Weights and activations of one bit, but 8 bits for what `down_proj` reads
    W1a1,
    /// The same, after some steps with activations of 4 and of 2 bits
    W1a1Gradual,
}

impl Kind {
    /// What activations become, one stage after the other.
    fn path(self) -> &'static [SignInputs] {
        use SignInputs::{Bytes, FourBits, ScaledSigns, TwoBits};
        match self {
            Kind::Ternary | Kind::W1a8 => &[Bytes],
            Kind::W1a4 => &[Bytes, FourBits],
            Kind::W1a2 => &[Bytes, FourBits, TwoBits],
            Kind::W1a1 => &[Bytes, ScaledSigns],
            Kind::W1a1Gradual => &[Bytes, FourBits, TwoBits, ScaledSigns],
        }
    }

    /// What they are in the end.
    fn inputs(self) -> SignInputs {
        *self.path().last().expect("no path is empty")
    }

    /// The layers as they are stored.
    pub fn layers(self) -> Binarize {
        self.layers_of(self.inputs())
    }

    fn layers_of(self, inputs: SignInputs) -> Binarize {
        let layers = Binarize::w1a1().activations(inputs);
        rounded(match self {
            Kind::Ternary => layers.ternary(),
            _ => layers,
        })
    }

    /// What files declare of a layer.
    pub fn layer(self, name: &str) -> Option<LowBitLayer> {
        let inputs = match name.contains("down_proj") {
            true => SignInputs::Bytes,
            false => self.inputs(),
        };
        let ternary = self == Kind::Ternary;
        let is_layer = name.contains("_proj");
        is_layer.then_some(LowBitLayer { ternary, inputs })
    }

    /// 8 bits for a twentieth of the steps; then the bits of weights, then those of activations.
    pub fn stages(self, steps: u32, rate: f64) -> Vec<Stage> {
        let low_bit = LowBit::w1a8().half_scales();
        let low_bit = match self {
            Kind::Ternary => low_bit.ternary(),
            _ => low_bit,
        };
        let layers = |inputs| self.layers_of(inputs);
        stages(self.path(), low_bit, (steps, rate), &layers)
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
