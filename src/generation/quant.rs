//! What a model's weights and activations become when it is loaded: blocks, or signs.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use crate::blocks::BlockType;
use crate::compilers::binarize::{Choice, SignActivations};
use crate::compilers::{Binarize, Generic, Quantize, Report};
use crate::error::{Error, Result};
use crate::formats::Calibration;
use crate::graph::Graph;
use crate::op::Op;

/// What models call their embedding.
const EMBEDDING: &str = "model.embed_tokens.weight";
/// What they call the output layer, where it is another matrix.
const OUTPUT: &str = "lm_head.weight";

/// A way to store and compute a model with fewer bits, without training. Weights that cannot be stored so stay as they are.
///
/// A type of blocks means what it means of a file: the output layer, which is the embedding where the model has no other,
/// gets [`BlockType::of_output_layer`] unless [`Options::embedding`](super::Options::embedding) says otherwise, and rows that
/// are no whole blocks get [`BlockType::fitting`].
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

    /// Rewrites a model's recorded graph, whose parameters have data and names; scales are chosen by `calibration`, and
    /// `embedding` is the type of embedding and output layer if it is told.
    ///
    /// # Errors
    /// Those of compiling, among them numbers that cannot be stored.
    pub(super) fn compile(
        self,
        graph: &mut Graph,
        embedding: Option<BlockType>,
        calibration: &Arc<Calibration>,
    ) -> Result<Report> {
        let rows = rows(graph);
        let blocks = |ty| {
            let types = types(ty, embedding, &rows);
            Quantize::mixed(move |name| types.get(name).copied()).calibrated(calibration.clone())
        };
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

/// The lengths of matrices' rows, by name.
fn rows(graph: &Graph) -> BTreeMap<String, usize> {
    graph.inspect(|dag| {
        let rows = dag.ids().filter_map(|id| {
            let node = dag.node(id);
            let (Op::Input { .. }, [_, row]) = (&node.op, &node.ty.dims[..]) else {
                return None;
            };
            Some((node.name.as_ref()?.to_string(), row.as_usize()?))
        });
        rows.collect()
    })
}

/// The type that each matrix has in a file of type `ty`.
fn types(
    ty: BlockType,
    embedding: Option<BlockType>,
    rows: &BTreeMap<String, usize>,
) -> BTreeMap<String, BlockType> {
    let has_output = rows.contains_key(OUTPUT);
    let types = rows.iter().map(|(name, row)| {
        let wanted = match name.as_str() {
            OUTPUT => embedding.unwrap_or_else(|| ty.of_output_layer()),
            EMBEDDING => embedding.unwrap_or_else(|| ty.of_embedding(has_output)),
            _ => ty,
        };
        (name.clone(), wanted.fitting(*row))
    });
    // Numbers that fit no blocks stay as they are.
    types.filter(|(_, ty)| ty.block_len() > 1).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use BlockType as T;

    /// The same as a converted file has, which `tests/gguf/convert` checks.
    #[test]
    fn a_type_is_that_of_a_file() {
        let named = |names: &[(&str, usize)]| -> BTreeMap<String, usize> {
            let rows = names.iter().map(|(name, row)| ((*name).to_owned(), *row));
            rows.collect()
        };
        let tied = named(&[(EMBEDDING, 512), ("up", 512), ("down", 96), ("odd", 40)]);
        let of = |rows: &BTreeMap<String, usize>, ty: T, told: Option<T>| {
            types(ty, told, rows).into_values().collect::<Vec<_>>()
        };
        // By name: down, embedding, up.
        assert_eq!(of(&tied, T::Q4_K, None), [T::Q5_0, T::Q6_K, T::Q4_K]);
        assert_eq!(of(&tied, T::Q4_0, Some(T::Q4_0)), [T::Q4_0; 3]);
        assert_eq!(of(&tied, T::Q8_0, None), [T::Q8_0; 3]);
        let untied = named(&[(EMBEDDING, 64), (OUTPUT, 64)]);
        // By name: output layer, embedding.
        assert_eq!(of(&untied, T::Q4_0, None), [T::Q8_0, T::Q4_0]);
        assert_eq!(of(&untied, T::Q2_0, None), [T::Q8_0, T::Q8_0]);
    }
}
