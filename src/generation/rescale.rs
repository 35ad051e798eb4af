//! Factors for the rows of rounded weights, so that a model gives again what it gave before they were rounded.
//!
//! Rounding does not only add noise: what a rounded layer gives is too large or too small on the average, since its inputs were
//! changed by the layers before it, and errors add up along the way. For row `r` of a matrix, with `y` what it gives in
//! the model as it was and `z` what it gives in the rounded one, for the same token of the same text,
//!
//! ```text
//! f[r] = sum(y z) / sum(z z)
//! ```
//!
//! makes the second the nearest to the first. All matrices are looked at at once, each with what the ones before it did to its
//! inputs; all factors together would repair a part of this twice, so that [`SHARE`] of what each is off from one is taken.
//! Factors are free: they go into the scales that blocks have anyway.
//!
//! Correcting what rounding does to the outputs of a channel is an old idea for convolutions (Finkelstein et al. 2019, Nagel et
//! al. 2019, which add to them); here it is a factor, since layers of language models have nothing to add to.
//!
//! Rejected: layer after layer with what rounded layers give (perplexity 1.079 times that of the model as it was, where
//! this has 1.070), and a second reading after the first (1.087 undamped).

use std::collections::BTreeMap;

use super::evaluate::Windows;
use super::session::{Options, Progress, Session};
use crate::compilers::Outputs;
use crate::compilers::calibrate::Output;
use crate::error::{Error, Result};
use crate::formats::{ModelConfig, Weights};

/// How much of what a row's factor is off from one is taken.
pub const SHARE: f64 = 0.7;
/// Rows are multiplied by no less than this, and by no more than one divided by it.
const LEAST: f64 = 0.5;

/// A model to compare.
pub struct Model<'a> {
    /// What it is.
    pub config: ModelConfig,
    /// Its parameters.
    pub weights: &'a dyn Weights,
}

/// A matrix, and which row of it in the model as it was each row of the rounded one is, if they are in another order.
pub type Matrices = BTreeMap<String, Option<Vec<usize>>>;

/// Lets both models read the windows of a text, and gives a factor for each row of these matrices. `options` say where they
/// run; their `quant` and `logits` are not looked at. `loading` is told how far loading is, `reading` how many windows
/// of how many are read.
///
/// # Errors
/// If a model cannot be loaded, or a window is longer than its context, or the matrices of both do not have the same rows.
pub fn row_factors(
    [original, rounded]: [Model<'_>; 2],
    matrices: &Matrices,
    windows: &Windows<'_>,
    options: &Options,
    loading: &mut dyn FnMut(Progress<'_>),
    reading: &mut dyn FnMut(usize, usize),
) -> Result<BTreeMap<String, Vec<f32>>> {
    let mut original = Watched::load(original, matrices, options, loading)?;
    let mut rounded = Watched::load(rounded, matrices, options, loading)?;
    let mut sums: BTreeMap<&str, Sums> = BTreeMap::new();
    let n_windows = windows.clone().count();
    for (n, window) in windows.clone().enumerate() {
        reading(n, n_windows);
        original.read(&window.inputs)?;
        rounded.read(&window.inputs)?;
        for (name, order) in matrices {
            let (Some(y), Some(z)) = (original.output(name), rounded.output(name)) else {
                continue;
            };
            if y.rows() != z.rows() || order.as_ref().is_some_and(|order| order.len() != z.rows()) {
                let (y, z) = (y.rows(), z.rows());
                return Err(Error::msg(format!("{name} has {y} rows, and {z} rounded")));
            }
            let sums = sums.entry(name).or_insert_with(|| Sums::new(z.rows()));
            sums.add(&y.try_data()?, &z.try_data()?, order.as_deref());
        }
    }
    reading(n_windows, n_windows);
    let factors = sums
        .into_iter()
        .map(|(name, sums)| (name.to_owned(), sums.factors()));
    Ok(factors.collect())
}

/// A loaded model that shows what its matrices give.
struct Watched {
    session: Session,
    outputs: Vec<Output>,
}

impl Watched {
    fn load(
        model: Model<'_>,
        matrices: &Matrices,
        options: &Options,
        loading: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Watched> {
        let options = Options {
            quant: None,
            logits: super::session::Rows::Last,
            ..options.clone()
        };
        let mut outputs = Vec::new();
        let session = Session::prepared(
            model.config,
            model.weights,
            &options,
            loading,
            &mut |graph| {
                outputs = Outputs::of(matrices.keys().cloned()).add_to(graph)?;
                Ok(())
            },
        )?;
        Ok(Watched { session, outputs })
    }

    fn read(&mut self, tokens: &[u32]) -> Result<()> {
        self.session.reset();
        self.session.feed(tokens)?;
        Ok(())
    }

    /// What a matrix gave, if it is multiplied once.
    fn output(&self, name: &str) -> Option<&Output> {
        let mut same = self.outputs.iter().filter(|output| output.name() == name);
        same.next().filter(|_| same.next().is_none())
    }
}

/// Sums over the tokens, for each row.
struct Sums {
    products: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    fn new(rows: usize) -> Sums {
        Sums {
            products: vec![0.0; rows],
            squares: vec![0.0; rows],
        }
    }

    fn add(&mut self, y: &[f32], z: &[f32], order: Option<&[usize]>) {
        let n = self.squares.len();
        for (y, z) in y.chunks_exact(n).zip(z.chunks_exact(n)) {
            let sums = self.products.iter_mut().zip(&mut self.squares);
            for (row, ((product, square), &z)) in sums.zip(z).enumerate() {
                let y = y[order.map_or(row, |order| order[row])];
                *product += f64::from(y) * f64::from(z);
                *square += f64::from(z) * f64::from(z);
            }
        }
    }

    fn factors(&self) -> Vec<f32> {
        let both = self.products.iter().zip(&self.squares);
        let factor = |(product, square): (&f64, &f64)| {
            let best = product / square;
            match best.is_finite() {
                true => (1.0 + SHARE * (best - 1.0)).clamp(LEAST, LEAST.recip()) as f32,
                // A row that gives nothing.
                false => 1.0,
            }
        };
        both.map(factor).collect()
    }
}
