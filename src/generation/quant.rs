//! What a model's weights and activations become when it is loaded: blocks, or signs.

use std::str::FromStr;
use std::sync::Arc;

use crate::blocks::BlockType;
use crate::compilers::binarize::{Choice, SignActivations};
use crate::compilers::{Binarize, Generic, Quantize, Report};
use crate::error::{Error, Result};
use crate::formats::Calibration;
use crate::graph::Graph;

/// A way to store and compute a model with fewer bits, without training. Weights that cannot be stored so stay as they are.
///
/// ```
/// use brain_blitz::generation::Quant;
/// let names: Vec<String> = Quant::bits().map(|quant| quant.to_string()).collect();
/// assert_eq!(names[..4], ["Q8_0-A32", "Q8_0", "Q4_0-A32", "Q4_0"]);
/// assert_eq!("w1.58a8".parse::<Quant>()?.to_string(), "W1.58A8");
/// assert!("w5".parse::<Quant>().is_err());
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Quant {
    /// Weights in blocks, activations of 8 bits.
    Blocks(BlockType),
    /// Weights in blocks, activations as they are.
    BlockWeights(BlockType),
    /// The matrices of layers as signs. Embedding and output layer, which no network is of use without, in blocks of 8 bits.
    Signs(SignWeights, SignActivations),
}

/// What weights of layers become.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SignWeights {
    /// One bit.
    One,
    /// Three values, log2(3) = 1.58 bits.
    Three,
    /// Two bits: the sum of two bases of signs.
    TwoBases,
}

impl SignWeights {
    const ALL: [(SignWeights, &str); 3] = [
        (SignWeights::TwoBases, "W2"),
        (SignWeights::Three, "W1.58"),
        (SignWeights::One, "W1"),
    ];
}

/// Activations of signs' layers, and how names end.
const ACTIVATIONS: [(SignActivations, &str); 5] = [
    (SignActivations::Kept, ""),
    (SignActivations::Bytes, "A8"),
    (SignActivations::FourBits, "A4"),
    (SignActivations::TwoBits, "A2"),
    (SignActivations::ScaledSigns, "A1"),
];

impl Quant {
    /// Every way: all types of blocks, then those of [`Quant::bits`] that are not among them.
    pub fn all() -> impl Iterator<Item = Quant> {
        let blocks = BlockType::all().filter(|ty| ty.can_quantize() && ty.block_len() > 1);
        let others = Quant::bits().filter(|quant| !matches!(quant, Quant::Blocks(_)));
        blocks.map(Quant::Blocks).chain(others)
    }

    /// From 8 bits down to one: weights only, then with activations of 8 bits, then, of signs, of 4, of 2 and of one bit.
    pub fn bits() -> impl Iterator<Item = Quant> {
        let blocks = [BlockType::Q8_0, BlockType::Q4_0];
        let blocks = blocks.map(|ty| [Quant::BlockWeights(ty), Quant::Blocks(ty)]);
        let signs = SignWeights::ALL.into_iter().flat_map(|(weights, _)| {
            ACTIVATIONS.map(|(activations, _)| Quant::Signs(weights, activations))
        });
        blocks.into_iter().flatten().chain(signs)
    }

    /// Rewrites a model's recorded graph, whose parameters have data; scales are chosen by `calibration`.
    ///
    /// # Errors
    /// Those of compiling, among them numbers that cannot be stored.
    pub(super) fn compile(
        self,
        graph: &mut Graph,
        calibration: &Arc<Calibration>,
    ) -> Result<Report> {
        let blocks = |ty| Quantize::blocks(ty).calibrated(calibration.clone());
        match self {
            Quant::Blocks(ty) => graph.try_compile((Generic, blocks(ty)), ()),
            Quant::BlockWeights(ty) => graph.try_compile((Generic, blocks(ty).weights_only()), ()),
            Quant::Signs(weights, activations) => {
                let signs = signs(weights, activations).calibrated(calibration.clone());
                let rest = blocks(BlockType::Q8_0);
                let rest = match activations {
                    SignActivations::Kept => rest.weights_only(),
                    _ => rest,
                };
                let mut report = graph.try_compile((Generic, signs), ())?;
                report.stored = graph.try_compile((Generic, rest), ())?.stored;
                Ok(report)
            }
        }
    }
}

/// All layers but the output layer. What a gated layer's last matrix reads is mostly of one sign, and keeps 8 bits.
fn signs(weights: SignWeights, activations: SignActivations) -> Binarize {
    let binarize = Binarize::w1a1().activations(activations).half_scales();
    let binarize = match weights {
        SignWeights::One => binarize,
        SignWeights::Three => binarize.ternary(),
        SignWeights::TwoBases => binarize.bases(2),
    };
    binarize
        .with_ends()
        .plan(move |layer, choice| match choice {
            Choice::Binarize(..) if layer.is_last => {
                Choice::Stay("no other layer comes after it".into())
            }
            Choice::Binarize(mut scheme, _)
                if layer.name.contains("down_proj")
                    && !matches!(
                        scheme.activations,
                        SignActivations::Kept | SignActivations::Bytes
                    ) =>
            {
                scheme.activations = SignActivations::Bytes;
                Choice::Binarize(scheme, "8-bit activations, for its input is gated".into())
            }
            choice => choice,
        })
}

impl From<BlockType> for Quant {
    fn from(ty: BlockType) -> Quant {
        Quant::Blocks(ty)
    }
}

impl std::fmt::Display for Quant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Quant::Blocks(ty) => write!(f, "{ty}"),
            Quant::BlockWeights(ty) => write!(f, "{ty}-A32"),
            Quant::Signs(weights, activations) => {
                let weights = SignWeights::ALL.iter().find(|row| row.0 == *weights);
                let end = ACTIVATIONS.iter().find(|row| row.0 == *activations);
                // Signs without a size have one bit too.
                let end = end.map_or("A1", |row| row.1);
                write!(f, "{}{end}", weights.expect("all have names").1)
            }
        }
    }
}

impl FromStr for Quant {
    type Err = Error;

    fn from_str(text: &str) -> Result<Quant> {
        let mut known = Quant::all();
        let found = known.find(|quant| quant.to_string().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let names: Vec<String> = Quant::all()
                .map(|quant| quant.to_string().to_lowercase())
                .collect();
            Error::msg(format!("types are {}", names.join(", ")))
        })
    }
}
