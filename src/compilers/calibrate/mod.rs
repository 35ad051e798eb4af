//! `Calibrate`: what the weights of a graph are multiplied by, on sample data.
//!
//! | pass | before → after |
//! |---|---|
//! | [`ColumnSums`] | a product with whole rows of a constant → the same, and sums over the other factor's columns |
//! | [`RowFactors`] | a product with whole rows of a constant → the same, times a factor for each row |
//!
//! ```text
//! %2 = mul(%1 {..}, %0 {..})             %2 = mul(%1 {..}, %0 {..}); %3 = sum_reduce<2>(%2) : f32[s, 9]
//! %3 = sum_reduce<2>(%2) : f32[s, 9]  →  %4 = mul(%1, %1); %5 = sum_reduce<0>(%4) : f32[64]
//!                                        %6 = mul(%1 {..}, %1 {..}); %7 = sum_reduce<0>(%6) : f32[64, 64]
//! ```
//! Products are found as `Quantize` and `Binarize` find theirs: by use, in any graph, with weights in any format and in blocks.
//! The sums are results like others, so that they run wherever the graph runs; a [`Calibrator`] adds them up over executions
//! in `f64`. What comes out, a [`Calibration`], makes `Quantize` and `Binarize` choose scales (and signs) of least error in what
//! the graph computes: its mean squares as llama.cpp's importance matrices, its mean products as GPTQ's Hessians (Frantar
//! et al. 2022, section 3).
//!
//! What it deliberately does not do: calibrate layers with inputs that earlier layers' rounding has changed already; products
//! along another axis than a weight's last.

mod factors;
mod sums;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use factors::Instead;
pub use factors::RowFactors;
pub use sums::ColumnSums;

use super::{Compiler, PassList, Report};
use crate::blocks::ColumnStats;
use crate::error::{Error, Result};
use crate::formats::Calibration;
use crate::graph::{Dag, Graph, GraphTensor, NodeIndex};
use crate::op::Op;
use crate::shape::Expr;

/// How a graph is calibrated; see the [module](self).
///
/// ```
/// use brain_blitz::compilers::{Calibrate, Quantize};
/// use brain_blitz::prelude::*;
/// let model = |cx: &mut Graph| {
///     let x = cx.input(('s', 32), DType::F32);
///     let w = cx.input((3, 32), DType::F32).set_name("w.weight").set(vec![0.5; 96]);
///     (x, x.matmul(w.transpose(0, 1)).retrieve())
/// };
/// let mut cx = Graph::new();
/// let (x, _) = model(&mut cx);
/// let mut calibrator = Calibrate::default().add_to(&mut cx)?;
/// cx.compile(<(Generic, LlvmCpu)>::default(), ());
/// for sample in [1.0, 3.0] {
///     x.set(vec![sample; 64]);
///     cx.set_dim('s', 2);
///     cx.execute();
///     calibrator.observe(&cx)?;
/// }
/// let calibration = calibrator.finish()?;
/// assert_eq!(calibration.get("w.weight").unwrap().mean_squares(), [5.0; 32]);
///
/// let mut cx = Graph::new();
/// model(&mut cx);
/// let report = cx.compile((Generic, Quantize::q4_0().calibrated(calibration)), ());
/// assert!(report.stored[0].output_error.is_some());
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Calibrate {
    widest: usize,
    /// Of which weights products are taken, if not of all.
    only: Option<Arc<BTreeSet<String>>>,
}

impl Calibrate {
    /// Also takes mean products of all pairs of columns of weights with up to `widest` columns: that many numbers squared for
    /// each weight.
    pub fn with_products(self, widest: usize) -> Calibrate {
        Calibrate { widest, ..self }
    }

    /// Takes mean products of these weights only: those of a whole model may be more than there is memory for.
    pub fn only(self, names: impl IntoIterator<Item = String>) -> Calibrate {
        let names: BTreeSet<String> = names.into_iter().collect();
        Calibrate {
            only: Some(Arc::new(names)),
            ..self
        }
    }

    /// Whether products are taken of a weight with so many columns.
    fn takes_products(&self, name: &str, columns: usize) -> bool {
        let is_one = self.only.as_ref().is_none_or(|only| only.contains(name));
        columns <= self.widest && is_one
    }

    /// Adds the sums to a graph's results: to be called before it is compiled for a machine, and with its results retrieved:
    /// products that none of them needs are not looked at.
    ///
    /// # Errors
    /// A circle in the graph.
    pub fn add_to(self, cx: &mut Graph) -> Result<Calibrator> {
        // The pass finds the same in the same order: nothing changes the graph before it.
        let found = cx.inspect(|dag| sums::find(dag, &self))?;
        let report = cx.try_compile(self, ())?;
        let mut values = report.values.into_iter().map(GraphTensor::retrieve);
        let mut site = |found: sums::Found| {
            let squares = values.next()?;
            let products = if found.with_products {
                values.next()
            } else {
                None
            };
            Some(Site {
                name: found.name,
                columns: found.columns,
                rows: found.rows,
                squares,
                products,
            })
        };
        let sites: Option<Vec<Site>> = found.into_iter().map(&mut site).collect();
        Ok(Calibrator {
            graph: cx.id(),
            sites: sites.expect("the pass exposed what it found"),
            sums: BTreeMap::new(),
        })
    }
}

impl Compiler for Calibrate {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        list.push(ColumnSums::new(self.clone()));
    }
}

/// The sums of one product.
struct Site {
    name: String,
    columns: usize,
    /// How many rows the other factor has.
    rows: Expr,
    squares: GraphTensor,
    products: Option<GraphTensor>,
}

/// Sums over executions.
struct Sums {
    rows: u64,
    squares: Vec<f64>,
    products: Option<Vec<f64>>,
}

/// Adds up what a graph's weights are multiplied by; see [`Calibrate`].
pub struct Calibrator {
    graph: u32,
    sites: Vec<Site>,
    sums: BTreeMap<String, Sums>,
}

impl Calibrator {
    /// The names of the weights, in the order of the graph; those without have the number of the input.
    pub fn weights(&self) -> impl Iterator<Item = &str> {
        self.sites.iter().map(|site| site.name.as_str())
    }

    /// Counts what the graph's last execution multiplied.
    ///
    /// # Errors
    /// If this is another graph, or it was not executed, or what it multiplied is not finite.
    pub fn observe(&mut self, cx: &Graph) -> Result<()> {
        if cx.id() != self.graph {
            return Err(Error::msg(
                "a calibrator observes the graph that it was made for",
            ));
        }
        let symbols = cx.lock().state.symbols.clone();
        for site in &self.sites {
            let rows = site
                .rows
                .eval(&symbols)
                .map_err(|e| Error::msg(e.to_string()))?;
            let squares = site.squares.try_array()?.into_f32();
            if squares.iter().any(|x| !x.is_finite()) {
                let name = &site.name;
                return Err(Error::msg(format!(
                    "what {name} is multiplied by is not finite"
                )));
            }
            let n = site.columns;
            let sums = self.sums.entry(site.name.clone()).or_insert_with(|| Sums {
                rows: 0,
                squares: vec![0.0; n],
                products: site.products.map(|_| vec![0.0; n * n]),
            });
            let add = |sums: &mut [f64], x: &[f32]| {
                sums.iter_mut()
                    .zip(x)
                    .for_each(|(sum, x)| *sum += f64::from(*x));
            };
            sums.rows += u64::try_from(rows).unwrap_or(0);
            add(&mut sums.squares, &squares);
            if let (Some(sums), Some(products)) = (&mut sums.products, site.products) {
                add(sums, &products.try_array()?.into_f32());
            }
        }
        Ok(())
    }

    /// The means over everything that was observed.
    ///
    /// # Errors
    /// If nothing was observed, or there is no product with a constant.
    pub fn finish(self) -> Result<Calibration> {
        if self.sites.is_empty() {
            return Err(Error::msg(
                "no constant is multiplied by whole rows: nothing to calibrate",
            ));
        }
        let mut calibration = Calibration::default();
        for (name, sums) in self.sums {
            if sums.rows == 0 {
                continue;
            }
            let mean = |sums: Vec<f64>, rows: u64| -> Vec<f32> {
                sums.into_iter()
                    .map(|sum| (sum / rows as f64) as f32)
                    .collect()
            };
            let products = sums.products.map(|products| mean(products, sums.rows));
            let stats = ColumnStats::new(sums.rows, mean(sums.squares, sums.rows), products)?;
            calibration.insert(name, stats);
        }
        match calibration.is_empty() {
            true => Err(Error::msg(
                "nothing was observed: execute the graph on samples first",
            )),
            false => Ok(calibration),
        }
    }
}

/// How calibrations call an input.
pub(crate) fn weight_name(dag: &Dag, input: NodeIndex) -> String {
    let node = dag.node(input);
    match (&node.name, &node.op) {
        (Some(name), _) if !name.is_empty() => name.to_string(),
        (_, Op::Input { id, .. }) => format!("input {id}"),
        _ => String::new(),
    }
}
