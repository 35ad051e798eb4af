//! What memory a graph will need, before it is executed.

use super::memory::MemoryPlan;
use super::schedule::Schedule;
use super::sizes::{buffer_sizes, elements_of};
use crate::error::Result;
use crate::graph::{Dag, NodeIndex};
use crate::shape::{RUN, Symbols};

/// The schedule and the memory plan that the executor will make, with these sizes, once every kernel has machine code.
#[derive(Clone, Debug, Default)]
pub struct Forecast {
    /// The steps, and which buffers they need.
    pub schedule: Schedule,
    /// Bytes of each of the schedule's buffers.
    pub sizes: Vec<usize>,
    /// Where the buffers lie.
    pub plan: MemoryPlan,
}

impl Forecast {
    /// Plans a graph.
    ///
    /// # Errors
    /// If the graph has a cycle, or a size depends on a symbol without value or is impossible.
    pub fn new(dag: &Dag, symbols: &Symbols) -> Result<Forecast> {
        let mut out = Forecast {
            schedule: Schedule::as_compiled(dag)?,
            ..Forecast::default()
        };
        let mut symbols = symbols.clone();
        if symbols.get(RUN).is_none() {
            symbols.set(RUN, 0);
        }
        buffer_sizes(dag, &out.schedule, &symbols, &mut out.sizes)?;
        out.plan.plan(&out.schedule.buffers, &out.sizes);
        Ok(out)
    }
}

/// The number of elements of a node's result, with these sizes.
///
/// # Errors
/// If a size depends on a symbol without value or is impossible.
pub fn elements(dag: &Dag, node: NodeIndex, symbols: &Symbols) -> Result<usize> {
    elements_of(dag, node, &dag.node(node).ty.dims, symbols)
}
