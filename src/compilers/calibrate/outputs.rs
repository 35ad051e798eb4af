//! Products with whole rows of a constant → the same, and what they give as further results of the graph.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Calibrate, sums};
use crate::compilers::{Compiler, Pass, PassList, Report};
use crate::error::Result;
use crate::graph::{Dag, Graph, GraphTensor, NodeIndex, NodeRef, Patch};
use crate::shape::View;

/// Makes what products with weights give results of the graph, so that it can be compared with what another graph's give.
///
/// ```
/// use brain_blitz::compilers::Outputs;
/// use brain_blitz::prelude::*;
/// let mut cx = Graph::new();
/// let x = cx.input((2, 32), DType::F32).set(vec![1.0; 64]);
/// let w = cx.input((3, 32), DType::F32).set_name("w.weight").set(vec![0.5; 96]);
/// let y = x.matmul(w.transpose(0, 1)).tanh().retrieve();
/// let outputs = Outputs::of(["w.weight".to_owned()]).add_to(&mut cx)?;
/// cx.compile(<(Generic, LlvmCpu)>::default(), ());
/// cx.execute();
/// assert_eq!((outputs[0].name(), outputs[0].rows()), ("w.weight", 3));
/// assert_eq!((outputs[0].try_data()?, y.data()[0]), (vec![16.0; 6], 16.0f32.tanh()));
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Clone)]
pub struct Outputs {
    names: Arc<BTreeSet<String>>,
}

/// What products with a weight give.
pub struct Output {
    name: String,
    rows: usize,
    value: GraphTensor,
}

impl Output {
    /// The weight's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rows the weight has, and every row of results numbers.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What the graph's last execution gave: a number for each row of the weight, and as many rows of these as the other
    /// factor has.
    ///
    /// # Errors
    /// If the graph was not executed.
    pub fn try_data(&self) -> Result<Vec<f32>> {
        Ok(self.value.try_array()?.into_f32())
    }
}

impl Outputs {
    /// Those of products with the weights of these names.
    pub fn of(names: impl IntoIterator<Item = String>) -> Outputs {
        let names: BTreeSet<String> = names.into_iter().collect();
        Outputs {
            names: Arc::new(names),
        }
    }

    /// Adds them to a graph's results, in the order of the graph: to be called before it is compiled for a machine. What is
    /// multiplied by rows in several axes is left out.
    ///
    /// # Errors
    /// A circle in the graph.
    pub fn add_to(self, cx: &mut Graph) -> Result<Vec<Output>> {
        // The pass finds the same in the same order: nothing changes the graph before it.
        let found = cx.inspect(|dag| self.find(dag))?;
        let report = cx.try_compile(self, ())?;
        let values = report.values.into_iter().map(GraphTensor::retrieve);
        let outputs = found.into_iter().zip(values);
        let outputs = outputs.map(|(found, value)| Output {
            name: found.name,
            rows: found.rows,
            value,
        });
        Ok(outputs.collect())
    }

    fn find(&self, dag: &Dag) -> Result<Vec<Found>> {
        let all = sums::find(dag, &Calibrate::default())?;
        let found = all.into_iter().filter_map(|site| {
            let output = site.output(dag)?;
            self.names.contains(&site.name).then(|| Found {
                rows: site.n_rows(),
                name: site.name,
                output,
            })
        });
        Ok(found.collect())
    }
}

/// A product whose result is asked for.
struct Found {
    name: String,
    rows: usize,
    output: (NodeIndex, View),
}

impl Compiler for Outputs {
    type Output = Report;

    fn passes(&self, list: &mut PassList) {
        list.push(ProductOutputs(self.clone()));
    }
}

/// The pass; a hit is a result.
pub struct ProductOutputs(Outputs);

impl Pass for ProductOutputs {
    fn name(&self) -> &str {
        "product-outputs"
    }

    fn run(&self, dag: &Dag) -> Result<Patch> {
        let mut patch = Patch::new().appending();
        for found in self.0.find(dag)? {
            let (sum, seen) = found.output;
            patch.expose(NodeRef::Old(sum), seen);
        }
        Ok(patch)
    }
}
